//! The routes of the example `agent_hub` for events of all kinds, and those for clients of AG-UI and A2A.

use eventsource_stream::{EventStream, Eventsource};
use futures_util::stream::{BoxStream, StreamExt};
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::hub::{Hub, within};
use crate::support::process::Process;

/// A stream as it is read by a client, which sees neither comments nor ids.
struct Events(EventStream<BoxStream<'static, reqwest::Result<axum::body::Bytes>>>);

impl Events {
    #[track_caller]
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response.bytes_stream().boxed().eventsource())
    }

    async fn open(hub: &Hub, user: &str, kind: &str) -> Self {
        let url = hub.url(&["users", user, "streams", kind]);
        Self::of(
            within("a stream", hub.client.get(url).send())
                .await
                .expect("a response"),
        )
    }

    /// The next event's name and its data.
    async fn next(&mut self) -> Option<(String, Value)> {
        let event = within("an event", self.0.next()).await?;
        let event = event.expect("the stream is whole");
        let data = serde_json::from_str(&event.data).expect("JSON");
        Some((event.event, data))
    }

    async fn event(&mut self) -> (String, Value) {
        self.next().await.expect("the stream is open")
    }

    async fn rest(mut self) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| &**name).collect()
}

async fn post(hub: &Hub, path: &[&str], query: &[(&str, &str)], body: impl ToString) -> Response {
    let mut url = hub.url(path);
    url.query_pairs_mut().extend_pairs(query);
    let request = hub.client.post(url);
    let request = request.header("content-type", "application/json");
    let response = request.body(body.to_string()).send();
    within("a response", response).await.expect("a response")
}

/// Posts an event, and says how many streams it was sent to.
async fn publish(hub: &Hub, user: &str, kind: &str, query: &[(&str, &str)], event: Value) -> Value {
    let response = post(hub, &["users", user, "events", kind], query, event).await;
    assert_eq!(response.status(), 200);
    response.json().await.expect("JSON")
}

/// Publishes a whole message of one of ann's runs.
async fn publish_message(hub: &Hub, of: &[(&str, &str)], text: &str) {
    for event in [
        json!({ "type": "TEXT_MESSAGE_START", "messageId": "m" }),
        json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": text }),
        json!({ "type": "TEXT_MESSAGE_END", "messageId": "m" }),
    ] {
        publish(hub, "ann", "agui", of, event).await;
    }
}

fn counts(agui: u32, a2a: u32, context: u32, analytics: u32) -> Value {
    json!({ "agui": agui, "a2a": a2a, "context": context, "analytics": analytics })
}

/// Asserts that the answer is 400 with a sentence that says `hint`.
async fn assert_bad(response: Response, hint: &str) {
    let status = response.status();
    let sentence = response.text().await.expect("a body");
    assert_eq!(status, 400, "{sentence}");
    assert!(
        sentence.contains(hint) && sentence.ends_with('.'),
        "{sentence:?} lacks {hint:?}"
    );
}

fn status(task: &str, state: &str) -> Value {
    let status = json!({ "state": format!("TASK_STATE_{state}") });
    json!({ "statusUpdate": { "taskId": task, "contextId": "c", "status": status } })
}

fn input(thread: &str, run: &str, text: &str) -> Value {
    let messages = json!([{ "id": "m", "role": "user", "content": text }]);
    json!({ "threadId": thread, "runId": run, "messages": messages })
}

