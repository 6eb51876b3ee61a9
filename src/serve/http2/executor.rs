//! The tasks of streams.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::Executor;
use tokio::time::Instant;

use super::chunk::Load;
use super::streams::{Stream, Streams};
use crate::metrics::STREAMS;
use crate::serve::grace::GRACE;
use crate::serve::patience::Patience;

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
            patience: Patience::default(),
        });
    }
}

struct Guarded<F> {
    future: Pin<Box<F>>,
    stream: Arc<Stream>,
    is_upgraded: bool,
    /// It is not to blame before.
    spared: Option<Instant>,
    patience: Patience,
}

impl<F> Guarded<F> {
    /// When the stream will have stood still for long enough, and whether that is because it is over.
    fn deadline(&self, cx: &Context<'_>) -> Option<(Instant, bool)> {
        let (load, limit) = (&self.stream.load, self.stream.streams.limit);
        if self.is_upgraded {
            return Some((self.stream.closed_until()?, false));
        }
        let stalled = load.stalled_at(limit)?;
        let stalled = self.spared.map_or(stalled, |spared| spared.max(stalled));
        Some(match load.grace_period().end(cx) {
            Some(end) if end < stalled => (end, true),
            _ => (stalled, false),
        })
    }

    /// Ready when the stream is to be reset, with whether it is over anyway.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.stream.load.is_blamed(cx) {
            return Poll::Ready(false);
        }
        // Only a poll adds to the load, so there is none to watch until the next one.
        while let Some((deadline, is_over)) = self.deadline(cx) {
            let wait = if is_over {
                GRACE
            } else {
                self.stream.streams.limit
            };
            ready!(self.patience.poll(deadline, wait, cx));
            if is_over || self.is_upgraded {
                return Poll::Ready(is_over);
            }
            self.spared = self.stream.is_spared();
            if self.spared.is_none() {
                return Poll::Ready(false);
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
        let is_over = ready!(this.poll_stalled(cx));
        STREAMS.count(is_over);
        let limit = this.stream.streams.limit;
        tracing::debug!(
            is_over,
            ?limit,
            "a client withholds the window of a stream, which is reset"
        );
        Poll::Ready(())
    }
}
