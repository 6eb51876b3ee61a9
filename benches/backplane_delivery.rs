//! With NATS between two nodes, how long is an event on its way to a stream, on the node that broadcasts and on the other one?
//! How long do ten thousand clients wait that come back at once to a node which does not know them?
//!
//! Once with one server, once with a cluster of three of which each keeps the log, both on this machine, which the nodes and
//! the clients share. `NATS_SERVER` names another program than the `nats-server` in the path. `--scene delivery` and
//! `--scene return` run one of the two parts.

mod support;

#[path = "../tests/support/example.rs"]
mod example;
#[path = "../tests/support/nats.rs"]
mod nats;
#[allow(dead_code, reason = "the servers are used, the nodes are not")]
#[path = "../tests/support/three.rs"]
mod three;

use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use futures_util::StreamExt;
use tidings::backplane::Level;
use tidings::{GapReason, GenericBroadcaster, LastEventId, Subscription, Text};
use tidings_nats::{Interest, Log, Nats, Settings};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use support::{Mode, quantile, word};

type Hub = GenericBroadcaster<Text>;

/// Nothing takes so long.
const BOUND: Duration = Duration::from_secs(300);
/// How many events are on their way to the log at the same time, where only their arrival counts.
const AT_ONCE: usize = 500;

/// The servers, one or three.
enum Engine {
    One(nats::Server),
    Three(three::Servers),
}

impl Engine {
    async fn start(servers: usize) -> Self {
        match servers {
            1 => Self::One(nats::Server::start()),
            _ => Self::Three(three::Servers::start().await),
        }
    }

    async fn node(&self, level: Level) -> Hub {
        let (urls, replicas) = match self {
            Self::One(server) => (server.url(), 1),
            Self::Three(servers) => {
                let url = |server| format!("nats://node:n@{}", servers.address(server));
                ([0, 1, 2].map(url).join(","), 3)
            }
        };
        let settings = Settings::new("cluster").interest(Interest::Buckets);
        let settings = match level {
            Level::Replayable => settings.replayable(Log::new(three::STREAM).replicas(replicas)),
            _ => settings,
        };
        let options = ConnectOptions::new().ignore_discovered_servers();
        let nats = Nats::connect(&urls, options, settings).await;
        let hub = Hub::builder().backplane(nats.expect("the servers are there"));
        hub.build().expect("valid settings")
    }
}

fn user(number: usize) -> String {
    format!("user-{number:05}")
}

/// 200 B that begin with a number.
fn event(number: u128) -> Text {
    Text::new(format!("{number:0>20} {}", "x".repeat(179)))
}

fn number_of(data: &str) -> u128 {
    let number = data
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    number.expect("it begins with a number")
}

/// How many milliseconds each of so many events was on its way.
async fn reads(mut stream: Subscription, count: usize, begin: Instant) -> Vec<f64> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let item = timeout(BOUND, stream.next()).await;
        let frame = item.expect("it comes").expect("the stream goes on");
        let sent = number_of(&frame.expect("nothing is missing").data());
        taken.push((begin.elapsed().as_nanos() - sent) as f64 / 1e6);
    }
    taken
}

/// With so many milliseconds between events.
async fn delivery(servers: usize, level: Level, pause: u64, mode: Mode) {
    let users = mode.pick(100, 5);
    let rounds = mode.pick(200 / pause as usize, 2);
    let engine = Engine::start(servers).await;
    let nodes = [engine.node(level).await, engine.node(level).await];
    let begin = Instant::now();
    let mut readers = JoinSet::new();
    for number in 0..users {
        for (index, node) in nodes.iter().enumerate() {
            let stream = node.register_when_ready(user(number)).await;
            let stream = stream.expect("there is room");
            readers.spawn(async move { (index, reads(stream, rounds, begin).await) });
        }
    }
    let mut ticks = interval(Duration::from_millis(pause));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..rounds {
        for number in 0..users {
            ticks.tick().await;
            let sent = nodes[0].broadcast(&user(number), &event(begin.elapsed().as_nanos()));
            sent.expect("there is room");
        }
    }
    let mut taken = [Vec::new(), Vec::new()];
    while let Some(read) = readers.join_next().await {
        let (index, times) = read.expect("nothing is missing");
        taken[index].extend(times);
    }
    print!("{servers:7}  {:13} {:8}", name(level), 1000 / pause);
    for taken in &mut taken {
        print!(
            "  {:8.2} {:8.2}",
            quantile(taken, 0.5),
            quantile(taken, 0.99)
        );
    }
    println!();
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Replayable => "replayable",
        _ => "at most once",
    }
}

