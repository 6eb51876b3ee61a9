//! `registry/membership.rs`: connections come and go, and the map follows.

use std::sync::Arc;

use loom::thread;

use super::support::*;

/// Do two connections of one user that come at the same time end up in one channel, both reachable as soon as their own
/// registration has returned?
///
/// Fails: no_retry_after_a_lost_insert, not_subscribed_when_register_returns, store_instead_of_exchange_in_the_map.
#[test]
fn register_meets_register() {
    model(200, || {
        let hub = hub();
        let other = {
            let hub = hub.clone();
            thread::spawn(move || {
                let mut subscription = register(&hub, "u", "b");
                assert!(publish(&hub, "u", 2) >= 1, "who is registered is reached");
                assert!(read(&mut subscription).events.contains(&2));
                subscription
            })
        };
        let mut one = register(&hub, "u", "a");
        assert!(publish(&hub, "u", 1) >= 1, "who is registered is reached");
        assert!(read(&mut one).events.contains(&1));
        let two = other.join().unwrap();
        assert_eq!((hub.users.len(), hub.total(), count(&hub, "u")), (1, 2, 2));
        assert_eq!(publish(&hub, "u", 3), 2);
        drop((one, two));
        assert_empty(&hub);
    });
}

/// Do two users of one shard, registered at the same time, both stay in the map?
///
/// Fails: no_retry_after_a_lost_insert, store_instead_of_exchange_in_the_map, a_relaxed_load_of_the_map.
#[test]
fn register_meets_register_of_another_user() {
    model(100, || {
        let hub = hub();
        let other = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "v", "b"))
        };
        let mut one = register(&hub, "u", "a");
        assert_eq!(publish(&hub, "u", 1), 1);
        let mut two = other.join().unwrap();
        assert_eq!((hub.users.len(), hub.total()), (2, 2));
        assert_eq!(publish(&hub, "v", 2), 1);
        assert_eq!(read(&mut one).events, [1], "a user gets only its own");
        assert_eq!(read(&mut two).events, [2], "a user gets only its own");
        drop((one, two));
        assert_empty(&hub);
    });
}

/// Does a user who leaves take another one of the same shard along, who leaves or comes at the same time?
///
/// Fails: no_retry_after_a_lost_unlink, no_retry_after_a_lost_insert, store_instead_of_exchange_in_the_map.
#[test]
fn last_drop_meets_another_user() {
    model(80, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(one));
        let two = register(&hub, "v", "b");
        assert_eq!(publish(&hub, "v", 1), 1);
        leaver.join().unwrap();
        assert_eq!((hub.users.len(), hub.total(), count(&hub, "u")), (1, 1, 0));
        drop(two);
        assert_empty(&hub);
    });
}

/// May a connection join the channel that the last one before it is closing, and be lost with it?
///
/// Fails: prune_by_receiver_count, removal_by_key, check_then_act_release.
#[test]
fn register_meets_last_drop() {
    model(100, || {
        let hub = hub();
        let first = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(first));
        let mut second = register(&hub, "u", "b");
        assert!(
            publish(&hub, "u", 1) >= 1,
            "who is registered is reached at once"
        );
        assert_eq!(read(&mut second).events, [1]);
        leaver.join().unwrap();
        assert_eq!((hub.users.len(), hub.total(), count(&hub, "u")), (1, 1, 1));
        assert_eq!(publish(&hub, "u", 2), 1, "and afterwards");
        assert_eq!(read(&mut second).events, [2]);
        drop(second);
        assert_empty(&hub);
    });
}

/// Do two connections that leave at the same time close the channel once, and is it unlinked?
///
/// Fails: check_then_act_release, store_instead_of_exchange_in_detach, a_relaxed_load_of_the_map.
#[test]
fn drop_meets_drop() {
    model(40, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let two = register(&hub, "u", "b");
        let other = thread::spawn(move || drop(one));
        drop(two);
        other.join().unwrap();
        assert_empty(&hub);
    });
}

