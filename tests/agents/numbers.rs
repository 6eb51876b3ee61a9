//! Numbers of every form come back from JSON in all events, also where `serde_json/arbitrary_precision` is on: any crate of
//! a program may turn it on for all. `scripts/test` runs this file and others with it.
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidings::protocol::a2a::A2aEvent;
use tidings::protocol::agui::{Event, Message, RunAgentInput};
use tidings::protocol::analytics::{AnalyticsEvent, RealTimeStats};
use tidings::protocol::context::ContextEvent;
use tidings::protocol::system::{Context, SystemEvent};

/// Numbers that serde's own buffer does not hold with arbitrary precision, and others.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "0.5",
    "31.50",
    "1e-1",
    "-1.5E3",
    "1763812800000.123",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "123456789012345678901234567890123456789012",
];

/// The same JSON again, from text and from a value.
#[track_caller]
fn assert_comes_back<T: Serialize + DeserializeOwned>(json: &str) {
    let value: Value = serde_json::from_str(json).expect("JSON");
    let read = serde_json::from_str::<T>(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    let text = serde_json::to_string(&read).expect("it came from JSON");
    let again: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(again, value, "{text}\nfor {json}");
    let read = serde_json::from_value::<T>(value.clone());
    let read = read.unwrap_or_else(|error| panic!("by value: {json}: {error}"));
    assert_eq!(serde_json::to_value(&read).expect("JSON"), value, "{json}");
}

/// Shapes with a `%` for each number.
fn with_numbers(shape: &str, check: impl Fn(&str)) {
    for number in NUMBERS {
        check(&shape.replace('%', number));
    }
}

const AGUI: [&str; 6] = [
    r#"{"type":"STEP_STARTED","stepName":"s","new":%,"timestamp":%,"rawEvent":{"a":[%]},"metadata":{"a":%}}"#,
    r#"{"type":"LATER_TYPE","new":{"a":[%]}}"#,
    r#"{"type":"STATE_DELTA","delta":[{"op":"add","path":"/a","value":%,"new":%}]}"#,
    r#"{"type":"MESSAGES_SNAPSHOT","messages":[{"role":"user","id":"m","content":[
        {"type":"image","metadata":%,"new":%,"source":{"type":"url","value":"u","new":%}}],"metadata":{"a":%}}]}"#,
    r#"{"type":"RUN_STARTED","threadId":"t","runId":"r","input":{"threadId":"t","runId":"r","messages":[],
        "state":{"a":%},"forwardedProps":%,"tools":[{"name":"n","description":"d","parameters":{"a":%}}]}}"#,
    r#"{"type":"RUN_FINISHED","threadId":"t","runId":"r","result":%,"usage":[{"inputTokens":5,"new":%}],
        "outcome":{"type":"interrupt","interrupts":[{"id":"i","reason":"r","metadata":{"a":%},"new":%}]}}"#,
];

const A2A: [&str; 3] = [
    r#"{"artifactUpdate":{"taskId":"t","contextId":"c","metadata":{"a":%},
        "artifact":{"artifactId":"a","parts":[{"data":{"n":%}}],"metadata":{"a":%}}}}"#,
    r#"{"message":{"messageId":"m","role":"ROLE_AGENT","parts":[{"data":%,"metadata":{"a":[%]}}]}}"#,
    r#"{"kind":"status-update","taskId":"t","metadata":{"a":%}}"#,
];

const SYSTEM: [&str; 2] = [
    r#"{"type":"connected","timestamp":5,"new":%}"#,
    r#"{"type":"contextCreated","context":{"id":"c","createdAt":5,"metadata":{"a":%},"new":%},"new":%}"#,
];

#[test]
fn numbers_come_back_in_events_of_agents() {
    for shape in AGUI {
        with_numbers(shape, assert_comes_back::<Event>);
    }
    for shape in A2A {
        with_numbers(shape, assert_comes_back::<A2aEvent>);
    }
    for shape in SYSTEM {
        with_numbers(shape, assert_comes_back::<SystemEvent>);
    }
}

#[test]
fn numbers_come_back_in_the_parts_of_events() {
    let message = r#"{"role":"activity","id":"m","activityType":"t","content":{"a":%},"new":%}"#;
    with_numbers(message, assert_comes_back::<Message>);
    let input = r#"{"threadId":"t","runId":"r","messages":[],"state":%,"new":%}"#;
    with_numbers(input, assert_comes_back::<RunAgentInput>);
    let context = r#"{"id":"c","updatedAt":5,"new":%}"#;
    with_numbers(context, assert_comes_back::<Context>);
}

