//! What one client of HTTP/2 may take its time for, and which of its streams pays when a window is used up.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use tidings::serve::{Server, bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::support::http2_by_hand as by_hand;
use crate::support::http2_by_hand::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, frame, frames, preface,
};
use crate::support::site::{BOUND, Background, LIMIT, Site, eventually, soon};

const LONG: Duration = Duration::from_secs(600);

/// Nothing takes longer than it has to by more than that.
const SLACK: Duration = Duration::from_secs(3);

struct Running {
    addr: SocketAddr,
    _server: Background,
}

impl Running {
    async fn start(
        stall_limit: Duration,
        app: Router,
        settings: impl FnOnce(Server) -> Server,
    ) -> Self {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let server = serve(listener.stall_limit(stall_limit), app).http2(true);
        let server = settings(server);
        Self {
            addr,
            _server: Background::spawn(async move {
                server.await;
            }),
        }
    }

    async fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(self.addr).await.expect("it listens");
        client.write_all(bytes).await.expect("the server reads");
        client
    }
}

/// What the server sent until it closed.
async fn until_closed(client: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    // A reset will do.
    let _ = soon(client.read_to_end(&mut seen)).await;
    seen
}

fn request(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &by_hand::get(path))
}

// Heads

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_waited_for_as_long_as_one_of_http1() {
    let site = Site::new();
    let server = Running::start(LONG, site.app(), |server| {
        server.header_read_timeout(LIMIT).http2_idle_timeout(LONG)
    });
    let server = server.await;
    let after = |bytes: Vec<u8>| [preface(), bytes].concat();
    let whole = request(1, "/peer", END_HEADERS | END_STREAM);
    let start = Instant::now();
    let mut clients = Vec::new();
    for (what, bytes) in [
        ("no SETTINGS", preface()[..24].to_vec()),
        ("half of SETTINGS", preface()[..30].to_vec()),
        ("half a head of a frame", after(whole[..5].to_vec())),
        ("half of HEADERS", after(whole[..12].to_vec())),
        ("no END_HEADERS", after(request(1, "/peer", END_STREAM))),
        (
            "nor then",
            after(
                [
                    request(1, "/peer", END_STREAM),
                    frame(CONTINUATION, 0, 1, &[]),
                ]
                .concat(),
            ),
        ),
        (
            "half a PING",
            after(frame(PING, 0, 0, &[0; 8])[..10].to_vec()),
        ),
    ] {
        clients.push((what, server.connect(&bytes).await));
    }
    for (what, mut client) in clients {
        let closed = timeout(SLACK, until_closed(&mut client)).await;
        let cut = start.elapsed();
        assert!(closed.is_ok(), "{what}: not within {cut:?}");
        assert!(cut >= LIMIT && cut < LIMIT + SLACK, "{what}: {cut:?}");
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_not_waited_for_longer() {
    let site = Site::new();
    let server = Running::start(LONG, site.app(), |server| server.header_read_timeout(LIMIT));
    let server = server.await;
    let mut client = server.connect(&preface()).await;
    let path = format!("/{}", "x".repeat(100));
    let head = request(1, &path, END_HEADERS | END_STREAM);
    let start = Instant::now();
    let (mut read, mut write) = client.split();
    let dribbling = async {
        let mut ticks = interval(LIMIT / 10);
        for byte in head {
            ticks.tick().await;
            let _ = write.write_all(&[byte]).await;
        }
    };
    let closed = async {
        let mut seen = Vec::new();
        let _ = soon(read.read_to_end(&mut seen)).await;
    };
    tokio::select! {
        () = closed => {}
        () = dribbling => {}
    }
    let cut = start.elapsed();
    assert!(cut >= LIMIT && cut < LIMIT + SLACK, "{cut:?}");
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_costs_the_streams_that_are_open() {
    let site = Site::new();
    let server = Running::start(LONG, site.app(), |server| server.header_read_timeout(LIMIT));
    let server = server.await;
    let open = request(1, "/events/ann", END_HEADERS | END_STREAM);
    let mut client = server.connect(&[preface(), open].concat()).await;
    let connections = || site.hub.total_connections();
    eventually(BOUND, "it is there", || connections() == 1).await;
    // As long as all frames are whole, they may come as they like.
    sleep(2 * LIMIT).await;
    assert_eq!(connections(), 1);
    let start = Instant::now();
    let half = &request(3, "/peer", END_HEADERS | END_STREAM)[..12];
    client.write_all(half).await.expect("the server reads");
    until_closed(&mut client).await;
    let cut = start.elapsed();
    assert!(cut >= LIMIT && cut < LIMIT + SLACK, "{cut:?}");
    eventually(BOUND, "the stream is dropped", || connections() == 0).await;
}

#[tokio::test]
async fn a_body_may_take_its_time() {
    let app = Router::new().route("/peer", post(|body: String| async move { body }));
    let server = Running::start(LONG, app, |server| {
        server.header_read_timeout(LIMIT).http2_idle_timeout(LIMIT)
    });
    let server = server.await;
    let mut block = by_hand::get("/peer");
    block[0] = 0x83;
    let head = frame(HEADERS, END_HEADERS, 1, &block);
    let body = frame(DATA, END_STREAM, 1, b"at last");
    let (half, rest) = body.split_at(12);
    let begin = [preface(), head, half.to_vec()].concat();
    let mut client = server.connect(&begin).await;
    sleep(3 * LIMIT).await;
    client.write_all(rest).await.expect("the server reads");
    let seen = until_closed(&mut client).await;
    assert!(frames(&seen).contains(&(DATA, b"at last")), "{seen:?}");
}

// No streams

async fn h2_client(
    addr: SocketAddr,
    stream: u32,
    connection: u32,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let tcp = TcpStream::connect(addr).await.expect("it listens");
    let handshake = h2::client::Builder::new()
        .initial_window_size(stream)
        .initial_connection_window_size(connection)
        .handshake(tcp);
    let (requests, connection) = soon(handshake).await.expect("a server of HTTP/2");
    (requests, tokio::spawn(connection))
}

/// What a stream sends at once, and the client does not grant anew.
const BEGINNING: &str = ":\n";

/// A stream of events behind its beginning.
async fn get_body(requests: &mut SendRequest<Bytes>, path: &str) -> RecvStream {
    let request = Request::get(format!("http://test{path}")).body(());
    let sent = requests.send_request(request.expect("a request"), true);
    let response = soon(sent.expect("it is sent").0).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let mut body = response.into_body();
    let first = soon(body.data()).await.expect("a beginning");
    assert_eq!(first.expect("it works"), BEGINNING);
    body
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_at_its_limit() {
    let site = Site::new();
    let server = Running::start(LONG, site.app(), |server| server.http2_idle_timeout(LIMIT));
    let server = server.await;
    let start = Instant::now();
    let (_requests, never_used) = h2_client(server.addr, 65_535, 65_535).await;
    let mut silent = server.connect(&preface()).await;
    // The limit begins anew after a stream, which may last.
    let (mut requests, used) = h2_client(server.addr, 65_535, 65_535).await;
    let mut stream = get_body(&mut requests, "/events/ann").await;
    soon(never_used)
        .await
        .expect("no panic")
        .expect("a proper end");
    let cut = start.elapsed();
    assert!(cut >= LIMIT && cut < LIMIT + SLACK, "{cut:?}");
    // Whoever does not answer is waited for no longer than a second.
    let seen = until_closed(&mut silent).await;
    assert!(frames(&seen).iter().any(|(kind, _)| *kind == GOAWAY));
    let cut = start.elapsed();
    assert!(cut >= LIMIT && cut < LIMIT + SLACK, "{cut:?}");

    site.send("ann", "still here");
    let bytes = soon(stream.data()).await.expect("an event");
    assert_eq!(bytes.expect("it works"), "data: still here\n\n");
    let end = Instant::now();
    assert_eq!(site.hub.drain_user("ann"), 1);
    soon(used).await.expect("no panic").expect("a proper end");
    let cut = end.elapsed();
    assert!(cut >= LIMIT && cut < LIMIT + SLACK, "{cut:?}");
}

// Pings

#[tokio::test]
async fn a_client_that_does_not_answer_a_ping_in_time_is_cut() {
    let site = Site::new();
    let server = Running::start(LONG, site.app(), |server| {
        server
            .http2_keep_alive_interval(LIMIT)
            .http2_keep_alive_timeout(LIMIT)
    });
    let server = server.await;
    let (mut requests, _answering) = h2_client(server.addr, 65_535, 65_535).await;
    let mut stream = get_body(&mut requests, "/events/ann").await;
    let start = Instant::now();
    let open = request(1, "/events/bob", END_HEADERS | END_STREAM);
    let mut client = server.connect(&[preface(), open].concat()).await;
    let seen = until_closed(&mut client).await;
    let cut = start.elapsed();
    assert!(frames(&seen).iter().any(|(kind, _)| *kind == PING));
    assert!(cut >= 2 * LIMIT && cut < 2 * LIMIT + SLACK, "{cut:?}");
    let connections = || site.hub.connection_count("bob");
    eventually(BOUND, "the stream is dropped", || connections() == 0).await;

    sleep(2 * LIMIT).await;
    site.send("ann", "still here");
    let bytes = soon(stream.data()).await.expect("an event");
    assert_eq!(bytes.expect("it works"), "data: still here\n\n");
}

// The window of the connection

/// Takes so many bytes and grants nothing for them, as if nobody read them.
async fn take(body: &mut RecvStream, len: usize) {
    let mut taken = 0;
    while taken < len {
        let bytes = soon(body.data()).await.expect("more to come");
        taken += bytes.expect("it works").len();
    }
    assert_eq!(taken, len);
}

/// How the server ended the stream. Then its client grants what the stream held.
async fn until_reset(mut body: RecvStream) -> Option<Reason> {
    loop {
        match soon(body.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.reason(),
            None => return None,
        }
    }
}

async fn gets(body: &mut RecvStream, event: &str) {
    let expected = format!("data: {event}\n\n");
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let bytes = soon(body.data()).await.expect("an event");
        let bytes = bytes.expect("the stream lives");
        let window = body.flow_control();
        window.release_capacity(bytes.len()).expect("it was taken");
        seen.extend(bytes);
    }
    assert_eq!(seen, expected.as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_holds_the_connections_window_is_reset_and_not_one_that_waits_for_it() {
    let site = Site::new();
    let server = Running::start(LIMIT, site.app(), |server| server).await;
    let (mut requests, _driver) = h2_client(server.addr, 65_535, 65_535).await;
    let mut ann = get_body(&mut requests, "/events/ann").await;
    let mut bob = get_body(&mut requests, "/events/bob").await;
    let mut eve = get_body(&mut requests, "/events/eve").await;
    // Just as much as there is room for: nothing of hers waits.
    let room = 65_535 - 3 * BEGINNING.len();
    site.send("ann", &"x".repeat(room - "data: \n\n".len()));
    take(&mut ann, room).await;
    let start = Instant::now();
    site.send("bob", "for bob");
    site.send("eve", "for eve");
    let reading = async {
        tokio::join!(gets(&mut bob, "for bob"), gets(&mut eve, "for eve"));
        start.elapsed()
    };
    let (reason, waited) = tokio::join!(until_reset(ann), reading);
    assert_eq!(reason, Some(Reason::CANCEL));
    assert!(waited >= LIMIT && waited < LIMIT + SLACK, "{waited:?}");
    sleep(2 * LIMIT).await;
    site.send("bob", "more");
    gets(&mut bob, "more").await;
    let left = ["ann", "bob", "eve"].map(|user| site.hub.connection_count(user));
    assert_eq!(left, [0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_streams_that_hold_the_connections_window_as_few_are_reset_as_will_do() {
    const MEGABYTE: u32 = 1 << 20;
    let site = Site::new();
    let server = Running::start(LIMIT, site.app(), |server| server).await;
    let (mut requests, _driver) = h2_client(server.addr, 2 * MEGABYTE, 5 * MEGABYTE).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(get_body(&mut requests, "/events/ann").await);
    }
    let mut bob = get_body(&mut requests, "/events/bob").await;
    // Each of them is within its window, all together are not.
    let len = 1_900_000;
    site.send("ann", &"x".repeat(len - "data: \n\n".len()));
    let mut readers = Vec::new();
    for mut body in held {
        readers.push(tokio::spawn(async move {
            let mut taken = 0;
            let ended = loop {
                match body.data().await {
                    Some(Ok(bytes)) => taken += bytes.len(),
                    Some(Err(error)) => break error.reason(),
                    None => break None,
                }
            };
            (taken, ended)
        }));
    }
    sleep(LIMIT / 3).await;
    site.send("bob", "for bob");
    gets(&mut bob, "for bob").await;
    let connections = || site.hub.connection_count("ann");
    eventually(BOUND, "one is reset", || connections() == 2).await;
    // What it held is enough for the others.
    sleep(3 * LIMIT).await;
    assert_eq!(connections(), 2);
    site.send("bob", "more");
    gets(&mut bob, "more").await;
    let mut resets = 0;
    for reader in readers {
        if let Ok(ended) = timeout(LIMIT / 3, reader).await {
            assert_eq!(ended.expect("no panic"), (len, Some(Reason::CANCEL)));
            resets += 1;
        }
    }
    assert_eq!(resets, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_spared_by_a_client_that_withholds_the_connections_window() {
    let site = Site::new();
    let server = Running::start(LIMIT, site.app(), |server| server).await;
    let (mut requests, _driver) = h2_client(server.addr, 65_535, 65_535).await;
    let mut ann = get_body(&mut requests, "/events/ann").await;
    let bob = get_body(&mut requests, "/events/bob").await;
    let room = 65_535 - 2 * BEGINNING.len();
    site.send("ann", &"x".repeat(room - "data: \n\n".len()));
    take(&mut ann, room).await;
    site.send("bob", "for bob");
    let start = Instant::now();
    // What ann's stream held is not granted as long as it is here.
    assert_eq!(until_reset(bob).await, Some(Reason::CANCEL));
    let cut = start.elapsed();
    assert!(cut >= 2 * LIMIT && cut < 2 * LIMIT + SLACK, "{cut:?}");
    assert_eq!(site.hub.total_connections(), 0);
    drop(ann);
}
