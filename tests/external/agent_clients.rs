//! The official clients of AG-UI and A2A, which are in JavaScript and Python, talk to the example `agent_hub`.
//!
//! They are installed by `scripts/clients`, in pinned versions.

use std::process::Stdio;
use std::time::Duration;

use axum::extract::Path;
use axum::http::{HeaderMap, Uri};
use axum::routing::{get, post};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings::protocol::a2a::{A2aEvent, TaskState, TaskView};
use tidings::protocol::agui::Body;
use tidings::sse::SseResponse;
use tidings::{A2ABroadcaster, LagPolicy};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};

use crate::support::hub::{Hub, within};
use crate::support::official;
use crate::support::official::same;
use crate::support::process::Process;

/// AG-UI's client, in the version of the protocol's 1.0 and in the last before it.
const AGUI: [&str; 2] = ["@ag-ui/client", "@ag-ui/client-0"];

/// A2A's clients, and the bindings that they know, that of 0.3 among them.
const A2A: [(&str, &str); 6] = [
    ("a2a_stream.mjs", "JSONRPC"),
    ("a2a_stream.mjs", "HTTP+JSON"),
    ("a2a_stream.py", "JSONRPC"),
    ("a2a_stream.py", "HTTP+JSON"),
    ("a2a_stream.mjs", "JSONRPC-0.3"),
    ("a2a_stream.py", "JSONRPC-0.3"),
];

/// A client at work.
struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// The name is for its files, of each test its own.
    fn start(name: &str, script: &str, args: &[&str]) -> Self {
        let mut child = Command::new(official::interpreter(script))
            .arg(official::place(script, name))
            .args(args)
            // Only the hub is talked to, and that is near.
            .env("NO_PROXY", "*")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect(official::INSTALL);
        let stdout = child.stdout.take().expect("a pipe");
        let lines = BufReader::new(stdout).lines();
        Self { child, lines }
    }

    /// AG-UI's `HttpAgent`, which asks for this run.
    fn agui(name: &str, package: &str, hub: &Hub, path: &str, run: &str, text: &str) -> Self {
        let url = format!("{}{path}", hub.url(&[]));
        Self::start(name, "agui_run.mjs", &[package, &url, "thread", run, text])
    }

    /// A client of A2A, which sends a message, or subscribes to a task.
    fn a2a(name: &str, of: (&str, &str), hub: &Hub, user: &str, call: [&str; 3]) -> Self {
        let url = hub.url(&["a2a", user]);
        let [method, task, text] = call;
        Self::start(name, of.0, &[of.1, url.as_str(), method, task, text])
    }

    /// What it understood, and how that ended.
    async fn events(mut self) -> (Vec<Value>, Value) {
        let mut events = Vec::new();
        while let Some(line) = within("a line", self.lines.next_line())
            .await
            .expect("UTF-8")
        {
            let line: Value = serde_json::from_str(&line).expect("JSON");
            if line.get("done").is_some() || line.get("failed").is_some() {
                within("the exit", self.child.wait())
                    .await
                    .expect("it exits");
                return (events, line);
            }
            events.push(line);
        }
        panic!("the client ended after {events:?}");
    }
}

async fn hub() -> Process {
    Process::start(&["--heartbeat-ms", "300"]).await
}

/// Longer than the heartbeat of a hub. The hub and the clients are processes of their own, whose time cannot be advanced.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(1000)).await;
}

