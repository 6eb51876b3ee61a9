//! `channel/connection.rs` and `subscription/guard.rs`: a connection is ended from outside, and leaves once.

use std::task::Poll;

use loom::thread;
use tokio::time::Instant;

use super::support::*;
use crate::subscription::Subscription;

/// Is a connection that is unregistered while its stream is dropped given back once?
///
/// Fails: leave_does_not_ask_who_removed_it, unregister_does_not_end, detach_without_looking.
#[test]
fn unregister_meets_drop() {
    model(90, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(one));
        unregister(&hub, "u", "a");
        leaver.join().unwrap();
        assert_empty(&hub);
    });
}

/// The same with a second connection, which must not notice.
///
/// Fails: leave_does_not_ask_who_removed_it, unregister_does_not_end, detach_without_looking.
#[test]
fn unregister_meets_drop_beside_another() {
    model(60, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let two = register(&hub, "u", "b");
        let leaver = thread::spawn(move || drop(one));
        unregister(&hub, "u", "a");
        leaver.join().unwrap();
        assert_eq!((hub.users.len(), hub.total(), count(&hub, "u")), (1, 1, 1));
        assert_eq!(publish(&hub, "u", 1), 1);
        drop(two);
        assert_empty(&hub);
    });
}

/// Has one of two calls that end a connection ended it?
///
/// Fails: leave_does_not_ask_who_removed_it, unregister_does_not_end, detach_without_looking.
#[test]
fn unregister_meets_unregister() {
    model(100, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let other = {
            let hub = hub.clone();
            thread::spawn(move || unregister(&hub, "u", "a"))
        };
        let here = unregister(&hub, "u", "a");
        assert!(here != other.join().unwrap(), "one of the two");
        assert_eq!(hub.total(), 0);
        drop(one);
        assert_empty(&hub);
    });
}

/// Is a stream that waits woken when it is ended? It may be about to wait, too.
///
/// Fails: end_does_not_wake, a_waker_is_not_kept, leave_does_not_ask_who_removed_it.
#[test]
fn unregister_meets_a_waiting_stream() {
    model(150, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let waiter = thread::spawn(move || assert_eq!(wait(&mut one), None));
        // Who takes it out is open: the stream may see its end and drop before this call comes to it.
        unregister(&hub, "u", "a");
        waiter.join().unwrap();
        assert_empty(&hub);
    });
}

/// Polls a stream until it has an event, then waits for its socket alone, as a server does. Returns when the stream is over.
fn wait_for_the_socket(mut stream: Subscription<u32>) {
    let end = stream.guard().stream_handle();
    let mut is_full = false;
    loom::future::block_on(std::future::poll_fn(|cx| {
        is_full = is_full || poll(&mut stream, cx).is_ready();
        end.watch(cx);
        match end.is_over(Instant::now()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }));
}

/// Is the task of a stream woken also if the stream had an event for it, so that it now waits for its socket? It then
/// sees that the stream is over.
///
/// Fails: a_cut_does_not_wake_who_waits_for_the_client, a_cut_wakes_before_it_says_so, unregister_does_not_end.
#[test]
fn unregister_meets_a_stream_that_waits_for_its_socket() {
    model(150, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let task = thread::spawn(move || wait_for_the_socket(one));
        unregister(&hub, "u", "a");
        task.join().unwrap();
        assert_empty(&hub);
    });
}

/// The same after the stream was asked to end: the task that learned of that may wait for its socket still, and not poll
/// the stream again.
///
/// Fails: a_cut_does_not_wake_who_waits_for_the_client.
#[test]
fn cut_meets_a_stream_that_finishes_and_waits_for_its_socket() {
    model(150, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let task = thread::spawn(move || wait_for_the_socket(one));
        finish_all(&hub);
        hub.disconnect("u");
        task.join().unwrap();
        assert_empty(&hub);
    });
}

