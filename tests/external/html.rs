//! The example `html`: htmx, Turbo and Datastar in Chromium, the first two as their registry has them, and the streams that they read.

use std::fs;
use std::path::Path;

use axum::extract::Path as UrlPath;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use crate::html_example::{Hub, hub, router};
use crate::support::webdriver::Browser;
use crate::support::within::within;

/// A file of the installed packages. Its path names the version, as on a content delivery network.
async fn package(UrlPath(path): UrlPath<String>) -> impl IntoResponse {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/html");
    let folder = installed.join("node_modules");
    assert!(folder.is_dir(), "if it is missing: scripts/clients");
    let lock = fs::read_to_string(installed.join("package-lock.json")).expect("a lock file");
    let lock: serde_json::Value = serde_json::from_str(&lock).expect("JSON");
    let (name, rest) = path.split_once("/dist/").expect("a file below dist");
    let (name, version) = name.rsplit_once('@').expect("a version");
    let pinned = &lock["packages"][format!("node_modules/{name}")]["version"];
    assert_eq!(
        pinned, version,
        "{name}: the version of the example is tested"
    );
    match fs::read_to_string(folder.join(name).join("dist").join(rest)) {
        Ok(script) => Ok(([(CONTENT_TYPE, "text/javascript; charset=utf-8")], script)),
        Err(_) => Err(StatusCode::NOT_FOUND),
    }
}

/// The script of Datastar, of the version that the example names. The package that has it says which that is.
async fn datastar(UrlPath(version): UrlPath<String>) -> impl IntoResponse {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/html/datastar");
    let script = installed.join("starhtml/static/js/datastar-core.js");
    let script = fs::read_to_string(script).expect("if it is missing: scripts/clients");
    let version = version.strip_prefix("datastar@").expect("a version");
    assert!(script.starts_with(&format!("// Datastar v{version} ")));
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], script)
}

async fn start() -> (Hub, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let hub = hub().expect("valid settings");
    let app = router(hub.clone(), "")
        .route("/npm/{*path}", get(package))
        .route(
            "/gh/starfederation/{version}/bundles/datastar.js",
            get(datastar),
        );
    tokio::spawn(async { axum::serve(listener, app).await });
    (hub, base)
}

async fn wait_for_connections(hub: &Hub, library: &str, count: usize) {
    let there = async {
        while hub.connection_count(library) != count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within("connections", there).await;
}

async fn say(base: &str, text: &'static str) {
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("a client");
    let said = client.post(format!("{base}/say")).body(text).send().await;
    assert_eq!(said.expect("a response").status(), 204);
}

async fn wait_for_messages(browser: &Browser, expected: &[&str]) {
    let messages = "[...document.querySelectorAll('#messages li')].map(item => item.textContent)";
    let count = expected.len();
    browser
        .wait_until(&format!("{messages}.length >= {count}"))
        .await;
    assert_eq!(browser.eval(messages).await, json!(expected));
}

/// What a page must show as it is.
const TWO: &str = "<b>two</b> & three\nmode replace";

#[tokio::test]
async fn pages_get_html_resume_after_a_break_and_load_again_after_a_gap() {
    for library in ["htmx", "turbo", "datastar"] {
        let (hub, base) = start().await;
        let browser = Browser::start().await;
        browser.open(&format!("{base}/{library}")).await;
        wait_for_connections(&hub, library, 1).await;
        say(&base, "one").await;
        wait_for_messages(&browser, &["one"]).await;
        say(&base, TWO).await;
        wait_for_messages(&browser, &["one", TWO]).await;

        hub.disconnect_user(library);
        say(&base, "while it is away").await;
        let expected = ["one", TWO, "while it is away"];
        wait_for_messages(&browser, &expected).await;
        say(&base, "after").await;
        wait_for_messages(&browser, &[&expected[..], &["after"]].concat()).await;

        // As after a restart: the id it comes back with is of no history.
        browser.eval("window.isOld = true").await;
        hub.forget(library);
        browser.wait_until("window.isOld === undefined && document.querySelector('#messages')?.childElementCount === 0").await;
        wait_for_connections(&hub, library, 1).await;
        say(&base, "anew").await;
        wait_for_messages(&browser, &["anew"]).await;
    }
}
