//! What is appended to a channel, where it comes from, and what becomes of it.

use crate::position::Place;

/// Where an appended event or notice comes from. This decides its place in the history, and its id.
#[derive(Debug)]
pub(crate) enum Origin<T> {
    /// This node broadcast it, or it is this node's notice: it gets the next place in the channel's own history. Not for a
    /// channel whose history is an engine's log.
    Here,
    /// The engine's log has it at this place. Appended only if its turn has come.
    Upstream(Place),
    /// Shown before the engine's log has it, without an id. The notice, of this weight, reports the gap to streams: it stands
    /// before the first of such events and after the last.
    Ahead { notice: T, weight: usize },
    /// A notice that the engine's log has been replaced, if the channel is still in the old log. The channel drops what it
    /// has of that log.
    Reset,
}

/// What is known of an event or notice before it is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label<'a> {
    /// Its size in the history's budget of bytes.
    pub(super) weight: usize,
    /// A later event with the same key replaces it.
    pub(super) key: Option<&'a str>,
    /// Whether it is a gap notice, not an event.
    pub(super) is_notice: bool,
}

impl<'a> Label<'a> {
    pub(crate) fn event(weight: usize, key: Option<&'a str>) -> Self {
        Self {
            weight,
            key,
            is_notice: false,
        }
    }

    pub(crate) fn notice(weight: usize) -> Self {
        Self {
            weight,
            key: None,
            is_notice: true,
        }
    }
}

/// The result of appending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It was sent to this many streams.
    Delivered(usize),
    /// The channel has it already.
    Duplicate,
    /// The channel lacks the one before it.
    OutOfOrder,
    /// The channel is in another log.
    Elsewhere,
    /// The channel is complete and takes nothing more.
    Complete,
}

impl Accepted {
    /// How many streams it was sent to.
    pub(crate) fn reached(self) -> usize {
        match self {
            Self::Delivered(reached) => reached,
            Self::Duplicate | Self::OutOfOrder | Self::Elsewhere | Self::Complete => 0,
        }
    }
}
