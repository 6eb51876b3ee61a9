//! What can be broadcast: the trait [`ToSse`], and ready-made events of JSON and of text.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::ser::Formatter;

use crate::error::EncodeError;
use crate::id::EventId;
use crate::trace::TraceParent;

/// An event that can be sent as a server-sent event.
///
/// An implementation returns the fields, and this crate writes them. Each method is called at most once for a broadcast,
/// never per stream, and outside every lock; none is called where nobody is there and there is no history and no
/// [backplane](crate::Builder::backplane). An implementation that fails or panics harms only the
/// broadcast it was called for.
///
/// ```
/// use serde::Serialize;
/// use tidings::{Data, EncodeError, ToSse};
///
/// #[derive(Serialize)]
/// struct Message {
///     from: String,
///     text: String,
/// }
///
/// impl ToSse for Message {
///     fn event(&self) -> Option<&str> {
///         Some("message-posted")
///     }
///
///     fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
///         data.json(self)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how it is sent as a server-sent event",
    label = "`ToSse` is not implemented",
    note = "wrap it: `tidings::Text` sends text, `tidings::JsonEvent` whatever serde serializes (`Hub<Text>`, not `Hub<String>`)"
)]
pub trait ToSse {
    /// The event's name; without one, browsers dispatch it as `message`. Must be one line and not empty.
    fn event(&self) -> Option<&str> {
        None
    }

    /// The event's id, which a client sends back as `Last-Event-ID`. A [history](crate::History) assigns ids of its own; this
    /// one is not sent then.
    fn id(&self) -> Option<EventId> {
        None
    }

    /// How long a client waits before it reconnects; sent in whole milliseconds, at most 2³¹ − 1 (25 days). Browsers take
    /// more for one millisecond.
    fn retry(&self) -> Option<Duration> {
        None
    }

    /// A comment that goes in front of the event; clients ignore it. Must be one line.
    fn comment(&self) -> Option<&str> {
        None
    }

    /// What belongs to the event and is not sent to clients. Called after [`data`](Self::data).
    fn meta(&self) -> Meta<'_> {
        Meta::default()
    }

    /// Writes the event's data. CR, LF and CRLF in it are line breaks, which reach the client as LF.
    ///
    /// # Errors
    ///
    /// When the data cannot be written; the broadcast then fails and nothing is sent.
    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError>;
}

impl<E: ToSse + ?Sized> ToSse for &E {
    fn event(&self) -> Option<&str> {
        (**self).event()
    }

    fn id(&self) -> Option<EventId> {
        (**self).id()
    }

    fn retry(&self) -> Option<Duration> {
        (**self).retry()
    }

    fn comment(&self) -> Option<&str> {
        (**self).comment()
    }

    fn meta(&self) -> Meta<'_> {
        (**self).meta()
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        (**self).data(data)
    }
}

/// Data that belongs to an event but is not sent to clients; see [`ToSse::meta`].
///
/// ```
/// use std::sync::Arc;
/// use tidings::{Data, EncodeError, Frame, Meta, ToSse};
///
/// struct Price {
///     symbol: String,
///     cents: u64,
/// }
///
/// impl ToSse for Price {
///     fn meta(&self) -> Meta<'_> {
///         let mut meta = Meta::default();
///         // A slow client needs only the newest price of each symbol.
///         meta.key = Some(&self.symbol);
///         // A view can filter by the price without parsing it.
///         meta.attachment = Some(Arc::new(self.cents));
///         meta
///     }
///
///     fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
///         data.json(&(&self.symbol, self.cents))
///     }
/// }
///
/// let frame = Frame::encode(&Price { symbol: "EX".into(), cents: 100 })?;
/// assert_eq!(frame.as_bytes(), b"data: [\"EX\",100]\n\n");
/// assert_eq!(frame.attachment::<u64>(), Some(&100));
/// # Ok::<(), EncodeError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Meta<'a> {
    /// The subject of the event, for streams that [coalesce](crate::LagPolicy::Coalesce): of events with the same key, the
    /// newest stands for all.
    pub key: Option<&'a str>,
    /// A value for views and other readers of the frame: see [`Frame::attachment`](crate::Frame::attachment).
    ///
    /// It is dropped with the last copy of the event, in the call that drops that copy: a broadcast that overwrites it, a
    /// sweep, a stream that leaves. No lock is held then, so its `drop` may use the broadcaster. A panic in its `drop`
    /// is caught there: it fails no call and ends no task.
    pub attachment: Option<Attachment>,
    /// Data for other nodes, from which they restore the attachment: see [`Builder::attachments`](crate::Builder::attachments).
    pub relay_data: Option<Cow<'a, str>>,
    /// The trace in which the event was published: see [`TraceParent`].
    pub trace_parent: Option<TraceParent>,
}

