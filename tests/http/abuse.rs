//! Clients that abuse the service: heads without end, heads that come byte by byte, a storm over a cap, and many who
//! publish to one user at once. What each costs is measured by `abuse` of `crates/tidings-soak`.
//!
//! Elsewhere: a head that does not come (`serve.rs`), a beginning of HTTP/2 that does not (`serve_h2.rs`), ids of events
//! (`last_event_id.rs`), odd ids of users (`ids.rs`), caps to the last connection (`caps.rs`), clients that do not read
//! (`stalled.rs`), bodies and names (`agent_hub_limits.rs`), events that panic (`panics.rs`), drops (`drop_states.rs`),
//! clocks (`clock.rs`), runtimes that stand still (`starved.rs`).

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use tidings::serve::{bind, serve};
use tidings::{GenericBroadcaster, History, Text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;

use crate::support::site::{self, Background, Client, LIMIT, MEGABYTE, Site, eventually, soon};

/// Serves both protocols where both are there.
async fn start(site: &Site) -> (Background, SocketAddr) {
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let server = serve(listener, site.app()).header_read_timeout(LIMIT);
    #[cfg(feature = "http2")]
    let server = server.http2(true);
    let server = server.into_future().map(drop);
    (Background::spawn(server), addr)
}

/// Sends a flood, and what follows it over and over again until the server has had enough: what it answers, and how much
/// could be sent.
async fn flood(addr: SocketAddr, begin: &[u8], again: &[u8]) -> (Vec<u8>, usize) {
    let tcp = TcpStream::connect(addr).await.expect("the server listens");
    let (mut read, mut write) = tcp.into_split();
    let mut sent = 0;
    let writing = async {
        let mut next = begin;
        while !next.is_empty() {
            match write.write(next).await {
                Ok(written) => {
                    sent += written;
                    next = &next[written..];
                }
                Err(_) => return,
            }
            if next.is_empty() {
                next = again;
            }
        }
    };
    let mut answer = Vec::new();
    // An end by a reset is one too.
    let reading = async { drop(read.read_to_end(&mut answer).await) };
    soon(async { tokio::join!(writing, reading) }).await;
    (answer, sent)
}

/// What the kernel may have taken of a flood besides what the server reads: the buffers of two sockets.
const SOCKETS: usize = 10 * MEGABYTE;

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_opens_nothing() {
    let site = Site::new();
    let (_server, addr) = start(&site).await;
    let head = "GET /events/ann HTTP/1.1\r\nhost: test\r\n";
    let many: String = (0..200).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let broad: String = (0..90)
        .map(|n| format!("x-{n}: {}\r\n", "y".repeat(2000)))
        .collect();
    let long = "y".repeat(MEGABYTE);
    for (what, request) in [
        ("many headers", format!("{head}{many}\r\n")),
        ("headers that are too much", format!("{head}{broad}\r\n")),
        ("a long header", format!("{head}x: {long}\r\n\r\n")),
        (
            "a long path",
            format!("GET /events/{long} HTTP/1.1\r\nhost: test\r\n\r\n"),
        ),
        ("a long method", format!("{long} / HTTP/1.1\r\n\r\n")),
    ] {
        let (answer, _) = flood(addr, request.as_bytes(), b"").await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer
            .get("HTTP/1.1 ".len()..)
            .and_then(|rest| rest.get(..3));
        // Who goes on sending may lose the answer in a reset.
        let is_refused = matches!(status, None | Some("400" | "414" | "431"));
        assert!(is_refused, "{what}: {answer}");
        assert_eq!(site.hub.stats().registered, 0, "{what}");
    }
    let (_, sent) = flood(addr, head.as_bytes(), b"x: without end\r\n").await;
    assert!(sent < SOCKETS, "{sent} bytes were taken");
    assert_eq!(site.hub.stats().registered, 0);
    Client::get(addr, "/events/ann").await;
    assert_eq!(site.hub.total_connections(), 1);
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
    let site = Site::new();
    let (_server, addr) = start(&site).await;
    let mut crowd = Vec::new();
    for _ in 0..50 {
        // The server's time begins with the connection, which a task may begin to use later.
        let start = Instant::now();
        let mut client = Client::connect(addr).await;
        crowd.push(tokio::spawn(async move {
            let head = "GET /events/ann HTTP/1.1\r\nhost: test\r\nx: and so on for ever";
            for byte in head.bytes() {
                let cut = client.stream.read_u8().now_or_never();
                let written = client.stream.write_all(&[byte]).await;
                if cut.is_some() || written.is_err() {
                    return start.elapsed();
                }
                // Each byte well before the limit; all of them far behind it.
                sleep(LIMIT / 10).await;
            }
            panic!("a head of three seconds was waited for");
        }));
    }
    for client in crowd {
        let cut = soon(client).await.expect("it is cut");
        assert!(cut >= LIMIT - LIMIT / 10, "{cut:?}");
    }
    assert_eq!(site.hub.stats().registered, 0);
}

#[tokio::test]
async fn a_storm_over_a_full_cap_does_not_disturb_open_streams() {
    const INSIDE: usize = 20;
    let site = Site {
        hub: GenericBroadcaster::builder()
            .connections_per_user(None)
            .total_connections(INSIDE)
            .build()
            .expect("valid settings"),
        ..Site::new()
    };
    let (_server, addr) = start(&site).await;
    let mut readers = Vec::new();
    for _ in 0..INSIDE {
        let client = Client::get(addr, "/events/ann").await;
        readers.push(client.read_numbers());
    }
    // Each of them panics if an event is lost, and then stops counting.
    let pumped = site.clone();
    let _pump = Background::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        for number in 0_u64.. {
            ticks.tick().await;
            pumped.send("ann", &format!("{number}:"));
        }
    });
    let counts = || {
        readers
            .iter()
            .map(|(_, count)| count.load(std::sync::atomic::Ordering::Relaxed))
    };
    eventually(site::BOUND, "all get events", || {
        counts().all(|count| count > 0)
    })
    .await;
    let mut storm = Vec::new();
    for n in 0..20 {
        storm.push(tokio::spawn(async move {
            for _ in 0..10 {
                let mut client = Client::connect(addr).await;
                client.ask(&format!("/events/{n}")).await;
                let head = client.until("\r\n\r\n").await;
                assert!(head.starts_with("HTTP/1.1 503"), "{head}");
                assert!(head.contains("retry-after: "), "{head}");
            }
        }));
    }
    for client in storm {
        soon(client).await.expect("each is refused");
    }
    let before: Vec<_> = counts().collect();
    let go_on = || counts().zip(&before).all(|(now, before)| now > *before);
    eventually(site::BOUND, "all go on", go_on).await;
    let stats = site.hub.stats();
    assert_eq!((stats.connections, stats.refused), (INSIDE, 200));
    drop(readers);
    let gone = || site.hub.total_connections() == 0;
    eventually(site::BOUND, "all have left", gone).await;
    let again = Client::get(addr, "/events/ann").await;
    assert_eq!(site.hub.total_connections(), 1);
    drop(again);
}

