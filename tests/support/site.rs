//! A service with streams, slow handlers and large responses, and clients of HTTP/1 that read only on request.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::IntoResponse;
use axum::routing::get;
use tidings::sse::{Chunks, SseResponse, View};
use tidings::{Frame, GenericBroadcaster, History, KeepAlive, RegisterError, Text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// When a stream of `/brief` is over, after it was opened.
pub(crate) const BRIEF: Duration = Duration::from_secs(2);

/// The stall limit of most tests.
pub(crate) const LIMIT: Duration = Duration::from_millis(300);

pub(crate) const MEGABYTE: usize = 1 << 20;

/// Nothing that has to happen takes so long.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) hub: GenericBroadcaster<Text>,
    /// `/slow` answers when it gets a permit.
    pub(crate) gate: Arc<Semaphore>,
    /// How many are in `/slow`, or have begun `/opening`.
    pub(crate) waiting: Arc<AtomicUsize>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with_history(None)
    }

    /// With this history for every user.
    pub(crate) fn with_history(history: Option<History>) -> Self {
        let hub = GenericBroadcaster::builder()
            .connections_per_user(None)
            .history(history)
            .build();
        Self {
            hub: hub.expect("valid settings"),
            gate: Arc::new(Semaphore::new(0)),
            waiting: Arc::default(),
        }
    }

    /// `/events/{user}` is a stream without keep-alive, `/brief/{user}` one with a deadline, `/opening/{user}` one
    /// that begins with a megabyte (the user `brief` has a deadline), `/slow` waits at the gate, `/large` is a megabyte,
    /// `/peer` is who asks.
    pub(crate) fn app(&self) -> Router {
        async fn events(
            State(site): State<Site>,
            Path(user): Path<String>,
        ) -> Result<impl IntoResponse, RegisterError> {
            let subscription = site.hub.register(user)?;
            Ok(SseResponse::new(subscription).keep_alive(&KeepAlive::off()))
        }
        async fn brief(
            State(site): State<Site>,
            Path(user): Path<String>,
        ) -> Result<impl IntoResponse, RegisterError> {
            let subscription = site.hub.register(user)?.deadline(Instant::now() + BRIEF);
            Ok(SseResponse::new(subscription).keep_alive(&KeepAlive::off()))
        }
        async fn opening(
            State(site): State<Site>,
            Path(user): Path<String>,
        ) -> Result<impl IntoResponse, RegisterError> {
            let subscription = match &*user {
                "brief" => site.hub.register(user)?.deadline(Instant::now() + BRIEF),
                _ => site.hub.register(user)?,
            };
            let response = SseResponse::new(subscription).keep_alive(&KeepAlive::off());
            Ok(response.view(Opening(site.waiting)))
        }
        async fn slow(State(site): State<Site>) -> &'static str {
            let _waiting = Waiting::new(&site.waiting);
            let permit = site.gate.acquire().await.expect("the gate stays");
            permit.forget();
            "at last"
        }
        async fn peer(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
            format!("you are {peer}.")
        }
        Router::new()
            .route("/events/{user}", get(events))
            .route("/brief/{user}", get(brief))
            .route("/opening/{user}", get(opening))
            .route("/large", get(async || "x".repeat(MEGABYTE)))
            .route("/slow", get(slow))
            .route("/peer", get(peer))
            .with_state(self.clone())
    }

    pub(crate) fn send(&self, user: &str, data: &str) {
        let event = Text::new(data.to_owned());
        self.hub
            .broadcast(user, &event)
            .expect("text can be encoded");
    }

    /// Waits until a [pump](Self::pump) has sent more than all buffers hold of a client that does not read.
    pub(crate) async fn flooded(&self) {
        eventually(BOUND, "enough is sent", || {
            self.hub.stats().broadcasts > 150
        })
        .await;
    }

    /// Sends a megabyte to a user who does not read, more than all buffers hold, and waits until the stream has taken it
    /// from the ring: from then on it waits for the client.
    pub(crate) async fn clog(&self, user: &str) {
        self.send(user, &"x".repeat(MEGABYTE));
        let is_taken = || {
            let connections = self.hub.connection_info_of(user);
            connections.iter().all(|connection| connection.behind == 0)
        };
        eventually(BOUND, "it is taken", is_taken).await;
    }

    /// Sends numbered events of 4 KB to a user, until it is dropped.
    pub(crate) fn pump(&self, user: &'static str) -> Background {
        let site = self.clone();
        Background::spawn(async move {
            let filling = "x".repeat(4000);
            let mut ticks = tokio::time::interval(Duration::from_millis(4));
            for number in 0_u64.. {
                ticks.tick().await;
                site.send(user, &format!("{number}:{filling}"));
            }
        })
    }
}

/// Begins with a megabyte, and counts that.
struct Opening(Arc<AtomicUsize>);

impl View for Opening {
    fn begin(&mut self, chunks: &mut Chunks) -> ControlFlow<()> {
        chunks.push(format!("data: {}\n\n", "x".repeat(MEGABYTE)));
        self.0.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    }

    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        chunks.push(frame.to_bytes());
        ControlFlow::Continue(())
    }
}

/// Counts itself.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A task that ends with its handle.
pub(crate) struct Background(JoinHandle<()>);

impl Background {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until it is so, not for longer than the bound, and says how long it took.
#[track_caller]
pub(crate) fn eventually(
    bound: Duration,
    what: &str,
    is_so: impl Fn() -> bool,
) -> impl Future<Output = Duration> {
    let place = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < bound, "{place}: not in {bound:?}: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        start.elapsed()
    }
}

/// What has to happen.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what)
        .await
        .expect("it happens within the bound")
}

