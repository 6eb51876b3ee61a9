//! What fuzz targets reach of the inside (`fuzz/`). Not part of the API, and not there unless they are built.
#![allow(missing_docs, missing_debug_implementations)]

use bytes::Bytes;

use crate::backplane::{self, Envelope, Outbound, What, lost};
use crate::frame::{Draft, Frame};
use crate::id::LastEventId;
use crate::position::Position;
use crate::subscription::Subscription;

/// An envelope in its parts.
#[derive(Clone, PartialEq)]
pub struct Parts {
    pub node: u64,
    pub trace: Option<String>,
    pub content: Content,
}

#[derive(Clone, PartialEq)]
pub enum Content {
    Event {
        key: Option<String>,
        relay_data: Option<String>,
        /// Under which number streams of its node have it.
        shown: Option<u64>,
        frame: Bytes,
    },
    Lost(Option<u64>),
    Complete,
}

pub fn parse_envelope(bytes: Bytes) -> Option<Parts> {
    let Envelope { node, shown, what } = Envelope::parse(bytes)?;
    Some(match what {
        What::Event {
            key,
            relay_data,
            mut draft,
        } => {
            let frame = draft.finish(None);
            let trace = frame.trace_parent();
            Parts {
                node,
                trace: trace.map(|trace| trace.as_str().to_owned()),
                content: Content::Event {
                    key,
                    relay_data,
                    shown,
                    frame: frame.to_bytes(),
                },
            }
        }
        What::Lost(count) => Parts {
            node,
            trace: None,
            content: Content::Lost(count),
        },
        What::Complete => Parts {
            node,
            trace: None,
            content: Content::Complete,
        },
    })
}

/// Writes an envelope; `None` if the frame is none.
pub fn write_envelope(parts: &Parts) -> Option<Bytes> {
    let trace = parts.trace.as_deref().and_then(|trace| trace.parse().ok());
    match &parts.content {
        Content::Event {
            key,
            relay_data,
            shown,
            frame,
        } => {
            let mut bytes = Vec::new();
            let outbound = Outbound {
                key: key.as_deref(),
                relay_data: relay_data.as_deref(),
                frame: &Frame::parse(frame.clone())?.with_trace(trace).finish(None),
            };
            outbound.write(parts.node, &mut bytes);
            assert!(bytes.len() <= outbound.len(), "it says how long it is");
            let bytes = Bytes::from(bytes);
            Some(match shown {
                Some(number) => backplane::shown(&bytes, *number),
                None => bytes,
            })
        }
        Content::Lost(count) => Some(lost(parts.node, *count)),
        Content::Complete => {
            let mut bytes = Vec::new();
            backplane::complete(parts.node, &mut bytes);
            Some(bytes.into())
        }
    }
}

/// The data of a frame that another node has made, if it is one.
pub fn data_of(frame: Bytes) -> Option<String> {
    Frame::parse(frame).as_ref().map(Draft::data)
}

/// The place that a keep-alive gives the client of a stream, if it has yielded everything.
pub fn place(stream: &Subscription) -> Option<Position> {
    stream.place()
}

/// Reads an id and writes it again; `None` if it is none of ours.
pub fn rewrite_id(id: &str) -> Option<String> {
    let id = LastEventId::new(id);
    let mut again = id.position()?.to_string();
    if id.is_told() {
        again.push('~');
    }
    Some(again)
}
