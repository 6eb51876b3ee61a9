//! Whole lives on every kind of runtime: one thread, several, and none where the crate promises to need none.
//!
//! Each scenario is run on tokio's `current_thread`, and on `multi_thread` with one, two and four workers. Those that only
//! register, broadcast, read and drop are run without tokio as well: a plain thread for each task, which parks when it has
//! nothing to do.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tidings::backplane::Level;
use tidings::{
    ConfigError, GenericBroadcaster, History, LastEventId, RegisterError, Subscription, Text,
};
use tidings_testkit::backplane::InProcess;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::support::within::within;

type Hub = GenericBroadcaster<Text>;

const PUBLISHERS: usize = 4;
const EVENTS: usize = 50;
const ALL: usize = PUBLISHERS * EVENTS;

/// What a scenario starts its tasks with.
trait Flavour: Copy + Send + Sync + 'static {
    /// Starts a task, and says how to wait for it.
    fn spawn<T, F>(self, task: F) -> impl Future<Output = T> + Send
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static;
}

/// Tasks of the runtime that it is called in.
#[derive(Clone, Copy)]
struct Tokio;

impl Flavour for Tokio {
    fn spawn<T, F>(self, task: F) -> impl Future<Output = T> + Send
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let task = tokio::spawn(task);
        async { task.await.expect("no panic") }
    }
}

/// A thread for each.
#[derive(Clone, Copy)]
struct Threads;

impl Flavour for Threads {
    fn spawn<T, F>(self, task: F) -> impl Future<Output = T> + Send
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        // Whoever waited may have failed.
        thread::spawn(move || drop(done.send(park_on(task))));
        async { answer.await.expect("no panic") }
    }
}

/// Wakes a thread that parks.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, without any runtime.
fn park_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Runs a scenario as a task of a runtime of its own.
fn run(mut runtime: Builder, scenario: impl Future<Output = ()> + Send + 'static) {
    let runtime: Runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        within("the scenario", Tokio.spawn(scenario)).await;
    });
}

fn workers(count: usize) -> Builder {
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(count);
    runtime
}

