//! How a broadcaster uses Redis.

use std::time::Duration;

use super::error::ConnectError;

/// How one broadcaster uses Redis: under which names, and which messages are kept.
///
/// All nodes of a service give the same, except for the [time-out](Self::timeout), which is each node's own.
///
/// ```
/// use std::time::Duration;
/// use tidings_redis::{Log, Settings};
///
/// let settings = Settings::new("chat").replayable(Log::new().max_age(Duration::from_secs(600)));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Settings {
    pub(super) scope: String,
    pub(super) log: Option<Log>,
    pub(super) timeout: Duration,
    pub(super) max_body: usize,
}

impl Settings {
    /// Settings with [`Level::AtMostOnce`](tidings::backplane::Level::AtMostOnce): messages reach the nodes that are
    /// connected.
    ///
    /// All keys and channels begin with the scope in braces, `{chat}:`. Each broadcaster needs one of its own, or a database
    /// of its own: the channels of a database other than 0 have its number in their names, `{chat}:1:`.
    pub fn new(scope: impl Into<String>) -> Self {
        Self {
            scope: scope.into(),
            log: None,
            timeout: Duration::from_secs(5),
            max_body: 1 << 20,
        }
    }

    /// Keeps messages in this log: [`Level::Replayable`](tidings::backplane::Level::Replayable).
    pub fn replayable(mut self, log: Log) -> Self {
        self.log = Some(log);
        self
    }

    /// Sets how long the server may take to answer. Default: 5 seconds. A server that takes longer counts as
    /// unreachable.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the longest body of a message, in bytes. Default: 1 MiB. Redis itself takes 512 MB, and serves no other
    /// client in that time.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConnectError> {
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || "{}*?[]\\".contains(c);
        if self.scope.is_empty() || self.scope.len() > 255 || self.scope.contains(is_odd) {
            return Err(ConnectError::Settings(
                "a scope is one word of at most 255 bytes, without braces and wildcards",
            ));
        }
        if self.timeout.is_zero() {
            return Err(ConnectError::Settings("a server needs time to answer"));
        }
        match &self.log {
            Some(log) if log.max_per_user == 0 => {
                Err(ConnectError::Settings("a log keeps a message of each user"))
            }
            Some(log) if log.max_age < SHORTEST || log.duplicate_window < SHORTEST => Err(
                ConnectError::Settings("a log keeps messages and their ids for a second or more"),
            ),
            _ => Ok(()),
        }
    }
}

const SHORTEST: Duration = Duration::from_secs(1);

/// What Redis keeps of each user's messages.
#[derive(Debug, Clone)]
#[must_use]
pub struct Log {
    pub(super) max_per_user: u32,
    pub(super) max_age: Duration,
    pub(super) duplicate_window: Duration,
    pub(super) is_durable: bool,
}

impl Log {
    /// A log that keeps 256 messages of each user for an hour.
    pub fn new() -> Self {
        Self {
            max_per_user: 256,
            max_age: Duration::from_secs(3600),
            duplicate_window: Duration::from_secs(120),
            is_durable: false,
        }
    }

    /// Sets how many messages of each user are kept. Default: 256.
    pub fn max_per_user(mut self, messages: u32) -> Self {
        self.max_per_user = messages;
        self
    }

    /// Sets how long a message is kept: at least this long, unless newer ones displace it, and at most a sixteenth
    /// longer if its user gets no other. Default: an hour.
    ///
    /// Do not choose less than two minutes. A stream whose user has had no message for longer than this can get a gap, `evicted`,
    /// although it has missed nothing.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age.min(LONGEST);
        self
    }

    /// Sets how long a message that is published again is recognised as the same. Default: two minutes. It costs a
    /// small key for each message.
    pub fn duplicate_window(mut self, window: Duration) -> Self {
        self.duplicate_window = window.min(LONGEST);
        self
    }

    /// States that the server never loses a message that it has accepted: `appendonly yes` with `appendfsync always`, and no replica
    /// is ever promoted. Then a restart of the server causes no gap.
    ///
    /// Without it, the log gets a new epoch and every stream a gap whenever the server is another process than before, since it may
    /// have loaded an older copy. With it, a server that loads an older copy after all, while no node is running that has seen
    /// more, uses offsets a second time, and clients that come back miss events without a gap.
    pub fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }
}

/// So that no time overflows.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}
