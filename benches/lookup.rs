//! Does a second core slow down the look-up of one hot user?
//!
//! One thread, then two at once, look up the same user among 10,000. The two start a short run together, and a run takes
//! as long as the slower of them; a machine that is busy with other things spoils some runs, but not the median of many.

mod support;

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use axum::response::sse::Event;
use support::{LockedHub, Mode, current_thread, median};
use tidings::{ConnectionId, GenericBroadcaster, Text, UserId};
use tokio::runtime::Runtime;

/// How many look-ups make a run: a tenth of a millisecond, far below what a scheduler gives a thread at a time.
const RUN: usize = 2_000;

const NAMES: [&str; 4] = [
    "tidings, connection_count",
    "RwLock,  connection_count",
    "tidings, broadcast to nobody",
    "RwLock,  broadcast to nobody",
];

struct Scene {
    tidings: GenericBroadcaster<Text>,
    locked: LockedHub,
    hot: UserId,
    event: Text,
}

impl Scene {
    fn run(&self, case: usize, runtime: &Runtime) {
        let Self {
            tidings,
            locked,
            hot,
            event,
        } = self;
        match case {
            0 => {
                for _ in 0..RUN {
                    black_box(tidings.connection_count(black_box(hot)));
                }
            }
            1 => runtime.block_on(async {
                for _ in 0..RUN {
                    black_box(locked.connection_count(black_box(hot)).await);
                }
            }),
            2 => {
                for _ in 0..RUN {
                    let reached = tidings.broadcast(black_box("absent"), event);
                    assert!(matches!(reached, Ok(0)));
                }
            }
            _ => runtime.block_on(async {
                for _ in 0..RUN {
                    // An empty event allocates nothing, so that no more than the look-up is compared.
                    let event = Event::default();
                    assert_eq!(locked.broadcast(black_box("absent"), event).await, 0);
                }
            }),
        }
    }

    /// Runs every case in turn, alone and then together with another thread that does this too, so often, and gives for
    /// each the nanoseconds per look-up.
    fn measure(&self, first: bool, rounds: usize, meeting: &AtomicUsize) -> [[Vec<f64>; 2]; 4] {
        let runtime = current_thread();
        let mut times = NAMES.map(|_| [Vec::new(), Vec::new()]);
        let mut arrivals = 0;
        for _ in 0..rounds {
            for (case, times) in times.iter_mut().enumerate() {
                for (together, times) in times.iter_mut().enumerate() {
                    arrivals += 2;
                    meeting.fetch_add(1, Ordering::AcqRel);
                    while meeting.load(Ordering::Acquire) < arrivals {
                        spin_loop();
                    }
                    if first || together == 1 {
                        let begin = Instant::now();
                        self.run(case, &runtime);
                        times.push(begin.elapsed().as_nanos() as f64 / RUN as f64);
                    }
                }
            }
        }
        times
    }
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let (users, rounds) = mode.pick((10_000, 2_000), (100, 1));
    let ids: Vec<UserId> = (0..users).map(|n| format!("user-{n:07}").into()).collect();
    let scene = Scene {
        tidings: GenericBroadcaster::new(),
        locked: LockedHub::default(),
        hot: ids[users / 2].clone(),
        event: Text::new("nobody gets this".into()),
    };
    let subscriptions = ids.iter().map(|id| scene.tidings.register(id));
    let _subscriptions: Vec<_> = subscriptions.map(|s| s.expect("there is no cap")).collect();
    let _receivers: Vec<_> = current_thread().block_on(async {
        let mut receivers = Vec::new();
        for id in &ids {
            let connection = ConnectionId::generate();
            receivers.push(scene.locked.register(id.clone(), connection).await);
        }
        receivers
    });

    let meeting = AtomicUsize::new(0);
    let (first, second) = thread::scope(|scope| {
        let second = scope.spawn(|| scene.measure(false, rounds, &meeting));
        let first = scene.measure(true, rounds, &meeting);
        (first, second.join().expect("look-ups do not panic"))
    });
    println!("{users} users, median of {rounds} runs, ns per look-up of one thread\n");
    println!("{:30}  one thread  two threads  ratio", "");
    for ((name, [mut alone, one]), [_, other]) in NAMES.into_iter().zip(first).zip(second) {
        let slower = one.iter().zip(&other).map(|(one, other)| one.max(*other));
        let (alone, together) = (median(&mut alone), median(&mut slower.collect::<Vec<_>>()));
        let ratio = together / alone;
        println!("{name:30}  {alone:10.1}  {together:11.1}  {ratio:5.2}");
    }
}
