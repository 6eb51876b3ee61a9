//! A channel, as far as it is a copy of a user's log: the real `Progress`, and all that streams were sent.

use super::progress::{Found, Progress};
use super::{Accepted, Standing};
use crate::position::{Place, Position};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Copy<T> {
    progress: Progress,
    /// All that was sent since it was opened, with its offset.
    sent: Vec<(u64, T)>,
    /// From here on the window has it.
    kept: usize,
    window: usize,
}

/// Events in a ring.
const RING: usize = 1;

/// What a stream gets of what was sent.
pub(crate) enum Next<T> {
    Item(T),
    /// Neither the ring nor the window has what is before this one. The log has it up to this place, which is also that of the
    /// last one if `is_last`.
    Lost {
        until: usize,
        in_log: Position,
        is_last: bool,
    },
}

/// Where a stream begins that comes back.
pub(crate) enum Start {
    /// Behind so many of what was sent.
    Window(usize),
    /// With what the log has.
    Log,
    Unknown,
}

impl<T: Clone> Copy<T> {
    pub(crate) fn open(horizon: Position, window: usize) -> Self {
        Self {
            progress: Progress::at(horizon),
            sent: Vec::new(),
            kept: 0,
            window,
        }
    }

    pub(crate) fn place(&self) -> Position {
        Position {
            epoch: self.progress.epoch,
            offset: self.progress.last,
        }
    }

    /// Whether it is where it was opened.
    pub(crate) fn is_untouched(&self) -> bool {
        self.progress.last == self.progress.begun
    }

    /// How much was sent.
    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    /// What a stream gets that has so much of what was sent, as `Log::read` and the ring have it.
    pub(crate) fn next(&self, read: usize) -> Option<Next<T>> {
        let in_ring = self.sent.len().saturating_sub(RING);
        if read >= in_ring.min(self.kept) {
            return self
                .sent
                .get(read)
                .map(|(_, item)| Next::Item(item.clone()));
        }
        Some(Next::Lost {
            until: in_ring.min(self.kept),
            in_log: Position {
                offset: self.progress.dropped,
                ..self.place()
            },
            is_last: self.kept <= in_ring,
        })
    }

    /// As `Log::append` does with what comes from upstream.
    pub(crate) fn append(&mut self, item: T, place: Place) -> Accepted {
        if let Err(refused) = self.progress.turn(place) {
            return refused;
        }
        self.progress.last = place.position.offset;
        self.push(item);
        Accepted::Delivered(0)
    }

    /// As `Log::append` does with a reset.
    pub(crate) fn follow(&mut self, horizon: Position, notice: T) {
        if horizon.epoch == self.progress.epoch {
            return;
        }
        self.kept = self.sent.len();
        self.progress = Progress::at(horizon);
        self.push(notice);
    }

    fn push(&mut self, item: T) {
        self.sent.push((self.progress.last, item));
        if self.sent.len() - self.kept > self.window {
            self.progress.dropped = self.sent[self.kept].0;
            self.kept += 1;
        }
    }

    pub(crate) fn catch_up(&mut self, place: Position) {
        self.progress.catch_up(place);
    }

    pub(crate) fn compare(&mut self, newest: Position, through: u64) -> Standing {
        self.progress.compare(newest, through)
    }

    /// As `Log::join` does.
    pub(crate) fn find(&self, from: Position) -> Start {
        match self.progress.find(from) {
            Found::Window => {
                let kept = &self.sent[self.kept..];
                Start::Window(self.kept + kept.partition_point(|(at, _)| *at <= from.offset))
            }
            Found::Log => Start::Log,
            Found::Nowhere => Start::Unknown,
        }
    }
}
