//! One event in the form it has on the wire: the only file that knows the grammar of
//! [WHATWG HTML, section 9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html).
//!
//! What holds for every frame:
//!
//! 1. It is one whole event: some lines, each `name: value` and LF, then an empty line. Never CR, never a BOM of its own.
//! 2. `event`, `id` and comments hold no CR, LF or NUL: the first two would begin another field, with the last a client
//!    drops the id. They are refused, not repaired.
//! 3. In data each CRLF, CR or LF ends a line, and each line has its own `data: `. All other characters, NUL among them,
//!    arrive as they are.
//! 4. There is one space after each colon, so that a value's own leading space survives the one that clients strip.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{EncodeError, Field};
use crate::event::{Data, ToSse};

const DATA: &[u8] = b"data: ";

/// A server-sent event as it is sent: encoded once, shared by every stream that it goes to.
///
/// Cloning costs a reference count.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    wire: Bytes,
}

impl Frame {
    /// Encodes an event.
    ///
    /// # Errors
    ///
    /// When a field cannot be put on the wire: a name that is empty, a name or comment that holds CR, LF or NUL, or
    /// whatever [`ToSse::data`] reports.
    pub fn encode<E: ToSse + ?Sized>(event: &E) -> Result<Self, EncodeError> {
        let mut wire = Vec::with_capacity(256);
        if let Some(comment) = event.comment() {
            EncodeError::check_one_line(Field::Comment, comment)?;
            push_field(&mut wire, b": ", comment);
        }
        if let Some(name) = event.event() {
            if name.is_empty() {
                return Err(EncodeError::empty(Field::Event));
            }
            EncodeError::check_one_line(Field::Event, name)?;
            push_field(&mut wire, b"event: ", name);
        }
        if let Some(id) = event.id() {
            push_field(&mut wire, b"id: ", &id);
        }
        if let Some(after) = event.retry() {
            // Clients keep it in 64 bits, and ignore what does not fit.
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            push_field(&mut wire, b"retry: ", &millis.to_string());
        }
        wire.extend_from_slice(DATA);
        let start = wire.len();
        event.data(&mut Data::new(&mut wire))?;
        split_lines(&mut wire, start);
        wire.extend_from_slice(b"\n\n");
        Ok(Self::from_wire(wire))
    }

    /// Tells the client that `missed` events were lost to lag.
    pub(crate) fn lagged(missed: u64) -> Self {
        Self::from_wire(
            format!("event: gap\ndata: {{\"reason\":\"lagged\",\"missed\":{missed}}}\n\n")
                .into_bytes(),
        )
    }

    /// Tells the client how long to wait before it reconnects, at the end of a stream. Without an empty line: clients obey
    /// the line as it comes, and some would take an empty line for an event.
    pub(crate) fn retry_line(after: Duration) -> Bytes {
        format!("retry: {}\n", after.as_millis()).into()
    }

    fn from_wire(mut wire: Vec<u8>) -> Self {
        // A frame stays in the ring until it is overwritten: keep what it needs, not what the buffer had grown to.
        wire.shrink_to_fit();
        let wire = Bytes::from(wire);
        // `Bytes` made of a vector allocates its count at the first clone. Let that be now, not at the first delivery.
        drop(wire.clone());
        Self { wire }
    }

    /// The frame's bytes, shared.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.wire.clone()
    }

    /// The frame's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.wire
    }

    /// The fields in the order they are sent, each line of the data on its own; a comment has an empty name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        // Every byte came out of a `str`, and the encoder cuts only at line breaks.
        let text = std::str::from_utf8(&self.wire).expect("a frame is made of strings");
        text.split('\n').filter_map(|line| line.split_once(": "))
    }

    /// The event's data, its lines joined by LF, as a client gets it.
    #[must_use]
    pub fn data(&self) -> String {
        let lines: Vec<&str> = self
            .fields()
            .filter(|(name, _)| *name == "data")
            .map(|(_, line)| line)
            .collect();
        lines.join("\n")
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The payload stays out of logs.
        f.debug_struct("Frame")
            .field("len", &self.wire.len())
            .finish_non_exhaustive()
    }
}

fn push_field(wire: &mut Vec<u8>, prefix: &[u8], value: &str) {
    wire.extend_from_slice(prefix);
    wire.extend_from_slice(value.as_bytes());
    wire.push(b'\n');
}

/// Gives each line of the data, which stands from `start` to the end, a `data: ` of its own (invariant 3).
///
/// Data on one line, as JSON is, costs one scan and is left where it is.
fn split_lines(wire: &mut Vec<u8>, start: usize) {
    let Some(first) = memchr::memchr2(b'\r', b'\n', &wire[start..]) else {
        return;
    };
    let rest = wire.split_off(start + first);
    let mut rest = &rest[..];
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        wire.extend_from_slice(&rest[..at]);
        wire.push(b'\n');
        wire.extend_from_slice(DATA);
        let line_break = if rest[at..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[at + line_break..];
    }
    wire.extend_from_slice(rest);
}
