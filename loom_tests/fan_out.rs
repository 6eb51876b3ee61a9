//! A broadcast among those who come and go: whoever is in is reached, whoever is counted as reached gets the event or is
//! told that it was lost.

use loom::thread;

use super::support::*;
use crate::registry::Limits;

/// Does an event that comes while the first connection of its user registers reach it just if it was counted?
///
/// Fails: a_relaxed_load_of_the_map, an_exchange_without_release, no_unlink.
#[test]
fn broadcast_meets_register() {
    model(6, || {
        let hub = hub();
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "a"))
        };
        let reached = publish(&hub, "u", 1);
        let mut one = newcomer.join().unwrap();
        assert_eq!(
            read(&mut one).events.len(),
            reached,
            "counted as reached is delivered"
        );
        assert_eq!(publish(&hub, "u", 2), 1);
        assert_eq!(read(&mut one).events, [2]);
        drop(one);
        assert_empty(&hub);
    });
}

/// The second connection of a user takes the other path: it joins a channel that others can see.
///
/// Fails: not_subscribed_when_register_returns, no_unlink, the_total_is_given_back_twice.
#[test]
fn broadcast_meets_join() {
    model(11, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || {
                let mut two = register(&hub, "u", "b");
                assert_eq!(publish(&hub, "u", 2), 2, "registered before, so reached");
                assert!(read(&mut two).events.contains(&2));
                two
            })
        };
        let reached = publish(&hub, "u", 1);
        let two = newcomer.join().unwrap();
        let read = read(&mut one);
        assert_eq!((read.events.len(), read.missed), (2, 0));
        assert!((1..=2).contains(&reached));
        drop((one, two));
        assert_empty(&hub);
    });
}

/// Does an event for all users reach each who is there before the call, once, while one user goes and another comes?
///
/// Fails: the_map_is_loaded_for_each_user, a_relaxed_load_of_the_map.
#[test]
fn broadcast_to_all_meets_those_who_come_and_go() {
    model(20, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let leaver = register(&hub, "v", "b");
        let other = {
            let hub = hub.clone();
            thread::spawn(move || {
                drop(leaver);
                let mut two = register(&hub, "w", "c");
                assert_eq!(publish_all(&hub, 2), 2, "all who are there are reached");
                let read = read(&mut two);
                assert_eq!(read.events.iter().filter(|event| **event == 2).count(), 1);
                two
            })
        };
        let reached = publish_all(&hub, 1);
        assert!((1..=3).contains(&reached));
        let two = other.join().unwrap();
        let mut read = read(&mut one);
        read.events.sort_unstable();
        assert_eq!((read.events, read.missed), (vec![1, 2], 0));
        drop((one, two));
        assert_empty(&hub);
    });
}

/// A refusal by the cap must not be counted as somebody reached.
///
/// Fails: subscribed_before_counted, a_refused_registration_keeps_its_place, no_unlink.
#[test]
fn broadcast_meets_refusal() {
    model(3, || {
        let hub = hub_with(Limits {
            per_user: 1,
            ..limits()
        });
        let mut one = register(&hub, "u", "a");
        let refused = {
            let hub = hub.clone();
            thread::spawn(move || assert!(try_register(&hub, "u", "b").is_err()))
        };
        assert_eq!(publish(&hub, "u", 1), 1, "one is in, one is reached");
        refused.join().unwrap();
        assert_eq!(read(&mut one).events, [1]);
        drop(one);
        assert_empty(&hub);
    });
}

/// Is nobody reached once the last one has left, and nothing left behind by an event that came meanwhile?
///
/// Fails: a_relaxed_load_of_the_map, an_exchange_without_release, no_unlink.
#[test]
fn broadcast_meets_last_drop() {
    model(11, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let leaver = {
            let hub = hub.clone();
            thread::spawn(move || {
                drop(one);
                assert_eq!(publish(&hub, "u", 2), 0, "who has left is not reached");
            })
        };
        assert!(publish(&hub, "u", 1) <= 1);
        leaver.join().unwrap();
        assert_empty(&hub);
    });
}

/// A user is forgotten during a broadcast: does the stream read the event exactly if the broadcast counted it, then end?
///
/// Fails: a_forgotten_stream_ends_before_it_has_read.
#[test]
fn broadcast_meets_forget() {
    model(5, || broadcast_and_forget(&hub()));
}

