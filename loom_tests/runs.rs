//! `channel/completion.rs`, and holds: a channel that is complete ends its streams behind the last event, whoever comes when, and
//! a channel that is held is there.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;
use tokio::time::Instant;

use super::support::*;
use super::teardown::read_to_end;
use crate::channel::{Accepted, History, Label, Origin, Resume};
use crate::end::EndReason;
use crate::registry::Limits;
use crate::subscription::{Hold, Subscription};

/// Whose history lingers until it is swept; for an hour if it is complete.
fn hub_of_runs() -> Hub {
    let history = History::new(8).linger(Duration::from_millis(1));
    hub_with(Limits {
        history: Some(history.linger_completed(Duration::from_secs(3600))),
        ..limits()
    })
}

fn complete(hub: &Hub) -> Accepted {
    hub.complete("u").expect("there is room")
}

fn is_complete(hub: &Hub) -> bool {
    let is_complete = hub.with("u", |channel| channel.roster().is_complete());
    is_complete.unwrap_or(false)
}

fn try_publish(hub: &Hub, event: u32) -> Accepted {
    let append = |channel: &crate::channel::Channel<u32>| {
        channel.append(Origin::Here, Label::event(1, None), |_| event)
    };
    hub.with("u", append).expect("there is a channel")
}

fn hold(hub: &Hub) -> Hold<u32> {
    Hold::take(hub, &"u".into()).expect("there is room")
}

/// It has ended, and why.
fn assert_completed(stream: &Subscription<u32>, read: &Read) {
    assert!(read.ended, "nothing comes any more");
    assert_eq!(stream.end_reason(), Some(EndReason::Completed));
}

/// Nobody is connected: nothing may be left behind once the hour is over.
fn assert_over(hub: &Hub) {
    hub.sweep(Instant::now() + Duration::from_secs(7200));
    assert_empty(hub);
    let retention = hub.retention();
    assert_eq!((retention.away(), retention.kept_for_away()), (0, 0));
}

/// Is an event either in front of the end, for every stream, or refused?
///
/// Fails: a_complete_channel_takes_events, whoever_completes_tells_nobody.
#[test]
fn complete_meets_broadcast() {
    model(8, || {
        let hub = hub_of_runs();
        let mut one = register(&hub, "u", "a");
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || try_publish(&hub, 1))
        };
        complete(&hub);
        let before = read(&mut one);
        let accepted = sender.join().unwrap();
        assert_completed(&one, &before);
        match accepted {
            Accepted::Delivered(reached) => assert_eq!((reached, before.events), (1, vec![1])),
            refused => assert_eq!((refused, before.events), (Accepted::Complete, vec![])),
        }
        assert_eq!(try_publish(&hub, 2), Accepted::Complete);
        drop(one);
        assert_over(&hub);
    });
}

/// Does a stream that waits read what came before the end, and is it woken for that?
///
/// Fails: whoever_completes_tells_nobody, finish_does_not_wake.
#[test]
fn complete_meets_a_reading_stream() {
    model(400, || {
        let hub = hub_of_runs();
        let mut one = register(&hub, "u", "a");
        let reader = thread::spawn(move || {
            assert_eq!(wait(&mut one), Some(Ok(1)));
            assert_eq!(wait(&mut one), None);
        });
        publish(&hub, "u", 1);
        complete(&hub);
        reader.join().unwrap();
        assert_over(&hub);
    });
}

/// Does a stream that begins while its channel is completed get all that is kept, and end?
///
/// Fails: a_newcomer_does_not_ask_for_the_end, a_newcomer_asks_too_early, who_has_not_begun_is_told_of_the_end.
#[test]
fn complete_meets_resume() {
    model(50, || {
        let hub = hub_of_runs();
        let held = hold(&hub);
        publish(&hub, "u", 1);
        let completer = {
            let hub = hub.clone();
            thread::spawn(move || complete(&hub))
        };
        let mut late = resume(&hub, "u", "a", Resume::Start);
        completer.join().unwrap();
        let read = read(&mut late);
        assert_completed(&late, &read);
        assert_eq!((read.events, read.gaps.len()), (vec![1], 0));
        drop((held, late));
        assert_over(&hub);
    });
}

