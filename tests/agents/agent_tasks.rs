//! What `agent_hub` remembers of the tasks of A2A, and what those who follow one get.

use std::time::Duration;

use axum::response::Response;
use serde_json::{Value, json};
use tidings::backplane::Level;
use tidings::{AgUiBroadcaster, EventRouter};
use tidings_testkit::backplane::InProcess;

use crate::support::hub::within;
use crate::support::routes::{Routes, input, text};

fn status(task: &str, state: &str) -> Value {
    let status = json!({ "state": format!("TASK_STATE_{state}") });
    json!({ "statusUpdate": { "taskId": task, "contextId": "c", "status": status } })
}

/// A task that goes on, with an artifact of this many bytes.
fn task(id: &str, bytes: usize) -> Value {
    let artifact = json!({ "artifactId": "a", "parts": [{ "text": "x".repeat(bytes) }] });
    let status = json!({ "state": "TASK_STATE_WORKING" });
    json!({ "task": { "id": id, "contextId": "c", "status": status, "artifacts": [artifact] } })
}

fn piece(task: &str, bytes: usize) -> Value {
    let artifact = json!({ "artifactId": "a", "parts": [{ "text": "x".repeat(bytes) }] });
    json!({ "artifactUpdate": { "taskId": task, "contextId": "c", "append": true, "artifact": artifact } })
}

fn message(task: &str, context: &str) -> Value {
    let parts = json!([{ "text": "more" }]);
    json!({ "message": {
        "messageId": "m", "role": "ROLE_USER", "parts": parts, "taskId": task, "contextId": context,
    }})
}

async fn publish(hub: &Routes, user: &str, event: &Value) {
    let path = format!("/users/{user}/events/a2a");
    assert_eq!(hub.post(&path, event).await.status(), 200);
}

async fn get(hub: &Routes, user: &str, task: &str) -> (u16, Value) {
    let response = hub.get(&format!("/a2a/{user}/tasks/{task}")).await;
    let status = response.status().as_u16();
    (
        status,
        serde_json::from_str(&text(response).await).expect("JSON"),
    )
}

async fn subscribe(hub: &Routes, task: &str) -> Response {
    let path = format!("/a2a/ann/tasks/{task}:subscribe");
    hub.post(&path, &json!({})).await
}

fn state(task: &Value) -> &str {
    task["status"]["state"].as_str().expect("a state")
}

/// The texts of a task's artifacts.
fn said(task: &Value) -> String {
    let artifacts = task["artifacts"].as_array().into_iter().flatten();
    let parts = artifacts.flat_map(|artifact| artifact["parts"].as_array().into_iter().flatten());
    parts.filter_map(|part| part["text"].as_str()).collect()
}

/// The kinds of a stream's events.
async fn kinds(stream: Response) -> Vec<String> {
    let stream = text(stream).await;
    let names = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let kind = |data: &str| -> String {
        let data: Value = serde_json::from_str(data).expect("JSON");
        let mut kinds = data.as_object().expect("an object").keys();
        kinds.next().expect("a kind").clone()
    };
    names.map(kind).collect()
}

#[tokio::test(start_paused = true)]
async fn a_task_that_goes_on_is_not_displaced_by_another_one() {
    let hub = Routes::new();
    publish(&hub, "ann", &task("t1", 40_000)).await;
    let stream = subscribe(&hub, "t1").await;
    publish(&hub, "ann", &task("t2", 40_000)).await;
    for n in 0..1_001 {
        publish(&hub, &format!("user{n}"), &task("t", 1)).await;
    }
    publish(&hub, "ann", &status("t1", "WORKING")).await;
    publish(&hub, "ann", &status("t1", "COMPLETED")).await;
    assert_eq!(
        kinds(stream).await,
        ["task", "statusUpdate", "statusUpdate"]
    );
    assert_eq!(said(&get(&hub, "ann", "t1").await.1).len(), 40_000);
}

