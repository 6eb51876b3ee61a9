//! The messages of a conversation.

use super::content::Content;
use super::wire::{tagged, wire};
use crate::record::{Extra, Metadata};

tagged! {
    /// A message of a conversation.
    enum Message by "role" {
        /// Instructions of the application.
        "developer" => Developer(DeveloperMessage),
        /// Instructions of the system.
        "system" => System(SystemMessage),
        /// What the agent said.
        "assistant" => Assistant(AssistantMessage),
        /// What the user said.
        "user" => User(UserMessage),
        /// What a tool returned.
        "tool" => Tool(ToolMessage),
        /// What is going on, shown by the application.
        "activity" => Activity(ActivityMessage),
        /// What the agent thought.
        "reasoning" => Reasoning(ReasoningMessage),
    }
}

wire! {
    /// Instructions of the application.
    struct DeveloperMessage {
        /// The message's id.
        id: String,
        /// The text.
        content: String,
    } optional {
        /// Whose it is.
        name: String,
        /// The content as the provider encrypted it.
        encrypted_value: String,
        /// Information of the application's own.
        metadata: Metadata,
        /// The subagent that it belongs to.
        subagent_run_id: String,
    }

    /// Instructions of the system.
    struct SystemMessage {
        /// The message's id.
        id: String,
        /// The text.
        content: String,
    } optional {
        /// Whose it is.
        name: String,
        /// The content as the provider encrypted it.
        encrypted_value: String,
        /// Information of the application's own.
        metadata: Metadata,
        /// The subagent that it belongs to.
        subagent_run_id: String,
    }

    /// What the agent said, and the tools it called.
    struct AssistantMessage {
        /// The message's id.
        id: String,
    } optional {
        /// The text.
        content: String,
        /// The calls.
        tool_calls: Vec<ToolCall>,
        /// Whose it is.
        name: String,
        /// The content as the provider encrypted it.
        encrypted_value: String,
        /// Information of the application's own.
        metadata: Metadata,
        /// The subagent that it belongs to.
        subagent_run_id: String,
    }

    /// What the user said.
    struct UserMessage {
        /// The message's id.
        id: String,
        /// Text or parts.
        content: Content,
    } optional {
        /// Whose it is.
        name: String,
        /// The content as the provider encrypted it.
        encrypted_value: String,
        /// Information of the application's own.
        metadata: Metadata,
        /// The subagent that it belongs to.
        subagent_run_id: String,
    }

    /// What a tool returned.
    struct ToolMessage {
        /// The message's id.
        id: String,
        /// The call that it answers.
        tool_call_id: String,
        /// Text or parts.
        content: Content,
    } optional {
        /// What went wrong.
        error: String,
        /// The content as the provider encrypted it.
        encrypted_value: String,
        /// Information of the application's own.
        metadata: Metadata,
        /// The subagent that it belongs to.
        subagent_run_id: String,
    }

    /// What is going on, in a form that the application knows how to show.
    struct ActivityMessage {
        /// The message's id.
        id: String,
        /// The form.
        activity_type: String,
        /// What to show.
        content: Extra,
    } optional {
        /// Information of the application's own.
        metadata: Metadata,
        /// The subagent that it belongs to.
        subagent_run_id: String,
    }

    /// What the agent thought.
    struct ReasoningMessage {
        /// The message's id.
        id: String,
        /// The text.
        content: String,
    } optional {
        /// The content as the provider encrypted it.
        encrypted_value: String,
        /// Information of the application's own.
        metadata: Metadata,
        /// The subagent that it belongs to.
        subagent_run_id: String,
    }
}

tagged! {
    /// A call of a tool.
    enum ToolCall by "type" {
        /// Of a function.
        "function" => Function(FunctionToolCall),
    }
}

wire! {
    /// A call of a function.
    struct FunctionToolCall {
        /// The call's id.
        id: String,
        /// What is called.
        function: FunctionCall,
    } optional {
        /// The call as the provider encrypted it.
        encrypted_value: String,
        /// Information of the application's own.
        metadata: Metadata,
    }

    /// A function and what it is called with.
    struct FunctionCall {
        /// The function's name.
        name: String,
        /// The arguments, which are JSON in a string.
        arguments: String,
    } optional {}
}
