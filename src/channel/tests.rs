//! What a log has for a client that comes back, place by place, where the history is an engine's log. How these meet in
//! threads is modelled, see `loom_tests/shared.rs`.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use super::log::Excerpt;
use super::ring::Feed;
use super::{
    Accepted, Channel, History, Label, Log, Missed, Origin, Resume, Retention, Standing, Upstream,
};
use crate::gap::{Gap, GapReason};
use crate::position::{Place, Position};

const EPOCH: u64 = 7;
/// What is no event but tells of a gap.
const NOTICE: u32 = 100;

type Event = (u32, Position);

struct Node {
    log: Arc<Log<Event>>,
    channel: Channel<Event>,
    /// A stream that has been here from the start, and what it got.
    feed: RefCell<Feed<Event>>,
    sent: RefCell<Vec<Event>>,
    epoch: Arc<AtomicU64>,
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// These, and nothing is missing.
    Events(Vec<u32>),
    /// What the engine's log has up to this offset, and then these.
    Asked(u64, Vec<u32>),
    /// Its id says nothing.
    Unknown,
}

use Answer::{Asked, Events, Unknown};

fn end(offset: u64, previous: u64) -> Place {
    Place {
        position: place(offset),
        previous,
    }
}

/// The engine is at offset 10.
fn node(history: History) -> Node {
    let epoch = Arc::new(AtomicU64::new(EPOCH));
    let upstream = Upstream::new({
        let epoch = epoch.clone();
        move || Position {
            epoch: epoch.load(Ordering::Relaxed),
            offset: 10,
        }
    });
    let retention = Retention::new(Some(history), 0, Some(upstream), Arc::default());
    let log = Log::new(Arc::new(retention));
    let channel = Channel::open("u".into(), 0, 64, Some(log.clone()), None);
    let current = channel.roster().current();
    let feed = current.ring().expect("it is open").subscribe();
    Node {
        channel,
        feed: RefCell::new(feed),
        log,
        sent: RefCell::default(),
        epoch,
    }
}

fn place(offset: u64) -> Position {
    Position {
        epoch: EPOCH,
        offset,
    }
}

fn made(number: u32) -> impl FnMut(Option<Position>) -> Event {
    move |id| (number, id.expect("it has a place"))
}

impl Node {
    /// What was sent to streams.
    fn sent(&self) -> Vec<Event> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut sent = self.sent.borrow_mut();
        while let Poll::Ready(Some(next)) = self.feed.borrow_mut().poll_next(&mut cx) {
            sent.push(next.expect("nothing is lost"));
        }
        sent.clone()
    }

    fn take_sized(&self, position: Position, previous: u64, number: u32, size: usize) -> Accepted {
        let origin = Origin::Upstream(Place { position, previous });
        let label = Label::event(size, None);
        self.channel.append(origin, label, made(number))
    }

    fn take(&self, offset: u64, previous: u64, number: u32) -> Accepted {
        self.take_sized(place(offset), previous, number, 1)
    }

    /// Takes the next, and says which place it has.
    fn append(&self, number: u32, size: usize) -> Position {
        let last = self.at();
        assert_eq!(
            self.take_sized(place(last + 1), last, number, size),
            Accepted::Delivered(1)
        );
        self.sent().last().expect("it was sent").1
    }

    fn at(&self) -> u64 {
        self.log.place().expect("it is in a log").offset
    }

    fn skip(&self, until: u64) {
        let origin = Origin::Upstream(Place::up_to(place(until)));
        self.channel.append(origin, Label::notice(1), made(NOTICE));
    }

    /// Shows an event ahead of the log.
    fn show(&self, number: u32) {
        let notice = (NOTICE, place(0));
        let origin = Origin::Ahead { notice, weight: 1 };
        let label = Label::event(1, None);
        let shown = self.channel.append(origin, label, |_| (number, place(0)));
        assert_eq!(shown, Accepted::Delivered(1));
    }

    fn numbers(&self) -> Vec<u32> {
        self.sent().iter().map(|event| event.0).collect()
    }

    fn complete(&self, offset: u64, previous: u64) -> Accepted {
        self.log.complete(Some(end(offset, previous)))
    }

    fn follow(&self) {
        self.channel
            .append(Origin::Reset, Label::notice(1), made(NOTICE));
    }

    fn read(&self, next: u64, end: u64) -> Excerpt<Event> {
        self.log.read(next, end, GapReason::Lagged, false)
    }

    fn back(&self, id: Position) -> Answer {
        let current = self.channel.roster().current();
        let ring = current.ring().expect("it is open");
        let joined = self.log.join(Resume::After(id), ring);
        let (mut replay, mut feed) = (joined.replay, joined.feed);
        let mut events = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(next)) = replay.poll(&mut feed, &mut cx) {
            events.push(next.expect("nothing is lost").0);
        }
        match (joined.welcome.gap, joined.welcome.log) {
            (Some(_), _) => {
                assert!(events.is_empty(), "{events:?} are not behind it");
                Unknown
            }
            (None, log) => {
                let (from, log) = log.expect("it comes back to a log");
                assert_eq!(from, id);
                match id.offset >= log.offset {
                    true => Events(events),
                    false => Asked(log.offset, events),
                }
            }
        }
    }
}

