//! The server notices that a client has left although nothing is sent to it, and whatever it sent before: the stream ends and
//! its place is free again.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Version;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http_body_util::BodyExt;
use socket2::SockRef;
use tidings::serve::{bind, serve};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, KeepAlive, Text};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::support::site::{BOUND, Background, Client, eventually, soon};
#[cfg(all(feature = "agents", feature = "http2"))]
use crate::tls_h2;

type Hub = GenericBroadcaster<Text>;

/// What may wait behind a stream.
const READ_AHEAD: usize = 8 * 1024;

/// A stream without history and keep-alive: the server has nothing to say.
fn quiet(hub: &Hub) -> Response {
    let subscription = hub.register("ann").expect("there is no cap");
    SseResponse::new(subscription)
        .keep_alive(&KeepAlive::off())
        .into_response()
}

/// Has read the body of its request.
async fn read(State(hub): State<Hub>, _: Bytes) -> Response {
    quiet(&hub)
}

/// Drops the request.
async fn unread(State(hub): State<Hub>, _: Request) -> Response {
    quiet(&hub)
}

/// Holds the request for as long as the stream lives.
async fn held(State(hub): State<Hub>, request: Request) -> Response {
    let (head, body) = quiet(&hub).into_parts();
    let held = body.into_data_stream().map(move |piece| {
        let _ = &request;
        piece
    });
    Response::from_parts(head, Body::from_stream(held))
}

async fn older(State(hub): State<Hub>) -> Response {
    let mut response = quiet(&hub);
    *response.version_mut() = Version::HTTP_10;
    response
}

fn app(hub: &Hub) -> Router {
    Router::new()
        .route("/read", any(read))
        .route("/unread", any(unread))
        .route("/held", any(held))
        .route("/older", any(older))
        .with_state(hub.clone())
}

async fn serve_app(app: Router) -> (Background, SocketAddr) {
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let server = serve(listener, app);
    #[cfg(feature = "http2")]
    let server = server.http2(true);
    let server = Background::spawn(async move {
        server.await;
    });
    (server, addr)
}

async fn start() -> (Background, SocketAddr, Hub) {
    let hub = Hub::builder().connections_per_user(None).build();
    let hub = hub.expect("valid settings");
    let (server, addr) = serve_app(app(&hub)).await;
    (server, addr, hub)
}

/// The requests whose streams stay with hyper, each for a reason of its own, and the first one, whose does not.
fn requests() -> Vec<(&'static str, String)> {
    let request = |method, path, version, headers| {
        format!("{method} {path} HTTP/{version}\r\nhost: test\r\n{headers}\r\n")
    };
    let five = "content-length: 5\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    vec![
        ("GET", request("GET", "/read", "1.1", "")),
        ("GET of 1.0", request("GET", "/read", "1.0", "")),
        ("a response of 1.0", request("GET", "/older", "1.1", "")),
        (
            "an upgrade",
            request(
                "GET",
                "/read",
                "1.1",
                "connection: upgrade\r\nupgrade: h2c\r\n",
            ),
        ),
        ("POST", request("POST", "/read", "1.1", five) + "12345"),
        (
            "an unread POST",
            request("POST", "/unread", "1.1", five) + "12345",
        ),
        (
            "a held POST",
            request("POST", "/held", "1.1", five) + "12345",
        ),
        (
            "chunks",
            request("POST", "/read", "1.1", chunked) + "5\r\n12345\r\n0\r\n\r\n",
        ),
    ]
}

/// A client with a stream, to which it has sent so many bytes of a next request.
async fn with_more(addr: SocketAddr, request: &str, more: usize) -> Client {
    let mut client = Client::connect(addr).await;
    client.write(request).await;
    client.until("\r\n\r\n").await;
    // A server that has had enough closes.
    let _ = client.stream.write_all(next(more).as_bytes()).await;
    client
}

/// So many bytes of a request.
fn next(len: usize) -> String {
    let mut next = format!("GET /read HTTP/1.1\r\nhost: test\r\nx: {}", "y".repeat(len));
    next.truncate(len);
    next
}

/// Amounts that may wait after a request.
const BEHIND: [usize; 4] = [0, 1, 1000, READ_AHEAD];

