//! The IO of a connection: bytes that were read can be read again.
//!
//! Only a read shows that the client has disconnected. So while a stream is open, what its client sends is read ahead and
//! kept for the next request. The server looks at the first bytes of a connection in the same way.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
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
    /// The result of a connection whose client can only have sent further requests.
    pub(super) fn into_result(self) -> io::Result<()> {
        match self {
            Self::Closed => Ok(()),
            Self::Full => Err(io::Error::other(
                "the client sent too many requests while its stream was open",
            )),
        }
    }
}

/// Observes how an owner of a [`Rewind`] reads and flushes; `()` ignores it.
pub(super) trait Observer {
    fn on_read(&self, bytes: usize);

    /// Called after each flush. Returns how many bytes of the request's body have not been read yet, if the owner may have
    /// stopped reading and the client's disconnect has to be noticed nevertheless.
    fn on_flush(&self) -> Option<u64>;
}

impl Observer for () {
    fn on_read(&self, _: usize) {}

    fn on_flush(&self) -> Option<u64> {
        None
    }
}

/// Yields the kept bytes, then those of the IO.
#[derive(Debug)]
pub(super) struct Rewind<T, O = ()> {
    io: T,
    kept: BytesMut,
    observer: O,
}

impl<T> Rewind<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io,
            kept: BytesMut::new(),
            observer: (),
        }
    }

    pub(super) fn observed<O>(self, observer: O) -> Rewind<T, O> {
        Rewind {
            io: self.io,
            kept: self.kept,
            observer,
        }
    }
}

impl<T, O> Rewind<T, O> {
    /// Takes the IO from its owner, which has read these bytes and not used them.
    pub(super) fn rewind(self, unused: &[u8]) -> Rewind<T> {
        // A copy, so that the owner's buffer is freed.
        let mut kept = BytesMut::from(unused);
        kept.extend_from_slice(&self.kept);
        Rewind {
            io: self.io,
            kept,
            observer: (),
        }
    }
}

impl<T: AsyncRead + Unpin, O> Rewind<T, O> {
    /// Reads once, and keeps that. 0 is the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Most requests are shorter; of others this is the beginning.
        let mut bytes = [const { MaybeUninit::uninit() }; 1024];
        let mut buf = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        self.kept.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Waits until there is something to read. `false` if there will not be.
    ///
    /// Cancel safe: what was read stays.
    pub(super) async fn has_begun(&mut self) -> bool {
        if self.kept.is_empty() {
            let _ = poll_fn(|cx| self.poll_more(cx)).await;
        }
        !self.kept.is_empty()
    }

    /// Waits until it is clear whether these are the first bytes. They can still be read.
    ///
    /// Cancel safe, as [`has_begun`](Self::has_begun).
    #[cfg(feature = "http2")]
    pub(super) async fn begins_with(&mut self, first: &[u8]) -> io::Result<bool> {
        loop {
            let len = first.len().min(self.kept.len());
            if self.kept[..len] != first[..len] {
                return Ok(false);
            }
            if len == first.len() {
                return Ok(true);
            }
            if poll_fn(|cx| self.poll_more(cx)).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// Reads ahead. Pending while the client is connected and no more than [`READ_AHEAD`] is kept.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ahead>> {
        while self.kept.len() <= READ_AHEAD {
            if ready!(self.poll_more(cx))? == 0 {
                return Poll::Ready(Ok(Ahead::Closed));
            }
        }
        Poll::Ready(Ok(Ahead::Full))
    }

    /// Reads ahead of an owner that has yet to read `body_left` bytes of a request's body. Fails when the client has
    /// disconnected or has sent more requests than may wait.
    fn read_ahead(&mut self, body_left: u64, cx: &mut Context<'_>) -> io::Result<()> {
        let len = self.kept.len();
        match self.poll_ahead(cx)? {
            Poll::Pending => {}
            // All of it may belong to the body, which the handler has yet to read.
            Poll::Ready(Ahead::Full) if self.kept.len() as u64 <= body_left => {}
            Poll::Ready(ahead) => {
                ahead.into_result()?;
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        if self.kept.len() > len {
            // The owner may wait for these bytes: it asked before they came.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin, O: Observer + Unpin> AsyncRead for Rewind<T, O> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let count = self.kept.len().min(buf.remaining());
        if count > 0 {
            buf.put_slice(&self.kept[..count]);
            self.kept.advance(count);
            if self.kept.is_empty() {
                self.kept = BytesMut::new();
            }
        }
        // Reads what follows as well: hyper doubles its buffer when a head comes in two reads.
        let polled = match buf.remaining() {
            0 if count > 0 => Poll::Ready(Ok(())),
            _ => match Pin::new(&mut self.io).poll_read(cx, buf) {
                Poll::Pending if count > 0 => Poll::Ready(Ok(())),
                polled => polled,
            },
        };
        self.observer.on_read(buf.filled().len() - before);
        polled
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, O: Observer + Unpin> AsyncWrite for Rewind<T, O> {
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
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        match self.observer.on_flush() {
            Some(body_left) => Poll::Ready(self.read_ahead(body_left, cx)),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `true` while hyper sends a stream.
    impl Observer for &AtomicBool {
        fn on_read(&self, _: usize) {}

        fn on_flush(&self) -> Option<u64> {
            self.load(Ordering::Relaxed).then_some(u64::MAX)
        }
    }

    /// Bytes may come after hyper has found none, and before it flushes.
    #[tokio::test]
    async fn what_is_read_ahead_of_hyper_is_offered_to_it() {
        let (mut client, io) = duplex(64);
        let stays = AtomicBool::new(true);
        let mut io = Rewind::new(io).observed(&stays);

        let wakes = Arc::<Wakes>::default();
        let waker = Arc::clone(&wakes).into();
        let mut cx = Context::from_waker(&waker);
        assert!(pin!(io.read_u8()).poll(&mut cx).is_pending());
        client.write_all(b"x").await.unwrap();
        let before = wakes.0.load(Ordering::Relaxed);
        assert!(pin!(io.flush()).poll(&mut cx).is_ready());
        assert!(wakes.0.load(Ordering::Relaxed) > before);
        assert_eq!(io.read_u8().await.unwrap(), b'x');

        // Later it is for the next request.
        stays.store(false, Ordering::Relaxed);
        client.write_all(b"y").await.unwrap();
        io.flush().await.unwrap();
        assert!(io.kept.is_empty());
    }

    #[cfg(feature = "http2")]
    #[tokio::test]
    async fn the_first_bytes_are_looked_at_and_can_still_be_read() {
        for (sent, begins) in [
            ("PRI *", true),
            ("PRI * and more", true),
            ("PRI", false),
            ("PRIX *", false),
            ("", false),
        ] {
            let (mut client, io) = duplex(64);
            let mut io = Rewind::new(io);
            let send = async {
                // One by one, so that each read has a part of it.
                for byte in sent.as_bytes() {
                    client.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
                drop(client);
            };
            let (result, ()) = tokio::join!(io.begins_with(b"PRI *"), send);
            assert_eq!(result.unwrap(), begins, "{sent}");
            let mut read = String::new();
            io.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, sent);
        }
    }
}
