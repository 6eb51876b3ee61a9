//! A stream can be dropped in any of its states, inside a runtime, outside of one and on another thread: it is no longer
//! counted, keeps no event alive, and affects no other stream. Ways out that are not a state of the stream are in
//! `membership.rs`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use http_body::Body;
use tidings::backplane::Level;
use tidings::{
    Data, EncodeError, GenericBroadcaster, History, KeepAlive, LagPolicy, LastEventId, Meta,
    SseBody, Subscription, ToSse,
};
use tidings_testkit::backplane::InProcess;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_stream::StreamExt;

/// An event that is alive as long as its attachment.
struct Alive {
    text: String,
    life: Arc<()>,
}

impl ToSse for Alive {
    fn meta(&self) -> Meta<'_> {
        let mut meta = Meta::default();
        meta.key = Some(&self.text);
        meta.attachment = Some(self.life.clone());
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text(&self.text);
        Ok(())
    }
}

type Hub = GenericBroadcaster<Alive>;

/// A hub with one user, whose events know whether anybody still has them.
struct Scene {
    hub: Hub,
    life: Arc<()>,
}

impl Scene {
    fn new(hub: Hub) -> Self {
        Self {
            hub,
            life: Arc::new(()),
        }
    }

    fn of(history: Option<History>, policy: LagPolicy) -> Self {
        let hub = Hub::builder()
            .ring_capacity(4)
            .connections_per_user(None)
            .history(history)
            .lag_policy(policy)
            .coalesce_keys(2)
            .build();
        Self::new(hub.expect("valid settings"))
    }

    fn plain() -> Self {
        Self::of(None, LagPolicy::Gap)
    }

    /// With a history that goes with the last connection.
    fn recorded() -> Self {
        let history = History::new(8).linger(Duration::ZERO);
        Self::of(Some(history), LagPolicy::Gap)
    }

    fn join(&self) -> Subscription {
        self.hub.register("ann").expect("no cap is reached")
    }

    fn send(&self, count: usize) {
        for _ in 0..count {
            let event = Alive {
                text: "x".repeat(20_000),
                life: self.life.clone(),
            };
            self.hub.broadcast("ann", &event).expect("text");
        }
    }

    /// Asserts that nobody is in, and nobody has an event.
    #[track_caller]
    fn assert_left(&self, state: &str) {
        let stats = self.hub.stats();
        let found = (stats.connections, stats.users, stats.away);
        assert_eq!(found, (0, 0, 0), "{state}");
        assert_eq!(stats.history_bytes, 0, "{state}");
        assert_eq!(self.hub.connection_count("ann"), 0, "{state}");
        assert!(self.hub.connection_info().is_empty(), "{state}");
        assert_eq!(Arc::strong_count(&self.life), 1, "{state}: an event stays");
    }
}

fn poll(stream: &mut Subscription) -> Option<Option<bool>> {
    let item = stream.next().now_or_never()?;
    Some(item.map(|item| item.is_ok()))
}

fn poll_body(body: &mut SseBody) -> Poll<Option<usize>> {
    let mut cx = Context::from_waker(Waker::noop());
    let frame = Pin::new(body).poll_frame(&mut cx);
    frame.map(|frame| {
        let frame = frame?.expect("it never fails");
        Some(frame.into_data().expect("data").len())
    })
}

/// What is dropped.
type Held = Box<dyn Send>;

/// Brings a stream into a state. Called inside a runtime.
type Make = fn() -> (Scene, Held);

