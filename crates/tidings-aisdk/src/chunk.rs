//! The chunk of a UI message stream.

use serde::Serialize;
use serde_json::Value;
use tidings::{Data, EncodeError, ToSse};

use crate::records::*;

/// The enum of all chunks, and a conversion from each.
macro_rules! chunks {
    ($($(#[$doc:meta])* $tag:literal => $name:ident,)*) => {
        /// A chunk of a UI message stream.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(tag = "type")]
        #[non_exhaustive]
        pub enum Chunk {
            $($(#[$doc])* #[serde(rename = $tag)] $name($name),)*
            /// Data of the application's own: `data-*`.
            #[serde(untagged)]
            Data(DataPart),
        }

        $(impl From<$name> for Chunk {
            fn from(chunk: $name) -> Self {
                Self::$name(chunk)
            }
        })*

        impl From<DataPart> for Chunk {
            fn from(chunk: DataPart) -> Self {
                Self::Data(chunk)
            }
        }
    };
}

chunks! {
    /// The message begins.
    "start" => Start,
    /// A step begins.
    "start-step" => StartStep,
    /// A step ends.
    "finish-step" => FinishStep,
    /// What the current step has said is withdrawn.
    "reset-step" => ResetStep,
    /// The message is finished.
    "finish" => Finish,
    /// The run was given up.
    "abort" => Abort,
    /// Something failed.
    "error" => Failure,
    /// Metadata of the message.
    "message-metadata" => MessageMetadata,
    /// A text begins.
    "text-start" => TextStart,
    /// A piece of a text.
    "text-delta" => TextDelta,
    /// A text ends.
    "text-end" => TextEnd,
    /// A piece of reasoning begins.
    "reasoning-start" => ReasoningStart,
    /// A piece of reasoning.
    "reasoning-delta" => ReasoningDelta,
    /// A piece of reasoning ends.
    "reasoning-end" => ReasoningEnd,
    /// The input of a tool begins.
    "tool-input-start" => ToolInputStart,
    /// A piece of a tool's input.
    "tool-input-delta" => ToolInputDelta,
    /// The input of a tool is complete.
    "tool-input-available" => ToolInputAvailable,
    /// The input of a tool is wrong.
    "tool-input-error" => ToolInputError,
    /// A tool may run only if the user approves.
    "tool-approval-request" => ToolApprovalRequest,
    /// The user's answer to that.
    "tool-approval-response" => ToolApprovalResponse,
    /// The output of a tool.
    "tool-output-available" => ToolOutputAvailable,
    /// A tool failed.
    "tool-output-error" => ToolOutputError,
    /// The user did not approve of a tool.
    "tool-output-denied" => ToolOutputDenied,
    /// A page that the answer refers to.
    "source-url" => SourceUrl,
    /// A document that the answer refers to.
    "source-document" => SourceDocument,
    /// A file.
    "file" => FilePart,
    /// A file that belongs to the reasoning.
    "reasoning-file" => ReasoningFile,
    /// Content that only its provider knows.
    "custom" => Custom,
    /// A message that the user added to the run.
    "steering-message" => SteeringMessage,
}

/// Data of the application's own.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DataPart {
    #[serde(rename = "type")]
    kind: String,
    /// Data with the same id replace each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Any JSON.
    pub data: Value,
    /// Whether it is kept out of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transient: Option<bool>,
}

impl DataPart {
    /// Data of the type `data-<name>`.
    #[must_use]
    pub fn new(name: &str, data: impl Into<Value>) -> Self {
        Self {
            kind: format!("data-{name}"),
            id: None,
            data: data.into(),
            transient: None,
        }
    }

    /// Sets [`id`](Self#structfield.id).
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets [`transient`](Self#structfield.transient).
    #[must_use]
    pub fn transient(mut self, transient: bool) -> Self {
        self.transient = Some(transient);
        self
    }
}

impl ToSse for Chunk {
    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.json(self)
    }
}
