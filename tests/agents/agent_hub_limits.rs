//! What a request to the example `agent_hub` may be at the most, on each of its routes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::support::hub::{Hub, within};

const MOST_BODY: usize = 2 * 1024 * 1024;
const MOST_URI: usize = 16 * 1024;
const MOST_NAME: usize = 256;
const MOST_TEXT: usize = 16 * 1024;

/// Every route that takes a body, and what it is asked for beyond its path.
const POSTS: [&[&str]; 10] = [
    &["users", "ann", "events", "text"],
    &["users", "ann", "events", "agui"],
    &["users", "ann", "events", "a2a"],
    &["users", "ann", "events", "system"],
    &["users", "ann", "events", "analytics"],
    &["agui", "ann"],
    &["a2a", "ann", "rpc"],
    &["a2a", "ann", "message:stream"],
    &["tanstack", "ann"],
    &["aisdk", "ann", "chat"],
];

/// Every route that takes none.
const OTHERS: [(Method, &[&str], u16); 13] = [
    (
        Method::GET,
        &["a2a", "ann", "tasks", "none", "pushNotificationConfigs"],
        400,
    ),
    (Method::GET, &[], 200),
    (Method::GET, &["stats"], 200),
    (Method::POST, &["users", "ann", "drop"], 200),
    (Method::POST, &["users", "ann", "end"], 200),
    (Method::GET, &["a2a", "ann", "tasks", "none"], 404),
    (Method::POST, &["a2a", "ann", "tasks", "none:cancel"], 404),
    (
        Method::POST,
        &["a2a", "ann", "tasks", "none:subscribe"],
        404,
    ),
    (
        Method::GET,
        &["a2a", "ann", ".well-known", "agent-card.json"],
        200,
    ),
    (Method::GET, &["users", "ann", "streams", "none"], 404),
    (
        Method::GET,
        &["aisdk", "ann", "chat", "none", "stream"],
        204,
    ),
    (Method::POST, &["aisdk", "ann", "chat", "none", "stop"], 204),
    (Method::GET, &["tanstack", "ann"], 400),
];

async fn send(
    hub: &Hub,
    method: Method,
    path: &[&str],
    body: impl Into<reqwest::Body>,
) -> Response {
    let request = hub.client.request(method, hub.url(path)).body(body);
    let request = request.header("content-type", "application/json");
    within("a response", request.send())
        .await
        .expect("a response")
}

async fn post(hub: &Hub, path: &[&str], body: &Value) -> Response {
    send(hub, Method::POST, path, body.to_string()).await
}

#[track_caller]
fn assert_status(response: &Response, status: u16) {
    assert_eq!(response.status().as_u16(), status, "{}", response.url());
}

#[tokio::test]
async fn no_route_takes_a_body_beyond_the_limit() {
    let hub = Hub::start().await;
    for path in POSTS {
        // One byte too many: the server has read everything when it answers, so the answer cannot get lost in a reset.
        let body = "x".repeat(MOST_BODY + 1);
        assert_status(&send(&hub, Method::POST, path, body).await, 413);
        // As many are read, and are no event.
        let body = "x".repeat(MOST_BODY);
        let status = if path[2..] == ["rpc"] { 200 } else { 400 };
        assert_status(&send(&hub, Method::POST, path, body).await, status);
    }
}

