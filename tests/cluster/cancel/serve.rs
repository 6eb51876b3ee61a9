//! Servers and sockets: a cancelled call closes its own connection and affects no other.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpListener as StdListener;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use axum::serve::Listener;
use futures_util::FutureExt;
use tidings::serve::{StallGuard, bind, serve};
use tidings::{GenericBroadcaster, RegisterError, Subscription, Text};
use tidings_testkit::SseRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::{Cut, at_every_await};
use crate::support::within::within;

type Hub = GenericBroadcaster<Text>;

fn app(hub: &Hub) -> Router {
    async fn stream(State(hub): State<Hub>) -> Result<Subscription, RegisterError> {
        hub.register("ann")
    }
    Router::new()
        .route("/", get(stream))
        .with_state(hub.clone())
}

/// The server's tasks drop what they hold when they have their next turn.
async fn until_nobody_is_left(hub: &Hub) {
    let left = async {
        while hub.total_connections() > 0 {
            yield_now().await;
        }
    };
    within("all connections have gone", left).await;
}

/// A name is resolved on another thread. While the only one is busy, the call waits; a call that is given up has taken no port.
#[test]
fn nothing_is_bound() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build();
    let scenario = at_every_await(1, async |cut| {
        let free = StdListener::bind("localhost:0").expect("a port");
        let addr = free.local_addr().expect("an address");
        drop(free);
        let (release, released) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || released.recv());
        let (bound, ()) = tokio::join!(cut.run(bind(("localhost", addr.port()))), async {
            yield_now().await;
            drop(release);
        });
        assert!(busy.await.expect("it does not panic").is_err());
        if bound.is_none() {
            StdListener::bind(addr).expect("nobody has it");
        }
        bound.is_some_and(|bound| bound.is_ok())
    });
    runtime.expect("a runtime").block_on(scenario);
}

/// Whoever connects is accepted by the next call.
#[tokio::test]
async fn an_accept_loses_no_client() {
    at_every_await(1, async |cut| {
        let mut listener = bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (first, clients) = tokio::join!(cut.run(listener.accept()), async {
            yield_now().await;
            let mut clients = Vec::new();
            for _ in 0..3 {
                clients.push(TcpStream::connect(addr).await.expect("it listens"));
            }
            clients
        });
        let is_there = first.is_some();
        let mut accepted: Vec<_> = first.into_iter().collect();
        while accepted.len() < 3 {
            accepted.push(listener.accept().await);
        }
        let accepted: BTreeSet<_> = accepted.iter().map(|(_, peer)| *peer).collect();
        let clients = clients
            .iter()
            .map(|client| client.local_addr().expect("an address"));
        assert_eq!(accepted, clients.collect());
        is_there
    })
    .await;
}

/// A client reads a stream of the server when that goes, or until it ends as it should.
#[tokio::test]
async fn a_server_goes_with_its_future() {
    at_every_await(3, async |cut| {
        let hub = Hub::new();
        let listener = bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (end, signal) = oneshot::channel::<()>();
        let server = serve(listener, app(&hub)).with_graceful_shutdown(async {
            let _ = signal.await;
        });
        let client = async {
            let mut client = SseRequest::get("/").connect(addr).await?;
            hub.broadcast("ann", &Text::new("hello")).expect("sent");
            client.try_next().await?;
            let _ = end.send(());
            hub.shutdown(Duration::ZERO).await;
            client.try_next().await
        };
        let (drained, seen) = tokio::join!(cut.run(IntoFuture::into_future(server)), client);
        seen.expect_err("the end, one way or the other");
        until_nobody_is_left(&hub).await;
        TcpStream::connect(addr).await.expect_err("nobody listens");
        drained.is_some_and(|drained| drained.aborted == 0)
    })
    .await;
}

/// The connection to a server is closed, wherever the client is with its request.
#[tokio::test]
async fn a_connection_is_closed() {
    let hub = Hub::builder().connections_per_user(1).build();
    let hub = hub.expect("valid settings");
    let listener = bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let server = tokio::spawn(IntoFuture::into_future(serve(listener, app(&hub))));
    at_every_await(1, async |cut| {
        let opened = cut.run(SseRequest::get("/").connect(addr)).await;
        let is_open = opened.is_some_and(|opened| opened.is_ok());
        // The server learns of it when it reads: a request that was sent is answered, and its place free again after that.
        let again = async {
            while SseRequest::get("/").connect(addr).await.is_err() {
                yield_now().await;
            }
        };
        within("there is room again", again).await;
        until_nobody_is_left(&hub).await;
        is_open
    })
    .await;
    server.abort();
}

/// Whoever gives up on a write has written nothing, and on a read has read nothing.
#[tokio::test(start_paused = true)]
async fn a_guard_loses_no_byte() {
    const LIMIT: Duration = Duration::from_secs(30);
    at_every_await(1, async |cut| {
        let (io, mut peer) = duplex(4);
        let mut guard = StallGuard::new(io, LIMIT);
        guard.write_all(b"full").await.expect("room for four");
        let mut got = vec![0; 4];
        let (written, _) = tokio::join!(cut.run(guard.write(b"more")), async {
            yield_now().await;
            peer.read_exact(&mut got).await.expect("four");
        });
        let written = written.map(|written| written.expect("it reads"));
        drop(guard);
        peer.read_to_end(&mut got).await.expect("the rest");
        let more = &b"more"[..written.unwrap_or(0)];
        assert_eq!(got, [b"full", more].concat());
        written.is_some()
    })
    .await;
    // One that was given up counts as pending.
    let (io, _peer) = duplex(4);
    let mut guard = StallGuard::new(io, LIMIT);
    guard.write_all(b"full").await.expect("room for four");
    assert!(Cut(1).run(guard.write(b"more")).await.is_none());
    tokio::time::advance(LIMIT).await;
    let stalled = guard.write(b"more").now_or_never().expect("at once");
    assert_eq!(
        stalled.map_err(|error| error.kind()),
        Err(ErrorKind::TimedOut)
    );
    at_every_await(1, async |cut| {
        let (io, mut peer) = duplex(8);
        let mut guard = StallGuard::new(io, LIMIT);
        let mut first = [0; 2];
        let (read, ()) = tokio::join!(cut.run(guard.read(&mut first)), async {
            yield_now().await;
            peer.write_all(b"request").await.expect("room");
        });
        let read = read.map(|read| read.expect("it is open"));
        drop(peer);
        let mut got = first[..read.unwrap_or(0)].to_vec();
        guard.read_to_end(&mut got).await.expect("the rest");
        assert_eq!(got, b"request");
        read.is_some()
    })
    .await;
}
