//! Keep-alives: what is written while there is nothing to send, so that proxies and clients see that the connection is
//! alive.

use std::time::Duration;

use bytes::Bytes;

use super::Cursor;
use crate::event::Text;
use crate::frame::Frame;
use crate::id::EventId;
use crate::time::LONGEST;

/// How long a stream may be silent before a keep-alive is written, unless it is an agent's: 15 seconds.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// How long a stream of AG-UI or A2A events may be silent before a keep-alive is written: 4 seconds.
///
/// The official Python client of A2A gives up after 5 seconds without a byte, OkHttp after 10.
pub const AGENT_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(4);

/// The data of the heartbeat event.
pub const HEARTBEAT_JSON: &str = r#"{"type":"heartbeat"}"#;

/// A keep-alive that clients see: the event `heartbeat` with the data [`HEARTBEAT_JSON`], the same as
/// [`KeepAlive::heartbeat_event`].
///
/// It is neither the default nor, despite its name, safe for all clients. Strict ones, among them the official A2A clients
/// and older AG-UI clients, end the stream with an error when it arrives. Use it for clients of your own; the default,
/// [`KeepAlive::comment`], is the form that every client ignores.
#[must_use]
pub fn standard_keep_alive() -> KeepAlive {
    KeepAlive::heartbeat_event()
}

/// An empty comment. No empty line follows it: some clients take that for an event.
pub(super) const COMMENT: &[u8] = b":\n";

/// What a stream sends when it has been silent for a while, always between whole events.
///
/// The default is [`comment`](Self::comment), every 15 seconds or, on streams of AG-UI and A2A, every 4.
///
/// # Ids
///
/// With a [history](crate::History), a keep-alive carries an id when the stream's position has moved on since its client last
/// got one. Each position is sent once. The position moves without an event for the client in two cases: several
/// [nodes](crate::backplane) share a log, which also has the events of other users; or a [view](super::View) hides events. A
/// client that kept its old id would get a [gap](crate::GapReason::Evicted) when it reconnects after the log has dropped that
/// part, although it has missed nothing.
///
/// A heartbeat event carries the id itself. A comment is replaced by the id in the form of the stream's
/// [`cursor`](super::SseBody::cursor). With [`Cursor::Off`], which is the default for views and for
/// [`LagPolicy::End`](crate::LagPolicy::End), and in axum's own `Sse`, there is no id. Choose `Cursor::Off` or
/// [`Cursor::Event`] for clients that report a block without data as an event, and so would do it about once a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAlive {
    /// `None`: the default of the stream.
    pub(super) interval: Option<Duration>,
    pub(super) form: Option<Form>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Comment,
    HeartbeatEvent,
}

impl Form {
    /// What to write, with an id for the client if there is one.
    pub(super) fn bytes(self, cursor: Cursor, id: Option<&EventId>) -> Bytes {
        match (self, id) {
            (Self::Comment, None) => Bytes::from_static(COMMENT),
            (Self::Comment, Some(id)) => cursor.bytes(id),
            (Self::HeartbeatEvent, None) => heartbeat_frame().to_bytes(),
            (Self::HeartbeatEvent, Some(id)) => [Frame::id_line(id), heartbeat_frame().to_bytes()]
                .concat()
                .into(),
        }
    }
}

impl KeepAlive {
    /// A line with an empty comment, `:` and LF. No client shows it: of all forms it is the only one that no client we
    /// tested took for an event or an error. Where the position has [moved](Self#ids), the id is sent instead, as a
    /// block without data in the default form; a few clients [report that](super::Cursor::Block) as an event without
    /// data.
    #[must_use]
    pub fn comment() -> Self {
        Self {
            interval: None,
            form: Some(Form::Comment),
        }
    }

    /// An event named `heartbeat` whose data is [`HEARTBEAT_JSON`]. It has an id only if the position has
    /// [moved](Self#ids).
    ///
    /// Only for clients of your own that want to see it. Strict ones, among them the official A2A clients and older
    /// AG-UI clients, end the stream with an error when it arrives.
    #[must_use]
    pub fn heartbeat_event() -> Self {
        Self {
            interval: None,
            form: Some(Form::HeartbeatEvent),
        }
    }

    /// No keep-alive. Proxies commonly cut connections that are silent for a minute.
    #[must_use]
    pub fn off() -> Self {
        Self {
            interval: None,
            form: None,
        }
    }

    /// Sets how long a stream may be silent; at least a millisecond, at most thirty years.
    ///
    /// Default: [`HEARTBEAT_INTERVAL`]; for a [view](super::View) what that says, which is [`AGENT_HEARTBEAT_INTERVAL`] for
    /// those of AG-UI and A2A; and at most [`AGENT_HEARTBEAT_INTERVAL`] for streams whose policy is
    /// [`LagPolicy::End`](crate::LagPolicy::End). Choose less than the shortest time-out of clients and proxies. A keep-alive
    /// is a wake-up of the task, a write and a packet for each silent stream: 10,000 silent streams cost 670 of them a
    /// second at 15 seconds, 2,500 at 4. A stream that gets events more often costs nothing more.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval.clamp(Duration::from_millis(1), LONGEST));
        self
    }

    pub(super) fn for_strict_clients(mut self, are_strict: bool) -> Self {
        if are_strict && self.form.is_some() {
            self.form = Some(Form::Comment);
        }
        self
    }
}

pub(super) fn heartbeat_frame() -> Frame {
    let event = Text::new(HEARTBEAT_JSON).event("heartbeat");
    Frame::encode(&event).expect("a name and a line of text can be encoded")
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self::comment()
    }
}
