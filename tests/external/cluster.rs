//! The example `cluster`, in a real browser over either engine: a page that loses its node goes on with the other.

use serde_json::json;
use tidings::serve::bind;

use crate::support::webdriver::Browser;
use crate::support::{nats, redis};

#[path = "../../examples/cluster/src/node.rs"]
mod node;

const TEXTS: &str = "[...document.querySelectorAll('li')].map(item => item.textContent)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats_a_page_that_loses_its_node_goes_on_with_the_other() {
    let server = nats::Server::start();
    goes_on(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis_a_page_that_loses_its_node_goes_on_with_the_other() {
    let server = redis::Server::start(&[]);
    goes_on(&redis::url(server.address())).await;
}

async fn goes_on(engine: &str) {
    let listeners = [bind("127.0.0.1:0").await, bind("127.0.0.1:0").await];
    let listeners = listeners.map(|listener| listener.expect("a free port"));
    let urls: Vec<String> = listeners
        .iter()
        .map(|listener| format!("http://{}", listener.local_addr().expect("an address")))
        .collect();
    let nodes = listeners.map(|listener| {
        let (engine, urls) = (engine.to_owned(), urls.join(","));
        tokio::spawn(async move {
            let engine = node::connect(&engine, Some(node::Kept::default())).await?;
            node::run(listener, engine, urls).await
        })
    });
    let http = reqwest::Client::new();
    let post = async |url: String, text: &'static str| {
        let answer = http.post(url).body(text).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    };

    let browser = Browser::start().await;
    browser.open(&urls[0]).await;
    let streams = "document.querySelector('[role=status]').textContent.startsWith('streaming')";
    browser.wait_until(streams).await;
    // On the other node, and on its own.
    post(format!("{}/events/ann", urls[1]), "one").await;
    post(format!("{}/events/ann", urls[0]), "two").await;
    browser.wait_until(&format!("{TEXTS}.length >= 2")).await;

    // No other site stops it, nor one whose name leads here.
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("host", "evil.example"),
        ("host", "localhost.evil.example"),
    ] {
        let stop = http.post(format!("{}/stop", urls[0])).header(name, value);
        let answer = stop.send().await.expect("an answer");
        assert_eq!(answer.status(), 403, "{name}: {value}");
    }

    post(format!("{}/stop", urls[0]), "").await;
    // While it is on its way.
    post(format!("{}/events/ann", urls[1]), "three").await;
    let moved = format!(
        "document.querySelector('[role=status]').textContent.endsWith('{}')",
        urls[1]
    );
    browser.wait_until(&moved).await;
    post(format!("{}/events/ann", urls[1]), "four").await;
    browser.wait_until(&format!("{TEXTS}.length >= 4")).await;
    let texts = browser.eval(TEXTS).await;
    // The first two may have come in either order: they were sent on two nodes.
    let mut first = texts.as_array().expect("a list")[..2].to_vec();
    first.sort_by_key(ToString::to_string);
    assert_eq!(first, [json!("one"), json!("two")]);
    assert_eq!(
        texts.as_array().expect("a list")[2..],
        [json!("three"), json!("four")]
    );

    let [one, _two] = nodes;
    one.await
        .expect("no panic")
        .expect("it ended as it was told to");
}
