//! Clients that stall, vanish or dawdle do not delay other clients or a shutdown, and do not make memory grow.

use std::future::{Future, IntoFuture, pending};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use socket2::SockRef;
use tidings::History;
use tidings::serve::{
    Drained, Server, StallGuard, StallListener, Stalls, TcpKeepAlive, bind, listener, serve,
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::support::site::{
    BOUND, BRIEF, Background, Client, LIMIT, MEGABYTE, Site, all_go_on, eventually,
    server_socket_exists, soon,
};

/// Long enough to be out of play.
const LONG: Duration = Duration::from_secs(600);

/// A listener with little room for clients that do not read.
async fn tight_listener() -> (StallListener, SocketAddr) {
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    (listener.stall_limit(LIMIT).send_buffer(16 * 1024), addr)
}

// What stalls

/// Ten clients read, one does not, one stream is silent, one handler is slow.
async fn only_the_client_that_does_not_read_is_cut(site: &Site, addr: SocketAddr) {
    let mut silent = Client::get(addr, "/events/silent").await;
    let mut waiting = Client::connect(addr).await;
    waiting.ask("/slow").await;
    let stalled = Client::stall(addr, "/events/ann").await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        let client = Client::get(addr, "/events/ann").await;
        readers.push(client.read_numbers());
    }
    let connections = || site.hub.connection_count("ann");
    eventually(BOUND, "all are there", || connections() == 11).await;

    let start = Instant::now();
    let _pump = site.pump("ann");
    // Nothing else would cut it within this bound, and how late a busy machine may be is nobody's promise.
    eventually(BOUND, "the stream is dropped", || connections() == 10).await;
    let cut = start.elapsed();
    assert!(cut >= LIMIT, "{cut:?}");
    let gone = || !server_socket_exists(addr, stalled.addr());
    eventually(BOUND, "the socket is gone", gone).await;
    let (ended, _) = stalled.end().await;
    assert_eq!(
        ended.expect_err("a reset").kind(),
        ErrorKind::ConnectionReset
    );

    all_go_on(&readers).await;
    assert_eq!(connections(), 10);
    site.send("silent", "still here");
    silent.until("still here").await;
    site.gate.add_permits(1);
    waiting.until("at last").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_does_not_read_is_cut_and_nobody_else() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    // Heads are read in time; the time-out for them does not touch what comes after.
    let server = serve(listener, site.app()).header_read_timeout(LIMIT);
    let _server = Background::spawn(async move {
        server.await;
    });
    only_the_client_that_does_not_read_is_cut(&site, addr).await;
}

#[tokio::test]
async fn under_axum_serve_too() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let server = axum::serve(listener, site.app()).into_future();
    let _server = Background::spawn(async move { server.await.expect("it never fails") });
    only_the_client_that_does_not_read_is_cut(&site, addr).await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_stays() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let _server = start(serve(listener, site.app()));
    let mut slow = Client::stall(addr, "/events/ann").await;
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == 1
    })
    .await;
    let _pump = site.pump("ann");
    // A third of the limit between reads, for several times the limit: always behind, never still.
    let mut ticks = tokio::time::interval(LIMIT / 3);
    let mut buf = vec![0; 32 * 1024];
    for _ in 0..15 {
        ticks.tick().await;
        assert_ne!(soon(slow.stream.read(&mut buf)).await.expect("not cut"), 0);
    }
    assert_eq!(site.hub.connection_count("ann"), 1);
    assert!(site.hub.stats().lagged > 0, "it was never behind");
    // It stops, and is cut.
    eventually(BOUND, "it is cut", || site.hub.connection_count("ann") == 0).await;
}

// Streams that are over

