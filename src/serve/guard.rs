//! A write that waits too long fails.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::grace::{GRACE, GracePeriod};
use super::stalls::{SOCKETS, Stall, StallTimer};
use crate::time::settable;

/// The default stall limit.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(30);

/// An IO whose writes fail with [`io::ErrorKind::TimedOut`] when its peer takes nothing for too long.
///
/// A server drops a connection whose write fails, and with it the stream and all buffers. Without that, the server would wait
/// for a client that stops reading until it closes: the stream cannot end the connection, since it is not polled.
///
/// The time counts while a write, flush or shutdown is pending. Any byte that the IO accepts starts it anew, and it stands
/// still while there is nothing to write: a quiet client is never cut.
///
/// When the runtime itself has stood still, because its threads were blocked or the machine was suspended, the time begins
/// anew, once: the server has yet to see what the client has taken meanwhile.
///
/// A slow client is cut when it does not make room within the limit. Room on a socket is more than a byte: Linux lets the
/// next write through when a third of the send buffer is free. With a buffer of 64 KiB and a limit of 30 s, a client must
/// take about 1.5 KB/s; with a buffer that may grow to 4 MB, 50 KB/s.
///
/// Put it next to the socket: above TLS, bytes count as taken when they are in the buffer of the TLS session.
///
/// The guards of a [TCP listener](super::listener()) close by a reset when they are dropped while something is pending, for
/// whatever reason: the kernel then drops what the client did not take. This holds under TLS as well.
///
/// It costs no timer operation for a write that succeeds: a timer is set by the first write that has to wait, and then at
/// most once per limit. It needs the timer of a tokio runtime while it is polled.
///
/// # Cancel safety
///
/// Cancelling a read, write or flush is as safe as it is with the IO inside. A cancelled write counts as pending until the
/// next one, which fails if it comes after the limit and the peer has still taken nothing.
///
/// # Examples
///
/// [`StallListener`](super::StallListener) puts it around each connection. By hand:
///
/// ```
/// use std::io::ErrorKind;
/// use std::time::Duration;
///
/// use tidings::serve::StallGuard;
/// use tokio::io::AsyncWriteExt;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (server, _client_that_does_not_read) = tokio::io::duplex(1024);
/// let mut server = StallGuard::new(server, Duration::from_secs(5));
/// let error = server.write_all(&[0; 2048]).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::TimedOut);
/// # }
/// ```
pub struct StallGuard<T> {
    /// Taken by `into_inner` alone.
    io: Option<T>,
    timer: StallTimer,
    /// What is pending, and since when nothing was accepted.
    waiting: Option<(Operation, Instant)>,
    /// Lets the IO be closed by a reset.
    reset: fn(&T),
    /// Of the streams that are sent, if the server knows them.
    grace_period: Option<Arc<GracePeriod>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Write,
    Flush,
    Shutdown,
}

impl<T> StallGuard<T> {
    /// Guards this IO; at least a millisecond, at most thirty years.
    pub fn new(io: T, limit: Duration) -> Self {
        Self::with_reset(io, limit, |_| {})
    }

    /// Calls `reset` when the guard is dropped while something is pending.
    pub(super) fn with_reset(io: T, limit: Duration, reset: fn(&T)) -> Self {
        Self {
            io: Some(io),
            timer: StallTimer::new(settable(limit)),
            waiting: None,
            reset,
            grace_period: None,
        }
    }

    /// Limits the wait by this grace period as well.
    pub(super) fn set_grace_period(&mut self, grace_period: Arc<GracePeriod>) {
        self.grace_period = Some(grace_period);
    }

    /// The guarded IO.
    pub fn get_ref(&self) -> &T {
        self.io.as_ref().expect(PRESENT)
    }

    /// The IO without its guard.
    pub fn into_inner(mut self) -> T {
        self.io.take().expect(PRESENT)
    }

    fn io(&mut self) -> Pin<&mut T>
    where
        T: Unpin,
    {
        Pin::new(self.io.as_mut().expect(PRESENT))
    }

    /// Passes on the IO's result, unless it has been pending for too long.
    fn judge<R>(
        &mut self,
        operation: Operation,
        polled: Poll<io::Result<R>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            // A flush that has nothing to do says nothing about the write that waits.
            let is_progress =
                |&(waiting, _): &_| operation != Operation::Flush || operation == waiting;
            if self.waiting.as_ref().is_some_and(is_progress) {
                self.waiting = None;
            }
            return polled;
        }
        let start = || (operation, Instant::now());
        let (_, since) = *self.waiting.get_or_insert_with(start);
        let stall = ready!(self.timer.poll(since, self.grace_period.as_deref(), cx));
        SOCKETS.count(stall);
        let message = match stall {
            Stall::Limit => format!("the peer took no bytes for {:?}", self.timer.limit),
            Stall::Over => {
                format!("the stream is over, and the peer did not take the rest in {GRACE:?}")
            }
        };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

/// Why the IO is there when it is used.
const PRESENT: &str = "only `into_inner` takes the IO, and the guard ends there";

/// While a write is pending, what the kernel holds is incomplete and of no use to the client. A plain close would leave it with the
/// kernel, which offers it to the client for as long as the client answers. This guard is next to the socket and is dropped
/// with it, so it covers every way in which a connection ends, also under TLS.
impl<T> Drop for StallGuard<T> {
    fn drop(&mut self) {
        if let (Some(io), Some(_)) = (&self.io, &self.waiting) {
            (self.reset)(io);
        }
    }
}

/// Up to this many bytes are copied into one piece.
///
/// A small event is three pieces: the size of its chunk, its bytes, which all streams share, and a line break. Handing them
/// over one by one costs the kernel more than copying them costs us. For a large event it is the other way round.
const PIECE: usize = 1024;

fn in_one_piece<'a>(bufs: &[IoSlice<'_>], piece: &'a mut [u8; PIECE]) -> Option<&'a [u8]> {
    let mut len = 0;
    for buf in bufs {
        piece.get_mut(len..len + buf.len())?.copy_from_slice(buf);
        len += buf.len();
    }
    Some(&piece[..len])
}

impl<T: AsyncRead + Unpin> AsyncRead for StallGuard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for StallGuard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.io().poll_write(cx, buf);
        self.judge(Operation::Write, polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut piece = [0; PIECE];
        let io = self.io();
        let polled = match in_one_piece(bufs, &mut piece) {
            Some(bytes) => io.poll_write(cx, bytes),
            None => io.poll_write_vectored(cx, bufs),
        };
        self.judge(Operation::Write, polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.io().poll_flush(cx);
        self.judge(Operation::Flush, polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.io().poll_shutdown(cx);
        self.judge(Operation::Shutdown, polled, cx)
    }
}

impl<T: fmt::Debug> fmt::Debug for StallGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StallGuard")
            .field("io", self.get_ref())
            .field("limit", &self.timer.limit)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
