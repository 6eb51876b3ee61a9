//! A view decides which events one client is shown, and wraps the shared bytes without copying them.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http_body::Body;
use http_body_util::BodyExt;
use tidings::sse::{Chunks, View};
use tidings::{
    Data, EncodeError, EndReason, Frame, Gap, GenericBroadcaster, History, KeepAlive, Meta,
    SseBody, Subscription, Text, ToSse,
};

/// A number, attached to itself.
struct Number(u32);

impl ToSse for Number {
    fn meta(&self) -> Meta<'_> {
        let mut meta = Meta::default();
        meta.attachment = Some(Arc::new(self.0));
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.json(&self.0)
    }
}

/// Shows odd numbers in brackets, up to 7.
struct Odd;

impl View for Odd {
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        let number: u32 = *frame.attachment().expect("every number is attached");
        if number % 2 == 1 {
            chunks.push("data: [");
            chunks.push(frame.data_line().expect("one line"));
            chunks.push("]\n\n");
        }
        if number == 7 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn end(&mut self, chunks: &mut Chunks) {
        chunks.push("data: the end\n\n");
    }
}

fn body(stream: Subscription) -> SseBody {
    SseBody::new(stream).keep_alive(&KeepAlive::off())
}

/// What the body has ready, and whether it has ended.
fn text(body: &mut SseBody) -> (String, bool) {
    let mut text = String::new();
    while let Some(next) = body.frame().now_or_never() {
        let Some(chunk) = next else {
            assert!(body.is_end_stream());
            return (text, true);
        };
        let chunk = chunk.expect("no error").into_data().expect("data");
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    (text, false)
}

fn send(hub: &GenericBroadcaster<Number>, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        hub.broadcast("ann", &Number(number)).expect("encoded");
    }
}

#[test]
fn a_view_shows_some_events_in_its_own_wrapping_and_ends_when_it_wants() {
    let hub = GenericBroadcaster::<Number>::new();
    let mut odd = body(hub.register("ann").expect("no cap")).view(Odd);
    let mut all = body(hub.register("ann").expect("no cap"));
    send(&hub, 0..4);
    assert_eq!(text(&mut odd), ("data: [1]\n\ndata: [3]\n\n".into(), false));
    send(&hub, 4..10);
    assert_eq!(text(&mut odd), ("data: [5]\n\ndata: [7]\n\n".into(), true));
    assert_eq!(hub.total_connections(), 1, "it has left by itself");
    assert_eq!(text(&mut all).0.matches("data").count(), 10);
}

/// Shows what it has, and nothing else.
struct Only(&'static str);

impl View for Only {
    fn begin(&mut self, chunks: &mut Chunks) -> ControlFlow<()> {
        chunks.push(self.0);
        ControlFlow::Break(())
    }

    fn show(&mut self, _: &Frame, _: &mut Chunks) -> ControlFlow<()> {
        unreachable!("it has ended");
    }
}

#[test]
fn a_view_may_end_before_the_first_event() {
    let hub = GenericBroadcaster::<Number>::new();
    for shown in ["data: all\n\n", ""] {
        let mut only = body(hub.register("ann").expect("no cap")).view(Only(shown));
        send(&hub, [1]);
        assert_eq!(text(&mut only), (shown.to_owned(), true));
        assert_eq!(hub.total_connections(), 0, "it has left by itself");
        assert_eq!(
            hub.stats().ended.get(EndReason::Completed),
            1 + u64::from(shown.is_empty())
        );
    }
}

#[test]
fn a_view_has_the_last_word_when_the_stream_is_ended() {
    let hub = GenericBroadcaster::<Number>::new();
    let mut odd = body(hub.register("ann").expect("no cap")).view(Odd);
    send(&hub, [1]);
    hub.drain_user("ann");
    assert_eq!(
        text(&mut odd),
        ("data: [1]\n\ndata: the end\n\n".into(), true)
    );
}

#[test]
fn a_gap_is_shown_unless_the_view_does_otherwise() {
    struct Strict;
    impl View for Strict {
        fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
            chunks.push(frame.to_bytes());
            ControlFlow::Continue(())
        }

        fn gap(&mut self, gap: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
            let missed = gap.missed.expect("lag is counted");
            chunks.push(format!("data: lost {missed}\n\n"));
            ControlFlow::Break(())
        }
    }
    let hub = GenericBroadcaster::<Number>::builder()
        .ring_capacity(2)
        .build()
        .expect("valid settings");
    let mut odd = body(hub.register("ann").expect("no cap")).view(Odd);
    let mut strict = body(hub.register("ann").expect("no cap")).view(Strict);
    send(&hub, 0..4);
    let gap = "event: gap\ndata: {\"reason\":\"lagged\",\"missed\":2}\n\n";
    assert_eq!(text(&mut odd).0, format!("{gap}data: [3]\n\n"));
    assert_eq!(text(&mut strict), ("data: lost 2\n\n".into(), true));
}