/// The same for one who does not come back: it gets what comes, or, of a channel that is complete, everything.
///
/// Fails: a_newcomer_does_not_ask_for_the_end.
#[test]
fn complete_meets_register() {
    model(50, || {
        let hub = hub_of_runs();
        let held = hold(&hub);
        publish(&hub, "u", 1);
        let completer = {
            let hub = hub.clone();
            thread::spawn(move || complete(&hub))
        };
        let mut late = register(&hub, "u", "a");
        completer.join().unwrap();
        let read = read(&mut late);
        assert_completed(&late, &read);
        assert!(read.events.is_empty() || read.events == [1]);
        drop((held, late));
        assert_over(&hub);
    });
}

/// A stream is cut while its channel is completed: it has ended, and its place is given back once.
///
/// Fails: disconnect_gives_the_places_back.
#[test]
fn complete_meets_disconnect() {
    model(300, || {
        let hub = hub_of_runs();
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let other = {
            let hub = hub.clone();
            thread::spawn(move || hub.disconnect("u"))
        };
        complete(&hub);
        assert_eq!(other.join().unwrap(), 1);
        assert!(read(&mut one).ended);
        assert!(is_complete(&hub));
        let mut late = resume(&hub, "u", "b", Resume::Start);
        let read = read(&mut late);
        assert_completed(&late, &read);
        assert_eq!(read.events, [1]);
        drop((one, late));
        assert_over(&hub);
    });
}

/// The history of a user who is away is forgotten just when the channel is completed: is the end remembered?
///
/// Fails: the_linger_is_asked_before_the_lock, a_closed_channel_is_completed.
#[test]
fn complete_meets_sweep() {
    model(30, || {
        let hub = hub_of_runs();
        drop(register(&hub, "u", "a"));
        let sweeper = {
            let hub = hub.clone();
            thread::spawn(move || sweep(&hub))
        };
        complete(&hub);
        sweeper.join().unwrap();
        assert!(is_complete(&hub));
        let mut late = register(&hub, "u", "b");
        let read = read(&mut late);
        assert_completed(&late, &read);
        drop(late);
        assert_over(&hub);
    });
}

/// The channel is forgotten while it is completed: its stream ends, and nothing is left behind.
///
/// Fails: a_closed_log_keeps_its_room.
#[test]
fn complete_meets_forget() {
    model(200, || {
        let hub = hub_of_runs();
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let other = {
            let hub = Arc::clone(&hub);
            thread::spawn(move || hub.forget("u"))
        };
        complete(&hub);
        other.join().unwrap();
        let read = read(&mut one);
        assert_eq!((read.events, read.ended), (vec![1], true));
        drop(one);
        assert_over(&hub);
    });
}

/// Two complete the same channel.
#[test]
fn complete_meets_complete() {
    model(200, || {
        let hub = hub_of_runs();
        let other = {
            let hub = hub.clone();
            thread::spawn(move || complete(&hub))
        };
        let both = [complete(&hub), other.join().unwrap()];
        assert!(both.contains(&Accepted::Delivered(0)) && both.contains(&Accepted::Complete));
        assert_eq!(hub.retention().away(), 1);
        assert_over(&hub);
    });
}

/// A hub that keeps the history of a channel without connections only if the channel is complete.
fn hub_that_keeps_complete_channels() -> Hub {
    let history = History::new(8).linger(Duration::ZERO);
    hub_with(Limits {
        history: Some(history.linger_completed(Duration::from_secs(3600))),
        ..limits()
    })
}

/// The channel is complete, whoever closed it meanwhile: a client that comes late gets the end.
fn assert_remembered(hub: &Hub) {
    assert!(is_complete(hub), "the end is remembered");
    let mut late = resume(hub, "u", "late", Resume::Start);
    let read = read(&mut late);
    assert_completed(&late, &read);
    drop(late);
    assert_over(hub);
}