/// Every publisher's events come in its order, none is lost, and with a history their ids have no holes.
#[test]
fn of_many_publishers_each_keeps_its_order() {
    const PUBLISHERS: usize = 64;
    const EACH: usize = 200;
    for history in [None, Some(History::new(PUBLISHERS * EACH).bytes(1 << 30))] {
        let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
            .ring_capacity(PUBLISHERS * EACH)
            .history(history)
            .build()
            .expect("valid settings");
        let mut streams = [0; 3].map(|_| hub.register("ann").expect("no cap is reached"));
        let barrier = Barrier::new(PUBLISHERS);
        thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let (hub, barrier) = (&hub, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for number in 0..EACH {
                        let event = Text::new(format!("{publisher} {number}"));
                        assert_eq!(hub.broadcast("ann", &event).expect("text"), 3);
                    }
                });
            }
        });
        let mut orders = streams.each_mut().map(|stream| {
            let mut next = [0; PUBLISHERS];
            let mut order = Vec::new();
            while let Some(item) = stream.next().now_or_never() {
                let frame = item.expect("it goes on").expect("nothing is lost");
                let data = frame.data();
                let (publisher, number) = data.split_once(' ').expect("two numbers");
                let publisher: usize = publisher.parse().expect("a number");
                assert_eq!(number.parse(), Ok(next[publisher]), "of {publisher}");
                next[publisher] += 1;
                order.push(publisher);
                if let Some((_, id)) = frame.fields().find(|(name, _)| *name == "id") {
                    let (_, offset) = id.split_once('-').expect("two parts");
                    assert_eq!(offset.parse(), Ok(order.len()));
                }
            }
            assert_eq!(next, [EACH; PUBLISHERS]);
            order
        });
        // And all streams agree on how they are mixed.
        let first = std::mem::take(&mut orders[0]);
        assert!(orders[1..].iter().all(|order| *order == first));
    }
}