/// Waits until so many streams of this kind are open, for all users together.
async fn connected(hub: &Hub, kind: &str, count: u64) {
    let waiting = async {
        loop {
            let stats = hub.client.get(hub.url(&["stats"])).send().await;
            let stats: Value = stats.expect("a response").json().await.expect("JSON");
            if stats[kind]["connections"] == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the streams", waiting).await;
}

async fn publish(hub: &Hub, user: &str, kind: &str, run: Option<&str>, event: &Value) {
    let mut url = hub.url(&["users", user, "events", kind]);
    if let Some(run) = run {
        url.query_pairs_mut()
            .append_pair("thread", "thread")
            .append_pair("run", run);
    }
    let response = hub
        .client
        .post(url)
        .json(event)
        .send()
        .await
        .expect("a response");
    let status = response.status();
    assert_eq!(
        status,
        200,
        "{event}: {}",
        response.text().await.expect("a body")
    );
}

/// Text that breaks what is not careful.
const TEXT: &str = "\u{2028}\u{2029}\u{85} 👩‍🚀 \0 \r\n \"\\";

/// A run of events of every type but `RUN_ERROR`, in an order that is allowed.
fn all_types(run: &str) -> Vec<Value> {
    let message = json!({ "id": "m1", "role": "assistant", "content": "from before" });
    let input = json!({ "threadId": "thread", "runId": run, "messages": [message], "tools": [], "context": [] });
    vec![
        json!({ "type": "RUN_STARTED", "threadId": "thread", "runId": run, "input": input, "timestamp": 1763812800000i64 }),
        json!({ "type": "STEP_STARTED", "stepName": "step" }),
        json!({ "type": "MESSAGES_SNAPSHOT", "messages": [message] }),
        json!({ "type": "REASONING_START", "messageId": "r1" }),
        json!({ "type": "REASONING_MESSAGE_START", "messageId": "r1", "role": "reasoning" }),
        json!({ "type": "REASONING_MESSAGE_CONTENT", "messageId": "r1", "delta": "hm" }),
        json!({ "type": "REASONING_MESSAGE_END", "messageId": "r1" }),
        json!({ "type": "REASONING_MESSAGE_CHUNK", "messageId": "chunk-r", "delta": "in " }),
        json!({ "type": "REASONING_MESSAGE_CHUNK", "delta": "pieces" }),
        json!({ "type": "REASONING_ENCRYPTED_VALUE", "subtype": "message", "entityId": "r1", "encryptedValue": "x" }),
        json!({ "type": "REASONING_END", "messageId": "r1" }),
        json!({ "type": "TEXT_MESSAGE_START", "messageId": "m2", "role": "assistant" }),
        json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": "m2", "delta": TEXT }),
        json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": "m2", "delta": " and more" }),
        json!({ "type": "TEXT_MESSAGE_END", "messageId": "m2" }),
        json!({ "type": "TEXT_MESSAGE_CHUNK", "messageId": "chunk-m", "role": "assistant", "delta": "in " }),
        json!({ "type": "RAW", "event": "between pieces" }),
        json!({ "type": "TEXT_MESSAGE_CHUNK", "delta": "pieces" }),
        json!({ "type": "TOOL_CALL_START", "toolCallId": "c1", "toolCallName": "tool", "parentMessageId": "m2" }),
        json!({ "type": "TOOL_CALL_ARGS", "toolCallId": "c1", "delta": "{\"a\":" }),
        json!({ "type": "TOOL_CALL_ARGS", "toolCallId": "c1", "delta": "1}" }),
        json!({ "type": "TOOL_CALL_END", "toolCallId": "c1" }),
        json!({ "type": "TOOL_CALL_RESULT", "messageId": "m3", "toolCallId": "c1", "content": "1", "role": "tool" }),
        json!({ "type": "TOOL_CALL_CHUNK", "toolCallId": "chunk-c", "toolCallName": "tool", "delta": "in " }),
        json!({ "type": "TOOL_CALL_CHUNK", "delta": "pieces" }),
        json!({ "type": "STATE_SNAPSHOT", "snapshot": { "a": [1], "n": null } }),
        json!({ "type": "STATE_DELTA", "delta": [{ "op": "add", "path": "/a/-", "value": 2 }, { "op": "remove", "path": "/n" }] }),
        json!({ "type": "ACTIVITY_SNAPSHOT", "messageId": "a1", "activityType": "plan", "content": { "steps": [] }, "replace": true }),
        json!({ "type": "ACTIVITY_DELTA", "messageId": "a1", "activityType": "plan",
            "patch": [{ "op": "add", "path": "/steps/-", "value": "one" }] }),
        json!({ "type": "RAW", "event": { "any": ["thing"] }, "source": "elsewhere" }),
        json!({ "type": "CUSTOM", "name": "mine", "value": null, "metadata": { "k": "v" } }),
        json!({ "type": "SUBAGENT_STARTED", "subagentRunId": "s1", "name": "helper" }),
        json!({ "type": "TEXT_MESSAGE_START", "messageId": "m4", "role": "assistant", "subagentRunId": "s1" }),
        json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": "m4", "delta": "help", "subagentRunId": "s1" }),
        json!({ "type": "TEXT_MESSAGE_END", "messageId": "m4", "subagentRunId": "s1" }),
        json!({ "type": "STEP_STARTED", "stepName": "step", "subagentRunId": "s1" }),
        json!({ "type": "STEP_FINISHED", "stepName": "step", "subagentRunId": "s1" }),
        json!({ "type": "SUBAGENT_FINISHED", "subagentRunId": "s1" }),
        json!({ "type": "SUBAGENT_STARTED", "subagentRunId": "s2", "name": "helper" }),
        json!({ "type": "SUBAGENT_ERROR", "subagentRunId": "s2", "message": "no help" }),
        json!({ "type": "STEP_FINISHED", "stepName": "step" }),
        json!({ "type": "RUN_FINISHED", "threadId": "thread", "runId": run, "result": { "ok": true } }),
    ]
}

/// Whether it is about what was sent in chunks. Clients make of these what would have been sent without them.
fn is_of_chunks(event: &Value) -> bool {
    let ids = [&event["messageId"], &event["toolCallId"]];
    ids.iter()
        .any(|id| id.as_str().is_some_and(|id| id.starts_with("chunk-")))
}

async fn reads_a_run_of_all_types(name: &str, package: &str) {
    let process = hub().await;
    let hub = &process.hub;
    let client = Client::agui(name, package, hub, "agui/ann", "run", "hello");
    connected(hub, "agui", 1).await;
    let events = all_types("run");
    let types: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().expect("a type"))
        .collect();
    let missing: Vec<_> = Body::TYPES
        .iter()
        .filter(|name| !types.contains(name))
        .collect();
    assert_eq!(missing, [&"RUN_ERROR"]);

    let half = events.len() / 2;
    for (index, event) in events.iter().enumerate() {
        if index == half || index + 1 == events.len() {
            idle().await;
        }
        publish(hub, "ann", "agui", Some("run"), event).await;
    }
    let (understood, end) = client.events().await;
    let (of_chunks, understood): (Vec<_>, Vec<_>) = understood.into_iter().partition(is_of_chunks);
    let whole = |event: &&Value| {
        !event["type"]
            .as_str()
            .is_some_and(|name| name.ends_with("_CHUNK"))
    };
    let sent: Vec<_> = events.iter().filter(whole).collect();
    for (understood, sent) in understood.iter().zip(&sent) {
        assert!(same(understood, sent), "{understood}\nfor {sent}");
    }
    assert_eq!(understood.len(), sent.len(), "{end}");
    for id in ["chunk-r", "chunk-m", "chunk-c"] {
        let of_this = of_chunks
            .iter()
            .filter(|event| event["messageId"] == id || event["toolCallId"] == id);
        let text: String = of_this
            .filter_map(|event| event["delta"].as_str())
            .collect();
        assert_eq!(text, "in pieces", "{id}");
    }

    // What it has made of them.
    assert_eq!(end["done"]["state"], json!({ "a": [1, 2] }), "{end}");
    let messages = end["done"]["messages"].as_array().expect("messages");
    let message = |id: &str| {
        messages
            .iter()
            .find(|message| message["id"] == id)
            .expect("a message")
    };
    assert_eq!(message("m2")["content"], format!("{TEXT} and more"));
    assert_eq!(message("chunk-m")["content"], "in pieces");
    assert_eq!(message("m3")["content"], "1");
}

#[tokio::test]
async fn the_agui_client_of_1_0_reads_a_run_of_all_types() {
    reads_a_run_of_all_types("all-1", AGUI[0]).await;
}

#[tokio::test]
async fn the_agui_client_before_1_0_reads_a_run_of_all_types() {
    reads_a_run_of_all_types("all-0", AGUI[1]).await;
}

#[tokio::test]
async fn agui_clients_read_a_run_that_leaves_a_subagent_active() {
    let process = hub().await;
    let hub = &process.hub;
    for (index, package) in AGUI.into_iter().enumerate() {
        let (name, run) = (format!("active-{index}"), format!("run-{index}"));
        let client = Client::agui(&name, package, hub, "agui/ann", &run, "");
        connected(hub, "agui", 1).await;
        let step = json!({ "type": "STEP_STARTED", "stepName": "step", "subagentRunId": "s" });
        for event in [
            json!({ "type": "RUN_STARTED", "threadId": "thread", "runId": run }),
            json!({ "type": "SUBAGENT_STARTED", "subagentRunId": "s", "name": "helper" }),
            step,
            json!({ "type": "RUN_FINISHED", "threadId": "thread", "runId": run }),
        ] {
            publish(hub, "ann", "agui", Some(&run), &event).await;
        }
        let (events, end) = client.events().await;
        assert!(end.get("done").is_some(), "{end}");
        let types: Vec<_> = events.iter().map(|event| &event["type"]).collect();
        let ends = ["STEP_FINISHED", "SUBAGENT_FINISHED", "RUN_FINISHED"];
        assert_eq!(types[3..], ends);
    }
}

#[tokio::test]
async fn agui_clients_read_what_the_agent_does_and_how_a_run_fails() {
    let process = hub().await;
    let hub = &process.hub;
    for (index, package) in AGUI.into_iter().enumerate() {
        let (name, run) = (format!("echo-{index}"), format!("run-{index}"));
        let client = Client::agui(
            &name,
            package,
            hub,
            "agui/ann?agent=echo",
            &run,
            "hello you",
        );
        let (events, end) = client.events().await;
        let messages = end["done"]["messages"]
            .as_array()
            .unwrap_or_else(|| panic!("{end}"));
        let said = messages.last().expect("a message");
        assert_eq!(
            (&said["role"], &said["content"]),
            (&json!("assistant"), &json!("hello you"))
        );
        assert_eq!(end["done"]["state"], json!({ "words": 2 }));
        assert_eq!(events[0]["type"], "RUN_STARTED");

        let fails = format!("fails-{index}");
        let client = Client::agui(&name, package, hub, "agui/ann", &fails, "");
        connected(hub, "agui", 1).await;
        let error = json!({ "type": "RUN_ERROR", "message": "no model", "code": "X" });
        publish(hub, "ann", "agui", Some(&fails), &error).await;
        let (events, _) = client.events().await;
        assert_eq!(events, [error]);
    }
}

#[tokio::test]
async fn an_agui_client_that_comes_late_reads_the_run_from_its_start() {
    let process = hub().await;
    let hub = &process.hub;
    let words: Vec<String> = (0..100).map(|n| format!("word{n}")).collect();
    let text = words.join(" ");
    for (index, package) in AGUI.into_iter().enumerate() {
        let run = format!("run-{index}");
        let ask = |name: &str| {
            let name = format!("late-{name}-{index}");
            Client::agui(&name, package, hub, "agui/ann?agent=echo", &run, &text)
        };
        let mut first = ask("first");
        let mut seen = Vec::new();
        while seen.len() < 50 {
            let line = within("a line", first.lines.next_line()).await;
            let line = line.expect("UTF-8").expect("an event");
            seen.push(serde_json::from_str(&line).expect("JSON"));
        }
        // As a page does that is reloaded, while another one reads on.
        let (late, end) = ask("second").events().await;
        let (rest, _) = first.events().await;
        seen.extend(rest);
        assert_eq!(late, seen);
        let said = end["done"]["messages"].as_array().expect("messages").last();
        assert_eq!(said.expect("a message")["content"], text);
        // Nor does the agent do it again for one that comes after the end.
        let (again, _) = ask("third").events().await;
        assert_eq!(again, seen);
        let stats = hub.client.get(hub.url(&["stats"])).send().await;
        let stats: Value = stats.expect("a response").json().await.expect("JSON");
        assert_eq!(stats["runs"]["broadcasts"], seen.len() * (index + 1));
    }
}

#[tokio::test]
async fn no_agui_client_sees_the_events_of_another_run_or_user() {
    let process = hub().await;
    let hub = &process.hub;
    // Two users, and two runs of one of them, whose names and messages are the same.
    let runs = [
        ("ann", "one"),
        ("ann", "two"),
        ("bob", "one"),
        ("bob", "two"),
    ];
    let mut at_work = Vec::new();
    for (index, (user, run)) in runs.into_iter().enumerate() {
        let path = format!("agui/{user}");
        at_work.push(Client::agui(
            &format!("own-{index}"),
            AGUI[index % 2],
            hub,
            &path,
            run,
            "",
        ));
    }
    connected(hub, "agui", 4).await;
    let steps: [fn(&str, &str) -> Value; 5] = [
        |_, run| json!({ "type": "RUN_STARTED", "threadId": "thread", "runId": run }),
        |_, _| json!({ "type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant" }),
        |user, run| json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": format!("{user} {run}") }),
        |_, _| json!({ "type": "TEXT_MESSAGE_END", "messageId": "m" }),
        |_, run| json!({ "type": "RUN_FINISHED", "threadId": "thread", "runId": run }),
    ];
    for step in steps {
        for (user, run) in runs {
            publish(hub, user, "agui", Some(run), &step(user, run)).await;
        }
    }
    for ((user, run), client) in runs.into_iter().zip(at_work) {
        let (events, end) = client.events().await;
        assert!(end.get("done").is_some(), "{user} {run}: {end}");
        let sent: Vec<_> = steps.iter().map(|step| step(user, run)).collect();
        assert_eq!(events, sent, "{user} {run}");
    }
}

fn status(task: &str, state: &str) -> Value {
    let status =
        json!({ "state": format!("TASK_STATE_{state}"), "timestamp": "2026-11-22T12:00:00.500Z" });
    json!({ "statusUpdate": { "taskId": task, "contextId": "context", "status": status } })
}

fn task(id: &str) -> Value {
    let status = json!({ "state": "TASK_STATE_SUBMITTED" });
    json!({ "task": { "id": id, "contextId": "context", "status": status } })
}

fn message(task: &str, text: &str) -> Value {
    let parts = json!([{ "text": text }]);
    json!({ "messageId": "m", "role": "ROLE_AGENT", "taskId": task, "contextId": "context", "parts": parts })
}

/// What is sent of a task that has begun.
fn rest_of_task(id: &str, text: &str) -> Vec<Value> {
    let part = |text: &str| json!([{ "text": text }]);
    let mut working = status(id, "WORKING");
    working["statusUpdate"]["status"]["message"] = message(id, text);
    let data = json!({ "artifactId": "a", "parts": [{ "data": { "n": 1.5, "s": [true, "x"] } }] });
    let more = json!({ "artifactId": "a", "parts": part("more") });
    vec![
        working,
        json!({ "artifactUpdate": { "taskId": id, "contextId": "context", "artifact": data } }),
        json!({ "artifactUpdate": { "taskId": id, "contextId": "context", "artifact": more, "append": true, "lastChunk": true } }),
        status(id, "COMPLETED"),
    ]
}

/// Publishes them, with a pause before the last.
async fn publish_task(hub: &Hub, events: &[Value]) {
    for (index, event) in events.iter().enumerate() {
        if index + 1 == events.len() {
            idle().await;
        }
        publish(hub, "ann", "a2a", None, event).await;
        // The same of another task and for another user, which no client is to see.
        let other = event.to_string().replace("\"task-1\"", "\"task-2\"");
        publish(
            hub,
            "ann",
            "a2a",
            None,
            &serde_json::from_str(&other).expect("JSON"),
        )
        .await;
        let other = event.to_string().replace("\"context\"", "\"bob's\"");
        publish(
            hub,
            "bob",
            "a2a",
            None,
            &serde_json::from_str(&other).expect("JSON"),
        )
        .await;
    }
}

async fn assert_all_understood(at_work: Vec<Client>, sent: &[Value]) {
    for (client, of) in at_work.into_iter().zip(A2A) {
        let (events, end) = client.events().await;
        assert_eq!(end, json!({ "done": true }), "{of:?}");
        assert_eq!(events.len(), sent.len(), "{of:?}: {events:?}");
        for (understood, sent) in events.iter().zip(sent) {
            assert!(same(understood, sent), "{of:?}: {understood}\nfor {sent}");
        }
    }
}

#[tokio::test]
async fn a2a_clients_send_and_follow_a_task() {
    let process = hub().await;
    let hub = &process.hub;
    publish(hub, "ann", "a2a", None, &task("task-1")).await;
    let mut at_work = Vec::new();
    for (index, of) in A2A.into_iter().enumerate() {
        let call = ["send", "task-1", "go on"];
        at_work.push(Client::a2a(&format!("send-{index}"), of, hub, "ann", call));
    }
    connected(hub, "a2a", 6).await;
    let rest = rest_of_task("task-1", TEXT);
    publish_task(hub, &rest).await;
    let mut expected = vec![task("task-1")];
    expected.extend(rest);
    assert_all_understood(at_work, &expected).await;
}

#[tokio::test]
async fn a2a_clients_subscribe_to_a_task_from_where_it_is() {
    let process = hub().await;
    let hub = &process.hub;
    publish(hub, "ann", "a2a", None, &task("task-1")).await;
    publish(hub, "ann", "a2a", None, &status("task-1", "INPUT_REQUIRED")).await;
    let mut at_work = Vec::new();
    for (index, of) in A2A.into_iter().enumerate() {
        let call = ["subscribe", "task-1", ""];
        at_work.push(Client::a2a(
            &format!("subscribe-{index}"),
            of,
            hub,
            "ann",
            call,
        ));
    }
    connected(hub, "a2a", 6).await;
    let rest = rest_of_task("task-1", TEXT);
    publish_task(hub, &rest).await;
    let mut now = task("task-1");
    now["task"]["status"] = status("task-1", "INPUT_REQUIRED")["statusUpdate"]["status"].clone();
    let mut expected = vec![now];
    expected.extend(rest);
    assert_all_understood(at_work, &expected).await;

    // It has ended now, and there never was another one.
    for (index, of) in A2A.into_iter().enumerate() {
        for (task, error) in [("task-1", "UnsupportedOperation"), ("none", "TaskNotFound")] {
            let name = format!("ended-{index}");
            let client = Client::a2a(&name, of, hub, "ann", ["subscribe", task, ""]);
            let (events, end) = client.events().await;
            assert_eq!(events, [] as [Value; 0]);
            let why = end["failed"]
                .as_str()
                .unwrap_or_else(|| panic!("{of:?}: {end}"));
            assert!(why.contains(error), "{of:?}: {why}");
        }
    }
}

#[tokio::test]
async fn a_message_of_a_task_reaches_a2a_clients_and_is_the_last_for_some() {
    let process = hub().await;
    let hub = &process.hub;
    publish(hub, "ann", "a2a", None, &task("task-1")).await;
    let mut at_work = Vec::new();
    for (index, of) in A2A.into_iter().enumerate() {
        let call = ["send", "task-1", ""];
        at_work.push(Client::a2a(
            &format!("message-{index}"),
            of,
            hub,
            "ann",
            call,
        ));
    }
    connected(hub, "a2a", 6).await;
    let sent = [
        task("task-1"),
        json!({ "message": message("task-1", "done") }),
        status("task-1", "COMPLETED"),
    ];
    for event in &sent[1..] {
        publish(hub, "ann", "a2a", None, event).await;
    }
    for (client, of) in at_work.into_iter().zip(A2A) {
        let (events, end) = client.events().await;
        assert_eq!(end, json!({ "done": true }), "{of:?}");
        // The one in Python takes any message for the end.
        let expected = if of.0.ends_with(".py") {
            &sent[..2]
        } else {
            &sent[..]
        };
        assert_eq!(events, expected, "{of:?}");
    }
}

#[tokio::test]
async fn a2a_clients_give_the_agent_a_task() {
    let process = hub().await;
    let hub = &process.hub;
    let mut at_work = Vec::new();
    for (index, of) in A2A.into_iter().enumerate() {
        let call = ["send", "", "hello to everybody"];
        at_work.push(Client::a2a(&format!("agent-{index}"), of, hub, "ann", call));
    }
    let mut ids = Vec::new();
    for (client, of) in at_work.into_iter().zip(A2A) {
        let (events, end) = client.events().await;
        assert_eq!(end, json!({ "done": true }), "{of:?}");
        let pieces = events
            .iter()
            .filter_map(|event| event.pointer("/artifactUpdate/artifact/parts/0/text"));
        let said: String = pieces.filter_map(Value::as_str).collect();
        assert_eq!(said, "hello to everybody", "{of:?}");
        let last = events
            .last()
            .and_then(|event| event.pointer("/statusUpdate/status/state"));
        assert_eq!(last, Some(&json!("TASK_STATE_COMPLETED")), "{of:?}");
        ids.push(
            events[0]["task"]["id"]
                .as_str()
                .expect("the task first")
                .to_owned(),
        );
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), A2A.len(), "to each its own");
}

