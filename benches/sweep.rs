//! What does a sweep cost, and does a broadcast wait for it?
//!
//! First the time of one `sweep()` over 100,000 connections that all keep up, as they do most of the time: of as many users,
//! and of a tenth as many with ten each. Then broadcasts to random users while one thread sweeps without pause, beside
//! broadcasts while nobody sweeps; rounds alternate, and each figure is the median over the rounds. A broadcast that took
//! longer than [`OFF_CORE`] is left out: its thread had lost its core, which says nothing about sweeps.

mod support;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Mode, Random, median, quantile};
use tidings::{GenericBroadcaster, Subscription, Text, UserId};

/// No broadcast takes so long; a thread that is taken off its core is away for longer. A sweep takes longer as well: one
/// that had to be waited for would show in the share that is left out.
const OFF_CORE: Duration = Duration::from_millis(2);

type Hub = GenericBroadcaster<Text>;

struct Scene {
    hub: Hub,
    users: Vec<UserId>,
    _streams: Vec<Subscription>,
}

impl Scene {
    fn new(users: usize, each: usize) -> Self {
        let hub = Hub::builder()
            // Nobody reads in this benchmark, and nobody is to be taken out for it.
            .patience(u64::MAX, Duration::from_secs(3600))
            .build()
            .expect("the settings are valid");
        let users: Vec<UserId> = (0..users).map(|n| format!("user-{n:07}").into()).collect();
        let all = (0..each).flat_map(|_| &users);
        let streams = all.map(|user| hub.register(user).expect("ten are within the cap"));
        let _streams = streams.collect();
        Self {
            hub,
            users,
            _streams,
        }
    }

    /// Milliseconds of each sweep.
    fn sweeps(&self, count: usize) -> Vec<f64> {
        let sweep = |_| {
            let start = Instant::now();
            assert_eq!(black_box(self.hub.sweep()), 0);
            start.elapsed().as_secs_f64() * 1e3
        };
        (0..count).map(sweep).collect()
    }

    /// Nanoseconds of each broadcast, and how many were left out.
    fn broadcasts(&self, time: Duration) -> (Vec<f64>, usize) {
        let event = Text::new("x".repeat(200));
        let mut random = Random::new();
        let (mut latencies, mut left_out) = (Vec::with_capacity(1 << 22), 0);
        let begin = Instant::now();
        while begin.elapsed() < time {
            let user = &self.users[random.below(self.users.len())];
            let start = Instant::now();
            black_box(self.hub.broadcast(user, &event).expect("it is text"));
            let took = start.elapsed();
            if took > OFF_CORE {
                left_out += 1;
            } else {
                latencies.push(took.as_nanos() as f64);
            }
        }
        (latencies, left_out)
    }
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let connections = mode.pick(100_000, 1_000);
    let (sweeps, rounds) = mode.pick((101, 11), (3, 1));
    let time = mode.pick(Duration::from_millis(400), Duration::from_millis(5));
    println!("{connections} connections, ms of one sweep, {sweeps} sweeps\n");
    println!("{:20}     p50     p99", "");
    let scenes = [(connections, 1), (connections / 10, 10)].map(|(users, each)| {
        let scene = Scene::new(users, each);
        let mut times = scene.sweeps(sweeps);
        let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
        println!(
            "{:20} {p50:>7.2} {p99:>7.2}",
            format!("{users} users x {each}")
        );
        scene
    });

    println!("\nns of a broadcast to a random user, clock included, median of {rounds} rounds\n");
    println!("{:34}     p50      p99  left out  sweeps/s", "");
    for (scene, each) in scenes.iter().zip([1, 10]) {
        let names = ["nobody sweeps", "one thread sweeps without pause"];
        let mut results = names.map(|_| (Vec::new(), Vec::new(), Vec::new(), Vec::new()));
        for _ in 0..rounds {
            for (sweeping, (p50, p99, left_out, rate)) in [false, true].iter().zip(&mut results) {
                let (stop, swept) = (AtomicBool::new(!sweeping), AtomicU64::new(0));
                let (mut latencies, out) = thread::scope(|scope| {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            black_box(scene.hub.sweep());
                            swept.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    let measured = scene.broadcasts(time);
                    stop.store(true, Ordering::Relaxed);
                    measured
                });
                let of = (latencies.len() + out) as f64;
                p50.push(quantile(&mut latencies, 0.5));
                p99.push(quantile(&mut latencies, 0.99));
                left_out.push(100.0 * out as f64 / of);
                rate.push(swept.into_inner() as f64 / time.as_secs_f64());
            }
        }
        for (name, (p50, p99, left_out, rate)) in names.iter().zip(&mut results) {
            println!(
                "{:34} {:>7.0}  {:>7.0}  {:>6.3} %  {:>8.0}",
                format!("x {each}, {name}"),
                median(p50),
                median(p99),
                median(left_out),
                median(rate),
            );
        }
    }
}