/// A value of any type that belongs to an event; see [`Meta::attachment`].
pub type Attachment = Arc<dyn Any + Send + Sync>;

/// The buffer to which an event writes its data, and which is then sent.
///
/// What is written in several calls is joined.
#[derive(Debug)]
pub struct Data<'a> {
    buffer: &'a mut Vec<u8>,
}

impl<'a> Data<'a> {
    pub(crate) fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self { buffer }
    }

    /// Writes `value` as JSON on one line, in one pass.
    ///
    /// U+0085, U+2028 and U+2029 are written as `\u` escapes: they are no line breaks to SSE, but some clients (Python's
    /// `splitlines`, for one) take them for such.
    ///
    /// # Errors
    ///
    /// When `value` cannot be serialised.
    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let mut serializer =
            serde_json::Serializer::with_formatter(&mut *self.buffer, EscapeLineSeparators);
        Ok(value.serialize(&mut serializer)?)
    }

    /// Writes text as it is.
    pub fn text(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }

    /// Writes bytes that are already encoded, for example JSON from elsewhere.
    ///
    /// # Errors
    ///
    /// When they are not UTF-8, which is all that an event stream can carry.
    pub fn utf8(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.text(std::str::from_utf8(bytes)?);
        Ok(())
    }
}

impl fmt::Write for Data<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

/// Compact JSON in which U+0085, U+2028 and U+2029 are escaped.
struct EscapeLineSeparators;

impl EscapeLineSeparators {
    fn write<W: io::Write + ?Sized>(writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        // All three begin with one of two bytes, so most fragments are passed on after one fast scan.
        while let Some(candidate) = memchr::memchr2(0xC2, 0xE2, rest.as_bytes()) {
            let Some(at) = rest[candidate..].find(['\u{85}', '\u{2028}', '\u{2029}']) else {
                break;
            };
            let at = candidate + at;
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let (escape, len) = match from.as_bytes() {
                [0xC2, ..] => (r"\u0085", 2),
                [_, _, 0xA8, ..] => (r"\u2028", 3),
                _ => (r"\u2029", 3),
            };
            writer.write_all(escape.as_bytes())?;
            rest = &from[len..];
        }
        writer.write_all(rest.as_bytes())
    }
}

impl Formatter for EscapeLineSeparators {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        Self::write(writer, fragment)
    }

    // A `RawValue`: JSON that somebody else wrote. The three can only stand inside its strings.
    fn write_raw_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        Self::write(writer, fragment)
    }
}

/// What the ready-made events have besides their data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fields {
    event: Option<String>,
    id: Option<EventId>,
    retry: Option<Duration>,
    key: Option<String>,
    trace_parent: Option<TraceParent>,
}