/// What a client says of a stream that has ended with an error: the sentence, and the reason that programs look at. The one
/// in Python has a type for errors over JSON-RPC that tells the sentence alone.
#[track_caller]
fn assert_cut_off(of: (&str, &str), end: &Value, sentence: &str) {
    let why = end["failed"]
        .as_str()
        .unwrap_or_else(|| panic!("{of:?} takes it for the end of the task: {end}"));
    assert!(why.contains(sentence), "{of:?}: {why}");
    let names_reason = of != ("a2a_stream.py", "JSONRPC") && of != ("a2a_stream.py", "JSONRPC-0.3");
    let is_silent = of == ("a2a_stream.mjs", "HTTP+JSON");
    if names_reason && !is_silent {
        assert!(why.contains(TaskView::CUT_OFF), "{of:?}: {why}");
    }
}

#[tokio::test]
async fn a_task_whose_stream_is_ended_is_an_error_to_a2a_clients_that_says_so() {
    let process = hub().await;
    let hub = &process.hub;
    let sent = [task("task-1"), status("task-1", "WORKING")];
    publish(hub, "ann", "a2a", None, &sent[0]).await;
    let mut at_work = Vec::new();
    for (index, of) in A2A.into_iter().enumerate() {
        let call = ["send", "task-1", ""];
        at_work.push(Client::a2a(&format!("cut-{index}"), of, hub, "ann", call));
    }
    connected(hub, "a2a", 6).await;
    publish(hub, "ann", "a2a", None, &sent[1]).await;
    hub.post(&["users", "ann", "end"]).await;
    for (client, of) in at_work.into_iter().zip(A2A) {
        let (events, end) = client.events().await;
        assert_eq!(events, sent, "{of:?}");
        assert_cut_off(of, &end, "the stream was ended before the task");
    }
}

