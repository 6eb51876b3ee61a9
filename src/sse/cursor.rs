//! Ids that belong to no event.

use bytes::Bytes;

use crate::frame::Frame;
use crate::id::EventId;

/// The form in which a stream sends its client an id that belongs to no event, see
/// [`SseBody::cursor`](super::SseBody::cursor).
///
/// `true` is a [`Block`](Self::Block), `false` is [`Off`](Self::Off).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cursor {
    /// None is sent. A client whose connection breaks before its first event reconnects without an id, and silently
    /// loses what was broadcast in between. Between several [nodes](crate::backplane), the client of a user who has
    /// been quiet for longer than the log keeps events gets a gap although it has missed nothing.
    Off,
    /// A block with an id and no data, which by the standard is not an event.
    ///
    /// Browsers and the npm package `eventsource` (up to 2 and since 5.1.1) remember the id and dispatch nothing. That
    /// package from 3.0 to 5.1.0 and the crate `eventsource-client` ignore it. `@microsoft/fetch-event-source` and
    /// `httpx-sse` report an event without data.
    Block,
    /// An event named `cursor` with the id in its data, `{"id":"…"}`, which all clients remember. Only for clients that
    /// ignore unknown events instead of reporting an error.
    Event,
}

impl From<bool> for Cursor {
    fn from(is_on: bool) -> Self {
        if is_on { Self::Block } else { Self::Off }
    }
}

impl Cursor {
    /// The bytes that give the client this id.
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
