//! What an engine between nodes must do.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use tokio::time::Instant;

use super::{Fetched, Head};
use crate::id::UserId;
use crate::position::{Place, Position};

/// Carries events between the nodes of a service: an engine such as NATS, seen from one node.
///
/// For [`Builder::backplane`](crate::Builder::backplane). An implementation moves messages and does not interpret them. It
/// belongs to one broadcaster, which is the only caller; broadcasters of different events need one each, with subjects of
/// their own. The crate `tidings-testkit` has the tests that every implementation must pass.
///
/// # The log
///
/// At [`Level::Replayable`] the engine keeps a log of each user's messages, and the order of the log is the order in which
/// every node sends them to streams. What a broadcaster relies on:
///
/// 1. A message has a [`Position`] in the log. Of two messages to the same user, the later one has the larger offset.
///    Offsets of different users need not be comparable: an engine may count per user, per shard or per log.
/// 2. A log has one epoch, the same on all nodes. A log that was emptied, replaced, or restored from an older copy is
///    another log with another epoch, even if the engine calls it by the same name: an offset must never be used twice in
///    an epoch. An adapter that finds a log shorter than it was, or with another message at a place, changes the epoch. It
///    first makes sure that the log is what changed: a copy that is behind is shorter as well, and a new epoch would
///    send its events a second time.
/// 3. Answers come from a copy of the log that has every accepted message, or they say how far they go. A
///    [fetch](Self::fetch) without the newest messages is an unfinished answer, which the broadcaster asks for again;
///    it never means that there are none. While an adapter does not know whether the log is another one, fetches and
///    heads are errors, and messages that arrive keep the epoch: those at known places are dropped as duplicates. If it turns
///    out to be another log, [`Event::Reset`] tells every stream, so nothing of that is lost in silence.
/// 4. A message that was accepted stays in the log until the log drops it for its age or for a newer one.
///
/// Messages may fail to arrive although the log has them. The broadcaster compares its place in the log of each user with
/// [`heads`](Self::heads) about once a minute, and fetches what is missing. It compares immediately after [`Event::Ready`],
/// [`Event::Unheard`], [`Event::Restored`] and [`Event::Changed`], and when a stream begins to whose channel nothing was
/// appended yet.
///
/// # Time
///
/// A call that has not returned within [`CALL_LIMIT`] counts as failed and is dropped. It is made again, after a pause of up
/// to half a second; [`publish`](Self::publish) at [`Level::AtMostOnce`] is not, and its messages count as lost. A
/// [fetch](Self::fetch) that needs longer returns what it has by then. [`close`](Self::close) has its deadline.
///
/// [`level`](Self::level), [`horizon`](Self::horizon), [`max_body`](Self::max_body) and
/// [`duplicate_window`](Self::duplicate_window) are called often, by callers of the broadcaster too and under locks: they
/// answer from memory and do not panic.
///
/// # Cancel safety
///
/// Every future may be dropped. Its work may then be done, in part or not at all, and can be requested again.
#[async_trait]
pub trait Backplane: Send + Sync + 'static {
    /// What is guaranteed when nodes or the engine fail.
    fn level(&self) -> Level;

    /// At [`Level::Replayable`], a place in the current log: every message published from now on, to any user, has a
    /// larger offset. `None` at [`Level::AtMostOnce`].
    ///
    /// Answered from memory, so it may be behind the log. It is where a stream begins that is registered without waiting:
    /// by as much as it is behind, such a stream may begin with older events. Keep it within about a second. An engine
    /// that counts offsets per user answers with offset 0, and such streams begin with everything the log has of the user.
    fn horizon(&self) -> Option<Position>;

    /// The longest body of a message, in bytes. Read again after each [`Event::Restored`].
    fn max_body(&self) -> usize;

    /// At [`Level::Replayable`], for how long the engine recognizes a message that is published a second time. A message
    /// whose outcome is [unknown](Published::Unknown) is published again within this time only. Default two minutes.
    fn duplicate_window(&self) -> Duration {
        Duration::from_secs(120)
    }

    /// Publishes messages in this order to every node that is interested, and returns the outcome of each, in the same
    /// order. One that fails does not affect the others.
    ///
    /// At [`Level::Replayable`] no two of them are for the same user.
    ///
    /// # Errors
    ///
    /// When none of them was handed to the engine ([`BackplaneError::unavailable`]), when the backplane is
    /// [closed](BackplaneError::closed), or when no outcome is known. At [`Level::Replayable`] the caller then publishes
    /// the same messages again, and the engine does not append those a second time that it has.
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, BackplaneError>;

    /// Adds users whose messages this node receives, and removes users. Returns when that is noted; it is carried out, and
    /// carried out again after each reconnect, in the background. Each added user is answered by [`Event::Ready`] or
    /// [`Event::Unheard`], also one that was added before. Removing a user that was not added changes nothing.
    ///
    /// # Errors
    ///
    /// When the backplane is [closed](Self::close), or when nothing of it is noted: the caller then asks again, for the same
    /// and for what has changed meanwhile. A user whose messages cannot arrive is no error, which would hold up all others:
    /// the answer is [`Event::Unheard`].
    async fn set_interest(&self, add: &[UserId], remove: &[UserId]) -> Result<(), BackplaneError>;

    /// What happens, in one order. Called once, before anything else.
    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>>;

    /// At [`Level::Replayable`]: a user's messages after a place, oldest first, at most `limit`, without holes. They may be
    /// fewer, for instance because they are large: [`Fetched::through`] says up to where, and the rest is asked for next. What
    /// one call returns is in memory together, for 64 calls at a time.
    ///
    /// If the log has another epoch than `after`, the answer has no messages, and [`Fetched::head`] is in the new epoch.
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

    /// At [`Level::Replayable`]: where the log of each of these users ends, in the order of `users`. At most
    /// [`MAX_HEADS`](super::MAX_HEADS) users are asked for at a time.
    ///
    /// # Errors
    ///
    /// When the engine cannot be asked.
    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, BackplaneError>;

    /// Ends [`events`](Self::events); every later call fails. Returns at the deadline at the latest: it is polled then for
    /// the last time, and dropped.
    async fn close(&self, deadline: Instant);
}

