//! How long does it take from publishing an event until all of a user's receivers have it?
//!
//! Every receiver is a task that waits, so an iteration is: encode, publish, wake all, and each receives.
//!
//! - `broadcast`: receivers read events. One of tidings takes the bytes that go on the wire; one of the baseline takes
//!   its clone of the `Event`, which axum has yet to finish.
//! - `broadcast-bodies`: receivers read the body of a response, as hyper does: `SseBody` here, axum's `Sse` there.
//! - `broadcast-two-workers`: the first, with the receivers spread over two threads.

mod support;

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use support::{LockedHub, Messages, Mode, current_thread};
use tidings::{ConnectionId, GenericBroadcaster, KeepAlive, SseBody};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio_stream::wrappers::UnboundedReceiverStream;

const USER: &str = "ann";

/// Receivers that still miss the event that was sent last.
#[derive(Default)]
struct Missing {
    count: AtomicUsize,
    none: Notify,
}

impl Missing {
    fn arrived(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none.notify_one();
        }
    }
}

/// What a receiver reads.
#[derive(Clone, Copy)]
enum Reading {
    Events,
    Body,
}

async fn read_body(mut body: Body, missing: Arc<Missing>) {
    while let Some(Ok(frame)) = body.frame().await {
        let data = black_box(frame.into_data()).expect("there are no trailers");
        // Not the comment with which a body begins that has no event yet.
        if data.len() > ":\n".len() {
            missing.arrived();
        }
    }
}

/// Publishes `iters` events, each after the one before has reached all.
async fn publish_each<F: Future<Output = usize>>(
    iters: u64,
    receivers: usize,
    missing: &Missing,
    publish: impl Fn() -> F,
) -> Duration {
    let begin = Instant::now();
    for _ in 0..iters {
        missing.count.store(receivers, Ordering::Release);
        assert_eq!(publish().await, receivers);
        missing.none.notified().await;
    }
    begin.elapsed()
}

struct Tidings {
    hub: GenericBroadcaster<Messages>,
    missing: Arc<Missing>,
    receivers: usize,
    event: Messages,
}

impl Tidings {
    fn new(runtime: &Runtime, reading: Reading, receivers: usize, bytes: usize) -> Arc<Self> {
        let hub = GenericBroadcaster::builder()
            .connections_per_user(None)
            .build()
            .expect("the settings are valid");
        let this = Arc::new(Self {
            hub,
            missing: Arc::default(),
            receivers,
            event: Messages::filling(bytes),
        });
        for _ in 0..receivers {
            let mut stream = this.hub.register(USER).expect("there is no cap");
            let missing = this.missing.clone();
            match reading {
                Reading::Events => runtime.spawn(async move {
                    while let Some(Ok(frame)) = stream.next().await {
                        drop(black_box(frame.to_bytes()));
                        missing.arrived();
                    }
                }),
                Reading::Body => {
                    let body = SseBody::new(stream).keep_alive(&KeepAlive::off());
                    runtime.spawn(read_body(Body::new(body), missing))
                }
            };
        }
        this
    }

    async fn publish(self: Arc<Self>, iters: u64) -> Duration {
        publish_each(iters, self.receivers, &self.missing, async || {
            self.hub
                .broadcast(USER, &self.event)
                .expect("messages are JSON")
        })
        .await
    }
}

struct Locked {
    hub: LockedHub,
    missing: Arc<Missing>,
    receivers: usize,
    event: Messages,
}

impl Locked {
    fn new(runtime: &Runtime, reading: Reading, receivers: usize, bytes: usize) -> Arc<Self> {
        let this = Arc::new(Self {
            hub: LockedHub::default(),
            missing: Arc::default(),
            receivers,
            event: Messages::filling(bytes),
        });
        for _ in 0..receivers {
            let registered = this.hub.register(USER.into(), ConnectionId::generate());
            let mut receiver = runtime.block_on(registered);
            let missing = this.missing.clone();
            match reading {
                Reading::Events => runtime.spawn(async move {
                    while let Some(event) = receiver.recv().await {
                        drop(black_box(event));
                        missing.arrived();
                    }
                }),
                Reading::Body => {
                    let events = UnboundedReceiverStream::new(receiver).map(Ok::<_, Infallible>);
                    let body = Sse::new(events).into_response().into_body();
                    runtime.spawn(read_body(body, missing))
                }
            };
        }
        this
    }

    async fn publish(self: Arc<Self>, iters: u64) -> Duration {
        publish_each(iters, self.receivers, &self.missing, async || {
            let event = Event::default().event("message").json_data(&self.event.0);
            self.hub
                .broadcast(USER, event.expect("messages are JSON"))
                .await
        })
        .await
    }
}

/// Has the runtime publish, from a task of its own: on more than one worker the receivers must not be a thread away.
fn run(runtime: &Runtime, publish: impl Future<Output = Duration> + Send + 'static) -> Duration {
    runtime
        .block_on(runtime.spawn(publish))
        .expect("publishing does not panic")
}

fn compare(
    c: &mut Criterion,
    name: &str,
    runtime: impl Fn() -> Runtime,
    reading: Reading,
    receivers: &[usize],
) {
    for (size, bytes) in [("200B", 200), ("16KB", 16 << 10)] {
        let mut group = c.benchmark_group(format!("{name}/{size}"));
        group.warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_millis(1500));
        group.sample_size(30);
        for &receivers in receivers {
            let rt = runtime();
            let tidings = Tidings::new(&rt, reading, receivers, bytes);
            group.bench_function(BenchmarkId::new("tidings", receivers), |b| {
                b.iter_custom(|iters| run(&rt, tidings.clone().publish(iters)));
            });
            drop(rt);
            let rt = runtime();
            let locked = Locked::new(&rt, reading, receivers, bytes);
            group.bench_function(BenchmarkId::new("rwlock", receivers), |b| {
                b.iter_custom(|iters| run(&rt, locked.clone().publish(iters)));
            });
        }
        group.finish();
    }
}

fn one_thread(c: &mut Criterion) {
    let receivers = Mode::of_args().pick(&[1, 10, 100, 1000][..], &[1, 10]);
    compare(c, "broadcast", current_thread, Reading::Events, receivers);
}

fn bodies(c: &mut Criterion) {
    let receivers = Mode::of_args().pick(&[1, 100, 1000][..], &[10]);
    compare(
        c,
        "broadcast-bodies",
        current_thread,
        Reading::Body,
        receivers,
    );
}

fn two_workers(c: &mut Criterion) {
    let runtime = || {
        Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .expect("two threads can be started")
    };
    let receivers = Mode::of_args().pick(&[100][..], &[10]);
    compare(
        c,
        "broadcast-two-workers",
        runtime,
        Reading::Events,
        receivers,
    );
}

criterion_group!(benches, one_thread, bodies, two_workers);
criterion_main!(benches);