#[tokio::test]
async fn a_client_that_resets_its_connection_is_noticed_whatever_it_sent_after_its_request() {
    let (_server, addr, hub) = start().await;
    for (what, request) in requests() {
        for more in BEHIND {
            let client = with_more(addr, &request, more).await;
            assert_eq!(hub.total_connections(), 1, "{what}, {more} bytes");
            let reset = SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
            reset.expect("it can be set");
            drop(client);
            let what = format!("{what}, {more} bytes: the stream has ended");
            eventually(BOUND, &what, || hub.total_connections() == 0).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_is_noticed_whatever_it_sent_after_its_request() {
    let (_server, addr, hub) = start().await;
    for (what, request) in requests() {
        for more in BEHIND {
            let mut client = with_more(addr, &request, more).await;
            assert_eq!(hub.total_connections(), 1, "{what}, {more} bytes");
            client.stream.shutdown().await.expect("it is open");
            let what = format!("{what}, {more} bytes: the stream has ended");
            eventually(BOUND, &what, || hub.total_connections() == 0).await;
            let _ = client.end().await;
        }
    }
}

/// Otherwise its bytes stay unread, and with them the news that it has disconnected.
#[tokio::test]
async fn a_client_that_sends_too_much_after_its_request_is_cut() {
    let (_server, addr, hub) = start().await;
    for (what, request) in requests() {
        // The length of chunks is not known: all of it may belong to the body.
        if what == "chunks" {
            continue;
        }
        // More than hyper and the server together keep.
        let client = with_more(addr, &request, 300 * 1024).await;
        let what = format!("{what}: the stream has ended");
        eventually(BOUND, &what, || hub.total_connections() == 0).await;
        let _ = client.end().await;
    }
}

/// Answers first, and reads the body of its request when it gets a permit.
fn uploads(gate: &Arc<Semaphore>) -> Router {
    let gate = Arc::clone(gate);
    let upload = move |request: Request| {
        let gate = Arc::clone(&gate);
        async move {
            let begin = stream::iter([Ok::<_, Infallible>("open".to_owned())]);
            let counted = stream::once(async move {
                gate.acquire().await.expect("it stays").forget();
                let body = request.into_body().collect().await.expect("it is whole");
                Ok(format!("{} bytes", body.to_bytes().len()))
            });
            let body = Body::from_stream(begin.chain(counted));
            ([("content-type", "text/event-stream")], body).into_response()
        }
    };
    Router::new()
        .route("/upload", any(upload))
        .route("/whole", any(|| async { "whole" }))
}

/// The body of a request does not count, however long it is: its handler may take its time.
#[tokio::test]
async fn an_upload_is_waited_for_while_its_stream_is_open() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 40;
    let gate = Arc::new(Semaphore::new(0));
    let (_server, addr) = serve_app(uploads(&gate)).await;
    let piece = "x".repeat(PIECE);
    let chunk = format!("{PIECE:x}\r\n{piece}\r\n");
    let length = format!("content-length: {}\r\n", PIECE * PIECES);
    let chunked = "transfer-encoding: chunked\r\n".to_owned();
    for (framing, piece, end) in [(length, piece, ""), (chunked, chunk, "0\r\n\r\n")] {
        let mut client = Client::connect(addr).await;
        client
            .write(&format!(
                "POST /upload HTTP/1.1\r\nhost: test\r\n{framing}\r\n"
            ))
            .await;
        client.until("open\r\n").await;
        // More than is read ahead, less than the kernel takes.
        for _ in 0..4 {
            client.write(&piece).await;
        }
        // By the next answer the server has seen it.
        Client::get(addr, "/whole").await;
        gate.add_permits(1);
        let rest = piece.repeat(PIECES - 4) + end;
        soon(client.stream.write_all(rest.as_bytes()))
            .await
            .expect("it is read");
        client
            .until(&format!("{} bytes\r\n0\r\n\r\n", PIECE * PIECES))
            .await;
    }
}

/// On a connection of HTTP/2 there is always somebody who reads.
#[cfg(feature = "http2")]
#[tokio::test]
async fn over_http2_a_client_that_goes_is_noticed_whatever_it_sent() {
    use crate::support::http2_by_hand::{END_HEADERS, END_STREAM, HEADERS, frame, get, preface};

    const DATA: u8 = 0;
    const PING: u8 = 6;
    let (_server, addr, hub) = start().await;
    let head = |flags| frame(HEADERS, END_HEADERS | flags, 1, &get("/held"));
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(2000);
    let upload = frame(DATA, 0, 1, &[0; 9000]);
    for (what, sent) in [
        ("a request", head(END_STREAM)),
        ("a flood of pings", [head(END_STREAM), pings].concat()),
        ("a body that nobody reads", [head(0), upload].concat()),
    ] {
        for is_reset in [true, false] {
            let mut client = Client::connect(addr).await;
            let sent = [preface(), sent.clone()].concat();
            client.stream.write_all(&sent).await.expect("it is read");
            let open = format!("{what}: the stream is open");
            eventually(BOUND, &open, || hub.total_connections() == 1).await;
            if is_reset {
                let reset = SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
                reset.expect("it can be set");
            }
            drop(client);
            let over = format!("{what}: the stream has ended");
            eventually(BOUND, &over, || hub.total_connections() == 0).await;
        }
    }
}

/// TLS reads as it is read from.
#[cfg(all(feature = "agents", feature = "http2"))]
#[tokio::test]
async fn over_tls_a_client_that_leaves_is_noticed_whatever_it_sent_after_its_request() {
    use tidings::serve::StallListener;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let own = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a key");
    let certificate = own.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = tls_h2::tls(vec![certificate.clone()], key).expect("a pair");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let client = ClientConfig::builder().with_root_certificates(roots);
    let connector = TlsConnector::from(Arc::new(client.with_no_client_auth()));

    let hub = Hub::builder().connections_per_user(None).build();
    let hub = hub.expect("valid settings");
    let tcp = bind("127.0.0.1:0").await.expect("a free port");
    let addr = tcp.local_addr().expect("it is bound");
    let tls = StallListener::new(tls_h2::TlsListener::new(tcp, config));
    let server = serve(tls, app(&hub));
    let _server = Background::spawn(async move {
        server.await;
    });
    for (what, request) in requests() {
        for more in BEHIND {
            for is_reset in [true, false] {
                let tcp = TcpStream::connect(addr).await.expect("it listens");
                let name = ServerName::try_from("localhost").expect("a name");
                let tls = soon(connector.connect(name, tcp)).await;
                let mut tls = tls.expect("a handshake");
                let sent = request.clone() + &next(more);
                tls.write_all(sent.as_bytes()).await.expect("it is read");
                soon(tls.read_u8()).await.expect("a response");
                assert_eq!(hub.total_connections(), 1, "{what}, {more} bytes");
                if is_reset {
                    let reset = SockRef::from(tls.get_ref().0).set_linger(Some(Duration::ZERO));
                    reset.expect("it can be set");
                }
                drop(tls);
                let what = format!("{what}, {more} bytes: the stream has ended");
                eventually(BOUND, &what, || hub.total_connections() == 0).await;
            }
        }
    }
}
