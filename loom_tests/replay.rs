//! `channel/log.rs`: a stream that comes back continues where it was, and the log of a user who is away is there once.

use std::sync::Arc;

use loom::thread;

use super::support::*;
use crate::channel::{History, Resume};
use crate::gap::GapReason;
use crate::id::LastEventId;
use crate::position::Position;
use crate::registry::Limits;
use crate::subscription::Subscription;

/// Behind the event of this offset.
pub(super) fn after(stream: &Subscription<u32>, offset: u64) -> Resume {
    let cursor = stream.cursor().expect("there is a history");
    let epoch = LastEventId::new(&cursor).position().expect("an id").epoch;
    Resume::After(Position { epoch, offset })
}

/// Does a stream that comes back while something is broadcast get all that it missed and all that comes, once, in order?
///
/// Fails: the_receiver_is_taken_before_the_backlog_is_cut, the_receiver_is_taken_after_the_backlog_is_cut, the_event_is_sent_after_the_lock.
#[test]
fn resume_meets_broadcast() {
    model(15, || {
        let hub = hub_with(remembering(8));
        let keeper = register(&hub, "u", "a");
        let from = after(&keeper, 0);
        publish(&hub, "u", 1);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                publish(&hub, "u", 2);
            })
        };
        let mut back = resume(&hub, "u", "b", from);
        let before = read(&mut back);
        sender.join().unwrap();
        let then = read(&mut back);
        assert_eq!([before.events, then.events].concat(), [1, 2]);
        assert_eq!(before.missed + then.missed, 0);
        drop((keeper, back));
        assert_forgotten(&hub);
    });
}

/// Two streams come back to the history of a user who is away: does each get what it missed and what comes, and is the user's room
/// given back once?
///
/// Fails: each_stream_that_comes_back_gives_back_the_room.
#[test]
fn resume_meets_resume() {
    model(400, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        let from = after(&one, 0);
        publish(&hub, "u", 1);
        drop(one);
        assert_eq!(hub.retention().away(), 1);
        let other = {
            let hub = hub.clone();
            thread::spawn(move || resume(&hub, "u", "b", from))
        };
        let mut one = resume(&hub, "u", "c", from);
        let mut two = other.join().unwrap();
        let retention = hub.retention();
        assert_eq!((retention.away(), retention.kept_for_away()), (0, 0));
        assert_eq!(publish(&hub, "u", 2), 2);
        assert_eq!(read(&mut one).events, [1, 2]);
        assert_eq!(read(&mut two).events, [1, 2]);
        drop((one, two));
        assert_forgotten(&hub);
    });
}

/// Two streams come, without an id, to events that were kept for a user who never had a connection: does one of them, and only
/// one, begin with these?
///
/// Fails: each_stream_that_comes_back_gives_back_the_room.
#[test]
fn register_meets_register_where_events_wait() {
    model(400, || {
        let history = History::new(8).keep_for_unconnected();
        let hub = hub_with(Limits {
            history: Some(history),
            ..limits()
        });
        publish(&hub, "u", 1);
        let other = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "a"))
        };
        let mut one = register(&hub, "u", "b");
        let mut two = other.join().unwrap();
        assert_eq!(hub.retention().away(), 0);
        let got = [read(&mut one).events, read(&mut two).events];
        assert_eq!(got.concat(), [1], "one of the two");
        drop((one, two));
        assert_forgotten(&hub);
    });
}

/// Two broadcast at once: do those who were there and those who come back see one and the same order?
///
/// Fails: the_event_is_sent_after_the_lock.
#[test]
fn broadcast_meets_broadcast() {
    model(8, || {
        let hub = hub_with(remembering(8));
        let mut one = register(&hub, "u", "a");
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                publish(&hub, "u", 1);
            })
        };
        publish(&hub, "u", 2);
        sender.join().unwrap();
        let live = read(&mut one).events;
        let mut back = resume(&hub, "u", "b", after(&one, 0));
        assert_eq!(read(&mut back).events, live);
        assert_eq!(live.len(), 2);
        drop((one, back));
        assert_forgotten(&hub);
    });
}

/// A stream that lags while it reads: the history has what the ring has lost.
///
/// Fails: lag_is_not_healed, the_ring_goes_on_before_the_log_is_read.
#[test]
fn lag_is_healed_while_broadcasts_go_on() {
    model(16, || {
        let hub = hub_with(Limits {
            capacity: 1,
            ..remembering(8)
        });
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        publish(&hub, "u", 2);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                publish(&hub, "u", 3);
                publish(&hub, "u", 4);
            })
        };
        let before = read(&mut one);
        sender.join().unwrap();
        let then = read(&mut one);
        assert_eq!([before.events, then.events].concat(), [1, 2, 3, 4]);
        assert_eq!((one.guard().lagged(), before.missed + then.missed), (0, 0));
        drop(one);
        assert_forgotten(&hub);
    });
}

