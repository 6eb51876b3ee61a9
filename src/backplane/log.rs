//! What an engine reports about a user's log.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::position::Position;

/// The most users in one call of [`Backplane::heads`](super::Backplane::heads).
pub const MAX_HEADS: usize = 256;

/// Where the log of one user ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// The place of the user's newest message; offset 0 if the log has none.
    pub newest: Position,
    /// The user has no message after `newest` up to this offset, and none will get an offset up to here. At least that of
    /// `newest`. It moves a quiet user's place forward, so that the log still knows the place after it has dropped everything
    /// older. An engine that knows no more repeats the offset of `newest`.
    pub through: u64,
}

/// What the log has for a user after a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The messages, oldest first.
    pub messages: Vec<(Position, Bytes)>,
    /// Every message of the user up to here is among `messages`, or was dropped (`missing`), or is not after the place
    /// asked for. A complete answer from a server that is not behind reaches at least the
    /// [horizon](super::Backplane::horizon) from before the call: a broadcaster that knows of a later place treats the
    /// answer as unfinished.
    pub through: Position,
    /// Where the user's log ends, as far as the answering server knows. The answer is [complete](Self::is_complete) when it
    /// reaches that.
    pub head: Position,
    /// Whether something is missing before the first of them.
    pub missing: Missing,
}

impl Fetched {
    /// Whether the answer reaches the end of the user's log.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let reached = self.through.compare(self.head);
        reached.is_some_and(Ordering::is_ge)
    }
}

/// Whether a log lacks messages that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Missing {
    /// It has all of them.
    Nothing,
    /// It has dropped this many.
    Messages(u64),
    /// It may have dropped some.
    Unknown,
}