/// The last stream leaves, and its history does not linger unless it is complete, just when the channel is completed: is the end
/// remembered?
///
/// Fails: a_deserted_channel_is_closed_after_the_lock.
#[test]
fn complete_meets_the_last_drop() {
    model(350, || {
        let hub = hub_that_keeps_complete_channels();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let leaver = thread::spawn(move || drop(one));
        complete(&hub);
        leaver.join().unwrap();
        assert_remembered(&hub);
    });
}

/// The same where the last hold is released.
///
/// Fails: a_deserted_channel_is_closed_after_the_lock.
#[test]
fn complete_meets_release() {
    model(40, || {
        let hub = hub_that_keeps_complete_channels();
        let held = hold(&hub);
        publish(&hub, "u", 1);
        let holder = thread::spawn(move || drop(held));
        complete(&hub);
        holder.join().unwrap();
        assert_remembered(&hub);
    });
}

/// The same where the user is disconnected.
///
/// Fails: whether_a_history_lingers_is_asked_before_the_close.
#[test]
fn complete_meets_disconnect_where_nothing_lingers() {
    model(250, || {
        let hub = hub_that_keeps_complete_channels();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let other = {
            let hub = hub.clone();
            thread::spawn(move || hub.disconnect("u"))
        };
        complete(&hub);
        assert_eq!(other.join().unwrap(), 1);
        drop(one);
        assert_remembered(&hub);
    });
}

/// A drain replaces the ring while `complete` asks the streams to finish: does the stream read all and end, and does one that
/// comes later get all and the end?
#[test]
fn complete_meets_drain() {
    model(400, || {
        let hub = hub_of_runs();
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let drainer = {
            let hub = hub.clone();
            thread::spawn(move || hub.drain("u"))
        };
        complete(&hub);
        assert_eq!(read_to_end(&mut one), [1]);
        assert_eq!(drainer.join().unwrap(), 1);
        let reason = one.end_reason().expect("a stream ends for a reason");
        assert!([EndReason::Drained, EndReason::Completed].contains(&reason));
        let mut late = resume(&hub, "u", "b", Resume::Start);
        let read = read(&mut late);
        assert_completed(&late, &read);
        assert_eq!(read.events, [1]);
        drop((one, late));
        assert_over(&hub);
    });
}

/// A drain replaces the state of the roster when a hold is added to it: does the hold keep the channel after the last connection
/// has left?
///
/// Fails: a_drain_forgets_the_holds, store_instead_of_exchange_in_drain.
#[test]
fn drain_meets_hold() {
    model(20, || {
        let hub = hub_of_runs();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let drainer = {
            let hub = hub.clone();
            thread::spawn(move || hub.drain("u"))
        };
        let held = hold(&hub);
        assert_eq!(drainer.join().unwrap(), 1);
        drop(one);
        sweep(&hub);
        assert_eq!(hub.retention().away(), 1, "one place for the hold");
        let mut late = resume(&hub, "u", "b", Resume::Start);
        assert_eq!(read(&mut late).events, [1]);
        drop((held, late));
        assert_over(&hub);
    });
}

/// The channel is closed when somebody takes a hold: the hold is of the closed channel, which keeps nothing, or of a new one,
/// which keeps what comes. In either case its place is given back.
///
/// Fails: a_hold_of_a_closed_channel_keeps_its_place.
#[test]
fn forget_meets_hold() {
    model(45, || {
        let hub = hub_of_runs();
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let other = {
            let hub = hub.clone();
            thread::spawn(move || hub.forget("u"))
        };
        let held = hold(&hub);
        assert_eq!(other.join().unwrap(), 1);
        let is_new = hub.has("u");
        publish(&hub, "u", 2);
        let first = read(&mut one);
        assert_eq!((first.events, first.ended), (vec![1], true));
        assert_eq!(hub.retention().away(), 1, "one place for the hold");
        let mut late = resume(&hub, "u", "b", Resume::Start);
        let expected: &[u32] = if is_new { &[2] } else { &[] };
        assert_eq!(read(&mut late).events, expected);
        drop((one, held, late));
        assert_over(&hub);
    });
}

