//! A cut closes the connection, also under TLS, and after an upgrade, when neither hyper nor this crate has it.

use std::future::{IntoFuture, pending};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{Method, Request, Response, StatusCode};
use axum::routing::any;
use bytes::Bytes;
use h2::Reason;
use h2::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tidings::serve::{Drained, StallListener, bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::site::{
    BOUND, Background, Client, LIMIT, Site, eventually, server_socket_exists, soon,
};
use crate::tls_h2;

const LONG: Duration = Duration::from_secs(600);

// TLS

/// A server behind the TLS of the example.
struct Tls {
    addr: SocketAddr,
    certificate: CertificateDer<'static>,
    _server: Background,
}

impl Tls {
    /// The limit is the one of the guard around TLS. The one around the socket is out of play.
    async fn start(limit: Duration, app: Router) -> Self {
        let tcp = bind("127.0.0.1:0").await.expect("a free port");
        let tcp = tcp.stall_limit(LONG).send_buffer(16 * 1024);
        let addr = tcp.local_addr().expect("it is bound");
        let own = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a key");
        let certificate = own.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let config = tls_h2::tls(vec![certificate.clone()], key).expect("a pair");
        let listener = StallListener::new(tls_h2::TlsListener::new(tcp, config));
        let server = serve(listener.stall_limit(limit), app).http2(true);
        let server = Background::spawn(async move {
            server.await;
        });
        Self {
            addr,
            certificate,
            _server: server,
        }
    }

    async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("it can be set");
        let tcp = socket.connect(self.addr).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let connected = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        soon(connected).await.expect("a handshake")
    }
}

/// Waits until the kernel has forgotten the connection, and looks at how the client sees it.
async fn is_reset(server: SocketAddr, mut client: TcpStream) {
    let addr = client.local_addr().expect("it is connected");
    let gone = || !server_socket_exists(server, addr);
    eventually(Duration::from_secs(3), "the socket is gone", gone).await;
    let ended = soon(client.read_to_end(&mut Vec::new())).await;
    let reset = ended.expect_err("a reset").kind();
    assert_eq!(reset, ErrorKind::ConnectionReset);
}

/// Asks for a stream over HTTP/1, and reads nothing of it.
async fn stalled_http1(tls: &Tls, site: &Site) -> TcpStream {
    let mut client = tls.connect(b"http/1.1").await;
    let request = b"GET /events/ann HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(request).await.expect("the server reads");
    client.flush().await.expect("the server reads");
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == 1
    })
    .await;
    client.into_inner().0
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_tls_a_disconnected_client_that_does_not_read_is_reset() {
    let site = Site::new();
    let tls = Tls::start(LONG, site.app()).await;
    let client = stalled_http1(&tls, &site).await;
    site.clog("ann").await;
    assert_eq!(site.hub.disconnect_user("ann"), 1);
    is_reset(tls.addr, client).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_tls_a_client_that_does_not_read_for_the_stall_limit_is_reset() {
    let site = Site::new();
    let tls = Tls::start(LIMIT, site.app()).await;
    let client = stalled_http1(&tls, &site).await;
    site.clog("ann").await;
    is_reset(tls.addr, client).await;
    assert_eq!(site.hub.total_connections(), 0);
}

/// More streams than it takes for one task to write to them, and more bytes than all buffers hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_tls_many_streams_of_one_user_get_every_event_in_order() {
    const EVENTS: usize = 40;
    let site = Site::new();
    let tls = Tls::start(LONG, site.app()).await;
    let mut clients = Vec::new();
    for number in 1..=20 {
        let mut client = tls.connect(b"http/1.1").await;
        let request = b"GET /events/ann HTTP/1.1\r\nhost: test\r\n\r\n";
        client.write_all(request).await.expect("the server reads");
        let connections = || site.hub.connection_count("ann");
        eventually(BOUND, "it is there", || connections() == number).await;
        // The head, and the comment behind it.
        let mut seen = Vec::new();
        while !seen.ends_with(b":\n\r\n") {
            soon(client.read_buf(&mut seen)).await.expect("a head");
        }
        clients.push(client);
    }
    let filling = "x".repeat(20_000);
    for number in 0..EVENTS {
        site.send("ann", &format!("{number}:{filling}."));
    }
    for client in &mut clients {
        let mut seen = Vec::new();
        let last = format!("data: {}:{filling}.\n\n\r\n", EVENTS - 1);
        while !seen.ends_with(last.as_bytes()) {
            let read = soon(client.read_buf(&mut seen)).await.expect("it works");
            assert_ne!(read, 0, "it goes on");
        }
        let text = String::from_utf8(seen).expect("text");
        let numbers = text.split("data: ").skip(1);
        let numbers = numbers.map(|event| event.split(':').next().expect("a number"));
        let expected = (0..EVENTS).map(|number| number.to_string());
        assert!(numbers.eq(expected), "each once and in order");
        assert_eq!(text.matches('x').count(), EVENTS * filling.len());
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_tls_a_connection_of_http2_that_is_not_read_is_reset_with_its_last_stream() {
    let site = Site::new();
    let tls = Tls::start(LONG, site.app()).await;
    let mut client = tls.connect(b"h2").await;
    let window = (1_u32 << 30).to_be_bytes();
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS with a large window for streams, as large a one for the connection, and a request.
    begin.extend(frame(4, 0, 0, &[&[0, 4][..], &window].concat()));
    begin.extend(frame(8, 0, 0, &window));
    let path = b"/events/ann";
    let head = [
        &[0x82, 0x86, 0x44, path.len() as u8][..],
        path,
        b"\x41\x04test",
    ]
    .concat();
    begin.extend(frame(1, 5, 1, &head));
    client.write_all(&begin).await.expect("the server reads");
    client.flush().await.expect("the server reads");
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == 1
    })
    .await;
    site.clog("ann").await;
    site.hub.disconnect_user("ann");
    is_reset(tls.addr, client.into_inner().0).await;
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_dropped_while_it_writes_is_reset() {
    let site = Site::new();
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let listener = listener.stall_limit(LONG).send_buffer(16 * 1024);
    let server = serve(listener, site.app());
    let server = Background::spawn(async move {
        server.await;
    });
    let client = Client::stall(addr, "/events/ann").await;
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == 1
    })
    .await;
    site.clog("ann").await;
    drop(server);
    is_reset(addr, client.stream).await;
}