/// An agent whose answers have all lost events before they begin. Its users' names are what their streams do then.
async fn losing_agent() -> Hub {
    async fn card(uri: Uri, headers: HeaderMap) -> axum::Json<Value> {
        let host = headers["host"].to_str().expect("a name");
        let path = uri.path().strip_suffix("/.well-known/agent-card.json");
        let base = format!("http://{host}{}", path.expect("the card"));
        let interface = |url, binding: &str| json!({ "url": url, "protocolBinding": binding, "protocolVersion": "1.0" });
        axum::Json(json!({
            "name": "losing", "description": "", "version": "1", "skills": [], "capabilities": { "streaming": true },
            "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
            "supportedInterfaces": [interface(format!("{base}/rpc"), "JSONRPC"), interface(base, "HTTP+JSON")],
        }))
    }
    fn answer(policy: &str, view: TaskView) -> SseResponse {
        let policy = match policy {
            "gap" => LagPolicy::Gap,
            _ => LagPolicy::End,
        };
        let agent = A2ABroadcaster::new();
        let stream = agent.register("ann").expect("no cap").lag_policy(policy);
        for _ in 0..100 {
            let working = A2aEvent::status("task-1", "context", TaskState::Working);
            agent.broadcast("ann", &working).expect("JSON");
        }
        SseResponse::new(stream).view(view)
    }
    async fn rpc(Path(policy): Path<String>, body: String) -> SseResponse {
        #[derive(serde::Deserialize)]
        struct Call {
            id: Box<RawValue>,
        }
        let call: Call = serde_json::from_str(&body).expect("a call");
        answer(&policy, TaskView::json_rpc("task-1", &call.id))
    }
    async fn rest(Path(policy): Path<String>) -> SseResponse {
        answer(&policy, TaskView::rest("task-1"))
    }
    let app = axum::Router::new()
        .route("/a2a/{policy}/.well-known/agent-card.json", get(card))
        .route("/a2a/{policy}/rpc", post(rpc))
        .route("/a2a/{policy}/message:stream", post(rest));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async { axum::serve(listener, app).await });
    Hub::at(&base)
}

