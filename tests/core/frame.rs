//! A frame is one whole event: whatever the fields hold, they are refused or arrive as they are, and nothing else does.

use std::convert::Infallible;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use eventsource_stream::EventStream;
use futures_util::{FutureExt, StreamExt, stream};
use proptest::prelude::*;
use serde_json::Value;
use sse_stream::{Sse, SseByteStream};
use tidings::{Data, EncodeError, EventId, Field, Frame, JsonEvent, Text, ToSse};
use tidings_testkit::Item;

use crate::support::decoder::{Decoder, Dispatched};

/// An event with whatever a caller may give.
#[derive(Debug, Clone, Default)]
struct Raw {
    event: Option<String>,
    id: Option<EventId>,
    retry: Option<Duration>,
    comment: Option<String>,
    data: String,
}

impl ToSse for Raw {
    fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    fn id(&self) -> Option<EventId> {
        self.id.clone()
    }

    fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text(&self.data);
        Ok(())
    }
}

impl Raw {
    fn of_data(data: impl Into<String>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }

    /// The field that has to be refused, of those that are one line. An [`EventId`] cannot be wrong any more.
    fn refused(&self) -> Option<Field> {
        let bad = |text: &Option<String>| text.as_ref().is_some_and(|text| !is_one_line(text));
        if bad(&self.comment) {
            Some(Field::Comment)
        } else if bad(&self.event) || self.event.as_deref() == Some("") {
            Some(Field::Event)
        } else {
            None
        }
    }
}

