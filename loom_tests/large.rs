//! Three parties at once: too large for a bound of three preemptions.

use loom::thread;

use super::support::*;
use crate::error::RegisterError;
use crate::registry::Limits;

/// A closer that stalls between closing and unlinking, while two others come.
///
/// Fails: prune_by_receiver_count, removal_by_key, check_then_act_release.
#[test]
fn two_registrations_meet_the_last_drop() {
    model(6200, || {
        let hub = hub();
        let first = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(first));
        let other = {
            let hub = hub.clone();
            thread::spawn(move || {
                let subscription = register(&hub, "u", "b");
                assert!(publish(&hub, "u", 1) >= 1);
                subscription
            })
        };
        let three = register(&hub, "u", "c");
        assert!(publish(&hub, "u", 2) >= 1);
        let two = other.join().unwrap();
        leaver.join().unwrap();
        assert_eq!((hub.users.len(), hub.total(), count(&hub, "u")), (1, 2, 2));
        assert_eq!(publish(&hub, "u", 3), 2);
        drop((two, three));
        assert_empty(&hub);
    });
}

/// All three at once.
///
/// Fails: prune_by_receiver_count, removal_by_key, check_then_act_release.
#[test]
fn broadcast_register_and_last_drop_meet() {
    model(600, || {
        let hub = hub();
        let first = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(first));
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || {
                let mut two = register(&hub, "u", "b");
                assert!(publish(&hub, "u", 2) >= 1);
                let events = read(&mut two).events;
                assert!(events.contains(&2));
                (two, events)
            })
        };
        let reached = publish(&hub, "u", 1);
        leaver.join().unwrap();
        let (mut two, mut events) = newcomer.join().unwrap();
        events.extend(read(&mut two).events);
        assert!(reached <= 2);
        assert!(
            reached > 0 || !events.contains(&1),
            "who got it was counted"
        );
        assert_eq!((hub.users.len(), hub.total()), (1, 1));
        drop(two);
        assert_empty(&hub);
    });
}

/// Two places, three who want one, and one who leaves.
///
/// Fails: the_users_cap_is_checked_once, a_refused_registration_keeps_its_place, count_after_insert.
#[test]
fn three_registrations_meet_a_cap_of_two() {
    model(18000, || {
        let hub = hub_with(Limits {
            per_user: 2,
            ..limits()
        });
        let spawn = |id: &'static str| {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "u", id).ok())
        };
        let (one, two) = (spawn("a"), spawn("b"));
        let three = try_register(&hub, "u", "c").ok();
        assert!(count(&hub, "u") <= 2);
        let (one, two) = (one.join().unwrap(), two.join().unwrap());
        let admitted = [&one, &two, &three].into_iter().flatten().count();
        assert_eq!((admitted, hub.total(), count(&hub, "u")), (2, 2, 2));
        drop((one, two, three));
        assert_empty(&hub);
    });
}

/// The same for the cap of all, with a drop in between.
///
/// Fails: check_then_add, no_retry_after_a_lost_unlink, the_total_cap_is_checked_once.
#[test]
fn two_registrations_and_a_drop_meet_the_total_cap() {
    model(550, || {
        let hub = hub_with(Limits {
            total: 1,
            ..limits()
        });
        let first = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(first));
        let other = {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "v", "b").ok())
        };
        let three = try_register(&hub, "w", "c").ok();
        assert!(hub.total() <= 1);
        let two = other.join().unwrap();
        leaver.join().unwrap();
        let admitted = [&two, &three].into_iter().flatten().count();
        assert!(admitted <= 1);
        assert_eq!((hub.total(), hub.users.len()), (admitted, admitted));
        drop((two, three));
        assert_empty(&hub);
    });
}

/// Whoever gets the place of one that left finds its id free. Somebody who holds the roster of a moment ago, as an
/// drain does, keeps that from coming about by itself.
///
/// Fails: a_relaxed_give_back, a_relaxed_take.
#[test]
fn an_id_is_free_for_whoever_gets_the_place_of_the_one_that_left() {
    model(300, || {
        let hub = hub_with(Limits {
            total: 1,
            ..limits()
        });
        let first = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(first));
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || {
                if let Err(refused) = try_register(&hub, "u", "a") {
                    assert!(
                        matches!(refused, RegisterError::TotalFull { .. }),
                        "{refused}"
                    );
                }
            })
        };
        hub.drain("u");
        leaver.join().unwrap();
        newcomer.join().unwrap();
        assert_empty(&hub);
    });
}
