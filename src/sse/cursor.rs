//! An id that is of no event.

use bytes::Bytes;

use crate::frame::Frame;
use crate::id::EventId;

/// The form in which a stream gives its client an id that is of no event, see [`SseBody::cursor`](super::SseBody::cursor).
///
/// `true` is a [`Block`](Self::Block), `false` is [`Off`](Self::Off).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cursor {
    /// None is given. A client that is cut off before its first event comes back without an id, and what was broadcast
    /// meanwhile is lost without a word. Between several [nodes](crate::backplane), the
    /// client of a user who has been quiet for longer than the log keeps events gets a gap although it has missed nothing.
    Off,
    /// A block that has an id and no data, which is no event by the standard.
    ///
    /// Browsers and the npm package `eventsource` (up to 2 and since 5.1.1) remember the id and dispatch nothing. That
    /// package from 3.0 to 5.1.0 and the crate `eventsource-client` ignore it. `@microsoft/fetch-event-source` and
    /// `httpx-sse` report an event without data.
    Block,
    /// An event of the name `cursor` with the id in its data, `{"id":"…"}`, which all clients remember. Only for clients
    /// that do not take an event they do not know for an error.
    Event,
}

impl From<bool> for Cursor {
    fn from(is_on: bool) -> Self {
        if is_on { Self::Block } else { Self::Off }
    }
}

impl Cursor {
    /// What gives the client this id.
    pub(super) fn bytes(self, id: &EventId) -> Bytes {
        match self {
            Self::Off => Bytes::new(),
            Self::Block => [&Frame::id_line(id)[..], b"\n"].concat().into(),
            Self::Event => {
                let data = format!("{{\"id\":\"{id}\"}}");
                format!("id: {id}\nevent: cursor\ndata: {data}\n\n").into()
            }
        }
    }
}
