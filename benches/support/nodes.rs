//! What clients see of an engine: the latency of an event, and how long a client that resumes waits for what it missed.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tidings::{GapReason, GenericBroadcaster, LastEventId, Subscription, Text};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::{Mode, option, quantile};

pub(crate) type Hub = GenericBroadcaster<Text>;

/// Nothing takes so long.
const BOUND: Duration = Duration::from_secs(300);
/// How many events are on their way to the log at the same time, where only their arrival counts.
const AT_ONCE: usize = 500;

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

/// With so many milliseconds between events, for so many seconds. What each event took, on the first node, which broadcasts, and
/// on the other one.
pub(crate) async fn delivery(
    nodes: [Hub; 2],
    pause: u64,
    seconds: u64,
    mode: Mode,
) -> [Vec<f64>; 2] {
    let users = mode.pick(100, 5);
    let rounds = mode.pick((10 * seconds / pause) as usize, 2);
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
    taken
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

/// Clients that come back at once to another node: how many, what each has missed, seconds until half of them, 99 in 100 and all
/// have it, gaps and clients that lack something.
pub(crate) async fn returns(node: impl AsyncFn() -> Hub, mode: Mode) {
    let clients = option("clients", mode.pick(10_000, 100));
    let missed = option("missed", 10) as u128;
    let here = node().await;
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

    let there = node().await;
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
        "{clients:7}  {missed:6}  {:7.1} {:7.1} {:7.1}  {:5}  {lacking:7}",
        quantile(&mut after, 0.5),
        quantile(&mut after, 0.99),
        quantile(&mut after, 1.0),
        gaps.len(),
    );
    assert!(gaps.is_empty(), "nothing was missing: {:?}", gaps[0]);
    assert_eq!(lacking, 0, "clients that lack something");
}
