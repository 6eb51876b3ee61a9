//! What does an engine cost, NATS beside Redis: a node of many users, and how soon it hears again after the server was restarted;
//! how fast it publishes, and what an event takes in memory; how long an event is on its way; how fast the log is read; and how long
//! ten thousand clients wait that come back at once?
//!
//! A server is started for each part, without a network in between, and shares the machine with the benchmark. The engines take
//! turns. Memory is what the two processes have more in RAM than before. `NATS_SERVER` and `REDIS_SERVER` name other programs,
//! `--scene NAME` runs one part, `--only WORD` those rows that contain it: memory that one row has freed does not count for the
//! next.

mod support;

#[path = "../tests/support/nats.rs"]
mod nats;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "../tests/support/redis.rs"]
mod redis;

use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tidings::UserId;
use tidings::backplane::{Backplane, Event, Message, Position, Received};
use tidings_nats::{Interest, Nats, Storage};
use tidings_redis::Redis;
use tokio::task::JoinSet;

use nodes::Hub;
use support::kernel::rss_kb;
use support::{Mode, median, option, quantile, word};

/// Which engine, and how it is used.
enum Kind {
    Nats(tidings_nats::Settings),
    Redis(tidings_redis::Settings, &'static [&'static str]),
}

enum Server {
    Nats(nats::Server),
    Redis(redis::Server),
}

impl Kind {
    fn start(&self) -> Server {
        match self {
            Self::Nats(_) => Server::Nats(nats::Server::start()),
            Self::Redis(_, options) => Server::Redis(redis::Server::start(options)),
        }
    }

    async fn node(&self, server: &Server) -> Arc<dyn Backplane> {
        match (self, server) {
            (Self::Nats(settings), Server::Nats(server)) => {
                let options = ConnectOptions::new().ignore_discovered_servers();
                let node = Nats::connect(&server.url(), options, settings.clone()).await;
                Arc::new(node.expect("it connects"))
            }
            (Self::Redis(settings, _), Server::Redis(server)) => {
                let url = redis::url(server.address());
                let node = Redis::connect(url, settings.clone()).await;
                Arc::new(node.expect("it connects"))
            }
            _ => unreachable!("a server of its own"),
        }
    }

    async fn hub(&self, server: &Server) -> Hub {
        let hub = Hub::builder().backplane(self.node(server).await);
        hub.build().expect("valid settings")
    }
}

impl Server {
    fn pid(&self) -> u32 {
        match self {
            Self::Nats(server) => server.pid(),
            Self::Redis(server) => server.pid(),
        }
    }

    fn restart(&mut self) {
        match self {
            Self::Nats(server) => server.restart(),
            Self::Redis(server) => server.restart(),
        }
    }
}

/// So much is kept of each user that nothing is dropped.
const KEPT: u32 = 20_000;

fn at_most_once() -> Vec<(&'static str, Kind)> {
    let nats = || tidings_nats::Settings::new("bench");
    let buckets = nats().interest(Interest::Buckets);
    let redis = tidings_redis::Settings::new("bench");
    vec![
        ("at most once, NATS, buckets", Kind::Nats(buckets)),
        ("at most once, NATS, per user", Kind::Nats(nats())),
        ("at most once, Redis", Kind::Redis(redis, &[])),
    ]
}

/// Each is of one server: no event has another copy.
fn replayable() -> Vec<(&'static str, Kind)> {
    let nats = |storage, interest| {
        let log = tidings_nats::Log::new("BENCH").storage(storage);
        let settings = tidings_nats::Settings::new("bench").interest(interest);
        Kind::Nats(settings.replayable(log.max_per_user(KEPT)))
    };
    let log = || tidings_redis::Log::new().max_per_user(KEPT);
    let redis = |log, options| {
        let settings = tidings_redis::Settings::new("bench");
        Kind::Redis(settings.replayable(log), options)
    };
    vec![
        (
            "files, NATS, buckets",
            nats(Storage::File, Interest::Buckets),
        ),
        (
            "files, NATS, per user",
            nats(Storage::File, Interest::PerUser),
        ),
        (
            "files, Redis, always",
            redis(log().durable(), redis::ALWAYS),
        ),
        (
            "memory, NATS, buckets",
            nats(Storage::Memory, Interest::Buckets),
        ),
        ("memory, Redis", redis(log(), &[])),
    ]
}

