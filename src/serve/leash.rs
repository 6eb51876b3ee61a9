//! An IO that can be taken away from its owner.
//!
//! hyper gives the IO of a connection to the handler that upgrades it, for instance to a WebSocket. The task of the connection
//! keeps the leash: the connection counts until the IO is dropped, and is cut when the server ends, even if the handler never
//! polls it.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::phase::{Phase, Watcher};
use crate::sync::{keep_waker, lock};

/// The IO. Its operations fail once it was cut.
#[derive(Debug)]
pub(super) struct Leashed<T>(Arc<Shared<T>>);

/// The end that can cut the IO.
#[derive(Debug)]
pub(super) struct Leash<T>(Arc<Shared<T>>);

/// The lock is held while the IO is polled, and contended only when the IO is cut. An IO that panicked under it is treated
/// like one that failed.
type Shared<T> = Mutex<State<T>>;

#[derive(Debug)]
struct State<T> {
    /// `None` once it was cut, dropped or taken out.
    io: Option<T>,
    wakers: Wakers,
    /// The task that waits for the IO to be dropped.
    keeper: Option<Waker>,
}

/// The tasks that wait for the IO.
#[derive(Debug, Default)]
struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Puts an IO on a leash.
pub(super) fn leash<T>(io: T) -> (Leashed<T>, Leash<T>) {
    let shared = Arc::new(Mutex::new(State {
        io: Some(io),
        wakers: Wakers::default(),
        keeper: None,
    }));
    (Leashed(Arc::clone(&shared)), Leash(shared))
}

impl<T> Leash<T> {
    /// Waits until the IO is dropped, and cuts it when the server ends before that.
    pub(super) async fn hold(self, phase: &mut Watcher) {
        let mut dropped = poll_fn(|cx| {
            // Asked and kept under one lock: if the IO is dropped after this, the drop finds the task to wake.
            let mut state = lock(&self.0);
            state.keeper = Some(cx.waker().clone());
            match state.io {
                Some(_) => Poll::Pending,
                None => Poll::Ready(()),
            }
        });
        while phase.now() != Phase::Aborted {
            match phase.during(&mut dropped).await {
                Ok(()) => return,
                Err(Phase::Aborted) => break,
                Err(_) => {}
            }
        }
        // A task that polls the IO before this has left its waker, and is woken below. One that polls it later finds it cut.
        let (io, wakers) = {
            let mut state = lock(&self.0);
            (state.io.take(), std::mem::take(&mut state.wakers))
        };
        drop(io);
        for waker in [wakers.reader, wakers.writer].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl<T> Leashed<T> {
    /// Takes the IO off the leash.
    pub(super) fn into_inner(self) -> Option<T> {
        lock(&self.0).io.take()
    }
}

impl<T> Drop for Leashed<T> {
    fn drop(&mut self) {
        // `hold` may cut the IO at this moment. Whoever has the lock first drops it; the other finds none.
        let (io, keeper) = {
            let mut state = lock(&self.0);
            (state.io.take(), state.keeper.take())
        };
        drop(io);
        if let Some(keeper) = keeper {
            keeper.wake();
        }
    }
}

impl<T: Unpin> Leashed<T> {
    fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        waker: impl FnOnce(&mut Wakers) -> &mut Option<Waker>,
        poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let state = &mut *lock(&self.0);
        let Some(io) = &mut state.io else {
            let error = io::Error::new(ErrorKind::ConnectionAborted, "the server has ended");
            return Poll::Ready(Err(error));
        };
        let polled = poll(Pin::new(io), cx);
        if polled.is_pending() {
            keep_waker(waker(&mut state.wakers), cx);
        }
        polled
    }

    fn poll_writer<R>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        self.poll(cx, |wakers| &mut wakers.writer, poll)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Leashed<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(
            cx,
            |wakers| &mut wakers.reader,
            |io, cx| io.poll_read(cx, buf),
        )
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Leashed<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writer(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writer(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        let state = lock(&self.0);
        state.io.as_ref().is_some_and(T::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writer(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writer(cx, |io, cx| io.poll_shutdown(cx))
    }
}