/// Does a whole life beside another whole life of the same user leave anything behind?
///
/// Fails: check_then_act_release, spinning_on_a_tombstone, count_after_insert.
#[test]
fn a_life_meets_a_life() {
    model(1250, || {
        let hub = hub();
        let other = {
            let hub = hub.clone();
            thread::spawn(move || drop(register(&hub, "u", "b")))
        };
        drop(register(&hub, "u", "a"));
        other.join().unwrap();
        assert_empty(&hub);
    });
}

/// Does a connection that leaves while its user is drained give back its place once, and is the channel unlinked?
///
/// Fails: drain_gives_the_places_back, a_relaxed_load_of_the_map.
#[test]
fn drain_meets_drop() {
    model(30, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(one));
        let ended = hub.drain("u");
        assert!(ended <= 1);
        leaver.join().unwrap();
        assert_empty(&hub);
    });
}

/// Is a connection that comes while its user is drained either drained with the others, or in and reachable?
///
/// Fails: store_instead_of_exchange_in_drain, a_drain_keeps_the_ring.
#[test]
fn drain_meets_register() {
    model(50, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "b"))
        };
        let ended = hub.drain("u");
        let mut two = newcomer.join().unwrap();
        assert!(read(&mut one).ended, "who was in before is drained");
        match ended {
            1 => {
                assert_eq!((count(&hub, "u"), publish(&hub, "u", 1)), (1, 1));
                assert_eq!(read(&mut two).events, [1], "who came after is in");
            }
            2 => {
                assert_eq!((count(&hub, "u"), publish(&hub, "u", 1)), (0, 0));
                assert!(read(&mut two).ended, "who came before is out");
            }
            _ => panic!("{ended} ended"),
        }
        assert_eq!(hub.total(), 2, "each is counted until it drops");
        drop((one, two));
        assert_empty(&hub);
    });
}

/// Is a connection that comes while its user is forgotten either ended with the others, or in and reachable?
///
/// Fails: a_channel_is_unlinked_without_being_closed, store_instead_of_exchange_in_close.
#[test]
fn forget_meets_register() {
    model(50, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "b"))
        };
        let ended = hub.forget("u");
        let mut two = newcomer.join().unwrap();
        assert!((1..=2).contains(&ended));
        let inside = 2 - ended;
        assert_eq!((count(&hub, "u"), publish(&hub, "u", 1)), (inside, inside));
        assert!(read(&mut one).ended, "who was in before is out");
        assert_eq!(read(&mut two).ended, inside == 0);
        assert_eq!(hub.total(), 2, "each is counted until it drops");
        drop((one, two));
        assert_empty(&hub);
    });
}

/// Is one drain the one that ended the connections?
///
/// Fails: store_instead_of_exchange_in_drain, a_drained_connection_stays_a_member.
#[test]
fn drain_meets_drain() {
    model(30, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let other = {
            let hub = hub.clone();
            thread::spawn(move || hub.drain("u"))
        };
        let ended = hub.drain("u") + other.join().unwrap();
        assert_eq!((ended, count(&hub, "u")), (1, 0));
        drop(one);
        assert_empty(&hub);
    });
}

/// Is a stream that waits woken when its user is drained, and is nothing left of the channel afterwards?
///
/// Fails: a_drained_channel_is_kept.
#[test]
fn drain_meets_a_waiting_stream() {
    model(5, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let roster = hub.with("u", |channel| Arc::downgrade(channel.roster()));
        let waiter = thread::spawn(move || assert_eq!(wait(&mut one), None));
        assert_eq!(hub.drain("u"), 1);
        waiter.join().unwrap();
        assert_empty(&hub);
        let kept = roster.and_then(|roster| roster.upgrade());
        assert!(kept.is_none(), "the channel is out of the map, and gone");
    });
}
