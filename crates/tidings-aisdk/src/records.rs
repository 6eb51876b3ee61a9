//! What each type of chunk says.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidings_agui::{Metadata, from_json_by_serde, read_by_tag, record};

/// Why a message is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model had nothing to add.
    Stop,
    /// The most tokens that the model may say were reached.
    Length,
    /// A filter stopped the model.
    ContentFilter,
    /// The model waits for the results of tools.
    ToolCalls,
    /// The model failed.
    Error,
    /// The run was interrupted. The client sends nothing automatically after it.
    Interrupted,
    /// Another reason.
    Other,
}

/// What the pieces of a tool's input are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum InputEncoding {
    /// Pieces of JSON, also where the field is absent.
    Json,
    /// Pieces of a text.
    Text,
}

from_json_by_serde!(FinishReason, InputEncoding);

/// A part of a message that the user added to the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum SteeringPart {
    /// A text.
    Text(SteeringText),
    /// A file.
    File(SteeringFile),
}

read_by_tag! {
    SteeringPart by "type" {
        "text" => Text(SteeringText),
        "file" => File(SteeringFile),
    }
}

impl From<SteeringText> for SteeringPart {
    fn from(part: SteeringText) -> Self {
        Self::Text(part)
    }
}

impl From<SteeringFile> for SteeringPart {
    fn from(part: SteeringFile) -> Self {
        Self::File(part)
    }
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

    /// What the current step has said is withdrawn.
    struct ResetStep {} optional {}

    /// The message is finished.
    struct Finish {} optional {
        /// Why.
        finish_reason: FinishReason,
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
        /// Sources of the text, each a `Citation` of the AI SDK.
        citations: Vec<Value>,
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
        /// What the pieces of the input are.
        input_encoding: InputEncoding,
        /// Whether the provider runs the tool.
        provider_executed: bool,
        /// By provider.
        provider_metadata: Metadata,
        /// Of the tool itself.
        tool_metadata: Metadata,
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
        /// Of the tool itself.
        tool_metadata: Metadata,
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
        /// Of the tool itself.
        tool_metadata: Metadata,
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
    } optional {
        /// What the user is asked about, as the application has it.
        approval_descriptor: Value,
        /// The input as the tool's schema read it.
        input_schema_input: Value,
        /// Why the user is asked.
        reason: String,
        /// Whether the application answers without the user.
        is_automatic: bool,
        /// A signature that comes back with the answer.
        signature: String,
    }

    /// The user's answer to that.
    struct ToolApprovalResponse {
        /// The request's id.
        approval_id: String,
        /// Whether the tool may run.
        approved: bool,
    } optional {
        /// Why.
        reason: String,
        /// Whether the provider runs the tool.
        provider_executed: bool,
        /// By provider.
        provider_metadata: Metadata,
    }

    /// The output of a tool.
    struct ToolOutputAvailable {
        /// The call's id.
        tool_call_id: String,
        /// The output.
        output: Value,
    } optional {
        /// Whether the provider ran the tool.
        provider_executed: bool,
        /// By provider.
        provider_metadata: Metadata,
        /// Of the tool itself.
        tool_metadata: Metadata,
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
        /// By provider.
        provider_metadata: Metadata,
        /// Of the tool itself.
        tool_metadata: Metadata,
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

    /// A file that belongs to the reasoning.
    struct ReasoningFile {
        /// Where it is, also as a `data:` URL.
        url: String,
        /// Its media type.
        media_type: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }

    /// Content that only its provider knows.
    struct Custom {
        /// Its kind, `<provider>.<kind>`.
        kind: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }

    /// A message that the user added to the run. The AI SDK calls it experimental.
    struct SteeringMessage {
        /// The message's id.
        id: String,
        /// What it says.
        parts: Vec<SteeringPart>,
    } optional {}

    /// A text in a message that the user added to the run.
    struct SteeringText {
        /// The text.
        text: String,
    } optional {
        /// By provider.
        provider_metadata: Metadata,
    }

    /// A file in a message that the user added to the run.
    struct SteeringFile {
        /// Its media type.
        media_type: String,
        /// Where it is, also as a `data:` URL.
        url: String,
    } optional {
        /// Its file name.
        filename: String,
        /// The provider's own id of it, by provider.
        provider_reference: Metadata,
        /// By provider.
        provider_metadata: Metadata,
    }
}
