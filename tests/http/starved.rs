//! A runtime that does nothing for a while, because somebody blocks its only thread: no event is lost, no client is taken
//! for one that stalls or lags, and streams go on.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use tidings::serve::{bind, serve};
use tidings::{GenericBroadcaster, Text};
use tokio::runtime::{Builder, Runtime};
use tokio_stream::StreamExt;

use crate::support::site::{self, BOUND, Client, Site, eventually};

/// How long nobody is served.
const BLOCKED: Duration = Duration::from_secs(2);

/// A runtime with one thread for everything, which looks at few sockets at a time.
fn one_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .max_io_events_per_tick(8)
        .enable_all()
        .build()
        .expect("a thread can be started")
}

/// Blocks the only thread, calls `meanwhile`, and returns when the thread is free again.
fn block(runtime: &Runtime, meanwhile: impl FnOnce()) {
    let (is_blocked, told) = std::sync::mpsc::channel();
    let blocking = runtime.spawn(async move {
        is_blocked.send(()).expect("it is waited for");
        thread::sleep(BLOCKED);
    });
    told.recv().expect("it begins");
    meanwhile();
    assert!(!blocking.is_finished(), "that took too long");
    runtime.block_on(blocking).expect("no panic");
}

/// Serves with a stall limit that is shorter than the time that nobody is served.
fn start(runtime: &Runtime, site: &Site) -> SocketAddr {
    runtime.block_on(async {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let listener = listener.stall_limit(BLOCKED / 2).send_buffer(16 * 1024);
        let addr = listener.local_addr().expect("it is bound");
        let app = site.app();
        let server = serve(listener, app);
        #[cfg(feature = "http2")]
        let server = server.http2(true);
        tokio::spawn(server.into_future());
        addr
    })
}

/// Each stream has been sent what the buffers take, and the server waits for room.
async fn all_wait(site: &Site) {
    let waits = || {
        let streams = site.hub.connection_info();
        streams.iter().all(|info| info.behind == 0)
    };
    eventually(BOUND, "all wait", waits).await;
}

#[test]
fn a_client_that_reads_while_the_server_is_blocked_is_not_cut() {
    const CLIENTS: usize = 24;
    const SIZE: usize = 256 * 1024;
    let site = Site::new();
    let serving = one_thread();
    let addr = start(&serving, &site);
    let reading = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let reading = reading.expect("a thread can be started");

    let may_read = Arc::new(AtomicBool::new(false));
    let whole = Arc::new(AtomicUsize::new(0));
    let clients = reading.block_on(async {
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            let mut client = Client::connect_with(addr, Some(16 * 1024)).await;
            client.ask(&format!("/events/{n}")).await;
            client.until("\r\n\r\n").await;
            clients.push(client);
        }
        clients
    });
    for n in 0..CLIENTS {
        site.send(&n.to_string(), &"x".repeat(SIZE));
    }
    reading.block_on(all_wait(&site));
    for mut client in clients {
        let (may_read, whole) = (Arc::clone(&may_read), Arc::clone(&whole));
        reading.spawn(async move {
            while !may_read.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            client.skip(SIZE).await;
            whole.fetch_add(1, Ordering::Relaxed);
            // Stays, and reads what comes.
            client.until("data: after").await;
            whole.fetch_add(1, Ordering::Relaxed);
            client
        });
    }
    block(&serving, || may_read.store(true, Ordering::Relaxed));
    let all = || whole.load(Ordering::Relaxed) == CLIENTS;
    reading.block_on(eventually(BOUND, "all have everything", all));
    assert_eq!(site.hub.total_connections(), CLIENTS);
    for n in 0..CLIENTS {
        site.send(&n.to_string(), "after");
    }
    let all = || whole.load(Ordering::Relaxed) == 2 * CLIENTS;
    reading.block_on(eventually(BOUND, "all go on", all));
}

