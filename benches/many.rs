//! What does one event for many users cost, beside a loop of broadcasts, and who waits meanwhile?
//!
//! - The cost for each user: 100,000 users with a stream each or, with a history, half of them away. The event is 200 B of
//!   JSON. Streams are not read in between, so that what is compared is what the caller pays. The three take turns; each
//!   figure is the median over the rounds.
//! - Others: two workers, a user whose events are sent every millisecond and read by a task. How long these take while the
//!   event for all goes out, in a call and by a publisher, again and again.
//!
//!     cargo bench --bench many

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Messages, Mode, median};
use tidings::{GenericBroadcaster, History, Subscription, Text};
use tokio::runtime::Builder;
use tokio_stream::StreamExt;

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let users = mode.pick(100_000, 100);
    let rounds = mode.pick(15, 1);
    println!("ns per user, {users} users, 200 B of JSON, median of {rounds} rounds\n");
    println!("{:>24} {:>8} {:>8} {:>8}", "", "loop", "many", "all");
    for history in [None, Some(History::new(100).away_users(users))] {
        let [mut singly, mut many, mut all] = cost(users, rounds, history);
        let name = match history {
            None => "no history",
            Some(_) => "history, half are away",
        };
        let [singly, many, all] = [median(&mut singly), median(&mut many), median(&mut all)];
        println!("{name:>24} {singly:>8.0} {many:>8.0} {all:>8.0}");
    }
    println!("\nms from a broadcast to its stream, while an event goes to {users} users\n");
    println!("{:>24} {:>8} {:>8} {:>8}", "", "p50", "p99", "most");
    let time = mode.pick(Duration::from_secs(5), Duration::from_millis(50));
    for (name, how) in [
        ("nothing else", How::Not),
        ("broadcast_all", How::Call),
        ("publish_all", How::Publisher),
    ] {
        let mut times = others(users, time, how);
        times.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "{name:>24} {:>8.2} {:>8.2} {:>8.2}",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

fn names(users: usize) -> Vec<String> {
    (0..users).map(|user| format!("user-{user}")).collect()
}

/// Nanoseconds for each user: in a loop, to many, to all.
fn cost(users: usize, rounds: usize, history: Option<History>) -> [Vec<f64>; 3] {
    let hub: GenericBroadcaster<Messages> = GenericBroadcaster::builder()
        .history(history)
        .build()
        .expect("the settings are valid");
    let names = names(users);
    let mut streams: Vec<Subscription> = names
        .iter()
        .map(|user| hub.register(user.as_str()).expect("there is no cap"))
        .collect();
    if history.is_some() {
        streams.truncate(users / 2);
    }
    // In no order that memory could profit by.
    let mut names = names;
    fastrand::Rng::with_seed(7).shuffle(&mut names);
    let event = Messages::filling(200);
    let timed = |call: &dyn Fn()| {
        let start = Instant::now();
        call();
        start.elapsed().as_nanos() as f64 / users as f64
    };
    let mut times = [const { Vec::new() }; 3];
    // What is in rings and histories is overwritten from then on.
    for round in 0..rounds + 100 {
        let singly = timed(&|| {
            for user in &names {
                drop(black_box(hub.broadcast(user, black_box(&event))));
            }
        });
        if round < 100 && rounds > 1 {
            continue;
        }
        times[0].push(singly);
        times[1].push(timed(&|| {
            let reach = hub.broadcast_many(&names, black_box(&event));
            assert_eq!(reach.expect("messages are JSON").users, users);
        }));
        times[2].push(timed(&|| {
            let reach = hub.broadcast_all(black_box(&event));
            assert_eq!(reach.expect("messages are JSON").users, users);
        }));
    }
    times
}

#[derive(Clone, Copy)]
enum How {
    Not,
    Call,
    Publisher,
}

/// Milliseconds from each broadcast to one user until its stream has it.
fn others(users: usize, time: Duration, how: How) -> Vec<f64> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime needs nothing that could be missing");
    let hub = GenericBroadcaster::<Text>::new();
    let _streams: Vec<Subscription> = names(users)
        .into_iter()
        .map(|user| hub.register(user).expect("there is no cap"))
        .collect();
    runtime.block_on(async {
        let is_over = Arc::new(AtomicBool::new(false));
        let busy = tokio::spawn({
            let (hub, is_over) = (hub.clone(), is_over.clone());
            let publisher = hub.publisher(1).expect("there is a runtime");
            let text = || Text::new("x".repeat(200));
            async move {
                while !is_over.load(Ordering::Relaxed) {
                    match how {
                        How::Not => return,
                        How::Call => drop(hub.broadcast_all(&text())),
                        How::Publisher => {
                            drop(publisher.publish_all(text()).await);
                            publisher.flush().await;
                        }
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut stream = hub.register("other").expect("there is no cap");
        let begin = Instant::now();
        let reader = tokio::spawn(async move {
            let mut times = Vec::new();
            while let Some(Ok(frame)) = stream.next().await {
                // The others' event has no number.
                if let Ok(sent) = frame.data().parse::<u64>() {
                    times.push((begin.elapsed().as_nanos() as u64 - sent) as f64 / 1e6);
                }
            }
            times
        });
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        while begin.elapsed() < time {
            ticks.tick().await;
            let sent = Text::new(begin.elapsed().as_nanos().to_string());
            drop(hub.broadcast("other", &sent));
        }
        is_over.store(true, Ordering::Relaxed);
        busy.await.expect("it does not panic");
        hub.drain_user("other");
        reader.await.expect("it does not panic")
    })
}
