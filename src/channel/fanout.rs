//! The channel itself: a ring and a roster.

use std::sync::Arc;

use super::{Connection, Log, Refusal, Resume, Roster};
use crate::gap::{Gap, GapReason};
use crate::id::{Position, UserId};
use crate::sync::Sender;

pub(crate) struct Channel<T> {
    roster: Arc<Roster<T>>,
    ring: Sender<T>,
}

impl<T: Clone + Send + 'static> Channel<T> {
    /// A channel whose first connection is counted before anybody else can see it. It is [admitted](Self::admit) next.
    pub(crate) fn open(
        user: UserId,
        hash: u64,
        capacity: usize,
        log: Option<Arc<Log<T>>>,
        first: Option<&Arc<Connection<T>>>,
    ) -> Self {
        Self {
            roster: Arc::new(Roster::new(user, hash, log, first)),
            ring: Sender::new(capacity),
        }
    }

    /// Adds a connection. It is counted first and subscribed then: the other way round, an event could be counted as
    /// having reached a connection that is refused in the end.
    pub(crate) fn join(
        &self,
        connection: &Arc<Connection<T>>,
        cap: usize,
        resume: Resume,
    ) -> Result<Option<Gap>, Refusal> {
        self.roster.attach(connection, cap)?;
        Ok(self.admit(connection, resume))
    }

    /// Subscribes a connection that is counted. If its client comes back from somewhere unknown, that is said.
    pub(crate) fn admit(&self, connection: &Connection<T>, resume: Resume) -> Option<Gap> {
        let Some(log) = self.roster.log() else {
            connection.install(self.ring.subscribe(), None);
            // Read after subscribing: what is sent meanwhile may be counted as read, never as missing.
            connection.begin_at(self.roster.head());
            return (resume != Resume::Fresh).then_some(Gap {
                reason: GapReason::Epoch,
                missed: None,
                position: None,
            });
        };
        let (feed, replay, gap) = log.join(resume, || self.ring.subscribe());
        connection.begin_at(replay.position());
        connection.install(feed, Some(Box::new(replay)));
        gap
    }

    pub(crate) fn roster(&self) -> &Arc<Roster<T>> {
        &self.roster
    }

    /// The epoch of the ids that events get here, if they get any.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.roster.log().and_then(|log| log.epoch())
    }

    /// Sends what `make` makes of the event's id to every connection that is subscribed, and says how many these are.
    ///
    /// With a log, `make` is called under its lock. `size` is what the event counts there, `key` what it is known by.
    pub(crate) fn publish(
        &self,
        size: usize,
        key: Option<&str>,
        make: impl FnOnce(Option<Position>) -> T,
    ) -> usize {
        let send = |event| {
            self.roster.advance();
            self.ring.send(event)
        };
        match self.roster.log() {
            None => send(make(None)),
            Some(log) => log.append(size, key, make, send),
        }
    }
}