/// The call that ends a connection finds it as soon as it is counted, before the call that registers it is done.
///
/// Fails: a_connection_that_has_ended_before_it_reads_keeps_its_feed, unregister_does_not_end, detach_without_looking.
#[test]
fn unregister_meets_join() {
    model(15, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "b"))
        };
        let ended = unregister(&hub, "u", "b");
        let mut two = newcomer.join().unwrap();
        let inside = 2 - usize::from(ended);
        assert_eq!(publish(&hub, "u", 1), inside);
        let read = read(&mut two);
        assert_eq!((read.ended, read.events.is_empty()), (ended, ended));
        assert_eq!(hub.total(), inside);
        drop((one, two));
        assert_empty(&hub);
    });
}

/// An ended connection holds no events: the ring lets go of them although nobody polls or drops the stream.
///
/// Fails: end_keeps_the_feed, leave_does_not_ask_who_removed_it, unregister_does_not_end.
#[test]
fn an_ended_connection_is_not_reached() {
    model(8, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let two = register(&hub, "u", "b");
        let ender = {
            let hub = hub.clone();
            thread::spawn(move || {
                assert!(unregister(&hub, "u", "a"));
                assert_eq!(publish(&hub, "u", 2), 1, "only the other one is reached");
            })
        };
        assert!((1..=2).contains(&publish(&hub, "u", 1)));
        ender.join().unwrap();
        drop((one, two));
        assert_empty(&hub);
    });
}

/// The same if it was just being polled, and its stream is kept and never polled again.
///
/// Fails: the_end_is_loaded_after_a_poll, the_end_is_not_looked_for_after_a_poll.
#[test]
fn a_stream_ended_while_it_polls_holds_no_events() {
    model(10, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let two = register(&hub, "u", "b");
        let ender = {
            let hub = hub.clone();
            thread::spawn(move || assert!(unregister(&hub, "u", "a")))
        };
        let _ = poll_once(&mut one);
        ender.join().unwrap();
        assert_eq!(publish(&hub, "u", 1), 1, "only the other one is reached");
        drop((one, two));
        assert_empty(&hub);
    });
}

/// The same if it was just asked where it is.
///
/// Fails: the_end_is_not_looked_for_after_a_look_at_the_place.
#[test]
fn a_stream_ended_while_it_says_where_it_is_holds_no_events() {
    model(5, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        let two = register(&hub, "u", "b");
        let ender = {
            let hub = hub.clone();
            thread::spawn(move || assert!(unregister(&hub, "u", "a")))
        };
        let _ = one.place();
        ender.join().unwrap();
        assert_eq!(publish(&hub, "u", 1), 1, "only the other one is reached");
        drop((one, two));
        assert_forgotten(&hub);
    });
}

/// Does a stream that was just asked where it is end, when it is asked to end meanwhile?
///
/// Fails: finish_does_not_wake.
#[test]
fn finish_meets_a_stream_that_says_where_it_is() {
    model(5, || {
        let hub = hub_with(remembering(8));
        let mut one = register(&hub, "u", "a");
        let waiter = thread::spawn(move || {
            let _ = one.place();
            assert_eq!(wait(&mut one), None);
        });
        hub.drain("u");
        waiter.join().unwrap();
        assert_forgotten(&hub);
    });
}

/// A connection of the same id may come as soon as the first has left; the first one's own end must not harm it.
///
/// Fails: removal_of_a_namesake, the_count_goes_before_the_feed, leave_does_not_ask_who_removed_it.
#[test]
fn a_late_leave_meets_a_namesake() {
    model(150, || {
        let hub = hub();
        let keeper = register(&hub, "u", "z");
        let one = register(&hub, "u", "a");
        let ender = {
            let hub = hub.clone();
            thread::spawn(move || {
                unregister(&hub, "u", "a");
                try_register(&hub, "u", "a")
            })
        };
        drop(one);
        let mut namesake = ender
            .join()
            .unwrap()
            .expect("the id is free once unregister returned");
        assert_eq!(count(&hub, "u"), 2);
        assert_eq!(publish(&hub, "u", 1), 2);
        assert_eq!(read(&mut namesake).events, [1]);
        drop((keeper, namesake));
        assert_empty(&hub);
    });
}
