//! Two processes of the example `agent_hub` share their events over either engine.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_testkit::SseRequest;
use tokio::time::sleep;

use crate::support::example::example;
use crate::support::networked::Server;
use crate::support::recipe::Program;
use crate::support::within::within;
use crate::support::{nats, redis};

async fn post(hub: &Program, text: &str) {
    let sent = reqwest::Client::new()
        .post(hub.url("/users/ann/events/text"))
        .json(&json!({ "text": text }))
        .send();
    let sent = within("an answer", sent).await.expect("an answer");
    assert_eq!(sent.status(), 200, "{text}");
}

/// Waits until every broadcaster of a hub says that the engine is there, or that it is not.
async fn until_connected(hub: &Program, is_connected: bool) {
    let figures = async || -> Value {
        let answer = reqwest::get(hub.url("/stats")).await.expect("an answer");
        answer.json().await.expect("JSON")
    };
    let waiting = async {
        loop {
            let stats = figures().await;
            let kinds = ["agui", "a2a", "context", "analytics"].map(|kind| &stats[kind]);
            let mut all = kinds.into_iter().chain([&stats]);
            if all.all(|one| one["backplane"]["connected"] == is_connected) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    within("the figures", waiting).await;
}

/// A run of the agent of one hub is asked for at the other one.
async fn follow_a_run(hubs: &[Program; 2]) {
    let words = "word ".repeat(100);
    let message = json!({ "id": "m", "role": "user", "content": words });
    let input = json!({ "threadId": "t", "runId": "r", "messages": [message] });
    let ask = async |hub: &Program| {
        let client = reqwest::Client::new();
        let asked = client.post(hub.url("/agui/ann?agent=echo")).json(&input);
        asked.send().await.expect("an answer")
    };
    let first = ask(&hubs[0]).await;
    let known = async {
        let joined = hubs[1].url("/tanstack/ann?offset=-1&runId=r");
        while reqwest::get(&joined).await.expect("an answer").status() != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    within("the other hub to hear of it", known).await;
    let joined = ask(&hubs[1]).await;
    let (first, joined) = (first.text().await, joined.text().await);
    let events = |text: String| -> Vec<String> {
        let data = text.lines().filter(|line| line.starts_with("data: "));
        data.map(str::to_owned).collect()
    };
    let first = events(first.expect("all of it"));
    assert!(first.iter().any(|line| line.contains("RUN_FINISHED")));
    assert_eq!(events(joined.expect("all of it")), first);
}

async fn share(mut server: impl Server, flag: &str, url: &str) {
    let args = ["--addr", "127.0.0.1:0", flag, url];
    let hubs = [
        Program::with_args("agent_hub", &args).await,
        Program::with_args("agent_hub", &args).await,
    ];
    let stream = SseRequest::get("/users/ann/streams/text");
    let mut stream = stream.connect(hubs[1].address()).await.expect("a stream");
    until_connected(&hubs[1], true).await;
    post(&hubs[0], "one").await;
    assert_eq!(stream.next().await.data, "one");

    follow_a_run(&hubs).await;

    server.kill();
    for hub in &hubs {
        until_connected(hub, false).await;
    }
    post(&hubs[0], "two").await;
    server.restart();
    until_connected(&hubs[1], true).await;
    // Behind a gap where the server keeps nothing over a restart.
    let arrived = stream.collect_until(|message| message.data == "two").await;
    assert!(arrived.len() <= 2, "{arrived:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats() {
    let server = nats::Server::start();
    let url = server.url();
    share(server, "--nats", &url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis() {
    let server = redis::Server::start(&[]);
    let url = redis::url(server.address());
    share(server, "--redis", &url).await;
}

#[test]
fn an_engine_that_is_not_there_is_an_error_without_its_password() {
    for (flag, url, name) in [
        ("--nats", "nats://ann:secret@127.0.0.1:1", "NATS"),
        ("--redis", "redis://ann:secret@127.0.0.1:1", "Redis"),
    ] {
        let ended = example("agent_hub").args([flag, url]).output();
        let ended = ended.expect("the program starts");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains(name) && !said.contains("secret"), "{said}");
    }
}

#[test]
fn there_is_one_engine() {
    let both = ["--nats", "nats://127.0.0.1", "--redis", "redis://127.0.0.1"];
    let ended = example("agent_hub").args(both).output();
    assert_eq!(ended.expect("the program starts").status.code(), Some(2));
}
