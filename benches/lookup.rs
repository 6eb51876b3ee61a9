//! Does a second core slow down the look-up of one hot user, and broadcasts to different users?
//!
//! One thread, then two at once, look up the same user among 10,000, or broadcast 200 B to a user of their own, who reads. The
//! two start a short run together, and a run takes
//! as long as the slower of them; a machine that is busy with other things spoils some runs, but not the median of many.

mod support;

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use axum::response::sse::Event;
use futures_util::FutureExt;
use support::{LockedHub, Mode, current_thread, median};
use tidings::{ConnectionId, GenericBroadcaster, Subscription, Text, UserId};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::StreamExt;

/// How many look-ups make a run: a tenth of a millisecond, far below what a scheduler gives a thread at a time.
const RUN: usize = 2_000;

/// And how many broadcasts.
const BROADCASTS: usize = 200;

const NAMES: [&str; 6] = [
    "tidings, connection_count",
    "RwLock,  connection_count",
    "tidings, broadcast to nobody",
    "RwLock,  broadcast to nobody",
    "tidings, broadcast, a user each",
    "RwLock,  broadcast, a user each",
];

/// The user of one thread, and who reads.
struct Own {
    user: UserId,
    stream: Subscription,
    receiver: UnboundedReceiver<Event>,
}

struct Scene {
    tidings: GenericBroadcaster<Text>,
    locked: LockedHub,
    hot: UserId,
    event: Text,
}

impl Scene {
    async fn own(&self, user: &str) -> Own {
        let user = UserId::from(user);
        let connection = ConnectionId::generate();
        Own {
            stream: self.tidings.register(&user).expect("there is no cap"),
            receiver: self.locked.register(user.clone(), connection).await,
            user,
        }
    }

    /// Says how often it did what it measures.
    fn run(&self, case: usize, own: &mut Own, runtime: &Runtime) -> usize {
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
            3 => runtime.block_on(async {
                for _ in 0..RUN {
                    // An empty event allocates nothing, so that no more than the look-up is compared.
                    let event = Event::default();
                    assert_eq!(locked.broadcast(black_box("absent"), event).await, 0);
                }
            }),
            4 => {
                for _ in 0..BROADCASTS {
                    let reached = tidings.broadcast(&own.user, event);
                    assert!(matches!(reached, Ok(1)));
                    let read = own.stream.next().now_or_never();
                    black_box(read.expect("it is there"));
                }
                return BROADCASTS;
            }
            _ => {
                let data = "x".repeat(200);
                runtime.block_on(async {
                    for _ in 0..BROADCASTS {
                        let event = Event::default().data(&data);
                        assert_eq!(locked.broadcast(&own.user, event).await, 1);
                        let event = own.receiver.try_recv();
                        drop(black_box(event.expect("it is there")));
                    }
                });
                return BROADCASTS;
            }
        }
        RUN
    }

    /// Runs every case in turn, alone and then together with another thread that does this too, so often, and gives for
    /// each the nanoseconds per look-up or broadcast.
    fn measure(&self, first: bool, rounds: usize, meeting: &AtomicUsize) -> [[Vec<f64>; 2]; 6] {
        let runtime = current_thread();
        let mut own = runtime.block_on(self.own(if first { "first" } else { "second" }));
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
                        let count = self.run(case, &mut own, &runtime);
                        times.push(begin.elapsed().as_nanos() as f64 / count as f64);
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
        event: Text::new("x".repeat(200)),
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
    println!("{users} users, median of {rounds} runs, ns per call of one thread\n");
    println!("{:32}  one thread  two threads  ratio", "");
    for ((name, [mut alone, one]), [_, other]) in NAMES.into_iter().zip(first).zip(second) {
        let slower = one.iter().zip(&other).map(|(one, other)| one.max(*other));
        let (alone, together) = (median(&mut alone), median(&mut slower.collect::<Vec<_>>()));
        let ratio = together / alone;
        println!("{name:32}  {alone:10.1}  {together:11.1}  {ratio:5.2}");
    }
}
