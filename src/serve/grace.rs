//! How long the server waits for a client whose stream is over.

use std::sync::Mutex;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::subscription::StreamHandle;
use crate::sync::{keep_waker, lock};

/// How long a client may take for the rest of a stream that is over. A healthy one needs a round trip.
pub(super) const GRACE: Duration = Duration::from_millis(250);

/// Watches the stream that is sent, and measures the [`GRACE`] once the stream is over.
///
/// Shared by the service, which knows the responses, and a guard, which knows that bytes wait for the client. While they
/// wait, the guard asks at each of its polls, and is woken when the stream is cut. Whether the stream itself is ever polled
/// makes no difference.
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
    /// When it was first seen to be over. A client that takes a few bytes gains no time.
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
    /// Notes what is sent from now on: this stream, or a response that is no stream.
    pub(super) fn watch(&self, end: Option<StreamHandle>) {
        lock(&self.0).watched = end.map(|end| Watched {
            end,
            over_since: None,
        });
    }

    /// The stream that is sent.
    pub(super) fn watched(&self) -> Option<StreamHandle> {
        lock(&self.0)
            .watched
            .as_ref()
            .map(|watched| watched.end.clone())
    }

    /// When the grace period ends, if the stream is over or has a deadline. If not, the task is woken when the stream is cut.
    pub(super) fn end(&self, cx: &Context<'_>) -> Option<Instant> {
        let mut state = lock(&self.0);
        keep_waker(&mut state.waker, cx);
        let watched = state.watched.as_mut()?;
        watched.end.watch(cx);
        let since = watched.over_since().or(watched.end.expires())?;
        Some(since + GRACE)
    }

    /// If the stream is over, another grace period measures on from here. Wakes the task that asked that one last, which does
    /// not poll the stream.
    #[cfg(feature = "http2")]
    pub(super) fn hand_over_to(&self, other: &Self) {
        let Some(mut watched) = lock(&self.0).watched.take() else {
            return;
        };
        if watched.over_since().is_none() {
            return;
        }
        let mut state = lock(&other.0);
        state.watched = Some(watched);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