/// The same beside a history, which a stream reads after it has ended.
///
/// Fails: a_forgotten_stream_ends_before_it_has_read.
#[test]
fn broadcast_meets_forget_beside_a_history() {
    model(5, || broadcast_and_forget(&hub_with(remembering(8))));
}

fn broadcast_and_forget(hub: &Hub) {
    let mut one = register(hub, "u", "a");
    assert_eq!(publish(hub, "u", 1), 1);
    let publisher = {
        let hub = hub.clone();
        thread::spawn(move || publish(&hub, "u", 2))
    };
    assert_eq!(hub.forget("u"), 1);
    let reached = publisher.join().unwrap();
    let read = read(&mut one);
    assert!(read.ended);
    let before = if reached == 1 { &[1, 2][..] } else { &[1] };
    assert_eq!(read.events, before, "counted as reached is delivered");
    assert_eq!(publish(hub, "u", 3), 0, "nobody is in");
    drop(one);
    assert_forgotten(hub);
}

/// Does one who stays get every event, whoever else leaves?
///
/// Fails: end_keeps_the_feed, the_count_goes_before_the_feed, not_subscribed_when_register_returns.
#[test]
fn broadcast_meets_drop_of_one_of_two() {
    model(3, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let mut two = register(&hub, "u", "b");
        let leaver = thread::spawn(move || drop(one));
        let alone = count(&hub, "u") == 1;
        let reached = publish(&hub, "u", 1);
        assert!((1..=2).contains(&reached));
        assert!(
            !alone || reached == 1,
            "who is seen to have left is not reached"
        );
        leaver.join().unwrap();
        assert_eq!(publish(&hub, "u", 2), 1);
        assert_eq!(read(&mut two).events, [1, 2]);
        drop(two);
        assert_empty(&hub);
    });
}

/// Is a stream that waits woken by an event?
///
/// Fails: the_waker_is_not_passed_on, a_seat_is_taken_after_the_look, streams_are_woken_before_the_event_is_there.
#[test]
fn broadcast_meets_a_waiting_stream() {
    model(5, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let waiter = thread::spawn(move || assert_eq!(wait(&mut one), Some(Ok(1))));
        assert_eq!(publish(&hub, "u", 1), 1);
        waiter.join().unwrap();
        assert_empty(&hub);
    });
}

/// A stream that reads while more events come than the ring holds: what it gets and what it is told it missed is what
/// was sent, in order, and lag is never taken for the end.
///
/// Fails: lag_ends_the_stream, lag_is_not_told, no_unlink.
#[test]
fn broadcast_meets_a_slow_reader() {
    model(9, || {
        let hub = hub_with(Limits {
            capacity: 1,
            ..limits()
        });
        let mut one = register(&hub, "u", "a");
        let reader = thread::spawn(move || {
            let read = read(&mut one);
            (one, read)
        });
        let reached = publish(&hub, "u", 1) + publish(&hub, "u", 2) + publish(&hub, "u", 3);
        assert_eq!(reached, 3);
        let (mut one, before) = reader.join().unwrap();
        let after = read(&mut one);
        let events = [before.events, after.events].concat();
        assert!(events.is_sorted(), "in order");
        assert_eq!(events.last(), Some(&3), "the newest is never lost");
        assert_eq!(
            events.len() as u64 + before.missed + after.missed,
            3,
            "got or told"
        );
        assert_eq!(one.guard().lagged(), before.missed + after.missed);
        assert!(!before.ended && !after.ended);
        drop(one);
        assert_empty(&hub);
    });
}

/// A stream that lags and is dropped meanwhile.
///
/// Fails: lag_ends_the_stream, lag_is_not_told, not_subscribed_when_register_returns.
#[test]
fn broadcast_meets_a_lagging_stream_that_leaves() {
    model(7, || {
        let hub = hub_with(Limits {
            capacity: 1,
            ..limits()
        });
        let mut one = register(&hub, "u", "a");
        let mut two = register(&hub, "u", "b");
        let leaver = thread::spawn(move || {
            let _ = read(&mut one);
            drop(one);
        });
        publish(&hub, "u", 1);
        publish(&hub, "u", 2);
        leaver.join().unwrap();
        let read = read(&mut two);
        assert_eq!(
            (read.events, read.missed),
            (vec![2], 1),
            "who stays is told its own lag"
        );
        drop(two);
        assert_empty(&hub);
    });
}
