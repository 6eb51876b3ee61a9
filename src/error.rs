//! Every public error.

use std::error::Error;
use std::fmt;

/// A field of a server-sent event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// `event`, the name.
    Event,
    /// `id`.
    Id,
    /// A comment line.
    Comment,
    /// `data`.
    Data,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Event => "event",
            Field::Id => "id",
            Field::Comment => "comment",
            Field::Data => "data",
        })
    }
}

type Source = Box<dyn Error + Send + Sync>;

/// An error and what caused it, for a field of a line of the log.
///
/// As a string, which a log subscriber escapes. It writes an error's own text as it is, which may contain a client's bytes.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// An event could not be encoded as a server-sent event. Nothing of it was sent.
#[derive(Debug)]
pub struct EncodeError(Reason);

#[derive(Debug)]
enum Reason {
    Empty(Field),
    TooLong {
        field: Field,
        len: usize,
        max: usize,
    },
    Character {
        field: Field,
        character: char,
    },
    NotUtf8(std::str::Utf8Error),
    Json(serde_json::Error),
    Other(Source),
}

impl EncodeError {
    /// Wraps an error of your own, for [`ToSse::data`](crate::ToSse::data).
    pub fn other(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Reason::Other(source.into()))
    }

    /// The field that could not be written, if the error is about one.
    #[must_use]
    pub fn field(&self) -> Option<Field> {
        match self.0 {
            Reason::Empty(field)
            | Reason::TooLong { field, .. }
            | Reason::Character { field, .. } => Some(field),
            Reason::NotUtf8(_) | Reason::Json(_) => Some(Field::Data),
            Reason::Other(_) => None,
        }
    }

    pub(crate) fn empty(field: Field) -> Self {
        Self(Reason::Empty(field))
    }

    pub(crate) fn too_long(field: Field, len: usize, max: usize) -> Self {
        Self(Reason::TooLong { field, len, max })
    }

    /// Refuses what would end the line (CR, LF) or make clients drop it (NUL).
    pub(crate) fn check_one_line(field: Field, value: &str) -> Result<(), Self> {
        match memchr::memchr3(b'\r', b'\n', 0, value.as_bytes()) {
            None => Ok(()),
            Some(at) => Err(Self(Reason::Character {
                field,
                character: value.as_bytes()[at].into(),
            })),
        }
    }
}

impl From<serde_json::Error> for EncodeError {
    fn from(error: serde_json::Error) -> Self {
        Self(Reason::Json(error))
    }
}

impl From<std::str::Utf8Error> for EncodeError {
    fn from(error: std::str::Utf8Error) -> Self {
        Self(Reason::NotUtf8(error))
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reason::Empty(field) => write!(f, "the {field} field is empty"),
            Reason::TooLong { field, len, max } => {
                write!(f, "the {field} field has {len} bytes, more than {max}")
            }
            Reason::Character { field, character } => {
                write!(f, "the {field} field holds the character {character:?}")
            }
            Reason::NotUtf8(_) => f.write_str("the data is not UTF-8"),
            Reason::Json(_) => f.write_str("the event could not be serialised as JSON"),
            Reason::Other(_) => f.write_str("the event could not be encoded"),
        }
    }
}

impl Error for EncodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Reason::NotUtf8(error) => Some(error),
            Reason::Json(error) => Some(error),
            Reason::Other(error) => Some(error.as_ref()),
            Reason::Empty(_) | Reason::TooLong { .. } | Reason::Character { .. } => None,
        }
    }
}

/// The form of a refusal as a response: what [`RegisterError`] becomes when a handler returns it.
///
/// A browser's own `EventSource` gives up for good on any status but 200. So it does on 429 and 503, with or without
/// `Retry-After`, also when it was connected before: the page gets no events until it makes a new one. If you have such
/// clients, take [`ComeBack`](Self::ComeBack); all others learn more from a [`Status`](Self::Status).
///
/// Chosen for a broadcaster by [`Builder::when_full`](crate::Builder::when_full) and
/// [`Builder::when_shutting_down`](crate::Builder::when_shutting_down), for one response by
/// [`RegisterError::in_form`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalForm {
    /// A status: 429 for a full user, 503 for a full service or one that is shutting down, with `Retry-After`, five to
    /// ten seconds at random, and the error's sentence.
    Status,
    /// Status 200 and an event stream that holds a `retry:` and the event `refused`, and ends: an `EventSource` reconnects by
    /// itself, after one to eleven seconds. The event's data is `{"reason":"user_full","cap":10}`, with the
    /// [reason](RegisterError::reason) and the cap, which is `null` during a shutdown; a page shows what it likes:
    ///
    /// ```js
    /// source.addEventListener("refused", event => {
    ///   const {reason, cap} = JSON.parse(event.data);
    ///   if (reason === "user_full") status.textContent = `close one of your ${cap} other tabs`;
    /// });
    /// ```
    ///
    /// The event has no id, so what the client resumes by stays as it is.
    ComeBack,
}

