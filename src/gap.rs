//! Reports of events that a stream cannot deliver.

use std::error::Error;
use std::fmt;

use crate::id::EventId;
use crate::position::Position;

/// A report that events are missing here. The stream has not ended: the next item is the oldest later event still
/// available.
///
/// In a response it is the event `gap`, with `{"reason":"lagged","missed":3}` for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Gap {
    /// Why they are missing.
    pub reason: GapReason,
    /// How many events are missing; `None` if unknown.
    pub missed: Option<u64>,
    /// Where the stream goes on: behind this position.
    pub(crate) position: Option<Position>,
}

impl Gap {
    pub(crate) fn new(reason: GapReason, missed: Option<u64>) -> Self {
        Self {
            reason,
            missed,
            position: None,
        }
    }

    /// The same, where the stream goes on behind a position.
    pub(crate) fn at(self, position: Option<Position>) -> Self {
        Self { position, ..self }
    }

    /// The id from which the stream continues, which a client should name when it reconnects; `None` without a
    /// history.
    #[must_use]
    pub fn id(&self) -> Option<EventId> {
        self.position.map(EventId::from)
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.missed {
            Some(missed) => write!(f, "{missed} events are missing, {}", self.reason),
            None => write!(f, "events may be missing, {}", self.reason),
        }
    }
}

impl Error for Gap {}

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// `lagged`: the stream was read too slowly, and newer events overwrote these before it read them.
    Lagged,
    /// `evicted`: the client was away, or replayed too slowly, and the history dropped the events in the meantime.
    Evicted,
    /// `epoch`: the client's id is not from the user's history. It dates from before a restart, or from before the
    /// history was forgotten, or it is another user's, or not an id at all.
    Epoch,
    /// `backplane`: events of other nodes were lost between the nodes, or the engine between them has dropped them.
    Backplane,
}

impl GapReason {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lagged => "lagged",
            Self::Evicted => "evicted",
            Self::Epoch => "epoch",
            Self::Backplane => "backplane",
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lagged => "because the stream lagged",
            Self::Evicted => "because the history has dropped them",
            Self::Epoch => "because the id is from another history",
            Self::Backplane => "because they were lost between nodes",
        })
    }
}
