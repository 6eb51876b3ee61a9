//! A frame that lacks its id.

use std::cell::Cell;
use std::mem;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::encoded::{
    Aside, Attached, DATA, END, FRAME_OVERHEAD, Frame, MAX_RETRY_MILLIS, retry_millis,
};
use super::id_slot::{SLOT, put_id};
use crate::error::{EncodeError, Field};
use crate::event::{Attachment, Data, Meta, ToSse};
use crate::metrics::Sample;
use crate::position::Position;
use crate::trace::TraceParent;

/// A frame with a slot for its id. Everything slow is done: writing the id is quick enough to be done under a lock.
pub(crate) struct Draft {
    wire: Vec<u8>,
    data_len: usize,
    attachment: Attached,
    has_slot: bool,
    aside: Option<Arc<Aside>>,
}

/// The largest buffer that a thread keeps.
const SCRATCH_LEN: usize = 16 * 1024;

thread_local! {
    /// The buffer that events are encoded into before their length is known. An event that broadcasts while it is encoded
    /// finds it empty.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Draft {
    /// Encodes an event, with a slot for an id if `has_slot`. Otherwise the event's own id is written.
    ///
    /// The attachment and the trace go into the draft; the rest of the event's [`Meta`] is returned.
    #[inline]
    pub(crate) fn encode<E: ToSse + ?Sized>(
        event: &E,
        has_slot: bool,
    ) -> Result<(Self, Meta<'_>), EncodeError> {
        // A thread that is ending has no thread-locals any more.
        let mut buffer = SCRATCH.try_with(Cell::take).unwrap_or_default();
        let written = write(&mut buffer, event, has_slot);
        // A copy of the exact size: a frame is kept until it is overwritten, and the buffer may have grown.
        let copied = written.map(|data_len| (buffer.as_slice().to_vec(), data_len));
        if buffer.capacity() <= SCRATCH_LEN {
            buffer.clear();
            let _ = SCRATCH.try_with(|scratch| scratch.set(buffer));
        }
        let (wire, data_len) = copied?;
        let mut meta = event.meta();
        let draft = Self {
            wire,
            data_len,
            attachment: Attached(meta.attachment.take()),
            has_slot,
            aside: None,
        };
        Ok((draft.with_trace(meta.trace_parent), meta))
    }

    /// Reads a frame that another node has made.
    pub(super) fn parse(body: Bytes) -> Option<Self> {
        let text = std::str::from_utf8(&body).ok()?;
        let lines = text.strip_suffix("\n\n")?;
        let mut data_at = None;
        let mut at = 0;
        for line in lines.split('\n') {
            let (name, value) = line.split_once(": ")?;
            let in_order = data_at.is_none() || name == "data";
            let is_known = match name {
                "" | "event" | "id" => memchr::memchr(0, value.as_bytes()).is_none(),
                "retry" => is_retry(value),
                "data" => true,
                _ => false,
            };
            if !in_order || !is_known || memchr::memchr(b'\r', line.as_bytes()).is_some() {
                return None;
            }
            if name == "data" && data_at.is_none() {
                data_at = Some(at + DATA.len());
            }
            at += line.len() + 1;
        }
        Some(Self {
            data_len: body.len() - data_at?,
            wire: body.into(),
            attachment: Attached::default(),
            has_slot: false,
            aside: None,
        })
    }

    /// The same event; if `has_slot`, with a slot in place of the id that it brought.
    pub(crate) fn with_slot(mut self, has_slot: bool) -> Self {
        if !has_slot {
            return self;
        }
        let mut wire = Vec::with_capacity(SLOT + self.wire.len());
        wire.resize(SLOT, 0);
        let head = self.wire.len() - self.data_len - DATA.len();
        for line in self.wire[..head].split_inclusive(|byte| *byte == b'\n') {
            if !line.starts_with(b"id: ") {
                wire.extend_from_slice(line);
            }
        }
        wire.extend_from_slice(&self.wire[head..]);
        self.wire = wire;
        self.has_slot = true;
        self
    }

    /// A copy of the draft.
    pub(crate) fn copy(&self) -> Self {
        Self {
            wire: self.wire.clone(),
            data_len: self.data_len,
            attachment: self.attachment.clone(),
            has_slot: self.has_slot,
            aside: self.aside.clone(),
        }
    }

    /// The event's data as a client gets it.
    pub(crate) fn data(&self) -> String {
        let data = &self.wire[self.wire.len() - self.data_len..self.wire.len() - END.len()];
        // It is part of a `str`, cut at a line break.
        String::from_utf8_lossy(data).replace("\ndata: ", "\n")
    }

    pub(crate) fn with_attachment(mut self, attachment: Option<Attachment>) -> Self {
        self.attachment = Attached(attachment);
        self
    }

    #[inline]
    pub(crate) fn with_trace(mut self, parent: Option<TraceParent>) -> Self {
        if parent.is_some() {
            self.aside_mut().trace_parent = parent;
        }
        self
    }

    /// Attaches a sample to the frame, if there is one.
    #[inline]
    pub(crate) fn with_sample(mut self, sample: Option<Sample>) -> Self {
        if sample.is_some() {
            self.aside_mut().sample = sample;
        }
        self
    }

    /// Sets the number under which streams may have the event already.
    #[inline]
    pub(crate) fn with_shown(mut self, number: Option<u64>) -> Self {
        if number.is_some() {
            self.aside_mut().shown = number;
        }
        self
    }

    fn aside_mut(&mut self) -> &mut Aside {
        Arc::make_mut(self.aside.get_or_insert_default())
    }

    /// How many bytes it counts as in a history.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        self.wire.len() + FRAME_OVERHEAD
    }

    /// Makes the frame: writes the id into the slot, if there is one. Without an id the slot is cut off.
    pub(crate) fn finish(&mut self, id: Option<Position>) -> Frame {
        let (start, body_start) = match (self.has_slot, id) {
            (false, _) => (0, 0),
            (true, None) => (SLOT, SLOT),
            (true, Some(id)) => (put_id(&mut self.wire, id), SLOT),
        };
        let mut wire = Bytes::from(mem::take(&mut self.wire));
        // `Bytes` made from a vector allocates its reference count at the first clone: do that now, not at the first
        // delivery.
        drop(wire.clone());
        wire.advance(start);
        Frame {
            wire,
            data_len: self.data_len,
            attachment: mem::take(&mut self.attachment),
            body_start: body_start - start,
            place: id,
            aside: self.aside.take(),
        }
    }
}

