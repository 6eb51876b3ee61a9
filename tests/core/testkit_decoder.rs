//! The test kit's decoder: what the standard says of any bytes, however they are cut.
//!
//! That frames come back from it as they were is in `frame.rs`, where three others read them too.

use std::time::Duration;

use proptest::prelude::*;
use tidings_testkit::{Decoder, Item};

use crate::support::decoder;

fn items(chunks: &[&[u8]]) -> Vec<Item> {
    let mut decoder = Decoder::new();
    for chunk in chunks {
        decoder.push(chunk);
    }
    decoder.collect()
}

/// An event's name, data, id, and the time to wait as it is by then.
type Event = (String, String, String, Option<u128>);

/// The events by a decoder that was written from the standard without this one.
fn by_specification(bytes: &[u8]) -> Vec<Event> {
    let mut decoder = decoder::Decoder::default();
    decoder.push(bytes);
    let events = decoder.take().into_iter();
    let millis = |retry: Option<u128>| retry.map(|retry| retry.min(u64::MAX.into()));
    events
        .map(|event| (event.event, event.data, event.id, millis(event.retry)))
        .collect()
}

fn events(items: Vec<Item>) -> Vec<Event> {
    let (mut events, mut retry) = (Vec::new(), None);
    for item in items {
        match item {
            Item::Message(message) => {
                events.push((message.event, message.data, message.id, retry));
            }
            Item::Retry(after) => retry = Some(after.as_millis()),
            _ => {}
        }
    }
    events
}

/// What means something to a decoder, whole and in parts, and what does not.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&[u8]] = &[
        b"data",
        b"event",
        b"id",
        b"retry",
        b"Data",
        b"data: x\n\n",
        b"id: 1\n",
        b"retry: 20\n",
        b":",
        b": ",
        b" ",
        b"\0",
        b"0",
        b"9",
        b"+1",
        b"-",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xbb",
        b"\xf0\x9f\x98",
        b"\xc3",
        b"\xa9",
        b"\xff",
    ];
    let breaks: &[&[u8]] = &[b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r"];
    let piece = prop_oneof![
        3 => proptest::sample::select(words).prop_map(<[u8]>::to_vec),
        2 => proptest::sample::select(breaks).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => soup(),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(5000) })]

    #[test]
    fn any_bytes_are_what_the_standard_says(bytes in any_bytes()) {
        prop_assert_eq!(events(items(&[&bytes])), by_specification(&bytes));
    }

    #[test]
    fn it_does_not_matter_how_a_stream_is_cut(bytes in any_bytes(), at in any::<prop::sample::Index>()) {
        let whole = items(&[&bytes]);
        let (before, after) = bytes.split_at(at.index(bytes.len() + 1));
        prop_assert_eq!(items(&[before, b"", after]), &*whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(items(&single), whole);
    }
}

fn message(event: &str, data: &str, id: &str) -> (String, String, String) {
    (event.to_owned(), data.to_owned(), id.to_owned())
}

fn messages(decoder: Decoder) -> Vec<(String, String, String)> {
    decoder
        .filter_map(|item| match item {
            Item::Message(message) => Some((message.event, message.data, message.id)),
            _ => None,
        })
        .collect()
}

#[test]
fn the_examples_of_the_standard_are_what_it_says() {
    for (stream, expected) in [
        (
            "data: YHOO\ndata: +2\ndata: 10\n\n",
            vec![message("message", "YHOO\n+2\n10", "")],
        ),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
            vec![
                message("message", "first event", "1"),
                message("message", "second event", ""),
            ],
        ),
        (
            "data\n\ndata\ndata\n\ndata:",
            vec![message("message", "", ""), message("message", "\n", "")],
        ),
        (
            "data:test\n\ndata: test\n\n",
            vec![
                message("message", "test", ""),
                message("message", "test", ""),
            ],
        ),
        (
            "event: add\ndata: 73857293\n\nevent: remove\n\nid: 3\ndata: 1\n\nid: a\0b\ndata: 2\n\n",
            vec![
                message("add", "73857293", ""),
                message("message", "1", "3"),
                message("message", "2", "3"),
            ],
        ),
        // One byte order mark, and only at the beginning.
        (
            "\u{feff}data: 1\n\n\u{feff}data: 2\n\n",
            vec![message("message", "1", "")],
        ),
        ("\u{feff}\u{feff}data: 1\n\n", vec![]),
    ] {
        let mut decoder = Decoder::new();
        decoder.push(stream.as_bytes());
        assert_eq!(messages(decoder), expected, "{stream:?}");
    }
}

#[test]
fn an_id_counts_from_the_end_of_its_block() {
    let id = |id: &str| Item::Id(id.to_owned());
    assert_eq!(items(&[b"id: 1\n"]), []);
    assert_eq!(items(&[b"id: 1\n\n"]), [id("1")]);
    assert_eq!(items(&[b"id: 1\nid: 2\nevent: x\n\n\n"]), [id("2")]);
    assert_eq!(items(&[b"id: 1\n\nid:\n\nid: \0\n\n"]), [id("1"), id("")]);
}

#[test]
fn a_retry_is_digits_and_nothing_else() {
    let retry = |value: &str| match &items(&[format!("retry:{value}\n").as_bytes()])[..] {
        [] => None,
        [Item::Retry(after)] => Some(*after),
        other => panic!("{value}: {other:?}"),
    };
    for (value, millis) in [
        (" 0", 0),
        ("1500", 1500),
        (" 007", 7),
        ("18446744073709551615", u64::MAX),
        ("99999999999999999999999", u64::MAX),
    ] {
        assert_eq!(retry(value), Some(Duration::from_millis(millis)), "{value}");
    }
    for value in [
        "", " ", "  1", "1 ", "+1", "-1", "1.5", "1e3", "0x1", "\u{661}",
    ] {
        assert_eq!(retry(value), None, "{value}");
    }
}

#[test]
fn a_client_that_comes_back_keeps_its_id_until_it_gets_another() {
    let mut decoder = Decoder::resuming("7");
    decoder.push(b"data: 1\n\nid: 8\ndata: 2\n\nid\ndata: 3\n\n");
    assert_eq!(
        messages(decoder),
        [
            message("message", "1", "7"),
            message("message", "2", "8"),
            message("message", "3", "")
        ]
    );
}
