//! The same over HTTP/2, where a client can stop a single stream by withholding its window.

use std::convert::Infallible;
use std::future::{IntoFuture, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::routing::get;
use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http_body::Frame;
use tidings::serve::{Drained, Server, Stalls, bind, serve};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::site::{
    BOUND, BRIEF, Background, Client, LIMIT, Numbers, Site, all_go_on, eventually,
    server_socket_exists, soon,
};

const LONG: Duration = Duration::from_secs(600);

/// The window of a stream, unless said otherwise.
const WINDOW: u32 = 16 * 1024;

// The server

/// A server in the background, and its signal.
struct Running {
    addr: SocketAddr,
    signal: Option<oneshot::Sender<()>>,
    ended: JoinHandle<Drained>,
}

impl Running {
    async fn start(app: Router, settings: impl FnOnce(Server) -> Server) -> Self {
        Self::start_with(LIMIT, app, settings).await
    }

    async fn start_with(
        limit: Duration,
        app: Router,
        settings: impl FnOnce(Server) -> Server,
    ) -> Self {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let listener = listener.stall_limit(limit).send_buffer(16 * 1024);
        let (signal, given) = oneshot::channel();
        let server = serve(listener, app)
            .http2(true)
            .with_graceful_shutdown(async {
                if given.await.is_err() {
                    pending().await
                }
            });
        Self {
            addr,
            signal: Some(signal),
            ended: tokio::spawn(settings(server).into_future()),
        }
    }

    async fn stop(&mut self) -> (Drained, Duration) {
        let start = Instant::now();
        let signal = self.signal.take().expect("it was not stopped before");
        signal.send(()).expect("the server runs");
        let drained = soon(&mut self.ended).await.expect("no panic");
        (drained, start.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ended.abort();
    }
}

// The client

type ClientConnection = Connection<TcpStream, Bytes>;

/// A connection whose streams each have this window, while the window of the connection never closes.
async fn connect(addr: SocketAddr, window: u32) -> (SendRequest<Bytes>, ClientConnection) {
    let tcp = TcpStream::connect(addr).await.expect("the server listens");
    connect_over(tcp, window).await
}

async fn connect_over(tcp: TcpStream, window: u32) -> (SendRequest<Bytes>, ClientConnection) {
    let handshake = Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(1 << 30)
        .handshake(tcp);
    soon(handshake).await.expect("a server of HTTP/2")
}

/// The same, with the connection driven in the background.
async fn client(addr: SocketAddr, window: u32) -> (SendRequest<Bytes>, Background) {
    let (requests, connection) = connect(addr, window).await;
    let driver = Background::spawn(async move {
        let _ = connection.await;
    });
    (requests, driver)
}

/// The body of a successful response.
async fn get_body(requests: &mut SendRequest<Bytes>, path: &str) -> RecvStream {
    let response = soon(ask(requests, path)).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.into_body()
}

fn ask(requests: &mut SendRequest<Bytes>, path: &str) -> ResponseFuture {
    let uri = format!("http://test{path}");
    let request = Request::get(uri).body(()).expect("a request");
    let (response, _) = requests.send_request(request, true).expect("it is sent");
    response
}

/// The next bytes. The window stays as much smaller.
async fn data(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    soon(body.data()).await
}

/// The next bytes behind the beginning of a stream.
async fn event(body: &mut RecvStream) -> Bytes {
    loop {
        let bytes = data(body).await.expect("an event").expect("it works");
        if bytes != ":\n" {
            return bytes;
        }
    }
}

/// Takes what fits into the window, and says when and how the server ended the stream.
async fn until_reset(mut body: RecvStream) -> (usize, Option<Reason>) {
    let mut taken = 0;
    loop {
        match data(&mut body).await {
            Some(Ok(bytes)) => taken += bytes.len(),
            Some(Err(error)) => return (taken, error.reason()),
            None => return (taken, None),
        }
    }
}

/// Reads a stream with an open window: numbers events, and counts them.
fn read_numbers(mut body: RecvStream) -> (Background, Arc<AtomicUsize>) {
    let mut numbers = Numbers::default();
    let count = Arc::clone(&numbers.count);
    let reader = Background::spawn(async move {
        while let Some(bytes) = body.data().await {
            let bytes = bytes.expect("the stream works");
            numbers.push(&bytes);
            let window = body.flow_control();
            window.release_capacity(bytes.len()).expect("it was taken");
        }
        panic!("the stream ended");
    });
    (reader, count)
}

// A body whose bytes are counted

/// Bytes that are counted for as long as they live.
#[derive(Clone, Default)]
struct Memory(Arc<AtomicUsize>);

impl Memory {
    fn bytes(&self, len: usize) -> Bytes {
        struct Counted(Vec<u8>, Memory);

        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl Drop for Counted {
            fn drop(&mut self) {
                self.1.0.fetch_sub(self.0.len(), Ordering::Relaxed);
            }
        }

        self.0.fetch_add(len, Ordering::Relaxed);
        Bytes::from_owner(Counted(vec![b'x'; len], self.clone()))
    }

    fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One chunk, then the end, which the body announces, or does not, or which has trailers. Then it must be left alone.
struct Chunk {
    frames: std::vec::IntoIter<Frame<Bytes>>,
    announces: bool,
    ended: bool,
}

impl http_body::Body for Chunk {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert!(!self.ended && !self.is_end_stream(), "polled after the end");
        let frame = self.frames.next();
        self.ended = frame.is_none();
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.announces && self.frames.len() == 0
    }
}

const CHUNK: usize = 100_000;

/// `/announced`, `/silent` and `/trailers`: each a single chunk of [`CHUNK`] bytes, and an end of its own kind.
fn chunks(memory: &Memory) -> Router {
    let route = |announces, trailers: bool| {
        let memory = memory.clone();
        get(move || async move {
            let mut frames = vec![Frame::data(memory.bytes(CHUNK))];
            if trailers {
                let value = HeaderValue::from_static("all sent");
                frames.push(Frame::trailers(HeaderMap::from_iter([(
                    "x-end".parse().expect("a name"),
                    value,
                )])));
            }
            Body::new(Chunk {
                frames: frames.into_iter(),
                announces,
                ended: false,
            })
        })
    };
    Router::new()
        .route("/announced", route(true, false))
        .route("/silent", route(false, false))
        .route("/trailers", route(false, true))
        .route("/empty", get(|| async {}))
}

const ENDS: [&str; 3] = ["/announced", "/silent", "/trailers"];

// What stalls

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_whose_window_is_withheld_is_reset_and_no_other() {
    let site = Site::new();
    let server = Running::start(site.app(), |server| server.header_read_timeout(LIMIT)).await;
    let (mut requests, _driver) = client(server.addr, WINDOW).await;
    // On one connection: streams that are not read, others that are, one that is silent, and a handler that is slow.
    let mut stalled = Vec::new();
    for _ in 0..5 {
        stalled.push(get_body(&mut requests, "/events/ann").await);
    }
    let mut readers = Vec::new();
    for _ in 0..5 {
        let body = get_body(&mut requests, "/events/ann").await;
        readers.push(read_numbers(body));
    }
    let mut silent = get_body(&mut requests, "/events/silent").await;
    let waiting = ask(&mut requests, "/slow");
    let connections = || site.hub.connection_count("ann");
    assert_eq!(connections(), 10);

    let _pump = site.pump("ann");
    let start = Instant::now();
    for body in stalled {
        let (taken, reason) = until_reset(body).await;
        let cut = start.elapsed();
        assert_eq!((taken, reason), (WINDOW as usize, Some(Reason::CANCEL)));
        assert!(cut >= LIMIT && cut < BOUND, "{cut:?}");
    }
    eventually(BOUND, "the streams are dropped", || connections() == 5).await;

    all_go_on(&readers).await;
    assert_eq!(connections(), 5);
    site.send("silent", "still here");
    assert_eq!(event(&mut silent).await, "data: still here\n\n");
    site.gate.add_permits(1);
    let answer = soon(waiting).await.expect("a response");
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_single_event_that_is_not_taken_is_enough() {
    let site = Site::new();
    let server = Running::start(site.app(), |server| server).await;
    // There is room for the beginning, so that a stream without an event waits for nothing.
    for window in [2, 9] {
        let (mut requests, _driver) = client(server.addr, window).await;
        let stalled = get_body(&mut requests, "/events/ann").await;
        let _silent = get_body(&mut requests, "/events/silent").await;
        site.send("ann", "the only one");
        let start = Instant::now();
        let (taken, reason) = until_reset(stalled).await;
        let cut = start.elapsed();
        assert_eq!((taken, reason), (window as usize, Some(Reason::CANCEL)));
        assert!(cut >= LIMIT && cut < BOUND, "{cut:?}");
        let connections = || site.hub.connection_count("ann");
        eventually(BOUND, "it is dropped", || connections() == 0).await;
        assert_eq!(site.hub.connection_count("silent"), 1);
        site.hub.drain_user("silent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_end_waits_for_its_bytes_and_does_not_hide_a_stall() {
    let memory = Memory::default();
    let server = Running::start(chunks(&memory), |server| server).await;
    let (mut requests, _driver) = client(server.addr, WINDOW).await;
    for path in ENDS {
        let start = Instant::now();
        let body = get_body(&mut requests, path).await;
        assert_eq!(memory.used(), CHUNK);
        let (taken, reason) = until_reset(body).await;
        let cut = start.elapsed();
        assert_eq!(
            (taken, reason),
            (WINDOW as usize, Some(Reason::CANCEL)),
            "{path}"
        );
        assert!(cut >= LIMIT && cut < BOUND, "{path}: {cut:?}");
        eventually(BOUND, "the chunk is freed", || memory.used() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_response_that_is_read_is_whole() {
    let memory = Memory::default();
    // The end comes when the bytes have left, not when the time has come to look for a stall.
    let server = Running::start_with(LONG, chunks(&memory), |server| server).await;
    let (mut requests, _driver) = client(server.addr, WINDOW).await;
    for path in ENDS {
        let mut body = get_body(&mut requests, path).await;
        let mut taken = 0;
        while let Some(bytes) = data(&mut body).await {
            let len = bytes.expect("it works").len();
            taken += len;
            body.flow_control()
                .release_capacity(len)
                .expect("it was taken");
        }
        assert_eq!(taken, CHUNK, "{path}");
        let trailers = soon(body.trailers()).await.expect("a proper end");
        let end = trailers.and_then(|trailers| trailers.get("x-end").cloned());
        assert_eq!(end.is_some(), path == "/trailers");
        eventually(BOUND, "the chunk is freed", || memory.used() == 0).await;
    }
    let empty = get_body(&mut requests, "/empty").await;
    assert!(empty.is_end_stream(), "nothing but a head");
}

#[tokio::test]
async fn a_stream_that_is_read_slowly_but_steadily_stays() {
    let memory = Memory::default();
    let server = Running::start(chunks(&memory), |server| server).await;
    let (mut requests, _driver) = client(server.addr, WINDOW).await;
    let mut body = get_body(&mut requests, "/silent").await;
    // A single chunk, in pieces of at most a window, for longer than the limit: nothing is taken from the body meanwhile.
    let start = Instant::now();
    let mut ticks = tokio::time::interval(LIMIT * 2 / 3);
    let (mut taken, mut held) = (0, 0);
    while let Some(bytes) = data(&mut body).await {
        let len = bytes.expect("not cut").len();
        taken += len;
        held += len;
        if held >= WINDOW as usize / 2 {
            ticks.tick().await;
            body.flow_control()
                .release_capacity(held)
                .expect("it was taken");
            held = 0;
        }
    }
    assert_eq!(taken, CHUNK);
    assert!(start.elapsed() > 2 * LIMIT, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_connection_that_is_not_read_is_cut() {
    let site = Site::new();
    let server = Running::start(site.app(), |server| server).await;
    let tcp = TcpStream::connect(server.addr).await;
    let tcp = tcp.expect("the server listens");
    let addr = tcp.local_addr().expect("it is connected");
    let (mut requests, mut connection) = connect_over(tcp, 1 << 30).await;
    let asking = get_body(&mut requests, "/events/ann");
    let _body = tokio::select! {
        body = asking => body,
        _ = &mut connection => panic!("it ended"),
    };
    // From here on nobody polls the connection. Its stream may be reset an instant before it is cut.
    let start = Instant::now();
    let _pump = site.pump("ann");
    let is_gone = || site.hub.total_connections() == 0 && !server_socket_exists(server.addr, addr);
    eventually(BOUND, "it is cut", is_gone).await;
    assert!(start.elapsed() >= LIMIT, "{:?}", start.elapsed());
    let error = soon(connection).await.expect_err("a reset");
    assert!(error.is_io(), "{error}");
}

// Streams that are over

/// What is a stream's end by its deadline, as seen from its beginning.
fn is_punctual(end: Duration) -> bool {
    end.abs_diff(BRIEF) < Duration::from_millis(500)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deadline_ends_streams_whatever_they_and_their_clients_do() {
    let site = Site::new();
    let server = Running::start_with(LONG, site.app(), |server| server).await;
    let (mut requests, _driver) = client(server.addr, WINDOW).await;
    let start = Instant::now();
    let idle = get_body(&mut requests, "/brief/idle").await;
    let mut busy = get_body(&mut requests, "/brief/busy").await;
    let stalled = get_body(&mut requests, "/brief/stalled").await;
    let _pumps = [site.pump("busy"), site.pump("stalled")];
    let idle = async move { (until_reset(idle).await, start.elapsed()) };
    let stalled = async move { (until_reset(stalled).await, start.elapsed()) };
    let busy = async move {
        let mut numbers = Numbers::default();
        while let Some(bytes) = data(&mut busy).await {
            let bytes = bytes.expect("a proper end");
            numbers.push(&bytes);
            let window = busy.flow_control();
            window.release_capacity(bytes.len()).expect("it was taken");
        }
        (numbers, start.elapsed())
    };
    let (idle, busy, stalled) = tokio::join!(idle, busy, stalled);
    let said = ":\nretry: 1234\n".len();
    assert_eq!(idle.0, (said, None), "a proper end");
    assert!(busy.0.count.load(Ordering::Relaxed) > 100);
    assert_eq!(stalled.0, (WINDOW as usize, Some(Reason::CANCEL)));
    for end in [idle.1, busy.1, stalled.1] {
        assert!(is_punctual(end), "{end:?}");
    }
    let connections = || site.hub.total_connections();
    eventually(BOUND, "the streams are dropped", || connections() == 0).await;
    let _ = get_body(&mut requests, "/peer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disconnected_stream_is_reset_although_its_client_takes_nothing() {
    let site = Site::new();
    let server = Running::start_with(LONG, site.app(), |server| server).await;
    // None has room for more than the beginning and a part of the event.
    for window in [2, 9, WINDOW] {
        let (mut requests, _driver) = client(server.addr, window).await;
        let stalled = get_body(&mut requests, "/events/ann").await;
        site.clog("ann").await;
        // It may wait for events, and so leave by itself before it is counted.
        let before = Stalls::now().grace_period_streams;
        site.hub.disconnect_user("ann");
        let start = Instant::now();
        let (taken, reason) = until_reset(stalled).await;
        assert_eq!((taken, reason), (window as usize, Some(Reason::CANCEL)));
        let cut = start.elapsed();
        assert!(cut < Duration::from_secs(1), "{cut:?}");
        // Other tests of this process may add to it.
        assert!(Stalls::now().grace_period_streams > before);
    }
}

/// What stands before all events waits for the window: the end is found out although the stream was not polled yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_was_not_polled_for_an_event_yet_is_reset_as_well() {
    let site = Site::new();
    let server = Running::start_with(LONG, site.app(), |server| server).await;
    let (mut requests, _connection) = client(server.addr, 0).await;
    let cut = get_body(&mut requests, "/opening/ann").await;
    let start = Instant::now();
    let brief = get_body(&mut requests, "/opening/brief").await;
    assert_eq!(site.hub.disconnect_user("ann"), 1);
    assert_eq!(soon(until_reset(cut)).await, (0, Some(Reason::CANCEL)));
    assert_eq!(soon(until_reset(brief)).await, (0, Some(Reason::CANCEL)));
    assert!(start.elapsed() >= BRIEF, "{:?}", start.elapsed());
    assert_eq!(site.hub.total_connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_goes_with_its_last_stream_if_it_is_not_read() {
    let site = Site::new();
    let server = Running::start_with(LONG, site.app(), |server| server).await;
    let tcp = TcpStream::connect(server.addr).await;
    let tcp = tcp.expect("the server listens");
    let addr = tcp.local_addr().expect("it is connected");
    let (mut requests, mut connection) = connect_over(tcp, 1 << 30).await;
    let asking = async {
        let ann = get_body(&mut requests, "/events/ann").await;
        let bob = get_body(&mut requests, "/events/bob").await;
        (ann, bob)
    };
    let _bodies = tokio::select! {
        bodies = asking => bodies,
        _ = &mut connection => panic!("it ended"),
    };
    // From here on nobody polls the connection.
    site.clog("ann").await;
    // They wait for events, so they may leave by themselves before they are counted.
    site.hub.disconnect_user("ann");
    site.hub.disconnect_user("bob");
    let gone = || !server_socket_exists(server.addr, addr);
    let second = Duration::from_secs(1);
    eventually(second, "the socket is gone", gone).await;
    let error = soon(connection).await.expect_err("a reset");
    assert!(error.is_io(), "{error}");
}

// Beside HTTP/1

#[tokio::test]
async fn http1_is_spoken_too() {
    let site = Site::new();
    let server = Running::start(site.app(), |server| server).await;
    let mut plain = Client::get(server.addr, "/peer").await;
    let expected = format!("you are {}.", plain.addr());
    plain.until(&expected).await;
    // A head that begins like HTTP/2, in pieces.
    let mut pieces = Client::connect(server.addr).await;
    for piece in ["P", "R", "OPFIND /peer HTTP/1.1\r\nhost: test\r\n\r\n"] {
        pieces.write(piece).await;
        tokio::task::yield_now().await;
    }
    pieces.until("405 Method Not Allowed").await;

    let stalled = Client::stall(server.addr, "/events/ann").await;
    let connections = || site.hub.connection_count("ann");
    eventually(BOUND, "it is there", || connections() == 1).await;
    let _pump = site.pump("ann");
    let cut = eventually(BOUND, "it is cut", || connections() == 0).await;
    assert!(cut >= LIMIT && cut < BOUND, "{cut:?}");
    let gone = || !server_socket_exists(server.addr, stalled.addr());
    eventually(Duration::from_millis(200), "the socket is gone", gone).await;

    let (mut requests, _driver) = client(server.addr, WINDOW).await;
    let mut body = get_body(&mut requests, "/peer").await;
    let bytes = data(&mut body).await.expect("bytes").expect("it works");
    assert!(bytes.starts_with(b"you are 127.0.0.1:"), "{bytes:?}");
}

#[tokio::test]
async fn a_beginning_that_does_not_come_is_not_waited_for() {
    let app = Site::new().app();
    let server = Running::start(app, |server| server.header_read_timeout(LIMIT)).await;
    let start = Instant::now();
    let silent = Client::connect(server.addr).await;
    let mut half = Client::connect(server.addr).await;
    half.write("PRI * HTTP/2.0\r\n").await;
    let mut head = Client::connect(server.addr).await;
    head.write("GET /peer HT").await;
    for client in [silent, half, head] {
        let _ = client.end().await;
        let cut = start.elapsed();
        assert!(cut >= LIMIT && cut < BOUND, "{cut:?}");
    }
}

// Shutdown

#[tokio::test]
async fn a_shutdown_is_prompt_when_the_streams_end() {
    let site = Site::new();
    let mut server = Running::start(site.app(), |server| server.drain(LONG)).await;
    let silent = Client::connect(server.addr).await;
    let mut half = Client::connect(server.addr).await;
    half.write("PRI * HTTP/2.0\r\n").await;
    let (_idle, _idle_driver) = client(server.addr, WINDOW).await;
    let (mut requests, _driver) = client(server.addr, WINDOW).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(get_body(&mut requests, "/events/ann").await);
    }
    let waiting = ask(&mut requests, "/slow");
    let is_waiting = || site.waiting.load(Ordering::Relaxed) == 1;
    eventually(BOUND, "the handler waits", is_waiting).await;

    let ending = async {
        for client in [silent, half] {
            let _ = client.end().await;
        }
        assert_eq!(site.hub.connection_count("ann"), 5);
        site.send("ann", "the last one");
        assert_eq!(site.hub.drain_user("ann"), 5);
        site.gate.add_permits(1);
    };
    let ((drained, took), ()) = tokio::join!(server.stop(), ending);
    assert_eq!(drained.aborted, 0);
    assert!(took < Duration::from_secs(1), "{took:?}");
    for mut stream in streams {
        assert_eq!(event(&mut stream).await, "data: the last one\n\n");
        let (taken, reason) = until_reset(stream).await;
        assert_eq!((taken, reason), (0, None), "a proper end");
    }
    let answer = soon(waiting).await.expect("a response");
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shutdown_ends_by_its_deadline() {
    let site = Site::new();
    let memory = Memory::default();
    let app = site.app().merge(chunks(&memory));
    let mut server = Running::start_with(LONG, app, |server| server.drain(LIMIT)).await;
    let (mut withholds, _withholding) = client(server.addr, WINDOW).await;
    let _event_stream = get_body(&mut withholds, "/events/ann").await;
    let _chunk = get_body(&mut withholds, "/announced").await;
    let (mut open, _opened) = client(server.addr, WINDOW).await;
    let _silent = get_body(&mut open, "/events/silent").await;
    let _waiting = ask(&mut open, "/slow");
    let (mut requests, mut connection) = connect(server.addr, 1 << 30).await;
    let asking = get_body(&mut requests, "/events/ann");
    let _body = tokio::select! {
        body = asking => body,
        _ = &mut connection => panic!("it ended"),
    };
    let _pump = site.pump("ann");
    site.flooded().await;
    assert_eq!(site.waiting.load(Ordering::Relaxed), 1);
    assert_eq!(site.hub.total_connections(), 3);

    let (drained, took) = server.stop().await;
    assert_eq!(drained.aborted, 3);
    assert!(took >= LIMIT && took < BOUND, "{took:?}");
    let nothing_is_left = || {
        let handlers = site.waiting.load(Ordering::Relaxed);
        (site.hub.total_connections(), memory.used(), handlers) == (0, 0, 0)
    };
    eventually(BOUND, "everything is dropped", nothing_is_left).await;
}

// Without HTTP/2

#[tokio::test]
async fn http2_is_off_unless_it_is_asked_for() {
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let server = serve(listener, Site::new().app());
    let _server = Background::spawn(async move {
        server.await;
    });
    let tcp = TcpStream::connect(addr).await.expect("the server listens");
    let handshake = soon(h2::client::handshake(tcp)).await;
    let (mut requests, connection) = handshake.expect("it is sent");
    let response = ask(&mut requests, "/peer");
    let (response, _) = tokio::join!(soon(response), soon(connection));
    response.expect_err("no HTTP/2");
}