// Upgrades

/// What became of the connections that handlers took over.
#[derive(Clone, Default)]
struct Upgrades {
    /// Those that handlers have in their hands.
    held: Arc<AtomicUsize>,
    /// Those that they saw fail.
    failed: Arc<AtomicUsize>,
}

impl Upgrades {
    /// `/read` reads, `/write` writes without end, `/keep` does nothing with the connection.
    fn app(&self) -> Router {
        let route = any(Self::upgrade).with_state(self.clone());
        Router::new().route("/{what}", route)
    }

    async fn upgrade(
        State(upgrades): State<Self>,
        Path(what): Path<String>,
        request: Request<Body>,
    ) -> Response<Body> {
        let is_http1 = request.method() == Method::GET;
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let io = upgrade.await.expect("an upgrade");
            upgrades.held.fetch_add(1, Ordering::Relaxed);
            let ended = Self::hold(&what, TokioIo::new(io)).await;
            let failed = usize::from(ended.is_err());
            upgrades.failed.fetch_add(failed, Ordering::Relaxed);
        });
        let response = Response::builder();
        let response = match is_http1 {
            true => response
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, "bytes"),
            false => response.status(StatusCode::OK),
        };
        response.body(Body::empty()).expect("a response")
    }

    async fn hold(what: &str, mut io: TokioIo<Upgraded>) -> io::Result<()> {
        match what {
            "read" => match io.read(&mut [0; 10]).await? {
                0 => Ok(()),
                _ => pending().await,
            },
            "write" => loop {
                io.write_all(&[b'x'; 4096]).await?;
            },
            _ => {
                let _io = io;
                pending().await
            }
        }
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }
}

struct Running {
    addr: SocketAddr,
    signal: oneshot::Sender<()>,
    ended: JoinHandle<Drained>,
}

impl Running {
    async fn start(limit: Duration, app: Router, drain: Duration) -> Self {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let listener = listener.stall_limit(limit).send_buffer(16 * 1024);
        let (signal, given) = oneshot::channel();
        let server = serve(listener, app)
            .http2(true)
            .drain(drain)
            .with_graceful_shutdown(async {
                given.await.expect("the test gives it");
            });
        Self {
            addr,
            signal,
            ended: tokio::spawn(server.into_future()),
        }
    }

    async fn stop(self) -> (Drained, Duration) {
        let start = Instant::now();
        self.signal.send(()).expect("the server runs");
        let drained = soon(self.ended).await.expect("no panic");
        (drained, start.elapsed())
    }
}

async fn upgraded(addr: SocketAddr, path: &str) -> Client {
    let mut client = Client::connect_with(addr, Some(4096)).await;
    let head = "HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: bytes\r\n\r\n";
    client.write(&format!("GET {path} {head}")).await;
    client.until("\r\n\r\n").await;
    client
}

