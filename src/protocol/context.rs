//! One stream for all protocols.

use serde::Serialize;
use serde::de::Error as _;
use serde_json::{Error, Value};
use tidings_agui::record::{Extra, FromJson, required, tag};
use tidings_agui::{deserialize_from_json, from_json_by_serde};

use super::a2a::A2aEvent;
use super::agui::Event;
use super::system::SystemEvent;
use crate::error::EncodeError;
use crate::event::{Data, ToSse};

/// An event of any protocol, for streams that carry everything that concerns a user.
///
/// Its JSON names the protocol: `{"protocol":"agui","event":{…}}`. As a server-sent event its name is the protocol.
///
/// ```
/// use tidings::Frame;
/// use tidings::protocol::{agui::Event, context::ContextEvent, system::SystemEvent};
///
/// let event = ContextEvent::from(Event::step_started("search").without_timestamp());
/// let frame = Frame::encode(&event)?;
/// assert_eq!(
///     frame.data(),
///     r#"{"protocol":"agui","event":{"type":"STEP_STARTED","stepName":"search"}}"#
/// );
/// let frame = Frame::encode(&ContextEvent::from(SystemEvent::Heartbeat))?;
/// assert_eq!(frame.data(), r#"{"protocol":"system","event":{"type":"heartbeat"}}"#);
/// # Ok::<(), tidings::EncodeError>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "protocol", content = "event")]
#[non_exhaustive]
pub enum ContextEvent {
    /// An AG-UI event: `agui`.
    #[serde(rename = "agui")]
    AgUi(Event),
    /// An A2A event: `a2a`.
    #[serde(rename = "a2a")]
    A2a(A2aEvent),
    /// An event of the application itself: `system`.
    #[serde(rename = "system")]
    System(SystemEvent),
}

impl ContextEvent {
    /// The protocol's name.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::AgUi(_) => "agui",
            Self::A2a(_) => "a2a",
            Self::System(_) => "system",
        }
    }
}

impl FromJson for ContextEvent {
    fn from_json(value: Value) -> Result<Self, Error> {
        let mut fields = Extra::from_json(value)?;
        let protocol = tag(&mut fields, "protocol")?;
        match &*protocol {
            "agui" => required(&mut fields, "event").map(Self::AgUi),
            "a2a" => required(&mut fields, "event").map(Self::A2a),
            "system" => required(&mut fields, "event").map(Self::System),
            other => Err(Error::unknown_variant(other, &["agui", "a2a", "system"])),
        }
    }
}

deserialize_from_json!(ContextEvent from Extra);
from_json_by_serde!(A2aEvent);

impl From<Event> for ContextEvent {
    fn from(event: Event) -> Self {
        Self::AgUi(event)
    }
}

impl From<A2aEvent> for ContextEvent {
    fn from(event: A2aEvent) -> Self {
        Self::A2a(event)
    }
}

impl From<SystemEvent> for ContextEvent {
    fn from(event: SystemEvent) -> Self {
        Self::System(event)
    }
}

impl ToSse for ContextEvent {
    fn event(&self) -> Option<&str> {
        Some(self.protocol())
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        wrap(self.protocol(), data, |data| match self {
            Self::AgUi(event) => event.data(data),
            Self::A2a(event) => event.data(data),
            Self::System(event) => event.data(data),
        })
    }
}

/// Writes what `event` writes, which is JSON, with the name of its protocol around it.
pub(crate) fn wrap(
    protocol: &str,
    data: &mut Data<'_>,
    event: impl FnOnce(&mut Data<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    data.text(r#"{"protocol":""#);
    data.text(protocol);
    data.text(r#"","event":"#);
    event(data)?;
    data.text("}");
    Ok(())
}
