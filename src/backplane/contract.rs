//! What an engine between nodes has to do.

use std::error::Error;
use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use tokio::time::Instant;

use crate::id::UserId;

/// What carries events between the nodes of a service: an engine such as NATS, seen from one node.
///
/// For [`Builder::backplane`](crate::Builder::backplane). An implementation moves messages and knows nothing of what is in
/// them. It is given to one broadcaster, which is the only one to call it; broadcasters of different events need one each,
/// with subjects of their own.
///
/// `testkit::backplane` has the tests that every implementation must pass.
///
/// # Cancel safety
///
/// Every future may be dropped. What it was to do may then be done, in part or not at all, and can be asked for again.
#[async_trait]
pub trait Backplane: Send + Sync + 'static {
    /// What becomes of messages when nodes or the engine fail.
    fn level(&self) -> Level;

    /// Where the engine's log was when this was made, or after the last [`Event::Reset`]. `None` at
    /// [`Level::AtMostOnce`].
    fn head(&self) -> Option<Head>;

    /// The longest body of a message, in bytes.
    fn max_body(&self) -> usize;

    /// Publishes messages in this order, to every node that is interested, and returns when the engine has accepted all
    /// of them: at [`Level::Replayable`] the largest of their positions.
    ///
    /// At [`Level::Replayable`] no two of them are for the same user.
    ///
    /// # Errors
    ///
    /// When it is not known whether the engine has accepted all. It may have accepted some. At [`Level::Replayable`] the
    /// caller publishes the same messages again, and those that the engine has already are not appended a second time.
    async fn publish(&self, messages: &[Message]) -> Result<Option<Position>, BackplaneError>;

    /// Adds users to those whose messages this node gets, and takes users out. Returns when that is noted; it is done, and
    /// done again after each reconnect, in the background. Each user that was added is answered by [`Event::Ready`], also
    /// one that was in already. Taking out one that is not in changes nothing.
    ///
    /// # Errors
    ///
    /// When it was [closed](Self::close).
    async fn set_interest(&self, add: &[UserId], remove: &[UserId]) -> Result<(), BackplaneError>;

    /// What happens, in one order. Called once, before anything else.
    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>>;

    /// At [`Level::Replayable`]: a user's messages behind a position, the oldest first, at most so many.
    ///
    /// # Errors
    ///
    /// When the engine cannot be asked.
    async fn fetch(
        &self,
        user: &UserId,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError>;

    /// At [`Level::Replayable`]: where the log is now.
    ///
    /// # Errors
    ///
    /// When the engine cannot be asked.
    async fn ask_head(&self) -> Result<Head, BackplaneError>;

    /// Ends it: [`events`](Self::events) end, and every call fails from now on. Returns at the deadline at the latest.
    async fn close(&self, deadline: Instant);
}

/// What becomes of messages when nodes or the engine fail.
///
/// Neither is "exactly once": that would take the clients as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// A message reaches the nodes that are there, or is lost, and what may have been lost is told: every stream of a node
    /// that was cut off gets a [`Gap`](crate::Gap) of the reason `backplane`, and so does every stream of a user for whom a
    /// node could not publish.
    AtMostOnce,
    /// The engine keeps a log of each user's messages, bounded in age and number. A node that finds a hole reads it from
    /// there before it goes on, and a client may resume on any node with the id that it got from another. A gap is what the
    /// engine no longer has.
    Replayable,
}

/// A message's place in an engine's log. Of two messages to the same user, the later has the larger one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Where an engine's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// Which log it is. One that was emptied or made anew has another epoch, and positions in one are none in another.
    pub epoch: u64,
    /// A position that no message behind it had when the engine was asked.
    pub position: Position,
}

/// Something to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose it is.
    pub user: UserId,
    /// Its own: what an engine knows a message by that is published again.
    pub id: u128,
    /// What it says. An engine does not look at it.
    pub body: Bytes,
}

