//! A2A events come back as they were, out of JSON and out of a frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidings::Frame;
use tidings::protocol::a2a::A2aEvent;
use tidings_fuzz::{decoders, json, protocol};

fuzz_target!(|input: &[u8]| {
    // No bytes at all are more than an error.
    let _ = serde_json::from_slice::<A2aEvent>(input);
    let Some(text) = protocol::text(input, &[]) else {
        return;
    };
    let Ok(event) = serde_json::from_str::<A2aEvent>(&text) else {
        return;
    };
    let written = serde_json::to_string(&event).expect("it came from JSON");
    let again: A2aEvent = serde_json::from_str(&written).expect("it was written so");
    assert_eq!(again.response(), event.response());
    assert_eq!(value(&again), value(&event));
    assert_eq!(about(&again), about(&event));

    let frame = Frame::encode(&event).expect("a name and JSON");
    let dispatched = decoders::by_standard(&[frame.as_bytes()]);
    assert_eq!(dispatched.len(), 1);
    assert_eq!(dispatched[0].event, event.name());
    let data = &dispatched[0].data;
    assert!(!data.contains(json::SEPARATORS), "{data}");
    assert_eq!(
        serde_json::from_str::<Value>(data).expect("JSON"),
        value(&event)
    );
});

fn value(event: &A2aEvent) -> Value {
    serde_json::to_value(event).expect("it came from JSON")
}

fn about(event: &A2aEvent) -> (&str, Option<&str>, Option<&str>, bool) {
    (
        event.name(),
        event.task_id(),
        event.context_id(),
        event.is_terminal(),
    )
}
