//! AG-UI events come back from JSON as they were, and what the official clients die of is refused.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidings::protocol::agui::*;
use tidings::{EncodeError, Frame, GenericBroadcaster};

use crate::support::agui_corpus as corpus;

fn parse(value: Value) -> Result<Event, serde_json::Error> {
    // Through text: a `Value` would not show what is lost in reading.
    serde_json::from_str(&value.to_string())
}

#[track_caller]
fn assert_comes_back(value: Value) -> Event {
    let event = parse(value.clone()).expect("an event");
    assert_eq!(serde_json::to_value(&event).expect("JSON"), value);
    event
}

#[track_caller]
fn assert_not_parsed(value: Value, says: &str) {
    let error = parse(value).expect_err("no event").to_string();
    assert!(error.contains(says), "{error}");
}

#[track_caller]
fn assert_invalid(event: &Event, field: &str, problem: Problem) {
    let error = event.check().expect_err("not valid");
    assert_eq!((&*error.field(), error.problem()), (field, problem));
    assert!(error.to_string().starts_with(field), "{error}");
    let refused = Frame::encode(event).expect_err("not sent");
    let source = std::error::Error::source(&refused).and_then(|e| e.downcast_ref());
    assert_eq!(source, Some(&error));
}

#[test]
fn the_corpus_has_every_type() {
    let types: BTreeSet<&str> = Body::TYPES.iter().copied().collect();
    assert_eq!(types.len(), 31);
    for bodies in [corpus::minimal(), corpus::maximal()] {
        let found: BTreeSet<&str> = bodies.iter().map(Body::type_name).collect();
        assert_eq!(found, types);
    }
}

#[test]
fn the_corpus_comes_back_as_it_was() {
    for event in corpus::events() {
        let json = serde_json::to_string(&event).expect("JSON");
        let back: Event = serde_json::from_str(&json).expect("an event");
        assert_eq!(back, event);
        assert_eq!(serde_json::to_string(&back).expect("JSON"), json);
        event.check().expect("valid");
    }
    let input = corpus::input();
    let json = serde_json::to_string(&input).expect("JSON");
    assert_eq!(
        serde_json::from_str::<RunAgentInput>(&json).expect("an input"),
        input
    );
}

#[test]
fn nothing_is_null_that_is_not_a_value() {
    for body in corpus::minimal() {
        let json = serde_json::to_value(Event::new(body).without_timestamp()).expect("JSON");
        let fields = json.as_object().expect("an object");
        for (name, value) in fields {
            let may_be = matches!(&**name, "snapshot" | "event" | "value");
            assert!(!value.is_null() || may_be, "{name} in {json}");
        }
    }
}

#[test]
fn a_frame_holds_the_event_on_one_line() {
    for event in corpus::events() {
        let frame = Frame::encode(&event).expect("valid");
        let fields: Vec<_> = frame.fields().collect();
        assert_eq!(fields.len(), 2, "a name and one line of data");
        assert_eq!(fields[0], ("event", event.type_name()));
        assert!(!fields[1].1.contains(['\u{85}', '\u{2028}', '\u{2029}']));
        assert_eq!(
            serde_json::from_str::<Event>(fields[1].1).expect("an event"),
            event
        );
    }
}

#[test]
fn the_type_stands_first() {
    let json = serde_json::to_string(&Event::run_started("t", "r").timestamp(1)).expect("JSON");
    assert_eq!(
        json,
        r#"{"type":"RUN_STARTED","threadId":"t","runId":"r","timestamp":1}"#
    );
}

#[test]
fn an_unknown_type_is_carried_through() {
    let event = assert_comes_back(json!({
        "type": "THINKING_START",
        "title": null,
        "nested": {"a": [1, 2.5]},
        "timestamp": 5,
        "rawEvent": {"x": null},
        "metadata": {},
        "subagentRunId": "s",
    }));
    assert_eq!(event.type_name(), "THINKING_START");
    assert_eq!(event.timestamp, Some(5.into()));
    assert!(matches!(&event.body, Body::Unknown(unknown) if unknown.fields.len() == 2));
    event.check().expect("it may be sent");
    assert_comes_back(json!({"type": "X"}));
}