/// Waits until each of these readers has got a hundred more.
pub(crate) async fn all_go_on(readers: &[(Background, Arc<AtomicUsize>)]) {
    let counts = || {
        readers
            .iter()
            .map(|(_, count)| count.load(Ordering::Relaxed))
    };
    let before: Vec<_> = counts().collect();
    let all_go_on = || {
        counts()
            .zip(&before)
            .all(|(now, before)| now >= before + 100)
    };
    eventually(BOUND, "the others go on", all_go_on).await;
}

/// Reads the numbers of the events of a [pump](Site::pump), which must leave out none, unless it says how many: on a busy
/// machine a client that reads as fast as it can may lag.
#[derive(Default)]
pub(crate) struct Numbers {
    unread: Vec<u8>,
    next: Option<u64>,
    pub(crate) count: Arc<AtomicUsize>,
}

#[derive(serde::Deserialize)]
struct Gap {
    missed: u64,
}

impl Numbers {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        const MARK: &[u8] = b"data: ";
        self.unread.extend_from_slice(bytes);
        loop {
            let Some(start) = self.unread.windows(MARK.len()).position(|w| w == MARK) else {
                let keep = self.unread.len().min(MARK.len() - 1);
                self.unread.drain(..self.unread.len() - keep);
                return;
            };
            let digits = &self.unread[start + MARK.len()..];
            if digits.first() == Some(&b'{') {
                let Some(len) = digits.iter().position(|&b| b == b'\n') else {
                    return;
                };
                let gap: Gap = serde_json::from_slice(&digits[..len]).expect("a gap");
                self.next = self.next.map(|next| next + gap.missed);
                self.unread.drain(..start + MARK.len() + len);
                continue;
            }
            let Some(len) = digits.iter().position(|&b| b == b':') else {
                return;
            };
            let number = std::str::from_utf8(&digits[..len]).expect("digits");
            let number: u64 = number.parse().expect("a number");
            let expected = self.next.unwrap_or(number);
            assert_eq!(number, expected, "an event was lost");
            self.next = Some(number + 1);
            self.count.fetch_add(1, Ordering::Relaxed);
            self.unread.drain(..start + MARK.len() + len);
        }
    }
}

/// An HTTP/1 client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    seen: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::connect_with(addr, None).await
    }

    /// The receive buffer bounds what a client takes that does not read.
    pub(crate) async fn connect_with(addr: SocketAddr, receive_buffer: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).expect("it can be set");
        }
        let stream = socket.connect(addr).await.expect("the server listens");
        Self {
            stream,
            seen: Vec::new(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &str) {
        self.stream
            .write_all(bytes.as_bytes())
            .await
            .expect("the server reads");
    }

    /// Asks for a path, and reads the head of the response.
    pub(crate) async fn get(addr: SocketAddr, path: &str) -> Self {
        let mut client = Self::connect(addr).await;
        client.ask(path).await;
        client.until("\r\n\r\n").await;
        client
    }

    /// Asks for a path, and reads nothing.
    pub(crate) async fn stall(addr: SocketAddr, path: &str) -> Self {
        let mut client = Self::connect_with(addr, Some(4096)).await;
        client.ask(path).await;
        client
    }

    pub(crate) async fn ask(&mut self, path: &str) {
        self.write(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
            .await;
    }

    /// Reads up to this text, and gives what stood before it.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        loop {
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = seen.find(text) {
                self.seen = seen.as_bytes()[at + text.len()..].to_owned();
                return seen[..at].to_owned();
            }
            let read = soon(self.stream.read_buf(&mut self.seen)).await;
            let read = read.expect("the connection works");
            assert_ne!(read, 0, "it ended before {text:?}, after {seen:?}");
        }
    }

    /// Reads so many bytes, and forgets them.
    pub(crate) async fn skip(&mut self, bytes: usize) {
        let mut left = bytes;
        loop {
            let skipped = left.min(self.seen.len());
            self.seen.drain(..skipped);
            left -= skipped;
            if left == 0 {
                return;
            }
            self.seen.reserve(64 * 1024);
            let read = soon(self.stream.read_buf(&mut self.seen)).await;
            let read = read.expect("the connection works");
            assert_ne!(read, 0, "it ended {left} bytes too early");
        }
    }

    /// Reads until the server ends it, which it must: whether properly, and what came.
    pub(crate) async fn end(mut self) -> (io::Result<()>, String) {
        let ended = soon(self.stream.read_to_end(&mut self.seen)).await;
        let seen = String::from_utf8_lossy(&self.seen).into_owned();
        (ended.map(drop), seen)
    }

    /// Reads numbered events for as long as the handle lives, and counts them.
    pub(crate) fn read_numbers(mut self) -> (Background, Arc<AtomicUsize>) {
        let mut numbers = Numbers::default();
        let count = Arc::clone(&numbers.count);
        let reader = Background::spawn(async move {
            numbers.push(&self.seen);
            let mut buf = vec![0; 64 * 1024];
            loop {
                match self.stream.read(&mut buf).await.expect("it works") {
                    0 => panic!("the stream ended"),
                    read => numbers.push(&buf[..read]),
                }
            }
        });
        (reader, count)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }
}

/// Whether the kernel has a socket of the server for this client, be it closed by the server and still sending.
#[cfg(target_os = "linux")]
pub(crate) fn server_socket_exists(server: SocketAddr, client: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("a table of sockets");
    let port = |addr: SocketAddr| format!(":{:04X}", addr.port());
    let (server, client) = (port(server), port(client));
    table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, remote) = (columns.next(), columns.next());
        local.is_some_and(|local| local.ends_with(&server))
            && remote.is_some_and(|remote| remote.ends_with(&client))
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn server_socket_exists(_: SocketAddr, _: SocketAddr) -> bool {
    false
}