#[tokio::test]
async fn a_task_whose_events_are_lost_is_an_error_to_a2a_clients_that_says_so() {
    let agent = losing_agent().await;
    for (policy, sentence) in [
        ("gap", "events were lost"),
        ("end", "the stream was ended before the task"),
    ] {
        let mut at_work = Vec::new();
        for (index, of) in A2A.into_iter().enumerate() {
            let name = format!("lost-{policy}-{index}");
            let call = ["send", "task-1", ""];
            at_work.push(Client::a2a(&name, of, &agent, policy, call));
        }
        for (client, of) in at_work.into_iter().zip(A2A) {
            let (events, end) = client.events().await;
            assert_eq!(events, [] as [Value; 0], "{of:?}");
            assert_cut_off(of, &end, sentence);
        }
    }
}

#[tokio::test]
async fn a2a_clients_at_their_defaults_wait_for_a_silent_agent() {
    let process = Process::start(&[]).await;
    let hub = &process.hub;
    let sent = [task("task-1"), status("task-1", "COMPLETED")];
    publish(hub, "ann", "a2a", None, &sent[0]).await;
    let mut at_work = Vec::new();
    for (index, of) in A2A.into_iter().enumerate() {
        let call = ["send", "task-1", ""];
        at_work.push(Client::a2a(
            &format!("silent-{index}"),
            of,
            hub,
            "ann",
            call,
        ));
    }
    connected(hub, "a2a", 6).await;
    // The client in Python gives up after five seconds without a byte.
    tokio::time::sleep(Duration::from_millis(6500)).await;
    publish(hub, "ann", "a2a", None, &sent[1]).await;
    assert_all_understood(at_work, &sent).await;
}

