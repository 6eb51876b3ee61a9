//! Event streams leave hyper's hands once their heads are sent. What clients see of HTTP/1 stays what the standard (RFC
//! 9112) has, down to the bytes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http_body::Frame;
use http_body_util::StreamBody;
use tidings::serve::{bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const BOUND: Duration = Duration::from_secs(10);

/// A server, until it is dropped.
struct Running {
    addr: SocketAddr,
    server: JoinHandle<()>,
}

impl Running {
    async fn start(app: Router) -> Self {
        let listener = bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            serve(listener, app).await;
        });
        Self { addr, server }
    }

    /// A connection, and what was asked on it.
    async fn ask(&self, requests: &str) -> Client {
        let mut client = Client {
            tcp: TcpStream::connect(self.addr).await.unwrap(),
            read: Vec::new(),
        };
        client.write(requests).await;
        client
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Client {
    tcp: TcpStream,
    read: Vec<u8>,
}

impl Client {
    async fn write(&mut self, bytes: &str) {
        self.tcp.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// What comes, up to this and with it.
    async fn until(&mut self, end: &str) -> String {
        loop {
            let mut windows = self.read.windows(end.len());
            if let Some(start) = windows.position(|window| window == end.as_bytes()) {
                let rest = self.read.split_off(start + end.len());
                let before = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(before).unwrap();
            }
            let seen = String::from_utf8_lossy(&self.read).into_owned();
            let read = timeout(BOUND, self.tcp.read_buf(&mut self.read)).await;
            let read = read.unwrap_or_else(|_| panic!("waiting for {end:?} after {seen:?}"));
            assert_ne!(read.unwrap(), 0, "closed before {end:?}, after {seen:?}");
        }
    }

    /// What comes before the server closes.
    async fn rest(&mut self) -> String {
        loop {
            let read = timeout(BOUND, self.tcp.read_buf(&mut self.read)).await;
            match read.expect("the server closes") {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            }
        }
        String::from_utf8(std::mem::take(&mut self.read)).unwrap()
    }
}

fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

/// A body of these pieces. It ends by saying so, not by announcing that the last piece is the last.
fn pieces(pieces: impl IntoIterator<Item = &'static str>) -> Body {
    let pieces: Vec<_> = pieces.into_iter().map(Ok::<_, String>).collect();
    Body::from_stream(stream::iter(pieces))
}

fn events(body: Body) -> Response {
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn app() -> Router {
    Router::new()
        .route(
            "/three",
            any(|| async { events(pieces(["one", "two", "three"])) }),
        )
        .route("/whole", get(|| async { "whole" }))
}

/// The three chunks, and the end.
const THREE: &str = "\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n";

#[tokio::test]
async fn a_connection_serves_requests_after_a_stream() {
    let server = Running::start(app()).await;
    let mut client = server.ask(&get_request("/three")).await;
    for _ in 0..3 {
        let response = client.until("0\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(
            response.contains("\r\ntransfer-encoding: chunked\r\n"),
            "{response}"
        );
        assert!(response.contains("\r\ndate: "), "{response}");
        assert!(response.ends_with(THREE), "{response}");
        client.write(&get_request("/whole")).await;
        client.until("\r\n\r\nwhole").await;
        client.write(&get_request("/three")).await;
    }
}

#[tokio::test]
async fn requests_that_do_not_wait_for_the_end_of_a_stream_are_answered_after_it() {
    let server = Running::start(app()).await;
    let mut requests = String::new();
    // More than is read ahead of a stream's end.
    let padding = "x".repeat(1000);
    for _ in 0..50 {
        requests += &get_request("/three");
        requests += &format!("GET /whole HTTP/1.1\r\nhost: test\r\nx-padding: {padding}\r\n\r\n");
    }
    let mut client = server.ask(&requests).await;
    for _ in 0..50 {
        assert!(client.until("0\r\n\r\n").await.ends_with(THREE));
        client.until("\r\n\r\nwhole").await;
    }
}

#[tokio::test]
async fn a_connection_closes_if_either_side_asked_for_it() {
    let with_close = |body| ([(CONNECTION, "close")], events(body)).into_response();
    let app = app().route(
        "/last",
        get(move || async move { with_close(pieces(["one"])) }),
    );
    let server = Running::start(app).await;
    for request in [
        "GET /three HTTP/1.1\r\nhost: test\r\nconnection: te, Close\r\n\r\n",
        "GET /last HTTP/1.1\r\nhost: test\r\n\r\n",
    ] {
        let response = server.ask(request).await.rest().await;
        assert!(response.contains("connection: close\r\n"), "{response}");
        assert!(response.ends_with("\r\n0\r\n\r\n"), "{response}");
    }
}

#[tokio::test]
async fn http_1_0_knows_no_chunks() {
    let server = Running::start(app()).await;
    let request = "GET /three HTTP/1.0\r\nhost: test\r\n\r\n";
    let response = server.ask(request).await.rest().await;
    assert!(response.ends_with("\r\n\r\nonetwothree"), "{response}");
    assert!(!response.contains("chunked"), "{response}");
}

#[tokio::test]
async fn the_answer_to_head_has_no_body() {
    let server = Running::start(app()).await;
    let mut client = server
        .ask("HEAD /three HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    client.write(&get_request("/whole")).await;
    let next = client.until("\r\n\r\nwhole").await;
    assert!(next.starts_with("HTTP/1.1 200 OK\r\n"), "{next}");
}

/// What a handler left of the body of its request is not the next request.
#[tokio::test]
async fn the_body_of_a_request_is_not_taken_for_a_request() {
    let server = Running::start(app()).await;
    let smuggled = get_request("/smuggled");
    let length = smuggled.len();
    let mut client = server
        .ask(&format!(
            "POST /three HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{smuggled}"
        ))
        .await;
    assert!(client.until("0\r\n\r\n").await.ends_with(THREE));
    client.write(&get_request("/whole")).await;
    let next = client.until("\r\n\r\nwhole").await;
    assert!(next.starts_with("HTTP/1.1 200 OK\r\n"), "{next}");
}

#[tokio::test]
async fn a_body_that_fails_is_cut_off() {
    let failing = || async {
        let pieces = [Ok("one"), Err("it broke")];
        events(Body::from_stream(stream::iter(pieces)))
    };
    let server = Running::start(Router::new().route("/", get(failing))).await;
    let response = server.ask(&get_request("/")).await.rest().await;
    assert!(response.ends_with("\r\n\r\n3\r\none\r\n"), "{response}");
}

#[tokio::test]
async fn empty_pieces_are_no_end_and_trailers_are_left_out() {
    let trailing = || async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", "1".parse().unwrap());
        let frames = [
            Frame::data(Bytes::new()),
            Frame::data("one".into()),
            Frame::data(Bytes::new()),
            Frame::data("two".into()),
            Frame::trailers(trailers),
        ];
        let frames = stream::iter(frames.map(Ok::<_, String>));
        events(Body::new(StreamBody::new(frames)))
    };
    let server = Running::start(Router::new().route("/", get(trailing))).await;
    let mut client = server.ask(&get_request("/")).await;
    let response = client.until("0\r\n\r\n").await;
    assert!(
        response.ends_with("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
        "{response}"
    );
}

#[tokio::test]
async fn a_stream_of_known_length_keeps_it() {
    let known = || async { ([(CONTENT_LENGTH, "3")], events(pieces(["one"]))) };
    let app = app()
        .route("/known", get(known))
        .route("/at-once", get(|| async { events(Body::from("three")) }));
    let server = Running::start(app).await;
    for (path, length) in [("/known", 3), ("/at-once", 5)] {
        let mut client = server.ask(&get_request(path)).await;
        let head = client.until("\r\n\r\n").await;
        assert!(
            head.contains(&format!("\r\ncontent-length: {length}\r\n")),
            "{head}"
        );
        client
            .until(if length == 3 { "one" } else { "three" })
            .await;
        client.write(&get_request("/whole")).await;
        client.until("\r\n\r\nwhole").await;
    }
}

#[tokio::test]
async fn middleware_can_change_the_body() {
    let louder = map_response(|response: Response| async {
        response.map(|body| {
            let louder = body
                .into_data_stream()
                .map(|piece| piece.map(|piece| piece.to_ascii_uppercase()));
            Body::from_stream(louder)
        })
    });
    let server = Running::start(app().layer(louder)).await;
    let mut client = server.ask(&get_request("/three")).await;
    let response = client.until("0\r\n\r\n").await;
    assert!(
        response.contains("3\r\nONE\r\n3\r\nTWO\r\n5\r\nTHREE\r\n"),
        "{response}"
    );
}

#[tokio::test]
async fn a_client_that_closes_ends_its_stream() {
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let silent = move || {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            let leaving = Leaving(count);
            let silence = stream::pending::<Result<&str, String>>().map(move |piece| {
                let _ = &leaving;
                piece
            });
            events(Body::from_stream(stream::iter([Ok("one")]).chain(silence)))
        }
    };
    let server = Running::start(Router::new().route("/", get(silent))).await;
    let mut whole = server.ask(&get_request("/")).await;
    let mut half = server.ask(&get_request("/")).await;
    whole.until("one\r\n").await;
    half.until("one\r\n").await;
    assert_eq!(open.load(Ordering::Relaxed), 2);
    drop(whole);
    // As hyper has it: who will send nothing more has gone.
    half.tcp.shutdown().await.unwrap();
    let all_gone = async {
        while open.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(BOUND, all_gone).await.expect("both streams end");
}

struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The sizes of chunks, and writes that the socket takes in parts.
#[tokio::test]
async fn chunks_of_all_sizes_arrive_whole() {
    const SIZES: [usize; 12] = [
        1,
        15,
        16,
        17,
        1000,
        1020,
        1024,
        4095,
        4096,
        70_000,
        1 << 20,
        3,
    ];
    let piece = |size: usize| Bytes::from(vec![b'a' + (size % 26) as u8; size]);
    let sized = move |Path(size): Path<usize>| async move {
        let sizes = SIZES.into_iter().chain([size]);
        events(Body::from_stream(stream::iter(
            sizes.map(move |size| Ok::<_, String>(piece(size))),
        )))
    };
    let server = Running::start(Router::new().route("/{size}", get(sized))).await;
    let sizes = SIZES.into_iter().chain([5_000_000]);
    let expected: Vec<u8> = sizes.flat_map(piece).collect();
    let response = reqwest::get(format!("http://{}/5000000", server.addr))
        .await
        .unwrap();
    assert!(
        response.bytes().await.unwrap() == expected,
        "the body is another one"
    );
}

/// An upgrade is none of a stream's business.
#[tokio::test]
async fn other_protocols_take_the_connection_as_before() {
    let upgrading = |request: Request| async move {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.unwrap();
            let mut io = hyper_util::rt::TokioIo::new(upgraded);
            let mut line = [0; 5];
            io.read_exact(&mut line).await.unwrap();
            io.write_all(&line).await.unwrap();
        });
        let headers = [("connection", "upgrade"), ("upgrade", "echo")];
        (axum::http::StatusCode::SWITCHING_PROTOCOLS, headers)
    };
    let server = Running::start(app().route("/echo", get(upgrading))).await;
    let mut client = server.ask(&get_request("/three")).await;
    client.until("0\r\n\r\n").await;
    client
        .write("GET /echo HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.write("hello").await;
    client.until("hello").await;
}
