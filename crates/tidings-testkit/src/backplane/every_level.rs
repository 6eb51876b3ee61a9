//! Tests that every backplane must pass.

use std::collections::HashMap;
use std::future::poll_fn;
use std::slice::from_ref;

use bytes::Bytes;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::node::{BOUND, Node, message, user, within};
use tidings::UserId;
use tidings::backplane::{Level, Message, Position};

/// All tests that need neither a log nor failures.
pub async fn every_level(cluster: &impl Cluster) {
    a_message_reaches_the_interested_nodes(cluster).await;
    who_has_left_gets_nothing(cluster).await;
    messages_of_a_user_come_in_order(cluster).await;
    who_is_ready_misses_nothing(cluster).await;
    interest_is_idempotent(cluster).await;
    odd_ids_are_users_of_their_own(cluster).await;
    a_body_may_be_as_long_as_was_said(cluster).await;
    a_closed_one_is_closed(cluster).await;
}

/// A message arrives at each node that is interested in its user, the publishing node included, and at no other.
pub async fn a_message_reaches_the_interested_nodes(cluster: &impl Cluster) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut one = Node::new(cluster).await;
    let mut two = Node::new(cluster).await;
    one.join(from_ref(&ann)).await;
    two.join(&[ann.clone(), bob.clone()]).await;
    for round in ["1", "2", "3"] {
        // For Ann last: it comes to the first node after all that it should not get.
        one.say(&bob, &[round]).await;
        two.say(&ann, &[round]).await;
        one.hears(&ann, &[round]).await;
        let mut heard = [two.message("bob's").await, two.message("ann's").await]
            .map(|received| (received.user, received.body));
        heard.sort_by_key(|(user, _)| *user != bob);
        let body = Bytes::from_static(round.as_bytes());
        assert_eq!(heard, [(bob.clone(), body.clone()), (ann.clone(), body)]);
    }
    // The publisher's own.
    one.say(&ann, &["echo"]).await;
    one.hears(&ann, &["echo"]).await;
    one.close().await;
    two.close().await;
}

/// After a user was removed, and another user is ready, no message published to the removed user arrives.
pub async fn who_has_left_gets_nothing(cluster: &impl Cluster) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut one = Node::new(cluster).await;
    let two = Node::new(cluster).await;
    one.join(from_ref(&ann)).await;
    two.say(&ann, &["before"]).await;
    one.hears(&ann, &["before"]).await;
    one.leave(from_ref(&ann)).await;
    one.join(from_ref(&bob)).await;
    two.say(&ann, &["after"]).await;
    two.say(&bob, &["bob's"]).await;
    one.hears(&bob, &["bob's"]).await;
    // Who comes again hears what comes then.
    one.join(from_ref(&ann)).await;
    two.say(&ann, &["again"]).await;
    one.hears(&ann, &["again"]).await;
    one.close().await;
    two.close().await;
}

/// Each user's messages arrive in the order in which they were published, each once.
pub async fn messages_of_a_user_come_in_order(cluster: &impl Cluster) {
    const EACH: usize = 200;
    let users: Vec<UserId> = (0..5).map(|_| user("many")).collect();
    let mut one = Node::new(cluster).await;
    let two = Node::new(cluster).await;
    one.join(&users).await;
    let mut next: HashMap<UserId, usize> = HashMap::new();
    for number in 0..EACH {
        let body = number.to_string();
        let messages: Vec<Message> = users.iter().map(|user| message(user, &body)).collect();
        two.publish(&messages).await;
    }
    for _ in 0..EACH * users.len() {
        let received = one.message("a message of many").await;
        let next = next.entry(received.user.clone()).or_default();
        assert_eq!(received.body, next.to_string(), "of {:?}", received.user);
        *next += 1;
    }
    one.close().await;
    two.close().await;
}

/// A message published as soon as a user is ready arrives.
pub async fn who_is_ready_misses_nothing(cluster: &impl Cluster) {
    let mut one = Node::new(cluster).await;
    let two = Node::new(cluster).await;
    for _ in 0..50 {
        let user = user("ready");
        one.join(from_ref(&user)).await;
        two.say(&user, &["at once"]).await;
        one.hears(&user, &["at once"]).await;
    }
    let users: Vec<UserId> = (0..500).map(|_| user("ready")).collect();
    one.join(&users).await;
    let messages: Vec<Message> = users.iter().map(|user| message(user, "all")).collect();
    two.publish(&messages).await;
    let mut missing: Vec<UserId> = users;
    while !missing.is_empty() {
        let received = one.message("a message for each of many").await;
        missing.retain(|user| *user != received.user);
    }
    one.close().await;
    two.close().await;
}

