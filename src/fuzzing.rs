//! What fuzz targets reach of the inside (`fuzz/`). Not part of the API, and not there unless they are built.
#![allow(missing_docs, missing_debug_implementations)]

use bytes::Bytes;

#[cfg(feature = "nats")]
use crate::backplane::nats::token::{self, Token};
use crate::backplane::{Envelope, Outbound, What, lost};
use crate::frame::{Draft, Frame};
use crate::id::{Composite, LastEventId, Seen};

/// A user's id as one token of a subject.
#[cfg(feature = "nats")]
pub fn write_token(id: &str) -> String {
    let mut token = String::new();
    token::encode(id, &mut token);
    token
}

/// The id that a token stands for, or the token itself if it is a digest; `None` if it is no token.
#[cfg(feature = "nats")]
pub fn read_token(token: &str) -> Option<Result<String, String>> {
    match token::decode(token)? {
        Token::Id(id) => Some(Ok(id.into_owned())),
        Token::Digest(digest) => Some(Err(digest.to_owned())),
    }
}

/// An envelope in its parts.
#[derive(Clone, PartialEq)]
pub struct Parts {
    pub node: u64,
    /// The channel and the count.
    pub first: Option<(u64, u64)>,
    pub content: Content,
}

#[derive(Clone, PartialEq)]
pub enum Content {
    Event {
        key: Option<String>,
        note: Option<String>,
        frame: Bytes,
    },
    Lost(Option<u64>),
}

pub fn parse_envelope(bytes: Bytes) -> Option<Parts> {
    let Envelope { node, first, what } = Envelope::parse(bytes)?;
    Some(Parts {
        node,
        first: first.map(|Seen { channel, count }| (channel, count)),
        content: match what {
            What::Event { key, note, draft } => Content::Event {
                key,
                note,
                frame: draft.finish(None).to_bytes(),
            },
            What::Lost(count) => Content::Lost(count),
        },
    })
}

/// Writes an envelope; `None` if the frame is none.
pub fn write_envelope(parts: &Parts) -> Option<Bytes> {
    let first = parts.first.map(|(channel, count)| Seen { channel, count });
    match &parts.content {
        Content::Event { key, note, frame } => {
            let mut bytes = Vec::new();
            let outbound = Outbound {
                first,
                key: key.as_deref(),
                note: note.as_deref(),
                frame: &Frame::parse(frame.clone())?.finish(None),
            };
            outbound.write(parts.node, &mut bytes);
            assert!(bytes.len() <= outbound.len(), "it says how long it is");
            Some(bytes.into())
        }
        Content::Lost(count) => Some(lost(parts.node, first, *count)),
    }
}

/// The data of a frame that another node has made, if it is one.
pub fn data_of(frame: Bytes) -> Option<String> {
    Frame::parse(frame).as_ref().map(Draft::data)
}

/// Reads an id and writes it again; `None` if it is none of ours.
pub fn rewrite_id(id: &str) -> Option<String> {
    let id = LastEventId::new(id);
    let position = id.position()?;
    let seen: Vec<Seen> = id.also().collect();
    let mut again = if seen.is_empty() {
        position.to_string()
    } else {
        let composite = Composite {
            epoch: position.epoch,
            offset: position.offset,
            seen: &seen,
        };
        composite.to_id().to_string()
    };
    if id.is_told() {
        again.push('~');
    }
    Some(again)
}