type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

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
async fn hears(node: &dyn Backplane, events: &mut Events, users: &[UserId]) {
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

async fn crowd(name: &str, kind: &Kind, count: usize) {
    let mut server = kind.start();
    let node = kind.node(&server).await;
    let mut events = node.events();
    let users: Vec<UserId> = (0..count).map(|n| format!("user-{n:07}").into()).collect();
    let sample: Vec<UserId> = users.iter().step_by(count / 100).cloned().collect();
    let own = std::process::id();
    let before = (rss_kb(own), rss_kb(server.pid()));

    let start = Instant::now();
    let added = node.set_interest(&users, &[]).await;
    added.expect("the interest is noted");
    all_ready(&mut events, count).await;
    let ready = start.elapsed();
    hears(&*node, &mut events, &sample).await;
    let after = (rss_kb(own), rss_kb(server.pid()));

    server.restart();
    let start = Instant::now();
    while !matches!(next(&mut events).await, Event::Restored { .. }) {}
    hears(&*node, &mut events, &sample).await;
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

/// Thousands of messages a second to so many users, by so many tasks, each of which publishes so many at a time; and bytes of
/// memory for each.
async fn publishes(kind: &Kind, load: [usize; 3], total: usize) -> [f64; 3] {
    let [count, tasks, at_once] = load;
    let server = kind.start();
    let node = kind.node(&server).await;
    let mut events = node.events();
    let users: Vec<UserId> = (0..count).map(|n| format!("user-{n:07}").into()).collect();
    let added = node.set_interest(&users, &[]).await;
    added.expect("the interest is noted");
    all_ready(&mut events, users.len()).await;
    let body = Bytes::from(vec![b'x'; 200]);
    let rounds = total / tasks / at_once;
    let memory = || [std::process::id(), server.pid()].map(rss_kb);
    let before = memory();
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
    let after = memory();
    let each = |of: usize| (after[of] - before[of]) * 1024.0 / heard as f64;
    [heard as f64 / seconds / 1e3, each(0), each(1)]
}

/// How many messages there are behind a place. An answer may have a part of them.
async fn read(node: &dyn Backplane, user: &UserId, mut after: Position) -> usize {
    let mut count = 0;
    loop {
        let fetched = node.fetch(user, after, usize::MAX).await;
        let fetched = fetched.expect("the log answers");
        count += fetched.messages.len();
        after = fetched.through;
        if after.offset >= fetched.head.offset {
            return count;
        }
    }
}

/// Milliseconds to read so many messages behind a place.
async fn fetches(kind: &Kind, total: usize, counts: &[usize], rounds: usize) {
    let server = kind.start();
    let node = kind.node(&server).await;
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
            assert_eq!(read(&*node, user, after).await, *count);
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        print!(" {:7.2}", median(&mut times));
    }
    println!();
}

async fn scenes(mode: Mode) {
    let scene = word("scene");
    let is_wanted = |name: &str| scene.as_deref().is_none_or(|scene| scene == name);
    let only = word("only").unwrap_or_default();
    let is_meant = |(name, _): &(&str, Kind)| name.contains(&only);
    let all = || {
        at_most_once()
            .into_iter()
            .chain(replayable())
            .filter(is_meant)
    };
    let logs = || replayable().into_iter().filter(is_meant);

    if is_wanted("crowd") {
        let count = option("users", mode.pick(100_000, 1000));
        println!(
            "\n{count} users{:23}    ready    again  B a user   B a user",
            ""
        );
        println!("{:32}        s        s      here  in server", "");
        for (name, kind) in all() {
            crowd(name, &kind, count).await;
        }
    }
    if is_wanted("publish") {
        let users = option("users", mode.pick(1000, 10));
        let total = mode.pick(50_000, 500);
        for (tasks, at_once) in [(1, 1), (100, 5)] {
            let total = total / if tasks * at_once == 1 { 10 } else { 1 };
            println!(
                "\n{total} events of 200 B to {users} users, {tasks} tasks with {at_once} at once"
            );
            println!("{:32} thousand/s  B each here  in server", "");
            let kinds: Vec<_> = all().collect();
            let mut seen = vec![[(); 3].map(|()| Vec::new()); kinds.len()];
            for _ in 0..mode.pick(3, 1) {
                for ((_, kind), seen) in kinds.iter().zip(&mut seen) {
                    let figures = publishes(kind, [users, tasks, at_once], total).await;
                    for (seen, figure) in seen.iter_mut().zip(figures) {
                        seen.push(figure);
                    }
                }
            }
            for ((name, _), mut seen) in kinds.iter().zip(seen) {
                let [rate, here, there] = seen.each_mut().map(|seen| median(seen));
                println!("{name:32} {rate:10.1} {here:12.0} {there:10.0}");
            }
        }
    }
    if is_wanted("delivery") {
        println!("\nmilliseconds from broadcast to stream, events of 200 B to 100 users");
        println!("{:32} {:9}{:>18}{:>18}", "", "", "own node", "other node");
        println!("{:32} a second      p50      p99      p50      p99", "");
        for pause in [20, 2] {
            for (name, kind) in all() {
                let server = kind.start();
                let nodes = [kind.hub(&server).await, kind.hub(&server).await];
                print!("{name:32} {:8}", 1000 / pause);
                for taken in &mut nodes::delivery(nodes, pause, 10, mode).await {
                    print!(
                        " {:8.2} {:8.2}",
                        quantile(taken, 0.5),
                        quantile(taken, 0.99)
                    );
                }
                println!();
            }
        }
    }
    if is_wanted("fetch") {
        let counts = mode.pick(&[0, 1, 5, 20, 100, 1000, 5000][..], &[0, 4, 5, 20]);
        print!("\nmilliseconds to read so many {:3}", "");
        counts.iter().for_each(|count| print!(" {count:7}"));
        println!();
        for (name, kind) in logs() {
            print!("{name:32}");
            let total = *counts.last().expect("some");
            fetches(&kind, total, counts, mode.pick(21, 1)).await;
        }
    }
    if is_wanted("return") {
        println!(
            "\nclients that come back at once to another node: seconds until they have what they missed"
        );
        println!(
            "{:32} clients  missed      p50     p99    last   gaps  lacking",
            ""
        );
        for (name, kind) in logs() {
            let server = kind.start();
            print!("{name:32} ");
            nodes::returns(async || kind.hub(&server).await, mode).await;
        }
    }
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    for (variable, program) in [
        ("NATS_SERVER", "nats-server"),
        ("REDIS_SERVER", "redis-server"),
    ] {
        let program = std::env::var(variable).unwrap_or_else(|_| program.into());
        let version = Command::new(&program).arg("--version").output();
        let version = version.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        print!("{}", String::from_utf8_lossy(&version.stdout));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(scenes(mode));
    runtime.shutdown_background();
}