fn is_one_line(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

fn normalised(data: &str) -> String {
    data.replace("\r\n", "\n").replace('\r', "\n")
}

/// What the specification says a browser dispatches for these events, one after another.
fn expected(events: &[Raw]) -> Vec<Dispatched> {
    let (mut id, mut retry) = (String::new(), None);
    let dispatch = |event: &Raw| {
        if let Some(new) = &event.id {
            id = new.as_str().to_owned();
        }
        if let Some(new) = event.retry {
            retry = Some(new.as_millis().min(LONGEST_RETRY.into()));
        }
        Dispatched {
            event: event.event.clone().unwrap_or("message".to_owned()),
            data: normalised(&event.data),
            id: id.clone(),
            retry,
            comments: event.comment.iter().cloned().collect(),
        }
    };
    events.iter().map(dispatch).collect()
}

fn decode_by_specification(chunks: &[Bytes]) -> Vec<Dispatched> {
    let mut decoder = Decoder::default();
    for chunk in chunks {
        decoder.push(chunk);
    }
    decoder.take()
}

fn decode_by_sse_stream(chunks: &[Bytes]) -> Vec<Sse> {
    let chunks = stream::iter(chunks.to_vec()).map(Ok::<_, Infallible>);
    let events = SseByteStream::new(chunks).map(|event| event.expect("a well-formed stream"));
    events.collect().now_or_never().expect("all of it is there")
}

fn decode_by_eventsource_stream(chunks: &[Bytes]) -> Vec<eventsource_stream::Event> {
    let chunks = stream::iter(chunks.to_vec()).map(Ok::<_, Infallible>);
    let events = EventStream::new(chunks).map(|event| event.expect("a well-formed stream"));
    events.collect().now_or_never().expect("all of it is there")
}

/// The test kit's, for services' own tests.
fn decode_by_testkit(chunks: &[Bytes]) -> Vec<Dispatched> {
    let mut decoder = tidings_testkit::Decoder::new();
    for chunk in chunks {
        decoder.push(chunk);
    }
    let items: Vec<Item> = decoder.collect();
    let has_bare_id = items.iter().any(|item| matches!(item, Item::Id(_)));
    assert!(!has_bare_id, "no frame has an id alone: {items:?}");
    Dispatched::of_items(items)
}

/// All four decoders see these events in this stream: no more, no less and nothing else.
#[track_caller]
fn assert_decodes(chunks: &[Bytes], events: &[Raw]) {
    let expected = expected(events);
    assert_eq!(decode_by_specification(chunks), expected);
    assert_eq!(decode_by_testkit(chunks), expected);

    // Raw blocks: what each says itself, nothing that stays from one to the next.
    let raw: Vec<Sse> = events
        .iter()
        .map(|event| Sse {
            event: event.event.clone(),
            data: Some(normalised(&event.data)),
            id: event.id.as_ref().map(|id| id.as_str().to_owned()),
            retry: event
                .retry
                .map(|retry| LONGEST_RETRY.min(retry.as_millis() as u64)),
        })
        .collect();
    assert_eq!(decode_by_sse_stream(chunks), raw);

    // As dispatched, except that the retry is the block's own.
    let dispatched: Vec<_> = events
        .iter()
        .zip(&expected)
        .map(|(event, expected)| eventsource_stream::Event {
            event: expected.event.clone(),
            data: expected.data.clone(),
            id: expected.id.clone(),
            retry: event
                .retry
                .map(|retry| Duration::from_millis(LONGEST_RETRY.min(retry.as_millis() as u64))),
        })
        .collect();
    assert_eq!(decode_by_eventsource_stream(chunks), dispatched);
}

/// What holds for the bytes of every frame.
#[track_caller]
fn assert_whole(frame: &Frame) {
    let wire = frame.as_bytes();
    assert!(!wire.contains(&b'\r'), "CR on the wire");
    assert!(!wire.starts_with("\u{feff}".as_bytes()), "a BOM in front");
    assert!(wire.ends_with(b"\n\n"), "the event does not end");
    let ends = wire.windows(2).filter(|two| two == b"\n\n").count();
    assert_eq!(ends, 1, "more than one event");
    assert!(std::str::from_utf8(wire).is_ok(), "not UTF-8");
}

#[track_caller]
fn assert_round_trips(event: &Raw) {
    let frame = Frame::encode(event).expect("nothing to refuse");
    assert_whole(&frame);
    assert_decodes(&[frame.to_bytes()], std::slice::from_ref(event));
    assert_eq!(frame.data(), normalised(&event.data));
}

#[track_caller]
fn assert_refused(event: &Raw, field: Field) {
    let error = Frame::encode(event).expect_err("a field that cannot be sent");
    assert_eq!(error.field(), Some(field));
    assert!(error.to_string().contains(&field.to_string()), "{error}");
}

/// Characters that mean something to SSE, to JSON, to a line splitter or to a UTF-8 decoder.
const SPECIAL: &[&str] = &[
    "\0",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    " ",
    ":",
    ": ",
    "data: ",
    "id: 1",
    "event: x",
    "retry: 1",
    "\"",
    "\\",
    "{",
    "\u{b}",
    "\u{c}",
    "\u{1b}",
    "\u{7f}",
    "é",
    "e\u{301}",
    "\u{10ffff}",
    "\u{fffd}",
];
const LINE_BREAKS: &[&str] = &["\r", "\n", "\r\n", "\n\r", "\n\n", "\r\r"];

/// Any text, line breaks in it.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => proptest::sample::select(SPECIAL).prop_map(str::to_owned),
        2 => proptest::sample::select(LINE_BREAKS).prop_map(str::to_owned),
        3 => any::<char>().prop_map(String::from),
        1 => "[a-z ]{1,8}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Mostly text that is one line, so that most events get through.
fn mostly_one_line() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => one_line(),
        1 => any_text(),
    ]
}

fn one_line() -> impl Strategy<Value = String> {
    any_text()
        .prop_map(|text| text.replace(['\r', '\n', '\0'], "x"))
        .prop_filter("empty", |text| !text.is_empty())
}