#[cfg(feature = "http2")]
mod http2 {
    use super::*;
    use crate::support::http2_by_hand::*;

    fn request() -> Vec<u8> {
        get("/events/ann")
    }

    fn kinds(answer: &[u8]) -> Vec<u8> {
        frames(answer).into_iter().map(|(kind, _)| kind).collect()
    }

    #[tokio::test]
    async fn headers_that_are_too_much_are_refused_and_open_nothing() {
        let site = Site::new();
        let (_server, addr) = start(&site).await;
        let mut filling = vec![0, 1, b'x', 100];
        filling.extend([b'y'; 100]);
        let more = frame(CONTINUATION, 0, 1, &filling.repeat(100));
        let endless = [preface(), frame(HEADERS, END_STREAM, 1, &request())].concat();
        let (answer, sent) = flood(addr, &endless, &more).await;
        assert!(sent < SOCKETS, "{sent} bytes were taken");
        // The client may lose the answer in a reset.
        let is_end = |kind: &u8| matches!(*kind, GOAWAY | RST_STREAM | HEADERS);
        let kinds_of = kinds(&answer);
        assert!(
            kinds_of.is_empty() || kinds_of.iter().any(is_end),
            "{kinds_of:?}"
        );
        assert_eq!(site.hub.stats().registered, 0);

        // An entry of 4 KB is put into the table, and then named by one byte each time: 48 MB.
        let mut bomb = request();
        bomb.extend([0x40, 1, b'b', 0x7F, 0xA1, 0x1E]);
        bomb.extend([b'z'; 4000]);
        bomb.extend([0xBE; 12_000]);
        let bomb = frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb);
        let last = frame(GOAWAY, 0, 0, &[0; 8]);
        let (answer, _) = flood(addr, &[preface(), bomb, last].concat(), b"").await;
        assert!(kinds(&answer).iter().any(is_end), "{answer:?}");
        assert_eq!(site.hub.stats().registered, 0);
        Client::get(addr, "/events/ann").await;
    }

    /// The same headers are fine if they are few, or the test above would show nothing.
    #[tokio::test]
    async fn headers_by_hand_are_taken_if_they_are_few() {
        let site = Site::new();
        let (_server, addr) = start(&site).await;
        let mut block = request();
        block.extend([0x40, 1, b'b', 3]);
        block.extend(b"zzz");
        block.extend([0xBE; 10]);
        let opens = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
        let mut client = Client::connect(addr).await;
        let bytes = [preface(), opens].concat();
        client.stream.write_all(&bytes).await.expect("it reads");
        let opened = || site.hub.total_connections() == 1;
        eventually(Duration::from_secs(10), "it is opened", opened).await;
    }

    /// A request of `/events/ann`, and its end before anybody can have answered.
    fn canceled(stream: u32) -> Vec<u8> {
        const CANCEL: u32 = 8;
        let opens = frame(HEADERS, END_STREAM | END_HEADERS, stream, &request());
        [opens, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
    }

    /// Otherwise each costs a task and a handler, and none counts as a stream (CVE-2023-44487).
    #[tokio::test]
    async fn a_client_that_cancels_its_requests_as_it_sends_them_is_cut_off() {
        let site = Site::new();
        let (_server, addr) = start(&site).await;
        let flooding: Vec<u8> = (0..1000).flat_map(|n| canceled(2 * n + 1)).collect();
        let begin = [preface(), flooding].concat();
        flood(addr, &begin, b"").await;
        let registered = site.hub.stats().registered;
        assert!(registered < 100, "{registered} of 1,000 were begun");
    }

    #[tokio::test]
    async fn a_client_may_cancel_any_number_of_requests_in_the_course_of_time() {
        let site = Site::new();
        let (_server, addr) = start(&site).await;
        let mut client = Client::connect(addr).await;
        client.stream.write_all(&preface()).await.expect("it reads");
        for n in 0..100 {
            let ping = frame(PING, 0, 0, &u64::from(n).to_be_bytes());
            let bytes = [canceled(2 * n + 1), ping].concat();
            client.stream.write_all(&bytes).await.expect("it reads");
            let mut seen = Vec::new();
            let is_answer = |(kind, payload): (u8, &[u8])| {
                kind == PING && payload == u64::from(n).to_be_bytes()
            };
            while !frames(&seen).into_iter().any(is_answer) {
                let read = soon(client.stream.read_buf(&mut seen)).await;
                assert!(read.expect("a connection") > 0, "closed after {n}");
            }
        }
    }
}
