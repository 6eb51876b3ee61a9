//! Bytes that note when they leave.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use bytes::Buf;
use tokio::time::Instant;

use crate::serve::grace::GracePeriod;

/// The bytes that a stream has handed over to the connection and that have not left. Shared by the stream's task, its body,
/// and the chunks, which the task of the connection takes from.
///
/// Invariants:
/// 1. `left` is the sum of what remains in the chunks of this stream, until it is reset.
/// 2. `moved` is, while something is left, the last time that bytes left, or that bytes were handed over while nothing was
///    left.
#[derive(Debug)]
pub(super) struct Load {
    left: AtomicUsize,
    /// In nanoseconds since `start`.
    moved: AtomicU64,
    start: Instant,
    /// The body that waits with its end until nothing is left.
    waker: AtomicWaker,
    grace_period: GracePeriod,
    /// The stream holds the window of the connection, which others wait for: it is to be reset.
    is_blamed: AtomicBool,
    /// The task of the stream.
    task: AtomicWaker,
}

impl Load {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            start: Instant::now(),
            waker: AtomicWaker::new(),
            grace_period: GracePeriod::default(),
            is_blamed: AtomicBool::new(false),
            task: AtomicWaker::new(),
        })
    }

    /// Whether no bytes of the stream are with the connection.
    pub(super) fn is_gone(&self) -> bool {
        // Pairs with the release in `take`: the body that sees zero also sees nothing of its chunks in use.
        self.left.load(Ordering::Acquire) == 0
    }

    /// The grace period of the response that the stream sends.
    pub(super) fn grace_period(&self) -> &GracePeriod {
        &self.grace_period
    }

    /// When bytes last left; `None` if nothing is left.
    pub(super) fn moved(&self) -> Option<Instant> {
        // The task that calls this also hands over the chunks, so it sees those times. It may see or miss bytes that the
        // connection takes at the same moment: either is right.
        let moved = Duration::from_nanos(self.moved.load(Ordering::Relaxed));
        (!self.is_gone()).then(|| self.start + moved)
    }

    /// Registers the task to wake when nothing is left. Check [`is_gone`](Self::is_gone) afterwards.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Asks the stream's task to reset it.
    pub(super) fn blame(&self) {
        // Pairs with the acquire in `is_blamed`, and the waker orders the two: the task has registered before it looks.
        self.is_blamed.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Whether the stream is to be reset. The task is woken when that changes.
    pub(super) fn is_blamed(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.is_blamed.load(Ordering::Acquire)
    }

    fn touch(&self) {
        let moved = self.start.elapsed().as_nanos();
        let moved = u64::try_from(moved).unwrap_or(u64::MAX);
        self.moved.store(moved, Ordering::Relaxed);
    }

    fn put(&self, bytes: usize) {
        if self.is_gone() {
            self.touch();
        }
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.touch();
        // Pairs with the acquire in `is_gone`.
        if self.left.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.waker.wake();
        }
    }
}

/// Data on its way, counted in the [`Load`] of its stream until it has been written. If it is dropped before, its stream
/// was reset.
pub(in crate::serve) struct Chunk<D> {
    data: D,
    load: Arc<Load>,
}

impl<D: Buf> Chunk<D> {
    pub(super) fn new(data: D, load: &Arc<Load>) -> Self {
        load.put(data.remaining());
        Self {
            data,
            load: Arc::clone(load),
        }
    }
}

impl<D: Buf> Buf for Chunk<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(dst)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
        self.load.take(count);
    }
}