/// How long a call to a [`Backplane`] may take.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What becomes of messages when nodes or the engine fail.
///
/// Neither is "exactly once": that would take the clients as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// A message reaches the nodes that are connected, or is lost, and each possible loss is reported: every stream of
    /// a node that was cut off gets a [`Gap`](crate::Gap) of the reason `backplane`, and so does every stream of a user
    /// for whom a node could not publish.
    AtMostOnce,
    /// The engine keeps a log of each user's messages, bounded in age and number. A node that misses messages reads
    /// them from there before it goes on, and a client may resume on any node with the id that it got from another. A
    /// gap reports messages that the engine no longer has.
    Replayable,
}

/// Something to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose it is.
    pub user: UserId,
    /// Its unique id, by which an engine recognises a message that is published again.
    pub id: u128,
    /// The payload, which an engine does not look at.
    pub body: Bytes,
}

/// What the engine did with a message.
#[derive(Debug)]
#[non_exhaustive]
pub enum Published {
    /// The engine has it: at this place, at [`Level::Replayable`]. At [`Level::AtMostOnce`] this may still be
    /// [taken back](Event::Lost).
    Accepted(Option<Position>),
    /// The engine does not have it.
    Refused {
        /// Whether the same message would be refused again: it is too large, or not permitted. The event is then lost, and
        /// its user's streams get a gap. Otherwise it is published again, before the user's next message.
        permanent: bool,
        /// Why.
        reason: BackplaneError,
    },
    /// The engine may have it: the acknowledgement did not arrive.
    Unknown(BackplaneError),
}

/// Something that was published, as a node receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Whose it is.
    pub user: UserId,
    /// The payload. It may be anything: others may write to the engine as well.
    pub body: Bytes,
    /// Its place, at [`Level::Replayable`].
    pub place: Option<Place>,
}

/// What happens on a backplane.
///
/// All of it comes in one stream, so that a loss is reported where it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message arrived. This includes messages of this node, if it is interested.
    Message(Received),
    /// Messages published to these users from now on arrive. Sent when a message that was published to the user's own
    /// subject, or a proof as strong, has arrived: being allowed to ask is not enough.
    Ready(Vec<UserId>),
    /// Messages of these users do not arrive, or of all users if the list is empty, although the engine can be reached. The
    /// adapter tries again; [`Ready`](Self::Ready) says when they arrive.
    Unheard {
        /// Whose.
        users: Vec<UserId>,
        /// Why.
        cause: Cause,
        /// What the engine said, for the log.
        detail: String,
    },
    /// Messages of this node to these users reached no other node, although they were [accepted](Published::Accepted). For
    /// engines that confirm nothing at [`Level::AtMostOnce`] and may report late what they refuse. Streams of the users on
    /// other nodes get a gap.
    Lost {
        /// The users, each once.
        users: Vec<UserId>,
        /// What the engine said, for the log.
        detail: String,
    },
    /// The log may have messages of these users that do not arrive by themselves. For engines that announce a message
    /// without carrying it.
    Behind(Vec<UserId>),
    /// Something arrived that cannot be a message: on a foreign subject, or without what the engine has to add.
    Foreign,
    /// The engine cannot be reached.
    Interrupted,
    /// The engine can be reached again, and messages arrive for all users that are [ready](Self::Ready).
    Restored {
        /// Whether messages may have been lost meanwhile.
        maybe_lost: bool,
    },
    /// Messages may have been lost although the engine could be reached all the time.
    Changed {
        /// Why.
        cause: Cause,
    },
    /// The log is another one from this place on, which [`horizon`](Backplane::horizon) is in before this is sent.
    /// Messages of the old log that did not arrive are lost.
    Reset(Position),
}

/// Why messages do not arrive, or may not have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// This node lacks the permission.
    Denied,
    /// The engine allows no more subscriptions, or no more of something else.
    Limit,
    /// This node read too slowly, and messages were dropped.
    Slow,
    /// Another server leads the log, or a server left or joined.
    Leader,
    /// A probe that should have arrived did not.
    Late,
    /// Something else.
    Other,
}

impl Cause {
    /// Its name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Limit => "limit",
            Self::Slow => "slow",
            Self::Leader => "leader",
            Self::Late => "late",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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

/// Shared, for callers that keep a handle on a broadcaster's backplane.
#[async_trait]
impl<B: Backplane + ?Sized> Backplane for std::sync::Arc<B> {
    fn level(&self) -> Level {
        (**self).level()
    }

    fn horizon(&self) -> Option<Position> {
        (**self).horizon()
    }

    fn max_body(&self) -> usize {
        (**self).max_body()
    }

    fn duplicate_window(&self) -> Duration {
        (**self).duplicate_window()
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, BackplaneError> {
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

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, BackplaneError> {
        (**self).heads(users).await
    }

    async fn close(&self, deadline: Instant) {
        (**self).close(deadline).await;
    }
}
