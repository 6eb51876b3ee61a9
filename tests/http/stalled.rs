//! While some of a user's clients stop reading, the others get every event, and the server is rid of the former in time.
//!
//! The short version of `stalled` of `crates/tidings-soak`, with its clients.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidings::serve::{Stalls, bind, serve};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use crate::load::http1;
#[cfg(feature = "http2")]
use crate::load::http2;
use crate::load::numbered::{Numbers, numbered};
use crate::support::site::{self, BOUND, Background, Site, eventually, server_socket_exists};

const LIMIT: Duration = Duration::from_secs(1);

/// What a busy machine may add to the limit: until the buffers are full, and until somebody looks. `stalled` has the
/// promise.
const MORE: Duration = Duration::from_secs(5);

const READING: usize = 16;
const STALLED: usize = 4;

const EVENTS: u64 = 300;
const SIZE: usize = 4 * 1024;

/// What the buffers of a client hold, so that a few events fill them.
const BUFFER: u32 = 16 * 1024;

/// A site that is served with the limit.
struct Served {
    site: Site,
    addr: SocketAddr,
    _server: Background,
}

impl Served {
    async fn start(http2: bool) -> Self {
        let site = Site::new();
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let listener = listener.stall_limit(LIMIT).send_buffer(BUFFER as usize);
        let server = serve(listener, site.app());
        #[cfg(feature = "http2")]
        let server = server.http2(http2);
        #[cfg(not(feature = "http2"))]
        assert!(!http2);
        let _server = Background::spawn(async move {
            server.await;
        });
        Self {
            site,
            addr,
            _server,
        }
    }
}

/// Whoever reads in the background.
type Reader = Arc<Mutex<Numbers>>;

fn reader() -> Reader {
    Arc::new(Mutex::new(Numbers::of_size(SIZE)))
}

fn lock(reader: &Reader) -> MutexGuard<'_, Numbers> {
    reader.lock().expect("nothing panics while it is held")
}

/// Sends the events, longer than the limit and the buffers last, each when all readers are near enough for the ring: how
/// fast the machine is is not the question.
async fn all_but_the_stalled_get_everything(
    served: &Served,
    readers: &[Reader],
    gone: impl Fn() -> bool,
) {
    let hub = &served.site.hub;
    let connections = || hub.connection_count("ann");
    assert_eq!(connections(), READING + STALLED);
    let sent = AtomicU64::new(0);
    let are_near = || {
        let near = |reader| lock(reader).count + 30 > sent.load(Ordering::Relaxed);
        readers.iter().all(near)
    };
    let start = Instant::now();
    let mut ticks = tokio::time::interval(3 * LIMIT / EVENTS as u32);
    let mut cut = None;
    while sent.load(Ordering::Relaxed) < EVENTS {
        ticks.tick().await;
        eventually(BOUND, "the readers keep up", are_near).await;
        served
            .site
            .send("ann", &numbered(sent.fetch_add(1, Ordering::Relaxed), SIZE));
        if cut.is_none() && connections() == READING && gone() {
            cut = Some(start.elapsed());
        }
    }
    let cut = cut.expect("the stalled are cut while events flow");
    assert!(cut >= LIMIT && cut <= LIMIT + MORE, "{cut:?}");
    let all_have_all = || readers.iter().all(|reader| lock(reader).count == EVENTS);
    eventually(BOUND, "the last event arrives", all_have_all).await;
    for reader in readers {
        assert_eq!(lock(reader).fault, None);
    }
    assert_eq!(hub.stats().connections, READING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http1_the_others_get_everything_and_the_sockets_go() {
    let served = Served::start(false).await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(BUFFER).expect("it can be set");
        let opened = http1::Stream::open_on(socket, served.addr, "/events/ann").await;
        stalled.push(opened.expect("a stream"));
    }
    let (mut readers, mut reading) = (Vec::new(), Vec::new());
    for _ in 0..READING {
        let opened = http1::Stream::open(served.addr, "/events/ann").await;
        let mut stream = opened.expect("a stream");
        let reader = reader();
        readers.push(Arc::clone(&reader));
        reading.push(Background::spawn(async move {
            let mut buf = vec![0; 256 * 1024];
            let mut push = |bytes: &[u8]| lock(&reader).push(bytes);
            while stream.read(&mut buf, &mut push).await.expect("it works") {}
            panic!("the stream ended, complete: {}", stream.is_complete());
        }));
    }
    let gone = || {
        let addr = |stream: &http1::Stream| stream.tcp.local_addr().expect("it is connected");
        let exists = |stream| server_socket_exists(served.addr, addr(stream));
        !stalled.iter().any(exists)
    };
    let before = Stalls::now().sockets;
    all_but_the_stalled_get_everything(&served, &readers, gone).await;
    // Other tests of this process may add to it.
    assert!(Stalls::now().sockets - before >= STALLED as u64);
}

/// Two withhold their window on a connection with streams that are read, two on connections of their own.
#[cfg(feature = "http2")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_the_others_get_everything_and_the_streams_are_reset() {
    let served = Served::start(true).await;
    let (mut stalled, mut readers, mut background) = (Vec::new(), Vec::new(), Vec::new());
    for (withholding, reading) in [(2, READING), (1, 0), (1, 0)] {
        let connected = http2::connect(served.addr, BUFFER).await;
        let (mut requests, connection) = connected.expect("a connection");
        background.push(Background::spawn(async move {
            connection.await.expect("it works");
        }));
        for _ in 0..withholding {
            let body = http2::open(&mut requests, "/events/ann").await;
            stalled.push((requests.clone(), body.expect("a stream")));
        }
        for _ in 0..reading {
            let body = http2::open(&mut requests, "/events/ann").await;
            let mut body = body.expect("a stream");
            let reader = reader();
            readers.push(Arc::clone(&reader));
            background.push(Background::spawn(async move {
                while let Some(bytes) = http2::read(&mut body).await {
                    lock(&reader).push(&bytes.expect("it works"));
                }
                panic!("the stream ended");
            }));
        }
    }
    let before = Stalls::now().streams;
    all_but_the_stalled_get_everything(&served, &readers, || true).await;
    // Other tests of this process may add to it.
    assert!(Stalls::now().streams - before >= STALLED as u64);
    for (_requests, mut body) in stalled {
        let reset = loop {
            match site::soon(body.data()).await {
                Some(Ok(_)) => {}
                end => break end.and_then(Result::err),
            }
        };
        let reason = reset.and_then(|error| error.reason());
        assert_eq!(reason, Some(h2::Reason::CANCEL));
    }
}
