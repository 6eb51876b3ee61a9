//! Tests of a log.

use std::collections::HashMap;
use std::slice::from_ref;

use bytes::Bytes;

use super::cluster::Cluster;
use super::node::{Node, message, user, within};
use tidings::UserId;
use tidings::backplane::{Missing, Place, Position};

/// All tests of a log.
pub async fn replayable(cluster: &impl Cluster) {
    places_are_a_chain(cluster).await;
    the_log_can_be_read(cluster).await;
    a_message_is_logged_once(cluster).await;
    what_was_dropped_is_told(cluster).await;
    all_nodes_mean_the_same_log(cluster).await;
}

/// Each message's place names the previous message of the same user.
pub async fn places_are_a_chain(cluster: &impl Cluster) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut one = Node::new(cluster).await;
    one.join(&[ann.clone(), bob.clone()]).await;
    let mut last: HashMap<UserId, u64> = HashMap::new();
    for number in 0..20 {
        let whose = if number % 3 == 0 { &bob } else { &ann };
        one.say(whose, &["x"]).await;
        let received = one.message("a message with a place").await;
        let place = received.place.expect("it has a place");
        let before = last.insert(received.user, place.position.offset);
        assert_eq!(place.previous, before.unwrap_or_default());
        assert!(
            place.position.offset > place.previous,
            "{place:?} goes forward"
        );
    }
    one.close().await;
}

/// The log returns what was published, from any place, as much as was asked for.
pub async fn the_log_can_be_read(cluster: &impl Cluster) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut one = Node::new(cluster).await;
    one.join(from_ref(&ann)).await;
    let horizon = one.horizon();
    let nothing = one.fetch(&ann, horizon, 10).await;
    assert_eq!(nothing.messages, [], "before anything is published");
    assert!(nothing.is_complete(), "{nothing:?}");
    assert!(nothing.through.offset >= horizon.offset, "{nothing:?}");
    assert_eq!(one.head(&ann).await.newest, one.beginning());

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
    let newest = all.last().expect("there are some").0;
    assert_eq!(two.head(&ann).await.newest, newest);
    let ends = [two.beginning(), horizon];
    let inner = all.iter().map(|(position, _)| *position);
    for after in ends.into_iter().chain(inner) {
        let rest: Vec<_> = all
            .iter()
            .filter(|message| message.0.offset > after.offset)
            .cloned()
            .collect();
        for limit in [1, 2, 7, COUNT, 1000] {
            let fetched = two.fetch(&ann, after, limit).await;
            let said = format!("behind {after:?}, at most {limit}: {fetched:?}");
            let some = &rest[..rest.len().min(limit)];
            assert_eq!(fetched.messages, some, "{said}");
            assert_eq!(fetched.is_complete(), limit >= rest.len(), "{said}");
            if after.offset != 0 {
                // From the beginning on, others' messages may have gone.
                assert_eq!(fetched.missing, Missing::Nothing, "{said}");
            }
            match some.last() {
                Some(last) if limit < rest.len() => assert_eq!(fetched.through, last.0, "{said}"),
                Some(last) => assert!(fetched.through.offset >= last.0.offset, "{said}"),
                None => assert!(fetched.through.offset >= after.offset, "{said}"),
            }
        }
    }
    one.close().await;
    two.close().await;
}

/// A message that is published again, even by another node, is neither appended nor delivered again.
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
    let fetched = one.fetch(&ann, one.beginning(), 100).await;
    let bodies: Vec<_> = fetched.messages.iter().map(|message| &message.1).collect();
    assert_eq!(bodies, ["once", "once", "end"]);
    one.close().await;
    two.close().await;
}

/// A log that has dropped a user's messages reports it to a node that asks for them, and only then.
pub async fn what_was_dropped_is_told(cluster: &impl Cluster) {
    let Some(kept) = cluster.max_per_user() else {
        return;
    };
    let ann = user("ann");
    let one = Node::new(cluster).await;
    let head = one.horizon();
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

    // A place that has moved on by the messages of others.
    one.say(&user("bob"), &["not ann's"]).await;
    let head = one.head(&ann).await;
    let moved = Position {
        offset: head.through,
        ..head.newest
    };
    let fetched = one.fetch(&ann, moved, kept).await;
    assert_eq!(fetched.missing, Missing::Nothing, "behind the newest");
    one.say(&ann, &["new"]).await;
    let fetched = one.fetch(&ann, moved, kept).await;
    assert_eq!(fetched.missing, Missing::Nothing, "before the newest");
    assert_eq!(fetched.messages.len(), 1, "{fetched:?}");
    one.close().await;
}

/// All nodes give the log the same epoch, and its head moves.
pub async fn all_nodes_mean_the_same_log(cluster: &impl Cluster) {
    let one = Node::new(cluster).await;
    one.say(&user("ann"), &["something"]).await;
    let two = Node::new(cluster).await;
    assert_eq!(one.horizon().epoch, two.horizon().epoch);
    let ann = user("ann");
    two.say(&ann, &["something"]).await;
    let of_two = two.head(&ann).await;
    assert_eq!(one.head(&ann).await.newest, of_two.newest);
    assert_eq!(of_two.newest.epoch, one.horizon().epoch);
    two.say(&ann, &["more"]).await;
    let now = one.head(&ann).await;
    assert!(
        now.newest.offset > of_two.newest.offset,
        "{of_two:?} {now:?}"
    );
    // A node that does nothing learns how far the log is as well.
    within("the horizon moves", async {
        while one.horizon().offset != 0 && one.horizon().offset < now.newest.offset {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    // A place in another log is in none of this one.
    let foreign = Position {
        epoch: !now.newest.epoch,
        offset: 1,
    };
    let fetched = one.fetch(&ann, foreign, 10).await;
    assert_eq!(fetched.messages, [], "{fetched:?}");
    assert_eq!(fetched.head.epoch, now.newest.epoch, "{fetched:?}");
    assert!(!fetched.is_complete(), "{fetched:?}");
    one.close().await;
    two.close().await;
}
