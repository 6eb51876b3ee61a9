//! Messages that the log has dropped, and messages refused halfway: no reader passes them without a gap.

use std::time::Duration;

use tidings::UserId;
use tidings::backplane::{Backplane, Event, Fetched, Message, Missing, Position, Published};
use tidings_redis::{Log, Redis, Settings};
use tokio::time::{Instant, sleep};

use super::{BOUND, is_reset, message, node, publish, until};
use crate::support::redis::Server;

/// The shortest that a log takes.
const AGE: Duration = Duration::from_secs(1);

fn aged(age: Duration) -> Settings {
    Settings::new("test").replayable(Log::new().max_age(age))
}

async fn append(node: &Redis, user: &str, number: u128) -> Position {
    let message = Message {
        user: UserId::from(user),
        ..message(number)
    };
    let published = node.publish(&[message]).await.expect("it is connected");
    match published[0] {
        Published::Accepted(Some(position)) => position,
        ref refused => panic!("{refused:?}"),
    }
}

async fn fetch(node: &Redis, user: &str, after: Position) -> Fetched {
    let fetched = node.fetch(&UserId::from(user), after, 100).await;
    fetched.expect("it answers")
}

/// The numbers that are there, and whether something before them may be missing.
async fn read(node: &Redis, user: &str, after: Position) -> (Vec<u128>, bool) {
    let fetched = fetch(node, user, after).await;
    let number = |body: &[u8]| std::str::from_utf8(body).unwrap().parse().unwrap();
    let bodies = fetched.messages.iter();
    let numbers = bodies.map(|(_, body)| number(body)).collect();
    (numbers, fetched.missing != Missing::Nothing)
}

