//! What an attendant writes, for all streams that get the same.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::stream::Length;
use crate::frame::Frame;
use crate::position::Position;
use crate::sse::JOINED;

/// One way through the streams of a shard. Streams that are at the same event are written the same bytes, which are made
/// once: a chunk (RFC 9112, section 7.1) of the events that are there.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    now: Option<Instant>,
    /// How many streams were begun with.
    begun: usize,
    /// Those of the stream before, and how many of them this one has as well.
    frames: Vec<Arc<Frame>>,
    len: usize,
    size: usize,
    /// The chunk of as many frames as there are.
    chunk: Bytes,
    is_stale: bool,
    /// A stream had no more than these frames.
    is_settled: bool,
}

/// For how many streams the time is taken once.
const GLANCE: usize = 32;

impl Pass {
    pub(super) fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// The next stream.
    pub(super) fn begin(&mut self) {
        self.begun += 1;
        if self.begun % GLANCE == 0 {
            self.now = None;
        }
        self.len = 0;
        self.size = 0;
    }

    /// Adds an event. `false` if the chunk is full.
    pub(super) fn push(&mut self, frame: Arc<Frame>) -> bool {
        self.size += frame.as_bytes().len();
        let is_known = self
            .frames
            .get(self.len)
            .is_some_and(|known| Arc::ptr_eq(known, &frame));
        if !is_known {
            self.frames.truncate(self.len);
            self.frames.push(frame);
            self.is_stale = true;
            self.is_settled = false;
        }
        self.len += 1;
        self.size < JOINED
    }

    /// Whether this stream has all that a stream before it had found there. What has come since is for the next pass: so streams
    /// stay at the same event, and more of them share a chunk.
    pub(super) fn is_enough(&self) -> bool {
        self.is_settled && self.len > 0 && self.len == self.frames.len()
    }

    /// This stream has no more.
    pub(super) fn settle(&mut self) {
        self.is_settled = self.len > 0 && self.len == self.frames.len();
    }

    /// The chunk of what was added, if that is anything.
    pub(super) fn chunk(&mut self) -> Option<Bytes> {
        if self.len == 0 {
            return None;
        }
        if self.is_stale || self.len < self.frames.len() {
            self.frames.truncate(self.len);
            let length = Length::of(self.size);
            let mut chunk = Vec::with_capacity(length.line().len() + self.size + 2);
            chunk.extend_from_slice(length.line());
            for frame in &self.frames {
                chunk.extend_from_slice(frame.as_bytes());
            }
            chunk.extend_from_slice(b"\r\n");
            self.chunk = chunk.into();
            self.is_stale = false;
        }
        Some(self.chunk.clone())
    }

    /// The position of the last event of the chunk that has one.
    pub(super) fn position(&self) -> Option<Position> {
        let frames = &self.frames[..self.len];
        frames.iter().rev().find_map(|frame| frame.place())
    }
}