/// The states of a subscription, then those of a body.
const STATES: &[(&str, Make)] = &[
    ("before the first poll", || {
        let scene = Scene::plain();
        let stream = scene.join();
        (scene, Box::new(stream))
    }),
    ("before the first poll, with a backlog", || {
        let scene = Scene::plain();
        let stream = scene.join();
        scene.send(3);
        (scene, Box::new(stream))
    }),
    ("pending", || {
        let scene = Scene::plain();
        let mut stream = scene.join();
        assert_eq!(poll(&mut stream), None);
        (scene, Box::new(stream))
    }),
    ("woken and not polled", || {
        let scene = Scene::plain();
        let mut stream = scene.join();
        assert_eq!(poll(&mut stream), None);
        scene.send(1);
        (scene, Box::new(stream))
    }),
    ("within a backlog", || {
        let scene = Scene::plain();
        let mut stream = scene.join();
        scene.send(3);
        assert_eq!(poll(&mut stream), Some(Some(true)));
        (scene, Box::new(stream))
    }),
    ("lagged, and not told", || {
        let scene = Scene::plain();
        let stream = scene.join();
        scene.send(9);
        (scene, Box::new(stream))
    }),
    ("lagged, and told", || {
        let scene = Scene::plain();
        let mut stream = scene.join();
        scene.send(9);
        assert_eq!(poll(&mut stream), Some(Some(false)));
        (scene, Box::new(stream))
    }),
    ("ended by its lag", || {
        for policy in [LagPolicy::Disconnect, LagPolicy::End] {
            let scene = Scene::of(None, policy);
            let mut stream = scene.join();
            scene.send(9);
            while poll(&mut stream) != Some(None) {}
            drop(stream);
            scene.assert_left("ended by its lag");
        }
        let scene = Scene::of(None, LagPolicy::End);
        let mut stream = scene.join();
        scene.send(9);
        assert_eq!(poll(&mut stream), Some(None));
        (scene, Box::new(stream))
    }),
    ("coalescing what it lost", || {
        let scene = Scene::of(None, LagPolicy::Coalesce);
        let mut stream = scene.join();
        scene.send(9);
        assert_eq!(poll(&mut stream), Some(Some(true)));
        (scene, Box::new(stream))
    }),
    ("with a gap to tell", || {
        let scene = Scene::recorded();
        let other = scene.join();
        scene.send(2);
        let foreign = LastEventId::new("0123456789abcdef-1");
        let stream = scene.hub.resume("ann", &foreign).expect("no cap");
        drop(other);
        (scene, Box::new(stream))
    }),
    ("replaying", || {
        let scene = Scene::recorded();
        let first = scene.join();
        let seen = LastEventId::new(&first.cursor().expect("there is a history"));
        scene.send(8);
        let mut stream = scene.hub.resume("ann", &seen).expect("no cap");
        drop(first);
        assert_eq!(poll(&mut stream), Some(Some(true)));
        (scene, Box::new(stream))
    }),
    ("healing a lag", || {
        let scene = Scene::recorded();
        let mut stream = scene.join();
        scene.send(8);
        assert_eq!(poll(&mut stream), Some(Some(true)));
        (scene, Box::new(stream))
    }),
    ("healing a lag of which some is lost", || {
        let scene = Scene::recorded();
        let mut stream = scene.join();
        scene.send(20);
        assert_eq!(poll(&mut stream), Some(Some(false)));
        assert_eq!(poll(&mut stream), Some(Some(true)));
        (scene, Box::new(stream))
    }),
    ("drained, with a backlog", || {
        let scene = Scene::recorded();
        let mut stream = scene.join();
        scene.send(6);
        assert_eq!(poll(&mut stream), Some(Some(true)));
        scene.hub.drain_user("ann");
        assert_eq!(poll(&mut stream), Some(Some(true)));
        (scene, Box::new(stream))
    }),
    ("after its end", || {
        let scene = Scene::plain();
        let mut stream = scene.join();
        scene.send(2);
        scene.hub.drain_user("ann");
        while poll(&mut stream) != Some(None) {}
        (scene, Box::new(stream))
    }),
    ("unregistered", || {
        let scene = Scene::plain();
        let mut stream = scene.join();
        assert_eq!(poll(&mut stream), None);
        scene.send(2);
        let id = stream.guard().connection_id().clone();
        assert!(scene.hub.unregister("ann", &id));
        (scene, Box::new(stream))
    }),
    ("disconnected and polled", || {
        let scene = Scene::recorded();
        let mut stream = scene.join();
        scene.send(2);
        assert_eq!(scene.hub.disconnect_user("ann"), 1);
        assert_eq!(poll(&mut stream), Some(None));
        (scene, Box::new(stream))
    }),
    ("with a deadline that was never polled", || {
        let scene = Scene::plain();
        let stream = scene.join().deadline(Instant::now());
        (scene, Box::new(stream))
    }),
    ("with a timer that runs", || {
        let scene = Scene::plain();
        let mut stream = scene
            .join()
            .deadline(Instant::now() + Duration::from_secs(60));
        assert_eq!(poll(&mut stream), None);
        (scene, Box::new(stream))
    }),
    ("past its deadline", || {
        let scene = Scene::plain();
        let past = Instant::now() - Duration::from_secs(1);
        let mut stream = scene.join().deadline(past);
        scene.send(1);
        assert_eq!(poll(&mut stream), Some(None));
        (scene, Box::new(stream))
    }),
    ("waiting for the engine between nodes", || {
        let engine = InProcess::new(Level::Replayable);
        let hub = Hub::builder().backplane(engine.node()).build();
        let scene = Scene::new(hub.expect("valid settings"));
        let first = scene.join();
        let seen = LastEventId::new(&first.cursor().expect("there is an engine"));
        drop(first);
        let mut stream = scene.hub.resume("ann", &seen).expect("no cap");
        assert_eq!(poll(&mut stream), None);
        (scene, Box::new(stream))
    }),
    ("a body before its first poll", || {
        let scene = Scene::plain();
        let body = SseBody::new(scene.join());
        scene.send(2);
        (scene, Box::new(body))
    }),
    ("a body that has begun", || {
        let scene = Scene::recorded();
        let mut body = SseBody::new(scene.join()).retry(Duration::from_secs(1));
        assert!(poll_body(&mut body).is_ready());
        (scene, Box::new(body))
    }),
    ("a body with a keep-alive under way", || {
        let scene = Scene::plain();
        let mut body = SseBody::new(scene.join());
        assert!(poll_body(&mut body).is_ready(), "the beginning");
        assert!(poll_body(&mut body).is_pending());
        (scene, Box::new(body))
    }),
    ("a body that holds a piece that did not fit", || {
        let scene = Scene::plain();
        let mut body = SseBody::new(scene.join()).keep_alive(&KeepAlive::off());
        scene.send(3);
        // Two of them are more than is joined.
        assert!(matches!(poll_body(&mut body), Poll::Ready(Some(len)) if len < 40_000));
        (scene, Box::new(body))
    }),
    ("a body that holds a piece, and has ended", || {
        let scene = Scene::plain();
        let mut body = SseBody::new(scene.join()).keep_alive(&KeepAlive::off());
        scene.send(2);
        scene.hub.disconnect_user("ann");
        while poll_body(&mut body) != Poll::Ready(None) {}
        assert!(body.is_end_stream());
        (scene, Box::new(body))
    }),
];

fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().expect("a runtime")
}

#[test]
fn it_leaves_in_every_state() {
    for (state, make) in STATES {
        let runtime = runtime();
        let _entered = runtime.enter();
        let (scene, held) = make();
        drop(held);
        scene.assert_left(state);
    }
}

#[test]
fn it_leaves_in_every_state_after_its_runtime_ended() {
    for (state, make) in STATES {
        let runtime = runtime();
        let (scene, held) = runtime.block_on(async { make() });
        drop(runtime);
        drop(held);
        scene.assert_left(state);
    }
}

#[test]
fn it_leaves_in_every_state_on_another_thread() {
    for (state, make) in STATES {
        let runtime = runtime();
        let (scene, held) = runtime.block_on(async { make() });
        let dropped = thread::spawn(move || drop(held));
        dropped.join().expect("no panic");
        scene.assert_left(state);
    }
}

#[test]
fn it_leaves_in_every_state_during_a_panic() {
    for (state, make) in STATES {
        let runtime = runtime();
        let (scene, held) = runtime.block_on(async { make() });
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = held;
            panic!("on purpose");
        }));
        assert!(unwound.is_err());
        scene.assert_left(state);
    }
}

/// What others of the user have is theirs, whatever state a neighbour is dropped in.
#[test]
fn its_neighbours_do_not_notice() {
    for (state, make) in STATES {
        let runtime = runtime();
        let _entered = runtime.enter();
        let (scene, held) = make();
        let mut neighbour = scene.join();
        scene.send(2);
        drop(held);
        scene.send(1);
        // Where there are several nodes, the events come back from the engine's log.
        let got = runtime.block_on(async {
            let three = (&mut neighbour).take(3).collect::<Vec<_>>();
            tokio::time::timeout(Duration::from_secs(10), three).await
        });
        let got = got.unwrap_or_else(|_| panic!("{state}: fewer than three events"));
        assert!(got.iter().all(Result::is_ok), "{state}: {got:?}");
        assert_eq!(poll(&mut neighbour), None, "{state}");
        drop(got);
        drop(neighbour);
        scene.assert_left(state);
    }
}

#[cfg(feature = "serve")]
mod served {
    use axum::Router;
    use axum::extract::State;
    use axum::routing::get;
    use tidings::serve::{bind, serve};
    use tidings::{RegisterError, sse::SseResponse};
    use tidings_testkit::SseRequest;

    use super::*;

    async fn stream(State(hub): State<Hub>) -> Result<SseResponse, RegisterError> {
        Ok(SseResponse::new(hub.register("ann")?))
    }

    /// Waits until nobody is in. Whoever has gone is noticed by the server in its own time.
    async fn left(scene: &Scene, state: &str) {
        let gone = async {
            while scene.hub.total_connections() > 0 || Arc::strong_count(&scene.life) > 1 {
                tokio::task::yield_now().await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(10), gone).await;
        gone.unwrap_or_else(|_| panic!("{state}: it stays"));
        scene.assert_left(state);
    }

    /// Behind a server: as soon as it is handed over, with events on their way, with a client that takes none of them, and
    /// when the server itself is dropped.
    #[tokio::test]
    async fn it_leaves_behind_a_server() {
        for state in ["begun", "sent to", "stuck", "served no more"] {
            let scene = Scene::plain();
            let listener = bind("127.0.0.1:0").await.expect("a free port");
            let addr = listener.local_addr().expect("it is bound");
            let app = Router::new()
                .route("/", get(stream))
                .with_state(scene.hub.clone());
            let server = tokio::spawn(async move { serve(listener, app).await });
            let request = SseRequest::get("/").receive_buffer(4096);
            let mut client = request.connect(addr).await.expect("a stream");
            match state {
                "sent to" => {
                    scene.send(1);
                    client.next().await;
                }
                "stuck" => {
                    // More than the buffers of both sockets have room for.
                    for _ in 0..50 {
                        scene.send(4);
                        tokio::task::yield_now().await;
                    }
                }
                "served no more" => {
                    server.abort();
                    assert!(server.await.is_err_and(|error| error.is_cancelled()));
                    left(&scene, state).await;
                    continue;
                }
                _ => {}
            }
            assert_eq!(scene.hub.total_connections(), 1, "{state}");
            drop(client);
            left(&scene, state).await;
            server.abort();
        }
    }
}