#[tokio::test(start_paused = true)]
async fn a_canceled_task_ends_its_run() {
    let hub = Routes::new();
    let words = "word ".repeat(50);
    let run = hub
        .post("/agui/ann?agent=echo", &input("t", "r", &words))
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let canceled = hub.post("/a2a/ann/tasks/r:cancel", &json!({})).await;
    assert_eq!(canceled.status(), 200);
    publish(&hub, "ann", &task("large", 65_000)).await;
    let said = text(run).await;
    assert!(said.contains("the task was canceled"), "{said}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (_, task) = get(&hub, "ann", "r").await;
    assert_eq!(state(&task), "TASK_STATE_CANCELED");
}

#[tokio::test(start_paused = true)]
async fn a_task_has_all_that_was_said() {
    let hub = Routes::new();
    let words = "w ".repeat(1_500);
    let run = hub
        .post("/agui/ann?agent=echo", &input("t", "r", &words))
        .await;
    drop(run);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (_, task) = get(&hub, "ann", "r").await;
    assert_eq!(state(&task), "TASK_STATE_COMPLETED");
    assert!(said(&task) == words, "{} bytes", said(&task).len());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_too_large_is_refused_and_not_cut() {
    let hub = Routes::new();
    publish(&hub, "ann", &task("t", 600_000)).await;
    assert_eq!(get(&hub, "ann", "t").await.0, 200);
    publish(&hub, "ann", &piece("t", 600_000)).await;
    let (status, error) = get(&hub, "ann", "t").await;
    assert_eq!(status, 400, "{error}");
    let sentence = error["error"]["message"].as_str().expect("a sentence");
    assert!(sentence.contains("too large to be shown"), "{sentence}");
    assert_eq!(subscribe(&hub, "t").await.status(), 400);
    // Its state is known.
    let canceled = hub.post("/a2a/ann/tasks/t:cancel", &json!({})).await;
    let canceled = serde_json::from_str(&text(canceled).await).expect("JSON");
    assert_eq!(state(&canceled), "TASK_STATE_CANCELED");
}

#[tokio::test(start_paused = true)]
async fn tasks_beyond_the_limit_are_refused_while_none_has_ended() {
    let hub = Routes::new();
    for n in 0..100 {
        publish(&hub, "ann", &task(&format!("t{n}"), 1)).await;
    }
    let refused = hub.post("/users/ann/events/a2a", &task("t100", 1)).await;
    assert_eq!(refused.status(), 429);
    publish(&hub, "ann", &status("t7", "COMPLETED")).await;
    publish(&hub, "ann", &task("t100", 1)).await;
    for (id, status) in [("t0", 200), ("t7", 404), ("t99", 200), ("t100", 200)] {
        assert_eq!(get(&hub, "ann", id).await.0, status, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn ended_tasks_are_forgotten_in_time_and_for_the_sake_of_others() {
    let hub = Routes::new();
    let end = async |user: &str, bytes| {
        publish(&hub, user, &task("t", bytes)).await;
        publish(&hub, user, &status("t", "COMPLETED")).await;
    };
    for n in 0..17 {
        end(&format!("user{n}"), 1_000_000).await;
    }
    for (user, status) in [("user0", 404), ("user1", 200), ("user16", 200)] {
        assert_eq!(get(&hub, user, "t").await.0, status, "{user}");
    }
    tokio::time::advance(Duration::from_secs(60 * 60)).await;
    assert_eq!(get(&hub, "user16", "t").await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_an_unknown_task_or_of_another_context_is_refused() {
    let hub = Routes::new();
    let send = async |task: &str, context: &str| {
        let path = "/a2a/ann/message:stream";
        hub.post(path, &message(task, context)).await
    };
    let unknown = send("none", "").await;
    assert_eq!(unknown.status(), 404);
    let error: Value = serde_json::from_str(&text(unknown).await).expect("JSON");
    assert_eq!(error["error"]["details"][0]["reason"], "TASK_NOT_FOUND");

    publish(&hub, "ann", &task("t", 1)).await;
    assert_eq!(send("t", "other").await.status(), 400);
    let (with, without) = (send("t", "c").await, send("t", "").await);
    publish(&hub, "ann", &status("t", "COMPLETED")).await;
    for stream in [with, without] {
        assert_eq!(kinds(stream).await, ["task", "statusUpdate"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_run_that_has_just_begun_follows_it() {
    let hub = Routes::new();
    // The agent has not done anything yet.
    let run = hub
        .post("/agui/ann?agent=echo", &input("t", "r", "one"))
        .await;
    let follows = hub.post("/a2a/ann/message:stream", &message("r", "")).await;
    assert_eq!(follows.status(), 200);
    let kinds = within("the end", kinds(follows)).await;
    let expected = ["task", "statusUpdate", "artifactUpdate", "statusUpdate"];
    assert_eq!(kinds, expected);
    drop(run);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_shown_with_as_much_of_its_history_as_is_asked_for() {
    let hub = Routes::new();
    let said =
        |text: &str| json!({ "messageId": text, "role": "ROLE_USER", "parts": [{ "text": text }] });
    let mut task = task("t", 1);
    task["task"]["history"] = json!([said("one"), said("two"), said("three")]);
    publish(&hub, "ann", &task).await;
    for (query, expected) in [
        ("", 3),
        ("?historyLength=5", 3),
        ("?historyLength=2", 2),
        ("?historyLength=0", 0),
    ] {
        let (_, task) = get(&hub, "ann", &format!("t{query}")).await;
        let history = task["history"].as_array().map_or(&[][..], |all| all);
        assert_eq!(history.len(), expected, "{query}");
        if let Some(last) = history.last() {
            assert_eq!(last["messageId"], "three");
        }
    }
    assert_eq!(get(&hub, "ann", "t?historyLength=-1").await.0, 400);
    let params = json!({ "id": "t", "historyLength": 1 });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": params });
    let answer = text(hub.post("/a2a/ann/rpc", &call).await).await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["result"]["history"], json!([said("three")]));
}

#[tokio::test(start_paused = true)]
async fn errors_have_the_names_of_the_protocol() {
    let hub = Routes::new();
    publish(&hub, "ann", &status("t", "COMPLETED")).await;
    for (path, code, name, reason) in [
        (
            "t:cancel",
            400,
            "FAILED_PRECONDITION",
            "TASK_NOT_CANCELABLE",
        ),
        (
            "t:subscribe",
            400,
            "FAILED_PRECONDITION",
            "UNSUPPORTED_OPERATION",
        ),
        ("none:cancel", 404, "NOT_FOUND", "TASK_NOT_FOUND"),
        (
            "t/pushNotificationConfigs",
            400,
            "FAILED_PRECONDITION",
            "PUSH_NOTIFICATION_NOT_SUPPORTED",
        ),
    ] {
        let response = hub
            .post(&format!("/a2a/ann/tasks/{path}"), &json!({}))
            .await;
        assert_eq!(response.status(), code, "{path}");
        let error: Value = serde_json::from_str(&text(response).await).expect("JSON");
        let error = &error["error"];
        assert_eq!(
            (&error["status"], &error["details"][0]["reason"]),
            (&json!(name), &json!(reason)),
            "{path}"
        );
    }
    let invalid = hub.post("/a2a/ann/message:stream", &json!({})).await;
    let error: Value = serde_json::from_str(&text(invalid).await).expect("JSON");
    assert_eq!(error["error"]["status"], "INVALID_ARGUMENT");
    let method = "CreateTaskPushNotificationConfig";
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": {} });
    let answer = text(hub.post("/a2a/ann/rpc", &call).await).await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["error"]["code"], -32003);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_sent_gets_the_status_of_its_error() {
    // An engine that takes 1 MiB.
    let engine = InProcess::new(Level::AtMostOnce);
    let agui = AgUiBroadcaster::builder().backplane(engine.node()).build();
    let hub = Routes::over(
        EventRouter::builder()
            .agui(agui.expect("valid settings"))
            .build(),
    );
    let event = json!({ "type": "CUSTOM", "name": "n", "value": "x".repeat(1_500_000) });
    let response = hub.post("/users/ann/events/agui", &event).await;
    assert_eq!(response.status(), 413);
}
