//! A drain: open streams end after the events broadcast before it, and no longer count from then on.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tidings::{ConnectionId, GenericBroadcaster, History, LastEventId, Subscription, Text};
use tokio::time::{Instant, advance};

type Hub = GenericBroadcaster<Text>;

fn histories() -> [Option<History>; 3] {
    let brief = History::new(100).linger(Duration::ZERO);
    [None, Some(brief), Some(History::new(100))]
}

fn hub(history: Option<History>) -> Hub {
    Hub::builder()
        .ring_capacity(4)
        .connections_per_user(1)
        .history(history)
        .build()
        .expect("valid settings")
}

fn join(hub: &Hub) -> Subscription {
    hub.register_as("ann", "tab").expect("there is a place")
}

fn send(hub: &Hub, data: &str) -> usize {
    let reached = hub.broadcast("ann", &Text::new(data.to_owned()));
    reached.expect("text can be encoded")
}

/// What the stream has to say without waiting: an event, or that it has ended.
fn next(stream: &mut Subscription) -> Option<String> {
    let next = stream.next().now_or_never().expect("it need not wait");
    next.map(|event| event.expect("nothing is lost").data())
}

#[test]
fn a_stream_ends_after_earlier_broadcasts_however_many_follow() {
    for history in histories() {
        let hub = hub(history);
        let mut stream = join(&hub);
        for data in ["1", "2", "3"] {
            send(&hub, data);
        }
        assert_eq!(next(&mut stream).as_deref(), Some("1"));
        assert_eq!(hub.drain_user("ann"), 1);
        let mut yielded = Vec::new();
        while yielded.len() < 20 {
            send(&hub, "later");
            match next(&mut stream) {
                Some(data) => yielded.push(data),
                None => break,
            }
        }
        assert_eq!(yielded, ["2", "3"], "{history:?}");
    }
}

#[test]
fn what_the_ring_has_lost_before_is_read_from_the_history() {
    let hub = hub(Some(History::new(100)));
    let mut stream = join(&hub);
    for _ in 0..50 {
        send(&hub, "before");
    }
    assert_eq!(hub.drain_user("ann"), 1);
    for _ in 0..50 {
        send(&hub, "later");
    }
    for _ in 0..50 {
        assert_eq!(next(&mut stream).as_deref(), Some("before"));
    }
    assert_eq!(next(&mut stream), None);
}

#[test]
fn a_drained_connection_takes_no_place_and_is_drained_once() {
    for history in histories() {
        let hub = hub(history);
        let old = join(&hub);
        assert!(hub.register("ann").is_err(), "the cap is one");
        assert_eq!(hub.drain_user("ann"), 1);
        assert_eq!(hub.drain_user("ann"), 0);
        assert_eq!(hub.connection_count("ann"), 0);
        assert_eq!(hub.connection_info_of("ann"), []);
        assert!(!hub.unregister("ann", &ConnectionId::from("tab")));
        assert_eq!(send(&hub, "for nobody"), 0);

        let mut new = join(&hub);
        assert!(hub.register("ann").is_err(), "the cap is one");
        assert_eq!(send(&hub, "for the newcomer"), 1);
        assert_eq!(
            (hub.connection_count("ann"), hub.total_connections()),
            (1, 2)
        );
        drop(old);
        assert_eq!(
            (hub.connection_count("ann"), hub.total_connections()),
            (1, 1)
        );
        assert_eq!(next(&mut new).as_deref(), Some("for the newcomer"));
        assert_eq!(hub.drain_user("ann"), 1);
        drop(new);
        assert_eq!((hub.total_connections(), hub.stats().users), (0, 0));
    }
}

#[test]
fn a_client_continues_after_the_last_event_that_it_was_sent() {
    let hub = hub(Some(History::new(100)));
    let mut stream = join(&hub);
    send(&hub, "before");
    assert_eq!(hub.drain_user("ann"), 1);
    send(&hub, "after");
    let last = stream.next().now_or_never().flatten();
    let seen = last.expect("an event").expect("nothing is lost");
    let id = seen.fields().find(|(name, _)| *name == "id");
    let seen = LastEventId::new(id.expect("there is a history").1);
    assert_eq!(next(&mut stream), None);
    let mut back = hub.resume("ann", &seen).expect("there is a place");
    assert_eq!(next(&mut back).as_deref(), Some("after"));
}

#[tokio::test(start_paused = true)]
async fn a_drained_connection_can_still_be_disconnected_and_swept() {
    for history in histories() {
        let hub = hub(history);
        let mut kept = join(&hub);
        send(&hub, "unread");
        assert_eq!(hub.drain_user("ann"), 1);
        assert_eq!(hub.disconnect_user("ann"), 1);
        assert_eq!((next(&mut kept), hub.total_connections()), (None, 0));

        let stalled = join(&hub).deadline(Instant::now() + Duration::from_secs(2));
        assert_eq!(hub.drain_user("ann"), 1);
        advance(Duration::from_secs(2)).await;
        assert_eq!((hub.sweep(), hub.total_connections()), (1, 0));
        drop(stalled);

        let stalled = join(&hub);
        assert_eq!(hub.drain_user("ann"), 1);
        assert_eq!(hub.shutdown(Duration::ZERO).await, 1);
        assert_eq!(hub.total_connections(), 0);
        drop(stalled);
    }
}
