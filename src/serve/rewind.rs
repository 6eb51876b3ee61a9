//! An IO of which something has been read that is to be read again.
//!
//! Only a read shows that the client has disconnected. So while a stream is open, what its client sends is read ahead and
//! kept for the next request.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is kept of what a client sends while its stream is open: pipelined requests. Browsers and proxies send
/// none.
pub(super) const READ_AHEAD: usize = 8 * 1024;

/// Why reading ahead has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// The client has closed.
    Closed,
    /// More than [`READ_AHEAD`] is kept. Without a further read, a disconnect would go unnoticed.
    Full,
}

impl Ahead {
    /// How a connection ends whose client can only have sent further requests.
    pub(super) fn into_result(self) -> io::Result<()> {
        match self {
            Self::Closed => Ok(()),
            Self::Full => Err(io::Error::other(
                "the client sent too many requests while its stream was open",
            )),
        }
    }
}

/// Yields `first` before what the IO has.
#[derive(Debug)]
pub(super) struct Rewind<T> {
    pub(super) io: T,
    pub(super) first: BytesMut,
}

impl<T> Rewind<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io,
            first: BytesMut::new(),
        }
    }
}

impl<T: AsyncRead + Unpin> Rewind<T> {
    /// Waits until there is something to read. `false` if there will not be.
    ///
    /// Cancel safe: what was read stays.
    pub(super) async fn has_first(&mut self) -> bool {
        if self.first.is_empty() {
            self.first = poll_fn(|cx| {
                // Most requests are shorter; of others this is the beginning.
                let mut bytes = [0; 1024];
                let mut buf = ReadBuf::new(&mut bytes);
                let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf));
                Poll::Ready(read.map_or(BytesMut::new(), |()| BytesMut::from(buf.filled())))
            })
            .await;
        }
        !self.first.is_empty()
    }

    /// Reads ahead. Pending while the client is connected and no more than [`READ_AHEAD`] is kept.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ahead>> {
        while self.first.len() <= READ_AHEAD {
            let mut bytes = [0; 512];
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(Ahead::Closed));
            }
            self.first.extend_from_slice(buf.filled());
        }
        Poll::Ready(Ok(Ahead::Full))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewind<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        if count > 0 && buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // And what follows: hyper doubles its buffer when a head comes in two reads.
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Pending if count > 0 => Poll::Ready(Ok(())),
            polled => polled,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewind<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
