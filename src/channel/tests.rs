//! What a log has for a client that comes back, place by place, where nodes have a history in common. How these meet in
//! threads is modelled, see `loom_tests/shared.rs`.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::ring::Ring;
use super::{Head, History, Incoming, Log, Resume, Retention, Taken, Upstream};
use crate::id::{Position, Seen};

const EPOCH: u64 = 7;
/// What is no event but tells of a gap.
const NOTICE: u32 = 100;

type Event = (u32, Position);

struct Node {
    log: Arc<Log<Event>>,
    ring: Ring<Event>,
    sent: RefCell<Vec<Event>>,
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// These, and nothing is missing.
    Events(Vec<u32>),
    /// These, once the engine has said what comes before them.
    Asked(Vec<u32>),
    /// Its id says nothing.
    Unknown,
}

use Answer::{Asked, Events, Unknown};

/// The engine is at position 10.
fn node(history: History) -> Node {
    let head = Head {
        epoch: EPOCH,
        position: 10,
    };
    let upstream = Some(Upstream::new(head));
    let retention = Retention::new(Some(history), 0, upstream, Arc::default());
    Node {
        log: Log::new(Arc::new(retention)),
        ring: Ring::new(64),
        sent: RefCell::default(),
    }
}

fn place(remote: u64, own: impl Into<Option<Seen>>) -> Position {
    Position {
        epoch: EPOCH,
        offset: remote,
        own: own.into(),
        settled: false,
    }
}

impl Node {
    fn send(&self, event: Event) -> usize {
        self.sent.borrow_mut().push(event);
        self.ring.push(event).0
    }

    /// Broadcasts here, to streams first, and says what id the event has.
    fn publish(&self, number: u32, size: usize) -> Position {
        let make = |id: Option<Position>| (number, id.expect("there are marks"));
        self.log.append(size, None, make, |event| self.send(event));
        self.sent.borrow().last().expect("it was sent").1
    }

    fn take(&self, position: u64, previous: u64, number: u32, echo: Option<u64>) -> Taken {
        let make = |id: Option<Position>| (number, id.expect("there are marks"));
        let incoming = Incoming { position, previous };
        self.log
            .take(incoming, echo, (1, None), make, |event| self.send(event))
    }

    fn note(&self) {
        let make = |id: Option<Position>| (NOTICE, id.expect("there are marks"));
        self.log.note(1, make, |event| self.send(event));
    }

    /// Of this channel: how many of its own events.
    fn own(&self, count: u64) -> Seen {
        Seen {
            channel: self.log.epoch(),
            count,
        }
    }

    fn back(&self, id: Position) -> Answer {
        let joined = self.log.join(Resume::After(id), || self.ring.subscribe());
        let (mut replay, mut feed) = (joined.replay, joined.feed);
        let mut events = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(next)) = replay.poll(&mut feed, &mut cx) {
            events.push(next.expect("nothing is lost").0);
        }
        match (joined.gap, joined.asks) {
            (Some(_), _) => {
                assert!(events.is_empty(), "{events:?} are not behind it");
                Unknown
            }
            (None, true) => Asked(events),
            (None, false) => Events(events),
        }
    }
}

#[test]
fn a_client_goes_on_behind_its_event_where_the_channel_knows_the_id() {
    let node = node(History::new(100));
    node.publish(1, 1);
    assert_eq!(node.take(11, 10, 2, None), Taken::Sent(0));
    node.publish(3, 1);
    assert_eq!(node.take(13, 11, 4, None), Taken::Sent(0));
    assert_eq!(node.back(place(10, node.own(0))), Events(vec![1, 2, 3, 4]));
    let sent = node.sent.borrow().clone();
    for (index, (number, id)) in sent.iter().enumerate() {
        let after = sent[index + 1..].iter().map(|event| event.0).collect();
        assert_eq!(node.back(*id), Events(after), "behind {number}");
    }
    assert_eq!(sent[3].1, place(13, node.own(2)));
}

