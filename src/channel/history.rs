//! The settings of what is kept for clients that come back.

use std::time::Duration;

/// How many of each user's events are kept, so that a client that reconnects continues where it was. For
/// [`Builder::history`](crate::Builder::history).
///
/// Each event then has an id, `<epoch>-<offset>`, which replaces an id that the event brings itself. A client that names the
/// last id it saw ([`resume`](crate::GenericBroadcaster::resume)) gets what came after it. Events that the history has
/// dropped are reported as a [`Gap`](crate::Gap), with their exact number. A stream that falls behind its ring reads from the
/// history too, so with a history a small ring is safe.
///
/// # Memory
///
/// A user costs at most [`events`](Self::new) frames and [`bytes`](Self::bytes) bytes, each frame counted with its bytes
/// and 192 more for its management. What is kept [under keys](crate::Builder::coalesce_keys) is within these bytes as well.
/// Users who are away cost that too, in all at most [`away_bytes`](Self::away_bytes), and for each of
/// [`away_users`](Self::away_users) a channel (0.7 KB).
///
/// # Time
///
/// [Sweeps](crate::GenericBroadcaster::sweep) remove events that are too old and the histories of users who have been away
/// for too long: let the builder [spawn them](crate::Builder::sweep_every) or call them. The bounds in numbers and bytes hold
/// at any time.
///
/// ```
/// use std::time::Duration;
/// use tidings::{GenericBroadcaster, History, Text};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
///     .history(History::new(500).linger(Duration::from_secs(300)))
///     .sweep_every(Duration::from_secs(1))
///     .build()
///     .expect("the settings are valid");
/// # drop(hub);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "settings do nothing until a builder gets them"]
pub struct History {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) age: Option<Duration>,
    pub(crate) linger: Duration,
    pub(crate) completed: Duration,
    pub(crate) away_users: usize,
    pub(crate) away_bytes: usize,
    pub(crate) unconnected: bool,
}

impl History {
    /// Keeps this many events of each user.
    pub fn new(events: usize) -> Self {
        Self {
            events,
            bytes: 1 << 20,
            age: None,
            linger: Duration::from_secs(60),
            completed: Duration::from_secs(60),
            away_users: 10_000,
            away_bytes: 256 << 20,
            unconnected: false,
        }
    }

    /// Sets how many bytes of each user's events are kept. Default 1 MiB. A larger event is sent, but not kept.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets how long an event is kept, under its key as well. Default `None`: until another bound removes it.
    pub fn age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.age = age.into();
        self
    }

    /// Sets how long a user's history is kept after the user's last connection has ended. Default 60 seconds. What is
    /// broadcast in that time is kept too. A client that reconnects later gets a gap without a number.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Sets how long the history of a [complete](crate::GenericBroadcaster::complete) channel is kept, counted from its
    /// completion, even if clients connect in that time. Default 60 seconds: how late a page may reload and still get
    /// the whole run. Ends at a [sweep](crate::Builder::sweep_every).
    pub fn linger_completed(mut self, linger: Duration) -> Self {
        self.completed = linger;
        self
    }

    /// Sets how many users who are away may have a history. Default 10,000. Each [`Hold`](crate::Hold) counts as one,
    /// whether or not the user is connected. At the limit, a hold is refused, and the history of a user who leaves is
    /// forgotten immediately.
    pub fn away_users(mut self, users: usize) -> Self {
        self.away_users = users;
        self
    }

    /// Sets how many bytes may be kept in total for users who are away. Default 256 MiB. When there is no room, a user
    /// who is away loses their own oldest events, never another user's.
    pub fn away_bytes(mut self, bytes: usize) -> Self {
        self.away_bytes = bytes;
        self
    }

    /// Also keeps events for users who have never had a connection, within the same bounds and for as long as after a
    /// disconnect, counted from the first such event. The first stream that the user opens without naming an id begins
    /// with them, also if the channel is [held](crate::Hold).
    ///
    /// Each broadcast to a user who is not connected is then encoded and kept: a caller that may choose the user also decides
    /// which users fill the room for users who are away.
    pub fn keep_for_unconnected(mut self) -> Self {
        self.unconnected = true;
        self
    }
}