#[test]
fn a_block_loses_no_event_and_new_clients_get_in() {
    let runtime = one_thread();
    let hub = GenericBroadcaster::<Text>::new();
    let send = |number: usize| {
        let event = Text::new(number.to_string());
        hub.broadcast("ann", &event).expect("text can be encoded")
    };
    let got = Arc::new(AtomicUsize::new(0));
    for _ in 0..4 {
        let mut stream = hub.register("ann").expect("no cap is reached");
        let got = Arc::clone(&got);
        runtime.spawn(async move {
            for number in 0.. {
                let frame = stream.next().await.expect("it goes on");
                assert_eq!(frame.expect("no lag").data(), number.to_string());
                got.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let wait_for = |events: usize| {
        let all = || got.load(Ordering::Relaxed) == 4 * events;
        runtime.block_on(eventually(BOUND, "all have it", all));
    };
    assert_eq!(send(0), 4);
    wait_for(1);
    block(&runtime, || {
        // From outside, while nobody is polled: as many as the ring has room for, and somebody new before the last.
        for number in 1..64 {
            assert_eq!(send(number), 4);
        }
        let mut late = hub.register("ann").expect("nothing is waited for");
        assert_eq!(send(64), 5);
        let next = late.next().now_or_never().flatten();
        assert_eq!(next.expect("an event").expect("no lag").data(), "64");
        drop(late);
        assert_eq!(hub.connection_count("ann"), 4);
    });
    wait_for(65);
    assert_eq!(hub.stats().lagged, 0);
    send(65);
    wait_for(66);
}

/// From within: a task that blocks, and uses the hub while it does.
#[test]
fn a_task_that_blocks_its_runtime_may_register_and_broadcast() {
    let runtime = one_thread();
    let hub = GenericBroadcaster::<Text>::new();
    let inside = hub.clone();
    let mut stream = runtime.block_on(async {
        let blocking = tokio::spawn(async move {
            let mut stream = inside.register("ann").expect("nothing is waited for");
            thread::sleep(BLOCKED / 4);
            let event = Text::new("x".to_owned());
            assert_eq!(inside.broadcast("ann", &event).expect("text"), 1);
            let next = stream.next().now_or_never().flatten();
            assert_eq!(next.expect("an event").expect("no lag").data(), "x");
            stream
        });
        blocking.await.expect("no panic")
    });
    assert_eq!(hub.disconnect_user("ann"), 1);
    let end = runtime.block_on(stream.next());
    assert!(end.is_none());
}

#[cfg(feature = "http2")]
#[test]
fn a_stream_of_http2_that_is_read_meanwhile_is_not_taken_for_one_that_stalls() {
    const STREAMS: usize = 20;
    let site = Site::new();
    let serving = one_thread();
    let addr = start(&serving, &site);
    let reading = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let reading = reading.expect("a thread can be started");
    let (mut bodies, _requests) = reading.block_on(async {
        let tcp = tokio::net::TcpStream::connect(addr)
            .await
            .expect("it listens");
        let (mut requests, connection) = h2::client::Builder::new()
            .initial_window_size(4096)
            .handshake::<_, bytes::Bytes>(tcp)
            .await
            .expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let mut bodies = Vec::new();
        for n in 0..STREAMS {
            let request = http::Request::get(format!("http://test/events/{n}")).body(());
            let (response, _) = requests
                .send_request(request.expect("a request"), true)
                .expect("it is sent");
            bodies.push(response.await.expect("a response").into_body());
        }
        (bodies, requests)
    });
    const SIZE: usize = 20_000;
    for n in 0..STREAMS {
        site.send(&n.to_string(), &"x".repeat(SIZE));
    }
    reading.block_on(all_wait(&site));
    let mut readers = Vec::new();
    block(&serving, || {
        for mut body in bodies.drain(..) {
            readers.push(reading.spawn(async move {
                let mut read = 0;
                while read < SIZE {
                    let bytes = body.data().await.expect("it goes on").expect("no reset");
                    read += bytes.len();
                    let released = body.flow_control().release_capacity(bytes.len());
                    released.expect("it goes on");
                }
                body
            }));
        }
    });
    for reader in readers {
        let body = reading.block_on(site::soon(reader));
        let _body = body.expect("all have everything");
    }
}