/// What is a stream's end by its deadline, as seen from its beginning.
fn is_punctual(end: Duration) -> bool {
    end.abs_diff(BRIEF) < Duration::from_millis(500)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deadline_ends_streams_whatever_they_and_their_clients_do() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let _server = start(serve(listener.stall_limit(LONG), site.app()));
    let _busy = site.pump("busy");
    let start = Instant::now();
    let mut readers = Vec::new();
    for user in ["idle", "busy"] {
        let mut client = Client::connect(addr).await;
        let head = format!("GET /brief/{user} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        client.write(&head).await;
        readers.push(async move {
            let (ended, seen) = client.end().await;
            (user, ended, seen, start.elapsed())
        });
    }
    let busy = readers.pop().expect("it was pushed");
    let idle = readers.pop().expect("it was pushed");
    let stalled = Client::stall(addr, "/brief/stalled").await;
    let connections = || site.hub.connection_count("stalled");
    eventually(BOUND, "it is there", || connections() == 1).await;
    site.clog("stalled").await;
    let _stalled = site.pump("stalled");
    let dropped = eventually(BOUND, "the stream is dropped", || connections() == 0);

    let (idle, busy, _) = tokio::join!(idle, busy, dropped);
    let dropped = start.elapsed();
    assert!(is_punctual(dropped), "{dropped:?}");
    let gone = || !server_socket_exists(addr, stalled.addr());
    eventually(Duration::from_millis(200), "the socket is gone", gone).await;
    let (ended, _) = stalled.end().await;
    let reset = ended.expect_err("a reset").kind();
    assert_eq!(reset, ErrorKind::ConnectionReset);

    for (user, ended, seen, end) in [idle, busy] {
        ended.expect("a proper end");
        assert!(is_punctual(end), "{user}: {end:?}");
        assert!(seen.ends_with("\r\n0\r\n\r\n"), "{user}: {seen}");
        let events = seen.matches("data: ").count();
        assert_eq!(events > 100, user == "busy", "{user}: {events}");
    }
    assert_eq!(site.hub.total_connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disconnected_client_is_cut_although_it_does_not_read() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let _server = start(serve(listener.stall_limit(30 * SECOND), site.app()));
    let stalled = Client::stall(addr, "/events/ann").await;
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == 1
    })
    .await;
    site.clog("ann").await;
    assert!(server_socket_exists(addr, stalled.addr()));
    let before = Stalls::now().grace_period_sockets;
    assert_eq!(site.hub.disconnect_user("ann"), 1);
    let gone = || !server_socket_exists(addr, stalled.addr());
    // A quarter of a second, or twice that where the machine is late; long before the stall limit in any case.
    eventually(BOUND, "the socket is gone", gone).await;
    // Other tests of this process may add to it.
    assert!(Stalls::now().grace_period_sockets > before);
}

/// A stream of a client that does not read, with all buffers full.
async fn clogged(site: &Site, addr: SocketAddr) -> Client {
    let stalled = Client::stall(addr, "/events/ann").await;
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == 1
    })
    .await;
    site.clog("ann").await;
    assert!(server_socket_exists(addr, stalled.addr()));
    stalled
}

async fn is_gone(site: &Site, addr: SocketAddr, client: &Client) {
    assert_eq!(site.hub.total_connections(), 0);
    let gone = || !server_socket_exists(addr, client.addr());
    // A quarter of a second, or twice that where the machine is late.
    eventually(BOUND, "the socket is gone", gone).await;
}