/// A user added twice is reported ready twice, gets each message once, and is removed by one removal. A user who was
/// not added can be removed.
pub async fn interest_is_idempotent(cluster: &impl Cluster) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut one = Node::new(cluster).await;
    one.leave(from_ref(&ann)).await;
    one.join(from_ref(&ann)).await;
    one.join(&[ann.clone(), bob.clone()]).await;
    one.say(&ann, &["once", "twice"]).await;
    one.hears(&ann, &["once", "twice"]).await;
    one.leave(from_ref(&ann)).await;
    one.join(from_ref(&bob)).await;
    one.say(&ann, &["gone"]).await;
    one.say(&bob, &["here"]).await;
    one.hears(&bob, &["here"]).await;
    one.close().await;
}

/// An id is any text, and never matches another id.
pub async fn odd_ids_are_users_of_their_own(cluster: &impl Cluster) {
    let mut ids: Vec<String> = [
        "",
        "*",
        ">",
        ".",
        "..",
        "a.b",
        "a.*",
        "a.>",
        " ",
        "a b",
        "a\tb",
        "a\r\nb",
        "\0",
        "=",
        "==",
        "=2A",
        "%2A",
        "a",
        "A",
        "ä",
        "a\u{308}",
        "👩‍🚀",
        "$SYS",
        "/",
        "\\",
        "'",
        "\"",
        "{}",
        "[a]",
        "?",
        "_",
        "-",
    ]
    .map(str::to_owned)
    .into();
    ids.push("x".repeat(4096));
    ids.push("x".repeat(4097));
    ids.push("*.".repeat(2048));
    ids.push("ü".repeat(200));
    let users: Vec<UserId> = ids.into_iter().map(UserId::from).collect();
    let (mine, others) = users.split_at(users.len() / 2);
    let mut one = Node::new(cluster).await;
    let mut two = Node::new(cluster).await;
    one.join(mine).await;
    two.join(others).await;
    for (number, user) in users.iter().enumerate() {
        let node = if number < mine.len() {
            &mut one
        } else {
            &mut two
        };
        let body = number.to_string();
        node.say(user, &[&body]).await;
        node.hears(user, &[&body]).await;
        if node.backplane.level() == Level::Replayable {
            let fetched = node.fetch(user, node.beginning(), 1000).await;
            let last = fetched.messages.last().expect("it was logged");
            assert_eq!(last.1, body, "the log of {user:?}");
        }
    }
    one.close().await;
    two.close().await;
}

/// A body may have as many bytes as `max_body` says, of any value.
pub async fn a_body_may_be_as_long_as_was_said(cluster: &impl Cluster) {
    let ann = user("ann");
    let mut one = Node::new(cluster).await;
    one.join(from_ref(&ann)).await;
    let max = one.backplane.max_body();
    for len in [0, 1, 100_000.min(max), max] {
        let body: Bytes = (0..len).map(|at| (at * 7 + len) as u8).collect();
        let sent = Message {
            body: body.clone(),
            ..message(&ann, "")
        };
        one.publish(&[sent]).await;
        let received = one.message("a long body").await;
        assert!(received.body == body, "a body of {len} bytes is another");
        if let Some(place) = received.place {
            let before = Position {
                offset: place.position.offset - 1,
                ..place.position
            };
            let fetched = one.fetch(&ann, before, 10).await;
            let all: Vec<_> = fetched.messages.into_iter().collect();
            assert!(
                all == [(place.position, body)],
                "the log has another of {len} bytes"
            );
        }
    }
    one.close().await;
}

/// After `close`, the events end and every call fails.
pub async fn a_closed_one_is_closed(cluster: &impl Cluster) {
    let ann = user("ann");
    let mut one = Node::new(cluster).await;
    one.join(from_ref(&ann)).await;
    let deadline = Instant::now() + BOUND;
    one.backplane.close(deadline).await;
    assert!(Instant::now() < deadline, "it closes as soon as it can");
    let ended = async {
        while poll_fn(|cx| one.events.as_mut().poll_next(cx))
            .await
            .is_some()
        {}
    };
    within("the events end", ended).await;

    let published = one.backplane.publish(&[message(&ann, "late")]).await;
    assert!(published.expect_err("it is closed").is_closed());
    let added = one.backplane.set_interest(from_ref(&ann), &[]).await;
    assert!(added.expect_err("it is closed").is_closed());
    if one.backplane.level() == Level::Replayable {
        let after = Position {
            epoch: 1,
            offset: 0,
        };
        let fetched = one.backplane.fetch(&ann, after, 1).await;
        assert!(fetched.expect_err("it is closed").is_closed());
        let heads = one.backplane.heads(from_ref(&ann)).await;
        assert!(heads.expect_err("it is closed").is_closed());
    }
    // Once more does no harm.
    one.backplane.close(Instant::now() + BOUND).await;
}