#[test]
fn a_client_goes_on_behind_its_event_where_the_history_has_what_follows() {
    let node = node(History::new(100));
    assert_eq!(node.take(11, 10, 1), Accepted::Delivered(1));
    assert_eq!(node.take(13, 11, 2), Accepted::Delivered(1));
    assert_eq!(node.take(14, 13, 3), Accepted::Delivered(1));
    assert_eq!(node.back(place(10)), Events(vec![1, 2, 3]));
    let sent = node.sent();
    for (index, (number, id)) in sent.iter().enumerate() {
        let after = sent[index + 1..].iter().map(|event| event.0).collect();
        assert_eq!(node.back(*id), Events(after), "behind {number}");
    }
    assert_eq!(node.back(place(12)), Events(vec![2, 3]), "of another user");
    assert_eq!(sent[1].1, place(13));
}

#[test]
fn a_client_that_is_ahead_of_the_channel_gets_what_comes() {
    let node = node(History::new(100));
    node.append(1, 1);
    assert_eq!(node.back(place(12)), Events(vec![]));
    let other = Position {
        epoch: EPOCH + 1,
        ..place(11)
    };
    assert_eq!(node.back(other), Unknown);
}

#[test]
fn the_engine_is_asked_for_what_the_channel_has_dropped() {
    let node = node(History::new(2));
    let ids = [1, 2, 3, 4].map(|number| node.append(number, 1));
    assert_eq!(node.back(ids[0]), Asked(14, vec![]), "2 is gone");
    assert_eq!(node.back(ids[1]), Events(vec![3, 4]), "nothing is");
    assert_eq!(node.back(ids[2]), Events(vec![4]));
    assert_eq!(node.back(place(3)), Asked(14, vec![]), "from before it");
}

#[test]
fn the_engine_is_asked_for_what_was_never_kept() {
    let too_large = History::new(100).bytes(10);
    let no_room = History::new(100).away_bytes(10);
    for (history, is_away) in [(too_large, false), (no_room, true)] {
        let node = node(history);
        let small = node.append(1, 1);
        let close = || -> Option<()> { panic!("there is room") };
        assert!(!is_away || node.log.linger(|| true, close).is_none());
        let large = node.append(2, 11);
        let last = node.append(3, 1);
        assert_eq!(node.back(small), Asked(13, vec![]));
        assert_eq!(node.back(large), Events(vec![3]));
        assert_eq!(node.back(last), Events(vec![]));
    }
}

#[test]
fn a_gap_is_reported_at_its_place() {
    let node = node(History::new(4));
    let first = node.append(1, 1);
    node.skip(15);
    node.skip(15);
    let second = node.append(2, 1);
    assert_eq!(second, place(16));
    assert_eq!(node.back(first), Events(vec![NOTICE, 2]), "it is said once");
    assert_eq!(node.back(place(13)), Events(vec![NOTICE, 2]), "some of it");
    assert_eq!(node.back(place(15)), Events(vec![2]), "said already");
    node.skip(14);
    assert_eq!(node.at(), 16, "it is here");
}

