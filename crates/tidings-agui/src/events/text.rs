//! Messages of text, as they are written.

use crate::wire::{wire, words};

wire! {
    /// A message begins.
    struct TextMessageStart {
        /// The message.
        message_id: String,
    } optional {
        /// Whose message it is; the agent's if absent.
        role: TextMessageRole,
        /// The author's name.
        name: String,
    }

    /// More of a message's text.
    struct TextMessageContent {
        /// The message, which must have begun.
        message_id: String,
        /// The text, which may be empty.
        delta: String,
    } optional {}

    /// A message is complete.
    struct TextMessageEnd {
        /// The message, which must have begun.
        message_id: String,
    } optional {}

    /// A piece of a message that begins and ends by itself.
    #[derive(Default)]
    struct TextMessageChunk {} optional {
        /// The message; required of the first piece.
        message_id: String,
        /// Whose message it is.
        role: TextMessageRole,
        /// The text.
        delta: String,
        /// The author's name.
        name: String,
    }
}

words! {
    /// Whose message it is.
    enum TextMessageRole {
        /// The application's.
        "developer" => Developer,
        /// The system's.
        "system" => System,
        /// The agent's.
        "assistant" => Assistant,
        /// The user's.
        "user" => User,
    }
}
