//! What a stream tells its client that it cannot have.

use std::error::Error;
use std::fmt;

use crate::id::EventId;
use crate::position::Position;

/// Events are missing here. It is not the end: the next item is the oldest event after them that there is.
///
/// In a response it is the event `gap`, with `{"reason":"lagged","missed":3}` for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Gap {
    /// Why they are missing.
    pub reason: GapReason,
    /// How many events are missing; `None` if nobody can know.
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

    /// The id from which the stream goes on, which a client shall name when it reconnects; `None` without history.
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
    /// `lagged`: the stream was read too slowly, and the events were overwritten before it came to them.
    Lagged,
    /// `evicted`: the client was away, or replayed too slowly, and the history has dropped the events meanwhile.
    Evicted,
    /// `epoch`: the id that the client came with is none of the user's history. It is from before a restart or from
    /// before the history was forgotten, or it is somebody else's or no id at all.
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
            Self::Epoch => "because the history is not the one that the id is from",
            Self::Backplane => "because they were lost between nodes",
        })
    }
}
