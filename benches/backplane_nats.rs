//! What does a node of many users cost with NATS, how soon does it hear again after the server was restarted, and how fast
//! does it publish?
//!
//! A server is started for each part, without a network in between, and shares the machine with the benchmark. Memory is
//! what the two processes have more in RAM than before the users came.

mod support;

#[path = "../tests/support/nats.rs"]
mod nats;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tidings::UserId;
use tidings::backplane::{Backplane, Event, Message, Position, Received};
use tidings_nats::{Interest, Log, Nats, Settings, Storage};
use tokio::task::JoinSet;

use nats::Server;
use support::kernel::rss_kb;
use support::{Mode, median, option};

type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

async fn connect(server: &Server, settings: Settings) -> (Arc<Nats>, Events) {
    let options = ConnectOptions::new().ignore_discovered_servers();
    let node = Nats::connect(&server.url(), options, settings).await;
    let node = Arc::new(node.expect("it connects"));
    let events = node.events();
    (node, events)
}

async fn next(events: &mut Events) -> Event {
    events.next().await.expect("events go on")
}

async fn all_ready(events: &mut Events, mut count: usize) {
    while count > 0 {
        if let Event::Ready(users) = next(events).await {
            count -= users.len();
        }
    }
}

fn message(user: &UserId, body: &Bytes) -> Message {
    Message {
        user: user.clone(),
        id: fastrand::u128(..),
        body: body.clone(),
    }
}

/// Publishes to these users, and waits until each has heard it.
async fn hears(node: &Nats, events: &mut Events, users: &[UserId]) {
    let body = Bytes::from_static(b"here");
    let messages: Vec<Message> = users.iter().map(|user| message(user, &body)).collect();
    node.publish(&messages).await.expect("it is accepted");
    let mut heard = 0;
    while heard < messages.len() {
        if let Event::Message(Received { .. }) = next(events).await {
            heard += 1;
        }
    }
}

async fn crowd(name: &str, settings: Settings, count: usize) {
    let mut server = Server::start();
    let (node, mut events) = connect(&server, settings).await;
    let users: Vec<UserId> = (0..count).map(|n| format!("user-{n:07}").into()).collect();
    let sample: Vec<UserId> = users.iter().step_by(count / 100).cloned().collect();
    let own = std::process::id();
    let before = (rss_kb(own), rss_kb(server.pid()));

    let start = Instant::now();
    let added = node.set_interest(&users, &[]).await;
    added.expect("the interest is noted");
    all_ready(&mut events, count).await;
    let ready = start.elapsed();
    hears(&node, &mut events, &sample).await;
    let after = (rss_kb(own), rss_kb(server.pid()));

    server.restart();
    let start = Instant::now();
    while !matches!(next(&mut events).await, Event::Restored { .. }) {}
    hears(&node, &mut events, &sample).await;
    let again = start.elapsed();
    let each = |before: f64, after: f64| (after - before) * 1024.0 / count as f64;
    println!(
        "{name:32} {:8.2} {:8.2} {:10.0} {:10.0}",
        ready.as_secs_f64(),
        again.as_secs_f64(),
        each(before.0, after.0),
        each(before.1, after.1),
    );
    node.close(tokio::time::Instant::now() + Duration::from_secs(5))
        .await;
}

