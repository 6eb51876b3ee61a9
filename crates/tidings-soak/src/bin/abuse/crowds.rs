//! Many publishers on one user, and one user who is a crowd beside a crowd of users.

use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidings::{GenericBroadcaster, History, Text};
use tokio::runtime::Builder;
use tokio_stream::StreamExt;

use crate::report::Report;
use crate::server::now_nanos;
use crate::support::{Mode, Random, quantile};

type Hub = GenericBroadcaster<Text>;

pub(crate) fn run(report: &mut Report, mode: Mode) {
    for history in [false, true] {
        publishers(report, mode, history);
    }
    fairness(report, mode);
}

const PUBLISHERS: usize = 64;

fn publishers(report: &mut Report, mode: Mode, with_history: bool) {
    let each = mode.pick(2_000, 100);
    let all = PUBLISHERS * each;
    let build = || -> Hub {
        let history = History::new(all).bytes(1 << 30);
        GenericBroadcaster::builder()
            // Without a history nobody may fall behind by more than the ring, whatever the machine does.
            .ring_capacity(if with_history { 64 } else { all })
            .history(with_history.then_some(history))
            .build()
            .expect("the settings are valid")
    };
    let time = |publishers: usize| {
        let hub = build();
        let mut stream = hub.register("ann").expect("there is room");
        let barrier = Barrier::new(publishers + 1);
        let start = thread::scope(|scope| {
            for publisher in 0..publishers {
                let (hub, barrier) = (&hub, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for number in 0..all / publishers {
                        let event = Text::new(format!("{publisher} {number}"));
                        hub.broadcast("ann", &event).expect("text can be encoded");
                    }
                });
            }
            // They wait for this thread, which may come back when they are done.
            let start = Instant::now();
            barrier.wait();
            start
        });
        let took = start.elapsed().as_nanos() as f64 / all as f64;
        let mut next = vec![0; publishers];
        let mut faults = 0;
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for _ in 0..all {
                let item = stream.next().await.expect("it goes on");
                let Ok(frame) = item else {
                    faults += all;
                    break;
                };
                let data = frame.data();
                let (publisher, number) = data.split_once(' ').expect("two numbers");
                let publisher: usize = publisher.parse().expect("a number");
                faults += usize::from(number.parse() != Ok(next[publisher]));
                next[publisher] += 1;
            }
        });
        (took, faults)
    };
    let (alone, _) = time(1);
    let (together, faults) = time(PUBLISHERS);
    let kept = if with_history { "a history" } else { "a ring" };
    let case = format!("{PUBLISHERS} publishers on one user, {kept}");
    report.row(
        &case,
        &format!("all {all} events, each publisher's in order"),
        &format!("{together:.0} ns for each broadcast, of one publisher {alone:.0} ns"),
    );
    report.check(
        faults == 0,
        format!("{case}: {faults} events lost or out of order"),
    );
    let most = alone * mode.pick(10.0, 100.0);
    report.check(
        together < most,
        format!("{case}: {together:.0} ns, of one {alone:.0}"),
    );
}

/// One user has as many streams as there are others with one each. The others get 2,000 events a second between them, the one
/// gets 20.
fn fairness(report: &mut Report, mode: Mode) {
    let (small, big) = mode.pick((10_000, 10_000), (500, 500));
    let seconds = mode.pick(10, 1);
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("threads can be started");
    let hub: Hub = GenericBroadcaster::builder()
        .connections_per_user(None)
        .build()
        .expect("the settings are valid");
    let (tell, told) = std::sync::mpsc::channel::<f64>();
    let read = |user: &str, tell: Option<std::sync::mpsc::Sender<f64>>| {
        let mut stream = hub.register(user).expect("there is no cap");
        runtime.spawn(async move {
            while let Some(item) = stream.next().await {
                let sent: u64 = item.expect("no lag").data().parse().expect("a time");
                if let Some(tell) = &tell {
                    let late = now_nanos().saturating_sub(sent) as f64 / 1e6;
                    let _ = tell.send(late);
                }
            }
        });
    };
    for n in 0..small {
        read(&n.to_string(), Some(tell.clone()));
    }
    for _ in 0..big {
        read("big", None);
    }
    let case = format!("{small} users beside one with {big} streams");
    let mut found = Vec::new();
    for with_big in [false, true, false, true] {
        let done = Arc::new(AtomicBool::new(false));
        let publisher = with_big.then(|| {
            let (hub, done) = (hub.clone(), Arc::clone(&done));
            thread::spawn(move || {
                let mut took = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let event = Text::new(now_nanos().to_string());
                    hub.broadcast("big", &event).expect("text can be encoded");
                    took.push(start.elapsed().as_secs_f64() * 1e3);
                    thread::sleep(Duration::from_millis(50));
                }
                quantile(&mut took, 0.5)
            })
        });
        let mut random = Random::new();
        let (start, mut sent) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(seconds) {
            let due = (start.elapsed().as_secs_f64() * 2_000.0) as usize;
            while sent < due {
                sent += 1;
                let event = Text::new(now_nanos().to_string());
                let user = random.below(small).to_string();
                hub.broadcast(&user, &event).expect("text can be encoded");
            }
            thread::sleep(Duration::from_micros(500));
        }
        done.store(true, Ordering::Relaxed);
        let took = publisher.map(|publisher| publisher.join().expect("no panic"));
        thread::sleep(Duration::from_millis(500));
        let mut late: Vec<f64> = told.try_iter().collect();
        report.check(
            late.len() == sent,
            format!("{case}: {} of {sent} events", late.len()),
        );
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|q| quantile(&mut late, q));
        found.push((
            p99,
            format!("p50 {p50:.2}, p99 {p99:.2}, most {most:.1} ms"),
            took,
        ));
    }
    // The second of each: the first has warmed up.
    let (p99_without, without, _) = &found[2];
    let (p99_with, with, took) = &found[3];
    let took = took.unwrap_or(f64::NAN);
    report.row(
        &case,
        &format!("the small ones: {with}"),
        &format!(
            "without the big one: {without}; a broadcast to that takes {took:.1} ms of its caller"
        ),
    );
    // They wait while its streams are woken and have their turn, on however busy a machine.
    let most = p99_without + 10.0 * took + mode.pick(20.0, 2_000.0);
    report.check(
        *p99_with < most,
        format!("{case}: p99 {p99_with:.1} ms, without {p99_without:.1}"),
    );
    hub.disconnect_user("big");
}