/// Broadcasts to each user, and returns when the log has all of it.
async fn confirmed(hub: &Hub, users: usize, number: u128) {
    let sending = futures_util::stream::iter(0..users).map(|index| async move {
        let sent = hub.broadcast_confirmed(&user(index), &event(number)).await;
        sent.expect("the servers are there");
    });
    sending.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// How a client has come back.
struct Back {
    /// Seconds until it had what it missed.
    after: f64,
    gaps: Vec<(GapReason, Option<u64>)>,
    is_whole: bool,
}

async fn comes_back(hub: Hub, index: usize, id: LastEventId, missed: u128, begin: Instant) -> Back {
    let mut stream = hub.resume(user(index), &id).expect("there is room");
    let mut gaps = Vec::new();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&missed) {
        let Ok(item) = timeout(BOUND, stream.next()).await else {
            break;
        };
        match item.expect("the stream goes on") {
            Ok(frame) => numbers.push(number_of(&frame.data())),
            Err(gap) => gaps.push((gap.reason, gap.missed)),
        }
    }
    Back {
        after: begin.elapsed().as_secs_f64(),
        is_whole: numbers.into_iter().eq(1..=missed),
        gaps,
    }
}

async fn returns(servers: usize, mode: Mode) {
    let clients = support::option("clients", mode.pick(10_000, 100));
    let missed = support::option("missed", 10) as u128;
    let engine = Engine::start(servers).await;
    let here = engine.node(Level::Replayable).await;
    let mut streams = Vec::with_capacity(clients);
    for index in 0..clients {
        streams.push(here.register(user(index)).expect("there is room"));
    }
    confirmed(&here, clients, 0).await;
    let mut ids = Vec::with_capacity(clients);
    for mut stream in streams {
        let frame = timeout(BOUND, stream.next()).await.expect("it comes");
        let frame = frame
            .expect("the stream goes on")
            .expect("nothing is missing");
        let id = frame.fields().find(|(name, _)| *name == "id");
        ids.push(LastEventId::new(id.expect("it has an id").1));
    }
    for number in 1..=missed {
        confirmed(&here, clients, number).await;
    }

    let there = engine.node(Level::Replayable).await;
    let begin = Instant::now();
    let mut coming = JoinSet::new();
    for (index, id) in ids.into_iter().enumerate() {
        coming.spawn(comes_back(there.clone(), index, id, missed, begin));
    }
    let back = coming.join_all().await;
    let mut after: Vec<f64> = back.iter().map(|client| client.after).collect();
    let gaps: Vec<_> = back.iter().flat_map(|client| &client.gaps).collect();
    let lacking = back.iter().filter(|client| !client.is_whole).count();
    println!(
        "{servers:7}  {clients:7}  {missed:6}  {:7.1} {:7.1} {:7.1}  {:5}  {lacking:7}",
        quantile(&mut after, 0.5),
        quantile(&mut after, 0.99),
        quantile(&mut after, 1.0),
        gaps.len(),
    );
    assert!(gaps.is_empty(), "nothing was missing: {:?}", gaps[0]);
    assert_eq!(lacking, 0, "clients that lack something");
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let program = std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
    let version = Command::new(&program).arg("--version").output();
    let version = version.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    print!("{}", String::from_utf8_lossy(&version.stdout));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let scene = word("scene");
    let is_wanted = |name: &str| scene.as_deref().is_none_or(|scene| scene == name);
    if is_wanted("delivery") {
        println!("\nmilliseconds from broadcast to stream, events of 200 B to 100 users");
        println!("{:31}  {:>17}  {:>17}", "", "own node", "other node");
        println!("servers  level         a second       p50      p99       p50      p99");
        for servers in [1, 3] {
            for level in [Level::AtMostOnce, Level::Replayable] {
                // The task that publishes sleeps between events only if they are rare.
                for pause in [20, 2] {
                    runtime.block_on(delivery(servers, level, pause, mode));
                }
            }
        }
    }
    if is_wanted("return") {
        println!(
            "\nclients that come back at once to another node: seconds until they have what they missed"
        );
        println!("servers  clients  missed      p50     p99    last   gaps  lacking");
        for servers in [1, 3] {
            runtime.block_on(returns(servers, mode));
        }
    }
    runtime.shutdown_background();
}