/// A connection was refused. No other connection is affected: a full cap refuses the newcomer and never ends another
/// connection.
///
/// With the feature `axum` it is a response, in the form that it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The user has as many connections as one user may have.
    UserFull {
        /// The cap, see [`Builder::connections_per_user`](crate::Builder::connections_per_user).
        cap: usize,
        /// What it becomes as a response, see [`Builder::when_full`](crate::Builder::when_full).
        form: RefusalForm,
    },
    /// The broadcaster has as many connections as it may have.
    TotalFull {
        /// The cap, see [`Builder::total_connections`](crate::Builder::total_connections).
        cap: usize,
        /// What it becomes as a response, see [`Builder::when_full`](crate::Builder::when_full).
        form: RefusalForm,
    },
    /// The user already has a connection with this id. To replace it, see
    /// [`take_over`](crate::GenericBroadcaster::take_over).
    ConnectionIdInUse,
    /// The broadcaster is [shutting down](crate::GenericBroadcaster::shutdown) and accepts no more connections.
    ShuttingDown {
        /// What it becomes as a response, see [`Builder::when_shutting_down`](crate::Builder::when_shutting_down).
        form: RefusalForm,
    },
}

impl RegisterError {
    /// Returns the same refusal in another form. [`ConnectionIdInUse`](Self::ConnectionIdInUse) has only one form, a
    /// status.
    ///
    /// ```
    /// use tidings::{RefusalForm, RegisterError};
    ///
    /// let refused = RegisterError::ShuttingDown { form: RefusalForm::ComeBack };
    /// // For a client that is no browser: 503.
    /// let refused = refused.in_form(RefusalForm::Status);
    /// # assert_eq!(refused, RegisterError::ShuttingDown { form: RefusalForm::Status });
    /// ```
    #[must_use]
    pub fn in_form(mut self, new: RefusalForm) -> Self {
        match &mut self {
            Self::UserFull { form, .. }
            | Self::TotalFull { form, .. }
            | Self::ShuttingDown { form } => *form = new,
            Self::ConnectionIdInUse => {}
        }
        self
    }
}

impl RegisterError {
    /// Its name in the event `refused` and in metrics: `user_full`, `total_full`, `id_in_use` or `shutting_down`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UserFull { .. } => "user_full",
            Self::TotalFull { .. } => "total_full",
            Self::ConnectionIdInUse => "id_in_use",
            Self::ShuttingDown { .. } => "shutting_down",
        }
    }

    /// The cap that was reached, if any.
    #[must_use]
    pub fn cap(&self) -> Option<usize> {
        match self {
            Self::UserFull { cap, .. } | Self::TotalFull { cap, .. } => Some(*cap),
            Self::ConnectionIdInUse | Self::ShuttingDown { .. } => None,
        }
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserFull { cap, .. } => {
                write!(f, "the user has {cap} connections, which is the cap")
            }
            Self::TotalFull { cap, .. } => {
                write!(f, "the service has {cap} connections, which is the cap")
            }
            Self::ConnectionIdInUse => f.write_str("the user already has a connection of this id"),
            Self::ShuttingDown { .. } => f.write_str("the service is shutting down"),
        }
    }
}

impl Error for RegisterError {}

