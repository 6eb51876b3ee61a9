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

use bytes::{Buf, Bytes};

use crate::error::{EncodeError, Field};
use crate::event::{Data, Tag, ToSse};
use crate::gap::{Gap, GapReason};
use crate::id::{EventId, Position, Seen};

const DATA: &[u8] = b"data: ";
/// Ends the last line, and the frame.
const END: &[u8] = b"\n\n";

/// A server-sent event as it is sent: encoded once, shared by every stream that it goes to.
///
/// Cloning costs a reference count.
#[derive(Clone)]
pub struct Frame {
    wire: Bytes,
    /// Where the data begins, counted from the end.
    data_len: usize,
    tag: Option<Tag>,
    /// Behind the id that a history gave it.
    body_start: usize,
    route: Route,
}

/// What a frame knows of its way between nodes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Route {
    /// Which event it is of the channel that sent it first, if one did.
    pub(crate) first: Option<Seen>,
    /// Its position in the engine's log; zero if it was not there when it was sent.
    pub(crate) position: u64,
    /// It is no event: it tells of a gap.
    pub(crate) gap: Option<(GapReason, Option<u64>)>,
}

impl Frame {
    /// Encodes an event.
    ///
    /// # Errors
    ///
    /// When a field cannot be put on the wire: a name that is empty, a name or comment that holds CR, LF or NUL, or
    /// whatever [`ToSse::data`] reports.
    pub fn encode<E: ToSse + ?Sized>(event: &E) -> Result<Self, EncodeError> {
        Ok(Draft::encode(event, None)?.finish(None))
    }

    /// Reads what another node has [sent](Self::body), and keeps nothing of it but one whole event: `None` if it is none.
    pub(crate) fn parse(body: Bytes) -> Option<Draft> {
        Draft::parse(body)
    }

    /// The event as it goes to other nodes: without the id that the history here has given it.
    pub(crate) fn body(&self) -> &[u8] {
        &self.wire[self.body_start..]
    }

    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    /// Stands in a user's channel for a gap that all streams have.
    pub(crate) fn notice(reason: GapReason, missed: Option<u64>, id: Option<Position>) -> Self {
        let gap = Gap {
            reason,
            missed,
            position: id,
        };
        let mut frame = Self::gap(&gap);
        frame.route.gap = Some((reason, missed));
        frame
    }

    /// The id that a history has given it.
    pub(crate) fn position(&self) -> Option<Position> {
        let line = std::str::from_utf8(&self.wire[..self.body_start]).ok()?;
        let id = line.strip_prefix("id: ")?.strip_suffix('\n')?;
        crate::id::LastEventId::new(id).position()
    }

    /// Says which event it is of the channel that sent it first, and where it is in the engine's log.
    pub(crate) fn routed(mut self, first: Option<Seen>, position: u64) -> Self {
        self.route.first = first;
        self.route.position = position;
        self
    }

    /// The same event under another id.
    pub(crate) fn under(&self, id: &EventId) -> Self {
        let line = format!("id: {id}\n");
        Self {
            wire: [line.as_bytes(), &self.wire[self.body_start..]]
                .concat()
                .into(),
            body_start: line.len(),
            ..self.clone()
        }
    }

    /// Tells the client what it cannot have, and the id from which the stream goes on.
    pub(crate) fn gap(gap: &Gap) -> Self {
        let id = gap.id().map_or(String::new(), |id| format!("id: {id}\n"));
        let reason = gap.reason.as_str();
        let missed = gap
            .missed
            .map_or("null".into(), |missed| missed.to_string());
        let data = format!("{{\"reason\":\"{reason}\",\"missed\":{missed}}}");
        Self {
            body_start: id.len(),
            wire: format!("{id}event: gap\ndata: {data}\n\n").into(),
            data_len: data.len() + END.len(),
            tag: None,
            route: Route::default(),
        }
    }