/// The history is forgotten just when its user comes back: what was missed is either there, or said to be missing.
///
/// Fails: a_deserted_channel_is_closed_whoever_came, a_closed_log_keeps_its_room.
#[test]
fn resume_meets_the_end_of_the_linger() {
    model(70, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        let from = after(&one, 0);
        publish(&hub, "u", 1);
        drop(one);
        let sweeper = {
            let hub = hub.clone();
            thread::spawn(move || sweep(&hub))
        };
        let mut back = resume(&hub, "u", "b", from);
        sweeper.join().unwrap();
        assert_eq!(hub.retention().away(), 0, "who is in is not away");
        assert_eq!(publish(&hub, "u", 2), 1, "who is in is reached");
        let read = read(&mut back);
        match read.gaps.first() {
            None => assert_eq!(read.events, [1, 2]),
            Some(gap) => {
                assert_eq!((gap.reason, gap.missed), (GapReason::Epoch, None));
                assert_eq!(read.events, [2]);
            }
        }
        drop(back);
        assert_forgotten(&hub);
    });
}

/// One leaves while the next comes: is the user away if nobody is in, and only then?
///
/// Fails: a_user_is_away_whoever_is_in, who_comes_back_stays_away.
#[test]
fn the_last_drop_meets_resume() {
    model(100, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let from = after(&one, 0);
        let leaver = thread::spawn(move || drop(one));
        let mut back = resume(&hub, "u", "b", from);
        leaver.join().unwrap();
        assert_eq!(hub.retention().away(), 0, "who is in is not away");
        assert_eq!(read(&mut back).events, [1]);
        drop(back);
        assert_eq!((hub.retention().away(), hub.total()), (1, 0));
        assert_forgotten(&hub);
    });
}

/// One leaves while another comes and goes, so that both find nobody left: is the room for one who is away taken once?
///
/// Fails: a_user_is_away_twice.
#[test]
fn the_last_drop_meets_a_life() {
    model(200, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(one));
        drop(register(&hub, "u", "b"));
        leaver.join().unwrap();
        assert_eq!((hub.retention().away(), hub.total()), (1, 0));
        assert_forgotten(&hub);
    });
}

/// There is room for nobody who is away: is the channel closed, and only if nobody is in?
///
/// Fails: a_deserted_channel_is_closed_whoever_came, a_channel_without_room_stays.
#[test]
fn a_drop_without_room_meets_register() {
    model(230, || {
        let limits = limits();
        let history = History::new(8).away_users(0);
        let hub = hub_with(Limits {
            history: Some(history),
            ..limits
        });
        let one = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(one));
        let mut two = register(&hub, "u", "b");
        leaver.join().unwrap();
        assert_eq!(publish(&hub, "u", 1), 1, "who is in is reached");
        assert_eq!(read(&mut two).events, [1]);
        drop(two);
        assert_empty(&hub);
    });
}

/// Something is broadcast to a user who was never there, while two of that come: the event is kept, or nobody was told
/// that it was sent; and the room is taken once.
///
/// Fails: room_for_the_unconnected_is_not_given_back, an_open_channel_is_replaced.
#[test]
fn keeping_for_the_unconnected_meets_register() {
    model(60, || {
        let history = History::new(8).keep_for_unconnected();
        let hub = hub_with(Limits {
            history: Some(history),
            ..limits()
        });
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 1))
        };
        let mut one = register(&hub, "u", "a");
        let reached = sender.join().unwrap();
        assert_eq!(publish(&hub, "u", 2), 1);
        assert!(reached <= 1);
        assert_eq!(read(&mut one).events, [1, 2], "kept, or sent");
        assert_eq!(hub.retention().away(), 0);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// Two broadcasts to a user who was never there.
///
/// Fails: room_for_the_unconnected_is_not_given_back, an_open_channel_is_replaced.
#[test]
fn keeping_meets_keeping() {
    model(280, || {
        let history = History::new(8).keep_for_unconnected();
        let hub = hub_with(Limits {
            history: Some(history),
            ..limits()
        });
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 1))
        };
        publish(&hub, "u", 2);
        sender.join().unwrap();
        assert_eq!(hub.retention().away(), 1);
        let mut one = register(&hub, "u", "a");
        assert_eq!(read(&mut one).events.len(), 2);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// A user is forgotten while away, and swept at the same time.
///
/// Fails: a_closed_log_keeps_its_room.
#[test]
fn forget_meets_sweep() {
    model(70, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        drop(one);
        let other = {
            let hub = Arc::clone(&hub);
            thread::spawn(move || hub.forget("u"))
        };
        sweep(&hub);
        other.join().unwrap();
        assert_empty(&hub);
        assert_eq!(hub.retention().away(), 0);
        assert_eq!(hub.retention().kept_for_away(), 0);
    });
}
