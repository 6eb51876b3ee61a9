//! Listeners whose connections are guarded.

use std::fmt;
use std::io;
use std::time::Duration;

use axum::serve::Listener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host};

use super::guard::{STALL_LIMIT, StallGuard};
use super::stalls::Stalls;
use super::tcp::{TcpKeepAlive, TcpSettings, close_by_reset};
use crate::time::settable;

/// How many connections may wait to be accepted: a whole crowd that reconnects together, unlike the default of 128.
const BACKLOG: u32 = 4096;

/// Guards the connections of a TCP listener, with the defaults of [`StallListener`].
///
/// ```no_run
/// # async fn run(app: axum::Router) -> std::io::Result<()> {
/// let tcp = tokio::net::TcpListener::bind("0.0.0.0:3000").await?;
/// axum::serve(tidings::serve::listener(tcp), app).await?;
/// # Ok(())
/// # }
/// ```
pub fn listener(tcp: TcpListener) -> StallListener<TcpListener> {
    StallListener {
        on_accept: |stream: &TcpStream, settings, limit| settings.apply(stream, limit),
        reset: close_by_reset,
        ..StallListener::new(tcp)
    }
}

/// As [`listener`].
impl From<TcpListener> for StallListener<TcpListener> {
    fn from(tcp: TcpListener) -> Self {
        listener(tcp)
    }
}

/// As [`StallListener::new`].
#[cfg(unix)]
impl From<UnixListener> for StallListener<UnixListener> {
    fn from(listener: UnixListener) -> Self {
        Self::new(listener)
    }
}

/// Listens on the first of the addresses that can be bound, as [`TcpListener::bind`] does, with a longer backlog.
///
/// Up to 4096 connections may wait to be accepted (the kernel may allow fewer: on Linux `net.core.somaxconn`, 4096 by
/// default). With the usual 128, a crowd of clients that reconnects after a restart waits for TCP to try again, a
/// second and more. Elsewhere than on Windows, `SO_REUSEADDR` is set: a restarted server gets its port immediately.
///
/// # Errors
///
/// The system's error when no address can be resolved or bound.
///
/// # Cancel safety
///
/// Nothing is bound when the future is dropped before it is ready.
///
/// ```no_run
/// # async fn run(app: axum::Router) -> std::io::Result<()> {
/// let listener = tidings::serve::bind(("::", 3000)).await?;
/// tidings::serve::serve(listener, app).await;
/// # Ok(())
/// # }
/// ```
pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<StallListener<TcpListener>> {
    let mut last_error = None;
    for addr in lookup_host(addr).await? {
        let bound = (|| {
            let socket = match addr {
                std::net::SocketAddr::V4(_) => TcpSocket::new_v4()?,
                std::net::SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // On Windows it would let another process take the port.
            #[cfg(not(windows))]
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            socket.listen(BACKLOG)
        })();
        match bound {
            Ok(tcp) => return Ok(listener(tcp)),
            Err(error) => last_error = Some(error),
        }
    }
    let nothing = || io::Error::new(io::ErrorKind::InvalidInput, "no address to bind to");
    Err(last_error.unwrap_or_else(nothing))
}

/// A listener whose connections cannot be held up by their clients, for [`axum::serve()`] and [`serve`](super::serve).
///
/// Each connection is a [`StallGuard`]. Those of a TCP listener ([`listener`], [`bind`]) also have
///
/// - `TCP_NODELAY`: events are sent immediately. (With Nagle's algorithm an event may wait 40 ms for the acknowledgement of
///   the one before.)
/// - [TCP keep-alive](Self::keep_alive), to find clients that vanished;
/// - a [bounded send buffer](Self::send_buffer);
/// - and are reset when they are cut, so that the kernel too drops what the client did not take. Under TLS as well, if TLS
///   wraps this listener.
///
/// Errors of `accept` are handled by the listener inside: those of axum log them, wait for a second, and go on.
///
/// # Cancel safety
///
/// Cancelling `accept` loses no client if the listener inside loses none; those of axum do not.
///
/// # The peer's address
///
/// For the peer's address under [`axum::serve()`], tap the listener: axum offers `ConnectInfo` for its own listeners only.
///
/// ```no_run
/// use std::net::SocketAddr;
///
/// use axum::serve::ListenerExt;
/// # async fn run(tcp: tokio::net::TcpListener, app: axum::Router) -> std::io::Result<()> {
/// let listener = tidings::serve::listener(tcp).tap_io(|_| {});
/// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct StallListener<L: Listener = TcpListener> {
    listener: L,
    stall_limit: Duration,
    settings: TcpSettings,
    on_accept: fn(&L::Io, &TcpSettings, Duration),
    reset: fn(&L::Io),
}

impl<L: Listener> StallListener<L> {
    /// Guards the connections of any listener, such as one on a Unix socket, and sets nothing on its sockets. For TCP see
    /// [`listener`].
    ///
    /// A listener that does TLS should wrap this one, not be inside it: see [`StallGuard`].
    pub fn new(listener: L) -> Self {
        Stalls::report();
        Self {
            listener,
            stall_limit: STALL_LIMIT,
            settings: TcpSettings::default(),
            on_accept: |_, _, _| {},
            reset: |_| {},
        }
    }

    /// Sets how long a client may take none of the bytes that wait for it; at least a millisecond, at most thirty
    /// years. Default 30 s.
    ///
    /// Until then, a client that does not read costs its buffers: the socket's, those of HTTP, and the events in them. A
    /// shorter limit also cuts clients that only lost their network for that long, and demands more of
    /// [slow ones](StallGuard). For streams that are over, [`serve`](super::serve) waits for no more than a quarter of a
    /// second.
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.stall_limit = settable(limit);
        self
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// The error of the listener inside.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let listener = tidings::serve::bind("127.0.0.1:0").await?;
    /// println!("http://{}", listener.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }

    #[cfg(feature = "http2")]
    pub(super) fn limit(&self) -> Duration {
        self.stall_limit
    }
}

impl StallListener<TcpListener> {
    /// Sets when the server gives up on a client that vanished; `None` leaves that to the system, which may never do
    /// so. Default [`TcpKeepAlive::default`], a minute.
    pub fn keep_alive(mut self, keep_alive: impl Into<Option<TcpKeepAlive>>) -> Self {
        self.settings.keep_alive = keep_alive.into();
        self
    }

    /// Sets the send buffer of each socket (`SO_SNDBUF`) in bytes; `None` leaves it to the system, which on Linux lets it
    /// grow to about 4 MB for a client that reads slowly. Default 64 KiB.
    ///
    /// It is the most that the kernel holds for a client (Linux reserves twice the number, and allows no more than
    /// `net.core.wmem_max`), and the most that can be in flight: 64 KiB at a round trip of 100 ms are 640 KB/s for one
    /// connection. For streams of events that is plenty; for large downloads to far clients take more.
    pub fn send_buffer(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.settings.send_buffer = bytes.into();
        self
    }
}

impl<L: Listener> Listener for StallListener<L> {
    type Io = StallGuard<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, addr) = self.listener.accept().await;
        (self.on_accept)(&io, &self.settings, self.stall_limit);
        let io = StallGuard::with_reset(io, self.stall_limit, self.reset);
        (io, addr)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.local_addr()
    }
}

impl<L: Listener + fmt::Debug> fmt::Debug for StallListener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StallListener")
            .field("listener", &self.listener)
            .field("stall_limit", &self.stall_limit)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
