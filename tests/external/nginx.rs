//! Behind nginx, with the settings of the guide (`docs/nginx.conf`), streams are what they are without it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tidings::serve::{bind, serve};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, History, KeepAlive, LastEventId, RegisterError, Text};
use tokio::time::{Instant, Interval, interval};

use crate::load::http1;
use crate::support::nginx::{Nginx, replace};
use crate::support::site::{BOUND, Background, Client, MEGABYTE, Numbers, eventually};

/// How long a client may take nothing.
const LIMIT: Duration = Duration::from_secs(1);

/// The promise of the guide.
const AT_ONCE: Duration = Duration::from_millis(50);

type Hub = GenericBroadcaster<Text>;

/// A service, and nginx before it.
struct Site {
    hub: Hub,
    nginx: Nginx,
    _server: Background,
}

impl Site {
    async fn start() -> Self {
        Self::with(|settings| settings).await
    }

    async fn with(change: impl Fn(String) -> String) -> Self {
        let hub = GenericBroadcaster::builder()
            .connections_per_user(None)
            .history(History::new(10_000))
            .build()
            .expect("valid settings");
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let upstream = listener.local_addr().expect("an address");
        let app = Router::new()
            .route("/events/{user}", get(events))
            .route("/peer", post(peer))
            .with_state(Hub::clone(&hub));
        let _server = Background::spawn(async move {
            serve(listener.stall_limit(LIMIT), app).await;
        });
        Self {
            hub,
            nginx: Nginx::start(upstream, change),
            _server,
        }
    }

    fn send(&self, data: &str) {
        let event = Text::new(data.to_owned());
        self.hub.broadcast("ann", &event).expect("text");
    }

    fn connections(&self) -> usize {
        self.hub.connection_count("ann")
    }
}

async fn events(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    last_event_id: LastEventId,
) -> Result<impl IntoResponse, RegisterError> {
    let subscription = hub.resume(user, &last_event_id)?;
    Ok(SseResponse::new(subscription).keep_alive(&KeepAlive::off()))
}

async fn peer(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
    format!("you are {peer}\n")
}

#[test]
fn the_guide_shows_the_settings() {
    let guide = include_str!("../../docs/proxies.md");
    let settings = format!("```nginx\n{}```\n", include_str!("../../docs/nginx.conf"));
    assert!(guide.contains(&settings), "docs/proxies.md has others");
}

/// The times from broadcast to arrival of events that are sent one by one.
async fn delays(site: &Site, client: &mut Client) -> Vec<Duration> {
    let mut delays = Vec::new();
    for n in 0..100 {
        let start = Instant::now();
        site.send(&format!("{n} small"));
        client.until(&format!("data: {n} small\n\n")).await;
        delays.push(start.elapsed());
    }
    delays.sort_unstable();
    delays
}

#[tokio::test]
async fn events_arrive_immediately_and_one_by_one() {
    let site = Site::start().await;
    let mut client = Client::connect(site.nginx.addr).await;
    // A client that takes gzip gets none: what is compressed is gathered.
    client
        .write("GET /events/ann HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip\r\n\r\n")
        .await;
    let head = client.until("\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(!head.contains("content-encoding"), "{head}");
    let delays = delays(&site, &mut client).await;
    let median = delays[delays.len() / 2];
    println!("median {median:?}, longest {:?}", delays[delays.len() - 1]);
    assert!(median < AT_ONCE, "{delays:?}");
}

/// The header `X-Accel-Buffering: no`, which streams have, turns nginx's buffers off. What they would do is seen when nginx is
/// made to overlook it.
fn overlook_the_header(settings: String) -> String {
    let overlook = "proxy_ignore_headers X-Accel-Buffering;\nproxy_read_timeout";
    replace(&settings, "proxy_read_timeout", overlook)
}

#[tokio::test]
async fn over_http_1_0_without_the_header_events_would_be_gathered() {
    let site = Site::with(|settings| {
        let settings = replace(
            &settings,
            "proxy_http_version 1.1;",
            "proxy_http_version 1.0;",
        );
        overlook_the_header(settings)
    })
    .await;
    let mut client = Client::connect(site.nginx.addr).await;
    client.ask("/events/ann").await;
    eventually(BOUND, "it is there", || site.connections() == 1).await;
    let mut sent = 0;
    let first = client.until("data: ");
    tokio::pin!(first);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            _ = &mut first => break,
            _ = ticks.tick() => {
                site.send(&"x".repeat(500));
                sent += 1;
            }
        }
    }
    println!("{sent} events were sent before the first arrived");
    assert!(sent > 5, "{sent}");
}

