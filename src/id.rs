//! Who an event is for, which connection it travels on, and how a client names the last one it saw.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use crate::error::{EncodeError, Field};
use crate::position::Position;

/// Implements what an immutable, cheaply cloned string needs to be used as a key.
macro_rules! string_id {
    ($name:ident) => {
        impl $name {
            /// The id as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Implements the conversions of ids that may be any text.
macro_rules! any_text {
    ($name:ident) => {
        impl $name {
            /// Takes any text as an id; it is kept as it is, byte for byte.
            #[must_use]
            pub fn new(id: impl Into<Arc<str>>) -> Self {
                Self(id.into())
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.into())
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(id.into())
            }
        }

        impl From<&$name> for $name {
            fn from(id: &$name) -> Self {
                id.clone()
            }
        }
    };
}

/// The user whose streams an event goes to.
///
/// Any text, compared byte for byte: no trimming, no case folding, no Unicode normalisation. Cloning costs a reference
/// count. Take it from what your service has *authenticated* (a session, a verified token), never from a parameter that
/// the client chooses: whoever names a user here gets that user's events.
///
/// ```
/// use tidings::UserId;
///
/// assert_ne!(UserId::from("Ann"), UserId::from("ann"));
/// assert_eq!(UserId::from("ann").as_str(), "ann");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

string_id!(UserId);
any_text!(UserId);

/// One connection of one user: a browser tab, a phone, an agent.
///
/// Unique among the connections that the user has at one time. Give your own to find the connection again later, or let
/// [`generate`](Self::generate) make one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(Arc<str>);

string_id!(ConnectionId);
any_text!(ConnectionId);

impl ConnectionId {
    /// Makes a unique id: no other call in this process makes the same one, nor, but for a chance of one in 2⁶⁴, one in
    /// another.
    ///
    /// It is unique, not secret: whoever knows one can guess the next.
    #[must_use]
    pub fn generate() -> Self {
        static PROCESS: LazyLock<u64> =
            LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: the count orders nothing, it only never repeats.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // By hand: what `format!` does takes a fifth of a registration.
        let mut id = [b'-'; 16 + 1 + 16];
        write_hex(*PROCESS, &mut id[..16]);
        let end = 17 + (u64::BITS - number.leading_zeros()).div_ceil(4) as usize;
        write_hex(number, &mut id[17..end]);
        let id = std::str::from_utf8(&id[..end]).expect("digits and a hyphen are ASCII");
        Self(id.into())
    }
}

/// The last digits of the number, as many as there is room for.
fn write_hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// The value of an event's `id` field, which a client sends back as `Last-Event-ID` when it reconnects.
///
/// Not empty, at most [`MAX_LEN`](Self::MAX_LEN) bytes, without CR, LF and NUL. An empty `id` would make the client forget
/// its position; a long one would come back in a request header that servers refuse.
///
/// ```
/// use tidings::EventId;
///
/// assert_eq!(EventId::new("order-17")?.as_str(), "order-17");
/// assert!(EventId::new("two\nlines").is_err());
/// # Ok::<(), tidings::EncodeError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Arc<str>);

string_id!(EventId);

impl EventId {
    /// The longest id, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Checks and takes an id.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the id is empty, longer than [`MAX_LEN`](Self::MAX_LEN), or holds CR, LF or NUL.
    pub fn new(id: impl Into<Arc<str>>) -> Result<Self, EncodeError> {
        let id = id.into();
        if id.is_empty() {
            return Err(EncodeError::empty(Field::Id));
        }
        if id.len() > Self::MAX_LEN {
            return Err(EncodeError::too_long(Field::Id, id.len(), Self::MAX_LEN));
        }
        EncodeError::check_one_line(Field::Id, &id)?;
        Ok(Self(id))
    }
}

impl From<u64> for EventId {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<Position> for EventId {
    fn from(position: Position) -> Self {
        Self(position.to_string().into())
    }
}

/// The text of an id, in place: requests are many, and ids are short.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sent {
    len: u8,
    bytes: [u8; EventId::MAX_LEN],
}

impl Sent {
    /// Takes what can be an id.
    fn new(id: &str) -> Option<Self> {
        let len = u8::try_from(id.len()).ok()?;
        let mut bytes = [0; EventId::MAX_LEN];
        bytes.get_mut(..id.len())?.copy_from_slice(id.as_bytes());
        let is_one = !id.is_empty() && EncodeError::check_one_line(Field::Id, id).is_ok();
        is_one.then_some(Self { len, bytes })
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len.into()]).expect("it was copied from a `str`")
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl From<EventId> for LastEventId {
    fn from(id: EventId) -> Self {
        Self::new(&id)
    }
}

/// Ends an id whose client has been told that events are missing behind it. Nothing that needs an escape in a query.
const TOLD: char = '~';

impl EventId {
    /// For a client that has just been told that events are missing: behind this position or, without one, before whatever
    /// comes when it is back. A further gap there is part of the one that it knows of.
    pub(crate) fn after_gap(position: Option<Position>) -> Self {
        let position = position.map_or(String::new(), |position| position.to_string());
        Self(format!("{position}{TOLD}").into())
    }
}

/// The last event that a client saw, as the client names it when it reconnects: the header `Last-Event-ID`.
///
/// Whatever a client sends can be put in here; what is no id that was ever sent leads to a
/// [gap](crate::GapReason::Epoch), not to an error. With the feature `axum` it is an extractor.
///
/// ```
/// use tidings::LastEventId;
///
/// assert!(!LastEventId::new("8a2c4e6f01234567-17").is_none());
/// assert!(LastEventId::none().is_none());
/// // An id of the service's own, such as a number out of its database.
/// assert_eq!(LastEventId::new("17").as_str(), Some("17"));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastEventId {
    is_some: bool,
    /// As the client sent it, if it can be an id.
    text: Option<Sent>,
    wants_all: bool,
    is_told: bool,
    position: Option<Position>,
}

impl LastEventId {
    /// Reads an id. An empty one counts as none, as the standard has it.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let before = id.strip_suffix(TOLD).map(Self::plain);
        match before.filter(|before| before.is_none() || before.position.is_some()) {
            Some(before) => Self {
                is_told: true,
                text: before.text.and(Sent::new(id)),
                ..before
            },
            None => Self::plain(id),
        }
    }

    fn plain(id: &str) -> Self {
        // Longer ones are none of ours, and nobody shall make us look at them.
        Self {
            is_some: !id.is_empty(),
            text: Sent::new(id),
            wants_all: false,
            is_told: false,
            position: Some(id)
                .filter(|id| id.len() <= EventId::MAX_LEN)
                .and_then(Position::parse),
        }
    }

    /// The client has seen no event.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The same, but a client that has seen no event begins with the oldest event still kept, and not with live events:
    /// see [`resume_from_start`](crate::GenericBroadcaster::resume_from_start).
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, History, LastEventId, Text};
    ///
    /// let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder().history(History::new(100)).build()?;
    /// // Out of a request, for example.
    /// let last_event_id = LastEventId::none();
    /// let stream = hub.resume("run:123", &last_event_id.or_from_start())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn or_from_start(mut self) -> Self {
        self.wants_all = true;
        self
    }

    /// The client has seen an event, but it is not known which.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            is_some: true,
            ..Self::default()
        }
    }

    /// Whether the client has seen no event.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !self.is_some
    }

    /// The id as the client sent it, for a service whose events have [ids of their own](crate::ToSse::id). `None` if the client
    /// has seen no event, and if what it sent can be no id: more than [`EventId::MAX_LEN`] bytes, several that differ, no text.
    ///
    /// It comes from the client, so it may be anything.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.text.as_ref().map(Sent::as_str)
    }

    /// Whether a client that has seen no event begins with the oldest one.
    pub(crate) fn wants_all(&self) -> bool {
        self.wants_all
    }

    /// Whether the client has been told that events are missing behind it.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }
}