#[test]
fn an_id_that_is_ahead_of_the_channel_says_nothing() {
    let node = node(History::new(100));
    node.publish(1, 1);
    node.take(11, 10, 2, None);
    assert_eq!(node.back(place(11, node.own(1))), Events(vec![]));
    assert_eq!(node.back(place(12, node.own(1))), Unknown);
    assert_eq!(node.back(place(11, node.own(2))), Unknown);
    assert_eq!(node.back(place(12, node.own(2))), Unknown);
    // Another node may be ahead.
    assert_eq!(node.back(place(12, None)), Asked(vec![1, 2]));
    let other = Position {
        epoch: EPOCH + 1,
        ..place(11, node.own(1))
    };
    assert_eq!(node.back(other), Unknown);
}

#[test]
fn the_engine_is_asked_for_what_the_channel_has_dropped() {
    let node = node(History::new(2));
    let ids = [1, 2, 3, 4].map(|number| node.publish(number, 1));
    assert_eq!(node.back(ids[0]), Asked(vec![3, 4]), "2 is gone");
    assert_eq!(node.back(ids[1]), Events(vec![3, 4]), "nothing is");
    assert_eq!(node.back(ids[2]), Events(vec![4]));
}

#[test]
fn the_engine_is_asked_for_what_was_never_kept() {
    let too_large = History::new(100).bytes(10);
    let no_room = History::new(100).away_bytes(10);
    for (history, is_away) in [(too_large, false), (no_room, true)] {
        let node = node(history);
        let small = node.publish(1, 1);
        assert!(!is_away || node.log.linger(|| true));
        let large = node.publish(2, 11);
        let last = node.publish(3, 1);
        assert_eq!(node.back(small), Asked(vec![3]));
        assert_eq!(node.back(large), Events(vec![3]));
        assert_eq!(node.back(last), Events(vec![]));
    }
}

#[test]
fn who_comes_from_another_node_gets_from_the_channel_what_the_engine_may_not_have() {
    let node = node(History::new(100));
    node.publish(1, 1);
    node.take(11, 10, 2, None);
    node.publish(3, 1);
    node.publish(4, 1);
    let over = place(10, None);
    assert_eq!(node.back(over), Asked(vec![1, 2, 3, 4]));
    assert_eq!(node.take(12, 11, 1, Some(1)), Taken::Echo);
    assert_eq!(node.back(over), Asked(vec![3, 4]));
    assert_eq!(node.take(13, 12, 3, Some(2)), Taken::Echo);
    assert_eq!(node.back(over), Asked(vec![4]));
    assert_eq!(node.take(14, 13, 4, Some(3)), Taken::Echo);
    assert_eq!(node.back(over), Asked(vec![]));
    // An id of another channel is one of another node.
    let other = Seen {
        channel: node.log.epoch() ^ 1,
        count: 1,
    };
    assert_eq!(node.back(place(10, other)), Asked(vec![]));
}

#[test]
fn a_place_is_settled_when_the_engine_has_all_before_it() {
    let node = node(History::new(100));
    let cursor = |node: &Node| {
        let joined = node.log.join(Resume::Fresh, || node.ring.subscribe());
        joined.cursor.expect("there are marks")
    };
    assert!(cursor(&node).settled, "nothing was sent");
    assert!(!node.publish(1, 1).settled);
    node.publish(2, 1);
    assert!(!cursor(&node).settled);
    node.take(11, 10, 1, Some(1));
    assert!(!cursor(&node).settled, "2 is on its way");
    node.take(12, 11, 2, Some(2));
    assert!(cursor(&node).settled);
    assert!(!node.publish(3, 1).settled);
}

#[test]
fn a_notice_is_told_again_rather_than_never() {
    let node = node(History::new(4));
    let first = node.publish(1, 1);
    node.note();
    node.note();
    let second = node.publish(2, 1);
    let all = Events(vec![NOTICE, NOTICE, 2]);
    assert_eq!(node.back(first), all, "the event itself is kept");
    node.note();
    let expected = vec![NOTICE, NOTICE, 2, NOTICE];
    assert_eq!(node.back(first), Events(expected), "it is not");
    assert_eq!(node.back(second), Events(vec![NOTICE]));
}

