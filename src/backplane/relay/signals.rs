//! What the [`Reader`](super::reader::Reader) is told and what it orders, and what it sees of channels.

use std::sync::Arc;
use std::time::Duration;

use super::stretch::{Request, Stretch};
use crate::backplane::Head;
use crate::channel::{Accepted, Standing};
use crate::position::{Place, Position};

/// A user's channel, as a copy of the user's log.
pub(super) trait LogCopy<M> {
    /// Where it is in the log, if it is in one.
    fn place(&self) -> Option<Position>;

    fn compare(&mut self, head: Head) -> Standing;

    /// A stream has read the end in the log, at this place.
    fn find_end(&mut self, end: Place) -> Standing;

    /// Appends what the log has at this place, if it is its turn.
    fn append(&mut self, message: M, place: Place) -> Accepted;

    /// Tells streams that the log lacks what should come next, up to this place.
    fn tell_missing(&mut self, missed: Option<u64>, place: Place);

    /// The log has nothing up to this place that is not here.
    fn catch_up(&mut self, place: Position);

    /// Goes over to the log that there is, if that is another one, and tells streams.
    fn follow(&mut self);
}

/// The channels of this node.
pub(super) trait Copies<U, M> {
    fn users(&self) -> Vec<U>;

    /// Runs `f` with the user's channel, if there is one.
    fn with<R>(&mut self, user: &U, f: impl FnOnce(&mut dyn LogCopy<M>) -> R) -> Option<R>;
}

/// What a read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Purpose {
    /// The channel lacks something.
    Repair,
    /// Streams wait that have come back.
    Resume,
}

/// Something has happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Input<U, M, T, I> {
    /// A message arrived.
    Message(U, Place, M),
    /// The log may have messages of these users that do not arrive.
    Behind(Vec<U>),
    /// Messages of anybody may not have arrived.
    Changed,
    /// The log is another one.
    Reset,
    /// A stream asks for what the log has.
    Request(U, Request<T>),
    /// It is time to compare some of the users with the log. Once a second.
    Tick,
    /// Where the logs of these users end; nothing if that was not answered, here and below.
    Heads(Vec<U>, Option<Vec<Head>>),
    /// What the log has of a user after a place, for the user's channel.
    Repaired(U, Position, Option<Stretch<M>>),
    /// The same, for streams: messages with what streams get.
    Resumed(U, Position, Option<Stretch<I>>),
    /// What was put off is due.
    Due(Delayed<U>),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Order<U, T, I> {
    /// Ask for the ends of these users' logs.
    Compare(Vec<U>),
    /// Read what the log has of a user after a place.
    Read(U, Purpose, Position),
    /// Give a stream what it has waited for. Nothing if the log is another one, or has not answered for too long.
    Answer(T, Option<Arc<Stretch<I>>>),
    /// Have all channels go over to the log that there is.
    Follow,
    /// Come back with this after a pause.
    Delay(Duration, Delayed<U>),
    Count(Counted),
}

/// What is done after a pause.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Delayed<U> {
    Read(U, Purpose),
    Compare(Vec<U>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// A channel lacks something.
    Hole,
    /// A message of a user without a channel.
    Unwanted,
}
