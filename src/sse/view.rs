//! Views: which of a user's events one client gets, and in which form.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;

use super::HEARTBEAT_INTERVAL;
use crate::frame::Frame;
use crate::gap::Gap;

/// Decides, frame by frame, what the client of one stream gets: some of the events, or the events in another form. For
/// [`SseBody::view`](super::SseBody::view).
///
/// The bytes of a frame are shared by all streams; a view adds its own before and after, and copies nothing.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use tidings::Frame;
/// use tidings::sse::{Chunks, View};
///
/// /// Each event's data as the result of one JSON-RPC call.
/// struct Results {
///     prefix: bytes::Bytes,
/// }
///
/// impl View for Results {
///     fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
///         if let Some(json) = frame.data_line() {
///             chunks.push(self.prefix.clone());
///             chunks.push(json);
///             chunks.push("}\n\n");
///         }
///         ControlFlow::Continue(())
///     }
/// }
/// ```
pub trait View: Send + Sync + 'static {
    /// Shows something before the first event; by default nothing. `Break` ends the stream after what was shown, for example
    /// if that was all there is.
    fn begin(&mut self, chunks: &mut Chunks) -> ControlFlow<()> {
        let _ = chunks;
        ControlFlow::Continue(())
    }

    /// Shows an event, or leaves it out. `Break` ends the stream after what was shown.
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()>;

    /// Shows that events are missing; by default as the event `gap`.
    fn gap(&mut self, gap: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        chunks.push(Frame::gap(gap).to_bytes());
        ControlFlow::Continue(())
    }

    /// Shows something at the end of a stream that is ended from outside; by default nothing.
    fn end(&mut self, chunks: &mut Chunks) {
        let _ = chunks;
    }

    /// How long the client may get nothing, if the [`KeepAlive`](crate::KeepAlive) names no interval; by default
    /// [`HEARTBEAT_INTERVAL`].
    fn keep_alive_interval(&self) -> Duration {
        HEARTBEAT_INTERVAL
    }
}

/// The bytes to send, piece by piece.
#[derive(Debug, Default)]
pub struct Chunks(VecDeque<Bytes>);

impl Chunks {
    /// Adds a piece. Together the pieces have to be whole events: each a number of lines and an empty line.
    pub fn push(&mut self, piece: impl Into<Bytes>) {
        let piece = piece.into();
        if !piece.is_empty() {
            self.0.push_back(piece);
        }
    }

    pub(super) fn push_front(&mut self, piece: Bytes) {
        self.0.push_front(piece);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.0.pop_front()
    }
}
