//! AG-UI events come back as they were, out of JSON and out of a frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidings::Frame;
use tidings::protocol::agui::{Body, Event, RunAgentInput};
use tidings_fuzz::{decoders, json, protocol};

fuzz_target!(|input: &[u8]| {
    // No bytes at all are more than an error.
    let _ = serde_json::from_slice::<Event>(input);
    let Some(text) = protocol::text(input, Body::TYPES) else {
        return;
    };
    if let Ok(input) = serde_json::from_str::<RunAgentInput>(&text) {
        let again = serde_json::to_string(&input).expect("it came from JSON");
        assert_eq!(
            serde_json::from_str::<RunAgentInput>(&again).expect("it was written so"),
            input
        );
    }
    let Ok(event) = serde_json::from_str::<Event>(&text) else {
        return;
    };
    let value = serde_json::to_value(&event).expect("it came from JSON");
    let again = serde_json::to_string(&event).expect("it came from JSON");
    assert_eq!(
        serde_json::from_str::<Event>(&again).expect("it was written so"),
        event
    );
    assert_eq!(
        serde_json::from_str::<Value>(&again).expect("JSON"),
        value,
        "a name is there twice"
    );

    let frame = Frame::encode(&event);
    assert_eq!(frame.is_ok(), event.check().is_ok());
    let Ok(frame) = frame else {
        return;
    };
    let dispatched = decoders::by_standard(&[frame.as_bytes()]);
    assert_eq!(dispatched.len(), 1);
    assert_eq!(dispatched[0].event, event.type_name());
    assert_eq!(dispatched[0].data, json::escaped(&again));
});
