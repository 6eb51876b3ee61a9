//! How long is the caller held up by a broadcast to many streams that wait, and how long when a task broadcasts for it?
//!
//! One user with 1 to 10,000 streams, each read by a task of its own on a runtime with one worker; the caller is a thread of
//! its own. An event is published, the call is timed, and all streams are waited for before the next. Calls take turns; each
//! figure is the median over the rounds.
//!
//!     cargo bench --bench publisher

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use support::{Mode, median};
use tidings::{GenericBroadcaster, Text};
use tokio::runtime::Builder;
use tokio_stream::StreamExt;

const USER: &str = "wall";

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let rounds = mode.pick(101, 3);
    println!("µs that the caller waits, 200 B, median of {rounds} rounds\n");
    println!("{:>8} {:>12} {:>12}", "streams", "broadcast", "try_publish");
    for streams in mode.pick(vec![1, 10, 100, 1000, 10_000], vec![1, 10]) {
        let [mut broadcast, mut publish] = measure(streams, rounds);
        let [broadcast, publish] = [median(&mut broadcast), median(&mut publish)];
        println!("{streams:>8} {broadcast:>12.1} {publish:>12.1}");
    }
}

/// Microseconds of each call.
fn measure(streams: usize, rounds: usize) -> [Vec<f64>; 2] {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime needs nothing that could be missing");
    let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
        .connections_per_user(None)
        .build()
        .expect("the settings are valid");
    let received = Arc::new(AtomicU64::new(0));
    for _ in 0..streams {
        let mut stream = hub.register(USER).expect("there is no cap");
        let received = Arc::clone(&received);
        runtime.spawn(async move {
            while stream.next().await.is_some() {
                received.fetch_add(1, Ordering::Release);
            }
        });
    }
    let publisher = {
        let _inside = runtime.enter();
        hub.publisher(1).expect("there is a runtime")
    };
    let mut expected = 0;
    let mut timed = |call: &dyn Fn()| {
        let start = Instant::now();
        call();
        let took = start.elapsed().as_secs_f64() * 1e6;
        expected += streams as u64;
        while received.load(Ordering::Acquire) < expected {
            thread::yield_now();
        }
        took
    };
    let event = || Text::new("x".repeat(200));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let event_here = event();
        times[0].push(timed(&|| {
            let reached = hub.broadcast(USER, &event_here);
            assert_eq!(reached.expect("it is text"), streams);
        }));
        times[1].push(timed(&|| {
            let published = publisher.try_publish(USER, event());
            published.expect("the one before has been broadcast");
        }));
    }
    times
}