async fn an_upgrade_is_aborted(path: &str) {
    let upgrades = Upgrades::default();
    let server = Running::start(LONG, upgrades.app(), LIMIT).await;
    let addr = server.addr;
    let client = upgraded(addr, path).await;
    eventually(BOUND, "it is taken over", || upgrades.held() == 1).await;
    let (drained, took) = server.stop().await;
    assert_eq!(drained.aborted, 1, "{path}");
    assert!(took >= LIMIT && took < BOUND, "{took:?}");
    let (_, _) = client.end().await;
    if path != "/keep" {
        eventually(BOUND, "the handler is told", || upgrades.failed() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_that_waits_for_its_client_is_aborted_by_the_deadline() {
    an_upgrade_is_aborted("/read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_that_writes_to_its_client_is_aborted_by_the_deadline() {
    an_upgrade_is_aborted("/write").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_that_its_handler_ignores_is_aborted_by_the_deadline() {
    an_upgrade_is_aborted("/keep").await;
}

#[tokio::test]
async fn a_shutdown_waits_for_an_upgraded_connection_to_end() {
    let upgrades = Upgrades::default();
    let server = Running::start(LONG, upgrades.app(), LONG).await;
    let client = upgraded(server.addr, "/read").await;
    eventually(BOUND, "it is taken over", || upgrades.held() == 1).await;
    let closing = async {
        tokio::time::sleep(LIMIT).await;
        drop(client);
    };
    let ((drained, took), ()) = tokio::join!(server.stop(), closing);
    assert_eq!(drained.aborted, 0);
    assert!(took >= LIMIT, "{took:?}");
}

#[tokio::test]
async fn a_server_that_is_dropped_cuts_upgraded_connections() {
    let upgrades = Upgrades::default();
    let server = Running::start(LONG, upgrades.app(), LONG).await;
    let client = upgraded(server.addr, "/keep").await;
    eventually(BOUND, "it is taken over", || upgrades.held() == 1).await;
    server.ended.abort();
    let (_, _) = client.end().await;
}

// Upgrades over HTTP/2

/// A client whose stream is upgraded, and takes no more than its window.
async fn extended_connect(
    tcp: TcpStream,
    path: &str,
    window: u32,
) -> (h2::RecvStream, h2::SendStream<Bytes>, JoinHandle<()>) {
    let handshake = h2::client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(1 << 30)
        .handshake::<_, Bytes>(tcp);
    let (requests, connection) = soon(handshake).await.expect("a server of HTTP/2");
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let mut requests = soon(requests.ready()).await.expect("a connection");
    let may = || requests.is_extended_connect_protocol_enabled();
    eventually(BOUND, "the settings are there", may).await;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = format!("http://test{path}").parse().expect("a URI");
    request
        .extensions_mut()
        .insert(Protocol::from_static("bytes"));
    let (response, sender) = requests.send_request(request, false).expect("it is sent");
    let response = soon(response).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    (response.into_body(), sender, driver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_stream_is_aborted_by_the_deadline_though_its_window_is_withheld() {
    for path in ["/read", "/write", "/keep"] {
        let upgrades = Upgrades::default();
        let server = Running::start(LONG, upgrades.app(), LIMIT).await;
        let tcp = TcpStream::connect(server.addr).await.expect("it listens");
        let (_body, _sender, driver) = extended_connect(tcp, path, 1024).await;
        eventually(BOUND, "it is taken over", || upgrades.held() == 1).await;
        let (drained, took) = server.stop().await;
        assert_eq!(drained.aborted, 1, "{path}");
        assert!(took < BOUND, "{path}: {took:?}");
        soon(driver).await.expect("the connection ends");
        if path != "/keep" {
            let is_told = || upgrades.failed() == 1;
            eventually(BOUND, "the handler is told", is_told).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_stream_whose_window_is_withheld_is_reset_at_the_stall_limit() {
    let upgrades = Upgrades::default();
    let server = Running::start(LIMIT, upgrades.app(), LONG).await;
    let start = Instant::now();
    let tcp = TcpStream::connect(server.addr).await.expect("it listens");
    let (mut body, _sender, _driver) = extended_connect(tcp, "/write", 1024).await;
    let mut taken = 0;
    let reason = loop {
        match soon(body.data()).await.expect("no proper end") {
            Ok(bytes) => taken += bytes.len(),
            Err(error) => break error.reason(),
        }
    };
    assert_eq!((taken, reason), (1024, Some(Reason::CANCEL)));
    let cut = start.elapsed();
    assert!(cut >= LIMIT && cut < BOUND, "{cut:?}");
    eventually(BOUND, "the handler is told", || upgrades.failed() == 1).await;
}

#[tokio::test]
async fn an_upgraded_stream_that_is_read_or_silent_stays() {
    for path in ["/write", "/read"] {
        let upgrades = Upgrades::default();
        let server = Running::start(LIMIT, upgrades.app(), LONG).await;
        let tcp = TcpStream::connect(server.addr).await.expect("it listens");
        let (mut body, _sender, _driver) = extended_connect(tcp, path, 1024).await;
        let reading = async {
            let mut taken = 0;
            while let Some(bytes) = body.data().await {
                let len = bytes.expect("it works").len();
                taken += len;
                let window = body.flow_control();
                window.release_capacity(len).expect("it was taken");
            }
            taken
        };
        let ended = tokio::time::timeout(3 * LIMIT, reading).await;
        assert!(ended.is_err(), "{path}: it ended after {ended:?} bytes");
        assert_eq!(upgrades.failed(), 0, "{path}");
    }
}
