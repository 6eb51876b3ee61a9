//! What clients resume by: where a history is, without a connection, and ids that the service gives itself.

use futures_util::{FutureExt, StreamExt};
use tidings::{EventId, Frame, GenericBroadcaster, History, LastEventId, Subscription, Text};

type Hub = GenericBroadcaster<Text>;

fn keeping(history: History) -> Hub {
    GenericBroadcaster::builder()
        .history(history)
        .build()
        .expect("valid settings")
}

fn data(stream: &mut Subscription) -> Vec<String> {
    let mut got = Vec::new();
    while let Some(Some(item)) = stream.next().now_or_never() {
        got.push(item.expect("no gap").data());
    }
    got
}

fn send(hub: &Hub, text: &str) {
    hub.broadcast("ann", &Text::new(text)).expect("text");
}

#[test]
fn a_stream_that_begins_at_a_position_gets_what_came_after_it() {
    let hub = keeping(History::new(10));
    assert_eq!(hub.position("ann"), None, "nobody knows her");
    let tab = hub.register("ann").expect("room");
    assert_eq!(hub.position("ann"), tab.cursor());
    send(&hub, "before");
    let position = hub.position("ann").expect("a history");
    assert_eq!(hub.connection_count("ann"), 1, "it opens none");
    send(&hub, "after");
    assert_ne!(hub.position("ann"), Some(position.clone()));
    drop(tab);
    send(&hub, "away");
    // Asked for while she is away it is of the same history.
    let away = hub.position("ann").expect("it is kept");
    send(&hub, "last");
    let mut stream = hub.resume("ann", &position.into()).expect("room");
    assert_eq!(data(&mut stream), ["after", "away", "last"]);
    let mut stream = hub.resume("ann", &away.into()).expect("room");
    assert_eq!(data(&mut stream), ["last"]);
    hub.forget("ann");
    assert_eq!(hub.position("ann"), None);
}

#[test]
fn without_a_history_there_is_no_position() {
    let hub = Hub::new();
    let _tab = hub.register("ann").expect("room");
    send(&hub, "1");
    assert_eq!(hub.position("ann"), None);
}

#[test]
fn the_id_of_a_client_is_what_it_sent_if_that_can_be_one() {
    let long = "x".repeat(EventId::MAX_LEN + 1);
    for (sent, expected) in [
        ("17", Some("17")),
        ("order-17", Some("order-17")),
        ("0123456789abcdef-3", Some("0123456789abcdef-3")),
        ("0123456789abcdef-3~", Some("0123456789abcdef-3~")),
        ("~", None),
        (" ", Some(" ")),
        ("", None),
        ("two\nlines", None),
        (&long, None),
    ] {
        let id = LastEventId::new(sent);
        assert_eq!(id.as_str(), expected, "{sent:?}");
        assert_eq!(id.is_none(), matches!(sent, "" | "~"));
    }
    assert_eq!(LastEventId::none().as_str(), None);
    assert_eq!(LastEventId::unknown().as_str(), None);
    let id = EventId::from(17);
    assert_eq!(LastEventId::from(id).as_str(), Some("17"));
}

#[test]
fn a_frame_says_its_id_and_its_name_whatever_its_data_looks_like() {
    let plain = Text::new("id: 9\nevent: no");
    let frame = Frame::encode(&plain).expect("text");
    assert_eq!((frame.id(), frame.event()), (None, None));
    let full = plain.id(EventId::from(17)).event("order: new");
    let frame = Frame::encode(&full).expect("text");
    assert_eq!(
        (frame.id(), frame.event()),
        (Some("17"), Some("order: new"))
    );

    // A history's id takes the place of the event's own.
    let hub = keeping(History::new(10));
    let mut tab = hub.register("ann").expect("room");
    let event = Text::new("").id(EventId::from(17)).event("x");
    hub.broadcast("ann", &event).expect("text");
    let item = tab.next().now_or_never().flatten().expect("it is there");
    let frame = item.expect("no gap");
    let position = hub.position("ann").expect("a history");
    assert_eq!((frame.id(), frame.event()), (Some(&*position), Some("x")));
}

/// Without a history the event's own id goes out, and comes back as it was.
#[test]
fn an_id_of_the_service_is_sent_as_it_is() {
    let hub = Hub::new();
    let mut tab = hub.register("ann").expect("room");
    let event = Text::new("shipped").id(EventId::from(1_000_000_007));
    hub.broadcast("ann", &event).expect("text");
    let item = tab.next().now_or_never().flatten().expect("it is there");
    let frame = item.expect("no gap");
    let back = LastEventId::new(frame.id().expect("its own"));
    let number: u64 = back.as_str().expect("an id").parse().expect("a number");
    assert_eq!(number, 1_000_000_007);
}
