//! The example `agent_hub` and other sites: which hosts it answers to, whose posts it takes, what its page may do, and which
//! address it says that it has.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::hub::{Hub, Site};

/// Whatever changes something.
const POSTS: [&str; 12] = [
    "/users/ann/events/text",
    "/users/ann/events/a2a",
    "/users/ann/end",
    "/users/ann/drop",
    "/agui/ann?agent=echo",
    "/a2a/ann/rpc",
    "/a2a/ann/message:stream",
    "/a2a/ann/tasks/t:cancel",
    "/a2a/ann/tasks/t:subscribe",
    "/tanstack/ann",
    "/aisdk/ann/chat",
    "/aisdk/ann/chat/c/stop",
];

const GETS: [&str; 7] = [
    "/users/ann/streams/text",
    "/stats",
    "/index.js",
    "/a2a/ann/tasks/t",
    "/a2a/ann/.well-known/agent-card.json",
    "/tanstack/ann?threadId=t",
    "/aisdk/ann/chat/c/stream",
];

async fn ask(
    app: &Router,
    method: Method,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Body::from(body.to_owned()))
        .expect("a request");
    let response = app.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    // A stream does not end.
    let body = match parts.headers.get("content-type") {
        Some(kind) if kind == "text/event-stream" && parts.headers.get("retry-after").is_none() => {
            String::new()
        }
        _ => {
            let body = to_bytes(body, usize::MAX).await.expect("a body");
            String::from_utf8(body.into()).expect("UTF-8")
        }
    };
    (parts.status, parts.headers, body)
}