/// Thousands of messages a second to so many users, by so many tasks, each of which publishes so many at a time.
async fn publishes(name: &str, settings: Settings, load: [usize; 3], total: usize) {
    let [count, tasks, at_once] = load;
    let server = Server::start();
    let (node, mut events) = connect(&server, settings.interest(Interest::Buckets)).await;
    let users: Vec<UserId> = (0..count).map(|n| format!("user-{n:07}").into()).collect();
    let added = node.set_interest(&users, &[]).await;
    added.expect("the interest is noted");
    all_ready(&mut events, users.len()).await;
    let body = Bytes::from(vec![b'x'; 200]);
    let rounds = total / tasks / at_once;
    let start = Instant::now();
    let mut set = JoinSet::new();
    for task in 0..tasks {
        let (node, users, body) = (Arc::clone(&node), users.clone(), body.clone());
        set.spawn(async move {
            for round in 0..rounds {
                let first = (task * rounds + round) * at_once;
                let messages: Vec<Message> = (first..first + at_once)
                    .map(|n| message(&users[n % users.len()], &body))
                    .collect();
                node.publish(&messages).await.expect("it is accepted");
            }
        });
    }
    let mut heard = 0;
    while heard < rounds * tasks * at_once {
        match next(&mut events).await {
            Event::Message(_) => heard += 1,
            Event::Restored { .. } => panic!("it was too slow"),
            _ => {}
        }
    }
    set.join_all().await;
    let seconds = start.elapsed().as_secs_f64();
    let thousands = heard as f64 / seconds / 1e3;
    println!("{name:14} {count:7} {tasks:6} {at_once:8} {thousands:11.1}");
}

/// Milliseconds to read so many messages behind a place.
async fn fetches(total: usize, counts: &[usize], rounds: usize) {
    let server = Server::start();
    let log = Log::new("BENCH").max_per_user(20_000);
    let (node, _events) = connect(&server, Settings::new("bench").replayable(log)).await;
    let body = Bytes::from(vec![b'x'; 200]);
    let others: Vec<UserId> = (0..100).map(|n| format!("other-{n}").into()).collect();
    let users: Vec<UserId> = counts.iter().map(|n| format!("user-{n}").into()).collect();
    // Among the messages of others.
    for round in 0..total {
        let mut messages: Vec<Message> = others.iter().map(|user| message(user, &body)).collect();
        messages.truncate(if round % 10 == 0 { 100 } else { 1 });
        let due = users
            .iter()
            .zip(counts)
            .filter(|(_, count)| round < **count);
        messages.extend(due.map(|(user, _)| message(user, &body)));
        node.publish(&messages).await.expect("it is accepted");
    }
    for (user, count) in users.iter().zip(counts) {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            let after = Position {
                offset: 0,
                ..node.horizon().expect("there is a log")
            };
            let fetched = node.fetch(user, after, usize::MAX).await;
            assert_eq!(fetched.expect("the log answers").messages.len(), *count);
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        println!("{count:18} {:10.2}", median(&mut times));
    }
}

#[tokio::main]
async fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let count = option("users", mode.pick(100_000, 1000));
    let once = || Settings::new("bench");
    let log = |storage| Log::new("BENCH").storage(storage);
    let logged = |storage| once().replayable(log(storage));
    println!("{count} users\n");
    println!("{:32}    ready    again  B a user   B a user", "");
    println!("{:32}        s        s      here  in server", "");
    let buckets = Interest::Buckets;
    crowd("at most once, buckets", once().interest(buckets), count).await;
    crowd(
        "replayable, buckets",
        logged(Storage::File).interest(buckets),
        count,
    )
    .await;
    crowd("at most once, per user", once(), count).await;
    crowd("replayable, per user", logged(Storage::File), count).await;

    println!("\npublished, heard  users  tasks  at once  thousand/s");
    let total = mode.pick(50_000, 500);
    for count in mode.pick([1000, count], [10, 100]) {
        for (tasks, at_once) in [(1, 1), (1, 100), (100, 1), (100, 5)] {
            let total = total / if tasks * at_once == 1 { 10 } else { 1 };
            let load = [count, tasks, at_once];
            publishes("at most once", once(), load, total).await;
            publishes("file", logged(Storage::File), load, total).await;
        }
        // The slower, the more users have something in it.
        let total = mode.pick(2000, 100);
        publishes("memory", logged(Storage::Memory), [count, 100, 1], total).await;
    }

    let counts = mode.pick(&[0, 1, 4, 5, 20, 100, 1000, 5000][..], &[0, 4, 5, 20]);
    println!("\nmessages that are read   ms");
    fetches(*counts.last().expect("some"), counts, mode.pick(21, 1)).await;
}
