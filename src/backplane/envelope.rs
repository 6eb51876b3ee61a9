//! The messages between nodes: an event, a report that events were lost, or the end of a user's events.
//!
//! | bytes | what |
//! |---|---|
//! | 2 | `T`, and the version, 2 |
//! | 1 | 0: an event, 1: events were lost, 2: an event that its node's streams have already, 3: the end of the user's events, and nothing follows the node |
//! | 8 | the node that it comes from |
//! | 8 | of kind 2: the number under which those streams have it |
//! | 2 and as many | the event's key; 65,535 if it has none. Of kind 1: 8, how many events were lost, all ones if that is unknown, and nothing else |
//! | 4 and as many | the event's relay data, likewise |
//! | 1 and as many | the trace that it was published in; 0 if there is none |
//! | the rest | the event, a frame without the id of a history |
//!
//! Numbers are big-endian. Any client that may write to the engine can send anything, so a message that does not fit is
//! refused as a whole, the frame included: no second event can be smuggled in.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::event::Meta;
use crate::frame::{Draft, Frame};
use crate::trace::TraceParent;

const MAGIC: u8 = b'T';
const VERSION: u8 = 2;
const NO_KEY: u16 = u16::MAX;
const NO_RELAY_DATA: u32 = u32::MAX;
const UNKNOWN: u64 = u64::MAX;

pub(crate) struct Envelope {
    pub(crate) node: u64,
    /// Streams of that node may have it already, under this number.
    pub(crate) shown: Option<u64>,
    pub(crate) what: What,
}

pub(crate) enum What {
    Event {
        key: Option<String>,
        relay_data: Option<String>,
        draft: Draft,
    },
    /// This many events were lost, if that is known.
    Lost(Option<u64>),
    /// No event comes any more.
    Complete,
}

/// The most bytes before the frame, besides key and relay data.
pub(crate) const OVERHEAD: usize = 18;

const COMPLETE: u8 = 3;

/// The offset of the kind, and the length of what precedes the key.
const KIND: usize = 2;
pub(crate) const HEAD: usize = 11;
/// How many more bytes a message has whose event streams have already.
pub(crate) const SHOWN: usize = 8;

fn begin(bytes: &mut impl BufMut, kind: u8, node: u64) {
    bytes.put_slice(&[MAGIC, VERSION, kind]);
    bytes.put_u64(node);
}

/// An event as it is published.
pub(crate) struct Outbound<'a> {
    pub(crate) key: Option<&'a str>,
    pub(crate) relay_data: Option<&'a str>,
    pub(crate) frame: &'a Frame,
}

impl<'a> Outbound<'a> {
    pub(crate) fn new(meta: &'a Meta<'_>, frame: &'a Frame) -> Self {
        Self {
            key: meta.key,
            relay_data: meta.relay_data.as_deref(),
            frame,
        }
    }

    /// About how many bytes it takes; never fewer.
    pub(crate) fn len(&self) -> usize {
        let trace = self.frame.trace_parent();
        let trace = trace.as_ref().map_or(0, |trace| trace.as_str().len());
        let beside = self.key.map_or(0, str::len) + self.relay_data.map_or(0, str::len) + trace;
        OVERHEAD + beside + self.frame.body().len()
    }

    /// Writes the message. A key that is too long is left out.
    pub(crate) fn write(&self, node: u64, bytes: &mut impl BufMut) {
        begin(bytes, 0, node);
        match self.key.filter(|key| key.len() < NO_KEY.into()) {
            None => bytes.put_u16(NO_KEY),
            Some(key) => {
                // It was checked above.
                bytes.put_u16(key.len() as u16);
                bytes.put_slice(key.as_bytes());
            }
        }
        match self
            .relay_data
            .and_then(|data| Some((data, u32::try_from(data.len()).ok()?)))
        {
            None => bytes.put_u32(NO_RELAY_DATA),
            Some((data, len)) => {
                bytes.put_u32(len);
                bytes.put_slice(data.as_bytes());
            }
        }
        let trace = self.frame.trace_parent();
        let trace = trace.as_ref().map_or("", |trace| trace.as_str());
        // Always the length of the header.
        bytes.put_u8(trace.len() as u8);
        bytes.put_slice(trace.as_bytes());
        bytes.put_slice(self.frame.body());
    }
}

