//! The figures of a broadcaster, and of the server, at one moment.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::end::EndReason;

/// A broadcaster's current counts, and its totals since it was built.
///
/// Serialises to an object with these fields. As metrics they have the names of [the table](crate::metrics).
///
/// The figures are read one after another while others change: each is right, their sum need not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Users that have a connection now, without those that count as away.
    pub users: usize,
    /// Users that have no connection, and whose history is kept; and each [`Hold`](crate::Hold), whether or not there
    /// is a connection.
    pub away: usize,
    /// Bytes of the histories of users who are away.
    pub away_bytes: usize,
    /// Bytes that are kept in all [histories](crate::History) and [under keys](crate::Builder::coalesce_keys), those of users
    /// who are away among them. Counted as there: each frame with its bytes and 192 more, each key with its bytes and 256.
    pub history_bytes: usize,
    /// Connections that are open now.
    pub connections: usize,
    /// Connections that were accepted.
    pub registered: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// The same by reason.
    pub refusals: Refusals,
    /// Connections that have left, by reason. Together with those that are open now, these are the `registered`.
    pub ended: Ends,
    /// Calls to broadcast, whether or not the user was connected. One for [many
    /// users](crate::GenericBroadcaster::broadcast_many) counts once, here and in the two that follow.
    pub broadcasts: u64,
    /// Broadcasts that were encoded. An event that goes to no stream, no history and no other node is not encoded.
    pub encoded: u64,
    /// Bytes of these, each broadcast counted once, however many streams it went to.
    pub encoded_bytes: u64,
    /// Broadcasts that could not be encoded.
    pub failed: u64,
    /// Streams reached, added up over all broadcasts: an event that goes to three streams counts three. What such a
    /// stream then loses by falling behind is counted in `lagged` as well, unless the event is ephemeral.
    pub deliveries: u64,
    /// Events that streams lost by falling behind, added up over all streams, each counted when its stream learns of it.
    pub lagged: u64,
    /// Events that streams read from the history instead of losing them by falling behind.
    pub healed: u64,
    /// Events that streams read from the history because their clients had been away.
    pub replayed: u64,
    /// Events that the history had dropped when streams wanted to replay them, and that were reported to the clients as
    /// gaps.
    pub evicted: u64,
    /// Gaps in streams, by reason.
    pub gaps: Gaps,
    /// Counts of events between nodes, if there is a [backplane](crate::Builder::backplane).
    pub backplane: Option<BackplaneStats>,
}

/// Counts of what this node exchanges with others, since the broadcaster was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackplaneStats {
    /// Whether the engine can be reached, as far as is known.
    pub connected: bool,
    /// Events that wait to be published.
    pub queued: usize,
    /// How many milliseconds the event being published has waited for the engine. Grows while the engine cannot be
    /// reached.
    pub lag_ms: u64,
    /// Users whose events this node gets.
    pub users: usize,
    /// Of these, users whose events do not arrive although the engine can be reached: for lack of a permission, for example.
    pub unheard: usize,
    /// Messages that the engine has accepted.
    pub published: u64,
    /// Events that were broadcast here and not published, because the queue was full, they were too large, it was too
    /// late, or the engine refused them.
    pub refused: u64,
    /// Messages of which it is unknown whether the engine has accepted them; other nodes learn that they may be
    /// missing.
    pub unconfirmed: u64,
    /// Messages that came from the engine and were sent by nodes like this one.
    pub received: u64,
    /// Of these, at most once only, messages that this node had sent itself and its streams had already got.
    pub echoes: u64,
    /// Of these, messages that had already arrived before.
    pub duplicates: u64,
    /// Messages that came from the engine but not from such a node; they were dropped.
    pub dropped: u64,
    /// Messages for users who have no stream here any more, or not yet.
    pub unwanted: u64,
    /// Messages that arrived before an earlier one, which was then read from the engine's log.
    pub holes: u64,
    /// Events that were read from the engine's log.
    pub fetched: u64,
}

/// Connections that were refused, by [reason](crate::RegisterError).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refusals {
    /// The user had as many connections as [allowed](crate::Builder::connections_per_user).
    pub user_full: u64,
    /// The service had as many connections as [allowed](crate::Builder::total_connections).
    pub total_full: u64,
    /// The user had a connection of the same id.
    pub id_in_use: u64,
    /// The broadcaster was [shutting down](crate::GenericBroadcaster::shutdown).
    pub shutting_down: u64,
}

impl Refusals {
    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.user_full + self.total_full + self.id_in_use + self.shutting_down
    }
}

/// Connections that have left, by the [reason](EndReason) why they ended. Serialises to an object with a field for each
/// reason, under its [name](EndReason::as_str).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends(pub(super) [u64; EndReason::ALL.len()]);

impl Ends {
    /// How many ended for this reason.
    #[must_use]
    pub fn get(&self, reason: EndReason) -> u64 {
        self.0[reason as usize]
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) fn by_name(&self) -> [(&'static str, u64); EndReason::ALL.len()] {
        EndReason::ALL.map(|reason| (reason.as_str(), self.get(reason)))
    }
}

impl Serialize for Ends {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.by_name())
    }
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.by_name()).finish()
    }
}

/// Gaps in streams, by [reason](crate::GapReason), whether their [policy](crate::LagPolicy) reported the gap or ended
/// the stream. Those that [`Coalesce`](crate::LagPolicy::Coalesce) bridged are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Gaps {
    /// The stream fell behind.
    pub lagged: u64,
    /// The history had dropped what the client had not seen.
    pub evicted: u64,
    /// The client resumed with an id that was not from this history.
    pub epoch: u64,
    /// Events of other nodes were lost between the nodes.
    pub backplane: u64,
}
