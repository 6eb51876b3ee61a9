//! How far a log is in its history: its own, or an engine's log.

use super::{Accepted, Standing};
use crate::position::{Place, Position};

/// Offsets, all of one epoch. A log with a history of its own makes its own epoch and counts events from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    pub(super) epoch: u64,
    /// Everything up to here was appended, or is known to be missing.
    pub(super) last: u64,
    /// The offset before the log's first event.
    pub(super) begun: u64,
    /// Every event after this one is in the window.
    pub(super) dropped: u64,
}

impl Progress {
    pub(super) fn at(position: Position) -> Self {
        let Position { epoch, offset } = position;
        Self {
            epoch,
            last: offset,
            begun: offset,
            dropped: offset,
        }
    }

    /// Whether the next event is the one at this place of the engine's log; if not, why.
    pub(super) fn turn(&self, place: Place) -> Result<(), Accepted> {
        let Place { position, previous } = place;
        if position.epoch != self.epoch {
            return Err(Accepted::Elsewhere);
        }
        if position.offset <= self.last {
            return Err(Accepted::Duplicate);
        }
        if previous > self.last {
            return Err(Accepted::OutOfOrder);
        }
        Ok(())
    }

    /// Goes on to this place of the engine's log, up to which nothing is left to append.
    pub(super) fn catch_up(&mut self, place: Position) {
        if place.epoch == self.epoch {
            self.last = self.last.max(place.offset);
        }
    }

    /// Where a client that comes back to an engine's log finds what it lacks.
    pub(super) fn find(&self, from: Position) -> Found {
        match from.epoch == self.epoch {
            false => Found::Nowhere,
            true if from.offset < self.dropped => Found::Log,
            true => Found::Window,
        }
    }

    /// Compares itself with the end of the user's log, which has nothing between `newest` and `through`.
    pub(super) fn compare(&mut self, newest: Position, through: u64) -> Standing {
        if newest.epoch != self.epoch {
            return Standing::Elsewhere;
        }
        if newest.offset > self.last {
            return Standing::Behind;
        }
        self.last = self.last.max(through);
        Standing::Level
    }
}

/// Where what a client lacks is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The window has all of it.
    Window,
    /// The engine's log has what the window has dropped.
    Log,
    /// The client comes from another history.
    Nowhere,
}

/// Where an event stands in the history: at an offset, or between that one and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) offset: u64,
    pub(super) is_between: bool,
}

impl Stamp {
    pub(super) fn at(offset: u64) -> Self {
        Self {
            offset,
            is_between: false,
        }
    }

    pub(super) fn after(offset: u64) -> Self {
        Self {
            offset,
            is_between: true,
        }
    }
}