#[tokio::test]
async fn each_event_goes_to_its_own_streams_and_to_the_context_streams() {
    let hub = Hub::start().await;
    let mut agui = Events::open(&hub, "ann", "agui").await;
    let mut a2a = Events::open(&hub, "ann", "a2a").await;
    let mut context = Events::open(&hub, "ann", "context").await;
    let mut analytics = Events::open(&hub, "ann", "analytics").await;
    let mut bob = Events::open(&hub, "bob", "context").await;

    let step = json!({ "type": "STEP_STARTED", "stepName": "search" });
    assert_eq!(
        publish(&hub, "ann", "agui", &[], step.clone()).await,
        counts(1, 0, 1, 0)
    );
    assert_eq!(agui.event().await, ("STEP_STARTED".into(), step.clone()));
    let wrapped = json!({ "protocol": "agui", "event": step });
    assert_eq!(context.event().await, ("agui".into(), wrapped));

    let part = json!({ "parts": [{ "text": "x" }] });
    let message =
        json!({ "messageId": "m", "role": "ROLE_AGENT", "taskId": "t", "parts": part["parts"] });
    let artifact = json!({ "artifactId": "a", "parts": part["parts"] });
    for event in [
        json!({ "task": { "id": "t", "contextId": "c", "status": { "state": "TASK_STATE_SUBMITTED" } } }),
        status("t", "WORKING"),
        json!({ "message": message }),
        json!({ "artifactUpdate": { "taskId": "t", "contextId": "c", "artifact": artifact } }),
    ] {
        let name = event
            .as_object()
            .and_then(|event| event.keys().next())
            .expect("a member");
        assert_eq!(
            publish(&hub, "ann", "a2a", &[], event.clone()).await,
            counts(0, 1, 1, 0)
        );
        assert_eq!(a2a.event().await, (name.clone(), event.clone()));
        let wrapped = json!({ "protocol": "a2a", "event": event });
        assert_eq!(context.event().await, ("a2a".into(), wrapped));
    }

    let created = json!({ "type": "contextCreated", "context": { "id": "c1" } });
    assert_eq!(
        publish(&hub, "ann", "system", &[], created.clone()).await,
        counts(0, 0, 1, 0)
    );
    let wrapped = json!({ "protocol": "system", "event": created });
    assert_eq!(context.event().await, ("system".into(), wrapped));

    let view = json!({ "type": "pageView", "sessionId": "s", "url": "/" });
    assert_eq!(
        publish(&hub, "ann", "analytics", &[], view.clone()).await,
        counts(0, 0, 0, 1)
    );
    assert_eq!(analytics.event().await, ("pageView".into(), view.clone()));

    // All kinds end together, and nothing was in the wrong place.
    assert_eq!(hub.post(&["users", "ann", "end"]).await["ended"], 4);
    for stream in [agui, a2a, context, analytics] {
        assert_eq!(stream.rest().await, []);
    }
    assert_eq!(hub.post(&["users", "bob", "drop"]).await["dropped"], 1);
    let broken = within("the break", bob.0.next()).await;
    assert!(broken.is_some_and(|event| event.is_err()));
    assert_eq!(
        publish(&hub, "nobody", "analytics", &[], view).await,
        counts(0, 0, 0, 0)
    );
}

