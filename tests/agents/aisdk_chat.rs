//! The AI SDK's chats at the example `agent_hub`: the SDK's own transport under node, and the bytes.

use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, request};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::process::Command;
use tower::ServiceExt;

use crate::support::hub::{Hub, within};
use crate::support::official::{INSTALL, place};

/// What the agent is sent in a chat.
fn message(chat: &str, text: &str) -> Value {
    json!({
        "id": chat,
        "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": text}]}],
        "trigger": "submit-message",
    })
}

/// A hub without a server, so that time can be paused: a run goes on only while everybody waits for it.
struct Routes(Router);

impl Routes {
    fn new() -> Self {
        Self(Hub::router())
    }

    async fn call(&self, request: request::Builder, body: String) -> Response {
        let request = request.header("host", "localhost").body(Body::from(body));
        let response = self.0.clone().oneshot(request.expect("a request"));
        response.await.expect("it never fails")
    }

    async fn post(&self, user: &str, message: &Value) -> Response {
        let request = Request::post(format!("/aisdk/{user}/chat"));
        self.call(request, message.to_string()).await
    }

    /// Has the agent answer in a chat of a user.
    async fn send(&self, user: &str, chat: &str, text: &str) -> Response {
        self.post(user, &message(chat, text)).await
    }

    async fn stop(&self, user: &str, chat: &str) -> Response {
        let request = Request::post(format!("/aisdk/{user}/chat/{chat}/stop"));
        self.call(request, String::new()).await
    }

    async fn resume(&self, user: &str, chat: &str) -> Response {
        let request = Request::get(format!("/aisdk/{user}/chat/{chat}/stream"));
        self.call(request, String::new()).await
    }
}

async fn whole(response: Response) -> String {
    let body = within("the end", response.into_body().collect()).await;
    let body = body.expect("a clean end").to_bytes();
    String::from_utf8(body.to_vec()).expect("UTF-8")
}

fn is_chunks(headers: &HeaderMap) -> bool {
    headers["x-vercel-ai-ui-message-stream"] == "v1"
        && headers["content-type"]
            .as_bytes()
            .starts_with(b"text/event-stream")
}

/// The chunks of a stream that ends with `[DONE]`.
fn chunks(text: &str) -> Vec<Value> {
    let chunks = text.strip_suffix("data: [DONE]\n\n");
    let chunks = chunks.unwrap_or_else(|| panic!("no end: {text}"));
    let lines = chunks
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    lines
        .map(|json| serde_json::from_str(json).expect("JSON"))
        .collect()
}

/// The text of these chunks.
fn said(chunks: &[Value]) -> String {
    let deltas = chunks.iter().filter(|chunk| chunk["type"] == "text-delta");
    deltas
        .map(|chunk| chunk["delta"].as_str().expect("a string"))
        .collect()
}

#[tokio::test]
async fn the_ai_sdks_transport_resumes_a_run_that_was_cut() {
    let hub = Hub::start().await;
    let words: Vec<String> = (0..200).map(|n| format!("word{n}")).collect();
    let text = words.join(" ");
    let client = Command::new("node")
        .arg(place("aisdk_chat.mjs", "cut"))
        .arg(hub.url(&["aisdk", "ann", "chat"]).as_str())
        .arg(hub.url(&["users", "ann", "drop"]).as_str())
        .arg(&text)
        // Only the hub is talked to, and that is near.
        .env("NO_PROXY", "*")
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = within("the client", client).await.expect(INSTALL);
    assert!(output.status.success());
    let seen: Value = serde_json::from_slice(&output.stdout).expect("JSON");

    let pieces = seen["pieces"].as_u64().expect("a number");
    assert!((50..200).contains(&pieces), "{pieces}");
    assert!(seen["cut"].is_string(), "{}", seen["cut"]);

    let chunks = seen["whole"].as_array().expect("chunks");
    assert_eq!(chunks[0]["type"], "start");
    assert_eq!(chunks[chunks.len() - 1]["type"], "finish");
    assert_eq!(said(chunks), text);

    // What the SDK's own reader makes of it.
    let parts = seen["message"]["parts"].as_array().expect("parts");
    let kinds: Vec<&str> = parts.iter().filter_map(|it| it["type"].as_str()).collect();
    let steps = ["step-start", "reasoning", "step-start"];
    assert_eq!(kinds, [&steps[..], &["tool-count_words", "text"]].concat());
    assert_eq!(parts[3]["state"], "output-available");
    assert_eq!(parts[3]["input"], json!({ "text": text }));
    assert_eq!(parts[3]["output"], "200");
    assert_eq!(parts[4]["text"], text);
    assert_eq!(parts[4]["state"], "done");
    assert_eq!(seen["message"]["id"], chunks[0]["messageId"]);

    assert_eq!(seen["ended"], json!(null));
}

