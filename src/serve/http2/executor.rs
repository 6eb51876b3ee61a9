//! The tasks of streams.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::Executor;
use tokio::time::Instant;

use super::chunk::Load;
use super::streams::{Stream, Streams};
use crate::serve::stalls::{STREAMS, Stall, StallTimer};

tokio::task_local! {
    /// The stream that is being polled.
    static STREAM: Arc<Stream>;
}

/// The load of the stream in whose future this is called.
pub(super) fn current_load() -> Option<Arc<Load>> {
    STREAM.try_with(|stream| Arc::clone(&stream.load)).ok()
}

/// Starts a task for each stream of a connection, and drops the stream when its load stands still for too long.
#[derive(Debug, Clone)]
pub(super) struct StallExecutor(pub(super) Arc<Streams>);

impl<F> Executor<F> for StallExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        // The task that a stream starts is the one that sends what its handler writes after an upgrade.
        let upgraded = STREAM.try_with(Arc::clone).ok();
        tokio::spawn(Guarded {
            future: Box::pin(future),
            is_upgraded: upgraded.is_some(),
            stream: upgraded.unwrap_or_else(|| Stream::open(&self.0)),
            spared: None,
            timer: StallTimer::new(self.0.limit),
        });
    }
}

struct Guarded<F> {
    future: Pin<Box<F>>,
    stream: Arc<Stream>,
    is_upgraded: bool,
    /// Its wait counts from here on: it was not to blame before.
    spared: Option<Instant>,
    timer: StallTimer,
}

impl<F> Guarded<F> {
    /// Since when the client has taken nothing of the stream; `None` if there is nothing to take.
    fn waiting_since(&self) -> Option<Instant> {
        if self.is_upgraded {
            return self.stream.closed_since();
        }
        let moved = self.stream.load.moved()?;
        Some(self.spared.map_or(moved, |spared| spared.max(moved)))
    }

    /// Ready when the stream is to be reset.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Stall> {
        if self.stream.load.is_blamed(cx) {
            return Poll::Ready(Stall::Limit);
        }
        // Only a poll adds to the load: if there is none, there is nothing to watch until the next poll.
        while let Some(since) = self.waiting_since() {
            let grace_period = (!self.is_upgraded).then(|| self.stream.load.grace_period());
            let stall = ready!(self.timer.poll(since, grace_period, cx));
            if stall == Stall::Over || self.is_upgraded {
                return Poll::Ready(stall);
            }
            self.spared = self.stream.is_spared();
            if self.spared.is_none() {
                return Poll::Ready(stall);
            }
        }
        Poll::Pending
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let future = this.future.as_mut();
        let polled = STREAM.sync_scope(Arc::clone(&this.stream), || future.poll(cx));
        if polled.is_ready() {
            return Poll::Ready(());
        }
        let stall = ready!(this.poll_stalled(cx));
        STREAMS.count(stall);
        let limit = this.timer.limit;
        tracing::debug!(
            is_over = stall == Stall::Over,
            ?limit,
            "a client withholds the window of a stream, which is reset"
        );
        Poll::Ready(())
    }
}
