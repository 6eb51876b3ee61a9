//! The tasks of streams.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::Sleep;

use super::chunk::Load;

tokio::task_local! {
    /// The load of the stream that is being polled.
    static LOAD: Arc<Load>;
}

/// The load of the stream in whose future this is called.
pub(super) fn current_load() -> Option<Arc<Load>> {
    LOAD.try_with(Arc::clone).ok()
}

/// Starts a task for each stream of a connection, and drops the stream when its load stands still for too long.
#[derive(Debug, Clone, Copy)]
pub(super) struct StallExecutor {
    pub(super) limit: Duration,
}

impl<F> Executor<F> for StallExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        tokio::spawn(Guarded {
            stream: Box::pin(stream),
            load: Load::new(),
            limit: self.limit,
            timer: None,
        });
    }
}

struct Guarded<F> {
    stream: Pin<Box<F>>,
    load: Arc<Load>,
    limit: Duration,
    /// Set, at the latest, to when the load will have stood still for too long. Left alone by a load that moves; looked
    /// at when it fires: one timer operation per limit, not per event.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Guarded<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let stream = this.stream.as_mut();
        let polled = LOAD.sync_scope(Arc::clone(&this.load), || stream.poll(cx));
        if polled.is_ready() {
            return Poll::Ready(());
        }
        // Only a poll adds to the load, so there is none to watch until the next one.
        while let Some(deadline) = this.load.stalled_at(this.limit) {
            let timer = this
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                tracing::debug!(limit = ?this.limit, "a client withholds the window of a stream, which is reset");
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