#[tokio::test(start_paused = true)]
async fn a_chat_is_resumed_from_its_start_until_its_run_has_ended() {
    let hub = Routes::new();
    assert_eq!(hub.resume("ann", "c").await.status(), 204);
    let first = hub.send("ann", "c", "one two three").await;
    // In the middle of it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = hub.resume("ann", "c").await;
    for response in [&first, &second] {
        assert_eq!(response.status(), 200);
        assert!(is_chunks(response.headers()), "{:?}", response.headers());
    }
    // Neither another chat of this user nor the same of another one.
    assert_eq!(hub.resume("ann", "d").await.status(), 204);
    assert_eq!(hub.resume("bob", "c").await.status(), 204);
    let (first, second) = (whole(first).await, whole(second).await);
    assert_eq!(hub.resume("ann", "c").await.status(), 204);
    assert_eq!(chunks(&first), chunks(&second));
    assert_eq!(said(&chunks(&first)), "one two three");
}

#[tokio::test(start_paused = true)]
async fn a_chat_under_way_takes_no_other_message_and_starts_no_second_run() {
    let hub = Routes::new();
    let first = hub.send("ann", "c", "one two three").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut again = message("c", "one two three");
    again["trigger"] = json!("regenerate-message");
    let mut anonymous = message("c", "one two three");
    anonymous["messages"][0]["id"].take();
    let edited = message("c", "one two four");
    for other in [again, anonymous, edited] {
        let refused = hub.post("ann", &other).await;
        assert_eq!(refused.status(), 409, "{other}");
        assert!(whole(refused).await.ends_with('.'));
    }
    // Other chats do not wait for it.
    let other = hub.send("ann", "d", "else").await;
    assert_eq!(said(&chunks(&whole(other).await)), "else");
    assert_eq!(said(&chunks(&whole(first).await)), "one two three");
    assert_eq!(hub.resume("ann", "c").await.status(), 204);
    let next = hub.send("ann", "c", "next").await;
    assert_eq!(said(&chunks(&whole(next).await)), "next");
}

/// As a browser does when the connection that it sent the request on turns out to be closed.
#[tokio::test(start_paused = true)]
async fn the_same_request_again_joins_the_run() {
    let hub = Routes::new();
    let first = hub.send("ann", "c", "one two three").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = hub.send("ann", "c", "one two three").await;
    assert!(is_chunks(second.headers()), "{:?}", second.headers());
    let (first, second) = (whole(first).await, whole(second).await);
    assert_eq!(said(&chunks(&first)), "one two three");
    assert_eq!(chunks(&first), chunks(&second));
}

#[tokio::test(start_paused = true)]
async fn the_longest_run_is_resumed_whole() {
    let hub = Routes::new();
    // The most that the agent reads, as the most words.
    let text = "a ".repeat(8 * 1024);
    drop(hub.send("ann", "c", &text).await);
    tokio::time::sleep(Duration::from_secs(150)).await;
    let resumed = whole(hub.resume("ann", "c").await).await;
    assert!(said(&chunks(&resumed)) == text, "not all of it");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_stopped_ends_for_all_and_the_chat_takes_the_next_message() {
    let hub = Routes::new();
    // Nothing to stop.
    assert_eq!(hub.stop("ann", "c").await.status(), 204);
    let first = hub.send("ann", "c", &"word ".repeat(1000)).await;
    let second = hub.resume("ann", "c").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(hub.stop("bob", "c").await.status(), 204);
    assert_eq!(hub.resume("ann", "c").await.status(), 200);
    assert_eq!(hub.stop("ann", "c").await.status(), 204);
    assert_eq!(hub.resume("ann", "c").await.status(), 204);
    let next = hub.send("ann", "c", "next").await;
    for response in [first, second] {
        let chunks = chunks(&whole(response).await);
        assert_eq!(chunks[chunks.len() - 1]["type"], "abort");
        let words = said(&chunks).split_whitespace().count();
        assert!((1..100).contains(&words), "{words}");
    }
    // The agent has noticed, and does not end the run that it is not asked about.
    let next = chunks(&whole(next).await);
    assert_eq!(said(&next), "next");
    assert_eq!(next[next.len() - 1]["type"], "finish");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_none_is_refused_with_a_sentence() {
    let hub = Routes::new();
    let named = |id: &str| {
        let mut message = message("c", "hello");
        message["messages"][0]["id"] = json!(id);
        message
    };
    for body in [
        json!([]),
        json!({"id": "c"}),
        json!({"id": "c", "messages": [{"role": "user"}]}),
        message(&"c".repeat(257), "hello"),
        named(&"m".repeat(257)),
    ] {
        let request = Request::post("/aisdk/ann/chat");
        let response = hub.call(request, body.to_string()).await;
        assert_eq!(response.status(), 400, "{body}");
        assert!(whole(response).await.ends_with('.'));
    }
}