fn any_event_of(line: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = Raw> {
    let id = one_line().prop_map(|mut id| {
        while id.len() > EventId::MAX_LEN {
            id.pop();
        }
        EventId::new(id).expect("one line, not empty, not too long")
    });
    let retry = any::<u64>().prop_map(Duration::from_millis);
    (
        prop::option::of(line.clone()),
        prop::option::of(id),
        prop::option::of(retry),
        prop::option::of(line),
        any_text(),
    )
        .prop_map(|(event, id, retry, comment, data)| Raw {
            event,
            id,
            retry,
            comment,
            data,
        })
}

/// Cuts at these places, which need not be between characters.
fn cut(mut bytes: Bytes, at: Vec<prop::sample::Index>) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    for at in at {
        chunks.push(bytes.split_to(at.index(bytes.len() + 1)));
    }
    chunks.push(bytes);
    chunks
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn any_event_is_refused_or_arrives_as_it_is(event in any_event_of(mostly_one_line().boxed())) {
        match event.refused() {
            Some(field) => assert_refused(&event, field),
            None => assert_round_trips(&event),
        }
    }

    #[test]
    fn any_data_arrives_as_it_is_but_for_its_line_breaks(data in any_text()) {
        assert_round_trips(&Raw::of_data(data));
    }

    #[test]
    fn any_id_is_refused_or_arrives_as_it_is(id in mostly_one_line()) {
        match EventId::new(&*id) {
            Ok(checked) => {
                prop_assert!(is_one_line(&id) && !id.is_empty() && id.len() <= EventId::MAX_LEN);
                assert_round_trips(&Raw { id: Some(checked), ..Raw::of_data("x") });
            }
            Err(error) => {
                prop_assert!(!is_one_line(&id) || id.is_empty() || id.len() > EventId::MAX_LEN);
                prop_assert_eq!(error.field(), Some(Field::Id));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_stream_of_frames_is_the_same_however_it_is_cut(
        events in prop::collection::vec(any_event_of(one_line().boxed()), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut wire = Vec::new();
        for event in &events {
            wire.extend_from_slice(Frame::encode(event).expect("nothing to refuse").as_bytes());
        }
        let wire = Bytes::from(wire);
        assert_decodes(std::slice::from_ref(&wire), &events);
        assert_decodes(&cut(wire.clone(), cuts), &events);
        let bytes: Vec<Bytes> = wire.chunks(1).map(Bytes::copy_from_slice).collect();
        assert_decodes(&bytes, &events);
    }

    #[test]
    fn any_json_comes_back_equal_and_holds_no_separator(value in any_json()) {
        let frame = Frame::encode(&JsonEvent::new(&value)).expect("a value can be serialised");
        assert_whole(&frame);
        let wire = std::str::from_utf8(frame.as_bytes()).expect("UTF-8");
        prop_assert!(!wire.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{wire:?}");
        prop_assert_eq!(wire.lines().filter(|line| line.starts_with("data: ")).count(), 1);
        let [event] = &decode_by_specification(&[frame.to_bytes()])[..] else {
            panic!("not one event");
        };
        prop_assert_eq!(serde_json::from_str::<Value>(&event.data).expect("JSON"), value);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        4 => any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any_text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What a browser can count to, in milliseconds.
const LONGEST_RETRY: u64 = i32::MAX as u64;

const MIB: usize = 1 << 20;

/// The values that every field is tried with.
fn table() -> Vec<String> {
    let mut table = vec![
        String::new(),
        " ".to_owned(),
        " leading space".to_owned(),
        "  two leading spaces".to_owned(),
        "trailing space ".to_owned(),
        ":".to_owned(),
        ": ".to_owned(),
        "a: b".to_owned(),
        "x".repeat(MIB),
        "é".repeat(MIB / 2),
    ];
    let special = [
        "\r", "\n", "\r\n", "\0", "\u{feff}", "\u{2028}", "\u{2029}", "\u{85}",
    ];
    for special in special {
        for text in [
            special.to_owned(),
            format!("{special}b"),
            format!("a{special}"),
            format!("a{special}b"),
            format!("a{special}{special}b"),
            format!("a{special}data: forged{special}{special}event: forged"),
        ] {
            table.push(text);
        }
    }
    table
}

#[test]
fn names_of_the_table_are_refused_or_arrive() {
    for value in table() {
        let event = Raw {
            event: Some(value.clone()),
            ..Raw::of_data("data")
        };
        if value.is_empty() || !is_one_line(&value) {
            assert_refused(&event, Field::Event);
        } else {
            assert_round_trips(&event);
        }
    }
}

#[test]
fn comments_of_the_table_are_refused_or_arrive() {
    for value in table() {
        let event = Raw {
            comment: Some(value.clone()),
            ..Raw::of_data("data")
        };
        if is_one_line(&value) {
            assert_round_trips(&event);
        } else {
            assert_refused(&event, Field::Comment);
        }
    }
}

#[test]
fn ids_of_the_table_are_refused_or_arrive() {
    for value in table() {
        let id = EventId::new(&*value);
        if value.is_empty() || !is_one_line(&value) || value.len() > EventId::MAX_LEN {
            let error = id.expect_err("an id that cannot be sent");
            assert_eq!(error.field(), Some(Field::Id));
        } else {
            assert_round_trips(&Raw {
                id: Some(id.expect("an id that can be sent")),
                ..Raw::of_data("data")
            });
        }
    }
}

#[test]
fn data_of_the_table_arrives() {
    for value in table() {
        assert_round_trips(&Raw::of_data(value));
    }
}

#[test]
fn each_kind_of_line_break_in_data_is_one() {
    for (data, lines) in [
        ("a\rb", 2),
        ("a\nb", 2),
        ("a\r\nb", 2),
        ("a\n\rb", 3),
        ("a\r\rb", 3),
        ("a\r\n\r\nb", 3),
        ("\r\n", 2),
        ("\n", 2),
        ("", 1),
        ("a\u{85}b", 1),
        ("a\u{2028}b", 1),
        ("a\u{2029}b", 1),
    ] {
        let frame = Frame::encode(&Text::new(data)).expect("any text is data");
        let sent = frame.fields().filter(|(name, _)| *name == "data").count();
        assert_eq!(sent, lines, "{data:?}");
    }
}

#[test]
fn fields_are_on_the_wire_in_a_fixed_order() {
    let event = Raw {
        event: Some("name".to_owned()),
        id: Some(EventId::from(7)),
        retry: Some(Duration::from_micros(1_500_999)),
        comment: Some("why".to_owned()),
        data: "one\ntwo".to_owned(),
    };
    let frame = Frame::encode(&event).expect("nothing to refuse");
    assert_eq!(
        frame.as_bytes(),
        b": why\nevent: name\nid: 7\nretry: 1500\ndata: one\ndata: two\n\n"
    );
    let fields: Vec<_> = frame.fields().collect();
    assert_eq!(
        fields,
        [
            ("", "why"),
            ("event", "name"),
            ("id", "7"),
            ("retry", "1500"),
            ("data", "one"),
            ("data", "two"),
        ]
    );
}

#[test]
fn a_retry_that_no_client_can_hold_is_the_longest_that_one_can() {
    let event = Raw {
        retry: Some(Duration::MAX),
        ..Raw::of_data("x")
    };
    let frame = Frame::encode(&event).expect("any duration can be sent");
    let [block] = &decode_by_sse_stream(&[frame.to_bytes()])[..] else {
        panic!("not one block");
    };
    assert_eq!(block.retry, Some(LONGEST_RETRY));
}

#[test]
fn json_escapes_what_some_clients_take_for_line_breaks() {
    let value = "\u{85}a\u{2028}b\u{2029}Ââ€";
    let frame = Frame::encode(&JsonEvent::new(value)).expect("a string can be serialised");
    assert_eq!(
        frame.as_bytes(),
        "data: \"\\u0085a\\u2028b\\u2029Ââ€\"\n\n".as_bytes()
    );
    let key = serde_json::json!({ "\u{2028}": "\u{85}" });
    let frame = Frame::encode(&JsonEvent::new(key)).expect("a map can be serialised");
    assert_eq!(frame.as_bytes(), b"data: {\"\\u2028\":\"\\u0085\"}\n\n");
}

#[test]
fn text_keeps_what_json_escapes() {
    let frame = Frame::encode(&Text::new("\u{85}\u{2028}\u{2029}\0\u{feff}")).expect("any text");
    assert_eq!(
        frame.as_bytes(),
        "data: \u{85}\u{2028}\u{2029}\0\u{feff}\n\n".as_bytes()
    );
}

/// Data written by a function.
struct By<F>(F);

impl<F: Fn(&mut Data<'_>) -> Result<(), EncodeError>> ToSse for By<F> {
    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        (self.0)(data)
    }
}

#[test]
fn data_written_in_pieces_is_joined_before_lines_are_counted() {
    use std::fmt::Write;
    let event = By(|data: &mut Data<'_>| {
        data.text("a\r");
        write!(data, "\n{}", 1).map_err(EncodeError::other)?;
        data.utf8(b"\r")?;
        data.json("\n")
    });
    let frame = Frame::encode(&event).expect("nothing to refuse");
    assert_eq!(frame.as_bytes(), b"data: a\ndata: 1\ndata: \"\\n\"\n\n");
}

#[test]
fn an_error_of_the_event_is_handed_on() {
    let failing = By(|data: &mut Data<'_>| {
        data.text("half of it");
        Err(EncodeError::other("the other half is missing"))
    });
    let error = Frame::encode(&failing).expect_err("the event fails");
    assert_eq!(error.field(), None);
    let source = error.source().expect("what the event said");
    assert_eq!(source.to_string(), "the other half is missing");

    let not_utf8 = By(|data: &mut Data<'_>| data.utf8(b"a\xffb"));
    let error = Frame::encode(&not_utf8).expect_err("not UTF-8");
    assert_eq!(error.field(), Some(Field::Data));
    assert!(
        error
            .source()
            .is_some_and(|e| e.is::<std::str::Utf8Error>())
    );

    let no_json = std::collections::HashMap::from([((1, 2), 3)]);
    let error = Frame::encode(&JsonEvent::new(no_json)).expect_err("keys are no strings");
    assert_eq!(error.field(), Some(Field::Data));
    assert!(error.source().is_some_and(|e| e.is::<serde_json::Error>()));
}

#[test]
fn a_panic_of_the_event_is_the_callers() {
    let panicking = By(|_: &mut Data<'_>| panic!("on purpose"));
    let panic = catch_unwind(AssertUnwindSafe(|| Frame::encode(&panicking).is_ok()))
        .expect_err("the event panics");
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    assert_round_trips(&Raw::of_data("afterwards"));
}

#[test]
fn the_decoder_follows_the_specification() {
    // The examples of the specification, and what it says about BOM, colons, spaces and line breaks.
    let decode = |stream: &str| {
        let mut decoder = Decoder::default();
        decoder.push(stream.as_bytes());
        let events = decoder.take().into_iter();
        events.map(|e| (e.event, e.data, e.id)).collect::<Vec<_>>()
    };
    let event = |event: &str, data: &str, id: &str| (event.into(), data.into(), id.into());
    assert_eq!(
        decode("data: YHOO\ndata: +2\ndata: 10\n\n"),
        [event("message", "YHOO\n+2\n10", "")]
    );
    assert_eq!(
        decode(
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event"
        ),
        [
            event("message", "first event", "1"),
            event("message", "second event", "")
        ]
    );
    assert_eq!(
        decode("data\n\ndata\ndata\n\ndata:"),
        [event("message", "", ""), event("message", "\n", "")]
    );
    assert_eq!(
        decode(
            "\u{feff}event: a\r\ndata:x\r\r\u{feff}data: y\r\n\r\nid: a\0b\nevent: b\ndata: z\n\n"
        ),
        [event("a", "x", ""), event("b", "z", "")]
    );
}
