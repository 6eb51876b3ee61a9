//! How long does a look-up take while users never stop coming and going?
//!
//! On a runtime of two workers, one task looks up random users out of 10,000 and takes the time of each look-up; another
//! registers and drops new users without pause. Rounds alternate between the hubs, and each figure is the median over
//! the rounds. The last line, the same look-ups with no writer, tells how much of it is the clock and the cache.
//!
//! Only look-ups that took place while somebody came or went are counted, and none that took longer than [`OFF_CORE`]:
//! on a machine that is busy with other things a task may lose its core, which says nothing about either hub.
//!
//! Two workers of one runtime are what a service has, and what suits the lock: a task that waits for it hands its worker
//! on. With a thread and a runtime for each task, every wait would put a thread to sleep, and cost ten times as much.

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use support::{LockedHub, Mode, Random, current_thread, median, quantile};
use tidings::{ConnectionId, GenericBroadcaster, Text, UserId};
use tokio::runtime::Builder;

/// No wait for the other task takes so long; a thread that is taken off its core is away for longer.
const OFF_CORE: Duration = Duration::from_millis(2);

/// How many look-ups are counted or left out together.
const RUN: usize = 16;

/// A round with fewer look-ups than this says nothing.
const ENOUGH: usize = 1_000;

/// What the two tasks do, on either hub.
trait Hub: Clone + Send + Sync + 'static {
    fn come_and_go(&self, user: &UserId) -> impl Future<Output = ()> + Send;
    fn look_up(&self, user: &UserId) -> impl Future<Output = usize> + Send;
}

impl Hub for GenericBroadcaster<Text> {
    async fn come_and_go(&self, user: &UserId) {
        drop(self.register(user).expect("there is no cap to reach"));
    }

    async fn look_up(&self, user: &UserId) -> usize {
        self.connection_count(user)
    }
}

impl Hub for LockedHub {
    async fn come_and_go(&self, user: &UserId) {
        let connection = ConnectionId::generate();
        let receiver = self.register(user.clone(), connection.clone()).await;
        self.unregister(user, &connection).await;
        drop(receiver);
    }

    async fn look_up(&self, user: &UserId) -> usize {
        self.connection_count(user).await
    }
}

/// Who is there, who comes and goes, and for how long.
struct Scene {
    present: Vec<UserId>,
    newcomers: Vec<UserId>,
    time: Duration,
}

/// What one round gave.
struct Round {
    /// Nanoseconds of each look-up.
    latencies: Vec<f64>,
    /// Users that came and went each second.
    churn: f64,
}

/// How many came and went so far, and whether to stop. The writer alone writes the first.
#[derive(Default)]
struct Progress {
    came: Padded<AtomicU32>,
    stop: AtomicBool,
}

/// Alone on its cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// Has users come and go until it is told to stop.
async fn write(hub: impl Hub, scene: Arc<Scene>, progress: Arc<Progress>) {
    let mut came = 0;
    while !progress.stop.load(Ordering::Relaxed) {
        for user in &scene.newcomers {
            hub.come_and_go(user).await;
            came += 1;
            progress.came.0.store(came, Ordering::Relaxed);
        }
    }
}

/// Looks up for as long as the scene lasts; with a writer, counts only what took place beside its work.
async fn read(hub: impl Hub, scene: Arc<Scene>, progress: Arc<Progress>, writer: bool) -> Round {
    let mut latencies = Vec::with_capacity(1 << 22);
    let mut random = Random::new();
    let begin = Instant::now();
    while begin.elapsed() < scene.time {
        let came = progress.came.0.load(Ordering::Relaxed);
        let counted = latencies.len();
        let mut longest = Duration::ZERO;
        for _ in 0..RUN {
            let user = &scene.present[random.below(scene.present.len())];
            let asked = Instant::now();
            black_box(hub.look_up(user).await);
            let took = asked.elapsed();
            latencies.push(took.as_nanos() as f64);
            longest = longest.max(took);
        }
        let undisturbed = writer && progress.came.0.load(Ordering::Relaxed) == came;
        if undisturbed || longest > OFF_CORE {
            latencies.truncate(counted);
        }
    }
    progress.stop.store(true, Ordering::Relaxed);
    let came = progress.came.0.load(Ordering::Relaxed);
    Round {
        latencies,
        churn: f64::from(came) / scene.time.as_secs_f64(),
    }
}

fn on_two_workers(hub: &impl Hub, scene: &Arc<Scene>, writer: bool) -> Round {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("two threads can be started");
    let progress = Arc::<Progress>::default();
    if writer {
        runtime.spawn(write(hub.clone(), scene.clone(), progress.clone()));
    }
    let reader = runtime.spawn(read(hub.clone(), scene.clone(), progress, writer));
    runtime.block_on(reader).expect("the reader does not panic")
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let (users, rounds) = mode.pick((10_000, 11), (100, 1));
    let scene = Arc::new(Scene {
        present: (0..users).map(|n| format!("user-{n:07}").into()).collect(),
        newcomers: (0..1024).map(|n| format!("new-{n:04}").into()).collect(),
        time: mode.pick(Duration::from_millis(400), Duration::from_millis(2)),
    });
    let hub = GenericBroadcaster::<Text>::new();
    let present = scene.present.iter().map(|id| hub.register(id));
    let _present: Vec<_> = present.map(|s| s.expect("there is no cap")).collect();
    let locked = LockedHub::default();
    let _receivers: Vec<_> = current_thread().block_on(async {
        let mut receivers = Vec::new();
        for id in &scene.present {
            receivers.push(locked.register(id.clone(), ConnectionId::generate()).await);
        }
        receivers
    });

    let names = ["tidings", "RwLock", "tidings, no writer"];
    let mut results = names.map(|_| (Vec::new(), Vec::new(), Vec::new(), Vec::new()));
    for _ in 0..rounds {
        let measured = [
            on_two_workers(&hub, &scene, true),
            on_two_workers(&locked, &scene, true),
            on_two_workers(&hub, &scene, false),
        ];
        for (mut round, (p50, p99, p999, churn)) in measured.into_iter().zip(&mut results) {
            if round.latencies.len() < ENOUGH {
                continue;
            }
            p50.push(quantile(&mut round.latencies, 0.5));
            p99.push(quantile(&mut round.latencies, 0.99));
            p999.push(quantile(&mut round.latencies, 0.999));
            churn.push(round.churn);
        }
    }
    println!("{users} users, median of up to {rounds} rounds, ns per look-up, clock included\n");
    println!(
        "{:20}     p50      p99    p99.9  came and went/s  rounds",
        ""
    );
    for (name, (p50, p99, p999, churn)) in names.iter().zip(&mut results) {
        let counted = churn.len();
        if counted == 0 {
            println!("{name:20}  too few look-ups while users came and went");
            continue;
        }
        let (p50, p99, p999, churn) = (median(p50), median(p99), median(p999), median(churn));
        println!("{name:20}  {p50:6.0}  {p99:7.0}  {p999:7.0}  {churn:15.0}  {counted:6}");
    }
}
