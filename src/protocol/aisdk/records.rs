//! What each type of chunk says.

use serde_json::Value;

use tidings_agui::{Metadata, record};

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
