//! The examples that show one thing each do what they say.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION,
    CONTENT_ENCODING, COOKIE, ORIGIN, WWW_AUTHENTICATE,
};
use axum::http::{Request, Response, StatusCode};
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tidings::{GenericBroadcaster, History, Text};
use tokio::time::Instant;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tower::ServiceExt;

use crate::support::decoder::{Decoder, Dispatched};
use crate::support::recipe::Program;
#[cfg(feature = "http2")]
use crate::tls_h2;

#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/auth/src/main.rs"]
mod auth;
#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/compression/src/main.rs"]
mod compression;
#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/cors/src/main.rs"]
mod cors;
#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/websocket/src/main.rs"]
mod websocket;

/// Waits for what has to happen.
async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("it happens within 10 seconds")
}

/// The response of a router, without a connection in between.
async fn ask(app: &Router, request: Request<Body>) -> Response<Body> {
    let response = app.clone().oneshot(request).await;
    response.expect("a router never fails")
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Body::from(body.to_owned()))
        .expect("a request")
}

/// The events of a response.
struct Events {
    body: Body,
    decoder: Decoder,
    unread: std::collections::VecDeque<Dispatched>,
}

impl Events {
    fn of(response: Response<Body>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            decoder: Decoder::default(),
            unread: std::collections::VecDeque::new(),
        }
    }

    /// The next event, `None` at the end.
    async fn next(&mut self) -> Option<Dispatched> {
        soon(self.read()).await
    }

    /// The same, however long it takes.
    async fn read(&mut self) -> Option<Dispatched> {
        while self.unread.is_empty() {
            let chunk = self.body.frame().await?.expect("the body is whole");
            self.decoder.push(&chunk.into_data().expect("no trailers"));
            self.unread.extend(self.decoder.take());
        }
        self.unread.pop_front()
    }

    async fn data(&mut self) -> String {
        self.next().await.expect("the stream is open").data
    }
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.expect("a body");
    String::from_utf8(body.to_bytes().into()).expect("text")
}

