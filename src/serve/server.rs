//! The accept loop and its shutdown.

use std::fmt;
use std::future::{Future, IntoFuture, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::TcpListener;
use tokio::task::{unconstrained, yield_now};

use super::app::{App, WithPeer};
use super::connection::Protocols;
use super::listener::StallListener;
use super::phase::{Phase, Phases};
use super::stalls::Stalls;
use crate::time::settable;

/// How many connections may be accepted before any of them is served. Accepting one takes a tenth of the time of its first
/// request.
const BURST: usize = 4096;

/// How long to wait for aborted connections to be dropped. This takes no time unless a handler blocks its thread.
const ABORT: Duration = Duration::from_secs(1);

/// Serves an app on a listener: an axum `Router`, or any tower service of HTTP.
///
/// The listener is what [`bind`](super::bind) returns, a [`StallListener`] with other settings, or tokio's `TcpListener` or
/// `UnixListener`. For any other listener, such as one that does TLS, see [`StallListener::new`].
///
/// Nothing happens until the [`Server`] is awaited. How long a handler may take, and how long it waits for the body of its
/// request, is up to the app. A response whose version is neither 1.0, 1.1 nor 2 is sent as one of 1.1.
///
/// ```no_run
/// use axum::{Router, extract::ConnectInfo, routing::get};
/// use std::net::SocketAddr;
/// use tidings::serve::{bind, serve};
///
/// async fn who(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
///     format!("you are {peer}")
/// }
///
/// # async fn run() -> std::io::Result<()> {
/// serve(bind("0.0.0.0:3000").await?, Router::new().route("/", get(who))).await;
/// # Ok(())
/// # }
/// ```
pub fn serve<L, A>(listener: impl Into<StallListener<L>>, app: A) -> Server<L, A>
where
    L: Listener<Addr: Clone + Send + Sync + 'static>,
    A: App,
{
    Server {
        listener: listener.into(),
        app,
        protocols: Protocols::default(),
        signal: Box::pin(pending()),
        drain: Duration::from_secs(10),
    }
}

/// A server that has not started yet: await it to run it. See [`serve`].
///
/// Each request carries the peer's address, for axum's `ConnectInfo` extractor; no `into_make_service` is needed.
///
/// # Cancel safety
///
/// When the future is dropped, the listener closes and all connections are aborted.
#[must_use = "a server does nothing until it is awaited"]
pub struct Server<L: Listener = TcpListener, A = axum::Router> {
    listener: StallListener<L>,
    app: A,
    protocols: Protocols,
    signal: Pin<Box<dyn Future<Output = ()> + Send>>,
    drain: Duration,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// The connections that had not ended by the deadline, and were aborted, upgraded ones included.
    pub aborted: usize,
}

impl<L: Listener, A> Server<L, A> {
    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// The listener's error.
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }

    /// Sets how long a client may take to send the head of a request; at least a millisecond, at most thirty years.
    /// Default 30 s.
    ///
    /// The time runs from the moment that a connection opens, or that a response or a stream has ended, until the last byte
    /// of the next head. So it also bounds how long a connection may be idle between requests. Open streams are not
    /// affected.
    ///
    /// With HTTP/2, it bounds the time until the client's first frame is complete, and after that the time from the first to the
    /// last byte of a request's head, or of any frame but DATA. A client that exceeds it loses the connection with all its
    /// streams, since nothing after that frame can be read. Idle connections have a time-out of their own,
    /// `http2_idle_timeout`.
    pub fn header_read_timeout(mut self, limit: Duration) -> Self {
        self.protocols.header_read_timeout = settable(limit);
        self
    }

    /// Sets whether [one task](super#one-writer-for-each-user) may write the events of a user's streams. Default `true`.
    ///
    /// Switch it off for a layer that has to see each frame of a response and passes on its size hint, such as one that counts bytes
    /// or drops some frames.
    pub fn shared_writes(mut self, on: bool) -> Self {
        self.protocols.attendants = on.then(Arc::default);
        self
    }

    /// Speaks HTTP/2 with clients that start with it, and HTTP/1 with the others. Default off.
    ///
    /// Browsers speak HTTP/2 over TLS only, after the TLS of your listener has offered it (ALPN `h2`); proxies may without.
    ///
    /// A stream whose client takes none of its bytes for the [stall limit](StallListener::stall_limit) is reset, the
    /// others of its connection go on. For that, the last bytes of a response and its end are two frames, the end being
    /// sent when the bytes have left. A stream that waits because others have used up the window of the connection is
    /// spared; of those, the one with the most unread bytes is reset, and the client has the limit once more to return that
    /// window. `guide::http` has the details.
    ///
    /// How long a client may take for a request's head is set by [`header_read_timeout`](Self::header_read_timeout), how
    /// long a connection may be without a stream by [`http2_idle_timeout`](Self::http2_idle_timeout).
    ///
    /// It costs HTTP/1 connections a look at their first bytes.
    #[cfg(feature = "http2")]
    pub fn http2(mut self, on: bool) -> Self {
        self.protocols.http2 = on;
        self
    }

    /// Sets how long an HTTP/2 connection may be without a stream; at least a millisecond, at most thirty years. Default
    /// 90 s.
    ///
    /// The server then sends GOAWAY, so that no request is lost, and closes the connection a second later if the client has not.
    /// An idle connection costs its buffers and those of TLS; a closed one costs the next request a handshake. The default is
    /// longer than the 60 s after which most proxies close idle connections themselves.
    #[cfg(feature = "http2")]
    pub fn http2_idle_timeout(mut self, limit: Duration) -> Self {
        self.protocols.http2_idle_timeout = settable(limit);
        self
    }

    /// Sets how long an HTTP/2 client may be silent before it gets a PING, which it has to answer within the
    /// [time-out](Self::http2_keep_alive_timeout). Default `None`: no pings.
    ///
    /// [TCP keep-alive](super::TcpKeepAlive) already detects clients that vanished, and wakes no task. A PING also detects
    /// clients that vanished behind a load balancer, which answers TCP for them, and programs that hang. It costs 17 bytes in each
    /// direction and wakes a task on both sides, and the radio of a phone, also on idle connections.
    #[cfg(feature = "http2")]
    pub fn http2_keep_alive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.protocols.http2_keep_alive_interval = interval.into().map(settable);
        self
    }

    /// Sets how long a client may take to answer a [PING](Self::http2_keep_alive_interval). Its connection is closed after
    /// that. Default 20 s.
    ///
    /// Choose it longer than the runtime is ever blocked: unlike the stall limit, this time-out gives no second chance.
    #[cfg(feature = "http2")]
    pub fn http2_keep_alive_timeout(mut self, limit: Duration) -> Self {
        self.protocols.http2_keep_alive_timeout = settable(limit);
        self
    }

    /// Sets the future whose completion starts the shutdown.
    ///
    /// When it is ready, the listener closes and every connection is told to finish: one that waits for a request closes,
    /// one with a response under way closes after it. End your streams at the same time: the server waits for them too, until
    /// the [deadline](Self::drain).
    pub fn with_graceful_shutdown(
        mut self,
        signal: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.signal = Box::pin(signal);
        self
    }

    /// Sets how long connections may take to finish after the signal; those that are left are aborted, whatever they or
    /// their clients do. At most thirty years; default 10 s. Process managers kill after 30 s (Kubernetes) or 10 s
    /// (Docker): stay below.
    ///
    /// Upgraded connections, such as WebSockets, are waited for and aborted like all others. Their handlers then get an
    /// error from the next read or write.
    pub fn drain(mut self, time: Duration) -> Self {
        self.drain = settable(time);
        self
    }
}