#[test]
fn the_engines_events_come_in_order_and_once() {
    let node = node(History::new(100));
    assert_eq!(node.at(), 10);
    assert_eq!(node.take(10, 9, 0), Accepted::Duplicate);
    assert_eq!(node.take(12, 11, 2), Accepted::OutOfOrder);
    assert_eq!(node.take(11, 10, 1), Accepted::Delivered(1));
    assert_eq!(node.take(11, 10, 1), Accepted::Duplicate);
    // Of what is behind 11 nothing was lost.
    assert_eq!(node.take(12, 11, 2), Accepted::Delivered(1));
    assert_eq!(node.take(14, 13, 4), Accepted::OutOfOrder);
    node.log.catch_up(place(13));
    assert_eq!(node.at(), 13);
    node.log.catch_up(place(11));
    node.log.catch_up(Position {
        epoch: EPOCH + 1,
        ..place(20)
    });
    assert_eq!(node.at(), 13);
    assert_eq!(node.take(13, 12, 3), Accepted::Duplicate);
    assert_eq!(node.take(14, 13, 4), Accepted::Delivered(1));
}

#[test]
fn a_quiet_channel_moves_on_with_the_log_and_one_that_lacks_something_does_not() {
    let node = node(History::new(2));
    let first = node.append(1, 1);
    assert_eq!(node.log.compare(place(11), 20), Standing::Level);
    assert_eq!(node.at(), 20);
    assert_eq!(
        node.log.compare(place(0), 5),
        Standing::Level,
        "it has aged"
    );
    assert_eq!(node.log.compare(place(21), 30), Standing::Behind);
    assert_eq!(node.at(), 20);
    let other = Position {
        epoch: EPOCH + 1,
        ..place(40)
    };
    assert_eq!(node.log.compare(other, 40), Standing::Elsewhere);
    // Behind the last event is behind everything there is.
    assert_eq!(node.back(first), Events(vec![]));
    assert_eq!(node.take(21, 11, 2), Accepted::Delivered(1));
}

#[test]
fn what_a_slow_stream_has_lost_is_told_with_the_place_behind_it() {
    let node = node(History::new(2));
    for number in 1..=5 {
        node.append(number, 1);
    }
    // Kept are 4 and 5.
    let gone = node.read(1, 6);
    let told = |missed, position| {
        Some(Missed {
            gap: Gap::new(GapReason::Lagged, Some(missed)).at(position),
            told: true,
            in_log: Some(place(13)),
        })
    };
    assert_eq!((gone.missed, gone.until), (told(3, Some(place(13))), 4));
    assert!(gone.events.is_empty());
    let gone = node.read(1, 3);
    let unknown = told(2, None);
    assert_eq!(
        (gone.missed, gone.until),
        (unknown, 3),
        "of places in between nothing is known"
    );
    let there = node.read(4, 6);
    let numbers: Vec<_> = there
        .events
        .iter()
        .map(|(at, event)| (*at, event.0))
        .collect();
    assert_eq!(numbers, [(4, 4), (5, 5)]);
    assert_eq!((there.missed, there.until), (None, 6));
}

#[test]
fn the_log_gives_a_few_events_at_a_time() {
    let node = node(History::new(100));
    for number in 1..=100 {
        node.append(number, 1);
    }
    let some = node.read(7, 101);
    assert_eq!((some.events.len(), some.until), (32, 39));
    let last = node.read(71, 101);
    assert_eq!((last.events.len(), last.until), (30, 101));
}