#[tokio::test]
async fn a_body_that_is_not_an_event_is_refused_with_a_sentence() {
    let hub = Hub::start().await;
    let far = json!({ "type": "STEP_STARTED", "stepName": "s", "timestamp": 1i64 << 53 });
    let empty = json!({ "type": "RUN_FINISHED", "threadId": "t", "runId": "r",
        "outcome": { "type": "interrupt", "interrupts": [] } });
    let both = json!({ "task": { "id": "t", "contextId": "c", "status": { "state": "TASK_STATE_WORKING" } },
        "statusUpdate": status("t", "WORKING")["statusUpdate"] });
    let cases = [
        ("agui", "".into(), "not a valid AG-UI event"),
        ("agui", "[]".into(), "not a valid AG-UI event"),
        ("agui", r#""RUN_STARTED""#.into(), "not a valid AG-UI event"),
        ("agui", "{}".into(), "type"),
        (
            "agui",
            r#"{"type":"RUN_STARTED","threadId":"t"}"#.into(),
            "runId",
        ),
        (
            "agui",
            r#"{"type":"RUN_ERROR","message":"m","code":null}"#.into(),
            "null",
        ),
        (
            "agui",
            r#"{"type":"STEP_STARTED","stepName":"s","timestamp":"2026-11-22T12:00:00Z"}"#.into(),
            "timestamp",
        ),
        // Nobody listens, and still it is checked.
        ("agui", far.to_string(), "STEP_STARTED.timestamp"),
        ("agui", empty.to_string(), "RUN_FINISHED.outcome.interrupts"),
        ("a2a", "{}".into(), "exactly one of"),
        ("a2a", both.to_string(), "exactly one of"),
        ("a2a", r#"{"type":"heartbeat"}"#.into(), "exactly one of"),
        (
            "a2a",
            r#"{"statusUpdate":{"taskId":"t"}}"#.into(),
            "not a valid A2A event",
        ),
        (
            "a2a",
            r#"{"kind":"status-update","taskId":"t"}"#.into(),
            "0.3",
        ),
        (
            "system",
            r#"{"type":"other"}"#.into(),
            "not a valid system event",
        ),
        ("system", r#"{"type":"contextCreated"}"#.into(), "context"),
        (
            "analytics",
            r#"{"type":"pageView","sessionId":"s"}"#.into(),
            "url",
        ),
        ("analytics", "null".into(), "not a valid analytics event"),
    ];
    for (kind, body, hint) in cases {
        let body: String = body;
        assert_bad(
            post(&hub, &["users", "ann", "events", kind], &[], body).await,
            hint,
        )
        .await;
    }
    let started = json!({ "type": "RUN_STARTED", "threadId": "t", "runId": "r" });
    let path = ["users", "ann", "events", "agui"];
    assert_bad(
        post(&hub, &path, &[("thread", "t")], &started).await,
        "both",
    )
    .await;
    let other = [("thread", "t"), ("run", "other")];
    assert_bad(post(&hub, &path, &other, &started).await, "another run").await;
    let plain = hub
        .client
        .post(hub.url(&path))
        .header("content-type", "text/plain");
    let plain = plain
        .body(started.to_string())
        .send()
        .await
        .expect("a response");
    assert_bad(plain, "content type").await;

    for (what, kind) in [("streams", "system"), ("events", "context")] {
        let path = ["users", "ann", what, kind];
        let request = if what == "streams" {
            hub.client.get(hub.url(&path))
        } else {
            hub.client.post(hub.url(&path))
        };
        assert_eq!(request.send().await.expect("a response").status(), 404);
    }
}

#[tokio::test]
async fn a_post_is_answered_with_the_run_that_it_names() {
    let hub = Hub::start().await;
    let mine = Events::of(post(&hub, &["agui", "ann"], &[], input("t", "mine", "")).await);
    let other = Events::of(post(&hub, &["agui", "ann"], &[], input("t", "other", "")).await);
    let bob = Events::of(post(&hub, &["agui", "bob"], &[], input("t", "mine", "")).await);
    for run in ["mine", "other"] {
        let started = json!({ "type": "RUN_STARTED", "threadId": "t", "runId": run });
        assert_eq!(
            publish(&hub, "ann", "agui", &[], started).await,
            counts(2, 0, 0, 0)
        );
    }
    for run in ["other", "mine"] {
        let of = [("thread", "t"), ("run", run)];
        publish_message(&hub, &of, run).await;
        let finished = json!({ "type": "RUN_FINISHED", "threadId": "t", "runId": run });
        publish(&hub, "ann", "agui", &[], finished).await;
    }
    for (stream, run) in [(mine, "mine"), (other, "other")] {
        let events = stream.rest().await;
        let expected = [
            "RUN_STARTED",
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_END",
            "RUN_FINISHED",
        ];
        assert_eq!(names(&events), expected);
        assert_eq!(events[2].1["delta"], run);
    }
    // Another user's run of the same name has not begun.
    hub.post(&["users", "bob", "end"]).await;
    let events = bob.rest().await;
    assert_eq!(
        (names(&events), &events[0].1["code"]),
        (vec!["RUN_ERROR"], &json!("STREAM_CUT_OFF"))
    );
}

#[tokio::test]
async fn a_post_that_asks_for_no_run_is_refused_with_a_sentence() {
    let hub = Hub::start().await;
    let path = ["agui", "ann"];
    assert_bad(
        post(&hub, &path, &[], "").await,
        "not a valid RunAgentInput",
    )
    .await;
    assert_bad(
        post(&hub, &path, &[], json!({ "threadId": "t" })).await,
        "runId",
    )
    .await;
    let input = input("t", "r", "hello");
    assert_bad(
        post(&hub, &path, &[("agent", "smith")], &input).await,
        "\"smith\"",
    )
    .await;

    let mut ten = Vec::new();
    for _ in 0..10 {
        ten.push(post(&hub, &path, &[], &input).await);
    }
    assert_eq!(post(&hub, &path, &[], &input).await.status(), 429);
}

#[tokio::test]
async fn the_agent_is_seen_by_clients_of_both_protocols() {
    let hub = Hub::start().await;
    let mut context = Events::open(&hub, "ann", "context").await;
    let query = [("agent", "echo")];
    let run = post(&hub, &["agui", "ann"], &query, input("t", "r", "hello you")).await;
    let task = post(
        &hub,
        &["a2a", "ann", "message:stream"],
        &[],
        message(Some("r"), ""),
    );
    let task = Events::of(task.await);
    let run = Events::of(run).rest().await;
    let names = names(&run);
    assert_eq!(
        (names[0], names[names.len() - 1]),
        ("RUN_STARTED", "RUN_FINISHED")
    );
    for name in [
        "REASONING_MESSAGE_CONTENT",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_RESULT",
        "STATE_DELTA",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    let said = |events: &[(String, Value)], name: &str, at: &str| -> String {
        let of_name = events.iter().filter(|(found, _)| found == name);
        of_name
            .map(|(_, data)| data.pointer(at).and_then(Value::as_str).expect("text"))
            .collect()
    };
    assert_eq!(said(&run, "TEXT_MESSAGE_CONTENT", "/delta"), "hello you");

    let task = task.rest().await;
    let piece = "/artifactUpdate/artifact/parts/0/text";
    assert_eq!(said(&task, "artifactUpdate", piece), "hello you");
    assert_eq!(task[0].0, "task");
    let last = &task[task.len() - 1].1["statusUpdate"]["status"]["state"];
    assert_eq!(last, "TASK_STATE_COMPLETED");
    for _ in 0..run.len() {
        let (protocol, event) = context.event().await;
        assert_eq!(event["protocol"], protocol);
    }

    // It is remembered as it ended.
    let answer = rpc(&hub, "GetTask", json!({ "id": "r" })).await;
    let parts = &answer["result"]["artifacts"][0]["parts"];
    assert_eq!(*parts, json!([{ "text": "hello you" }]));
}

#[tokio::test]
async fn a_message_that_is_sent_again_joins_the_task_that_it_has_begun() {
    let hub = Hub::start().await;
    let path = ["a2a", "ann", "message:stream"];
    let send = async |text| Events::of(post(&hub, &path, &[], message(None, text)).await);
    let first = send("hello you").await;
    let again = send("hello you").await;
    let other = send("hello others").await;
    let tasks = [first.rest().await, again.rest().await, other.rest().await];
    let [first, again, other] = tasks.each_ref().map(|events| {
        let task = &events[0].1["task"]["id"];
        let last = &events[events.len() - 1].1["statusUpdate"]["status"]["state"];
        assert_eq!(last, "TASK_STATE_COMPLETED");
        task.as_str().expect("an id")
    });
    assert_eq!(first, again);
    assert_ne!(first, other);
}

fn message(task: Option<&str>, text: &str) -> Value {
    let mut message = json!({ "messageId": "m", "role": "ROLE_USER", "parts": [{ "text": text }] });
    if let Some(task) = task {
        message["taskId"] = task.into();
    }
    json!({ "message": message })
}

async fn rpc(hub: &Hub, method: &str, params: Value) -> Value {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let response = post(hub, &["a2a", "ann", "rpc"], &[], call).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    response.json().await.expect("JSON")
}

#[tokio::test]
async fn a_call_is_answered_under_its_id_byte_for_byte() {
    let hub = Hub::start().await;
    let path = ["a2a", "ann", "rpc"];
    for (n, id) in [
        "1",
        "-7",
        "1.50e1",
        "12345678901234567890123",
        r#""a\u0041 \" \/""#,
        "null",
    ]
    .into_iter()
    .enumerate()
    {
        let task = format!("t{n}");
        let call = |method: &str, params: Value| {
            format!(r#"{{"method":"{method}", "id" : {id} ,"jsonrpc":"2.0","params":{params}}}"#)
        };
        let answer = post(&hub, &path, &[], call("GetTask", json!({ "id": "none" }))).await;
        let answer = answer.text().await.expect("a body");
        assert!(
            answer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"#)),
            "{answer}"
        );

        publish(&hub, "ann", "a2a", &[], status(&task, "WORKING")).await;
        let call = call("SendStreamingMessage", message(Some(&task), ""));
        let stream = post(&hub, &path, &[], call).await;
        let ended = status(&task, "COMPLETED");
        publish(&hub, "ann", "a2a", &[], ended).await;
        let stream = within("the end", stream.text()).await.expect("text");
        let mut lines = stream.lines().filter(|line| line.starts_with("data"));
        for kind in ["task", "statusUpdate"] {
            let start = format!(r#"data: {{"jsonrpc":"2.0","id":{id},"result":{{"{kind}":"#);
            assert!(
                lines.next().is_some_and(|line| line.starts_with(&start)),
                "{stream}"
            );
        }
    }
}

#[tokio::test]
async fn a_call_that_is_wrong_is_answered_with_an_error_object() {
    let hub = Hub::start().await;
    let cases = [
        ("", "null", -32700),
        ("{", "null", -32700),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"GetTask"} and more"#,
            "null",
            -32700,
        ),
        ("[]", "null", -32600),
        ("1", "null", -32600),
        (r#"{"jsonrpc":"2.0","method":"GetTask"}"#, "null", -32600),
        (
            r#"{"jsonrpc":"2.0","id":{},"method":"GetTask"}"#,
            "null",
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":true,"method":"GetTask"}"#,
            "null",
            -32600,
        ),
        (
            r#"{"jsonrpc":"1.0","id":1,"method":"GetTask"}"#,
            "1",
            -32600,
        ),
        (r#"{"id":"x","method":"GetTask"}"#, r#""x""#, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, "1", -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":1}"#, "1", -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"Dance"}"#, "1", -32601),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"GetTask"}"#,
            "1",
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":[]}"#,
            "1",
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"SendStreamingMessage","params":{"message":{}}}"#,
            "1",
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":{"id":"none"}}"#,
            "1",
            -32001,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"CancelTask","params":{"id":"none"}}"#,
            "1",
            -32001,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":{}}"#,
            "1",
            -32004,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"message/stream","params":{}}"#,
            "1",
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tasks/resubscribe","params":{}}"#,
            "1",
            -32602,
        ),
    ];
    for (body, id, code) in cases {
        let response = post(&hub, &["a2a", "ann", "rpc"], &[], body).await;
        assert_eq!(response.status(), 200, "{body}");
        let answer = response.text().await.expect("a body");
        let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":""#);
        assert!(answer.starts_with(&start), "{body}: {answer}");
        serde_json::from_str::<Value>(&answer).expect("JSON");
    }
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": { "id": "t" } });
    let old = hub
        .client
        .post(hub.url(&["a2a", "ann", "rpc"]))
        .header("a2a-version", "0.3");
    let old: Value = old
        .json(&call)
        .send()
        .await
        .expect("a response")
        .json()
        .await
        .expect("JSON");
    assert_eq!(old["error"]["code"], -32009);
}

#[tokio::test]
async fn a_task_is_followed_from_where_it_is_to_its_end() {
    let hub = Hub::start().await;
    let task = json!({ "task": { "id": "t:1", "contextId": "c", "status": { "state": "TASK_STATE_SUBMITTED" } } });
    publish(&hub, "ann", "a2a", &[], task).await;
    publish(&hub, "ann", "a2a", &[], status("t:1", "WORKING")).await;
    for (artifact, text, append) in [
        ("a", "one ", false),
        ("b", "other", false),
        ("a", "two", true),
    ] {
        let artifact = json!({ "artifactId": artifact, "parts": [{ "text": text }] });
        let update =
            json!({ "taskId": "t:1", "contextId": "c", "artifact": artifact, "append": append });
        publish(&hub, "ann", "a2a", &[], json!({ "artifactUpdate": update })).await;
    }

    let subscribe = ["a2a", "ann", "tasks", "t:1:subscribe"];
    let call = json!({ "jsonrpc": "2.0", "id": "s", "method": "SubscribeToTask", "params": { "id": "t:1" } });
    let got = hub
        .client
        .get(hub.url(&subscribe))
        .send()
        .await
        .expect("a response");
    let streams = [
        got,
        post(&hub, &subscribe, &[], "").await,
        post(
            &hub,
            &["a2a", "ann", "message:stream"],
            &[],
            message(Some("t:1"), "more"),
        )
        .await,
        post(&hub, &["a2a", "ann", "rpc"], &[], call.clone()).await,
    ];
    assert_eq!(
        publish(&hub, "ann", "a2a", &[], status("other", "COMPLETED")).await,
        counts(0, 4, 0, 0)
    );
    publish(&hub, "bob", "a2a", &[], status("t:1", "FAILED")).await;
    publish(&hub, "ann", "a2a", &[], status("t:1", "COMPLETED")).await;
    // A late event gets an error and is not sent.
    for late in [
        status("t:1", "WORKING"),
        json!({ "task": { "id": "t:1", "contextId": "c", "status": { "state": "TASK_STATE_WORKING" } } }),
        json!({ "artifactUpdate": { "taskId": "t:1", "contextId": "c", "artifact": { "artifactId": "a", "parts": [] } } }),
    ] {
        let refused = post(&hub, &["users", "ann", "events", "a2a"], &[], late).await;
        assert_eq!(refused.status(), 409);
    }

    for (n, stream) in streams.into_iter().enumerate() {
        let events = Events::of(stream).rest().await;
        assert_eq!(events.len(), 2, "{events:?}");
        let inner = |event: &Value| {
            if n == 3 {
                event["result"].clone()
            } else {
                event.clone()
            }
        };
        let task = &inner(&events[0].1)["task"];
        assert_eq!(task["status"]["state"], "TASK_STATE_WORKING");
        let artifacts = json!([
            { "artifactId": "a", "parts": [{ "text": "one two" }] },
            { "artifactId": "b", "parts": [{ "text": "other" }] },
        ]);
        assert_eq!(task["artifacts"], artifacts);
        assert_eq!(inner(&events[1].1), status("t:1", "COMPLETED"));
        if n < 3 {
            assert_eq!(names(&events), ["task", "statusUpdate"]);
        }
    }

    // It has ended, and stays so.
    for response in [
        hub.client
            .get(hub.url(&subscribe))
            .send()
            .await
            .expect("a response"),
        post(&hub, &subscribe, &[], "").await,
        post(
            &hub,
            &["a2a", "ann", "message:stream"],
            &[],
            message(Some("t:1"), "more"),
        )
        .await,
    ] {
        assert_eq!(response.status(), 400);
        let error: Value = response.json().await.expect("JSON");
        assert_eq!(
            error["error"]["details"][0]["reason"],
            "UNSUPPORTED_OPERATION"
        );
    }
    let answer: Value = post(&hub, &["a2a", "ann", "rpc"], &[], call)
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!("s"), &json!(-32004))
    );
    let found = hub
        .client
        .get(hub.url(&["a2a", "ann", "tasks", "t:1"]))
        .send()
        .await
        .expect("a response");
    let found: Value = found.json().await.expect("JSON");
    assert_eq!(found["status"]["state"], "TASK_STATE_COMPLETED");

    // Each user has tasks of its own, and what is not known is not found.
    for path in [
        ["a2a", "eve", "tasks", "t:1:subscribe"],
        ["a2a", "ann", "tasks", "none:subscribe"],
    ] {
        let response = post(&hub, &path, &[], "").await;
        assert_eq!(response.status(), 404);
        let error: Value = response.json().await.expect("JSON");
        assert_eq!(error["error"]["details"][0]["reason"], "TASK_NOT_FOUND");
    }
    assert_eq!(
        post(&hub, &["a2a", "ann", "tasks", "t:1:dance"], &[], "")
            .await
            .status(),
        501
    );
    assert_eq!(
        post(&hub, &["a2a", "ann", "message:stream"], &[], "{}")
            .await
            .status(),
        400
    );
}