#[tokio::test]
async fn a_stream_of_0_3_ends_where_the_task_waits_for_its_client() {
    let process = hub().await;
    let hub = &process.hub;
    // One of 1.0, whose stream goes on, and those of 0.3.
    let clients = [A2A[0], A2A[4], A2A[5]];
    for (nth, state) in ["INPUT_REQUIRED", "AUTH_REQUIRED"].into_iter().enumerate() {
        let id = format!("task-{nth}");
        let asked = [task(&id), status(&id, state)];
        publish(hub, "ann", "a2a", None, &asked[0]).await;
        let mut at_work = Vec::new();
        for (index, of) in clients.into_iter().enumerate() {
            let name = format!("waits-{nth}-{index}");
            at_work.push(Client::a2a(&name, of, hub, "ann", ["send", &id, ""]));
        }
        connected(hub, "a2a", 3).await;
        publish(hub, "ann", "a2a", None, &asked[1]).await;
        connected(hub, "a2a", 1).await;
        let last = status(&id, "COMPLETED");
        publish(hub, "ann", "a2a", None, &last).await;
        for (client, of) in at_work.into_iter().zip(clients) {
            let (events, end) = client.events().await;
            assert_eq!(end, json!({ "done": true }), "{of:?}");
            assert_eq!(events[..2], asked, "{of:?}");
            let goes_on = usize::from(of.1 != "JSONRPC-0.3");
            assert_eq!(events[2..], [last.clone()][..goes_on], "{of:?}");
        }
    }
}