#[test]
fn a_log_of_the_engine_that_is_another_one_begins_anew() {
    let node = node(History::new(100));
    let before = node.append(1, 1);
    node.follow();
    assert_eq!(node.sent().len(), 1, "it is the same");
    node.epoch.store(EPOCH + 1, Ordering::Relaxed);
    node.follow();
    node.follow();
    assert_eq!(node.sent().len(), 2, "it is told once");
    let (number, id) = node.sent()[1];
    assert_eq!((number, id.epoch, id.offset), (NOTICE, EPOCH + 1, 10));
    assert_eq!(node.back(before), Unknown);
    assert_eq!(node.back(id), Events(vec![]), "told already");
    assert_eq!(node.take(12, 11, 2), Accepted::Elsewhere, "of the old log");
    let next = Position { offset: 11, ..id };
    assert_eq!(node.take_sized(next, 3, 4, 1), Accepted::Delivered(1));
    assert_eq!(node.back(id), Events(vec![4]));
    assert_eq!(node.log.place(), Some(next));
}

#[test]
fn events_shown_ahead_of_the_log_stand_between_two_notices() {
    let node = node(History::new(100));
    node.append(1, 1);
    node.show(2);
    node.show(3);
    assert_eq!(node.take(11, 10, 1), Accepted::Duplicate);
    assert_eq!(node.take(13, 12, 3), Accepted::OutOfOrder);
    assert_eq!(node.numbers(), [1, NOTICE, 2, 3], "it is no one's turn");
    assert_eq!(node.take(12, 11, 2), Accepted::Delivered(1));
    assert_eq!(node.numbers()[4..], [NOTICE, 2]);
    assert_eq!(node.channel.roster().notices(), 2);
}

#[test]
fn a_new_log_is_reported_in_place_of_the_notice_after_what_was_shown_ahead() {
    let node = node(History::new(100));
    node.show(1);
    node.epoch.store(EPOCH + 1, Ordering::Relaxed);
    node.follow();
    let next = Position {
        epoch: EPOCH + 1,
        offset: 11,
    };
    assert_eq!(node.take_sized(next, 10, 2, 1), Accepted::Delivered(1));
    assert_eq!(node.numbers(), [NOTICE, 1, NOTICE, 2]);
}

#[test]
fn a_channel_is_complete_when_the_turn_of_its_end_has_come() {
    let node = node(History::new(100));
    let last = node.append(1, 1);
    assert_eq!(node.complete(13, 12), Accepted::OutOfOrder);
    assert_eq!(node.complete(11, 10), Accepted::Duplicate);
    assert!(!node.log.is_complete());
    assert_eq!(node.complete(13, 11), Accepted::Delivered(0));
    assert_eq!(node.at(), 11, "the offset of the end is shown to nobody");
    assert_eq!(node.back(last), Events(vec![]));
    assert_eq!(node.complete(13, 11), Accepted::Complete);
    assert_eq!(node.take(14, 13, 2), Accepted::Complete);
    assert_eq!(node.log.compare(place(15), 15), Standing::Level);
    assert_eq!(node.back(place(3)), Asked(14, vec![]), "that is the end");
}

#[test]
fn a_client_past_the_last_event_of_a_complete_channel_is_not_sent_to_the_log() {
    let node = node(History::new(100));
    for last in [9, 7, 8] {
        assert_eq!(node.log.find_end(end(10, last), false), Standing::Level);
    }
    assert!(node.log.is_complete());
    assert_eq!(node.at(), 7);
    assert_eq!(node.back(place(7)), Events(vec![]));
    assert_eq!(node.back(place(6)), Asked(10, vec![]));
}

#[test]
fn an_end_that_a_stream_has_read_waits_for_what_comes_before_it() {
    let node = node(History::new(100));
    assert_eq!(node.log.find_end(end(13, 12), false), Standing::Behind);
    assert!(!node.log.is_complete());
    node.append(1, 1);
    // It ended before the channel was opened, and goes on.
    assert_eq!(node.log.find_end(end(10, 9), false), Standing::Level);
    assert!(!node.log.is_complete());
    // A repair has given up at the end.
    node.log.catch_up(place(13));
    assert_eq!(node.log.find_end(end(13, 12), false), Standing::Level);
    assert!(node.log.is_complete());
}