impl<L, A> IntoFuture for Server<L, A>
where
    L: Listener<Addr: Clone + Send + Sync + 'static>,
    A: App,
{
    type Output = Drained;
    type IntoFuture = ServerFuture;

    fn into_future(self) -> ServerFuture {
        ServerFuture(Box::pin(self.run()))
    }
}

impl<L, A> Server<L, A>
where
    L: Listener<Addr: Clone + Send + Sync + 'static>,
    A: App,
{
    async fn run(self) -> Drained {
        let Self {
            mut listener,
            app,
            protocols,
            mut signal,
            drain,
        } = self;
        #[cfg(feature = "http2")]
        let protocols = Protocols {
            stall_limit: listener.limit(),
            ..protocols
        };
        let protocols = Arc::new(protocols);
        Stalls::report();
        // Each connection holds a watcher. When this future is dropped, so is `phases`, and that aborts the connections.
        let phases = Phases::new();
        let mut accepted = 0_usize;
        loop {
            accepted += 1;
            if accepted % BURST == 0 {
                yield_now().await;
            }
            let (io, peer) = tokio::select! {
                // Connections in the kernel's queue come first: when it is full, the next client waits for a second.
                accepted = unconstrained(listener.accept()) => accepted,
                () = &mut signal => break,
            };
            protocols.spawn(io, WithPeer::new(app.clone(), peer), phases.watch());
        }
        drop(listener);

        phases.set(Phase::Finishing);
        if tokio::time::timeout(drain, phases.unwatched())
            .await
            .is_ok()
        {
            return Drained { aborted: 0 };
        }
        let aborted = phases.watchers();
        phases.set(Phase::Aborted);
        let _ = tokio::time::timeout(ABORT, phases.unwatched()).await;
        Drained { aborted }
    }
}

impl<L: Listener + fmt::Debug, A> fmt::Debug for Server<L, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("protocols", &self.protocols)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// A running [`Server`].
///
/// # Cancel safety
///
/// As [`Server`].
#[must_use = "a server does nothing until it is awaited"]
pub struct ServerFuture(Pin<Box<dyn Future<Output = Drained> + Send>>);

impl Future for ServerFuture {
    type Output = Drained;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Drained> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ServerFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerFuture").finish_non_exhaustive()
    }
}