/// The same event, which this node's streams have already, under this number.
pub(crate) fn shown(body: &Bytes, number: u64) -> Bytes {
    let (head, rest) = body.split_at(HEAD);
    let mut bytes = BytesMut::with_capacity(body.len() + SHOWN);
    bytes.put_slice(head);
    bytes[KIND] = 2;
    bytes.put_u64(number);
    bytes.put_slice(rest);
    bytes.freeze()
}

/// The message that ends a user's events.
pub(crate) fn complete(node: u64, bytes: &mut impl BufMut) {
    begin(bytes, COMPLETE, node);
}

/// Whether this message ends a user's events.
pub(crate) fn is_complete(body: &Bytes) -> bool {
    body.get(KIND) == Some(&COMPLETE)
}

/// The message that this many events were lost.
pub(crate) fn lost(node: u64, count: Option<u64>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(OVERHEAD + 8);
    begin(&mut bytes, 1, node);
    bytes.put_u64(count.unwrap_or(UNKNOWN));
    bytes.freeze()
}

impl Envelope {
    /// Reads a message; `None` if no node can have sent it.
    pub(crate) fn parse(mut bytes: Bytes) -> Option<Self> {
        let head = [bytes.try_get_u8().ok()?, bytes.try_get_u8().ok()?];
        if head != [MAGIC, VERSION] {
            return None;
        }
        let kind = bytes.try_get_u8().ok()?;
        let node = bytes.try_get_u64().ok()?;
        let shown = match kind {
            2 => Some(bytes.try_get_u64().ok()?),
            _ => None,
        };
        let what = match kind {
            0 | 2 => {
                let key = match bytes.try_get_u16().ok()? {
                    NO_KEY => None,
                    len => Some(text(&mut bytes, len.into())?),
                };
                let relay_data = match bytes.try_get_u32().ok()? {
                    NO_RELAY_DATA => None,
                    len => Some(text(&mut bytes, len.try_into().ok()?)?),
                };
                let trace = match bytes.try_get_u8().ok()? {
                    0 => None,
                    len => {
                        let trace: TraceParent = text(&mut bytes, len.into())?.parse().ok()?;
                        // No node of this version writes anything after it.
                        if trace.as_str().len() != usize::from(len) {
                            return None;
                        }
                        Some(trace)
                    }
                };
                let draft = Frame::parse(bytes)?.with_trace(trace);
                What::Event {
                    key,
                    relay_data,
                    draft,
                }
            }
            1 => {
                let count = bytes.try_get_u64().ok()?;
                if !bytes.is_empty() {
                    return None;
                }
                What::Lost((count != UNKNOWN).then_some(count))
            }
            COMPLETE if bytes.is_empty() => What::Complete,
            _ => return None,
        };
        Some(Self { node, shown, what })
    }
}

fn text(bytes: &mut Bytes, len: usize) -> Option<String> {
    if len > bytes.len() {
        return None;
    }
    String::from_utf8(bytes.split_to(len).into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_travels_with_its_event() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let frame = Frame::parse(Bytes::from_static(b"data: x\n\n")).expect("one event");
        let frame = frame.with_trace(parent.parse().ok()).finish(None);
        let outbound = Outbound {
            key: None,
            relay_data: None,
            frame: &frame,
        };
        let mut bytes = Vec::new();
        outbound.write(7, &mut bytes);
        assert_eq!(outbound.len(), bytes.len());
        let cut = bytes.len() - frame.body().len() - 1;
        let envelope = Envelope::parse(bytes.clone().into()).expect("it is whole");
        let What::Event { mut draft, .. } = envelope.what else {
            panic!("it is an event");
        };
        let trace = draft.finish(None).trace_parent().expect("a trace");
        assert_eq!(trace.as_str(), parent);
        // Its last digit is none.
        bytes[cut] = b'x';
        assert!(Envelope::parse(bytes.into()).is_none());
    }
}