/// Two take a hold of a user who has no channel: are both of one channel, and does that stay until both are over?
///
/// Fails: a_second_hold_is_not_counted.
#[test]
fn hold_meets_hold() {
    model(80, || {
        let hub = hub_of_runs();
        let other = {
            let hub = hub.clone();
            thread::spawn(move || hold(&hub))
        };
        let held = hold(&hub);
        let second = other.join().unwrap();
        assert_eq!((hub.users.len(), hub.retention().away()), (1, 2));
        publish(&hub, "u", 1);
        drop(held);
        sweep(&hub);
        let mut late = resume(&hub, "u", "b", Resume::Start);
        assert_eq!(read(&mut late).events, [1]);
        drop((second, late));
        assert_over(&hub);
    });
}

/// A stream and a hold come to a user who has no channel: are both of one channel?
///
/// Fails: no_retry_after_a_lost_insert.
#[test]
fn hold_meets_register() {
    model(25, || {
        let hub = hub_of_runs();
        let other = {
            let hub = hub.clone();
            thread::spawn(move || hold(&hub))
        };
        let mut one = register(&hub, "u", "a");
        let held = other.join().unwrap();
        assert_eq!((hub.users.len(), hub.retention().away()), (1, 1));
        assert_eq!(publish(&hub, "u", 1), 1);
        assert_eq!(read(&mut one).events, [1]);
        drop(one);
        sweep(&hub);
        let mut late = resume(&hub, "u", "b", Resume::Start);
        assert_eq!(read(&mut late).events, [1]);
        drop((held, late));
        assert_over(&hub);
    });
}

/// The last connection leaves, or the history has lingered, just when somebody holds it: what comes is kept.
///
/// Fails: a_hold_is_not_in, store_instead_of_exchange_in_hold.
#[test]
fn hold_meets_the_last_drop() {
    model(500, || {
        let hub = hub_of_runs();
        let one = register(&hub, "u", "a");
        let leaver = {
            let hub = hub.clone();
            thread::spawn(move || {
                drop(one);
                sweep(&hub);
            })
        };
        let held = hold(&hub);
        publish(&hub, "u", 1);
        leaver.join().unwrap();
        sweep(&hub);
        assert_eq!(hub.retention().away(), 1, "one place for the hold");
        let mut late = resume(&hub, "u", "b", Resume::Start);
        assert_eq!(read(&mut late).events, [1]);
        drop((held, late));
        assert_over(&hub);
    });
}

/// A user is disconnected just when somebody holds the channel: it is there afterwards, with what was broadcast.
///
/// Fails: a_disconnect_closes_what_is_held.
#[test]
fn hold_meets_disconnect() {
    model(50, || {
        let history = History::new(8).linger(Duration::ZERO);
        let hub = hub_with(Limits {
            history: Some(history.linger_completed(Duration::ZERO)),
            ..limits()
        });
        let one = register(&hub, "u", "a");
        let other = {
            let hub = hub.clone();
            thread::spawn(move || hub.disconnect("u"))
        };
        let held = hold(&hub);
        publish(&hub, "u", 1);
        assert_eq!(other.join().unwrap(), 1);
        let mut late = resume(&hub, "u", "b", Resume::Start);
        assert_eq!(read(&mut late).events, [1]);
        drop((one, held, late));
        assert_empty(&hub);
        assert_eq!(hub.retention().away(), 0);
    });
}

/// A hold ends while somebody comes: who is in is reached, and the channel is closed if nobody is.
///
/// Fails: a_deserted_channel_is_closed_whoever_came, a_released_channel_stays.
#[test]
fn release_meets_register() {
    model(100, || {
        let history = History::new(8).away_users(1);
        let hub = hub_with(Limits {
            history: Some(history.linger(Duration::ZERO)),
            ..limits()
        });
        let held = hold(&hub);
        let holder = thread::spawn(move || drop(held));
        let mut one = register(&hub, "u", "a");
        holder.join().unwrap();
        assert_eq!(publish(&hub, "u", 1), 1, "who is in is reached");
        assert_eq!(read(&mut one).events, [1]);
        drop(one);
        assert_empty(&hub);
        assert_eq!(hub.retention().away(), 0);
    });
}
