//! What is set on each accepted TCP socket.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// When the server gives up on a client that vanished: one that lost power or its network without closing the
/// connection.
///
/// While nothing is in flight, the kernel sends a probe after `idle`, and again every `interval`; after `retries` probes
/// without an answer the connection fails. Its stream then ends, and nothing is left of it. A probe costs a packet of about
/// 60 bytes in each direction and wakes no task.
///
/// Probes are sent in silence only; bytes in flight to a client that vanished are sent again for about 15 minutes. Therefore,
/// on Linux and Android, `TCP_USER_TIMEOUT` is set as well: bytes that are not acknowledged for that long end the connection
/// too. That timer also counts for a client that answers but leaves no room, so it must not be shorter than the
/// [stall limit](super::StallListener::stall_limit). It is set to the longer of that and [`total`](Self::total), at most 24
/// days.
///
/// With that option set, the kernel goes by it in silence as well, and no longer by `retries` (tcp(7)). So on Linux and
/// Android a client that vanished is found after the longer of `total` and the stall limit, in silence with the next probe.
/// A shorter keep-alive needs a shorter stall limit too. Elsewhere it is found after `total` in silence.
///
/// The default gives up after one minute: `idle` 30 s, `interval` 10 s, 3 `retries`, and a stall limit of 30 s. Shorter times
/// find dead clients sooner, and also cut those that were in a tunnel. Values below a second count as one second, the least
/// that the kernel takes.
///
/// ```no_run
/// use std::time::Duration;
/// use tidings::serve::{TcpKeepAlive, bind};
///
/// # async fn run() -> std::io::Result<()> {
/// let patient = TcpKeepAlive::default().idle(Duration::from_secs(60)).retries(6);
/// assert_eq!(patient.total(), Duration::from_secs(120));
/// let listener = bind("0.0.0.0:3000").await?.keep_alive(patient);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepAlive {
    idle: Duration,
    interval: Duration,
    retries: u32,
}

impl TcpKeepAlive {
    /// Sets the silence before the first probe. Default 30 s.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Sets the time between probes. Default 10 s.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how many probes may go unanswered, at least one. Default 3.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long after a client's last sign of life the server gives up on it, unless the stall limit is longer (see
    /// [above](Self)).
    #[must_use]
    pub fn total(&self) -> Duration {
        let (idle, interval, retries) = self.in_range();
        idle + interval * retries
    }

    /// What Linux takes: 1 to 32767 seconds, 1 to 127 probes.
    fn in_range(&self) -> (Duration, Duration, u32) {
        let seconds =
            |time: Duration| time.clamp(Duration::from_secs(1), Duration::from_secs(32_767));
        (
            seconds(self.idle),
            seconds(self.interval),
            self.retries.clamp(1, 127),
        )
    }
}

impl Default for TcpKeepAlive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(10),
            retries: 3,
        }
    }
}

/// The settings of a listener for its sockets.
#[derive(Debug, Clone, Copy)]
pub(super) struct TcpSettings {
    pub(super) keep_alive: Option<TcpKeepAlive>,
    pub(super) send_buffer: Option<usize>,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            keep_alive: Some(TcpKeepAlive::default()),
            send_buffer: Some(64 * 1024),
        }
    }
}

impl TcpSettings {
    /// Sets all of it on a socket that was just accepted. A socket that refuses is served as it is.
    pub(super) fn apply(&self, stream: &TcpStream, stall_limit: Duration) {
        if let Err(error) = self.try_apply(stream, stall_limit) {
            tracing::debug!(
                error = error.to_string(),
                "could not set the options of a socket"
            );
        }
    }

    fn try_apply(&self, stream: &TcpStream, stall_limit: Duration) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes.min(i32::MAX as usize))?;
        }
        if let Some(keep_alive) = self.keep_alive {
            let (idle, interval, retries) = keep_alive.in_range();
            let parameters = TcpKeepalive::new().with_time(idle);
            #[cfg(not(target_os = "openbsd"))]
            let parameters = parameters.with_interval(interval).with_retries(retries);
            socket.set_tcp_keepalive(&parameters)?;
            #[cfg(any(target_os = "linux", target_os = "android"))]
            {
                // The kernel keeps it as an `int` of milliseconds.
                let longest = Duration::from_millis(i32::MAX as u64);
                let user_timeout = keep_alive.total().max(stall_limit).min(longest);
                socket.set_tcp_user_timeout(Some(user_timeout))?;
            }
        }
        Ok(())
    }
}

/// Makes a close discard what the client did not take. A plain close would keep it in the kernel, and offer it to the client
/// for as long as the client answers.
pub(super) fn close_by_reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
