//! A frame that lacks its id.

use std::cell::Cell;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::encoded::{
    Aside, Attached, DATA, END, FRAME_OVERHEAD, Frame, MAX_RETRY_MILLIS, retry_millis,
};
use super::id_slot::{PREFIX, SLOT, put_number, write_slot};
use crate::error::{EncodeError, Field};
use crate::event::{Attachment, Data, Meta, ToSse};
use crate::metrics::Sample;
use crate::position::Position;
use crate::trace::TraceParent;

/// A frame without its id, and with a slot for it. Everything that takes time is done; writing the id is quick enough to be
/// done under a lock.
pub(crate) struct Draft {
    wire: Vec<u8>,
    data_len: usize,
    attachment: Attached,
    /// The epoch in the slot, if there is a slot.
    epoch: Option<u64>,
    aside: Option<Arc<Aside>>,
}

/// The largest buffer that a thread keeps.
const SCRATCH_LEN: usize = 16 * 1024;

thread_local! {
    /// What events are encoded in, before their length is known. An event that broadcasts while it is encoded finds it empty.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Draft {
    /// Encodes an event, with a slot for an id of this epoch. Without an epoch the event's own id is written.
    ///
    /// The attachment and the trace go into the draft; the rest of the event's [`Meta`] is returned.
    pub(crate) fn encode<E: ToSse + ?Sized>(
        event: &E,
        epoch: Option<u64>,
    ) -> Result<(Self, Meta<'_>), EncodeError> {
        // A thread that is being torn down has no locals any more.
        let mut wire = SCRATCH.try_with(Cell::take).unwrap_or_default();
        let encoded = Self::encode_in(&mut wire, event, epoch);
        if wire.capacity() <= SCRATCH_LEN {
            wire.clear();
            let _ = SCRATCH.try_with(|scratch| scratch.set(wire));
        }
        encoded
    }

    fn encode_in<'e, E: ToSse + ?Sized>(
        wire: &mut Vec<u8>,
        event: &'e E,
        epoch: Option<u64>,
    ) -> Result<(Self, Meta<'e>), EncodeError> {
        if let Some(epoch) = epoch {
            write_slot(epoch, wire);
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
        if let Some(id) = event.id().filter(|_| epoch.is_none()) {
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
        let mut meta = event.meta();
        let draft = Self {
            data_len: wire.len() - start,
            // A frame is kept until it is overwritten: with what it needs, not with what the buffer has grown to.
            wire: wire.as_slice().to_vec(),
            attachment: Attached(meta.attachment.take()),
            epoch,
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
            epoch: None,
            aside: None,
        })
    }

    /// The same event with a slot for an id of this epoch, and without the id that it has brought.
    pub(crate) fn with_epoch(mut self, epoch: Option<u64>) -> Self {
        let Some(epoch) = epoch else {
            return self;
        };
        let mut wire = Vec::with_capacity(SLOT + self.wire.len());
        write_slot(epoch, &mut wire);
        let head = self.wire.len() - self.data_len - DATA.len();
        for line in self.wire[..head].split_inclusive(|byte| *byte == b'\n') {
            if !line.starts_with(b"id: ") {
                wire.extend_from_slice(line);
            }
        }
        wire.extend_from_slice(&self.wire[head..]);
        self.wire = wire;
        self.epoch = Some(epoch);
        self
    }

    /// The same event once more, for a history of this epoch. Only of one that has a slot.
    pub(crate) fn copy_for(&self, epoch: u64) -> Self {
        debug_assert!(self.epoch.is_some(), "it has a slot");
        let mut wire = Vec::with_capacity(self.wire.len());
        write_slot(epoch, &mut wire);
        wire.extend_from_slice(&self.wire[SLOT..]);
        Self {
            wire,
            data_len: self.data_len,
            attachment: self.attachment.clone(),
            epoch: Some(epoch),
            aside: self.aside.clone(),
        }
    }

    /// The event's data as a client gets it.
    pub(crate) fn data(&self) -> String {
        let data = &self.wire[self.wire.len() - self.data_len..self.wire.len() - END.len()];
        // It came out of a `str`, cut at a line.
        String::from_utf8_lossy(data).replace("\ndata: ", "\n")
    }

    pub(crate) fn with_attachment(mut self, attachment: Option<Attachment>) -> Self {
        self.attachment = Attached(attachment);
        self
    }

    pub(crate) fn with_trace(mut self, parent: Option<TraceParent>) -> Self {
        if parent.is_some() {
            self.aside_mut().trace_parent = parent;
        }
        self
    }

    /// Lets a sample travel with the frame, if there is one.
    pub(crate) fn with_sample(mut self, sample: Option<Sample>) -> Self {
        if sample.is_some() {
            self.aside_mut().sample = sample;
        }
        self
    }

    /// Says under which number streams may have it already.
    pub(crate) fn with_shown(mut self, number: Option<u64>) -> Self {
        if number.is_some() {
            self.aside_mut().shown = number;
        }
        self
    }

    fn aside_mut(&mut self) -> &mut Aside {
        Arc::make_mut(self.aside.get_or_insert_default())
    }

    /// How many bytes it counts for in a history.
    pub(crate) fn weight(&self) -> usize {
        self.wire.len() + FRAME_OVERHEAD
    }

    /// Writes the id into the slot, if there is one. Without an id the slot is cut off.
    pub(crate) fn finish(mut self, id: Option<Position>) -> Frame {
        let mut start = 0;
        let mut body_start = 0;
        if let (Some(epoch), Some(id)) = (self.epoch, id) {
            body_start = SLOT;
            if epoch != id.epoch {
                // The engine's log has become another one meanwhile.
                self.wire.drain(..SLOT);
                self.epoch = None;
                return self.with_epoch(Some(id.epoch)).finish(Some(id));
            }
            // To the right, so that the id ends where the next line begins. The rest of the slot is cut off.
            let at = put_number(&mut self.wire, SLOT - 1, id.offset);
            start = at - PREFIX;
            self.wire.copy_within(..PREFIX, start);
        }
        if self.epoch.is_some() && id.is_none() {
            (start, body_start) = (SLOT, SLOT);
        }
        let mut wire = Bytes::from(self.wire);
        // `Bytes` made of a vector allocates its count at the first clone. Let that be now, not at the first delivery.
        drop(wire.clone());
        wire.advance(start);
        Frame {
            wire,
            data_len: self.data_len,
            attachment: self.attachment,
            body_start: body_start - start,
            place: id,
            aside: self.aside,
        }
    }
}

/// Whether it is what [`retry_millis`] writes.
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
