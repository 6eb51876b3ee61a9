//! The stream of one connection's events.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{ConnectionGuard, LagPolicy};
use crate::error::{Lagged, RegisterError};
use crate::frame::Frame;
use crate::id::{ConnectionId, UserId};
use crate::registry::Registry;

/// The events of one connection, in the order they were broadcast.
///
/// With the feature `axum` it is a response: return it from a handler. It is also a [`Stream`] of shared frames, for
/// those who carry events over something else. Dropping it takes the connection out at once, wherever that happens.
///
/// The stream ends (`None`) when the connection is ended from outside: at once after
/// [`unregister`](crate::GenericBroadcaster::unregister), and after what was broadcast before when the user is
/// [evicted](crate::GenericBroadcaster::evict). It then holds no events any more, but is counted until it is dropped,
/// unless the call that ended it has taken it out of the count.
///
/// # Lag
///
/// A user's events stand in a ring that all of the user's streams read. A stream that is not polled while more events
/// are broadcast than the ring holds loses the oldest ones: its next item is `Err(`[`Lagged`]`)` with their number, and
/// it goes on with the oldest event still there, unless its [`LagPolicy`] ends it. Other streams do not notice.
///
/// # Cancel safety
///
/// Waiting for the next item can be given up at any time; no event is lost by it.
#[must_use = "dropping a subscription ends its connection"]
#[derive(Debug)]
pub struct Subscription<T: Clone + Send + 'static = Arc<Frame>> {
    guard: ConnectionGuard<T>,
    lag_policy: LagPolicy,
    deadline: Option<Deadline>,
}

impl<T: Clone + Send + 'static> Subscription<T> {
    /// Opens a connection.
    pub(crate) fn open(
        registry: &Arc<Registry<T>>,
        user: UserId,
        id: ConnectionId,
    ) -> Result<Self, RegisterError> {
        let (roster, connection) = registry.register(user, id)?;
        Ok(Self {
            guard: ConnectionGuard::new(registry.clone(), roster, connection),
            lag_policy: LagPolicy::default(),
            deadline: None,
        })
    }

    /// Sets what this stream does when it has lost events, in place of what the broadcaster says.
    pub fn lag_policy(mut self, policy: LagPolicy) -> Self {
        self.lag_policy = policy;
        self
    }

    /// Sets when the stream ends, cleanly and whatever it is doing: when the token expires that it was opened with, for
    /// example. Set once; a second call changes nothing.
    ///
    /// A stream that is not polled, because its client has stopped reading, cannot end by itself; the next
    /// [sweep](crate::GenericBroadcaster::sweep) takes its connection out.
    ///
    /// Needs the timer of a tokio runtime when the stream is polled.
    pub fn deadline(mut self, at: Instant) -> Self {
        let at = self.guard.connection().expire_at(at);
        self.deadline = Some(Deadline { at, timer: None });
        self
    }

    /// The guard that keeps this connection registered: who it is, and what it has lost.
    #[must_use]
    pub fn guard(&self) -> &ConnectionGuard<T> {
        &self.guard
    }
}

impl<T: Clone + Send + 'static> Stream for Subscription<T> {
    type Item = Result<T, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(deadline) = &mut self.deadline {
            if deadline.poll(cx).is_ready() {
                tracing::debug!(parent: self.guard.span(), "deadline");
                self.guard.connection().end();
            }
        }
        let next = self.guard.connection().poll_next(cx);
        let Poll::Ready(Some(Err(Lagged { missed }))) = next else {
            return next;
        };
        self.guard.count_lag(missed);
        tracing::debug!(parent: self.guard.span(), missed, "lagged");
        match self.lag_policy {
            LagPolicy::Gap => next,
            LagPolicy::Disconnect => {
                self.guard.connection().end();
                next
            }
            LagPolicy::End => {
                self.guard.connection().end();
                Poll::Ready(None)
            }
        }
    }
}

/// When a stream ends, and the timer that wakes it then; made when it is first polled, where there is a runtime.
#[derive(Debug)]
struct Deadline {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().poll(cx)
    }
}
