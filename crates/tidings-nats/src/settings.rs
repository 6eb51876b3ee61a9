//! How a broadcaster uses NATS.

use std::time::Duration;

use super::error::ConnectError;

/// How one broadcaster uses NATS: under which subjects, and which messages are kept.
///
/// All nodes of a service give the same, except for the [interest](Self::interest) and the [time-out](Self::timeout), which
/// are each node's own.
///
/// ```
/// use std::time::Duration;
/// use tidings_nats::{Interest, Log, Settings};
///
/// let settings = Settings::new("chat")
///     .replayable(Log::new("CHAT").max_age(Duration::from_secs(600)))
///     .interest(Interest::Buckets);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Settings {
    pub(super) scope: String,
    pub(super) buckets: u32,
    pub(super) interest: Interest,
    pub(super) log: Option<Log>,
    pub(super) timeout: Duration,
    pub(super) wait: Duration,
}

/// What a node subscribes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interest {
    /// The subject of each of its users, which is the default: a node receives nothing that is not for it. Each user costs
    /// it about 5 KB, and the server about 0.8 KB.
    #[default]
    PerUser,
    /// The [buckets](Settings::buckets) that its users are in: never more subscriptions than there are buckets, and a
    /// user costs a node about 0.2 KB. It receives what is for others in these buckets as well, and drops it. For nodes
    /// with more users than about 50,000, or whose users constantly connect and disconnect.
    Buckets,
}

impl Settings {
    /// Settings with [`Level::AtMostOnce`](tidings::backplane::Level::AtMostOnce): messages reach the nodes that are
    /// connected.
    ///
    /// The scope is the beginning of all subjects: one or more words with dots between them, such as `chat` or
    /// `prod.chat`. Each broadcaster needs one of its own.
    pub fn new(scope: impl Into<String>) -> Self {
        Self {
            scope: scope.into(),
            buckets: 1024,
            interest: Interest::default(),
            log: None,
            timeout: Duration::from_secs(5),
            wait: Duration::ZERO,
        }
    }

    /// Keeps messages in this log: [`Level::Replayable`](tidings::backplane::Level::Replayable). The server needs
    /// JetStream.
    pub fn replayable(mut self, log: Log) -> Self {
        self.log = Some(log);
        self
    }

    /// Sets what this node subscribes to. Default: [`Interest::PerUser`].
    pub fn interest(mut self, interest: Interest) -> Self {
        self.interest = interest;
        self
    }

    /// Sets into how many buckets users are divided, by a hash of their ids. Default: 1024.
    ///
    /// It is part of every subject: nodes with different numbers do not hear each other, and a log that was made with another
    /// is [refused](ConnectError). With fewer, a node that subscribes to buckets receives more that is for others; with more,
    /// it has more subscriptions.
    pub fn buckets(mut self, buckets: u32) -> Self {
        self.buckets = buckets;
        self
    }

    /// Sets how long the server may take to answer. Default: 5 seconds. A broadcaster waits for no more than
    /// [`CALL_LIMIT`](tidings::backplane::CALL_LIMIT) for all that one call asks the server.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long a starting node waits for a server that it cannot reach, or for a log without a leader. Default:
    /// zero, so that this is an error immediately. With a wait, a wrong password is an error only when the time is
    /// over.
    pub fn wait_for_server(mut self, wait: Duration) -> Self {
        self.wait = wait.min(LONGEST_WAIT);
        self
    }

    pub(super) fn check(&self) -> Result<(), ConnectError> {
        let is_word = |word: &str| {
            let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
            !word.is_empty() && !word.contains(is_odd)
        };
        let is_scope = self.scope.split('.').all(is_word)
            && !self.scope.starts_with('$')
            && self.scope.len() <= MAX_SCOPE;
        if !is_scope {
            return Err(ConnectError::Settings(
                "a scope is one or more words with dots between them, at most 255 bytes",
            ));
        }
        if self.buckets == 0 {
            return Err(ConnectError::Settings("there must be a bucket"));
        }
        if self.timeout.is_zero() {
            return Err(ConnectError::Settings("a server needs time to answer"));
        }
        self.log.as_ref().map_or(Ok(()), Log::check)
    }
}

/// So that no time overflows.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The longest scope, in bytes: with it, no subject comes near what a server takes.
const MAX_SCOPE: usize = 255;

/// Where a broadcaster's messages are kept: a stream of JetStream. It is made if it is missing.
#[derive(Debug, Clone)]
#[must_use]
pub struct Log {
    pub(super) stream: String,
    pub(super) storage: Storage,
    pub(super) replicas: usize,
    pub(super) max_age: Duration,
    pub(super) max_per_user: u32,
    pub(super) duplicate_window: Duration,
    pub(super) domain: Option<String>,
}

/// Where the servers keep a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Storage {
    /// Files, the default: the log survives a restart of a server.
    #[default]
    File,
    /// Memory: a restart of the server ends the log, and nodes report a [reset](tidings::backplane::Event::Reset).
    /// In a cluster it needs [replicas](Log::replicas): a cluster gives a log that it lost the name and age of the old one,
    /// so that it cannot be told from it. Do not choose it for speed: with NATS 2.9 it is the slower the more users have
    /// something in it (17,500 messages a second with a thousand users, 8,600 with two thousand, where files take 16,000
    /// with 50,000; 100 publishers, a busy machine of two cores), and newer servers read it for one client at a time.
    Memory,
}

impl Log {
    /// A log in the stream of that name, which belongs to this broadcaster alone.
    pub fn new(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            storage: Storage::default(),
            replicas: 1,
            max_age: Duration::from_secs(3600),
            max_per_user: 256,
            duplicate_window: Duration::from_secs(120),
            domain: None,
        }
    }

    /// Sets the JetStream domain that has the stream, if servers have several. Default: that of the server.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets where it is kept. Default: [`Storage::File`].
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Sets how many servers of a cluster keep it. Default: 1. With 3, it survives the loss of one of them, and each
    /// message waits for two of them.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets how long a message is kept. Default: an hour. Choose the longest time after which a client may still
    /// resume.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Sets how many of a user's messages are kept. Default: 256.
    pub fn max_per_user(mut self, messages: u32) -> Self {
        self.max_per_user = messages;
        self
    }

    /// Sets how long a message that is published again is recognised as the same. Default: two minutes. It must be
    /// longer than a node tries to publish a message, and not longer than [`max_age`](Self::max_age). The server
    /// remembers the id of each message for so long. If the stream has a shorter one, a message is published again for
    /// that time only.
    pub fn duplicate_window(mut self, window: Duration) -> Self {
        self.duplicate_window = window;
        self
    }

    fn check(&self) -> Result<(), ConnectError> {
        let is_odd = |c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\')
        };
        if self.stream.is_empty() || self.stream.contains(is_odd) {
            return Err(ConnectError::Settings("a stream's name is one word"));
        }
        if self.max_per_user == 0 || self.replicas == 0 {
            return Err(ConnectError::Settings("a log keeps something"));
        }
        if self.max_age.is_zero() || self.duplicate_window.is_zero() {
            return Err(ConnectError::Settings("a log keeps it for a time"));
        }
        if self.duplicate_window > self.max_age {
            return Err(ConnectError::Settings(
                "a log cannot know messages for longer than it keeps them",
            ));
        }
        Ok(())
    }
}
