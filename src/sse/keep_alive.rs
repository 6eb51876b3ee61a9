//! What is written when there is nothing to send, so that proxies and clients see that the connection lives.

use std::time::Duration;

use bytes::Bytes;

use crate::broadcaster::LONGEST;
use crate::event::Text;
use crate::frame::Frame;

/// How long a stream may be silent before a keep-alive is written: 15 seconds.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// The data of the heartbeat event.
pub const HEARTBEAT_JSON: &str = r#"{"type":"heartbeat"}"#;

/// The heartbeat as an event, every [`HEARTBEAT_INTERVAL`]: see [`KeepAlive::heartbeat_event`].
#[must_use]
pub fn standard_keep_alive() -> KeepAlive {
    KeepAlive::heartbeat_event()
}

/// What is written to a stream that was silent for a while. It never carries an id, and stands between whole events.
///
/// The default is [`comment`](Self::comment) every 15 seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAlive {
    pub(super) interval: Duration,
    pub(super) form: Option<Form>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Comment,
    HeartbeatEvent,
}

impl KeepAlive {
    /// A line with an empty comment, `:` and LF. No client shows it: of all forms it is the only one that none of those
    /// we tried took for an event or an error.
    #[must_use]
    pub fn comment() -> Self {
        Self {
            interval: HEARTBEAT_INTERVAL,
            form: Some(Form::Comment),
        }
    }

    /// An event of the name `heartbeat` whose data is [`HEARTBEAT_JSON`].
    ///
    /// Only for clients of your own that want to see it. Strict ones, among them the official A2A clients and older
    /// AG-UI clients, end the stream with an error when it arrives.
    #[must_use]
    pub fn heartbeat_event() -> Self {
        Self {
            interval: HEARTBEAT_INTERVAL,
            form: Some(Form::HeartbeatEvent),
        }
    }

    /// Nothing. Proxies commonly cut connections that are silent for a minute.
    #[must_use]
    pub fn off() -> Self {
        Self {
            interval: HEARTBEAT_INTERVAL,
            form: None,
        }
    }

    /// Sets how long a stream may be silent; at least a millisecond, at most thirty years. Default
    /// [`HEARTBEAT_INTERVAL`].
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.clamp(Duration::from_millis(1), LONGEST);
        self
    }

    pub(super) fn for_strict_clients(mut self, are_strict: bool) -> Self {
        if are_strict && self.form.is_some() {
            self.form = Some(Form::Comment);
        }
        self
    }

    /// What to write, if anything.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        self.form.as_ref().map(|form| match form {
            Form::Comment => Bytes::from_static(b":\n"),
            Form::HeartbeatEvent => heartbeat_frame().to_bytes(),
        })
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
