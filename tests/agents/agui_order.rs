//! What a `RunView` shows of a run, whatever is sent of it, is what AG-UI's own client takes, and nothing of that is hidden.

use futures_util::FutureExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tidings::protocol::agui::{Event, RunRef, RunView};
use tidings::{AgUiBroadcaster, KeepAlive, SseBody};

use crate::support::decoder::Decoder;
use crate::support::official;

/// Every event whose place matters, of one of two parts of an agent. `lane` is a subagent, or the agent itself.
///
/// A part's name has its lane, because the client remembers whose it is, which a view does not.
fn events(lane: Option<&str>, name: &str, parent: Option<&str>) -> Vec<Value> {
    let id = format!("{name}{}", lane.unwrap_or_default());
    let mut events = vec![
        json!({ "type": "STEP_STARTED", "stepName": name }),
        json!({ "type": "STEP_FINISHED", "stepName": name }),
        json!({ "type": "TEXT_MESSAGE_START", "messageId": id }),
        json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": id, "delta": "x" }),
        json!({ "type": "TEXT_MESSAGE_END", "messageId": id }),
        json!({ "type": "TEXT_MESSAGE_CHUNK", "messageId": id, "delta": "x" }),
        json!({ "type": "TEXT_MESSAGE_CHUNK", "delta": "x" }),
        json!({ "type": "TOOL_CALL_START", "toolCallId": id, "toolCallName": "tool" }),
        json!({ "type": "TOOL_CALL_ARGS", "toolCallId": id, "delta": "x" }),
        json!({ "type": "TOOL_CALL_END", "toolCallId": id }),
        json!({ "type": "TOOL_CALL_CHUNK", "toolCallId": id, "toolCallName": "tool", "delta": "x" }),
        json!({ "type": "TOOL_CALL_CHUNK", "toolCallId": id, "delta": "x" }),
        json!({ "type": "TOOL_CALL_CHUNK", "delta": "x" }),
        json!({ "type": "REASONING_START", "messageId": id }),
        json!({ "type": "REASONING_END", "messageId": id }),
        json!({ "type": "REASONING_MESSAGE_START", "messageId": id, "role": "reasoning" }),
        json!({ "type": "REASONING_MESSAGE_CONTENT", "messageId": id, "delta": "x" }),
        json!({ "type": "REASONING_MESSAGE_END", "messageId": id }),
        json!({ "type": "REASONING_MESSAGE_CHUNK", "messageId": id, "delta": "x" }),
        json!({ "type": "REASONING_MESSAGE_CHUNK", "delta": "x" }),
        json!({ "type": "RAW", "event": 1 }),
        json!({ "type": "STATE_SNAPSHOT", "snapshot": 1 }),
    ];
    if let Some(lane) = lane {
        for event in &mut events {
            event["subagentRunId"] = lane.into();
        }
        // A chunk that names nothing continues the only one of its kind.
        events.push(json!({ "type": "TEXT_MESSAGE_CHUNK", "delta": "x" }));
        let mut start =
            json!({ "type": "SUBAGENT_STARTED", "subagentRunId": lane, "name": "helper" });
        if let Some(parent) = parent {
            start["parentSubagentRunId"] = parent.into();
        }
        events.extend([
            start,
            json!({ "type": "SUBAGENT_FINISHED", "subagentRunId": lane }),
            json!({ "type": "SUBAGENT_ERROR", "subagentRunId": lane, "message": "no help" }),
        ]);
    } else {
        events.extend([
            json!({ "type": "MESSAGES_SNAPSHOT", "messages": [] }),
            json!({ "type": "RUN_STARTED", "threadId": "t", "runId": "r" }),
        ]);
    }
    events
}

/// A run of these events, and what is shown after each.
fn shown(sent: impl IntoIterator<Item = Value>) -> Value {
    let (hub, run) = (AgUiBroadcaster::new(), RunRef::new("t", "r"));
    let stream = hub.register("ann").expect("no cap is reached");
    let mut body = SseBody::new(stream).keep_alive(&KeepAlive::off());
    body = body.view(RunView::new(run.clone()));
    let mut steps = Vec::new();
    for json in sent {
        let event: Event = serde_json::from_value(json.clone()).expect("an event");
        hub.broadcast("ann", &run.event(event))
            .expect("a valid event");
        let mut decoder = Decoder::default();
        while let Some(Some(chunk)) = body.frame().now_or_never() {
            decoder.push(&chunk.expect("no error").into_data().expect("data"));
        }
        let shown = decoder.take();
        let shown = shown.iter().map(|event| serde_json::from_str(&event.data));
        let shown: Vec<Value> = shown.map(|event| event.expect("JSON")).collect();
        steps.push(json!([json, shown]));
    }
    steps.into()
}

#[test]
fn a_view_shows_what_the_client_takes_and_nothing_else() {
    let mut rng = fastrand::Rng::with_seed(1);
    let runs = (0..1_000).map(|_| {
        let mut sent = vec![json!({ "type": "RUN_STARTED", "threadId": "t", "runId": "r" })];
        for _ in 0..rng.usize(5..50) {
            let lane = [None, None, Some("s"), Some("u")][rng.usize(..4)];
            let parent = [None, None, Some("s"), Some("u")][rng.usize(..4)];
            let events = events(lane, ["a", "b"][rng.usize(..2)], parent);
            sent.push(events[rng.usize(..events.len())].clone());
        }
        sent.push(json!({ "type": "RUN_FINISHED", "threadId": "t", "runId": "r" }));
        shown(sent).to_string()
    });
    let runs: Vec<String> = runs.collect();
    let verdicts = official::run("order", "agui_order.mjs", &runs);
    assert_eq!(verdicts.lines().count(), runs.len());
    for verdict in verdicts.lines() {
        assert_eq!(verdict, "ok");
    }
}
