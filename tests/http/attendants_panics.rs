//! Code of the service that panics while one task writes to the streams of a user: no stream stays open that has lost
//! events.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::serve::Listener;
use tidings::serve::{StallListener, serve};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::support::site::{Background, Client, Site};

/// All of one user.
const MANY: usize = 20;

async fn open(addr: SocketAddr) -> Client {
    let mut client = Client::get(addr, "/events/ann").await;
    // So that each is polled before the next comes.
    client.until(":\n").await;
    client
}

/// Connections of which the last writes, or flushes, with a panic once it is told to.
struct Panicky {
    listener: TcpListener,
    panics: Arc<[AtomicBool; 2]>,
    /// How many are still to come.
    left: usize,
}

struct Io {
    stream: TcpStream,
    panics: Option<Arc<[AtomicBool; 2]>>,
}

impl Io {
    fn called(&self, operation: usize) {
        if let Some(panics) = &self.panics {
            assert!(!panics[operation].load(Ordering::Relaxed), "on purpose");
        }
    }
}

impl Listener for Panicky {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Io, SocketAddr) {
        let (stream, addr) = self.listener.accept().await.expect("a connection");
        self.left -= 1;
        let panics = (self.left == 0).then(|| Arc::clone(&self.panics));
        (Io { stream, panics }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.called(0);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.called(1);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_connection_that_panics_ends_and_the_others_go_on() {
    for operation in 0..2 {
        let site = Site::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let panics: Arc<[AtomicBool; 2]> = Arc::default();
        let listener = StallListener::new(Panicky {
            listener,
            panics: Arc::clone(&panics),
            left: MANY,
        });
        let app = site.app();
        let _server = Background::spawn(async move {
            serve(listener, app).await;
        });
        let mut clients = Vec::new();
        for _ in 0..MANY {
            clients.push(open(addr).await);
        }
        site.send("ann", "one.");
        for client in &mut clients {
            client.until("data: one.\n\n").await;
        }
        let last = clients.pop().expect("many");
        panics[operation].store(true, Ordering::Relaxed);
        site.send("ann", "two.");
        site.send("ann", "three.");
        for client in &mut clients {
            client.until("data: two.\n\n").await;
            client.until("data: three.\n\n").await;
        }
        // It ends, so that its client comes back.
        let (_, seen) = last.end().await;
        assert!(!seen.ends_with("0\r\n\r\n"), "{seen}");
        site.send("ann", "four.");
        for client in &mut clients {
            client.until("data: four.\n\n").await;
        }
    }
}

#[cfg(feature = "metrics")]
mod with_a_recorder {
    use metrics::{
        Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString,
        Unit,
    };
    use tidings::serve::bind;

    use super::*;

    /// Panics whenever a stream takes a sampled event.
    struct Panics;

    impl HistogramFn for Panics {
        fn record(&self, _: f64) {
            panic!("on purpose");
        }
    }

    impl Recorder for Panics {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            match key.name() {
                "tidings_publish_to_write_seconds" => Histogram::from_arc(Arc::new(Panics)),
                _ => Histogram::noop(),
            }
        }
    }

    #[tokio::test]
    async fn a_recorder_that_panics_costs_no_event() {
        let site = Site::new();
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let app = site.app();
        let _server = Background::spawn(async move {
            serve(listener, app).await;
        });
        let mut clients = Vec::new();
        for _ in 0..MANY {
            clients.push(open(addr).await);
        }
        // The bodies take the first, an attendant the second.
        for text in ["one.", "two."] {
            let site = site.clone();
            let sender = std::thread::spawn(move || {
                let _local = metrics::set_default_local_recorder(&Panics);
                // The first broadcast of a thread is sampled.
                site.send("ann", text);
            });
            sender.join().expect("it is sent");
            for client in &mut clients {
                let event = client.until("\n\n").await;
                assert!(event.ends_with(&format!("data: {text}")), "{event}");
            }
        }
    }
}