#[test]
fn unknown_fields_are_carried_through_everywhere() {
    let event = assert_comes_back(json!({
        "type": "MESSAGES_SNAPSHOT",
        "new": {"a": null},
        "messages": [
            {"role": "user", "id": "1", "content": [
                {"type": "image", "new": 1, "source": {"type": "url", "value": "u", "new": null}},
            ], "new": []},
            {"role": "assistant", "id": "2", "new": "x", "toolCalls": [
                {"id": "3", "type": "function", "new": 1, "function": {"name": "f", "arguments": "", "new": 1}},
            ]},
        ],
    }));
    event.check().expect("clients ignore what they do not know");
    assert_comes_back(
        json!({"type": "RUN_FINISHED", "threadId": "t", "runId": "r",
        "outcome": {"type": "interrupt", "new": 1, "interrupts": [{"id": "i", "reason": "r", "new": 1}]},
        "usage": [{"new": 0.1}]}),
    );
    assert_comes_back(
        json!({"type": "STATE_DELTA", "delta": [{"op": "remove", "path": "", "new": null}]}),
    );
    assert_comes_back(
        json!({"type": "SUBAGENT_FINISHED", "subagentRunId": "s", "outcome": {"type": "success", "new": 1}}),
    );
}

#[test]
fn null_is_a_value_where_it_is_one_and_refused_elsewhere() {
    for value in [
        json!({"type": "STATE_SNAPSHOT", "snapshot": null}),
        json!({"type": "CUSTOM", "name": "n", "value": null}),
        json!({"type": "RAW", "event": null}),
        json!({"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/a", "value": null}]}),
        json!({"type": "RUN_STARTED", "threadId": "t", "runId": "r", "input": {
            "threadId": "t", "runId": "r", "messages": [], "state": null}}),
    ] {
        assert_comes_back(value).check().expect("valid");
    }
    for (value, missing) in [
        (json!({"type": "STATE_SNAPSHOT"}), "snapshot"),
        (json!({"type": "CUSTOM", "name": "n"}), "value"),
        (json!({"type": "RAW"}), "event"),
        (
            json!({"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/a"}]}),
            "value",
        ),
        (
            json!({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m"}),
            "delta",
        ),
        (
            json!({"type": "SUBAGENT_ERROR", "message": "m"}),
            "subagentRunId",
        ),
        (json!({"messageId": "m"}), "type"),
    ] {
        assert_not_parsed(value, missing);
    }
    assert_not_parsed(
        json!({"type": "TEXT_MESSAGE_START", "messageId": "m", "name": null}),
        "TEXT_MESSAGE_START: name: invalid type: null",
    );
    for common in ["timestamp", "metadata", "subagentRunId"] {
        assert_not_parsed(
            json!({"type": "STEP_STARTED", "stepName": "s", common: null}),
            &format!("STEP_STARTED: {common}: invalid type: null"),
        );
    }
}