/// Something that was published, as a node receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Whose it is.
    pub user: UserId,
    /// What it says, which may be anything: others may write to the engine as well.
    pub body: Bytes,
    /// Its place, at [`Level::Replayable`].
    pub place: Option<Place>,
}

/// A message's place in an engine's log, and which one of the same user is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its own position.
    pub position: Position,
    /// That of the user's message before it; zero if there is none.
    pub previous: Position,
}

/// What happens on a backplane.
///
/// All of it comes in one stream, so that what is lost is told where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message arrived. So does what this node has published itself, if it is interested.
    Message(Received),
    /// Messages that are published to these users from now on arrive.
    Ready(Vec<UserId>),
    /// Something arrived that cannot be a message: on a foreign subject, or without what the engine has to say of it.
    Foreign,
    /// The engine cannot be reached.
    Interrupted,
    /// The engine can be reached again, and messages arrive for everybody who is [ready](Self::Ready).
    Restored {
        /// Whether messages may have been lost meanwhile, or because this node was too slow.
        maybe_lost: bool,
    },
    /// The engine's log is another one. What was in the old one is lost.
    Reset(Head),
}

/// What an engine's log has of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The messages, the oldest first.
    pub messages: Vec<(Position, Bytes)>,
    /// Every message of the user up to here is among these, or is before the position asked for, or is missing.
    pub through: Position,
    /// Whether there is more behind `through`.
    pub has_more: bool,
    /// Whether something is missing before the first of them.
    pub missing: Missing,
}

/// Whether a log lacks messages that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Missing {
    /// It has all of them.
    Nothing,
    /// It has dropped so many.
    Messages(u64),
    /// It may have dropped some.
    Unknown,
}

/// An engine did not do what was asked of it.
#[derive(Debug)]
pub struct BackplaneError(Reason);

#[derive(Debug)]
enum Reason {
    Unavailable,
    Closed,
    Other(Box<dyn Error + Send + Sync>),
}

impl BackplaneError {
    /// The engine cannot be reached, and nothing of what was to be published was handed to it.
    #[must_use]
    pub fn unavailable() -> Self {
        Self(Reason::Unavailable)
    }

    /// The backplane was closed.
    #[must_use]
    pub fn closed() -> Self {
        Self(Reason::Closed)
    }

    /// Wraps an error of the engine's client.
    pub fn other(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Reason::Other(source.into()))
    }

    /// Whether nothing was handed to the engine, because it cannot be reached.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self.0, Reason::Unavailable)
    }

    /// Whether it makes no sense to try again.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.0, Reason::Closed)
    }
}

impl fmt::Display for BackplaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Reason::Unavailable => "the backplane's engine cannot be reached",
            Reason::Closed => "the backplane is closed",
            Reason::Other(_) => "the backplane's engine failed",
        })
    }
}

impl Error for BackplaneError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Reason::Other(error) => Some(error.as_ref()),
            Reason::Unavailable | Reason::Closed => None,
        }
    }
}

/// Shared, for those who keep a handle on what a broadcaster has.
#[async_trait]
impl<B: Backplane + ?Sized> Backplane for std::sync::Arc<B> {
    fn level(&self) -> Level {
        (**self).level()
    }

    fn head(&self) -> Option<Head> {
        (**self).head()
    }

    fn max_body(&self) -> usize {
        (**self).max_body()
    }

    async fn publish(&self, messages: &[Message]) -> Result<Option<Position>, BackplaneError> {
        (**self).publish(messages).await
    }

    async fn set_interest(&self, add: &[UserId], remove: &[UserId]) -> Result<(), BackplaneError> {
        (**self).set_interest(add, remove).await
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        (**self).events()
    }

    async fn fetch(
        &self,
        user: &UserId,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError> {
        (**self).fetch(user, after, limit).await
    }

    async fn ask_head(&self) -> Result<Head, BackplaneError> {
        (**self).ask_head().await
    }

    async fn close(&self, deadline: Instant) {
        (**self).close(deadline).await;
    }
}
