//! What an attendant writes, made once for all streams that get the same.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::stream::Length;
use crate::frame::Frame;
use crate::position::Position;
use crate::sse::JOINED;

/// One pass through the streams of a shard. Streams that are at the same event get the same bytes, which are made once: a
/// chunk (RFC 9112, section 7.1) of the events there are.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    now: Option<Instant>,
    /// How many streams the pass has come to.
    begun: usize,
    /// The frames of the previous stream, and how many of them this stream has as well.
    frames: Vec<Arc<Frame>>,
    len: usize,
    size: usize,
    /// The number, in the channel, of the last event that this stream has.
    last: u64,
    /// The chunk of all of `frames`, unless stale.
    chunk: Bytes,
    is_stale: bool,
    /// The number of the event that was the last one there when an earlier stream had read everything.
    end: Option<u64>,
}

/// How many streams share one reading of the clock.
const GLANCE: usize = 32;

impl Pass {
    pub(super) fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// Begins with the next stream.
    pub(super) fn begin(&mut self) {
        self.begun += 1;
        if self.begun % GLANCE == 0 {
            self.now = None;
        }
        self.len = 0;
        self.size = 0;
    }

    /// Adds the event of this number in the channel. `false` if the chunk is full.
    pub(super) fn push(&mut self, frame: Arc<Frame>, number: u64) -> bool {
        self.last = number;
        self.size += frame.as_bytes().len();
        let is_known = self
            .frames
            .get(self.len)
            .is_some_and(|known| Arc::ptr_eq(known, &frame));
        if !is_known {
            self.frames.truncate(self.len);
            self.frames.push(frame);
            self.is_stale = true;
        }
        self.len += 1;
        self.size < JOINED
    }

    /// Whether this stream has all that an earlier stream found. Events that have come since are for the next pass, so that
    /// streams stay at the same event and more of them share a chunk.
    ///
    /// Frames would not tell: a broadcast to a list that names a user twice sends the user the same frame twice. Numbers are
    /// compared for equality only, since without a history concurrent broadcasts may send them out of order.
    pub(super) fn is_enough(&self) -> bool {
        self.len > 0 && self.end == Some(self.last)
    }

    /// Notes that this stream has read everything.
    pub(super) fn settle(&mut self) {
        if self.len > 0 {
            self.end = Some(self.last);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Text;

    fn frames() -> [(Arc<Frame>, u64); 3] {
        [("a", 1), ("b", 2), ("c", 3)].map(|(data, number)| {
            let frame = Frame::encode(&Text::new(data)).expect("text");
            (Arc::new(frame), number)
        })
    }

    /// Reads until that is enough, or there is no more.
    fn read(pass: &mut Pass, frames: &[(Arc<Frame>, u64)]) -> String {
        pass.begin();
        for (frame, number) in frames {
            assert!(pass.push(frame.clone(), *number), "there is room");
            if pass.is_enough() {
                return text(pass);
            }
        }
        pass.settle();
        text(pass)
    }

    fn text(pass: &mut Pass) -> String {
        let chunk = pass.chunk().expect("something was added");
        String::from_utf8(chunk.to_vec()).expect("text")
    }

    const ALL: &str = "1B\r\ndata: a\n\ndata: b\n\ndata: c\n\n\r\n";

    #[test]
    fn streams_that_are_at_the_same_event_share_a_chunk_and_get_no_more_than_the_first() {
        let frames = frames();
        let mut pass = Pass::default();
        assert_eq!(
            read(&mut pass, &frames[..2]),
            "12\r\ndata: a\n\ndata: b\n\n\r\n"
        );
        let shared = pass.chunk().expect("it was made").as_ptr();
        // What has come since is for the next pass.
        assert_eq!(read(&mut pass, &frames), "12\r\ndata: a\n\ndata: b\n\n\r\n");
        assert_eq!(pass.chunk().expect("it was made").as_ptr(), shared);
    }

    #[test]
    fn a_stream_behind_or_ahead_of_the_others_gets_what_it_lacks() {
        let frames = frames();
        let mut pass = Pass::default();
        assert_eq!(
            read(&mut pass, &frames[1..]),
            "12\r\ndata: b\n\ndata: c\n\n\r\n"
        );
        assert_eq!(read(&mut pass, &frames), ALL);
        assert_eq!(read(&mut pass, &frames[2..]), "9\r\ndata: c\n\n\r\n");
        assert_eq!(read(&mut pass, &frames), ALL);
    }

    #[test]
    fn a_stream_that_stops_half_way_limits_no_other() {
        let frames = frames();
        let mut pass = Pass::default();
        assert_eq!(read(&mut pass, &frames), ALL);
        // It is cut while it is read from: nothing says that there was no more.
        pass.begin();
        assert!(pass.push(frames[0].0.clone(), 1));
        assert_eq!(text(&mut pass), "9\r\ndata: a\n\n\r\n");
        assert_eq!(read(&mut pass, &frames), ALL);
    }

    #[test]
    fn the_same_frame_twice_is_two_events() {
        let [(frame, _), ..] = frames();
        let events = [(frame.clone(), 1), (frame, 2)];
        let mut pass = Pass::default();
        // This one has written the first of the two by itself.
        assert_eq!(read(&mut pass, &events[1..]), "9\r\ndata: a\n\n\r\n");
        assert_eq!(read(&mut pass, &events), "12\r\ndata: a\n\ndata: a\n\n\r\n");
    }
}
