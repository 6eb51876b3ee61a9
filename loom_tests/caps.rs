//! `registry/admission.rs` and the cap of a roster: never exceeded, and no place is lost.

use loom::thread;

use super::support::*;
use crate::error::RegisterError;
use crate::registry::Limits;

fn hub_of_one(per_user: usize, total: usize) -> Hub {
    hub_with(Limits {
        per_user,
        total,
        ..limits()
    })
}

/// Two want the one place of a user who is not there yet: is one admitted, and does the other leave no count?
///
/// Fails: a_refused_registration_keeps_its_place, count_after_insert, no_retry_after_a_lost_insert.
#[test]
fn the_last_place_of_a_user_goes_to_one_of_two() {
    model(70, || {
        let hub = hub_of_one(1, usize::MAX);
        let other = {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "u", "b"))
        };
        let one = try_register(&hub, "u", "a");
        let two = other.join().unwrap();
        assert!(one.is_ok() != two.is_ok(), "one of the two");
        assert_eq!(
            (hub.total(), count(&hub, "u")),
            (1, 1),
            "a refusal leaves no count"
        );
        drop((one, two));
        assert_empty(&hub);
    });
}

/// Both join a channel that is there already.
///
/// Fails: the_users_cap_is_checked_once, a_refused_registration_keeps_its_place, store_instead_of_exchange_in_attach.
#[test]
fn the_last_place_of_a_channel_goes_to_one_of_two() {
    model(90, || {
        let hub = hub_of_one(2, usize::MAX);
        let first = register(&hub, "u", "first");
        let other = {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "u", "b"))
        };
        let one = try_register(&hub, "u", "a");
        let two = other.join().unwrap();
        assert!(one.is_ok() != two.is_ok(), "one of the two");
        assert_eq!((hub.total(), count(&hub, "u")), (2, 2));
        drop((first, one, two));
        assert_empty(&hub);
    });
}

/// Two users want the one place there is: is one admitted?
///
/// Fails: check_then_add, the_total_cap_is_checked_once, no_unlink.
#[test]
fn the_last_place_of_all_goes_to_one_of_two() {
    model(17, || {
        let hub = hub_of_one(usize::MAX, 1);
        let other = {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "v", "b"))
        };
        let one = try_register(&hub, "u", "a");
        let two = other.join().unwrap();
        assert!(one.is_ok() != two.is_ok(), "one of the two");
        assert_eq!((hub.total(), hub.users.len()), (1, 1));
        drop((one, two));
        assert_empty(&hub);
    });
}

/// A place that somebody leaves is there for one newcomer; while it is being left, a refusal may come from a moment ago.
///
/// Fails: a_refused_registration_keeps_its_place, removal_by_key, no_tombstone.
#[test]
fn a_place_that_is_left_is_there_again() {
    model(90, || {
        let hub = hub_of_one(1, usize::MAX);
        let first = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(first));
        let second = try_register(&hub, "u", "b");
        leaver.join().unwrap();
        let third = try_register(&hub, "u", "c");
        assert!(second.is_ok() != third.is_ok(), "one of the two");
        assert_eq!((hub.total(), count(&hub, "u")), (1, 1));
        drop((second, third));
        assert_empty(&hub);
    });
}

/// Whoever got the place of one that left is not refused because of it, by the user's cap or by its id.
///
/// Fails: spinning_on_a_tombstone, the_total_goes_before_the_roster, a_relaxed_load_of_the_map.
#[test]
fn a_place_is_given_back_after_its_connection_has_left() {
    model(20, || {
        let hub = hub_of_one(1, 1);
        let first = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(first));
        let second = try_register(&hub, "u", "a");
        assert!(
            matches!(second, Ok(_) | Err(RegisterError::TotalFull { .. })),
            "{second:?}"
        );
        leaver.join().unwrap();
        drop(second);
        assert_empty(&hub);
    });
}