#[tokio::test]
async fn what_takes_no_body_does_not_wait_for_one() {
    // Its body never comes.
    let stuck = || Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
    for (method, path, status) in OTHERS {
        let request = Request::builder()
            .method(method.as_str())
            .uri(format!("/{}", path.join("/")))
            .header("host", "localhost")
            .body(stuck())
            .expect("a request");
        let response = within("a response", Hub::router().oneshot(request)).await;
        let response = response.expect("it never fails");
        assert_eq!(response.status().as_u16(), status, "{path:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    for path in POSTS {
        let begun = tokio_stream::once(Ok::<_, std::io::Error>(Bytes::from("{")));
        let body = tokio_stream::StreamExt::chain(begun, tokio_stream::pending());
        let request = Request::post(format!("/{}", path.join("/")))
            .header("host", "localhost")
            .body(Body::from_stream(body))
            .expect("a request");
        let start = Instant::now();
        let response = Hub::router()
            .oneshot(request)
            .await
            .expect("it never fails");
        assert_eq!(response.status().as_u16(), 408, "{path:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }
}

#[tokio::test]
async fn no_route_takes_a_path_beyond_the_limit() {
    let hub = Hub::start().await;
    let posts = POSTS.map(|path| (Method::POST, path));
    let others = OTHERS.map(|(method, path, _)| (method, path));
    for (method, path) in posts.into_iter().chain(others) {
        let mut url = hub.url(path);
        url.query_pairs_mut().append_pair("padding", "");
        let room = MOST_URI - url.path().len() - "?".len() - url.query().map_or(0, str::len);
        for (padding, is_too_long) in [(room, false), (room + 1, true)] {
            let mut url = hub.url(path);
            let padding = "x".repeat(padding);
            url.query_pairs_mut().append_pair("padding", &padding);
            let request = hub.client.request(method.clone(), url).body("");
            let response = within("a response", request.send()).await;
            let status = response.expect("a response").status().as_u16();
            assert_eq!(status == 414, is_too_long, "{path:?}: {status}");
        }
    }
    // So a user's name has an end.
    let user = "u".repeat(MOST_URI);
    let path = ["users", &user, "streams", "text"];
    assert_status(&send(&hub, Method::GET, &path, "").await, 414);
}

/// Makes a body that has these two names.
type Make<'a> = &'a dyn Fn(&str, &str) -> Value;

#[tokio::test]
async fn names_that_the_hub_remembers_have_an_end() {
    let hub = Hub::start().await;
    let input =
        |thread: &str, run: &str| json!({ "threadId": thread, "runId": run, "messages": [] });
    let message = |task: &str, context: &str| {
        let parts = json!([{ "text": "x" }]);
        json!({ "message": {
            "messageId": "m", "role": "ROLE_USER", "parts": parts,
            "taskId": task, "contextId": context,
        }})
    };
    let status = |task: &str, context: &str| {
        let status = json!({ "state": "TASK_STATE_WORKING" });
        json!({ "statusUpdate": { "taskId": task, "contextId": context, "status": status } })
    };
    let (longest, too_long) = ("n".repeat(MOST_NAME), "n".repeat(MOST_NAME + 1));
    let step = |name: &str, agent: &str| json!({ "type": "STEP_STARTED", "stepName": name, "subagentRunId": agent });
    let call = |call: &str, message: &str| json!({ "type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": "t", "parentMessageId": message });
    let cases: [(&[&str], Make); 5] = [
        (&["users", "ann", "events", "agui"], &step),
        (&["users", "ann", "events", "agui"], &call),
        (&["agui", "ann"], &input),
        // A message names a task that there is.
        (&["users", "ann", "events", "a2a"], &status),
        (&["a2a", "ann", "message:stream"], &message),
    ];
    for (path, body) in cases {
        for (one, other) in [(&*too_long, "o"), ("o", &*too_long)] {
            let response = post(&hub, path, &body(one, other)).await;
            assert_status(&response, 400);
            let sentence = response.text().await.expect("a body");
            assert!(sentence.contains("at most 256 bytes"), "{sentence}");
        }
        assert_status(&post(&hub, path, &body(&longest, &longest)).await, 200);
    }
    // Over JSON-RPC it is an error like others.
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": message(&too_long, "o"),
    });
    let answer: Value = post(&hub, &["a2a", "ann", "rpc"], &call)
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

#[tokio::test]
async fn the_id_of_a_call_has_an_end() {
    let hub = Hub::start().await;
    // With its quotes.
    for (len, code) in [(MOST_NAME - 2, -32001), (MOST_NAME - 1, -32600)] {
        let id = "i".repeat(len);
        let call = json!({
            "jsonrpc": "2.0", "id": id, "method": "GetTask", "params": { "id": "none" },
        });
        let answer = post(&hub, &["a2a", "ann", "rpc"], &call).await;
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert_eq!(answer["id"] == id, code == -32001, "{answer}");
    }
}

/// Lets the agent work for this user, and does not wait for it. Each message is another one.
async fn let_work(hub: &Hub, user: &str, text: &str) -> Response {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let id = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
    let parts = json!([{ "text": text }]);
    let message = json!({ "message": { "messageId": id, "role": "ROLE_USER", "parts": parts } });
    post(hub, &["a2a", user, "message:stream"], &message).await
}

#[tokio::test]
async fn the_agent_does_so_much_at_a_time_and_no_more() {
    let hub = Hub::start().await;
    let long = "a ".repeat(MOST_TEXT / 2);
    assert_status(&let_work(&hub, "ann", &format!("{long}a")).await, 400);
    for n in 0..10 {
        let user = format!("user {n}");
        for _ in 0..10 {
            // The client has gone as soon as it has the head. The agent works on.
            assert_status(&let_work(&hub, &user, &long).await, 200);
        }
        if n == 0 {
            assert_status(&let_work(&hub, &user, "x").await, 429);
            let input = json!({
                "threadId": "t", "runId": "r",
                "messages": [{ "id": "m", "role": "user", "content": "x" }],
            });
            let mut url = hub.url(&["agui", &user]);
            url.set_query(Some("agent=echo"));
            let request = hub.client.post(url).json(&input);
            let response = within("a response", request.send()).await;
            assert_status(&response.expect("a response"), 429);
        }
    }
    assert_status(&let_work(&hub, "one more", "x").await, 503);
}

#[tokio::test]
async fn the_agent_has_time_again_when_it_is_done() {
    let hub = Hub::start().await;
    // A second of work, in which ten requests are made.
    let text = "x ".repeat(50);
    for _ in 0..3 {
        let mut streams = Vec::new();
        for _ in 0..10 {
            // A stream ends a moment before the agent is done.
            let free = async {
                loop {
                    let response = let_work(&hub, "ann", &text).await;
                    if response.status() != 429 {
                        break response;
                    }
                }
            };
            let response = within("a place", free).await;
            assert_status(&response, 200);
            streams.push(response);
        }
        assert_status(&let_work(&hub, "ann", &text).await, 429);
        for stream in streams {
            within("its end", stream.text()).await.expect("a stream");
        }
    }
}