#[test]
fn values_that_the_types_cannot_hold_are_not_parsed() {
    let time = |time: Value| json!({"type": "STEP_STARTED", "stepName": "s", "timestamp": time});
    assert_not_parsed(time(json!("2026-11-22T12:00:00Z")), "timestamp");
    assert_not_parsed(json!({"type": 1}), "the type is not a string");
    assert_not_parsed(json!([]), "map");
    assert_not_parsed(
        json!({"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "narrator"}),
        "narrator",
    );
    assert_not_parsed(
        json!({"type": "TOOL_CALL_RESULT", "messageId": "m", "toolCallId": "c", "content": 1}),
        "a string or an array of content parts",
    );
    assert_not_parsed(
        json!({"type": "TOOL_CALL_RESULT", "messageId": "m", "toolCallId": "c", "content": [{"type": "smell"}]}),
        "smell",
    );
}

/// An event at this time, a number in JSON.
fn timed(time: &str) -> Event {
    let json = format!(r#"{{"type":"STEP_STARTED","stepName":"s","timestamp":{time}}}"#);
    let event = serde_json::from_str(&json).expect("an event");
    assert_eq!(serde_json::to_string(&event).expect("JSON"), json);
    event
}

#[test]
fn a_time_with_a_fraction_comes_back_exactly_and_can_be_made_whole() {
    for (time, whole) in [
        ("1763812800000.25", 1763812800000i64),
        ("1763812800000.1", 1763812800000),
        ("0.1", 0),
        ("-1.5", -1),
        ("1763812800000.0", 1763812800000),
        ("5", 5),
    ] {
        let event = timed(time);
        assert_eq!(
            event.check().is_ok(),
            !time.contains('.') || time.ends_with(".0"),
            "{time}"
        );
        let event = event.whole_timestamp();
        assert_eq!(event.timestamp, Some(whole.into()), "{time}");
        event.check().expect("it may be sent");
    }
}

#[test]
fn events_that_break_clients_are_found() {
    let step = || Event::step_started("s");
    assert_invalid(
        &step().timestamp(1 << 53),
        "STEP_STARTED.timestamp",
        Problem::NotSafe,
    );
    assert_invalid(
        &step().timestamp(i64::MIN),
        "STEP_STARTED.timestamp",
        Problem::NotSafe,
    );
    assert_invalid(&timed("1.5"), "STEP_STARTED.timestamp", Problem::Fraction);
    for far in ["9007199254740992.0", "-1e+300", "18446744073709551615"] {
        assert_invalid(&timed(far), "STEP_STARTED.timestamp", Problem::NotSafe);
    }
    assert_invalid(
        &step().raw_event(Value::Null),
        "STEP_STARTED.rawEvent",
        Problem::Null,
    );
    let finished = || RunFinished::new("t", "r");
    assert_invalid(
        &finished().result(Value::Null).into(),
        "RUN_FINISHED.result",
        Problem::Null,
    );
    assert_invalid(
        &finished().outcome(InterruptOutcome::new([])).into(),
        "RUN_FINISHED.outcome.interrupts",
        Problem::Empty,
    );
    assert_invalid(
        &finished()
            .usage([
                TokenUsage::new(),
                TokenUsage::new().cached_input_tokens(u64::MAX),
            ])
            .into(),
        "RUN_FINISHED.usage.1.cachedInputTokens",
        Problem::NotSafe,
    );
    let input = RunAgentInput::new("t", "r", []).forwarded_props(Value::Null);
    assert_invalid(
        &RunStarted::new("t", "r").input(input).into(),
        "RUN_STARTED.input.forwardedProps",
        Problem::Null,
    );
    for pointer in ["a", "/~", "/~2", "/a~/b"] {
        assert_invalid(
            &Event::state_delta([RemoveOperation::new(pointer).into()]),
            "STATE_DELTA.delta.0.path",
            Problem::NotAPointer,
        );
    }
    let part = TextPart::new("").metadata(Value::Null);
    let message = UserMessage::new("m", vec![part.into()]);
    assert_invalid(
        &Event::messages_snapshot([message.into()]),
        "MESSAGES_SNAPSHOT.messages.0.content.0.metadata",
        Problem::Null,
    );
    for name in ["", "A\nB", "A\0"] {
        let unknown = Event::new(Unknown::new(name, Map::new()));
        let error = unknown.check().expect_err("not a name");
        assert_eq!(error.problem(), Problem::NotAName);
    }
}

#[test]
fn an_extra_field_does_not_stand_there_twice() {
    let with_extra = |name: &str| {
        let mut body = TextMessageStart::new("m");
        body.extra.insert(name.to_owned(), json!(1));
        Event::new(body)
    };
    for name in [
        "type",
        "timestamp",
        "rawEvent",
        "metadata",
        "messageId",
        "role",
    ] {
        assert_invalid(
            &with_extra(name),
            &format!("TEXT_MESSAGE_START.{name}"),
            Problem::Twice,
        );
    }
    let owned = with_extra("subagentRunId");
    owned.check().expect("only there");
    assert_invalid(
        &owned.subagent_run_id("s"),
        "TEXT_MESSAGE_START.subagentRunId",
        Problem::Twice,
    );
    assert_invalid(
        &Event::new(SubagentFinished::new("s")).subagent_run_id("s"),
        "SUBAGENT_FINISHED.subagentRunId",
        Problem::Twice,
    );
    let mut message = UserMessage::new("m", "x");
    message.extra.insert("role".to_owned(), json!("user"));
    assert_invalid(
        &Event::messages_snapshot([message.into()]),
        "MESSAGES_SNAPSHOT.messages.0.role",
        Problem::Twice,
    );
}

#[test]
fn an_invalid_event_reaches_nobody() {
    let hub = GenericBroadcaster::<Event>::new();
    let _tab = hub.register("ann").expect("no cap is reached");
    let error = hub
        .broadcast("ann", &Event::step_started("s").timestamp(i64::MAX))
        .expect_err("not sent");
    assert!(
        std::error::Error::source(&error).is_some_and(|source| source.is::<InvalidEvent>()),
        "{error:?}"
    );
    assert_eq!((hub.stats().failed, hub.stats().deliveries), (1, 0));
}

#[test]
fn built_events_happen_now() {
    let millis = || {
        let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
        i64::try_from(since.as_millis()).expect("not that late")
    };
    let before = millis();
    let time = Event::run_error("failed").timestamp;
    let time = time.and_then(|time| time.as_i64()).expect("milliseconds");
    assert!((before..=millis()).contains(&time));
}

#[test]
fn an_event_knows_its_run() {
    let run = RunRef::new("t", "r");
    assert_eq!(
        AgUiEvent::new(Event::run_started("t", "r")).run,
        Some(run.clone())
    );
    assert_eq!(
        AgUiEvent::new(RunFinished::new("t", "r")).run,
        Some(run.clone())
    );
    assert_eq!(AgUiEvent::from(Event::run_error("x")).run, None);
    let event = run.event(Event::run_error("x"));
    assert_eq!(
        event.run.as_ref().map(|run| (run.thread(), run.run())),
        Some(("t", "r"))
    );
    assert_eq!(
        RunRef::from(&corpus::input()),
        RunRef::new("thread-1", "run-1")
    );
    let frame = Frame::encode(&event).expect("valid");
    assert_eq!(frame, Frame::encode(&event.event).expect("valid"));
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just(corpus::TEXT.to_owned()),
        Just(String::new())
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // serde_json writes what is not finite as null.
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any_text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(any_text(), any_json(), 0..4)
        .prop_map(|map| map.into_iter().collect())
}

fn any_event() -> impl Strategy<Value = Event> {
    let text = any_text;
    let body = prop_oneof![
        (text(), text()).prop_map(|(t, r)| Event::run_started(t, r)),
        (text(), text()).prop_map(|(t, r)| Event::run_finished(t, r)),
        text().prop_map(Event::run_error),
        text().prop_map(Event::step_started),
        text().prop_map(Event::step_finished),
        text().prop_map(Event::text_message_start),
        (text(), text()).prop_map(|(m, d)| Event::text_message_content(m, d)),
        text().prop_map(Event::text_message_end),
        (text(), text()).prop_map(|(c, n)| Event::tool_call_start(c, n)),
        (text(), text()).prop_map(|(c, d)| Event::tool_call_args(c, d)),
        text().prop_map(Event::tool_call_end),
        (text(), text(), text()).prop_map(|(m, c, r)| Event::tool_call_result(m, c, r)),
        any_json().prop_map(Event::state_snapshot),
        any_json().prop_map(|value| Event::state_delta([AddOperation::new("/a", value).into()])),
        any_object().prop_map(|object| {
            Event::messages_snapshot([ActivityMessage::new("m", "t", object).into()])
        }),
        (text(), any_json()).prop_map(|(name, value)| Event::custom(name, value)),
        text().prop_map(Event::reasoning_start),
        text().prop_map(Event::reasoning_message_start),
        (text(), text()).prop_map(|(m, d)| Event::reasoning_message_content(m, d)),
        text().prop_map(Event::reasoning_message_end),
        text().prop_map(Event::reasoning_end),
        any_object().prop_map(|mut fields| {
            for common in ["type", "timestamp", "rawEvent", "metadata", "subagentRunId"] {
                fields.remove(common);
            }
            Event::new(Unknown::new("NEW_TYPE", fields))
        }),
    ];
    let time = prop::option::of(-9007199254740991..=9007199254740991i64);
    let raw = prop::option::of(any_json().prop_filter("null", |raw| !raw.is_null()));
    let owner = prop::option::of(text());
    (body, time, raw, prop::option::of(any_object()), owner).prop_map(
        |(event, timestamp, raw_event, metadata, subagent_run_id)| Event {
            timestamp: timestamp.map(Into::into),
            raw_event,
            metadata,
            subagent_run_id,
            ..event
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn any_built_event_comes_back_as_it_was(event in any_event()) {
        prop_assert_eq!(event.check(), Ok(()));
        let frame = Frame::encode(&event).map_err(|error: EncodeError| TestCaseError::fail(error.to_string()))?;
        let back: Event = serde_json::from_str(&frame.data()).expect("an event");
        prop_assert_eq!(&back, &event);
        let by_value = serde_json::to_value(&event).and_then(serde_json::from_value::<Event>);
        prop_assert_eq!(by_value.expect("an event"), event);
    }

    #[test]
    fn any_json_is_an_event_or_an_error(value in any_json()) {
        let _ = serde_json::from_value::<Event>(value);
    }
}