#[test]
fn the_engines_events_come_in_order_and_once() {
    let node = node(History::new(100));
    assert_eq!(node.log.remote(), 10);
    assert_eq!(node.take(10, 9, 0, None), Taken::Again);
    assert_eq!(node.take(12, 11, 2, None), Taken::Early(10));
    assert_eq!(node.take(11, 10, 1, None), Taken::Sent(0));
    assert_eq!(node.take(11, 10, 1, None), Taken::Again);
    // Of what is behind 11 nothing was lost.
    assert_eq!(node.take(12, 11, 2, None), Taken::Sent(0));
    assert_eq!(node.take(14, 13, 4, None), Taken::Early(12));
    node.log.catch_up(13);
    assert_eq!(node.log.remote(), 13);
    node.log.catch_up(11);
    assert_eq!(node.log.remote(), 13);
    assert_eq!(node.take(13, 12, 3, None), Taken::Again);
    assert_eq!(node.take(14, 13, 4, None), Taken::Sent(0));
}

#[test]
fn what_a_slow_stream_has_lost_is_told_with_the_place_behind_it() {
    let node = node(History::new(2));
    for number in 1..=5 {
        node.publish(number, 1);
    }
    // Kept are 4 and 5.
    let gone = node.log.read(1, 6, false);
    assert_eq!((gone.missed, gone.told, gone.until), (3, true, 4));
    assert_eq!(gone.position, Some(place(10, node.own(3))));
    assert!(gone.events.is_empty());
    let gone = node.log.read(1, 3, false);
    assert_eq!((gone.missed, gone.until), (2, 3));
    assert_eq!(gone.position, None, "of places in between nothing is known");
    let there = node.log.read(4, 6, false);
    let numbers: Vec<_> = there.events.iter().map(|event| event.0).collect();
    assert_eq!(numbers, [4, 5]);
    assert_eq!((there.missed, there.told, there.until), (0, false, 6));
}

#[test]
fn the_log_gives_a_few_events_at_a_time() {
    let node = node(History::new(100));
    for number in 1..=100 {
        node.publish(number, 1);
    }
    let some = node.log.read(7, 101, false);
    assert_eq!((some.events.len(), some.until), (32, 39));
    let last = node.log.read(71, 101, false);
    assert_eq!((last.events.len(), last.until), (30, 101));
}

#[test]
fn a_log_of_the_engine_that_is_another_one_begins_anew() {
    let node = node(History::new(100));
    let before = node.publish(1, 1);
    node.take(11, 10, 2, None);
    let head = Head {
        epoch: EPOCH + 1,
        position: 3,
    };
    let reset = || {
        let make = |id: Option<Position>| (NOTICE, id.expect("there are marks"));
        node.log.reset(head, make, |event| node.send(event));
    };
    reset();
    reset();
    assert_eq!(node.sent.borrow().len(), 3, "it is told once");
    let (number, id) = node.sent.borrow()[2];
    assert_eq!((number, id.epoch, id.offset), (NOTICE, EPOCH + 1, 3));
    assert!(id.settled, "what was on its way is lost, and told");
    assert_eq!(node.back(before), Unknown);
    assert_eq!(node.back(id), Events(vec![NOTICE]), "told again");
    assert_eq!(node.log.remote(), 3);
    assert_eq!(node.take(4, 3, 4, None), Taken::Sent(0));
    assert_eq!(node.back(id), Events(vec![NOTICE, 4]));
}

#[test]
fn ids_begin_with_the_engines_epoch_and_the_channel() {
    let node = node(History::new(1));
    assert_eq!(node.log.id_prefix(), Some((EPOCH, Some(node.log.epoch()))));
}