    /// Gives the client an id to come back with, before the first event. A block without data, so there is no event.
    pub(crate) fn cursor(id: &EventId) -> Bytes {
        format!("id: {id}\n\n").into()
    }

    /// Tells the client how long to wait before it reconnects. Without an empty line: at the beginning of a stream it is the
    /// first line of the first event, at the end clients obey the line as it comes, and some would take an empty line for
    /// an event.
    pub(crate) fn retry_line(after: Duration) -> Bytes {
        format!("retry: {}\n", after.as_millis()).into()
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

    /// The frame's data as it stands on the wire, shared, if that is one line, as JSON always is.
    #[must_use]
    pub fn data_line(&self) -> Option<Bytes> {
        let end = self.wire.len() - END.len();
        let line = self.wire.len() - self.data_len..end;
        let is_one = memchr::memchr(b'\n', &self.wire[line.clone()]).is_none();
        is_one.then(|| self.wire.slice(line))
    }

    /// What its event had for a [tag](ToSse::tag), if it is of this type.
    #[must_use]
    pub fn tag<T: 'static>(&self) -> Option<&T> {
        self.tag.as_deref()?.downcast_ref()
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

/// A frame that lacks its id yet, with room for it: everything that takes time is done, and what is left can be done under
/// a lock.
pub(crate) struct Draft {
    wire: Vec<u8>,
    data_len: usize,
    tag: Option<Tag>,
    ids: Option<Ids>,
}

/// What is known of a frame's id beforehand: everything but the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) epoch: u64,
    /// The channel, where several nodes have the history in common; see [`Position`].
    pub(crate) channel: Option<u64>,
}

impl Ids {
    /// Those of a channel, by what it says that they begin with.
    pub(crate) fn of((epoch, channel): (u64, Option<u64>)) -> Self {
        Self { epoch, channel }
    }

    /// `id: `, the epoch and `-`, or twice that.
    fn prefix(&self) -> usize {
        b"id: ".len() + self.fixed() * (Position::EPOCH_LEN + b"-".len())
    }

    /// The longest number and LF, or two numbers with `-` between.
    fn room(&self) -> usize {
        self.prefix() + self.fixed() * (NUMBER_ROOM + 1)
    }

    fn fixed(&self) -> usize {
        1 + usize::from(self.channel.is_some())
    }

    fn write(&self, wire: &mut Vec<u8>) {
        wire.extend_from_slice(b"id: ");
        for number in [Some(self.epoch), self.channel].into_iter().flatten() {
            wire.extend_from_slice(&hex(number));
            wire.push(b'-');
        }
        wire.resize(self.room(), b'\n');
    }

