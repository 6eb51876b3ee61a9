//! The UI message stream of the [AI SDK](https://ai-sdk.dev): its chunks as types, and a run's stream as `useChat` reads it.
//!
//! Give each run a channel of its own. The types write only the fields that are set, so that clients with strict schemas
//! accept them as well.
//!
//! ```
//! use tidings::Frame;
//! use tidings::protocol::aisdk::{Chunk, TextDelta};
//!
//! let frame = Frame::encode(&Chunk::from(TextDelta::new("text-1", "hello")))?;
//! assert_eq!(frame.data(), r#"{"type":"text-delta","id":"text-1","delta":"hello"}"#);
//! # Ok::<(), tidings::EncodeError>(())
//! ```

use std::ops::ControlFlow;

use serde::Serialize;
use serde_json::Value;

use tidings_agui::{Metadata, record};

use crate::error::EncodeError;
use crate::event::{Data, ToSse};
use crate::frame::Frame;
use crate::gap::Gap;
use crate::sse::{Chunks, View};

/// The name and value of the header that marks a response as a UI message stream.
pub const HEADER: (&str, &str) = ("x-vercel-ai-ui-message-stream", "v1");

const DONE: &str = "data: [DONE]\n\n";

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
}

record! {
    /// The message begins.
    struct Start {} optional {
        /// The message's id.
        message_id: String,
        /// Metadata of the application's own.
        message_metadata: Value,
    }

    /// A step begins.
    struct StartStep {} optional {}

    /// A step ends.
    struct FinishStep {} optional {}

    /// The message is finished.
    struct Finish {} optional {
        /// Why: `stop`, `length`, `content-filter`, `tool-calls`, `error` or `other`.
        finish_reason: String,
        /// Metadata of the application's own.
        message_metadata: Value,
    }

    /// The run was given up.
    struct Abort {} optional {
        /// Why.
        reason: String,
    }

    /// Something failed.
    struct Failure {
        /// A sentence for the user.
        error_text: String,
    } optional {}

    /// Metadata of the message.
    struct MessageMetadata {
        /// Any JSON.
        message_metadata: Value,
    } optional {}

    /// A text begins.
    struct TextStart {
        /// The text's id.
        id: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }

    /// A piece of a text.
    struct TextDelta {
        /// The text's id.
        id: String,
        /// What is added to it.
        delta: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }

    /// A text ends.
    struct TextEnd {
        /// The text's id.
        id: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }

    /// A piece of reasoning begins.
    struct ReasoningStart {
        /// Its id.
        id: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }

    /// A piece of reasoning.
    struct ReasoningDelta {
        /// Its id.
        id: String,
        /// What is added to it.
        delta: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }

    /// A piece of reasoning ends.
    struct ReasoningEnd {
        /// Its id.
        id: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }

    /// The input of a tool begins.
    struct ToolInputStart {
        /// The call's id.
        tool_call_id: String,
        /// The tool.
        tool_name: String,
    } optional {
        /// Whether the provider runs the tool.
        provider_executed: bool,
        /// Whether the client does not know the tool.
        dynamic: bool,
        /// A title for people.
        title: String,
    }

    /// A piece of a tool's input.
    struct ToolInputDelta {
        /// The call's id.
        tool_call_id: String,
        /// What is added to the input.
        input_text_delta: String,
    } optional {}

    /// The input of a tool is complete.
    struct ToolInputAvailable {
        /// The call's id.
        tool_call_id: String,
        /// The tool.
        tool_name: String,
        /// The input.
        input: Value,
    } optional {
        /// Whether the provider runs the tool.
        provider_executed: bool,
        /// By provider.
        provider_metadata: Metadata,
        /// Whether the client does not know the tool.
        dynamic: bool,
        /// A title for people.
        title: String,
    }

    /// The input of a tool is wrong.
    struct ToolInputError {
        /// The call's id.
        tool_call_id: String,
        /// The tool.
        tool_name: String,
        /// The input.
        input: Value,
        /// What is wrong with it.
        error_text: String,
    } optional {
        /// Whether the provider runs the tool.
        provider_executed: bool,
        /// By provider.
        provider_metadata: Metadata,
        /// Whether the client does not know the tool.
        dynamic: bool,
        /// A title for people.
        title: String,
    }

    /// A tool may run only if the user approves.
    struct ToolApprovalRequest {
        /// The request's id.
        approval_id: String,
        /// The call's id.
        tool_call_id: String,
    } optional {}

    /// The output of a tool.
    struct ToolOutputAvailable {
        /// The call's id.
        tool_call_id: String,
        /// The output.
        output: Value,
    } optional {
        /// Whether the provider ran the tool.
        provider_executed: bool,
        /// Whether the client does not know the tool.
        dynamic: bool,
        /// Whether another output follows and replaces this one.
        preliminary: bool,
    }

    /// A tool failed.
    struct ToolOutputError {
        /// The call's id.
        tool_call_id: String,
        /// What failed.
        error_text: String,
    } optional {
        /// Whether the provider ran the tool.
        provider_executed: bool,
        /// Whether the client does not know the tool.
        dynamic: bool,
    }

    /// The user did not approve of a tool.
    struct ToolOutputDenied {
        /// The call's id.
        tool_call_id: String,
    } optional {}

    /// A page that the answer refers to.
    struct SourceUrl {
        /// The source's id.
        source_id: String,
        /// Where it is.
        url: String,
    } optional {
        /// Its title.
        title: String,
        /// By provider.
        provider_metadata: Metadata,
    }

    /// A document that the answer refers to.
    struct SourceDocument {
        /// The source's id.
        source_id: String,
        /// Its media type.
        media_type: String,
        /// Its title.
        title: String,
    } optional {
        /// Its file name.
        filename: String,
        /// By provider.
        provider_metadata: Metadata,
    }

    /// A file.
    struct FilePart {
        /// Where it is, also as a `data:` URL.
        url: String,
        /// Its media type.
        media_type: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }
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

/// Shows one run to the AI SDK: the chunks as they are, and `[DONE]` after `finish` or `abort`, which ends the stream. A gap
/// becomes an `error` chunk and ends the stream, since the client does not know the event `gap`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ChunkView;

impl View for ChunkView {
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        let Some(json) = frame.data_line() else {
            return ControlFlow::Continue(());
        };
        // Chunks are written with their type first.
        let is_last = [&br#"{"type":"finish""#[..], br#"{"type":"abort""#]
            .iter()
            .any(|head| json.starts_with(head));
        chunks.push(frame.to_bytes());
        if is_last {
            chunks.push(DONE);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn gap(&mut self, gap: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        let text = format!("Events of this run are missing: {gap}.");
        let error = Frame::encode(&Chunk::from(Failure::new(text)));
        chunks.push(error.expect("a sentence can be encoded").to_bytes());
        chunks.push(DONE);
        ControlFlow::Break(())
    }
}
