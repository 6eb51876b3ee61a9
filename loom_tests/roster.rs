//! `channel/roster.rs` by itself: closed is final and has one closer, a member is removed once.

use std::sync::Arc;

use loom::thread;

use super::support::model;
use crate::channel::{Connection, Detached, Refusal, Roster};

fn connection(id: &str) -> Arc<Connection<u32>> {
    Arc::new(Connection::new(id.into()))
}

fn roster(first: &Arc<Connection<u32>>) -> Arc<Roster<u32>> {
    Arc::new(Roster::new("u".into(), 0, 2, None, Some(first)))
}

fn attach(roster: &Roster<u32>, connection: &Arc<Connection<u32>>) -> Result<(), Refusal> {
    roster.attach(connection, usize::MAX).map(drop)
}

/// Does a newcomer get in before the last member closes the channel, or is it refused, and nothing between?
///
/// Fails: check_then_act_release, no_tombstone, joining_a_closed_channel.
#[test]
fn attach_meets_the_last_detach() {
    model(17, || {
        let (one, two) = (connection("a"), connection("b"));
        let roster = roster(&one);
        let leaver = {
            let roster = roster.clone();
            thread::spawn(move || roster.detach(&one))
        };
        let attached = attach(&roster, &two);
        match (attached, leaver.join().unwrap()) {
            (Ok(()), Detached::Out) => assert_eq!(roster.len(), 1),
            (Err(Refusal::Closed), Detached::OutAndClosed) => assert_eq!(roster.len(), 0),
            other => panic!("{other:?}"),
        }
    });
}

/// Two remove the same member: has one of them removed it?
///
/// Fails: detach_without_looking, count_after_insert, store_instead_of_exchange_in_detach.
#[test]
fn a_member_is_removed_once() {
    model(17, || {
        let (one, two) = (connection("a"), connection("b"));
        let roster = roster(&one);
        attach(&roster, &two).unwrap();
        let other = {
            let (roster, one) = (roster.clone(), one.clone());
            thread::spawn(move || roster.detach(&one))
        };
        let outcomes = [roster.detach(&one), other.join().unwrap()];
        assert!(
            outcomes.contains(&Detached::Out) && outcomes.contains(&Detached::NotIn),
            "{outcomes:?}"
        );
        assert_eq!(roster.len(), 1);
    });
}

/// The last member leaves while the channel is closed: is there one closer?
///
/// Fails: store_instead_of_exchange_in_close, no_tombstone, joining_a_closed_channel.
#[test]
fn a_channel_is_closed_once() {
    model(17, || {
        let one = connection("a");
        let roster = roster(&one);
        let closer = {
            let roster = roster.clone();
            thread::spawn(move || roster.close().is_some())
        };
        let detached = roster.detach(&one);
        let closed = closer.join().unwrap();
        assert_eq!(
            closed,
            detached == Detached::Out,
            "either, not both: {detached:?}"
        );
        assert_eq!(
            attach(&roster, &one),
            Err(Refusal::Closed),
            "closed is final"
        );
    });
}

/// Are both in who come at the same time?
///
/// Fails: count_after_insert, store_instead_of_exchange_in_attach, a_relaxed_load_of_the_map.
#[test]
fn attach_meets_attach() {
    model(17, || {
        let (one, two, three) = (connection("a"), connection("b"), connection("c"));
        let roster = roster(&one);
        let other = {
            let roster = roster.clone();
            thread::spawn(move || attach(&roster, &two).unwrap())
        };
        attach(&roster, &three).unwrap();
        other.join().unwrap();
        assert_eq!(roster.len(), 3);
    });
}

/// One id, one connection.
///
/// Fails: an_id_may_be_taken_twice, count_after_insert, store_instead_of_exchange_in_attach.
#[test]
fn attach_meets_attach_of_the_same_id() {
    model(17, || {
        let (one, two, three) = (connection("a"), connection("b"), connection("b"));
        let roster = roster(&one);
        let other = {
            let roster = roster.clone();
            thread::spawn(move || attach(&roster, &two))
        };
        let outcomes = [attach(&roster, &three), other.join().unwrap()];
        assert!(outcomes.contains(&Ok(())), "{outcomes:?}");
        assert!(outcomes.contains(&Err(Refusal::IdInUse)), "{outcomes:?}");
        assert_eq!(roster.len(), 2);
    });
}