async fn served(app: Router) -> SocketAddr {
    let listener = tidings::serve::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

// auth

#[tokio::test(start_paused = true)]
async fn auth_the_user_comes_from_the_session_and_nothing_else() {
    let app = auth::App::new();
    let router = auth::router(app.clone());
    let [ann, bob] = ["ann", "bob"].map(|user| app.sessions.open(user).expect("a secret"));
    let bearer = |token: &str| format!("Bearer {token}");
    let (ann_bearer, bob_bearer) = (bearer(&ann), bearer(&bob));

    for (path, headers) in [
        ("/events", vec![]),
        ("/events?user=ann", vec![]),
        (&*format!("/events?token={ann}&access_token={ann}"), vec![]),
        ("/events", vec![(AUTHORIZATION.as_str(), "Bearer ann")]),
        ("/events", vec![(AUTHORIZATION.as_str(), &*ann)]),
        ("/events", vec![(COOKIE.as_str(), "__Host-session=ann")]),
        ("/events", vec![("x-user", "ann")]),
    ] {
        let refused = ask(&router, request("GET", path, &headers, "")).await;
        assert_eq!(
            refused.status(),
            StatusCode::UNAUTHORIZED,
            "{path} {headers:?}"
        );
        assert_eq!(refused.headers()[WWW_AUTHENTICATE], "Bearer");
    }
    assert_eq!(app.hub.total_connections(), 0);

    // What a browser keeps of the answer to a login.
    let cookie = auth::set_cookie(&ann);
    let cookie = cookie.split(';').next().expect("a first part");
    let with_cookie = [(COOKIE.as_str(), cookie)];
    let with_bearer = [(AUTHORIZATION.as_str(), &*bob_bearer)];
    let both = [with_cookie[0], with_bearer[0]];
    let mut of_ann = Events::of(ask(&router, request("GET", "/events", &with_cookie, "")).await);
    let mut of_bob = Events::of(ask(&router, request("GET", "/events", &with_bearer, "")).await);
    let mut too = Events::of(ask(&router, request("GET", "/events?user=ann", &both, "")).await);
    for (headers, said, reached) in [
        (&with_cookie[..], "for ann", 1),
        (&with_bearer[..], "for bob", 2),
    ] {
        let sent = ask(&router, request("POST", "/events", headers, said)).await;
        assert_eq!(text(sent).await, format!("reached {reached} streams\n"));
    }
    assert_eq!(of_ann.data().await, "for ann");
    assert_eq!(of_bob.data().await, "for bob");
    assert_eq!(too.data().await, "for bob");

    // A logout ends the user's streams, and the token is worth nothing any more.
    let with_bearer = [(AUTHORIZATION.as_str(), &*ann_bearer)];
    let ended = ask(&router, request("POST", "/logout", &with_bearer, "")).await;
    assert_eq!(text(ended).await, "ended 1 streams\n");
    assert_eq!(of_ann.next().await, None);
    let refused = ask(&router, request("GET", "/events", &with_cookie, "")).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(app.hub.total_connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn auth_a_stream_ends_when_its_token_expires() {
    let app = auth::App::new();
    let router = auth::router(app.clone());
    let opened = Instant::now();
    let token = format!("Bearer {}", app.sessions.open("ann").expect("a secret"));
    let headers = [(AUTHORIZATION.as_str(), &*token)];
    // Not from the time of the stream, but from that of the token.
    tokio::time::advance(auth::LIFETIME / 3).await;
    let mut stream = Events::of(ask(&router, request("GET", "/events", &headers, "")).await);
    let end = tokio::time::timeout(auth::LIFETIME, stream.read()).await;
    assert_eq!(end.expect("it ends"), None);
    let lived = opened.elapsed();
    assert!(lived >= auth::LIFETIME, "{lived:?}");
    assert!(lived < auth::LIFETIME + Duration::from_secs(1), "{lived:?}");
    let refused = ask(&router, request("GET", "/events", &headers, "")).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

// cors

#[tokio::test]
async fn cors_pages_of_the_named_origins_read_streams_and_no_others() {
    let page = "https://app.example";
    let hub = GenericBroadcaster::<Text>::new();
    let router = cors::router(hub.clone(), vec![page.parse().expect("an origin")]);
    let open = |origin| request("GET", "/events/ann", &[(ORIGIN.as_str(), origin)], "");

    let response = ask(&router, open(page)).await;
    assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], page);
    assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    let mut stream = Events::of(response);
    hub.broadcast("ann", &Text::new("hello".to_owned()))
        .expect("text");
    assert_eq!(stream.data().await, "hello");

    let response = ask(&router, open("https://evil.example")).await;
    let allowed = response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN);
    assert_eq!(allowed, None);

    // What `fetch` asks before it sends a token and the last id.
    let question = [
        (ORIGIN.as_str(), page),
        ("access-control-request-method", "GET"),
        (
            "access-control-request-headers",
            "authorization,last-event-id",
        ),
    ];
    let answer = ask(&router, request("OPTIONS", "/events/ann", &question, "")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let headers = &answer.headers()["access-control-allow-headers"];
    let headers = headers.to_str().expect("text");
    for header in ["authorization", "last-event-id"] {
        assert!(headers.contains(header), "{headers}");
    }
}

// compression

#[tokio::test]
async fn compression_leaves_events_immediate_and_uncompressed() {
    let hub = GenericBroadcaster::<Text>::new();
    let app = compression::router(hub.clone());
    let takes_gzip = [(ACCEPT_ENCODING.as_str(), "gzip")];

    let page = ask(&app, request("GET", "/", &takes_gzip, "")).await;
    assert_eq!(page.headers()[CONTENT_ENCODING], "gzip");
    let page = page.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(page[..2], [0x1f, 0x8b], "gzip begins so");
    assert!(page.len() < include_str!("../../examples/compression/src/main.rs").len());

    let stream = ask(&app, request("GET", "/events/ann", &takes_gzip, "")).await;
    assert_eq!(stream.headers().get(CONTENT_ENCODING), None);
    let mut stream = Events::of(stream);
    // Each event is awaited before the next is sent: nothing gathers them.
    for n in 0..100 {
        hub.broadcast("ann", &Text::new(n.to_string()))
            .expect("text");
        assert_eq!(stream.data().await, n.to_string());
    }
}

/// Why the choice has to begin with the default one.
#[tokio::test]
async fn compression_of_everything_that_is_large_takes_streams_as_well() {
    use tower_http::compression::CompressionLayer;
    use tower_http::compression::predicate::SizeAbove;

    let hub = GenericBroadcaster::<Text>::new();
    let everything = CompressionLayer::new().compress_when(SizeAbove::new(1024));
    let app = compression::routes(hub.clone()).layer(everything);
    let takes_gzip = [(ACCEPT_ENCODING.as_str(), "gzip")];
    let stream = ask(&app, request("GET", "/events/ann", &takes_gzip, "")).await;
    assert_eq!(stream.headers()[CONTENT_ENCODING], "gzip");
    let mut body = stream.into_body();
    // This version sends what it has when nothing more is ready. Small events grow by it.
    for n in 0..3 {
        hub.broadcast("ann", &Text::new(n.to_string()))
            .expect("text");
        let piece = soon(body.frame()).await.expect("it is open");
        let piece = piece.expect("it works").into_data().expect("no trailers");
        assert!(piece.len() > "data: 0\n\n".len(), "{piece:?}");
    }
}

// websocket

#[tokio::test]
async fn websocket_events_and_gaps_arrive_and_a_client_resumes() {
    let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
        .history(History::new(3))
        .build()
        .expect("valid settings");
    let addr = served(websocket::router(hub.clone())).await;
    let url = format!("ws://{addr}/events/ann");
    let send = |n: u32| {
        let event = Text::new(n.to_string()).event("count");
        hub.broadcast("ann", &event).expect("text")
    };
    async fn record(socket: &mut (impl StreamExt<Item = WsItem> + Unpin)) -> Value {
        let message = soon(socket.next()).await.expect("it is open");
        let message = message.expect("it works");
        serde_json::from_str(message.to_text().expect("text")).expect("JSON")
    }

    let (mut socket, _) = connect_async(&url).await.expect("a socket");
    assert_eq!(send(1), 1);
    let first = record(&mut socket).await;
    assert_eq!(
        (&first["event"], &first["data"]),
        (&json!("count"), &json!("1"))
    );
    socket.close(None).await.expect("it closes");
    let gone = async {
        while hub.total_connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(gone).await;

    // Five while it is away, of which three are kept.
    for n in 2..=6 {
        send(n);
    }
    let seen = first["id"].as_str().expect("an id");
    let (mut socket, _) = connect_async(format!("{url}?last_event_id={seen}"))
        .await
        .expect("a socket");
    let gap = record(&mut socket).await;
    assert_eq!(gap["event"], "gap");
    let told: Value = serde_json::from_str(gap["data"].as_str().expect("text")).expect("JSON");
    assert_eq!(told, json!({ "reason": "evicted", "missed": 2 }));
    for n in 4..=6 {
        assert_eq!(record(&mut socket).await["data"], n.to_string());
    }

    // What a client says is not taken for more than it is.
    socket
        .send(Message::text("hello?"))
        .await
        .expect("it sends");
    assert_eq!(send(7), 1);
    assert_eq!(record(&mut socket).await["data"], "7");

    hub.shutdown(Duration::from_millis(10)).await;
    let close = soon(socket.next()).await.expect("a close").expect("whole");
    let Message::Close(Some(close)) = close else {
        panic!("{close:?}");
    };
    assert_eq!(u16::from(close.code), 1012);
}

type WsItem = Result<Message, tokio_tungstenite::tungstenite::Error>;

// graceful

#[cfg(unix)]
#[tokio::test]
async fn graceful_readiness_fails_first_and_streams_get_a_reconnection_time() {
    let mut program = Program::start("graceful").await;
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("a client");
    let status = async |path: &str| {
        let response = client.get(program.url(path)).send().await;
        response.expect("a response").status()
    };
    assert_eq!(status("/ready").await, 200);
    let stream = client.get(program.url("/events/ann")).send().await;
    let stream = stream.expect("a stream");

    program.signal("TERM").await;
    let not_ready = async {
        while status("/ready").await != 503 {
            tokio::task::yield_now().await;
        }
    };
    soon(not_ready).await;
    // Streams go on, and newcomers are still let in.
    assert_eq!(status("/live").await, 200);
    let sent = client.post(program.url("/events/ann")).body("last").send();
    let sent = sent.await.expect("a response").text().await.expect("text");
    assert_eq!(sent, "reached 1 streams\n");

    // The stream has what was sent, is told when to come back, and ends cleanly. Then the process does.
    let all = soon(stream.text()).await.expect("it is whole");
    // The line before it is the first byte of a stream that has nothing to send yet.
    let all = all.trim_start_matches(":\n");
    let (event, retry) = all.split_once("\n\n").expect("an event");
    assert_eq!(event, "data: last");
    let retry: u64 = retry
        .strip_prefix("retry: ")
        .and_then(|ms| ms.trim_end().parse().ok())
        .unwrap_or_else(|| panic!("{all:?}"));
    // A second to a second and as long as the streams were given.
    assert!((1000..=5000).contains(&retry), "{retry}");
    assert!(soon(program.exit()).await.success());
}

#[tokio::test]
async fn the_others_start_as_programs() {
    for name in ["auth", "cors", "compression", "websocket"] {
        let program = Program::start(name).await;
        let response = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client")
            .get(program.url("/nothing"))
            .send()
            .await
            .expect("a response");
        assert_eq!(response.status(), 404, "{name}");
    }
}

// tls_h2

#[cfg(feature = "http2")]
mod tls {
    use std::sync::Arc;

    use tidings::EventRouter;
    use tidings::protocol::agui::{Event, RunRef};
    use tidings::serve::{StallListener, bind, serve};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    struct Site {
        addr: SocketAddr,
        events: EventRouter,
        certificate: CertificateDer<'static>,
    }

    impl Site {
        async fn start() -> Self {
            Self::on(bind("127.0.0.1:0").await.expect("a port")).await
        }

        async fn on(tcp: StallListener) -> Self {
            let own = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a key");
            let certificate = own.cert.der().clone();
            let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
            let config = tls_h2::tls(vec![certificate.clone()], key).expect("a pair");
            let addr = tcp.local_addr().expect("an address");
            let listener = StallListener::new(tls_h2::TlsListener::new(tcp, config));
            let events = EventRouter::new();
            let app = tls_h2::router(events.clone());
            tokio::spawn(async move { serve(listener, app).http2(true).await });
            Self {
                addr,
                events,
                certificate,
            }
        }

        async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.clone()).expect("a certificate");
            let mut config = ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            let tcp = TcpStream::connect(self.addr).await.expect("it listens");
            let name = ServerName::try_from("localhost").expect("a name");
            let connected = TlsConnector::from(Arc::new(config)).connect(name, tcp);
            let tls = soon(connected).await.expect("a handshake");
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(protocol));
            tls
        }
    }

    async fn post(
        requests: &mut h2::client::SendRequest<axum::body::Bytes>,
        path: &str,
        body: &str,
    ) {
        let request = Request::post(format!("https://localhost{path}")).body(());
        let sent = requests.send_request(request.expect("a request"), false);
        let (response, mut sender) = sent.expect("it is open");
        let body = axum::body::Bytes::copy_from_slice(body.as_bytes());
        sender.send_data(body, true).expect("it is open");
        assert_eq!(soon(response).await.expect("a response").status(), 200);
    }

    #[tokio::test]
    async fn tls_h2_one_connection_carries_many_streams_and_one_stream_all_protocols() {
        let site = Site::start().await;
        // Somebody who never shakes hands holds up nobody.
        let _silent = TcpStream::connect(site.addr).await.expect("it listens");
        let tls = site.connect(b"h2").await;
        let (mut requests, connection) = h2::client::handshake(tls).await.expect("HTTP/2");
        tokio::spawn(connection);

        // More than the six that HTTP/1.1 has in a browser.
        let mut streams = Vec::new();
        for _ in 0..10 {
            let request = Request::get("https://localhost/events/ann").body(());
            let sent = requests.send_request(request.expect("a request"), true);
            let response = soon(sent.expect("it is open").0).await;
            streams.push(response.expect("a response").into_body());
        }
        assert_eq!(site.events.context().connection_count("ann"), 10);
        post(&mut requests, "/steps/ann", "search").await;
        post(&mut requests, "/contexts/ann", "Trip").await;
        for stream in &mut streams {
            let (mut decoder, mut heard) = (Decoder::default(), Vec::new());
            while heard.len() < 2 {
                let bytes = stream.data().await.expect("it is open");
                decoder.push(&bytes.expect("it works"));
                heard.extend(decoder.take());
            }
            let kinds = heard.iter().map(|event| &*event.event);
            assert_eq!(kinds.collect::<Vec<_>>(), ["agui", "system"]);
            assert!(
                heard[0].data.contains(r#""stepName":"search""#),
                "{heard:?}"
            );
            assert!(heard[1].data.contains(r#""name":"Trip""#), "{heard:?}");
        }
    }

    #[tokio::test]
    async fn tls_h2_cuts_a_client_that_does_not_read() {
        use tokio::io::AsyncWriteExt;

        const LIMIT: Duration = Duration::from_millis(500);
        let tcp = bind("127.0.0.1:0").await.expect("a port");
        let site = Site::on(tcp.stall_limit(LIMIT).send_buffer(16 * 1024)).await;
        let mut tls = site.connect(b"http/1.1").await;
        let request = b"GET /events/ann HTTP/1.1\r\nhost: localhost\r\n\r\n";
        tls.write_all(request).await.expect("it is open");
        let count = || site.events.context().connection_count("ann");
        let start = Instant::now();
        let until = async |expected: usize| {
            while count() != expected {
                let event = Event::step_started("x".repeat(16 * 1024));
                let run = RunRef::new("thread-1", "run-1");
                let routed = site.events.route_agui("ann", &run.event(event));
                routed.expect("it can be encoded");
                tokio::task::yield_now().await;
            }
        };
        soon(until(1)).await;
        soon(until(0)).await;
        assert!(start.elapsed() >= LIMIT, "{:?}", start.elapsed());
        drop(tls);
    }

    #[tokio::test]
    async fn tls_h2_serves_http1_to_clients_without_http2() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let site = Site::start().await;
        let mut tls = site.connect(b"http/1.1").await;
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        tls.write_all(request).await.expect("it is open");
        let mut response = String::new();
        let _ = soon(tls.read_to_string(&mut response)).await;
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
        assert!(response.contains("new EventSource"), "{response}");
    }
}
