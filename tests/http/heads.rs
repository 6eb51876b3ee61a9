//! How long the head of a request may take, and how long it may be.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use futures_util::stream;
use tidings::serve::{StallListener, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// The default.
const LIMIT: Duration = Duration::from_secs(30);

/// Connections within the process, so that the clock can be paused.
struct InProcess(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for InProcess {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(io) => (io, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

async fn events() -> impl IntoResponse {
    let pieces = stream::iter(["one", "two"].map(Ok::<_, io::Error>));
    (
        [(CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(pieces),
    )
}

/// A server, with HTTP/2 or without, and what connects to it.
fn start(http2: bool) -> mpsc::UnboundedSender<DuplexStream> {
    let (connect, accept) = mpsc::unbounded_channel();
    let app = Router::new()
        .route("/events", get(events))
        .route("/whole", get(|| async { "whole" }));
    let server = serve(StallListener::new(InProcess(accept)), app);
    #[cfg(feature = "http2")]
    let server = server.http2(http2);
    #[cfg(not(feature = "http2"))]
    let _ = http2;
    tokio::spawn(server.into_future());
    connect
}

struct Client {
    io: DuplexStream,
    start: Instant,
}

impl Client {
    fn connect(server: &mpsc::UnboundedSender<DuplexStream>) -> Self {
        let (io, theirs) = duplex(1 << 20);
        server.send(theirs).expect("the server runs");
        Self {
            io,
            start: Instant::now(),
        }
    }

    async fn write(&mut self, bytes: &str) {
        self.io
            .write_all(bytes.as_bytes())
            .await
            .expect("it is open");
    }

    async fn until(&mut self, end: &str) -> String {
        let mut seen = String::new();
        while !seen.ends_with(end) {
            let byte = self.io.read_u8().await;
            seen.push(
                byte.unwrap_or_else(|_| panic!("closed after {seen:?}"))
                    .into(),
            );
        }
        seen
    }

    /// Writes this when so much time has passed since the last response.
    async fn write_after(&mut self, time: Duration, bytes: &str) {
        sleep_until(self.start + time).await;
        self.write(bytes).await;
    }

    /// When the server closes, since the last response, and what it sends before.
    async fn closed(mut self) -> (Duration, String) {
        let mut rest = String::new();
        let _ = self.io.read_to_string(&mut rest).await;
        (self.start.elapsed(), rest)
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn assert_is_limit(what: &str, (closed, rest): (Duration, String)) {
    assert_eq!(rest, "", "{what}");
    // The timer counts milliseconds.
    let late = closed.checked_sub(LIMIT);
    assert!(
        late.is_some_and(|late| late < SECOND / 100),
        "{what}: closed after {closed:?}"
    );
}

/// The time begins with the connection or with the end of the response before, not with the first byte.
#[tokio::test(start_paused = true)]
async fn a_head_has_one_time_out_from_the_beginning_to_its_last_byte() {
    for http2 in [false, true] {
        let server = start(http2);

        let silent = Client::connect(&server);
        assert_is_limit("nothing", silent.closed().await);

        let mut half = Client::connect(&server);
        half.write_after(29 * SECOND, "GET /whole HTTP/1.1\r\nho")
            .await;
        assert_is_limit("half a head", half.closed().await);

        let mut slow = Client::connect(&server);
        for (at, byte) in "GET /who".bytes().enumerate() {
            let byte = char::from(byte).to_string();
            slow.write_after(4 * SECOND * at as u32, &byte).await;
        }
        assert_is_limit("a head byte by byte", slow.closed().await);

        for path in ["/events", "/whole"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
            let end = if path == "/events" {
                "0\r\n\r\n"
            } else {
                "whole"
            };

            let mut early = Client::connect(&server);
            early.write(&format!("{request}GET /whole HT")).await;
            early.until(end).await;
            assert_is_limit("half a head that was there before", early.closed().await);

            let mut late = Client::connect(&server);
            // It takes its time for the first head, which is not deducted from the second one's.
            late.write_after(20 * SECOND, &request[..10]).await;
            late.write_after(25 * SECOND, &request[10..]).await;
            late.until(end).await;
            late.start = Instant::now();
            late.write_after(29 * SECOND, "GET /whole HT").await;
            assert_is_limit("half a head after a response", late.closed().await);

            let mut last = Client::connect(&server);
            last.write(&request).await;
            last.until(end).await;
            last.write_after(28 * SECOND, "GET /wh").await;
            last.write_after(29 * SECOND, "ole HTTP/1.1\r\nhost: test\r\n\r\n")
                .await;
            assert!(last.until("whole").await.starts_with("HTTP/1.1 200 OK\r\n"));
        }
    }
}

/// A head of so many bytes.
fn head(len: usize) -> String {
    let head = "GET /whole HTTP/1.1\r\nhost: test\r\nx: ";
    let padding = len - head.len() - 4;
    format!("{head}{}\r\n\r\n", "y".repeat(padding))
}

/// Whether it comes at once or in pieces, first on its connection or after a stream.
#[tokio::test(start_paused = true)]
async fn a_head_may_have_64_kib_and_not_a_byte_more() {
    const MOST: usize = 64 * 1024;
    for http2 in [false, true] {
        let server = start(http2);
        for after_stream in [false, true] {
            for piece in [usize::MAX, 40_000, 1000] {
                for (len, status) in [(MOST, "200 OK"), (MOST + 1, "431 ")] {
                    let mut client = Client::connect(&server);
                    if after_stream {
                        client
                            .write("GET /events HTTP/1.1\r\nhost: test\r\n\r\n")
                            .await;
                        client.until("0\r\n\r\n").await;
                    }
                    let head = head(len);
                    for piece in head.as_bytes().chunks(piece) {
                        let _ = client.io.write_all(piece).await;
                        tokio::task::yield_now().await;
                    }
                    let answer = client.until("\r\n\r\n").await;
                    assert!(
                        answer.starts_with(&format!("HTTP/1.1 {status}")),
                        "{len} bytes in pieces of {piece}: {answer}"
                    );
                }
            }
        }
    }
}