/// Until the log has dropped all messages of a user.
async fn until_dropped(node: &Redis, user: &str) {
    let begun = Instant::now();
    loop {
        let head = node.heads(&[UserId::from(user)]).await.expect("it answers");
        if head[0].newest.offset == 0 {
            return;
        }
        assert!(begun.elapsed() < BOUND, "they are kept");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_before_messages_dropped_for_their_age_get_a_gap() {
    let server = Server::start(&[]);
    let (one, _events) = node(&server, aged(AGE)).await;
    let before = one.horizon().unwrap();
    let first = append(&one, "ann", 1).await;
    append(&one, "ann", 2).await;
    let floor = append(&one, "bob", 3).await;
    assert_eq!(read(&one, "ann", before).await, (vec![1, 2], false));
    until_dropped(&one, "ann").await;
    assert_eq!(read(&one, "ann", before).await, (vec![], true));
    assert_eq!(read(&one, "ann", first).await, (vec![], true));
    assert_eq!(read(&one, "ann", floor).await, (vec![], false));
    // The next one does not hide it.
    let next = append(&one, "ann", 4).await;
    assert_eq!(read(&one, "ann", before).await, (vec![4], true));
    assert_eq!(read(&one, "ann", first).await, (vec![4], true));
    assert_eq!(read(&one, "ann", floor).await, (vec![4], false));
    assert_eq!(read(&one, "ann", next).await, (vec![], false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_before_messages_dropped_for_their_number_get_a_gap() {
    let server = Server::start(&[]);
    let settings = Settings::new("test").replayable(Log::new().max_per_user(3));
    let (one, _events) = node(&server, settings).await;
    let mut places = vec![one.horizon().unwrap()];
    for number in 1..=5 {
        places.push(append(&one, "ann", number).await);
        append(&one, "bob", 100 + number).await;
    }
    for (after, kept, is_missing) in [
        (0, vec![3, 4, 5], true),
        (1, vec![3, 4, 5], true),
        (2, vec![3, 4, 5], false),
        (4, vec![5], false),
        (5, vec![], false),
    ] {
        assert_eq!(read(&one, "ann", places[after]).await, (kept, is_missing));
    }
}

/// While others go on, so that the log knows the time of some messages only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_moment_a_message_is_there_or_reported_missing() {
    let server = Server::start(&[]);
    let (one, _events) = node(&server, aged(AGE)).await;
    let begun = Instant::now();
    let (mut users, mut dropped) = (Vec::new(), 0);
    let mut number = 0;
    while begun.elapsed() < 2 * AGE || dropped < 20 {
        assert!(begun.elapsed() < BOUND, "they are dropped");
        let before = one.horizon().unwrap();
        if users.len() < 100 {
            number += 1;
            let user = format!("user {number}");
            append(&one, &user, number).await;
            users.push((user, number, before));
        }
        append(&one, "bob", 1_000_000 + begun.elapsed().as_nanos()).await;
        let mut kept = Vec::new();
        for (user, number, before) in users.split_off(users.len().saturating_sub(100)) {
            match read(&one, &user, before).await {
                (numbers, _) if numbers == [number] => kept.push((user, number, before)),
                (numbers, is_missing) => {
                    assert!(numbers.is_empty() && is_missing, "{user} of {number}");
                    dropped += 1;
                }
            }
        }
        users = kept;
        // Somebody who has had nothing is behind nothing.
        let recent = one.horizon().unwrap();
        assert_eq!(read(&one, "nobody", recent).await, (vec![], false));
        sleep(Duration::from_millis(3)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_age_does_not_hide_what_a_shorter_one_has_dropped() {
    let server = Server::start(&[]);
    let (one, _events) = node(&server, aged(AGE)).await;
    let before = one.horizon().unwrap();
    let first = append(&one, "ann", 1).await;
    until_dropped(&one, "ann").await;
    let (other, _events) = node(&server, aged(AGE * 3600)).await;
    assert_eq!(read(&other, "ann", before).await, (vec![], true));
    append(&other, "bob", 2).await;
    let now = append(&other, "bob", 3).await;
    assert_eq!(read(&other, "ann", before).await, (vec![], true));
    assert_eq!(read(&other, "bob", first).await, (vec![2, 3], false));
    assert_eq!(read(&other, "ann", now).await, (vec![], false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_went_back_makes_the_log_another_one() {
    let server = Server::start(&[]);
    let (one, mut events) = node(&server, aged(AGE)).await;
    let before = append(&one, "ann", 1).await;
    // As if the last message had come at a later time than it is now.
    server
        .command(&["HINCRBY", "{test}:log", "last", "60000"])
        .await;
    until(&mut events, "it is told", is_reset).await;
    assert_ne!(one.horizon().unwrap().epoch, before.epoch);
    assert_eq!(
        fetch(&one, "ann", before).await.head,
        one.horizon().unwrap()
    );
}

fn is_refused(published: &Published) -> bool {
    matches!(
        published,
        Published::Refused {
            permanent: true,
            ..
        }
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_halfway_is_neither_in_the_log_nor_in_streams() {
    for command in ["xadd", "set", "pexpire", "zadd"] {
        let server = Server::start(&[]);
        let settings = aged(AGE * 3600);
        let (one, _ones) = node(&server, settings.clone()).await;
        let before = one.horizon().unwrap();
        let (other, mut events) = node(&server, settings).await;
        let ann = UserId::from("ann");
        let interest = other.set_interest(std::slice::from_ref(&ann), &[]);
        interest.await.unwrap();
        until(&mut events, "ann is ready", |event| {
            *event == Event::Ready(vec![ann.clone()])
        })
        .await;
        let (deny, allow) = (format!("-{command}"), format!("+{command}"));
        server.command(&["ACL", "SETUSER", "default", &deny]).await;
        let refused = publish(&one, 1).await;
        assert!(is_refused(&refused), "{command}: {refused:?}");
        let kept = read(&one, "ann", before).await;
        assert_eq!(kept, (vec![], false), "{command}");
        server.command(&["ACL", "SETUSER", "default", &allow]).await;
        // The log does not take it for one that it has.
        append(&one, "ann", 1).await;
        append(&one, "ann", 2).await;
        let mut heard = Vec::new();
        while heard.last().is_none_or(|body| body != "2") {
            let event = until(&mut events, "2 arrives", |event| {
                matches!(event, Event::Message(_))
            });
            let Event::Message(received) = event.await else {
                unreachable!()
            };
            heard.push(received.body);
        }
        assert_eq!(heard, ["1", "2"], "{command}");
        assert_eq!(read(&one, "ann", before).await, (vec![1, 2], false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_published_is_not_in_the_log() {
    let server = Server::start(&[]);
    let (one, _events) = node(&server, aged(AGE * 3600)).await;
    let before = one.horizon().unwrap();
    let rules = ["ACL", "SETUSER", "default", "resetchannels", "&{test}:n:*"];
    server.command(&rules).await;
    let refused = publish(&one, 1).await;
    assert!(is_refused(&refused), "{refused:?}");
    assert_eq!(read(&one, "ann", before).await, (vec![], false));
    let rules = ["ACL", "SETUSER", "default", "allchannels"];
    server.command(&rules).await;
    append(&one, "ann", 1).await;
    assert_eq!(read(&one, "ann", before).await, (vec![1], false));
}