    fn fit(&self, id: &Position) -> bool {
        id.epoch == self.epoch && id.own.map(|own| own.channel) == self.channel
    }
}

const NUMBER_ROOM: usize = 20;

impl Draft {
    /// Encodes an event, which is to be found under an id of this kind, if one is given; the event's own id is for when
    /// none is.
    pub(crate) fn encode<E: ToSse + ?Sized>(
        event: &E,
        ids: Option<Ids>,
    ) -> Result<Self, EncodeError> {
        let mut wire = Vec::with_capacity(256);
        if let Some(ids) = &ids {
            ids.write(&mut wire);
        }
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
        if let Some(id) = event.id().filter(|_| ids.is_none()) {
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
        wire.extend_from_slice(END);
        // A frame is kept until it is overwritten: with what it needs, not with what the buffer had grown to.
        wire.shrink_to_fit();
        Ok(Self {
            data_len: wire.len() - start,
            wire,
            tag: event.tag(),
            ids,
        })
    }

    /// Reads a frame that another node has made.
    fn parse(body: Bytes) -> Option<Self> {
        let text = std::str::from_utf8(&body).ok()?;
        let lines = text.strip_suffix("\n\n")?;
        let mut data_at = None;
        let mut at = 0;
        for line in lines.split('\n') {
            let (name, value) = line.split_once(": ")?;
            let in_order = data_at.is_none() || name == "data";
            let is_known = match name {
                "" | "event" | "id" => memchr::memchr(0, value.as_bytes()).is_none(),
                "retry" => value.bytes().all(|b| b.is_ascii_digit()),
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
            tag: None,
            ids: None,
        })
    }

    /// The same event with room for an id of this kind, and without one that it has brought.
    pub(crate) fn with_ids(mut self, ids: Option<Ids>) -> Self {
        let Some(ids) = ids else {
            return self;
        };
        let mut wire = Vec::with_capacity(ids.room() + self.wire.len());
        ids.write(&mut wire);
        let head = self.wire.len() - self.data_len - DATA.len();
        for line in self.wire[..head].split_inclusive(|byte| *byte == b'\n') {
            if !line.starts_with(b"id: ") {
                wire.extend_from_slice(line);
            }
        }
        wire.extend_from_slice(&self.wire[head..]);
        self.wire = wire;
        self.ids = Some(ids);
        self
    }

    /// The event's data as a client gets it.
    pub(crate) fn data(&self) -> String {
        let data = &self.wire[self.wire.len() - self.data_len..self.wire.len() - END.len()];
        // It came out of a `str`, cut at a line.
        String::from_utf8_lossy(data).replace("\ndata: ", "\n")
    }

    pub(crate) fn with_tag(mut self, tag: Option<Tag>) -> Self {
        self.tag = tag;
        self
    }

    /// How many bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.wire.len()
    }

    /// Writes the id into its room, if there is one.
    pub(crate) fn finish(mut self, id: Option<Position>) -> Frame {
        let mut start = 0;
        let mut body_start = 0;
        if let (Some(ids), Some(id)) = (self.ids, id) {
            let room = ids.room();
            body_start = room;
            if !ids.fit(&id) {
                // The engine's log has become another one meanwhile.
                self.wire.drain(..room);
                self.ids = None;
                let ids = Ids {
                    epoch: id.epoch,
                    channel: id.own.map(|own| own.channel),
                };
                return self.with_ids(Some(ids)).finish(Some(id));
            }
            // To the right, so that the id ends where the next line begins. What is left of the room is cut off.
            let mut at = room - 1;
            if let Some(own) = id.own {
                at = put_number(&mut self.wire, at, own.count) - 1;
                self.wire[at] = b'-';
            }
            at = put_number(&mut self.wire, at, id.offset);
            start = at - ids.prefix();
            self.wire.copy_within(..ids.prefix(), start);
        }
        let mut wire = Bytes::from(self.wire);
        // `Bytes` made of a vector allocates its count at the first clone. Let that be now, not at the first delivery.
        drop(wire.clone());
        wire.advance(start);
        Frame {
            wire,
            data_len: self.data_len,
            tag: self.tag,
            body_start: body_start - start,
            route: Route::default(),
        }
    }
}

/// The number's sixteen digits. Written out, because this is done for each event.
fn hex(number: u64) -> [u8; Position::EPOCH_LEN] {
    let bytes = number.to_be_bytes();
    std::array::from_fn(|at| {
        let byte = bytes[at / 2];
        let digit = if at % 2 == 0 { byte >> 4 } else { byte & 15 };
        b"0123456789abcdef"[usize::from(digit)]
    })
}

/// Writes a number so that it ends before `end`, and says where it begins.
fn put_number(wire: &mut [u8], end: usize, number: u64) -> usize {
    let mut buffer = [0; NUMBER_ROOM];
    let digits = decimal(number, &mut buffer);
    let start = end - digits.len();
    wire[start..end].copy_from_slice(digits);
    start
}

/// The number's digits, at the end of the buffer.
fn decimal(mut number: u64, buffer: &mut [u8; NUMBER_ROOM]) -> &[u8] {
    let mut start = buffer.len();
    loop {
        start -= 1;
        // One digit.
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[start..];
        }
    }
}

/// Equal if they are the same on the wire.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.wire == other.wire
    }
}

impl Eq for Frame {}

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