/// Its task was woken to end, and waits for the socket nevertheless: the cut must wake it once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_end_of_a_shutdown_takes_the_sockets_of_clients_that_do_not_read() {
    for history in [None, Some(History::new(10))] {
        let site = Site::with_history(history);
        let (listener, addr) = tight_listener().await;
        let _server = start(serve(listener.stall_limit(LONG), site.app()));
        let stalled = clogged(&site, addr).await;
        assert_eq!(site.hub.shutdown(LIMIT).await, 1);
        is_gone(&site, addr, &stalled).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_that_was_drained_before_is_cut_as_well() {
    for history in [None, Some(History::new(10))] {
        let site = Site::with_history(history);
        let (listener, addr) = tight_listener().await;
        let _server = start(serve(listener.stall_limit(LONG), site.app()));
        let stalled = clogged(&site, addr).await;
        assert_eq!(site.hub.drain_user("ann"), 1);
        assert_eq!(
            (site.hub.drain_user("ann"), site.hub.connection_count("ann")),
            (0, 0)
        );
        assert_eq!(site.hub.disconnect_user("ann"), 1);
        is_gone(&site, addr, &stalled).await;

        let stalled = clogged(&site, addr).await;
        assert_eq!(site.hub.drain_user("ann"), 1);
        assert_eq!(site.hub.shutdown(Duration::ZERO).await, 1);
        is_gone(&site, addr, &stalled).await;
    }
}

/// The server waits for the client with the first bytes that stand before all events, and knows of the end nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_was_not_polled_for_an_event_yet_is_cut_as_well() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let _server = start(serve(listener.stall_limit(LONG), site.app()));
    let stalled = Client::stall(addr, "/opening/ann").await;
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == 1
    })
    .await;
    let waits = || site.waiting.load(Ordering::Relaxed) == 1;
    eventually(BOUND, "the opening is asked for", waits).await;
    assert_eq!(site.hub.disconnect_user("ann"), 1);
    is_gone(&site, addr, &stalled).await;

    let start = Instant::now();
    let stalled = Client::stall(addr, "/opening/brief").await;
    let waits = || site.waiting.load(Ordering::Relaxed) == 2;
    eventually(BOUND, "the opening is asked for", waits).await;
    let gone = || !server_socket_exists(addr, stalled.addr());
    eventually(BOUND, "the socket is gone by its deadline", gone).await;
    let end = start.elapsed();
    assert!(end >= BRIEF && end < BRIEF + SECOND, "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_takes_the_rest_in_time_sees_a_proper_end() {
    // Where the machine is late, so is the client.
    for _ in 0..20 {
        let site = Site::new();
        let (listener, addr) = tight_listener().await;
        let _server = start(serve(listener.stall_limit(LONG), site.app()));
        let mut client = Client::connect(addr).await;
        client.ask("/events/ann").await;
        eventually(BOUND, "it is there", || {
            site.hub.connection_count("ann") == 1
        })
        .await;
        site.clog("ann").await;
        let cut = Instant::now();
        assert_eq!(site.hub.disconnect_user("ann"), 1);
        match up_to_the_end(&mut client.stream).await {
            Ok(seen) => {
                assert!(seen > MEGABYTE, "an event was cut");
                return;
            }
            Err(error) => assert!(cut.elapsed() >= Duration::from_millis(250), "{error}"),
        }
    }
    panic!("not once in time");
}

/// Reads up to the last chunk of a response, and says how many bytes that were.
async fn up_to_the_end(stream: &mut TcpStream) -> io::Result<usize> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n0\r\n\r\n") {
        if soon(stream.read_buf(&mut seen)).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(seen.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_ends_by_itself_is_not_over_until_it_is_taken() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let _server = start(serve(listener.stall_limit(LONG), site.app()));
    let mut client = Client::stall(addr, "/events/ann").await;
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == 1
    })
    .await;
    // More than the sockets hold. The ring holds the rest.
    let filling = "x".repeat(5_000);
    for number in 0..10 {
        site.send("ann", &format!("{number}:{filling}"));
    }
    assert_eq!(site.hub.drain_user("ann"), 1);
    sleep(SECOND).await;
    let seen = client.until("\r\n0\r\n\r\n").await;
    assert!(seen.contains("data: 9:"), "an event was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_response_after_a_stream_has_all_the_time_there_is() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let _server = start(serve(listener.stall_limit(LONG), site.app()));
    let mut client = Client::connect_with(addr, Some(4096)).await;
    client.ask("/brief/ann").await;
    let ended = Instant::now();
    client.until("0\r\n\r\n").await;
    assert!(is_punctual(ended.elapsed()), "{:?}", ended.elapsed());
    // The stream is over, and its connection carries something else, of which nothing is taken for a while.
    client.ask("/large").await;
    client.until("\r\n\r\n").await;
    sleep(SECOND).await;
    client.skip(MEGABYTE).await;
    // It goes on.
    client.ask("/peer").await;
    client.until("you are").await;
}

// What does not begin

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let _server = start(serve(listener, site.app()).header_read_timeout(LIMIT));
    let start = Instant::now();
    let silent = Client::connect(addr).await;
    let mut half = Client::connect(addr).await;
    half.write("GET /peer HTTP/1.1\r\nhost: te").await;
    let mut open = Client::get(addr, "/peer").await;
    open.until("you are").await;
    for client in [silent, half, open] {
        let (_, seen) = client.end().await;
        assert!(!seen.contains("200 OK"), "{seen}");
        let cut = start.elapsed();
        assert!(cut >= LIMIT && cut < BOUND, "{cut:?}");
    }
}

// Shutdown

/// A server in the background, its signal, and how it ended.
struct Running {
    signal: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<Drained>,
}

