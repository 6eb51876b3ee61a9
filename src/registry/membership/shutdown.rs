//! The steps of a shutdown. The broadcaster decides when each is taken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{NO_SHUTDOWN, Registry};
use crate::channel::{Connection, Roster};
use crate::end::EndReason;

/// A member that a shutdown asks to end.
pub(crate) struct Remaining<T>(Arc<Connection<T>>);

impl<T: Clone + Send + 'static> Remaining<T> {
    /// Asks its stream to end once it has yielded what was broadcast before this call.
    pub(crate) fn finish(&self) {
        self.0.finish(EndReason::Shutdown);
    }
}

impl<T: Clone + Send + 'static> Registry<T> {
    /// Refuses every registration from now on, also those in progress, and returns all members. Clients are to spread their
    /// reconnects over `spread`.
    ///
    /// Connections that were drained are not among them: the call that drained them asks them to finish.
    pub(crate) fn close(&self, spread: Duration) -> Vec<Remaining<T>> {
        let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        self.spread
            .store(millis.min(NO_SHUTDOWN - 1), Ordering::Relaxed);
        self.admission.close();
        // Only now: a registration that this look misses finds the registry closed when it asks once more, and is refused.
        let rosters = self.users.rosters();
        let members = rosters.iter().flat_map(|roster| roster.members());
        members.map(Remaining).collect()
    }

    /// The time over which clients are to spread their reconnects after a shutdown; `None` if there is none.
    pub(crate) fn spread(&self) -> Option<Duration> {
        let millis = self.spread.load(Ordering::Relaxed);
        (millis != NO_SHUTDOWN).then(|| Duration::from_millis(millis))
    }

    /// Ends every connection immediately and removes it, forgets all histories, and ends the watches; returns how many
    /// connections there were.
    pub(crate) fn disconnect_all(&self) -> usize {
        let rosters = self.users.rosters();
        let end = |roster| self.end_connections(roster, EndReason::Shutdown, Roster::close);
        let ended = rosters.iter().map(end).sum();
        // Only now: the end of a watch says that no user is here.
        self.watches.end();
        ended
    }
}
