//! What a log does.

use std::collections::HashMap;
use std::slice::from_ref;

use bytes::Bytes;

use super::cluster::Cluster;
use super::node::{Node, message, user, within};
use crate::backplane::{Missing, Place, Position};
use crate::id::UserId;

/// All tests of a log.
pub async fn replayable(cluster: &impl Cluster) {
    places_are_a_chain(cluster).await;
    the_log_can_be_read(cluster).await;
    a_message_is_logged_once(cluster).await;
    what_was_dropped_is_told(cluster).await;
    all_nodes_mean_the_same_log(cluster).await;
}

/// Each message's place names the one of the same user before it.
pub async fn places_are_a_chain(cluster: &impl Cluster) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut one = Node::new(cluster).await;
    one.join(&[ann.clone(), bob.clone()]).await;
    let mut last: HashMap<UserId, Position> = HashMap::new();
    for number in 0..20 {
        let whose = if number % 3 == 0 { &bob } else { &ann };
        one.say(whose, &["x"]).await;
        let received = one.message("a message with a place").await;
        let place = received.place.expect("it has a place");
        let before = last.insert(received.user, place.position);
        assert_eq!(place.previous, before.unwrap_or_default());
        assert!(place.position > place.previous, "{place:?} goes forward");
    }
    one.close().await;
}

/// The log has what was published, from any place, as much as was asked for.
pub async fn the_log_can_be_read(cluster: &impl Cluster) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut one = Node::new(cluster).await;
    one.join(from_ref(&ann)).await;
    let head = within("the head", one.backplane.ask_head()).await;
    let head = head.expect("the log answers").position;
    let nothing = one.fetch(&ann, head, 10).await;
    assert_eq!(nothing.messages, [], "before anything is published");
    assert!(!nothing.has_more && nothing.through >= head, "{nothing:?}");

    const COUNT: usize = 30;
    let mut all: Vec<(Position, Bytes)> = Vec::new();
    for number in 0..COUNT {
        one.say(&bob, &["not ann's"]).await;
        one.say(&ann, &[&number.to_string()]).await;
        let received = one.message("a message that is logged").await;
        let Place { position, .. } = received.place.expect("it has a place");
        all.push((position, received.body));
    }
    let two = Node::new(cluster).await;
    let ends = [Position(0), head];
    let inner = all.iter().map(|(position, _)| *position);
    for after in ends.into_iter().chain(inner) {
        let rest: Vec<_> = all
            .iter()
            .filter(|message| message.0 > after)
            .cloned()
            .collect();
        for limit in [1, 2, 7, COUNT, 1000] {
            let fetched = two.fetch(&ann, after, limit).await;
            let said = format!("behind {after:?}, at most {limit}: {fetched:?}");
            let some = &rest[..rest.len().min(limit)];
            assert_eq!(fetched.messages, some, "{said}");
            assert_eq!(fetched.has_more, limit < rest.len(), "{said}");
            if after != Position(0) {
                // From the beginning on, others' messages may have gone.
                assert_eq!(fetched.missing, Missing::Nothing, "{said}");
            }
            match some.last() {
                Some(last) if fetched.has_more => assert_eq!(fetched.through, last.0, "{said}"),
                Some(last) => assert!(fetched.through >= last.0, "{said}"),
                None => assert!(fetched.through >= after, "{said}"),
            }
        }
    }
    one.close().await;
    two.close().await;
}

/// What is published again is not appended again, not by another node either, and does not come again.
pub async fn a_message_is_logged_once(cluster: &impl Cluster) {
    let ann = user("ann");
    let mut one = Node::new(cluster).await;
    let two = Node::new(cluster).await;
    one.join(from_ref(&ann)).await;
    let again = message(&ann, "once");
    one.publish(from_ref(&again)).await;
    one.publish(from_ref(&again)).await;
    two.publish(&[again]).await;
    // The same words, said again.
    two.say(&ann, &["once", "end"]).await;
    one.hears(&ann, &["once", "once", "end"]).await;
    let fetched = one.fetch(&ann, Position(0), 100).await;
    let bodies: Vec<_> = fetched.messages.iter().map(|message| &message.1).collect();
    assert_eq!(bodies, ["once", "once", "end"]);
    one.close().await;
    two.close().await;
}

/// A log that has dropped a user's messages says so to who asks for them, and only then.
pub async fn what_was_dropped_is_told(cluster: &impl Cluster) {
    let Some(kept) = cluster.max_per_user() else {
        return;
    };
    let ann = user("ann");
    let one = Node::new(cluster).await;
    let head = within("the head", one.backplane.ask_head()).await;
    let head = head.expect("the log answers").position;
    let numbers: Vec<String> = (0..kept + 5).map(|number| number.to_string()).collect();
    let (first, rest) = numbers.split_at(kept - 1);
    one.say(&ann, &first.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let before = one.fetch(&ann, head, kept * 2).await;
    assert_eq!(before.missing, Missing::Nothing, "all is there still");
    one.say(&ann, &rest.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    for limit in [1, kept * 2] {
        let fetched = one.fetch(&ann, head, limit).await;
        assert!(
            matches!(fetched.missing, Missing::Unknown | Missing::Messages(5)),
            "five are missing: {:?}",
            fetched.missing
        );
        assert_eq!(
            fetched.messages[0].1, numbers[5],
            "the oldest that is there"
        );
    }
    let there = one.fetch(&ann, head, kept * 2).await;
    assert_eq!(there.messages.len(), kept);
    let oldest = there.messages[0].0;
    let fetched = one.fetch(&ann, oldest, kept * 2).await;
    assert_eq!(fetched.missing, Missing::Nothing, "behind the oldest");
    one.close().await;
}

/// All nodes give the log the same epoch, and its head moves.
pub async fn all_nodes_mean_the_same_log(cluster: &impl Cluster) {
    let one = Node::new(cluster).await;
    one.say(&user("ann"), &["something"]).await;
    let two = Node::new(cluster).await;
    let of_one = one.backplane.head().expect("a log has a head");
    let of_two = two.backplane.head().expect("a log has a head");
    assert_eq!(of_one.epoch, of_two.epoch);
    assert!(of_two.position > of_one.position, "{of_one:?} {of_two:?}");
    two.say(&user("ann"), &["something"]).await;
    let now = within("the head", one.backplane.ask_head()).await;
    let now = now.expect("the log answers");
    assert_eq!(now.epoch, of_one.epoch);
    assert!(now.position > of_two.position, "{of_two:?} {now:?}");
    one.close().await;
    two.close().await;
}