impl Running {
    /// Gives the signal. Says how the server ended, and how long that took.
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

fn start(server: Server) -> Running {
    let (signal, given) = oneshot::channel();
    let server = server.with_graceful_shutdown(async {
        if given.await.is_err() {
            pending().await
        }
    });
    Running {
        signal: Some(signal),
        ended: tokio::spawn(server.into_future()),
    }
}

#[tokio::test]
async fn a_shutdown_is_prompt_when_the_streams_end() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let mut server = start(serve(listener, site.app()).drain(LONG));
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(Client::get(addr, "/events/ann").await);
    }
    let idle = Client::get(addr, "/peer").await;
    // Browsers open connections before they need them.
    let unused = Client::connect(addr).await;
    let mut waiting = Client::connect(addr).await;
    waiting.ask("/slow").await;
    let is_waiting = || site.waiting.load(Ordering::Relaxed) == 1;
    eventually(BOUND, "the handler waits", is_waiting).await;

    let ending = server.stop();
    let others = async {
        // The signal ends nothing that is under way.
        let (_, seen) = idle.end().await;
        assert!(seen.contains("you are"), "{seen}");
        unused.end().await.0.expect("a proper end");
        assert_eq!(site.hub.connection_count("ann"), 5);
        site.send("ann", "the last one");
        assert_eq!(site.hub.drain_user("ann"), 5);
        site.gate.add_permits(1);
    };
    let ((drained, took), ()) = tokio::join!(ending, others);
    assert_eq!(drained.aborted, 0);
    assert!(took < Duration::from_secs(1), "{took:?}");
    for stream in streams {
        let (ended, seen) = stream.end().await;
        ended.expect("a proper end");
        assert!(
            seen.contains("the last one") && seen.ends_with("0\r\n\r\n"),
            "{seen}"
        );
    }
    waiting.until("at last").await;
    let refused = TcpStream::connect(addr)
        .await
        .expect_err("the port is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shutdown_ends_by_its_deadline() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let server = serve(listener.stall_limit(LONG), site.app()).header_read_timeout(LONG);
    let mut server = start(server.drain(LIMIT));
    let mut half = Client::connect(addr).await;
    half.write("GET /peer HTTP/1.1\r\nhost: te").await;
    let _stalled = Client::stall(addr, "/events/ann").await;
    let _open = Client::get(addr, "/events/bob").await;
    let mut waiting = Client::connect(addr).await;
    waiting.ask("/slow").await;
    let connections = || site.hub.total_connections();
    let is_waiting = || site.waiting.load(Ordering::Relaxed) == 1;
    eventually(BOUND, "all are there", || {
        connections() == 2 && is_waiting()
    })
    .await;
    let _pump = site.pump("ann");
    site.flooded().await;

    let (drained, took) = server.stop().await;
    assert_eq!(drained.aborted, 4);
    assert!(took >= LIMIT && took < BOUND, "{took:?}");
    // Not later, and not by a task that is still about to run.
    assert!(connections() == 0 && !is_waiting());
}

#[tokio::test]
async fn a_stalled_client_delays_a_shutdown_by_no_more_than_the_stall_limit() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let mut server = start(serve(listener, site.app()).drain(LONG));
    let _stalled = Client::stall(addr, "/events/ann").await;
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == 1
    })
    .await;
    let _pump = site.pump("ann");
    site.flooded().await;
    let (drained, took) = server.stop().await;
    assert_eq!(drained.aborted, 0);
    assert!(took < BOUND, "{took:?}");
}

#[tokio::test]
async fn a_server_that_is_dropped_leaves_nothing() {
    let site = Site::new();
    let (listener, addr) = tight_listener().await;
    let mut server = serve(listener, site.app()).into_future();
    let asking = async {
        let client = Client::get(addr, "/events/ann").await;
        assert_eq!(site.hub.total_connections(), 1);
        client
    };
    let client = tokio::select! {
        client = asking => client,
        drained = &mut server => panic!("{drained:?}"),
    };
    drop(server);
    let (ended, _) = client.end().await;
    ended.expect("a closed connection");
    eventually(BOUND, "the stream is dropped", || {
        site.hub.total_connections() == 0
    })
    .await;
    assert!(TcpStream::connect(addr).await.is_err());
}

// Sockets

