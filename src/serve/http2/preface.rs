//! Which protocol a client speaks.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How every HTTP/2 connection begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An IO whose first bytes have been looked at, and can be read again.
#[derive(Debug)]
pub(super) struct Peeked<T> {
    io: T,
    first: [u8; PREFACE.len()],
    /// Of `first`: what is to be read again.
    start: u8,
    end: u8,
}

impl<T> Peeked<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io,
            first: [0; PREFACE.len()],
            start: 0,
            end: 0,
        }
    }

    fn first(&self) -> &[u8] {
        &self.first[usize::from(self.start)..usize::from(self.end)]
    }
}

impl<T: AsyncRead + Unpin> Peeked<T> {
    /// Reads until it is clear whether this is HTTP/2.
    ///
    /// Cancel safe: what was read stays.
    pub(super) async fn is_http2(&mut self) -> io::Result<bool> {
        poll_fn(|cx| {
            while usize::from(self.end) < PREFACE.len() {
                let end = usize::from(self.end);
                let mut buf = ReadBuf::new(&mut self.first[end..]);
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
                let read = buf.filled().len();
                self.end += u8::try_from(read).expect("the preface is shorter than that");
                if read == 0 || !PREFACE.starts_with(self.first()) {
                    return Poll::Ready(Ok(false));
                }
            }
            Poll::Ready(Ok(true))
        })
        .await
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Peeked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.first().len().min(buf.remaining());
        buf.put_slice(&self.first()[..count]);
        self.start += u8::try_from(count).expect("the preface is shorter than that");
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

impl<T: AsyncWrite + Unpin> AsyncWrite for Peeked<T> {
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
