//! What is left to a client whose stream is over.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::subscription::StreamHandle;

/// How long a client may take for the rest of a stream that is over. A healthy one needs a round trip.
pub(super) const GRACE: Duration = Duration::from_millis(250);

/// Watches the stream that is sent, and measures the [`GRACE`] once that is over.
///
/// Shared by the service, which knows the responses, and a guard, which knows that something waits for the client. The
/// guard asks whenever it is polled meanwhile, and is woken when the stream is cut. Whether the stream itself is polled, or
/// ever was, makes no difference.
#[derive(Debug, Default)]
pub(super) struct GracePeriod(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    watched: Option<Watched>,
    /// The task that asked last.
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Watched {
    end: StreamHandle,
    /// When it was first seen to be over. The client does not win time by taking a little.
    over_since: Option<Instant>,
}

impl Watched {
    fn over_since(&mut self) -> Option<Instant> {
        if self.over_since.is_none() {
            let now = Instant::now();
            self.over_since = self.end.is_over(now).then_some(now);
        }
        self.over_since
    }
}

impl GracePeriod {
    /// From now on this stream is sent, or something that is no stream.
    pub(super) fn watch(&self, end: Option<StreamHandle>) {
        self.lock().watched = end.map(|end| Watched {
            end,
            over_since: None,
        });
    }

    /// The stream that is sent.
    pub(super) fn watched(&self) -> Option<StreamHandle> {
        self.lock()
            .watched
            .as_ref()
            .map(|watched| watched.end.clone())
    }

    /// When it is up, if the stream is over or has a deadline. If not, the task is woken when the stream is cut.
    pub(super) fn end(&self, cx: &Context<'_>) -> Option<Instant> {
        let mut state = self.lock();
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.waker = Some(cx.waker().clone()),
        }
        let watched = state.watched.as_mut()?;
        watched.end.watch(cx);
        let since = watched.over_since().or(watched.end.expires())?;
        Some(since + GRACE)
    }

    /// If the stream is over, lets another one measure on from here, and wakes the task that asked there last: it does not
    /// poll the stream.
    #[cfg(feature = "http2")]
    pub(super) fn hand_over_to(&self, other: &Self) {
        let Some(mut watched) = self.lock().watched.take() else {
            return;
        };
        if watched.over_since().is_none() {
            return;
        }
        let mut state = other.lock();
        state.watched = Some(watched);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
