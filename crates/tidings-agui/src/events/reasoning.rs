//! What the agent thinks.

use crate::wire::{wire, words};

wire! {
    /// The agent begins to think.
    struct ReasoningStart {
        /// The span's id.
        message_id: String,
    } optional {}

    /// A message about it begins.
    struct ReasoningMessageStart {
        /// The message.
        message_id: String,
        /// Its role, which can only be this.
        role: ReasoningRole,
    } optional {}

    /// More of a message's text.
    struct ReasoningMessageContent {
        /// The message, which must have begun.
        message_id: String,
        /// The text.
        delta: String,
    } optional {}

    /// A message is complete.
    struct ReasoningMessageEnd {
        /// The message, which must have begun.
        message_id: String,
    } optional {}

    /// A piece of a message that begins and ends by itself.
    #[derive(Default)]
    struct ReasoningMessageChunk {} optional {
        /// The message; required of the first piece.
        message_id: String,
        /// The text.
        delta: String,
    }

    /// The agent has thought.
    struct ReasoningEnd {
        /// The span's id.
        message_id: String,
    } optional {}

    /// What the provider encrypted of a message or a call, to be handed back to it later.
    struct ReasoningEncryptedValue {
        /// What it belongs to.
        subtype: EncryptedSubtype,
        /// The id of that.
        entity_id: String,
        /// The value.
        encrypted_value: String,
    } optional {}
}

words! {
    /// The role of reasoning messages.
    enum ReasoningRole {
        /// Reasoning.
        "reasoning" => Reasoning,
    }
}

words! {
    /// What an encrypted value belongs to.
    enum EncryptedSubtype {
        /// A call of a tool.
        "tool-call" => ToolCall,
        /// A message.
        "message" => Message,
    }
}