/// The socket that the listener accepts.
async fn accepted(mut listener: StallListener) -> (StallGuard<TcpStream>, TcpStream) {
    let addr = listener.local_addr().expect("it is bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let client = client.expect("the listener listens");
    assert_eq!(accepted.1, client.local_addr().expect("it is connected"));
    (accepted.0, client)
}

async fn any_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn sockets_are_set_for_streams() {
    let default = || async { accepted(listener(any_port().await)).await };
    let bound = bind("127.0.0.1:0").await.expect("a free port");
    for (io, _client) in [default().await, accepted(bound).await] {
        assert!(io.get_ref().nodelay().expect("it can be read"));
        let socket = SockRef::from(io.get_ref());
        assert!(socket.keepalive().expect("it can be read"));
        let seconds = |time: io::Result<Duration>| time.expect("it can be read").as_secs();
        assert_eq!(seconds(socket.tcp_keepalive_time()), 30);
        assert_eq!(seconds(socket.tcp_keepalive_interval()), 10);
        assert_eq!(socket.tcp_keepalive_retries().expect("it can be read"), 3);
        let user_timeout = socket.tcp_user_timeout().expect("it can be read");
        assert_eq!(user_timeout, Some(Duration::from_secs(60)));
        // Linux reserves twice what is asked for.
        assert_eq!(
            socket.send_buffer_size().expect("it can be read"),
            128 * 1024
        );
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn sockets_can_be_set_differently() {
    let system = SockRef::from(&any_port().await).send_buffer_size();
    let system = system.expect("it can be read");

    let keep_alive = TcpKeepAlive::default()
        .idle(Duration::from_secs(7))
        .interval(Duration::from_secs(2))
        .retries(4);
    assert_eq!(keep_alive.total(), Duration::from_secs(15));
    let own = listener(any_port().await)
        .keep_alive(keep_alive)
        .send_buffer(20_000);
    // The kernel shall not cut what the stall limit allows.
    let limit = Duration::from_secs(20);
    let (io, _client) = accepted(own.stall_limit(limit)).await;
    let socket = SockRef::from(io.get_ref());
    assert_eq!(socket.tcp_keepalive_time().expect("set").as_secs(), 7);
    assert_eq!(socket.tcp_keepalive_interval().expect("set").as_secs(), 2);
    assert_eq!(socket.tcp_keepalive_retries().expect("set"), 4);
    assert_eq!(socket.tcp_user_timeout().expect("set"), Some(limit));
    assert_eq!(socket.send_buffer_size().expect("set"), 40_000);

    let left = listener(any_port().await)
        .keep_alive(None)
        .send_buffer(None);
    let (io, _client) = accepted(left).await;
    let socket = SockRef::from(io.get_ref());
    assert!(!socket.keepalive().expect("it can be read"));
    assert_eq!(socket.tcp_user_timeout().expect("it can be read"), None);
    assert!(socket.send_buffer_size().expect("it can be read") >= system);
    assert!(io.get_ref().nodelay().expect("it can be read"));

    // Values that the kernel would refuse are brought into its range.
    let odd = TcpKeepAlive::default()
        .idle(Duration::MAX)
        .interval(Duration::ZERO)
        .retries(u32::MAX);
    let (io, _client) = accepted(listener(any_port().await).keep_alive(odd)).await;
    let socket = SockRef::from(io.get_ref());
    assert_eq!(socket.tcp_keepalive_time().expect("set").as_secs(), 32_767);
    assert_eq!(socket.tcp_keepalive_interval().expect("set").as_secs(), 1);
    assert_eq!(socket.tcp_keepalive_retries().expect("set"), 127);
    assert_eq!(socket.tcp_user_timeout().expect("set"), Some(odd.total()));
    let patient = listener(any_port().await).stall_limit(Duration::MAX);
    let (io, _client) = accepted(patient).await;
    let user_timeout = SockRef::from(io.get_ref()).tcp_user_timeout();
    let most = Duration::from_millis(i32::MAX as u64);
    assert_eq!(user_timeout.expect("set"), Some(most));
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let taken = bind("127.0.0.1:0").await.expect("a free port");
    let addr = taken.local_addr().expect("it is bound");
    let error = bind(addr).await.expect_err("somebody listens there");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let error = bind(&[][..]).await.expect_err("no address");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    // The second address is taken when the first cannot be had.
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let second = bind(&[addr, free][..]).await.expect("a free port");
    assert_ne!(second.local_addr().expect("it is bound"), addr);
}

/// Runs the test below with few file descriptors.
#[cfg(unix)]
#[test]
fn a_server_without_descriptors_recovers() {
    let me = std::env::current_exe().expect("a program");
    let limited = std::process::Command::new("sh")
        .args([
            "-c",
            r#"ulimit -n 64 && exec "$0" --ignored --exact serve::in_few_descriptors"#,
        ])
        .arg(me)
        .output()
        .expect("a shell");
    let output = String::from_utf8_lossy(&limited.stdout);
    assert!(
        limited.status.success() && output.contains("1 passed"),
        "{output}"
    );
}

#[cfg(unix)]
#[ignore = "needs a limit of descriptors, set by a_server_without_descriptors_recovers"]
#[tokio::test]
async fn in_few_descriptors() {
    let (listener, addr) = tight_listener().await;
    let _server = start(serve(listener, Site::new().app()));
    // All are taken by clients that wait to be accepted: nothing else runs meanwhile.
    let mut clients = Vec::new();
    while let Ok(client) = std::net::TcpStream::connect(addr) {
        clients.push(client);
    }
    let client = clients.pop().expect("some were possible");
    client.set_nonblocking(true).expect("it can be set");
    let mut client = TcpStream::from_std(client).expect("a socket");
    let request = b"GET /none HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    client
        .write_all(request)
        .await
        .expect("the kernel takes it");
    let early = timeout(LIMIT, client.readable()).await;
    early.expect_err("there is no descriptor for it");
    clients.clear();
    let mut response = String::new();
    let read = soon(client.read_to_string(&mut response)).await;
    read.expect("a response");
    assert!(response.starts_with("HTTP/1.1 404"), "{response}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_crowd_may_wait_to_be_accepted() {
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    // Nobody accepts. One too many would be told nothing, and try again after a second.
    let patience = Duration::from_millis(500);
    let connect = |_| std::net::TcpStream::connect_timeout(&addr, patience);
    let crowd: io::Result<Vec<_>> = (0..300).map(connect).collect();
    crowd.expect("there is room for them");
}

#[tokio::test]
async fn handlers_know_the_peer() {
    let app: Router = Site::new().app();
    let (own, own_addr) = tight_listener().await;
    let _own = start(serve(own, app.clone()));
    let (tapped, tapped_addr) = tight_listener().await;
    let tapped = tapped.tap_io(|_| {});
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let tapped = axum::serve(tapped, app).into_future();
    let _tapped = Background::spawn(async { tapped.await.expect("it never fails") });
    for addr in [own_addr, tapped_addr] {
        let mut client = Client::get(addr, "/peer").await;
        let expected = format!("you are {}.", client.addr());
        client.until(&expected).await;
    }
}

#[tokio::test]
async fn a_listener_of_tokio_is_served_as_it_is() {
    async fn answers(server: Server<TcpListener>) {
        let addr = server.local_addr().expect("it is bound");
        let _server = start(server);
        let mut client = Client::get(addr, "/peer").await;
        client.until("you are").await;
    }
    let site = Site::new();
    answers(serve(any_port().await, site.app())).await;
    answers(serve(listener(any_port().await), site.app())).await;
}

#[cfg(unix)]
#[tokio::test]
async fn other_listeners_are_guarded_as_well() {
    let path = std::env::temp_dir().join(format!("tidings-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let unix = tokio::net::UnixListener::bind(&path).expect("a free name");
    let site = Site::new();
    let server = serve(unix, site.app());
    assert!(server.local_addr().is_ok());
    drop(server);
    std::fs::remove_file(&path).expect("it is there");
    let unix = tokio::net::UnixListener::bind(&path).expect("a free name");
    let listener = StallListener::new(unix).stall_limit(LIMIT);
    let server = serve(listener, site.app());
    let _server = Background::spawn(async move {
        server.await;
    });
    let mut client = tokio::net::UnixStream::connect(&path)
        .await
        .expect("it listens");
    std::fs::remove_file(&path).expect("it is there");
    let request = b"GET /events/ann HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(request).await.expect("the server reads");
    eventually(BOUND, "it is there", || site.hub.total_connections() == 1).await;
    let _pump = site.pump("ann");
    eventually(BOUND, "it is cut", || site.hub.total_connections() == 0).await;
}

// The guard by itself, with the clock paused

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_write_fails_after_exactly_the_limit_without_progress() {
    let (server, mut client) = tokio::io::duplex(10);
    let mut server = StallGuard::new(server, 5 * SECOND);
    let start = Instant::now();
    let writing = tokio::spawn(async move { server.write_all(&[0; 30]).await });
    // Each byte that is taken starts the time anew.
    for _ in 0..3 {
        sleep(4 * SECOND).await;
        client.read_exact(&mut [0; 1]).await.expect("bytes");
    }
    let error = soon(writing)
        .await
        .expect("no panic")
        .expect_err("nobody reads");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("5s"), "{error}");
    assert_eq!(start.elapsed(), 17 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn quiet_costs_no_patience() {
    let (server, mut client) = tokio::io::duplex(10);
    let mut server = StallGuard::new(server, 5 * SECOND);
    for _ in 0..3 {
        server.write_all(&[0; 10]).await.expect("there is room");
        // For longer than the limit: full, and nothing to write.
        sleep(60 * SECOND).await;
        let begun = Instant::now();
        let (written, ()) = tokio::join!(server.write_all(&[0; 10]), async {
            sleep(4 * SECOND).await;
            client.read_exact(&mut [0; 10]).await.expect("bytes");
        });
        written.expect("it waited for less than the limit");
        client.read_exact(&mut [0; 10]).await.expect("bytes");
        assert_eq!(begun.elapsed(), 4 * SECOND);
    }
}

/// Says of each operation whether it is ready.
#[derive(Debug, Default)]
struct Switches {
    write: bool,
    flush: bool,
    shutdown: bool,
    vectored: Arc<AtomicUsize>,
}

impl AsyncWrite for Switches {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready_if(self.write, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.vectored.fetch_add(bufs.len(), Ordering::Relaxed);
        ready_if(self.write, bufs.iter().map(|buf| buf.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready_if(self.flush, ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready_if(self.shutdown, ())
    }
}

fn ready_if<T>(ready: bool, value: T) -> Poll<io::Result<T>> {
    if ready {
        Poll::Ready(Ok(value))
    } else {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn flush_and_shutdown_are_guarded_too() {
    let guard = || StallGuard::new(Switches::default(), 5 * SECOND);
    let start = Instant::now();
    let error = soon(guard().flush()).await.expect_err("never ready");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let error = soon(guard().shutdown()).await.expect_err("never ready");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(start.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_flush_with_nothing_to_do_is_no_progress() {
    let io = Switches {
        flush: true,
        ..Switches::default()
    };
    let mut guard = StallGuard::new(io, 5 * SECOND);
    for _ in 0..4 {
        assert!(timeout(SECOND, guard.write_all(b"x")).await.is_err());
        guard.flush().await.expect("nothing to flush");
    }
    let begun = Instant::now();
    guard
        .write_all(b"x")
        .await
        .expect_err("the limit has passed");
    assert_eq!(begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn many_buffers_are_written_in_one_call() {
    let mut io = Switches::default();
    let vectored = Arc::clone(&io.vectored);
    io.write = true;
    let mut guard = StallGuard::new(io, SECOND);
    assert!(guard.is_write_vectored());
    // Small ones in one piece, which costs the kernel less.
    let bufs = [IoSlice::new(b"ab"), IoSlice::new(b"c")];
    assert_eq!(guard.write_vectored(&bufs).await.expect("it is ready"), 3);
    assert_eq!(vectored.load(Ordering::Relaxed), 0);
    let large = [b'x'; 2000];
    let large = [IoSlice::new(b"ab"), IoSlice::new(&large)];
    let written = guard.write_vectored(&large).await;
    assert_eq!(written.expect("it is ready"), 2002);
    assert_eq!(vectored.load(Ordering::Relaxed), 2);
    let mut guard = StallGuard::new(Switches::default(), SECOND);
    let written = soon(guard.write_vectored(&bufs)).await;
    written.expect_err("never ready");
    drop(guard.into_inner());
}

#[tokio::test(start_paused = true)]
async fn a_limit_without_end_is_no_panic() {
    let (server, _client) = tokio::io::duplex(10);
    let mut server = StallGuard::new(server, Duration::MAX);
    let year = Duration::from_secs(365 * 24 * 3600);
    assert!(timeout(year, server.write_all(&[0; 30])).await.is_err());
    let never = listener(any_port().await).stall_limit(Duration::MAX);
    let server = serve(never, Router::new())
        .header_read_timeout(Duration::MAX)
        .drain(Duration::MAX)
        .with_graceful_shutdown(async {});
    assert_eq!(server.await.aborted, 0);
}

#[test]
fn a_server_can_be_spawned() {
    fn check(_: impl Future<Output = Drained> + Send + 'static) {}
    let _ = |server: Server| check(server.into_future());
}
