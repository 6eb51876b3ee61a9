//! An event: what all have in common, and its body.

use serde::Serialize;
use serde::de::Error as _;
use serde_json::{Error, Number, Value};

use super::check::{self, Check, InvalidEvent, Problem, at};
use super::events::*;
use crate::clock;
use crate::deserialize_from_json;
use crate::record::{Extra, FromJson, Metadata, optional, tag};

/// One AG-UI event.
///
/// Its JSON is an object with the body's fields and these.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The type, and the fields of its own.
    #[serde(flatten)]
    pub body: Body,
    /// When it happened, in milliseconds since 1970. A number with a fraction, which AG-UI had before 1.0, comes back as it
    /// was, but fails the check: see [`whole_timestamp`](Self::whole_timestamp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Number>,
    /// The event of the agent's framework that this one was made from. Not null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_event: Option<Value>,
    /// Information of the application's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// The subagent that the event comes from, if not the agent itself. Events that are about a subagent have the id in
    /// their bodies instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subagent_run_id: Option<String>,
}

impl Event {
    /// Builds an event that happens now.
    pub fn new(body: impl Into<Body>) -> Self {
        Self {
            timestamp: Some(clock::now().into()),
            ..Self::without_time(body.into())
        }
    }

    fn without_time(body: Body) -> Self {
        Self {
            body,
            timestamp: None,
            raw_event: None,
            metadata: None,
            subagent_run_id: None,
        }
    }

    /// Sets the time, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis.into());
        self
    }

    /// Drops the fraction of the time, at which the official client of 1.0 ends the run.
    #[must_use]
    pub fn whole_timestamp(mut self) -> Self {
        if let Some(time) = &mut self.timestamp {
            if let (None, Some(millis)) = (time.as_i64(), time.as_f64()) {
                *time = (millis as i64).into();
            }
        }
        self
    }

    /// Takes the time away.
    #[must_use]
    pub fn without_timestamp(mut self) -> Self {
        self.timestamp = None;
        self
    }

    /// Sets the event of the agent's framework that this one was made from.
    #[must_use]
    pub fn raw_event(mut self, raw: impl Into<Value>) -> Self {
        self.raw_event = Some(raw.into());
        self
    }

    /// Sets the information of the application's own.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Says which subagent the event comes from.
    #[must_use]
    pub fn subagent_run_id(mut self, id: impl Into<String>) -> Self {
        self.subagent_run_id = Some(id.into());
        self
    }

    /// The type's name, such as `RUN_STARTED`.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.body.type_name()
    }

    /// Looks for values at which the official clients would end a run, although the types allow them: an integer that
    /// JavaScript does not hold, a time with a fraction, `null` in place of absence, an outcome `interrupt` without an
    /// interrupt, a patch with an invalid path, a field that is there twice. The order of events is not looked at.
    ///
    /// Costs a look at each field. Only an event with fields that are not known here allocates: a string for each known name
    /// that it is compared with.
    ///
    /// # Errors
    ///
    /// The first that is found.
    pub fn check(&self) -> Result<(), InvalidEvent> {
        self.check_fields().map_err(at(self.type_name()))
    }

    fn check_fields(&self) -> Result<(), InvalidEvent> {
        const COMMON: &[&str] = &["type", "timestamp", "raw_event", "metadata"];
        const SUBAGENT: &str = "subagent_run_id";
        self.body.check()?;
        if let Body::RunFinished(RunFinished {
            outcome: Some(Outcome::Interrupt(outcome)),
            ..
        }) = &self.body
        {
            outcome.check_not_empty().map_err(at("outcome"))?;
        }
        check::not_shadowed(self.body.extra(), COMMON)?;
        if self.subagent_run_id.is_some() {
            check::not_shadowed(self.body.extra(), &[SUBAGENT])?;
            if self.body.is_about_subagent() {
                return Err(at(SUBAGENT)(InvalidEvent::new(Problem::Twice)));
            }
        }
        if let Some(time) = &self.timestamp {
            check::whole(time).map_err(at("timestamp"))?;
        }
        if let Some(raw) = &self.raw_event {
            raw.check_present().map_err(at("raw_event"))?;
        }
        Ok(())
    }
}

impl<B: Into<Body>> From<B> for Event {
    fn from(body: B) -> Self {
        Self::new(body)
    }
}

impl FromJson for Event {
    fn from_json(value: Value) -> Result<Self, Error> {
        let mut fields = Extra::from_json(value)?;
        let name = tag(&mut fields, "type")?;
        let event = Self::of_fields(&name, fields);
        event.map_err(|error| Error::custom(format_args!("{name}: {error}")))
    }
}

deserialize_from_json!(Event from Extra);

