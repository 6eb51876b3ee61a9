//! A history that several nodes share: an engine's log.
//!
//! Only the log orders events that have ids. A channel appends them when the log returns them, so every node sends a user's
//! events in one order, and the id of an event is its [`Position`] in the log, the same on all nodes. Events shown
//! [ahead](super::Origin::Ahead) of the log during an outage have no ids; the log returns them later.
//!
//! 1. Events are appended in the order of the log and without holes. One whose predecessor is not here yet is refused as
//!    [out of order](super::Accepted::OutOfOrder), one that is here already as a
//!    [duplicate](super::Accepted::Duplicate).
//! 2. All positions in a channel belong to one epoch. An event of another one is [refused](super::Accepted::Elsewhere). When the
//!    log is replaced, [`Origin::Reset`](super::Origin::Reset) empties the history and appends a notice, which stands between
//!    the ids of the old log and those of the new one.
//! 3. A channel may be opened while the log is replaced, and begin in the old one. So the opener resets its channel after
//!    other threads can see it, and the thread that replaces the log does so before it looks for channels: one of the two
//!    finds the other.
//! 4. A stream whose client is behind the history joins the channel first and reads the log afterwards, up to where the channel
//!    was then: the channel sends the rest.

use crate::position::Position;

/// The engine's log, as channels see it: the position it has reached. Every message published from now on has a larger
/// offset.
pub(crate) struct Upstream(Box<dyn Fn() -> Position + Send + Sync>);

impl Upstream {
    pub(crate) fn new(horizon: impl Fn() -> Position + Send + Sync + 'static) -> Self {
        Self(Box::new(horizon))
    }

    pub(crate) fn horizon(&self) -> Position {
        (self.0)()
    }
}

/// How a channel compares with the end of the user's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has everything.
    Level,
    /// It lacks something.
    Behind,
    /// It is in another log.
    Elsewhere,
}
