//! What nodes say to each other: an event, or that events were lost.
//!
//! | bytes | what |
//! |---|---|
//! | 2 | `T`, and the version, 1 |
//! | 1 | 0: an event, 1: events were lost |
//! | 8 | the node that it comes from |
//! | 8, 8 | the channel that sent it first and the how manieth of that channel's it is, or zeros |
//! | 2 and as many | the event's key; 65,535 if it has none. Of what was lost 8: how many events, all ones if that is unknown, and nothing else |
//! | 4 and as many | the event's note, likewise |
//! | the rest | the event, a frame without the id of a history |
//!
//! Numbers are big-endian. Whoever can write to the engine can send anything, so whatever does not fit is refused as a
//! whole, the frame included: nobody can smuggle a second event in.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{Draft, Frame};
use crate::id::Seen;

const MAGIC: u8 = b'T';
const VERSION: u8 = 1;
const NO_KEY: u16 = u16::MAX;
const NO_NOTE: u32 = u32::MAX;
const UNKNOWN: u64 = u64::MAX;

pub(crate) struct Envelope {
    pub(crate) node: u64,
    /// Which event it is of the channel that sent it first, if one did. Of what was lost, the last one.
    pub(crate) first: Option<Seen>,
    pub(crate) what: What,
}

pub(crate) enum What {
    Event {
        key: Option<String>,
        note: Option<String>,
        draft: Draft,
    },
    /// So many, if that is known.
    Lost(Option<u64>),
}

/// What stands in front of the frame, at the most, besides key and note.
pub(crate) const OVERHEAD: usize = 33;

fn begin(bytes: &mut impl BufMut, kind: u8, node: u64, first: Option<Seen>) {
    bytes.put_slice(&[MAGIC, VERSION, kind]);
    bytes.put_u64(node);
    bytes.put_u64(first.map_or(0, |first| first.channel));
    bytes.put_u64(first.map_or(0, |first| first.count));
}

/// An event as it is published.
pub(crate) struct Outbound<'a> {
    pub(crate) first: Option<Seen>,
    pub(crate) key: Option<&'a str>,
    pub(crate) note: Option<&'a str>,
    pub(crate) frame: &'a Frame,
}

impl Outbound<'_> {
    /// How many bytes it takes, about; at least so many.
    pub(crate) fn len(&self) -> usize {
        let beside = self.key.map_or(0, str::len) + self.note.map_or(0, str::len);
        OVERHEAD + beside + self.frame.body().len()
    }

    /// Writes it. A key that is too long is left out.
    pub(crate) fn write(&self, node: u64, bytes: &mut impl BufMut) {
        begin(bytes, 0, node, self.first);
        match self.key.filter(|key| key.len() < NO_KEY.into()) {
            None => bytes.put_u16(NO_KEY),
            Some(key) => {
                // It was compared.
                bytes.put_u16(key.len() as u16);
                bytes.put_slice(key.as_bytes());
            }
        }
        match self
            .note
            .and_then(|note| Some((note, u32::try_from(note.len()).ok()?)))
        {
            None => bytes.put_u32(NO_NOTE),
            Some((note, len)) => {
                bytes.put_u32(len);
                bytes.put_slice(note.as_bytes());
            }
        }
        bytes.put_slice(self.frame.body());
    }
}

/// That so many events were lost, up to this one.
pub(crate) fn lost(node: u64, last: Option<Seen>, count: Option<u64>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(OVERHEAD + 8);
    begin(&mut bytes, 1, node, last);
    bytes.put_u64(count.unwrap_or(UNKNOWN));
    bytes.freeze()
}

impl Envelope {
    /// Reads what arrived; `None` if no node has sent it.
    pub(crate) fn parse(mut bytes: Bytes) -> Option<Self> {
        let head = [bytes.try_get_u8().ok()?, bytes.try_get_u8().ok()?];
        if head != [MAGIC, VERSION] {
            return None;
        }
        let kind = bytes.try_get_u8().ok()?;
        let node = bytes.try_get_u64().ok()?;
        let channel = bytes.try_get_u64().ok()?;
        let count = bytes.try_get_u64().ok()?;
        if channel == 0 && count != 0 {
            return None;
        }
        let first = (channel != 0).then_some(Seen { channel, count });
        let what = match kind {
            0 => {
                let key = match bytes.try_get_u16().ok()? {
                    NO_KEY => None,
                    len => Some(text(&mut bytes, len.into())?),
                };
                let note = match bytes.try_get_u32().ok()? {
                    NO_NOTE => None,
                    len => Some(text(&mut bytes, len.try_into().ok()?)?),
                };
                let draft = Frame::parse(bytes)?;
                What::Event { key, note, draft }
            }
            1 => {
                let count = bytes.try_get_u64().ok()?;
                if !bytes.is_empty() {
                    return None;
                }
                What::Lost((count != UNKNOWN).then_some(count))
            }
            _ => return None,
        };
        Some(Self { node, first, what })
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
    fn a_count_of_no_channel_is_refused() {
        let bytes = |channel, count| lost(7, Some(Seen { channel, count }), None);
        assert!(Envelope::parse(bytes(0, 0)).is_some());
        assert!(Envelope::parse(bytes(3, 5)).is_some());
        assert!(Envelope::parse(bytes(0, 5)).is_none());
    }
}