/// An event was not broadcast, or not to all streams.
///
/// With the feature `axum` it is a response, so a handler may return it:
///
/// | status | when |
/// |---|---|
/// | 422 | a field of the event holds what cannot be sent |
/// | 500 | the event could not be encoded for another reason |
/// | 409 | the user's channel is complete |
/// | 413 | the event is larger than the backplane takes |
/// | 502 | the engine refuses the event |
/// | 503 | the queue to the backplane is full, or the backplane closed |
/// | 504 | the engine has not confirmed the event |
///
/// The body is the error's sentence. The last four say that streams *here* may have got the event: a client that repeats its
/// request sends it to them again.
#[derive(Debug)]
#[non_exhaustive]
pub enum BroadcastError {
    /// The event could not be encoded. No stream got any part of it.
    Encode(EncodeError),
    /// Other nodes may not get it. At [`AtMostOnce`](crate::backplane::Level::AtMostOnce) the
    /// streams here have it, at [`Replayable`](crate::backplane::Level::Replayable) they may not.
    /// Streams that lack it get a gap as soon as the [backplane](crate::Builder::backplane) can
    /// send one.
    NotRelayed {
        /// How many streams here it was for.
        reached: usize,
        /// Why others may not get it.
        reason: RelayError,
    },
    /// The user's channel is [complete](crate::GenericBroadcaster::complete): no stream got it.
    Complete,
}

/// A history was not held, or a channel not completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldError {
    /// The broadcaster keeps no [history](crate::Builder::history).
    NoHistory,
    /// There is no room for another history without a connection.
    Full {
        /// The cap, see [`History::away_users`](crate::History::away_users).
        cap: usize,
    },
    /// The end of the channel does not go to other nodes.
    NotRelayed(RelayError),
}

impl fmt::Display for HoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHistory => f.write_str("the broadcaster keeps no history"),
            Self::Full { cap } => write!(
                f,
                "{cap} histories are kept without a connection, which is the cap"
            ),
            Self::NotRelayed(_) => f.write_str("the end of the channel does not go to other nodes"),
        }
    }
}

impl Error for HoldError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotRelayed(reason) => Some(reason),
            Self::NoHistory | Self::Full { .. } => None,
        }
    }
}

/// Why an event did not go to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayError {
    /// The [queue](crate::Builder::backplane_queue) of events to publish is full.
    QueueFull,
    /// It is larger than the backplane allows.
    TooLarge {
        /// Its bytes.
        len: usize,
        /// The most that the backplane takes.
        max: usize,
    },
    /// The engine refuses it, and would do so again.
    Refused,
    /// The engine has not accepted it, or has not confirmed it: other nodes may have got it.
    Unconfirmed,
    /// The backplane was closed, by a [shutdown](crate::GenericBroadcaster::shutdown).
    Closed,
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull => f.write_str("the queue to the backplane is full"),
            Self::TooLarge { len, max } => {
                write!(f, "the message has {len} bytes, more than {max}")
            }
            Self::Refused => f.write_str("the backplane refuses the message"),
            Self::Unconfirmed => f.write_str("the backplane has not confirmed the message"),
            Self::Closed => f.write_str("the backplane is closed"),
        }
    }
}

impl Error for RelayError {}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encode(error) => fmt::Display::fmt(error, f),
            Self::NotRelayed { reached, .. } => {
                write!(
                    f,
                    "the event is for {reached} streams here; other nodes may not get it"
                )
            }
            Self::Complete => f.write_str("the channel is complete and takes no event"),
        }
    }
}

impl Error for BroadcastError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Encode(error) => error.source(),
            Self::NotRelayed { reason, .. } => Some(reason),
            Self::Complete => None,
        }
    }
}

impl From<EncodeError> for BroadcastError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// A [`Builder`](crate::Builder) was given a value that cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The ring's capacity is zero or above [`Builder::MAX_RING_CAPACITY`](crate::Builder::MAX_RING_CAPACITY).
    RingCapacity {
        /// What was asked for.
        capacity: usize,
        /// The most that may be asked for.
        max: usize,
    },
    /// A cap of zero would refuse every connection.
    ZeroCap,
    /// A history that keeps nothing: leave it out instead.
    EmptyHistory,
    /// An interval of zero would leave time for nothing else.
    ZeroInterval,
    /// A publisher or a backplane queue without room for an event.
    EmptyQueue,
    /// Sweeps, reports, a publisher or a backplane need a tokio runtime, and there is none here.
    NoRuntime,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RingCapacity { capacity, max } => {
                write!(f, "a ring must hold 1 to {max} events, not {capacity}")
            }
            Self::ZeroCap => f.write_str("a cap of zero would refuse every connection"),
            Self::EmptyHistory => {
                f.write_str("a history must keep at least one event and one byte")
            }
            Self::ZeroInterval => f.write_str("an interval must be longer than zero"),
            Self::EmptyQueue => f.write_str("a queue must have room for at least one event"),
            Self::NoRuntime => f.write_str("there is no tokio runtime for the task"),
        }
    }
}

impl Error for ConfigError {}
