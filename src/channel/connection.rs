//! One connection: its receiving side, and how it is ended from outside.
//!
//! 1. `ended` is final. It is set before the feed is taken, so whoever finds the feed gone or taken finds it set.
//! 2. The feed is dropped as soon as the connection ends, whether or not its stream is ever polled again: an event that
//!    nobody will read must not be kept in the ring for it.
//! 3. Nobody waits for the feed. Two parties meet there, the stream that polls and the one call that ends it; whoever
//!    comes second leaves the rest to the first. So whoever has used the feed looks at `ended` after letting go of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::error::Lagged;
use crate::id::ConnectionId;
use crate::sync::{AtomicBool, AtomicWaker, Feed, TryCell};

pub(crate) struct Connection<T> {
    id: ConnectionId,
    since: Instant,
    /// Events lost to lag. Written by the stream alone, read by whoever asks; it decides nothing, so it is relaxed.
    lagged: AtomicU64,
    ended: AtomicBool,
    /// The task that waits for the next event.
    waiting: AtomicWaker,
    feed: TryCell<Option<Feed<T>>>,
}

impl<T: Clone + Send + 'static> Connection<T> {
    pub(crate) fn new(id: ConnectionId) -> Self {
        Self {
            id,
            since: Instant::now(),
            lagged: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            waiting: AtomicWaker::new(),
            feed: TryCell::new(None),
        }
    }

    pub(crate) fn id(&self) -> &ConnectionId {
        &self.id
    }

    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    /// Gives the connection what it will read from. Done by the call that registers it, before its stream exists.
    pub(crate) fn install(&self, feed: Feed<T>) {
        // If the cell is taken, the connection is being ended already: the feed is not needed, and dropped here.
        let replaced = self.feed.try_with(|slot| slot.replace(feed));
        drop(replaced);
        self.release_if_ended();
    }

    /// The next event. `None` once the connection was ended, or the channel was closed and all it sent has been read.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Lagged>>> {
        if self.is_ended() {
            return Poll::Ready(None);
        }
        let polled = self.feed.try_with(|slot| match slot {
            Some(feed) => feed.poll_next(cx),
            None => Poll::Ready(None),
        });
        self.release_if_ended();
        match polled {
            Some(Poll::Ready(Some(Ok(event)))) => Poll::Ready(Some(Ok(event))),
            Some(Poll::Ready(Some(Err(missed)))) => {
                self.lagged.fetch_add(missed, Ordering::Relaxed);
                Poll::Ready(Some(Err(Lagged { missed })))
            }
            // None: somebody is in there to end this connection, so it has ended (invariant 1).
            Some(Poll::Ready(None)) | None => Poll::Ready(None),
            Some(Poll::Pending) => {
                // The end may come before, between or after the next two lines. Before: `ended` shows it. Between: the
                // waker is there to be woken, and `ended` shows it as well. After: the waker is woken.
                self.waiting.register(cx.waker());
                if self.is_ended() {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                }
            }
        }
    }

    /// Ends the connection: its stream yields `None` from now on and is woken if it waits. May be called by anybody, at
    /// any time, again and again.
    pub(crate) fn end(&self) {
        // Pairs with the acquire in `is_ended`: whoever sees the end also sees what led to it. For why this is no store,
        // see `release_if_ended`.
        self.ended.swap(true, Ordering::AcqRel);
        // If the feed is in use right now, whoever uses it drops it when done. The stream is woken below, so that it
        // learns of the end.
        let feed = self.feed.try_with(Option::take);
        drop(feed);
        self.waiting.wake();
    }

    /// Drops the feed if the connection has ended while the feed was in use (invariants 2 and 3).
    ///
    /// The two read-modify-writes of `ended`, here and in `end`, stand in one order. Ours after the other: we see the
    /// end, and take the feed. Ours before: `end` reads what we wrote, so it sees the feed let go of, and takes it. With
    /// a load here, each of the two could miss the other.
    fn release_if_ended(&self) {
        if self.ended.fetch_or(false, Ordering::AcqRel) {
            let feed = self.feed.try_with(Option::take);
            drop(feed);
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        // Pairs with the release in `end`.
        self.ended.load(Ordering::Acquire)
    }
}