#[test]
fn numbers_come_back_in_events_of_all_protocols_in_any_order_of_members() {
    let of = |protocol: &str, shapes: &[&str]| {
        for shape in shapes {
            for json in [
                format!(r#"{{"protocol":"{protocol}","event":{shape}}}"#),
                format!(r#"{{"event":{shape},"protocol":"{protocol}"}}"#),
            ] {
                with_numbers(&json, assert_comes_back::<ContextEvent>);
            }
        }
    };
    of("agui", &AGUI);
    of("a2a", &A2A);
    of("system", &SYSTEM);
}

#[test]
fn fractions_come_back_in_analytics() {
    for (number, float) in [
        ("0", 0.0),
        ("0.5", 0.5),
        ("31.50", 31.5),
        ("1e-1", 0.1),
        ("18446744073709551616", 18446744073709551616.0),
    ] {
        let fields = format!(r#""activeSessions":12,"pageViewsPerMinute":{number},"new":{number}"#);
        let json = format!(r#"{{"type":"realTimeStats",{fields}}}"#);
        let event: AnalyticsEvent = serde_json::from_str(&json).expect("an event");
        let by_value = serde_json::from_str(&json).and_then(serde_json::from_value);
        assert_eq!(by_value.ok().as_ref(), Some(&event), "{json}");
        let text = serde_json::to_string(&event).expect("JSON");
        assert_eq!(
            serde_json::from_str::<AnalyticsEvent>(&text).ok(),
            Some(event.clone())
        );
        let AnalyticsEvent::RealTimeStats(stats) = event else {
            panic!("{event:?}");
        };
        assert_eq!(stats.page_views_per_minute, Some(float), "{json}");
        let alone = serde_json::from_str::<RealTimeStats>(&format!("{{{fields}}}"));
        assert_eq!(alone.expect("as a type of its own"), stats);
    }
    let error = serde_json::from_str::<AnalyticsEvent>(
        r#"{"type":"engagementUpdate","sessionId":"s","activeMs":1,"scrollDepth":1e400}"#,
    );
    assert!(
        error
            .expect_err("JSON could not say it")
            .to_string()
            .contains("out of range")
    );
}

#[test]
fn numbers_come_back_where_an_application_has_put_events_into_types_of_its_own() {
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Analytics(AnalyticsEvent),
        Stats(RealTimeStats),
        System(SystemEvent),
        AgUi(Box<Event>),
    }
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        AgUi(Box<Event>),
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        own: u32,
        #[serde(flatten)]
        event: Event,
    }
    #[track_caller]
    fn assert_read<T: Serialize + DeserializeOwned>(json: &str) {
        let read =
            serde_json::from_str::<T>(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        let text = serde_json::to_string(&read).expect("JSON");
        let json: Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), json);
    }
    let step = r#""type":"STEP_STARTED","stepName":"s","timestamp":%,"metadata":{"a":%}"#;
    with_numbers(
        &format!(r#"{{"kind":"AgUi",{step}}}"#),
        assert_read::<Tagged>,
    );
    with_numbers(&format!("{{{step}}}"), assert_read::<Untagged>);
    with_numbers(&format!(r#"{{"own":1,{step}}}"#), assert_read::<Flat>);
    let connected = r#"{"kind":"System","type":"connected","timestamp":5,"new":%}"#;
    with_numbers(connected, assert_read::<Tagged>);
    for fraction in ["0.5", "-1.25"] {
        let stats = format!(r#""activeSessions":12,"pageViewsPerMinute":{fraction}"#);
        assert_read::<Tagged>(&format!(r#"{{"kind":"Stats",{stats}}}"#));
        let event = format!(r#"{{"kind":"Analytics","type":"realTimeStats",{stats}}}"#);
        assert_read::<Tagged>(&event);
    }
}

#[test]
#[ignore = "needs serde_json/arbitrary_precision, see scripts/test"]
fn with_arbitrary_precision_numbers_come_back_digit_by_digit() {
    let number: Value = serde_json::from_str("1.10").expect("a number");
    assert_eq!(format!("{number}"), "1.10", "the feature is off");
    let json = r#"{"type":"STEP_STARTED","stepName":"s","timestamp":1763812800000.10000000000000000001,"metadata":{"a":1.50}}"#;
    let event: Event = serde_json::from_str(json).expect("an event");
    assert_eq!(serde_json::to_string(&event).expect("JSON"), json);
}
