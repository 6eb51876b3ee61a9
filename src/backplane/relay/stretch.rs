//! Parts of a user's log, as streams get them that come back, and the streams that wait for them.

use std::time::Duration;

use crate::backplane::Missing;
use crate::position::{Place, Position};

/// A stream that waits for what the log has after a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Request<T> {
    pub(super) after: Position,
    pub(super) since: Duration,
    pub(super) ticket: T,
}

/// Where a stream waits.
pub(super) trait Ticket {
    /// Whether it waits no more.
    fn is_closed(&self) -> bool;
}

/// A part of a user's log: [`Fetched`](crate::backplane::Fetched), with what is made of its messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stretch<M> {
    pub(super) after: Position,
    pub(super) messages: Vec<(Position, M)>,
    pub(super) through: Position,
    pub(super) head: Position,
    /// Whether something is missing behind `after`, before the first of the messages.
    pub(super) missing: Missing,
}

/// What a stream gets out of the log.
pub(super) trait Entry: Clone {
    /// Whether it is the end of the user's events.
    fn is_end(&self) -> bool;
}

impl<T> Request<T> {
    pub(super) fn has_waited(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }
}

impl<M> Stretch<M> {
    /// Up to where it lacks something, if it does.
    pub(super) fn begins(&self) -> Position {
        let first = self.messages.first();
        Position {
            offset: first.map_or(self.through.offset, |(first, _)| first.offset - 1),
            ..self.through
        }
    }

    /// Whether it is what a stream at this place lacks next.
    pub(super) fn serves(&self, at: Position) -> bool {
        let first = self.messages.first().map(|(first, _)| first.offset);
        let is_within = at.epoch == self.after.epoch
            && (self.after.offset..self.through.offset).contains(&at.offset);
        // Where the missing ones were is not known.
        let lacks_as_much = self.missing == Missing::Nothing
            || at == self.after
            || first.is_some_and(|first| at.offset + 1 >= first);
        is_within && lacks_as_much
    }
}

impl<I: Entry> Stretch<I> {
    /// Where the log has the end, if this part has it, and the last message before that, as far as is known.
    pub(super) fn end(&self) -> Option<Place> {
        let at = self.messages.iter().position(|(_, item)| item.is_end())?;
        let position = self.messages[at].0;
        let before = match (at.checked_sub(1), self.missing) {
            (Some(before), _) => self.messages[before].0.offset,
            (None, Missing::Nothing) => self.after.offset,
            (None, Missing::Messages(_) | Missing::Unknown) => position.offset - 1,
        };
        Some(Place {
            position,
            previous: before,
        })
    }
}

/// The streams of one user that wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Waiting<T>(Vec<Request<T>>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ticket> Waiting<T> {
    pub(super) fn push(&mut self, request: Request<T>) {
        self.0.push(request);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the first of them is, of those that still wait.
    pub(super) fn first(&mut self) -> Option<Position> {
        self.0.retain(|request| !request.ticket.is_closed());
        let epoch = self.0.first()?.after.epoch;
        let places = self.0.iter().map(|request| request.after);
        let places = places.filter(|place| place.epoch == epoch);
        places.min_by_key(|place| place.offset)
    }

    /// Takes out those that `is_meant` picks.
    pub(super) fn take(&mut self, is_meant: impl Fn(&Request<T>) -> bool) -> Vec<Request<T>> {
        let requests = std::mem::take(&mut self.0).into_iter();
        let (meant, left) = requests.partition(is_meant);
        self.0 = left;
        meant
    }
}