#[tokio::test]
async fn clients_of_0_3_get_the_objects_of_0_3() {
    let hub = Hub::start().await;
    let call = |method: &str, params: Value| {
        let call = json!({ "jsonrpc": "2.0", "id": "x", "method": method, "params": params });
        post(&hub, &["a2a", "ann", "rpc"], &[], call)
    };
    for params in [
        json!([]),
        json!("x"),
        json!({ "message": [] }),
        json!({ "message": { "parts": [1] } }),
    ] {
        let answer: Value = call("message/stream", params)
            .await
            .json()
            .await
            .expect("JSON");
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    let parts = json!([{ "kind": "text", "text": "hello" }, { "kind": "data", "data": {} }]);
    let message = json!({ "kind": "message", "messageId": "m", "role": "user", "parts": parts });
    let stream = Events::of(call("message/stream", json!({ "message": message })).await);
    let events = stream.rest().await;
    let results: Vec<_> = events.iter().map(|(_, event)| &event["result"]).collect();
    let kinds: Vec<_> = results
        .iter()
        .map(|result| result["kind"].as_str().expect("a kind"))
        .collect();
    assert_eq!(
        kinds,
        ["task", "status-update", "artifact-update", "status-update"]
    );
    assert_eq!(results[0]["status"]["state"], "submitted");
    assert_eq!(
        (&results[1]["status"]["state"], &results[1]["final"]),
        (&json!("working"), &json!(false))
    );
    let part = json!({ "kind": "text", "text": "hello" });
    assert_eq!(results[2]["artifact"]["parts"], json!([part]));
    assert_eq!(
        (&results[3]["status"]["state"], &results[3]["final"]),
        (&json!("completed"), &json!(true))
    );

    let id = results[0]["id"].clone();
    let task: Value = call("tasks/get", json!({ "id": id }))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(task["result"]["history"][0]["role"], "user");
    assert_eq!(task["result"]["artifacts"][0]["parts"], json!([part]));
    for method in ["tasks/resubscribe", "tasks/cancel"] {
        let answer: Value = call(method, json!({ "id": id }))
            .await
            .json()
            .await
            .expect("JSON");
        assert!(answer["error"]["code"].is_number(), "{answer}");
    }

    // Of all shapes that there are.
    publish(&hub, "ann", "a2a", &[], status("t", "INPUT_REQUIRED")).await;
    let stream = call("tasks/resubscribe", json!({ "id": "t" })).await;
    let parts = json!([
        { "url": "https://x.example", "filename": "f", "mediaType": "m/t" },
        { "raw": "AAEC", "metadata": { "k": 1 } },
        { "data": [1] },
        { "data": { "a": null } },
    ]);
    let artifact = json!({ "artifactId": "a", "parts": parts });
    let update =
        json!({ "taskId": "t", "contextId": "c", "artifact": artifact, "lastChunk": true });
    publish(&hub, "ann", "a2a", &[], json!({ "artifactUpdate": update })).await;
    let mut done = status("t", "COMPLETED");
    done["statusUpdate"]["status"]["message"] =
        json!({ "messageId": "m", "role": "ROLE_AGENT", "parts": [{ "text": "\u{2028}" }] });
    publish(&hub, "ann", "a2a", &[], done).await;
    let text = stream.text().await.expect("text");
    assert!(
        !text.contains('\u{2028}'),
        "some clients take it for the end of a line"
    );
    let results: Vec<Value> = text
        .split_terminator("\n\n")
        .map(|event| {
            serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON")
        })
        .collect();
    assert_eq!(results[0]["result"]["status"]["state"], "input-required");
    let old = json!([
        { "kind": "file", "file": { "uri": "https://x.example", "name": "f", "mimeType": "m/t" } },
        { "kind": "file", "file": { "bytes": "AAEC" }, "metadata": { "k": 1 } },
        { "kind": "data", "data": { "value": [1] } },
        { "kind": "data", "data": { "a": null } },
    ]);
    assert_eq!(results[1]["result"]["artifact"]["parts"], old);
    let said = &results[2]["result"]["status"]["message"];
    assert_eq!(
        (&said["kind"], &said["role"]),
        (&json!("message"), &json!("agent"))
    );
    assert_eq!(said["parts"][0]["text"], "\u{2028}");
    assert_eq!(results.len(), 3);
}

#[tokio::test]
async fn a_task_that_is_canceled_again_is_the_answer_again() {
    let hub = Hub::start().await;
    let words = "word ".repeat(500);
    let mut stream = Events::of(
        post(
            &hub,
            &["a2a", "ann", "message:stream"],
            &[],
            message(None, &words),
        )
        .await,
    );
    let (_, first) = stream.event().await;
    let id = first["task"]["id"].as_str().expect("an id");
    let canceled = rpc(&hub, "CancelTask", json!({ "id": id })).await;
    assert_eq!(canceled["result"]["status"]["state"], "TASK_STATE_CANCELED");
    let events = stream.rest().await;
    let last = &events[events.len() - 1].1;
    assert_eq!(
        last["statusUpdate"]["status"]["state"],
        "TASK_STATE_CANCELED"
    );
    let cancel = format!("{id}:cancel");
    let path = ["a2a", "ann", "tasks", &*cancel];
    let again = post(&hub, &path, &[], "").await;
    assert_eq!(again.status(), 200);
    let again: Value = again.json().await.expect("JSON");
    assert_eq!(
        again,
        rpc(&hub, "CancelTask", json!({ "id": id })).await["result"]
    );
    assert_eq!(again["status"]["state"], "TASK_STATE_CANCELED");

    publish(&hub, "ann", "a2a", &[], status("done", "COMPLETED")).await;
    let done = post(&hub, &["a2a", "ann", "tasks", "done:cancel"], &[], "").await;
    assert_eq!(done.status(), 400);
}

#[tokio::test]
async fn a_task_begins_with_itself_whatever_is_posted_of_it_first() {
    let hub = Hub::start().await;
    let artifact = json!({ "artifactUpdate": { "taskId": "early", "contextId": "c",
        "artifact": { "artifactId": "a", "parts": [{ "text": "x" }] }, "append": true } });
    for (id, first) in [("early", artifact), ("plain", status("plain", "WORKING"))] {
        let mut stream = Events::open(&hub, "ann", "a2a").await;
        publish(&hub, "ann", "a2a", &[], first.clone()).await;
        let (name, task) = stream.event().await;
        assert_eq!(name, "task");
        let context = first
            .as_object()
            .and_then(|event| event.values().next())
            .map(|event| &event["contextId"]);
        assert_eq!(Some(&task["task"]["contextId"]), context);
        assert_eq!(
            (&task["task"]["id"], &task["task"]["status"]["state"]),
            (&json!(id), &json!("TASK_STATE_SUBMITTED"))
        );
        assert_eq!(stream.event().await.1, first);
    }
    let known = hub
        .client
        .get(hub.url(&["a2a", "ann", "tasks", "early"]))
        .send()
        .await;
    let known: Value = known.expect("a response").json().await.expect("JSON");
    assert_eq!(known["artifacts"][0]["parts"], json!([{ "text": "x" }]));
}

#[tokio::test]
async fn the_card_names_the_addresses_as_they_were_asked_for() {
    let process = Process::start(&["--host", "hub.example"]).await;
    let hub = &process.hub;
    let url = hub.url(&["a2a", "ann/é", ".well-known", "agent-card.json"]);
    let request = hub.client.get(url).header("host", "hub.example:81");
    let card: Value = request
        .send()
        .await
        .expect("a response")
        .json()
        .await
        .expect("JSON");
    let interfaces = card["supportedInterfaces"].as_array().expect("interfaces");
    let urls: Vec<_> = interfaces
        .iter()
        .map(|of| (&of["protocolBinding"], &of["url"]))
        .collect();
    let base = "http://hub.example:81/a2a/ann%2F%C3%A9";
    let rpc = format!("{base}/rpc");
    assert_eq!(
        urls,
        [
            (&json!("JSONRPC"), &json!(rpc)),
            (&json!("HTTP+JSON"), &json!(base))
        ]
    );
    assert_eq!(card["capabilities"]["streaming"], true);
}

#[tokio::test]
async fn the_heartbeat_is_an_event_only_where_it_is_asked_for_and_understood() {
    let process = Process::start(&["--history", "0", "--heartbeat-ms", "20"]).await;
    let event = "event: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n";
    for (kind, query, expected) in [
        ("agui", "event", ":\n"),
        ("a2a", "event", ":\n"),
        ("context", "event", event),
        ("analytics", "event", event),
        ("text", "event", event),
        ("context", "comment", ":\n"),
        ("analytics", "comment", ":\n"),
    ] {
        let mut url = process.hub.url(&["users", "ann", "streams", kind]);
        url.query_pairs_mut().append_pair("heartbeat", query);
        let response = process.hub.client.get(url).send();
        let mut bytes = response.await.expect("a response").bytes_stream();
        let mut read = Vec::new();
        let heartbeat = async {
            // Behind the beginning.
            while read.len() < ":\n".len() + expected.len() {
                read.extend(bytes.next().await.expect("open").expect("whole"));
            }
        };
        within("a heartbeat", heartbeat).await;
        let rest = read.strip_prefix(b":\n").expect("a beginning");
        assert!(
            rest.starts_with(expected.as_bytes()),
            "{kind} {query}: {rest:?}"
        );
    }
    let mut url = process.hub.url(&["users", "ann", "streams", "context"]);
    url.query_pairs_mut().append_pair("heartbeat", "loud");
    let response = process.hub.client.get(url).send();
    assert_eq!(response.await.expect("a response").status(), 400);
}

#[cfg(unix)]
#[tokio::test]
async fn a_shutdown_ends_streams_of_all_kinds_together() {
    let mut process = Process::start(&["--drain-ms", "1000", "--history", "10"]).await;
    let mut streams = Vec::new();
    for kind in ["text", "agui", "a2a", "context", "analytics"] {
        streams.push(Events::open(&process.hub, "ann", kind).await);
    }
    let run = Events::of(post(&process.hub, &["agui", "ann"], &[], input("t", "r", "")).await);
    process.signal("TERM").await;
    let started = std::time::Instant::now();
    let run = run.rest().await;
    assert_eq!(names(&run), ["RUN_ERROR"]);
    for stream in streams {
        assert_eq!(stream.rest().await, []);
    }
    assert_eq!(process.exit().await.code(), Some(0));
    assert!(started.elapsed().as_secs() < 3, "not one after the other");
}