#[tokio::test]
async fn a_client_resumes_through_it() {
    let site = Site::start().await;
    let mut client = Client::get(site.nginx.addr, "/events/ann").await;
    site.send("seen");
    let head = client.until("data: seen\n\n").await;
    let id = head.rsplit("id: ").next().expect("an id").trim();
    drop(client);
    eventually(BOUND, "it is gone", || site.connections() == 0).await;
    site.send("missed");
    site.send("missed too");

    let mut client = Client::connect(site.nginx.addr).await;
    client
        .write(&format!(
            "GET /events/ann HTTP/1.1\r\nhost: test\r\nlast-event-id: {id}\r\n\r\n"
        ))
        .await;
    client.until("\r\n\r\n").await;
    let before = client.until("data: missed\n\n").await;
    assert!(!before.contains("data:"), "{before}");
    client.until("data: missed too\n\n").await;
    site.send("live");
    client.until("data: live\n\n").await;
}

#[tokio::test]
async fn a_client_that_leaves_is_seen() {
    let site = Site::start().await;
    let client = Client::get(site.nginx.addr, "/events/ann").await;
    let _other = Client::get(site.nginx.addr, "/events/ann").await;
    assert_eq!(site.connections(), 2);
    // Nothing is sent: it is seen by the close alone.
    drop(client);
    let seen = eventually(BOUND, "it is gone", || site.connections() == 1).await;
    println!("seen after {seen:?}");
    assert!(seen < Duration::from_secs(1), "{seen:?}");
}

#[tokio::test]
async fn requests_of_many_clients_share_a_connection() {
    let site = Site::start().await;
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(site.nginx.addr).await;
        client
            .write("POST /peer HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n")
            .await;
        client.until("you are ").await;
        peers.push(client.until("\n").await);
    }
    peers.dedup();
    assert_eq!(peers.len(), 1, "{peers:?}");
}

/// Sends numbered events, one each millisecond, but no faster than somebody reads.
struct Flood<'a> {
    site: &'a Site,
    read: Arc<AtomicUsize>,
    _reader: Background,
    ticks: Interval,
    filling: String,
    sent: usize,
}

impl<'a> Flood<'a> {
    async fn of(site: &'a Site) -> Self {
        let opened = http1::Stream::open(site.nginx.addr, "/events/ann").await;
        let mut stream = opened.expect("a stream");
        let mut numbers = Numbers::default();
        let read = Arc::clone(&numbers.count);
        let _reader = Background::spawn(async move {
            let mut buf = vec![0; 64 * 1024];
            let mut push = |bytes: &[u8]| numbers.push(bytes);
            while stream.read(&mut buf, &mut push).await.expect("it works") {}
            panic!("the stream ended, complete: {}", stream.is_complete());
        });
        Self {
            site,
            read,
            _reader,
            ticks: interval(Duration::from_millis(1)),
            filling: "x".repeat(16 * 1024),
            sent: 0,
        }
    }

    fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    async fn until(&mut self, what: &str, is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            self.ticks.tick().await;
            if self.sent < self.read() + 20 {
                self.site.send(&format!("{}:{}", self.sent, self.filling));
                self.sent += 1;
            }
            assert!(
                start.elapsed() < 3 * BOUND,
                "not after {} events: {what}",
                self.sent
            );
        }
    }

    fn megabytes(&self) -> usize {
        self.sent * self.filling.len() / MEGABYTE
    }

    async fn reader_has_all(&self) {
        let has_all = || self.read() == self.sent;
        eventually(BOUND, "the reader has all", has_all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_by_the_stall_limit_and_nobody_else() {
    let site = Site::start().await;
    let mut flood = Flood::of(&site).await;
    let stalled = Client::stall(site.nginx.addr, "/events/ann").await;
    eventually(BOUND, "both are there", || site.connections() == 2).await;
    let start = Instant::now();
    flood.until("it is cut", || site.connections() == 1).await;
    let cut = start.elapsed();
    println!("cut after {cut:?} and {} MB", flood.megabytes());
    assert!(cut >= LIMIT, "{cut:?}");
    flood.reader_has_all().await;
    // nginx passes the cut on.
    let (ended, seen) = stalled.end().await;
    assert!(
        ended.is_err() || !seen.ends_with("0\r\n\r\n"),
        "it looks complete"
    );
}

/// A client that does not read is then no client that stalls: nginx reads for it, to disk, up to `proxy_max_temp_file_size`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_header_nginx_would_write_to_disk_for_a_client_that_does_not_read() {
    let site = Site::with(overlook_the_header).await;
    let mut flood = Flood::of(&site).await;
    let _stalled = Client::stall(site.nginx.addr, "/events/ann").await;
    eventually(BOUND, "both are there", || site.connections() == 2).await;
    let to_disk = || site.nginx.errors().contains("buffered to a temporary file");
    flood.until("it is written to disk", to_disk).await;
    println!("to disk after {} MB", flood.megabytes());
    let start = Instant::now();
    let limit_is_over = || start.elapsed() > 2 * LIMIT;
    flood.until("the limit is over", limit_is_over).await;
    assert_eq!(site.connections(), 2, "{}", site.nginx.errors());
    flood.reader_has_all().await;
}
