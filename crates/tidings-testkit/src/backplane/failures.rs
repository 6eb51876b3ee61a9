//! Tests of how failures are reported.

use super::cluster::Faults;
use super::node::{Node, message, user, within};
use std::slice::from_ref;
use tidings::UserId;
use tidings::backplane::{Event, Level, Missing};

fn is_interrupted(event: &Event) -> bool {
    matches!(event, Event::Interrupted)
}

fn is_restored(event: &Event) -> bool {
    matches!(event, Event::Restored { .. })
}

/// A node learns that the engine has failed, and that it is back; users who were ready then get new messages, and so do
/// users added in the meantime.
pub async fn interest_survives_the_engine(cluster: &impl Faults) {
    let users: Vec<UserId> = (0..50).map(|_| user("stays")).collect();
    let (gone, new) = (user("gone"), user("new"));
    let mut one = Node::new(cluster).await;
    let mut two = Node::new(cluster).await;
    one.join(&users).await;
    one.join(from_ref(&gone)).await;
    two.say(&users[0], &["before"]).await;
    one.hears(&users[0], &["before"]).await;

    cluster.stop().await;
    one.event_like("the engine has gone", is_interrupted).await;
    two.event_like("the engine has gone", is_interrupted).await;
    one.leave(from_ref(&gone)).await;
    let added = one.backplane.set_interest(from_ref(&new), &[]).await;
    added.expect("the interest is noted without an engine");
    cluster.start().await;
    one.event_like("the engine is there again", is_restored)
        .await;
    two.event_like("the engine is there again", is_restored)
        .await;
    one.ready(from_ref(&new)).await;

    two.say(&gone, &["not here"]).await;
    let messages: Vec<_> = users.iter().map(|user| message(user, "after")).collect();
    two.publish(&messages).await;
    two.say(&new, &["after"]).await;
    let mut missing: Vec<&UserId> = users.iter().chain([&new]).collect();
    while !missing.is_empty() {
        let received = one.message("a message after the engine came back").await;
        assert_eq!(received.body, "after");
        let before = missing.len();
        missing.retain(|user| **user != received.user);
        assert_eq!(missing.len() + 1, before, "one for each");
    }
    one.close().await;
    two.close().await;
}

/// A node that is cut off learns so, cannot publish, and learns when it is back that it may have missed messages: those
/// in the log it can read.
pub async fn a_node_that_was_cut_off_is_told(cluster: &impl Faults) {
    let ann = user("ann");
    let mut one = Node::new(cluster).await;
    let two = Node::new(cluster).await;
    one.join(from_ref(&ann)).await;
    two.say(&ann, &["first"]).await;
    let first = one.message("before the cut").await;

    cluster.cut(&one.backplane).await;
    one.event_like("it is cut off", is_interrupted).await;
    let published = within("it fails", one.backplane.publish(&[message(&ann, "lost")])).await;
    published.expect_err("nobody can have accepted it");
    two.say(&ann, &["missed"]).await;
    cluster.mend(&one.backplane).await;
    let restored = one.event_like("it is back", is_restored).await;
    if let Some(place) = first.place {
        let fetched = one.fetch(&ann, place.position, 10).await;
        assert!(
            fetched.messages.iter().any(|(_, body)| *body == "missed"),
            "{fetched:?}"
        );
        assert_eq!(fetched.missing, Missing::Nothing);
    } else {
        assert_eq!(restored, Event::Restored { maybe_lost: true });
    }
    two.say(&ann, &["after"]).await;
    while one.message("after the cut").await.body != "after" {}
    one.close().await;
    two.close().await;
}

/// After a crash of the engine, the log has every message that it had accepted, or is reported to be another log.
/// Messages that it had not accepted can be published again.
pub async fn what_was_accepted_outlives_the_engine(cluster: &impl Faults) {
    let ann = user("ann");
    let mut one = Node::new(cluster).await;
    if one.backplane.level() != Level::Replayable {
        return one.close().await;
    }
    one.say(&ann, &["1", "2", "3"]).await;
    let before = one.horizon();
    cluster.stop().await;
    one.event_like("the engine has gone", is_interrupted).await;
    let again = message(&ann, "4");
    let refused = within("it fails", one.backplane.publish(from_ref(&again))).await;
    refused.expect_err("nobody can have accepted it");
    cluster.start().await;
    let mut reset = None;
    let back = |event: &Event| {
        if let Event::Reset(position) = event {
            reset = Some(*position);
        }
        is_restored(event)
    };
    one.event_like("the engine is there again", back).await;
    one.publish(from_ref(&again)).await;
    one.publish(&[again]).await;
    let fetched = one.fetch(&ann, one.beginning(), 10).await;
    let bodies: Vec<_> = fetched
        .messages
        .iter()
        .map(|message| &message.1[..])
        .collect();
    let now = one.horizon();
    match reset {
        None => {
            assert_eq!(now.epoch, before.epoch, "it is the same log");
            assert_eq!(bodies, [b"1", b"2", b"3", b"4"]);
        }
        Some(reset) => {
            assert_ne!(reset.epoch, before.epoch, "it is another log");
            assert_eq!(now.epoch, reset.epoch);
            assert_eq!(bodies, [b"4"]);
        }
    }
    let other = Node::new(cluster).await;
    assert_eq!(
        other.horizon().epoch,
        now.epoch,
        "all nodes mean the same log"
    );
    one.close().await;
    other.close().await;
}

/// All tests of failures.
pub async fn failures(cluster: &impl Faults) {
    a_node_that_was_cut_off_is_told(cluster).await;
    interest_survives_the_engine(cluster).await;
    what_was_accepted_outlives_the_engine(cluster).await;
}
