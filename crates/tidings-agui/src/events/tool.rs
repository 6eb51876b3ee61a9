//! Calls of tools, as they are written, and what came of them.

use crate::content::Content;
use crate::wire::{wire, words};

wire! {
    /// A call begins.
    struct ToolCallStart {
        /// The call.
        tool_call_id: String,
        /// The tool.
        tool_call_name: String,
    } optional {
        /// The message that the call is part of.
        parent_message_id: String,
    }

    /// More of a call's arguments.
    struct ToolCallArgs {
        /// The call, which must have begun.
        tool_call_id: String,
        /// A piece of JSON.
        delta: String,
    } optional {}

    /// A call's arguments are complete.
    struct ToolCallEnd {
        /// The call, which must have begun.
        tool_call_id: String,
    } optional {}

    /// A piece of a call that begins and ends by itself.
    #[derive(Default)]
    struct ToolCallChunk {} optional {
        /// The call; required of the first piece.
        tool_call_id: String,
        /// The tool; required of the first piece.
        tool_call_name: String,
        /// The message that the call is part of.
        parent_message_id: String,
        /// A piece of JSON.
        delta: String,
    }

    /// What a tool returned, as a message.
    struct ToolCallResult {
        /// The message.
        message_id: String,
        /// The call that it answers.
        tool_call_id: String,
        /// Text, or, since AG-UI 1.0, parts.
        content: Content,
    } optional {
        /// The message's role, which can only be the tool's.
        role: ToolRole,
    }
}

words! {
    /// The role of results.
    enum ToolRole {
        /// The tool's.
        "tool" => Tool,
    }
}
