//! The official clients accept every event of the corpora, and give back the same. They refuse what `Event::check` refuses.
//!
//! They are in JavaScript and Python, and installed by `scripts/clients`, in pinned versions.

use serde_json::{Value, json};
use tidings::protocol::a2a::A2aEvent;
use tidings::protocol::agui::Event;
use tidings::{Frame, ToSse};

use crate::support::a2a_corpus;
use crate::support::agui_corpus;
use crate::support::official;

/// What a client says of an event.
#[derive(Debug)]
enum Verdict {
    /// It takes it for this.
    Accepted(String),
    /// It does not take it, and says why.
    Refused(#[expect(dead_code)] String),
}

/// Has a script of `tests/clients` judge these lines.
fn judge(name: &str, script: &str, lines: &[String]) -> Vec<Verdict> {
    let verdicts: Vec<_> = official::run(name, script, lines)
        .lines()
        .map(|line| match line.split_once(' ') {
            Some(("ok", json)) => Verdict::Accepted(json.to_owned()),
            Some(("refused", why)) => Verdict::Refused(why.to_owned()),
            _ => panic!("no verdict: {line}"),
        })
        .collect();
    assert_eq!(verdicts.len(), lines.len(), "a verdict for each");
    verdicts
}

/// The data as a client finds it on the wire.
fn wire<E: ToSse>(events: &[E]) -> Vec<String> {
    let data = |event| Frame::encode(event).expect("valid").data();
    events.iter().map(data).collect()
}

#[track_caller]
fn assert_accepted(verdict: &Verdict, sent: &str) -> String {
    let Verdict::Accepted(json) = verdict else {
        panic!("{verdict:?}: {:.300}", sent);
    };
    let (back, sent): (Value, Value) = (
        serde_json::from_str(json).expect("JSON"),
        serde_json::from_str(sent).expect("JSON"),
    );
    assert!(
        official::same(&back, &sent),
        "{:.300}\nfor {:.300}",
        json,
        sent
    );
    json.clone()
}

#[test]
fn agui_schemas_accept_the_corpus_and_give_it_back() {
    let events = agui_corpus::events();
    let lines = wire(&events);
    let verdicts = judge("accepted", "agui_schemas.mjs", &lines);
    for ((event, line), verdict) in events.iter().zip(&lines).zip(&verdicts) {
        let json = assert_accepted(verdict, line);
        let back: Event = serde_json::from_str(&json).expect("an event");
        assert_eq!(back, *event);
    }
}

#[test]
fn the_corpus_has_everything_that_the_agui_schemas_know() {
    let lines = wire(&agui_corpus::events());
    let found = official::run("corpus", "agui_coverage.mjs", &lines);
    let (missing, seen) = found.trim_end().rsplit_once('\n').unwrap_or(("", &found));
    assert_eq!(missing, "");
    let seen = seen.trim_end().strip_prefix("looked at ");
    let seen: usize = seen.and_then(|seen| seen.parse().ok()).expect("a number");
    assert!(seen > 1000, "the schemas have more than {seen} fields");
}

#[test]
fn agui_schemas_refuse_what_is_refused_here() {
    let run = |field: &str, value: Value| {
        let mut event = json!({"type": "RUN_FINISHED", "threadId": "t", "runId": "r"});
        event[field] = value;
        event
    };
    let started = |field: &str, value: Value| {
        let mut input = json!({"threadId": "t", "runId": "r", "messages": []});
        input[field] = value;
        json!({"type": "RUN_STARTED", "threadId": "t", "runId": "r", "input": input})
    };
    let delta = |operation: Value| json!({"type": "STATE_DELTA", "delta": [operation]});
    let parts = |part: Value| json!({"type": "MESSAGES_SNAPSHOT", "messages": [{"id": "m", "role": "user", "content": [part]}]});
    let refused = [
        run("timestamp", json!(9007199254740992i64)),
        run("timestamp", json!(-9007199254740992i64)),
        run("timestamp", json!(1.5)),
        run("timestamp", json!("2026-11-22T12:00:00Z")),
        run("timestamp", Value::Null),
        run("rawEvent", Value::Null),
        run("metadata", Value::Null),
        run("metadata", json!([])),
        run("result", Value::Null),
        run("outcome", json!({"type": "interrupt", "interrupts": []})),
        run("outcome", json!({"type": "other"})),
        run("usage", json!([{"inputTokens": -1}])),
        run("usage", json!([{"inputTokens": 9007199254740992i64}])),
        run("usage", json!([{"model": null}])),
        run("threadId", Value::Null),
        started("forwardedProps", Value::Null),
        started(
            "tools",
            json!([{"name": "n", "description": "d", "parameters": null}]),
        ),
        started(
            "resume",
            json!([{"interruptId": "i", "status": "resolved", "payload": null}]),
        ),
        started("resume", json!([{"interruptId": "i", "status": "other"}])),
        delta(json!({"op": "remove", "path": "a"})),
        delta(json!({"op": "remove", "path": "/~2"})),
        delta(json!({"op": "remove", "path": "/a~"})),
        delta(json!({"op": "add", "path": "/a"})),
        delta(json!({"op": "other", "path": "/a"})),
        parts(json!({"type": "text", "text": "x", "metadata": null})),
        parts(json!({"type": "text", "text": "x", "id": null})),
        parts(json!({"type": "smell"})),
        parts(json!({"type": "image", "source": {"type": "data", "value": ""}})),
        json!({"type": "STATE_SNAPSHOT"}),
        json!({"type": "CUSTOM", "name": "n"}),
        json!({"type": "RAW"}),
        json!({"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "tool"}),
        json!({"type": "TEXT_MESSAGE_START", "messageId": "m", "name": null}),
        json!({"type": "REASONING_MESSAGE_START", "messageId": "m"}),
        json!({"type": "SUBAGENT_FINISHED"}),
        json!({"type": "SUBAGENT_FINISHED", "subagentRunId": "s", "result": null}),
    ];
    let lines: Vec<String> = refused.iter().map(Value::to_string).collect();
    for (line, verdict) in lines
        .iter()
        .zip(judge("refused", "agui_schemas.mjs", &lines))
    {
        assert!(matches!(verdict, Verdict::Refused(_)), "accepted: {line}");
        let here = serde_json::from_str::<Event>(line);
        assert!(
            here.is_err() || here.is_ok_and(|event| event.check().is_err()),
            "accepted here: {line}"
        );
    }
}

fn accepts_the_a2a_corpus(script: &str) {
    let events = a2a_corpus::events();
    let lines = wire(&events);
    let verdicts = judge("accepted", script, &lines);
    for ((event, line), verdict) in events.iter().zip(&lines).zip(&verdicts) {
        let json = assert_accepted(verdict, line);
        let back: A2aEvent = serde_json::from_str(&json).expect("an event");
        assert_eq!(back.name(), event.name());
        assert_eq!(back.is_terminal(), event.is_terminal());
    }
}

#[test]
fn a2a_in_javascript_accepts_the_corpus_and_gives_it_back() {
    accepts_the_a2a_corpus("a2a_sdk.mjs");
}

#[test]
fn a2a_in_python_accepts_the_corpus_and_gives_it_back() {
    accepts_the_a2a_corpus("a2a_sdk.py");
}

#[test]
fn a2a_in_python_refuses_what_is_none() {
    let heartbeat = r#"{"type":"heartbeat"}"#.to_owned();
    let verdicts = judge("refused", "a2a_sdk.py", &[heartbeat]);
    assert!(
        matches!(verdicts[..], [Verdict::Refused(_)]),
        "{verdicts:?}"
    );
}
