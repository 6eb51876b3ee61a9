//! The tasks of streams.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::Instant;

use super::chunk::Load;
use crate::metrics::STREAMS;
use crate::serve::overtime::{GRACE, Overtime};
use crate::serve::patience::Patience;

tokio::task_local! {
    /// The load of the stream that is being polled.
    static LOAD: Arc<Load>;
}

/// The load of the stream in whose future this is called.
pub(super) fn current_load() -> Option<Arc<Load>> {
    LOAD.try_with(Arc::clone).ok()
}

/// Starts a task for each stream of a connection, and drops the stream when its load stands still for too long.
#[derive(Debug, Clone)]
pub(super) struct StallExecutor {
    limit: Duration,
    streams: Arc<Streams>,
}

impl StallExecutor {
    /// The overtime is that of the connection's IO.
    pub(super) fn new(limit: Duration, overtime: Arc<Overtime>) -> Self {
        let streams = Arc::new(Streams {
            count: Mutex::new(0),
            overtime,
        });
        Self { limit, streams }
    }
}

/// The streams of a connection.
///
/// A stream that is reset has left, but its connection stays, for the sake of the others. If there are none, and the
/// client takes nothing of what is on its way, not even the reset, the connection goes the way of a stream that was over:
/// it has the rest of that stream's overtime.
#[derive(Debug)]
struct Streams {
    /// Held while the overtime is set, so that a stream that comes is not taken for the one that goes.
    count: Mutex<usize>,
    overtime: Arc<Overtime>,
}

impl Streams {
    fn come(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.overtime.watch(None);
    }

    fn go(&self, load: &Load) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count -= 1;
        if *count == 0 {
            load.overtime().hand_over_to(&self.overtime);
        }
    }
}

impl<F> Executor<F> for StallExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        self.streams.come();
        tokio::spawn(Guarded {
            stream: Box::pin(stream),
            streams: Arc::clone(&self.streams),
            load: Load::new(),
            limit: self.limit,
            patience: Patience::default(),
        });
    }
}

struct Guarded<F> {
    stream: Pin<Box<F>>,
    streams: Arc<Streams>,
    load: Arc<Load>,
    limit: Duration,
    patience: Patience,
}

impl<F> Guarded<F> {
    /// When what the stream has handed over will have waited for long enough, unless some of it goes, and how long that is.
    fn deadline(&self, cx: &Context<'_>) -> Option<(Instant, Duration)> {
        let stalled = self.load.stalled_at(self.limit)?;
        let overtime = self.load.overtime().end(cx);
        Some(match overtime {
            Some(end) if end < stalled => (end, GRACE),
            _ => (stalled, self.limit),
        })
    }
}

impl<F> Drop for Guarded<F> {
    fn drop(&mut self) {
        self.streams.go(&self.load);
    }
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
        let Some((deadline, wait)) = this.deadline(cx) else {
            return Poll::Pending;
        };
        ready!(this.patience.poll(deadline, wait, cx));
        let is_over = this.load.overtime().end(cx).is_some();
        STREAMS.count(is_over);
        tracing::debug!(is_over, limit = ?this.limit, "a client withholds the window of a stream, which is reset");
        Poll::Ready(())
    }
}
