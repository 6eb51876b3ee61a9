//! The stream of one connection's events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::ConnectionGuard;
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
/// it goes on with the oldest event still there. Other streams do not notice.
///
/// # Cancel safety
///
/// Waiting for the next item can be given up at any time; no event is lost by it.
#[must_use = "dropping a subscription ends its connection"]
#[derive(Debug)]
pub struct Subscription<T: Clone + Send + 'static = Arc<Frame>> {
    guard: ConnectionGuard<T>,
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
        })
    }

    /// The guard that keeps this connection registered: who it is, and what it has lost.
    #[must_use]
    pub fn guard(&self) -> &ConnectionGuard<T> {
        &self.guard
    }
}

impl<T: Clone + Send + 'static> Stream for Subscription<T> {
    type Item = Result<T, Lagged>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.guard.connection().poll_next(cx);
        if let Poll::Ready(Some(Err(Lagged { missed }))) = next {
            self.guard.registry().counters().lagged.add(missed);
            tracing::debug!(parent: self.guard.span(), missed, "lagged");
        }
        next
    }
}
