//! How connections are brought to an end from outside: a shutdown, a user that is disconnected, a sweep. Nothing is given
//! back twice, nobody slips in, and what was broadcast before a shutdown is read.

use std::time::Duration;

use loom::thread;
use tokio::time::Instant;

use super::support::*;
use crate::end::EndReason;
use crate::error::RegisterError;
use crate::registry::{Limits, Patience};

/// Does a stream that is asked to end first read what was broadcast before?
///
/// Fails: a_shutdown_cuts_immediately, a_collision_is_taken_for_the_end, finish_does_not_wake.
#[test]
fn finish_meets_a_reading_stream() {
    model(60, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let reader = thread::spawn(move || {
            let first = wait(&mut one);
            assert_eq!(first, Some(Ok(1)), "broadcast before the shutdown");
            assert_eq!(wait(&mut one), None, "and then it ends");
        });
        publish(&hub, "u", 1);
        finish_all(&hub);
        reader.join().unwrap();
        assert_empty(&hub);
    });
}

/// A connection is on its way in when the registry closes and the members are listed: if it comes in, is it asked to end?
///
/// Fails: members_are_listed_before_the_registry_closes, a_registration_does_not_look_once_more, a_registration_looks_too_early.
#[test]
fn finish_meets_register() {
    model(5, || {
        let hub = hub();
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "u", "a"))
        };
        finish_all(&hub);
        match newcomer.join().unwrap() {
            Ok(mut one) => {
                assert_eq!(one.end_reason(), Some(EndReason::Shutdown));
                assert!(read(&mut one).ended);
                assert_eq!(hub.total(), 1, "it is counted until it drops");
                drop(one);
            }
            Err(refused) => assert!(matches!(refused, RegisterError::ShuttingDown { .. })),
        }
        assert_empty(&hub);
    });
}

/// Once the registry is closed and nobody is counted, may somebody still come in?
///
/// Fails: the_registry_is_not_closed.
#[test]
fn shutdown_meets_register() {
    model(19, || {
        let hub = hub();
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "u", "a"))
        };
        hub.close(Duration::ZERO);
        let nobody = hub.total() == 0;
        match newcomer.join().unwrap() {
            Ok(mut subscription) => {
                assert!(
                    !nobody,
                    "whoever comes in was counted when the registry closed"
                );
                assert_eq!(hub.disconnect_all(), 1);
                assert!(read(&mut subscription).ended);
                drop(subscription);
            }
            Err(refused) => assert!(matches!(refused, RegisterError::ShuttingDown { .. })),
        }
        assert!(try_register(&hub, "u", "b").is_err());
        assert_empty(&hub);
    });
}

/// A shutdown over no time cuts while a connection is on its way in, with a place and not yet in the map. May it survive?
///
/// Fails: a_registration_does_not_look_once_more, a_registration_looks_too_early, a_registration_only_loads_whether_it_is_closed.
#[test]
fn disconnect_all_meets_register() {
    model(19, || {
        let hub = hub();
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "u", "a"))
        };
        hub.close(Duration::ZERO);
        hub.disconnect_all();
        match newcomer.join().unwrap() {
            Ok(mut subscription) => assert!(read(&mut subscription).ended, "it survived"),
            Err(refused) => assert!(matches!(refused, RegisterError::ShuttingDown { .. })),
        }
        assert_empty(&hub);
    });
}

/// Does a shutdown that cuts meet a stream that leaves by itself, and is its place given back once?
///
/// Fails: disconnect_gives_the_places_back, a_closed_channel_is_not_unlinked.
#[test]
fn disconnect_all_meets_drop() {
    model(200, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let two = register(&hub, "u", "b");
        let leaver = thread::spawn(move || drop(one));
        let ended = hub.disconnect_all();
        assert!((1..=2).contains(&ended));
        leaver.join().unwrap();
        assert_empty(&hub);
        drop(two);
        assert_empty(&hub);
    });
}

