//! What is appended to a channel, where it comes from, and what becomes of it.

use crate::position::Place;

/// Where something that is appended comes from. That decides its place in the history, and its id.
#[derive(Debug)]
pub(crate) enum Origin<T> {
    /// It was broadcast here, or is a notice of this node: the next place in the channel's own history. Not for a channel whose
    /// history is an engine's log.
    Here,
    /// The engine's log has it: its place there, if it is its turn.
    Upstream(Place),
    /// It is shown before the engine's log has it, without an id. The notice, which also counts for so much, tells streams of the
    /// gap: it stands before the first of such events and after the last.
    Ahead { notice: T, weight: usize },
    /// A notice that the engine's log has been replaced, if the channel is still in the old log. What the channel has of that is
    /// dropped.
    Reset,
}

/// What is known of something before it is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label<'a> {
    /// What it counts for in a history.
    pub(super) weight: usize,
    /// What a later event replaces it by.
    pub(super) key: Option<&'a str>,
    /// It is no event, but tells of a gap.
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

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It was sent to so many streams.
    Delivered(usize),
    /// The channel has it.
    Duplicate,
    /// The channel lacks the one before it.
    OutOfOrder,
    /// The channel is in another log.
    Elsewhere,
    /// The channel is complete, and takes nothing any more.
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