/// Implements the builder methods and `ToSse` for an event that consists of `fields` and a body.
macro_rules! ready_made {
    ($name:ident<$body:ident: $($bound:path)|+>, $write:expr) => {
        impl<$body> $name<$body> {
            /// Sets the event's name.
            #[must_use]
            pub fn event(mut self, name: impl Into<String>) -> Self {
                self.fields.event = Some(name.into());
                self
            }

            /// Sets the event's id.
            #[must_use]
            pub fn id(mut self, id: impl Into<EventId>) -> Self {
                self.fields.id = Some(id.into());
                self
            }

            /// Sets how long a client waits before it reconnects, in whole milliseconds.
            #[must_use]
            pub fn retry(mut self, after: Duration) -> Self {
                self.fields.retry = Some(after);
                self
            }

            /// Sets the [key](Meta::key) of the event, for streams that [coalesce](crate::LagPolicy::Coalesce). It is not sent.
            #[must_use]
            pub fn key(mut self, key: impl Into<String>) -> Self {
                self.fields.key = Some(key.into());
                self
            }

            /// Sets the trace that the event is published in. It is not sent.
            #[must_use]
            pub fn trace_parent(mut self, parent: TraceParent) -> Self {
                self.fields.trace_parent = Some(parent);
                self
            }
        }

        impl<$body> From<$body> for $name<$body> {
            fn from(body: $body) -> Self {
                Self { body, fields: Fields::default() }
            }
        }

        impl<$body: $($bound +)+> ToSse for $name<$body> {
            fn event(&self) -> Option<&str> {
                self.fields.event.as_deref()
            }

            fn id(&self) -> Option<EventId> {
                self.fields.id.clone()
            }

            fn retry(&self) -> Option<Duration> {
                self.fields.retry
            }

            fn meta(&self) -> Meta<'_> {
                Meta {
                    key: self.fields.key.as_deref(),
                    trace_parent: self.fields.trace_parent,
                    ..Meta::default()
                }
            }

            fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
                let write: fn(&mut Data<'_>, &$body) -> Result<(), EncodeError> = $write;
                write(data, &self.body)
            }
        }
    };
}

/// An event whose data is a value as JSON.
///
/// A handler can take an axum `Json<T>` and broadcast a `JsonEvent<T>`.
///
/// ```
/// use tidings::{Frame, JsonEvent};
///
/// let event = JsonEvent::new([1, 2]).event("numbers");
/// assert_eq!(Frame::encode(&event)?.as_bytes(), b"event: numbers\ndata: [1,2]\n\n");
/// # Ok::<(), tidings::EncodeError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonEvent<T> {
    body: T,
    fields: Fields,
}

impl<T> JsonEvent<T> {
    /// An event with this value for data and no other field.
    pub fn new(body: T) -> Self {
        Self::from(body)
    }
}

ready_made!(JsonEvent<T: Serialize>, |data, body| data.json(body));

/// An event whose data is text, of any number of lines.
///
/// ```
/// use tidings::{Frame, Text};
///
/// let event = Text::new("two\r\nlines");
/// assert_eq!(Frame::encode(&event)?.as_bytes(), b"data: two\ndata: lines\n\n");
/// # Ok::<(), tidings::EncodeError>(())
/// ```
///
/// `Text` alone is `Text<String>`. Text that is shared or borrowed is an event without a copy: `Text::from(text)` is a
/// `Text<Arc<str>>` or a `Text<&str>`, for a broadcaster of that type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text<T = String> {
    body: T,
    fields: Fields,
}

impl Text {
    /// An event with this text for data and no other field. Takes a `&str` or a `String`, or whatever else becomes one.
    ///
    /// ```
    /// use tidings::{Hub, Text};
    ///
    /// let hub: Hub<Text> = Hub::new();
    /// hub.broadcast("ann", &Text::new("hello"))?;
    /// hub.broadcast("ann", &Text::new(format!("{} new messages", 3)))?;
    /// # Ok::<(), tidings::BroadcastError>(())
    /// ```
    pub fn new(text: impl Into<String>) -> Self {
        Self::from(text.into())
    }
}

ready_made!(Text<T: AsRef<str>>, |data, body| {
    data.text(body.as_ref());
    Ok(())
});
