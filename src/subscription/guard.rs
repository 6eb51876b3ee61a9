//! The guard of a connection: while it lives the connection is counted, when it drops the connection leaves.
//!
//! 1. A connection leaves once: by its guard or by a call that ends it from outside, whichever is first.
//! 2. Leaving needs no runtime, and waits for nothing but short locks. It works in any thread, during a panic and inside
//!    other drops.
//! 3. The feed is dropped before the count falls: a thread that sees the connection removed finds that it holds no events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::channel::{Connection, Roster};
use crate::end::EndReason;
use crate::frame::Frame;
use crate::gap::{Gap, GapReason};
use crate::id::{ConnectionId, UserId};
use crate::registry::Registry;

/// Keeps a connection registered. Dropping it removes the connection and, with the last one, the user.
pub struct ConnectionGuard<T: Clone + Send + 'static = Arc<Frame>> {
    pub(super) registry: Arc<Registry<T>>,
    pub(super) roster: Arc<Roster<T>>,
    pub(super) connection: Arc<Connection<T>>,
    /// From registration to leaving; what happens to the connection is logged inside it.
    pub(super) span: Span,
}

impl<T: Clone + Send + 'static> ConnectionGuard<T> {
    pub(super) fn new(
        registry: Arc<Registry<T>>,
        roster: Arc<Roster<T>>,
        connection: Arc<Connection<T>>,
    ) -> Self {
        let mut guard = Self {
            registry,
            roster,
            connection,
            span: Span::none(),
        };
        // Not a child of the request that opened it, which is over long before.
        guard.span = tracing::debug_span!(
            parent: None,
            "connection",
            user = guard.user().as_str(),
            id = guard.connection_id().as_str(),
        );
        guard.span.follows_from(Span::current());
        tracing::debug!(parent: &guard.span, "registered");
        guard
    }

    /// The user whose events this connection gets.
    #[must_use]
    pub fn user(&self) -> &UserId {
        self.roster.user()
    }

    /// The connection's id.
    #[must_use]
    pub fn connection_id(&self) -> &ConnectionId {
        self.connection.id()
    }

    /// How many events this connection has lost so far by falling behind.
    #[must_use]
    pub fn lagged(&self) -> u64 {
        self.connection.lagged()
    }

    /// For how long the connection has been open.
    pub(crate) fn age(&self) -> Duration {
        self.connection.age()
    }

    /// The time over which the client is to spread its reconnect, if there is a shutdown, whatever ends its stream.
    pub(crate) fn reconnect_spread(&self) -> Option<Duration> {
        self.registry.spread()
    }

    /// For the server, which holds the stream's socket.
    #[cfg(feature = "serve")]
    #[allow(dead_code, reason = "asked by the server, which loom leaves out")]
    pub(crate) fn stream_handle(&self) -> super::StreamHandle<T> {
        super::StreamHandle::new(Arc::clone(&self.connection))
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Counts events that the connection has lost, for its user and in total.
    pub(super) fn count_missed(&self, gap: &Gap) {
        if gap.reason == GapReason::Lagged {
            // If the number is unknown, it is not zero.
            let missed = gap.missed.unwrap_or(1);
            self.connection.add_lagged(missed);
            self.roster.add_lagged(missed);
            self.registry.counters().lagged.add(missed);
        } else if gap.reason == GapReason::Evicted {
            let missed = gap.missed.unwrap_or(0);
            self.registry.counters().evicted.add(missed);
        }
    }
}

impl<T: Clone + Send + 'static> Drop for ConnectionGuard<T> {
    fn drop(&mut self) {
        // A stream whose client does not read is not polled: it is dropped some time after its deadline.
        let is_overdue = |at| at <= Instant::now();
        let reason = match self.connection.expires().is_some_and(is_overdue) {
            true => EndReason::Deadline,
            false => EndReason::Dropped,
        };
        self.connection.end(reason);
        self.registry.leave(&self.roster, &self.connection);
        if let Some(reason) = self.connection.end_reason() {
            tracing::debug!(parent: &self.span, reason = reason.as_str(), "left");
        }
    }
}

impl<T: Clone + Send + 'static> fmt::Debug for ConnectionGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionGuard")
            .field("user", self.user())
            .field("connection_id", self.connection_id())
            .finish_non_exhaustive()
    }
}
