//! A stream of the service's own beside a subscription, in one response: what the server promises of a stream holds for both.
//! This is the recipe of the guide "HTTP", over real sockets.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body::Frame as Chunk;
use tidings::serve::{Drained, bind, serve};
use tidings::sse::SseResponse;
use tidings::{Frame, Hub, KeepAlive, RegisterError, Text};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};

use crate::support::site::{BOUND, Client, LIMIT, MEGABYTE, eventually, soon};

type Own = Pin<Box<dyn Stream<Item = Frame> + Send>>;

/// The body of the subscription's response, with what comes from the other stream between its events.
struct Merged {
    body: Body,
    own: Option<Own>,
}

impl HttpBody for Merged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk<Bytes>, axum::Error>>> {
        // The end of the subscription, whatever the reason, is the end of the response.
        if let Poll::Ready(chunk) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(chunk);
        }
        let Some(own) = &mut self.own else {
            return Poll::Pending;
        };
        let Some(frame) = ready!(own.as_mut().poll_next(cx)) else {
            self.own = None;
            return Poll::Pending;
        };
        Poll::Ready(Some(Ok(Chunk::data(frame.to_bytes()))))
    }
}

/// Replaces the body. The headers stay, and the extensions, by which `serve` knows the stream.
fn merge(response: SseResponse, own: Own) -> Response {
    let response = response.into_response();
    if response.status() != StatusCode::OK {
        return response; // 204: nothing to follow
    }
    response.map(|body| {
        let own = Some(own);
        Body::new(Merged { body, own })
    })
}

/// Counts the own streams that exist.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct App {
    hub: Hub<Text>,
    ticks: broadcast::Sender<String>,
    alive: Arc<AtomicUsize>,
}

async fn events(
    State(app): State<App>,
    Path(user): Path<String>,
) -> Result<Response, RegisterError> {
    let mut subscription = app.hub.register(&*user)?;
    if user == "brief" {
        subscription = subscription.deadline(Instant::now() + LIMIT);
    }
    app.alive.fetch_add(1, Ordering::Relaxed);
    let alive = Alive(app.alive.clone());
    let own = BroadcastStream::new(app.ticks.subscribe()).filter_map(move |tick| {
        let _ = &alive;
        Frame::encode(&Text::new(tick.ok()?).event("tick")).ok()
    });
    let response = SseResponse::new(subscription).keep_alive(&KeepAlive::off());
    Ok(merge(response, Box::pin(own)))
}

struct Running {
    app: App,
    addr: SocketAddr,
    signal: oneshot::Sender<()>,
    ended: JoinHandle<Drained>,
}

async fn start() -> Running {
    let app = App {
        hub: Hub::builder()
            .connections_per_user(None)
            .build()
            .expect("sound settings"),
        ticks: broadcast::channel(16).0,
        alive: Arc::default(),
    };
    let listener = bind("127.0.0.1:0").await.expect("a port");
    let listener = listener.stall_limit(LIMIT).send_buffer(16 * 1024);
    let addr = listener.local_addr().expect("it is bound");
    let router = Router::new()
        .route("/{user}", get(events))
        .with_state(app.clone());
    let (signal, given) = oneshot::channel();
    let server = serve(listener, router)
        .drain(BOUND)
        .with_graceful_shutdown(async {
            let _ = given.await;
        });
    let ended = tokio::spawn(server.into_future());
    Running {
        app,
        addr,
        signal,
        ended,
    }
}

impl App {
    fn send(&self, user: &str, text: &str) {
        self.hub.broadcast(user, &Text::new(text)).expect("text");
    }

    async fn both_are_dropped(&self) -> Duration {
        eventually(BOUND, "both are dropped", || {
            self.hub.total_connections() == 0 && self.alive.load(Ordering::Relaxed) == 0
        })
        .await
    }
}

#[tokio::test]
async fn both_arrive_and_a_disconnect_drops_both() {
    let server = start().await;
    let Running { app, addr, .. } = &server;
    let addr = *addr;
    // More than the eight from which on streams of one user share writes.
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(Client::get(addr, "/ann").await);
    }
    for n in 0..5 {
        app.send("ann", &format!("event {n}"));
        for client in &mut clients {
            client.until(&format!("data: event {n}\n\n")).await;
        }
        app.ticks.send(format!("tick {n}")).expect("streams");
        for client in &mut clients {
            client
                .until(&format!("event: tick\ndata: tick {n}\n\n"))
                .await;
        }
    }
    assert_eq!(app.alive.load(Ordering::Relaxed), 12);
    drop(clients);
    app.both_are_dropped().await;
}

#[tokio::test]
async fn a_deadline_and_a_cut_end_both() {
    let server = start().await;
    let Running { app, addr, .. } = &server;
    let addr = *addr;
    for user in ["brief", "ann"] {
        let mut client = Client::get(addr, &format!("/{user}")).await;
        app.ticks.send("one".into()).expect("a stream");
        client.until("data: one\n\n").await;
        if user == "ann" {
            assert_eq!(app.hub.disconnect_user("ann"), 1);
        }
        app.both_are_dropped().await;
        client.until("0\r\n\r\n").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_with_both() {
    let server = start().await;
    let Running { app, addr, .. } = &server;
    let addr = *addr;
    // By the stall limit, by a cut, and by the deadline; full buffers from either side.
    for (user, cut, own) in [
        ("ann", false, false),
        ("ann", false, true),
        ("ann", true, true),
        ("brief", false, true),
    ] {
        let _client = Client::stall(addr, &format!("/{user}")).await;
        eventually(BOUND, "it is there", || {
            app.alive.load(Ordering::Relaxed) == 1
        })
        .await;
        let large = "x".repeat(8 * MEGABYTE);
        match own {
            true => drop(app.ticks.send(large)),
            false => app.send(user, &large),
        }
        if cut {
            app.hub.disconnect_user(user);
        }
        app.both_are_dropped().await;
    }
}

#[tokio::test]
async fn a_shutdown_ends_both_and_aborts_nothing() {
    let Running {
        app,
        addr,
        signal,
        ended,
    } = start().await;
    let mut client = Client::get(addr, "/ann").await;
    app.ticks.send("one".into()).expect("a stream");
    client.until("data: one\n\n").await;
    signal.send(()).expect("the server runs");
    app.hub.shutdown(Duration::ZERO).await;
    let drained = soon(ended).await.expect("no panic");
    assert_eq!(drained.aborted, 0);
    assert_eq!(app.alive.load(Ordering::Relaxed), 0);
}
