//! A drain where a history stays: drained streams end behind what was broadcast before, and are in nobody's way.

use loom::thread;

use super::support::*;
use crate::error::RegisterError;
use crate::id::LastEventId;
use crate::registry::Limits;

/// Is a connection that comes during a drain either drained with the others, or in and reachable?
///
/// Fails: store_instead_of_exchange_in_drain.
#[test]
fn drain_meets_register_beside_a_history() {
    model(50, || {
        let hub = hub_with(remembering(8));
        let mut one = register(&hub, "u", "a");
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "b"))
        };
        let drained = hub.drain("u");
        let mut two = newcomer.join().unwrap();
        assert!((1..=2).contains(&drained));
        let inside = 2 - drained;
        assert_eq!((count(&hub, "u"), publish(&hub, "u", 1)), (inside, inside));
        assert!(read(&mut one).ended, "who was in before is drained");
        let read = read(&mut two);
        assert_eq!((read.ended, read.events.len()), (inside == 0, inside));
        assert_eq!(hub.total(), 2, "each is counted until it drops");
        drop((one, two));
        assert_eq!((hub.retention().away(), hub.total()), (1, 0));
        assert_forgotten(&hub);
    });
}

/// Does a stream that is drained end behind what was broadcast before, although more is broadcast?
///
/// Fails: a_drain_keeps_the_ring.
#[test]
fn drain_meets_broadcast_beside_a_history() {
    model(20, || {
        let hub = hub_with(remembering(8));
        let mut one = register(&hub, "u", "a");
        assert_eq!(publish(&hub, "u", 1), 1);
        let publisher = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 2))
        };
        assert_eq!(hub.drain("u"), 1);
        assert_eq!(publish(&hub, "u", 3), 0, "nobody is in");
        let reached = publisher.join().unwrap();
        let read = read(&mut one);
        assert!(read.ended);
        let before = if reached == 1 { &[1, 2][..] } else { &[1] };
        assert_eq!(read.events, before);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// Is a connection drained by one of two calls, and given back once, while its stream is dropped?
///
/// Fails: a_drained_connection_stays_a_member.
#[test]
fn drain_meets_drain_and_drop_beside_a_history() {
    model(100, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(one));
        let drained = hub.drain("u") + hub.drain("u");
        assert!(drained <= 1, "{drained} of one");
        leaver.join().unwrap();
        assert_eq!((hub.retention().away(), hub.total()), (1, 0));
        assert_forgotten(&hub);
    });
}

/// Does a drained connection keep nobody out, and can it still be cut?
///
/// Fails: a_drained_connection_cannot_be_cut, a_drained_connection_stays_a_member.
#[test]
fn the_place_of_who_is_drained_is_there_for_a_namesake() {
    model(20, || {
        let hub = hub_with(Limits {
            per_user: 1,
            ..remembering(8)
        });
        let mut one = register(&hub, "u", "a");
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "u", "a"))
        };
        assert_eq!(hub.drain("u"), 1);
        match newcomer.join().unwrap() {
            Ok(two) => drop(two),
            Err(refused) => assert_eq!(refused, RegisterError::ConnectionIdInUse),
        }
        let mut two = register(&hub, "u", "a");
        assert_eq!((count(&hub, "u"), hub.total()), (1, 2));
        assert_eq!(hub.disconnect("u"), 2, "the one that is drained as well");
        assert!(read(&mut one).ended && read(&mut two).ended);
        drop((one, two));
        assert_forgotten(&hub);
    });
}

/// A broadcast is under way during a drain, and a newcomer comes after that: does it get the event if its place in the
/// history is before it?
///
/// Fails: the_ring_is_chosen_before_the_log_is_locked.
#[test]
fn drain_meets_a_broadcast_and_a_newcomer() {
    model(20, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        let publisher = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 1))
        };
        assert_eq!(hub.drain("u"), 1);
        let mut two = register(&hub, "u", "b");
        let cursor = LastEventId::new(&two.cursor().expect("there is a history"));
        let is_before = cursor.position().expect("an id").offset == 0;
        publisher.join().unwrap();
        assert_eq!(publish(&hub, "u", 2), 1);
        let expected = if is_before { &[1, 2][..] } else { &[2] };
        assert_eq!(read(&mut two).events, expected);
        drop((one, two));
        assert_forgotten(&hub);
    });
}