#[test]
fn the_data_is_shared_where_it_is_one_line() {
    let of = |text: &str| Frame::encode(&tidings::Text::new(text.to_owned())).expect("encoded");
    assert_eq!(of("one").data_line(), Some(Bytes::from("one")));
    assert_eq!(of("").data_line(), Some(Bytes::new()));
    for lines in ["one\ntwo", "\n", "\r", "a\r\n"] {
        assert_eq!(of(lines).data_line(), None, "{lines:?}");
    }
    let frame = of("x");
    let shared = frame.data_line().expect("one line");
    assert!(frame.as_bytes().as_ptr_range().contains(&shared.as_ptr()));
    assert_eq!(frame.attachment::<u32>(), None);
}

// Closures

fn named(number: u32) -> Frame {
    Frame::encode(&Text::new(format!("number {number}"))).expect("text")
}

#[test]
fn a_closure_decides_what_the_client_gets_and_keeps_its_id() {
    let hub: GenericBroadcaster<Number> = GenericBroadcaster::builder()
        .history(History::new(10))
        .build()
        .expect("valid settings");
    let stream = hub.register("ann").expect("no cap");
    let cursor = stream.cursor().expect("there is a history");
    let epoch = cursor.split_once('-').expect("two parts").0.to_owned();
    let mut some = body(stream).filter_map(|frame| {
        match *frame.attachment::<u32>().expect("every number is attached") {
            number if number % 3 == 0 => None,
            1 => Some(frame),
            number => Some(Arc::new(named(number))),
        }
    });
    send(&hub, 0..4);
    let (text, ended) = text(&mut some);
    let expected =
        format!("id: {epoch}-0\n\nid: {epoch}-2\ndata: 1\n\nid: {epoch}-3\ndata: number 2\n\n");
    assert_eq!((text, ended), (expected, false));
}

#[test]
fn a_stream_ends_after_the_event_that_its_closure_names() {
    let is_five = |frame: &Frame| frame.data() == "5";
    let hub = GenericBroadcaster::<Number>::new();
    let mut plain = body(hub.register("ann").expect("no cap")).until(is_five);
    let mut without = body(hub.register("ann").expect("no cap"))
        .until(is_five)
        .filter_map(|frame| (frame.data() != "5").then_some(frame));
    let mut odd = body(hub.register("ann").expect("no cap"))
        .view(Odd)
        .until(is_five);
    send(&hub, 4..9);
    assert_eq!(text(&mut plain), ("data: 4\n\ndata: 5\n\n".into(), true));
    assert_eq!(text(&mut without), ("data: 4\n\n".into(), true));
    let last = "data: [5]\n\ndata: the end\n\n";
    assert_eq!(text(&mut odd), (last.into(), true));
    assert_eq!(hub.total_connections(), 0, "they have left by themselves");
    assert_eq!(hub.stats().ended.get(EndReason::Completed), 3);
}

#[test]
fn a_stream_with_closures_reports_gaps_and_ends_like_any_other() {
    let hub: GenericBroadcaster<Number> = GenericBroadcaster::builder()
        .ring_capacity(2)
        .build()
        .expect("valid settings");
    let mut none = body(hub.register("ann").expect("no cap"))
        .filter_map(|_| None)
        .until(|_| false);
    send(&hub, 0..5);
    hub.drain_user("ann");
    let gap = "event: gap\ndata: {\"reason\":\"lagged\",\"missed\":3}\n\n";
    assert_eq!(text(&mut none), (gap.into(), true));
}

#[test]
fn a_frame_of_a_gap_is_what_streams_send() {
    let hub: GenericBroadcaster<Number> = GenericBroadcaster::builder()
        .ring_capacity(2)
        .build()
        .expect("valid settings");
    let mut stream = hub.register("ann").expect("no cap");
    let mut sent = body(hub.register("ann").expect("no cap"));
    send(&hub, 0..5);
    let gap = stream.next().now_or_never().flatten().expect("an item");
    let frame = Frame::gap(&gap.expect_err("a gap"));
    assert_eq!((frame.event(), frame.id()), (Some("gap"), None));
    let bytes = String::from_utf8(frame.as_bytes().to_vec()).expect("text");
    assert!(text(&mut sent).0.starts_with(&bytes));
}