/// The same for a user whose history would linger: is it forgotten, whether the shutdown or the client removes the last connection?
///
/// Fails: a_shutdown_keeps_histories, a_closed_channel_lingers.
#[test]
fn disconnect_all_meets_the_last_drop() {
    model(100, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let leaver = thread::spawn(move || drop(one));
        hub.disconnect_all();
        leaver.join().unwrap();
        assert_empty(&hub);
        let retention = hub.retention();
        assert_eq!((retention.away(), retention.kept_for_away()), (0, 0));
    });
}

/// Is a connection that comes while its user is disconnected either taken out with the others, or in and reachable?
///
/// Fails: no_unlink.
#[test]
fn disconnect_meets_register() {
    model(140, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "b"))
        };
        let ended = hub.disconnect("u");
        let mut two = newcomer.join().unwrap();
        assert!((1..=2).contains(&ended));
        let inside = 2 - ended;
        assert_eq!((hub.total(), count(&hub, "u")), (inside, inside));
        assert_eq!(publish(&hub, "u", 1), inside);
        assert_eq!(read(&mut two).ended, inside == 0);
        drop((one, two));
        assert_empty(&hub);
    });
}

/// Two disconnect the same user: is each connection ended by one of them?
///
/// Fails: whoever_ends_a_connection_counts_it.
#[test]
fn disconnect_meets_disconnect() {
    model(240, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let other = {
            let hub = hub.clone();
            thread::spawn(move || hub.disconnect("u"))
        };
        let ended = hub.disconnect("u") + other.join().unwrap();
        assert_eq!(ended, 1);
        assert_empty(&hub);
        drop(one);
        assert_empty(&hub);
    });
}

/// A hub whose sweep takes out whoever is behind at all.
pub(super) fn impatient_hub() -> Hub {
    let patience = Patience {
        behind: 0,
        time: Duration::ZERO,
    };
    hub_with(Limits {
        patience,
        ..limits()
    })
}

/// A sweep takes out a stalled connection while its stream is dropped: once.
///
/// Fails: leave_does_not_ask_who_removed_it.
#[test]
fn sweep_meets_drop() {
    model(95, || {
        let hub = impatient_hub();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let leaver = thread::spawn(move || drop(one));
        hub.sweep(Instant::now());
        leaver.join().unwrap();
        assert_empty(&hub);
    });
}

/// A sweep takes out the last connection of a user while another comes, who must not go with it.
///
/// Fails: a_newcomer_is_behind, end_keeps_the_feed.
#[test]
fn sweep_meets_register() {
    model(30, || {
        let hub = impatient_hub();
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "b"))
        };
        assert_eq!(
            hub.sweep(Instant::now()),
            1,
            "the one that is behind, and no other"
        );
        let mut two = newcomer.join().unwrap();
        assert!(read(&mut one).ended);
        assert_eq!((hub.total(), count(&hub, "u")), (1, 1));
        assert_eq!(
            publish(&hub, "u", 2),
            1,
            "the ring lets go of who was taken out"
        );
        assert_eq!(read(&mut two).events, [2]);
        drop((one, two));
        assert_empty(&hub);
    });
}

/// A sweep meets a broadcast: whoever is counted as reached is there to read, and who has read all is left alone.
///
/// Fails: end_keeps_the_feed.
#[test]
fn sweep_meets_broadcast() {
    model(6, || {
        let hub = impatient_hub();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let mut prompt = register(&hub, "u", "b");
        let publisher = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 2))
        };
        let pruned = hub.sweep(Instant::now());
        let reached = publisher.join().unwrap();
        assert!(
            (1..=2).contains(&pruned),
            "the stalled one, and the other if it has not read yet"
        );
        assert!(reached <= 2);
        assert_eq!(publish(&hub, "u", 3), 2 - pruned);
        let read = read(&mut prompt);
        assert_eq!(read.ended, pruned == 2);
        assert!(read.ended || read.events.len() == reached.min(1) + 1 || read.events == [2, 3]);
        drop((one, prompt));
        assert_empty(&hub);
    });
}
