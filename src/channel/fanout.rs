//! The channel itself: a ring and a roster.

use std::sync::Arc;

use super::{Connection, Refusal, Roster};
use crate::id::UserId;
use crate::sync::Sender;

pub(crate) struct Channel<T> {
    roster: Arc<Roster<T>>,
    ring: Sender<T>,
}

impl<T: Clone + Send + 'static> Channel<T> {
    /// A channel whose first connection is subscribed and counted before anybody else can see it.
    pub(crate) fn open(
        user: UserId,
        hash: u64,
        capacity: usize,
        first: &Arc<Connection<T>>,
    ) -> Self {
        let ring = Sender::new(capacity);
        first.install(ring.subscribe());
        first.begin_at(0);
        Self {
            roster: Arc::new(Roster::with_first(user, hash, first)),
            ring,
        }
    }

    /// Adds a connection. It is counted first and subscribed then: the other way round, an event could be counted as
    /// having reached a connection that is refused in the end.
    pub(crate) fn join(&self, connection: &Arc<Connection<T>>, cap: usize) -> Result<(), Refusal> {
        self.roster.attach(connection, cap)?;
        connection.install(self.ring.subscribe());
        // Read after subscribing: what is sent meanwhile may be counted as read, never as missing.
        connection.begin_at(self.roster.head());
        Ok(())
    }

    pub(crate) fn roster(&self) -> &Arc<Roster<T>> {
        &self.roster
    }

    /// Sends to every connection that is subscribed, and says how many these are.
    pub(crate) fn publish(&self, event: T) -> usize {
        self.roster.advance();
        self.ring.send(event)
    }
}