/// A test for each scenario and kind of runtime.
macro_rules! flavours {
    (anywhere: $($anywhere:ident)*; on_tokio: $($(#[$meta:meta])* $on_tokio:ident)*;) => {
        flavours!(@on current_thread Builder::new_current_thread(); $($anywhere)* $($(#[$meta])* $on_tokio)*);
        flavours!(@on one_worker workers(1); $($anywhere)* $($(#[$meta])* $on_tokio)*);
        flavours!(@on two_workers workers(2); $($anywhere)* $($(#[$meta])* $on_tokio)*);
        flavours!(@on four_workers workers(4); $($anywhere)* $($(#[$meta])* $on_tokio)*);

        mod no_runtime {
            use super::*;
            $(
                #[test]
                fn $anywhere() {
                    park_on(super::$anywhere(Threads));
                }
            )*
        }
    };
    (@on $name:ident $runtime:expr; $($(#[$meta:meta])* $scenario:ident)*) => {
        mod $name {
            use super::*;
            $(
                $(#[$meta])*
                #[test]
                fn $scenario() {
                    run($runtime, super::$scenario(Tokio));
                }
            )*
        }
    };
}

flavours! {
    anywhere:
        every_stream_gets_every_event_in_order
        a_slow_stream_is_told_how_much_it_lost
        caps_hold_when_all_come_together
        connections_are_dropped_by_their_owner
        clients_come_back_to_a_history;
    on_tokio:
        a_shutdown_ends_all
        a_publisher_broadcasts_all
        nodes_share_what_is_broadcast
        #[cfg(feature = "serve")]
        a_server_serves_all;
}

fn text(publisher: usize, number: usize) -> Text {
    Text::new(format!("{publisher} {number}"))
}

/// Broadcasts from several tasks at once, and waits for them.
async fn broadcast_all(flavour: impl Flavour, hub: &Hub) {
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let hub = hub.clone();
        flavour.spawn(async move {
            for number in 0..EVENTS {
                hub.broadcast("ann", &text(publisher, number))
                    .expect("sent");
            }
        })
    });
    join_all(publishers).await;
}

/// Takes note of an event, which must come behind those of its publisher that came before.
fn note(seen: &mut HashMap<usize, usize>, data: &str) {
    let (publisher, number) = data.split_once(' ').expect("two numbers");
    let [publisher, number] = [publisher, number].map(|number| number.parse().expect("a number"));
    let before = seen.insert(publisher, number);
    assert!(before < Some(number), "in order, and once: {data}");
}

/// Reads to the end, and says how many events there were, and how many were lost.
async fn read(mut stream: Subscription) -> (usize, u64) {
    let mut seen = HashMap::new();
    let (mut got, mut missed) = (0, 0);
    while let Some(item) = stream.next().await {
        match item {
            Ok(frame) => {
                note(&mut seen, &frame.data());
                got += 1;
            }
            Err(gap) => missed += gap.missed.expect("it is counted"),
        }
    }
    (got, missed)
}

/// With room for everything that is broadcast.
fn roomy_hub() -> Hub {
    let hub = Hub::builder().ring_capacity(ALL).build();
    hub.expect("valid settings")
}

/// Opens streams that are read to the end in tasks of their own.
fn open_and_read<F: Flavour>(
    flavour: F,
    hub: &Hub,
    count: usize,
) -> Vec<impl Future<Output = (usize, u64)> + Send + use<F>> {
    let open = |_| flavour.spawn(read(hub.register("ann").expect("room")));
    (0..count).map(open).collect()
}

fn assert_empty(hub: &Hub) {
    assert_eq!((hub.total_connections(), hub.stats().users), (0, 0));
}

async fn every_stream_gets_every_event_in_order(flavour: impl Flavour) {
    let hub = roomy_hub();
    let readers = open_and_read(flavour, &hub, 8);
    broadcast_all(flavour, &hub).await;
    hub.drain_user("ann");
    for reader in join_all(readers).await {
        assert_eq!(reader, (ALL, 0));
    }
    assert_empty(&hub);
}

async fn a_slow_stream_is_told_how_much_it_lost(flavour: impl Flavour) {
    let hub = Hub::builder()
        .ring_capacity(8)
        .build()
        .expect("valid settings");
    let slow = hub.register("ann").expect("room");
    let readers = open_and_read(flavour, &hub, 3);
    broadcast_all(flavour, &hub).await;
    hub.drain_user("ann");
    assert_eq!(read(slow).await, (8, (ALL - 8) as u64));
    for (got, missed) in join_all(readers).await {
        assert_eq!(got as u64 + missed, ALL as u64);
    }
    assert_empty(&hub);
}

async fn caps_hold_when_all_come_together(flavour: impl Flavour) {
    const CAP: usize = 3;
    let hub = Hub::builder().connections_per_user(CAP).build();
    let hub = hub.expect("valid settings");
    let most = Arc::new(AtomicUsize::new(0));
    let comers: Vec<_> = (0..8)
        .map(|_| {
            let (hub, most) = (hub.clone(), most.clone());
            flavour.spawn(async move {
                let mut refused = 0;
                for _ in 0..EVENTS {
                    match hub.register("ann") {
                        Ok(stream) => {
                            most.fetch_max(hub.connection_count("ann"), Ordering::Relaxed);
                            drop(stream);
                        }
                        Err(error) => {
                            assert!(matches!(error, RegisterError::UserFull { cap: CAP, .. }));
                            refused += 1;
                        }
                    }
                }
                refused
            })
        })
        .collect();
    let refused: u64 = join_all(comers).await.into_iter().sum();
    assert!((1..=CAP).contains(&most.load(Ordering::Relaxed)));
    assert_eq!(hub.stats().refused, refused);
    let full = [(); CAP].map(|()| hub.register("ann").expect("room"));
    hub.register("ann").expect_err("none is left");
    drop(full);
    assert_empty(&hub);
}

/// Their readers are elsewhere when they go, and events are on the way.
async fn connections_are_dropped_by_their_owner(flavour: impl Flavour) {
    let hub = Hub::builder().connections_per_user(None).build();
    let hub = hub.expect("valid settings");
    let holders: Vec<_> = (0..8)
        .map(|_| {
            let hub = hub.clone();
            let streams: Vec<_> = (0..10)
                .map(|_| hub.register("ann").expect("no cap"))
                .collect();
            flavour.spawn(async move {
                for (number, mut stream) in streams.into_iter().enumerate() {
                    hub.broadcast("ann", &text(9, number)).expect("sent");
                    // An event, or that it came too late for it.
                    let _ = stream.next().await.expect("it goes on");
                    match number % 2 {
                        0 => drop(stream),
                        _ => thread::spawn(|| drop(stream)).join().expect("no panic"),
                    }
                }
            })
        })
        .collect();
    join_all(holders).await;
    assert_empty(&hub);
}

async fn clients_come_back_to_a_history(flavour: impl Flavour) {
    let hub = Hub::builder().history(History::new(ALL)).build();
    let hub = hub.expect("valid settings");
    let (ready, go) = oneshot::channel();
    let client = {
        let hub = hub.clone();
        flavour.spawn(async move {
            let mut seen = HashMap::new();
            let mut stream = hub.register("ann").expect("room");
            let mut last = stream.cursor().expect("there is a history").to_string();
            ready.send(()).expect("it is waited for");
            for got in 0..ALL {
                if got % 7 == 0 {
                    drop(stream);
                    let id = LastEventId::new(&last);
                    stream = hub.resume("ann", &id).expect("room");
                }
                let frame = stream.next().await.expect("it goes on").expect("no gap");
                note(&mut seen, &frame.data());
                let id = frame.fields().find(|(name, _)| *name == "id");
                id.expect("it has an id").1.clone_into(&mut last);
            }
        })
    };
    go.await.expect("it begins");
    broadcast_all(flavour, &hub).await;
    client.await;
    hub.forget("ann");
    assert_empty(&hub);
}

async fn a_shutdown_ends_all(flavour: impl Flavour) {
    let hub = roomy_hub();
    let readers = open_and_read(flavour, &hub, 8);
    broadcast_all(flavour, &hub).await;
    let cut = hub.shutdown(Duration::from_secs(8)).await;
    assert_eq!(cut, 0, "all have left before the time was over");
    for reader in join_all(readers).await {
        assert_eq!(reader, (ALL, 0));
    }
    hub.register("ann").expect_err("it is over");
    assert_empty(&hub);
}

async fn a_publisher_broadcasts_all(flavour: impl Flavour) {
    let hub = roomy_hub();
    let reader = flavour.spawn(read(hub.register("ann").expect("room")));
    let publisher = hub.publisher(2).expect("a runtime");
    let publishers = (0..PUBLISHERS).map(|number| {
        let publisher = publisher.clone();
        flavour.spawn(async move {
            for event in 0..EVENTS {
                publisher
                    .publish("ann", text(number, event))
                    .await
                    .expect("it runs");
            }
        })
    });
    join_all(publishers).await;
    assert!(publisher.flush().await);
    hub.drain_user("ann");
    assert_eq!(reader.await, (ALL, 0));
    assert_empty(&hub);
}

async fn nodes_share_what_is_broadcast(flavour: impl Flavour) {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let node = || {
            let node = Hub::builder()
                .ring_capacity(2 * ALL)
                .backplane(engine.node());
            node.build().expect("valid settings")
        };
        let (here, there) = (node(), node());
        let mut readers = Vec::new();
        for hub in [&here, &there] {
            let mut stream = hub.register_when_ready("ann").await.expect("room");
            readers.push(flavour.spawn(async move {
                let mut seen = HashMap::new();
                for _ in 0..ALL {
                    let frame = stream.next().await.expect("it goes on").expect("no gap");
                    note(&mut seen, &frame.data());
                }
            }));
        }
        broadcast_all(flavour, &here).await;
        join_all(readers).await;
        for hub in [here, there] {
            assert_eq!(hub.shutdown(Duration::ZERO).await, 0);
            assert_eq!(hub.total_connections(), 0);
        }
    }
}

#[cfg(feature = "serve")]
async fn a_server_serves_all(flavour: impl Flavour) {
    use axum::extract::State;
    use axum::{Router, routing::get};
    use tidings::serve::{bind, serve};
    use tidings_testkit::SseRequest;

    async fn stream(State(hub): State<Hub>) -> Result<Subscription, RegisterError> {
        hub.register("ann")
    }
    let hub = roomy_hub();
    let app = Router::new()
        .route("/", get(stream))
        .with_state(hub.clone());
    let listener = bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (end, signal) = oneshot::channel::<()>();
    let server = serve(listener, app).with_graceful_shutdown(async {
        signal.await.expect("it is told");
    });
    let server = flavour.spawn(server.into_future());
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = SseRequest::get("/").connect(addr).await.expect("a stream");
        clients.push(flavour.spawn(async move {
            let mut seen = HashMap::new();
            let events = client.collect_to_end().await;
            events.iter().for_each(|event| note(&mut seen, &event.data));
            events.len()
        }));
    }
    broadcast_all(flavour, &hub).await;
    end.send(()).expect("it runs");
    hub.shutdown(Duration::from_secs(4)).await;
    assert_eq!(join_all(clients).await, [ALL; 8]);
    assert_eq!(server.await.aborted, 0);
    assert_empty(&hub);
}

/// What needs a runtime says so, and does not panic.
#[test]
fn without_a_runtime_its_lack_is_an_error() {
    let hub = Hub::new();
    assert_eq!(hub.publisher(1).err(), Some(ConfigError::NoRuntime));
    let sweeping = Hub::builder().sweep_every(Duration::from_secs(1)).build();
    assert_eq!(sweeping.err(), Some(ConfigError::NoRuntime));
    let engine = InProcess::new(Level::AtMostOnce);
    let among_others = Hub::builder().backplane(engine.node()).build();
    assert_eq!(among_others.err(), Some(ConfigError::NoRuntime));
}