impl Event {
    fn of_fields(name: &str, mut fields: Extra) -> Result<Self, Error> {
        let timestamp = optional(&mut fields, "timestamp")?;
        let raw_event = fields.remove("rawEvent");
        let metadata = optional(&mut fields, "metadata")?;
        let subagent_run_id = if name.starts_with("SUBAGENT_") {
            None
        } else {
            optional(&mut fields, "subagentRunId")?
        };
        Ok(Self {
            timestamp,
            raw_event,
            metadata,
            subagent_run_id,
            ..Self::without_time(Body::of_fields(name, fields)?)
        })
    }
}

/// Defines the body of events from a table of their types.
macro_rules! bodies {
    ($($(#[$doc:meta])* $name:literal => $variant:ident,)*) => {
        /// What an event says: its type, and the fields that only this type has.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(tag = "type")]
        #[non_exhaustive]
        pub enum Body {
            $(
                #[doc = concat!("`", $name, "`.")]
                #[serde(rename = $name)]
                $variant($variant),
            )*
            /// A type that is not known here.
            #[serde(untagged)]
            Unknown(Unknown),
        }

        impl Body {
            /// The names of all types that are known, in the order of the variants.
            pub const TYPES: &[&str] = &[$($name,)*];

            /// The type's name, such as `RUN_STARTED`.
            #[must_use]
            pub fn type_name(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $name,)*
                    Self::Unknown(unknown) => &unknown.name,
                }
            }

            fn of_fields(name: &str, fields: Extra) -> Result<Self, Error> {
                Ok(match name {
                    $($name => Self::$variant($variant::from_json(fields.into())?),)*
                    _ => Self::Unknown(Unknown { name: name.to_owned(), fields }),
                })
            }

            fn extra(&self) -> &Extra {
                match self {
                    $(Self::$variant(body) => &body.extra,)*
                    Self::Unknown(unknown) => &unknown.fields,
                }
            }

            fn check(&self) -> Result<(), InvalidEvent> {
                match self {
                    $(Self::$variant(body) => body.check(),)*
                    Self::Unknown(unknown) => unknown.check(),
                }
            }
        }

        $(impl From<$variant> for Body {
            fn from(body: $variant) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

bodies! {
    "RUN_STARTED" => RunStarted,
    "RUN_FINISHED" => RunFinished,
    "RUN_ERROR" => RunError,
    "STEP_STARTED" => StepStarted,
    "STEP_FINISHED" => StepFinished,
    "TEXT_MESSAGE_START" => TextMessageStart,
    "TEXT_MESSAGE_CONTENT" => TextMessageContent,
    "TEXT_MESSAGE_END" => TextMessageEnd,
    "TEXT_MESSAGE_CHUNK" => TextMessageChunk,
    "TOOL_CALL_START" => ToolCallStart,
    "TOOL_CALL_ARGS" => ToolCallArgs,
    "TOOL_CALL_END" => ToolCallEnd,
    "TOOL_CALL_CHUNK" => ToolCallChunk,
    "TOOL_CALL_RESULT" => ToolCallResult,
    "STATE_SNAPSHOT" => StateSnapshot,
    "STATE_DELTA" => StateDelta,
    "MESSAGES_SNAPSHOT" => MessagesSnapshot,
    "ACTIVITY_SNAPSHOT" => ActivitySnapshot,
    "ACTIVITY_DELTA" => ActivityDelta,
    "RAW" => Raw,
    "CUSTOM" => Custom,
    "REASONING_START" => ReasoningStart,
    "REASONING_MESSAGE_START" => ReasoningMessageStart,
    "REASONING_MESSAGE_CONTENT" => ReasoningMessageContent,
    "REASONING_MESSAGE_END" => ReasoningMessageEnd,
    "REASONING_MESSAGE_CHUNK" => ReasoningMessageChunk,
    "REASONING_END" => ReasoningEnd,
    "REASONING_ENCRYPTED_VALUE" => ReasoningEncryptedValue,
    "SUBAGENT_STARTED" => SubagentStarted,
    "SUBAGENT_FINISHED" => SubagentFinished,
    "SUBAGENT_ERROR" => SubagentError,
}

impl Body {
    fn is_about_subagent(&self) -> bool {
        matches!(
            self,
            Self::SubagentStarted(_) | Self::SubagentFinished(_) | Self::SubagentError(_)
        )
    }
}

impl From<Unknown> for Body {
    fn from(unknown: Unknown) -> Self {
        Self::Unknown(unknown)
    }
}

/// An event of a type that is not known here: a later version's, or an extension's.
///
/// The official client of 1.0 drops such events with a warning, those before it end the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unknown {
    /// The type.
    #[serde(rename = "type")]
    pub name: String,
    /// Its fields, without those that all events have.
    #[serde(flatten)]
    pub fields: Extra,
}

impl Unknown {
    /// Builds an event of this type.
    pub fn new(name: impl Into<String>, fields: Extra) -> Self {
        Self {
            name: name.into(),
            fields,
        }
    }

    fn check(&self) -> Result<(), InvalidEvent> {
        if self.name.is_empty() || self.name.contains(['\r', '\n', '\0']) {
            return Err(at("type")(InvalidEvent::new(Problem::NotAName)));
        }
        Ok(())
    }
}