#[tokio::test]
async fn a_post_of_another_site_changes_nothing_with_or_without_a_content_type() {
    let app = Hub::router();
    let foreign: &[&[(&str, &str)]] = &[
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "http://localhost"),
        ],
        &[("origin", "https://evil.example")],
        &[("origin", "http://localhost:3001")],
        &[("origin", "http://localhost.evil.example")],
        &[("origin", "null")],
        &[("origin", "")],
    ];
    for headers in foreign {
        for kind in [None, Some("text/plain"), Some("application/json")] {
            let kind = kind.map(|kind| ("content-type", kind));
            let headers: Vec<_> = [("host", "localhost")]
                .into_iter()
                .chain(headers.iter().copied())
                .chain(kind)
                .collect();
            for path in POSTS {
                let (status, _, answer) =
                    ask(&app, Method::POST, path, &headers, r#"{"text":"x"}"#).await;
                assert_eq!(status, StatusCode::FORBIDDEN, "{path} {headers:?}");
                assert!(answer.contains("another site"), "{answer}");
            }
            for path in GETS {
                let (status, _, _) = ask(&app, Method::GET, path, &headers, "").await;
                assert_eq!(status, StatusCode::FORBIDDEN, "{path} {headers:?}");
            }
        }
    }
    let stats = ask(&app, Method::GET, "/stats", &[("host", "localhost")], "").await;
    let stats: Value = serde_json::from_str(&stats.2).expect("JSON");
    assert_eq!(
        (&stats["broadcasts"], &stats["registered"]),
        (&json!(0), &json!(0))
    );

    // A link may lead to the page, and the page and programs may do everything.
    let link = [("host", "localhost"), ("sec-fetch-site", "cross-site")];
    assert_eq!(
        ask(&app, Method::GET, "/", &link, "").await.0,
        StatusCode::OK
    );
    let own: &[&[(&str, &str)]] = &[
        &[],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none")],
        &[("origin", "http://localhost:3000")],
    ];
    for headers in own {
        let headers = [&[("host", "localhost:3000")], *headers].concat();
        for path in [
            "/users/ann/events/text",
            "/users/ann/end",
            "/users/ann/drop",
        ] {
            let (status, _, answer) =
                ask(&app, Method::POST, path, &headers, r#"{"text":"x"}"#).await;
            assert_eq!(status, StatusCode::OK, "{path} {headers:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_host_name_that_is_not_known_is_refused_whatever_is_asked_for() {
    let app = Hub::router_at(Site::default().host("hub.example"));
    let posts = POSTS.map(|path| (Method::POST, path));
    let gets = GETS.map(|path| (Method::GET, path));
    for (method, path) in posts.into_iter().chain(gets).chain([(Method::GET, "/")]) {
        for host in [
            "evil.example",
            "hub.example.evil.example:3000",
            "evil.example@hub.example",
            "10.0.0.1:3000",
            "",
        ] {
            let (status, _, answer) =
                ask(&app, method.clone(), path, &[("host", host)], "{}").await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} {host:?}");
            assert!(answer.contains("--host"), "{answer}");
        }
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(
            ask(&app, method.clone(), path, &two, "").await.0,
            StatusCode::FORBIDDEN
        );
        assert_eq!(
            ask(&app, method, path, &[], "").await.0,
            StatusCode::FORBIDDEN
        );
    }
    for host in [
        "hub.example",
        "Hub.Example.:81",
        "LOCALHOST:3000",
        "127.0.0.1",
        "[::1]:3000",
    ] {
        assert_eq!(
            ask(&app, Method::GET, "/", &[("host", host)], "").await.0,
            StatusCode::OK,
            "{host}"
        );
    }
    // HTTP/2 has it in the request's own address. What a proxy may say is believed on request only, and checked as well.
    for (uri, status) in [("http://hub.example/", 200), ("http://evil.example/", 403)] {
        assert_eq!(
            ask(&app, Method::GET, uri, &[], "").await.0,
            status,
            "{uri}"
        );
    }
    let proxied = Site::default().host("hub.example").believes_proxy(true);
    let proxied = Hub::router_at(proxied);
    for (host, forwarded, status) in [
        ("localhost", "hub.example", 200),
        ("localhost", "evil.example, hub.example", 200),
        ("localhost", "hub.example, evil.example", 403),
        ("localhost", "evil.example", 403),
        ("evil.example", "hub.example", 403),
    ] {
        let headers = [("host", host), ("x-forwarded-host", forwarded)];
        assert_eq!(
            ask(&proxied, Method::GET, "/", &headers, "").await.0,
            status,
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn every_answer_keeps_a_browser_from_framing_it_and_from_running_other_scripts() {
    let app = Hub::router();
    for path in [
        "/",
        "/index.css",
        "/index.js",
        "/tidings.js",
        "/stats",
        "/nothing",
        "/users/ann/streams/text",
    ] {
        for host in ["localhost", "evil.example"] {
            let (_, headers, _) = ask(&app, Method::GET, path, &[("host", host)], "").await;
            let policy = headers["content-security-policy"].to_str().expect("text");
            assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
            assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
            assert_eq!(headers["x-frame-options"], "DENY");
            assert_eq!(headers["x-content-type-options"], "nosniff");
        }
    }
    let (_, _, page) = ask(&app, Method::GET, "/", &[("host", "localhost")], "").await;
    for not_there in ["<style", "style=", "<script>", "onclick="] {
        assert!(!page.contains(not_there), "{not_there}");
    }
    for (path, kind) in [
        ("/index.css", "text/css; charset=utf-8"),
        ("/index.js", "text/javascript; charset=utf-8"),
        ("/tidings.js", "text/javascript; charset=utf-8"),
    ] {
        // The script loads the client.
        assert!(page.contains(&path[1..]) || path == "/tidings.js");
        let (status, headers, _) = ask(&app, Method::GET, path, &[("host", "localhost")], "").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["content-type"], kind);
    }
}

#[tokio::test]
async fn the_card_has_the_address_that_clients_use_behind_tls_and_proxies() {
    let card = async |site: Site, headers: &[(&str, &str)]| {
        let app = Hub::router_at(site);
        let path = "/a2a/ann/.well-known/agent-card.json";
        let (status, _, card) = ask(&app, Method::GET, path, headers, "").await;
        assert_eq!(status, StatusCode::OK, "{card}");
        let card: Value = serde_json::from_str(&card).expect("JSON");
        card["supportedInterfaces"][1]["url"]
            .as_str()
            .expect("a URL")
            .to_owned()
    };
    let forwarded = [
        ("host", "localhost:3000"),
        ("x-forwarded-host", "hub.example"),
        ("x-forwarded-proto", "https"),
    ];
    let site = || Site::default().host("hub.example");
    assert_eq!(
        card(site(), &forwarded).await,
        "http://localhost:3000/a2a/ann"
    );
    assert_eq!(
        card(site().believes_proxy(true), &forwarded).await,
        "https://hub.example/a2a/ann"
    );
    for odd in ["http", "HTTPS://evil.example/", "javascript", ""] {
        let headers = [("host", "hub.example"), ("x-forwarded-proto", odd)];
        let url = card(site().believes_proxy(true), &headers).await;
        assert_eq!(url, "http://hub.example/a2a/ann", "{odd:?}");
    }
    for url in ["https://agents.example/hub", "https://agents.example/hub/"] {
        let public = site().public_url(url).expect("a URL");
        assert_eq!(
            card(public, &forwarded).await,
            "https://agents.example/hub/a2a/ann"
        );
    }
    // It is a host that is answered to, and its page a page of the hub's.
    let app = Hub::router_at(
        Site::default()
            .public_url("https://agents.example/hub")
            .expect("a URL"),
    );
    for (host, status) in [
        ("agents.example", 200),
        ("localhost:3000", 200),
        ("evil.example", 403),
    ] {
        let headers = [("host", host), ("origin", "https://agents.example")];
        assert_eq!(
            ask(&app, Method::POST, "/users/ann/end", &headers, "")
                .await
                .0,
            status,
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_client_of_streams_that_finds_no_place_comes_back_whether_or_not_it_names_itself() {
    let hub = Hub::start().await;
    let url = hub.url(&["users", "ann", "streams", "text"]);
    let mut ten = Vec::new();
    for _ in 0..10 {
        ten.push(
            hub.client
                .get(url.clone())
                .send()
                .await
                .expect("a response"),
        );
    }
    // As browsers ask on HTTPS and to localhost, and as they do to other names.
    for named in [true, false] {
        let mut request = hub
            .client
            .get(url.clone())
            .header("accept", "text/event-stream");
        if named {
            request = request.header("sec-fetch-dest", "empty");
        }
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), 200, "{named}");
        let body = response.text().await.expect("a body");
        assert!(body.starts_with("retry: "), "{body:?}");
    }
    // A program that takes anything is told what is the matter.
    let response = hub.client.get(url).header("accept", "*/*").send().await;
    assert_eq!(response.expect("a response").status(), 429);
}
