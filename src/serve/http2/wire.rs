//! The IO of a connection, which parses the frames that pass through it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Frames, Seen};
use super::streams::{Burst, Streams};

/// How every HTTP/2 connection begins.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reports the frames of both directions to the [`Streams`].
///
/// A read ends with a request's head, and the next one is pending once. So h2 has at most one new request when hyper accepts
/// one, and the stream that hyper then starts is the stream of that head. hyper does not expose stream ids: this is how a task
/// learns the id of its stream.
pub(super) struct Wire<T> {
    io: T,
    streams: Arc<Streams>,
    received: Frames,
    burst: Burst,
    sent: Frames,
    preface_left: usize,
    /// What was read after the end of a head.
    rest: Bytes,
    is_paused: bool,
}

impl<T> Wire<T> {
    pub(super) fn new(io: T, streams: Arc<Streams>) -> Self {
        Self {
            io,
            streams,
            received: Frames::default(),
            burst: Burst::default(),
            sent: Frames::default(),
            preface_left: PREFACE.len(),
            rest: Bytes::new(),
            is_paused: false,
        }
    }

    /// Returns how many of these bytes to pass on now.
    fn receive(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut left = bytes;
        let preface = self.preface_left.min(left.len());
        left.advance(preface);
        self.preface_left -= preface;
        self.is_paused = self
            .streams
            .receive(&mut self.received, &mut self.burst, &mut left)?;
        Ok(bytes.len() - left.len())
    }

    fn send<'a>(&mut self, bufs: impl IntoIterator<Item = &'a [u8]>, mut written: usize) {
        for buf in bufs {
            let mut bytes = &buf[..written.min(buf.len())];
            written -= bytes.len();
            while let Some(seen) = self.sent.next(&mut bytes) {
                if let Seen::Data { stream, len } = seen {
                    self.streams.sent(stream, len);
                }
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if std::mem::take(&mut this.is_paused) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.rest.is_empty() {
            let start = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            this.burst.begin();
            let bytes = &buf.filled()[start..];
            let seen = this.receive(bytes)?;
            this.rest = Bytes::copy_from_slice(&bytes[seen..]);
            buf.set_filled(start + seen);
        } else {
            let rest = this.rest.slice(..this.rest.len().min(buf.remaining()));
            let seen = this.receive(&rest)?;
            buf.put_slice(&rest[..seen]);
            this.rest.advance(seen);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.send([buf], written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        self.send(bufs.iter().map(|buf| &**buf), written);
        Poll::Ready(Ok(written))
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;

    use super::*;
    use crate::serve::http2::frames::{END_HEADERS, HEADERS, RST_STREAM};

    /// What each read gives, without a pause between them.
    struct Reads(VecDeque<Vec<u8>>);

    impl AsyncRead for Reads {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(&self.0.pop_front().unwrap_or_default());
            Poll::Ready(Ok(()))
        }
    }

    async fn pass(reads: impl IntoIterator<Item = Vec<u8>>) -> io::Result<()> {
        let limit = Duration::from_secs(1);
        let streams = Streams::new(limit, Arc::default(), Instant::now());
        let mut reads: VecDeque<_> = reads.into_iter().collect();
        reads.push_front(PREFACE.to_vec());
        let mut wire = Wire::new(Reads(reads), Arc::new(streams));
        while wire.read(&mut [0; 4096]).await? > 0 {}
        Ok(())
    }

    #[tokio::test]
    async fn no_more_than_twenty_streams_are_opened_and_reset_in_one_read() {
        let canceled = |id: u8| {
            let opens = [0, 0, 0, HEADERS, END_HEADERS, 0, 0, 0, id];
            let resets = [0, 0, 4, RST_STREAM, 0, 0, 0, 0, id, 0, 0, 0, 8];
            [&opens[..], &resets].concat()
        };
        let in_order = |count: u8| (0..count).map(move |n| canceled(2 * n + 1));
        let twenty: Vec<u8> = in_order(20).flatten().collect();
        assert!(pass([twenty]).await.is_ok());
        let one_more: Vec<u8> = in_order(21).flatten().collect();
        assert!(pass([one_more]).await.is_err());
        // A busy connection may reset any number in the course of time.
        assert!(pass(in_order(100)).await.is_ok());
    }

    #[tokio::test]
    async fn streams_that_are_reset_after_the_trailers_of_another_were_not_opened_with_them() {
        let headers = |id: u8| vec![0, 0, 0, HEADERS, END_HEADERS, 0, 0, 0, id];
        let reset = |id: u8| vec![0, 0, 4, RST_STREAM, 0, 0, 0, 0, id, 0, 0, 0, 8];
        let streams = || (1..100).step_by(2);
        let together = [headers(1), streams().flat_map(reset).collect()].concat();
        let reads = streams().map(headers).chain([together]);
        assert!(pass(reads).await.is_ok());
    }
}
