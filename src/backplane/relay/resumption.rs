//! What one stream reads in the engine's log because its channel cannot give it that: the decisions.
//!
//! A stream reads the log when its client comes back with an id that is behind the channel's history, and when the stream lags
//! further than the ring and the history reach. It joined the channel first, so the log has to be read only up to a place that is
//! known then: the channel sends the rest. The log may return more than that; the channel sends those events as well, and the
//! stream skips them there.

use std::sync::Arc;

use super::stretch::{Entry, Stretch};
use crate::backplane::Missing;
use crate::position::Position;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Resumption<I> {
    /// The client has everything up to here, or was told that it is missing, once it has what was read.
    reached: Position,
    /// The log is read up to this offset; at or behind `reached`, there is nothing to read.
    until: u64,
    /// Behind which place the channel goes on, whether or not the log is read, if that is known.
    goes_on: Option<Position>,
    /// What comes first.
    lack: Option<Lack>,
    /// What was read, and how much of it the client has.
    stretch: Option<(Arc<Stretch<I>>, usize)>,
    /// The log has said that no more comes.
    has_ended: bool,
}

/// What a client cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lack {
    /// The log has dropped so many events, if that is known, up to this place.
    Dropped(Option<u64>, Position),
    /// The log is another one, or has not answered for too long. The client goes on behind this place, if that is known.
    Unanswered(Option<Position>),
}

impl<I: Entry> Resumption<I> {
    /// A client has everything up to `from`, and its channel was at `joined` when the stream joined it.
    pub(super) fn new(from: Position, joined: Position) -> Self {
        Self {
            reached: from,
            until: joined.offset,
            goes_on: Some(joined),
            lack: None,
            stretch: None,
            has_ended: false,
        }
    }

    /// After which place something is to be read, or is being read.
    pub(super) fn asks(&self) -> Option<Position> {
        (self.reached.offset < self.until).then_some(self.reached)
    }

    /// What the client gets next, before anything that its channel has; `None` if it has all of what was read.
    pub(super) fn next(&mut self) -> Option<Result<I, Lack>> {
        if let Some(lack) = self.lack.take() {
            return Some(Err(lack));
        }
        let (stretch, at) = self.stretch.as_mut()?;
        let next = stretch.messages.get(*at).map(|(_, item)| item.clone());
        *at += 1;
        match next {
            Some(item) if item.is_end() => {
                self.has_ended = true;
                self.until = self.reached.offset;
            }
            Some(item) => return Some(Ok(item)),
            None => {}
        }
        self.stretch = None;
        None
    }

    /// Whether there is something that was read and that the client does not have, but for what it skips.
    pub(super) fn has_next(&self) -> bool {
        let stretch = self.stretch.as_ref();
        self.lack.is_some() || stretch.is_some_and(|(stretch, at)| *at < stretch.messages.len())
    }

    /// What was asked for was read, or cannot be.
    pub(super) fn answer(&mut self, stretch: Option<Arc<Stretch<I>>>) {
        let Some(stretch) = stretch else {
            self.lack = Some(Lack::Unanswered(self.goes_on));
            self.until = self.reached.offset;
            return;
        };
        let after = self.reached;
        match stretch.missing {
            Missing::Messages(missed) if stretch.after == after => {
                self.lack = Some(Lack::Dropped(Some(missed), stretch.begins()));
            }
            Missing::Unknown if stretch.after == after => {
                self.lack = Some(Lack::Dropped(None, stretch.begins()));
            }
            Missing::Nothing | Missing::Messages(_) | Missing::Unknown => {}
        }
        let is_read = |(place, _): &(Position, _)| place.offset <= after.offset;
        let at = stretch.messages.partition_point(is_read);
        // A server that is behind may have read nothing.
        if self.lacks(stretch.through) {
            self.reached = stretch.through;
        }
        self.stretch = Some((stretch, at));
    }

    /// The channel cannot give the client what is up to here, or perhaps not all of it. `false` if the log does not have that: it
    /// is another one.
    pub(super) fn read_until(&mut self, place: Position, goes_on: Option<Position>) -> bool {
        let is_there = place.epoch == self.reached.epoch;
        if is_there {
            (self.until, self.goes_on) = (place.offset, goes_on);
        }
        is_there
    }

    /// Whether the client lacks what is at this place.
    pub(super) fn lacks(&self, place: Position) -> bool {
        place.epoch != self.reached.epoch || place.offset > self.reached.offset
    }

    /// Whether the client gets what its channel has at this place; `false` if it has that.
    pub(super) fn pass(&mut self, place: Position) -> bool {
        let is_new = self.lacks(place);
        if is_new {
            (self.reached, self.until) = (place, place.offset);
        }
        is_new
    }

    /// Where the client is that has everything of its channel, which is at this place; `None` if more comes before that.
    pub(super) fn place(&self, channel: Position) -> Option<Position> {
        let has_all = self.asks().is_none() && !self.has_next();
        has_all.then_some(match self.lacks(channel) {
            true => channel,
            false => self.reached,
        })
    }

    /// Whether the client has all that there will be.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}
