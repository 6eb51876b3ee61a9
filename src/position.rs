//! Places in a history, and how ids spell them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// A place in a user's history: in that of a broadcaster, or in the log of a [backplane](crate::backplane)'s engine.
///
/// On the wire it is an event's id, `<epoch>-<offset>`. The epoch is drawn at random for each history, so that a position in
/// one is none in another: neither in that of another user nor in that of the same user after a restart. Offsets of two
/// histories say nothing about each other, so positions have no order of their own: [`compare`](Self::compare) answers only
/// within one epoch.
///
/// A `~` at the end of an id is no part of the position: its client has already been told that events are missing after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which history it is.
    pub epoch: u64,
    /// Of an event, its number in the history, at least 1. Zero is before the first.
    pub offset: u64,
}

impl Position {
    /// The digits of an epoch, always as many.
    pub(crate) const EPOCH_LEN: usize = 16;

    /// Which of two positions of the same user comes first; `None` if they are in different histories.
    #[must_use]
    pub fn compare(self, other: Self) -> Option<Ordering> {
        (self.epoch == other.epoch).then(|| self.offset.cmp(&other.offset))
    }

    /// An epoch for a new history.
    pub(crate) fn new_epoch() -> u64 {
        // Each `RandomState` has keys of its own.
        RandomState::new().hash_one(0).max(1)
    }

    /// Reads what [`fmt::Display`] wrote, and nothing else: no sign, no space, no other way to write the same number.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let (epoch, offset) = id.split_once('-')?;
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let is_epoch = epoch.len() == Self::EPOCH_LEN && epoch.bytes().all(is_hex);
        let is_offset = offset.bytes().all(|b| b.is_ascii_digit())
            && (offset == "0" || !offset.starts_with('0'));
        if !is_epoch || !is_offset {
            return None;
        }
        Some(Self {
            epoch: u64::from_str_radix(epoch, 16).ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, offset } = self;
        write!(f, "{epoch:016x}-{offset}")
    }
}

/// A message's place in an engine's log, and where the user's message before it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its own.
    pub position: Position,
    /// The offset of the user's message before it, in the same log; zero if there is none.
    pub previous: u64,
}

impl Place {
    /// One that says what the log lacks, up to this position: what comes before it is known to be missing.
    pub(crate) fn up_to(position: Position) -> Self {
        Self {
            position,
            previous: 0,
        }
    }
}