/// Writes an event, after a slot for an id if `has_slot`, and returns the length of its data.
fn write<E: ToSse + ?Sized>(
    wire: &mut Vec<u8>,
    event: &E,
    has_slot: bool,
) -> Result<usize, EncodeError> {
    if has_slot {
        wire.resize(SLOT, 0);
    }
    if let Some(comment) = event.comment() {
        EncodeError::check_one_line(Field::Comment, comment)?;
        push_field(wire, b": ", comment);
    }
    if let Some(name) = event.event() {
        if name.is_empty() {
            return Err(EncodeError::empty(Field::Event));
        }
        EncodeError::check_one_line(Field::Event, name)?;
        push_field(wire, b"event: ", name);
    }
    if let Some(id) = event.id().filter(|_| !has_slot) {
        push_field(wire, b"id: ", &id);
    }
    if let Some(after) = event.retry() {
        push_field(wire, b"retry: ", &retry_millis(after).to_string());
    }
    wire.extend_from_slice(DATA);
    let start = wire.len();
    event.data(&mut Data::new(wire))?;
    split_lines(wire, start);
    wire.extend_from_slice(END);
    Ok(wire.len() - start)
}

/// Whether the value is one that [`retry_millis`] writes.
fn is_retry(value: &str) -> bool {
    let is_number = value.bytes().all(|b| b.is_ascii_digit());
    is_number
        && value
            .parse()
            .is_ok_and(|millis: u64| millis <= MAX_RETRY_MILLIS)
}

fn push_field(wire: &mut Vec<u8>, prefix: &[u8], value: &str) {
    wire.extend_from_slice(prefix);
    wire.extend_from_slice(value.as_bytes());
    wire.push(b'\n');
}

/// Gives each line of the data, which is everything from `start` on, a `data: ` of its own (invariant 3).
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
