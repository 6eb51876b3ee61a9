//! The common events, in the words of the protocol. All happen now.

use serde_json::Value;

use super::content::Content;
use super::event::Event;
use super::events::*;
use super::message::Message;

impl Event {
    /// A run begins.
    pub fn run_started(thread: impl Into<String>, run: impl Into<String>) -> Self {
        Self::new(RunStarted::new(thread, run))
    }

    /// A run has come to its end.
    pub fn run_finished(thread: impl Into<String>, run: impl Into<String>) -> Self {
        Self::new(RunFinished::new(thread, run))
    }

    /// A run has failed, which ends it.
    pub fn run_error(message: impl Into<String>) -> Self {
        Self::new(RunError::new(message))
    }

    /// A step of the run begins.
    pub fn step_started(name: impl Into<String>) -> Self {
        Self::new(StepStarted::new(name))
    }

    /// A step of the run has come to its end.
    pub fn step_finished(name: impl Into<String>) -> Self {
        Self::new(StepFinished::new(name))
    }

    /// The agent begins to write a message.
    pub fn text_message_start(message: impl Into<String>) -> Self {
        Self::new(TextMessageStart::new(message).role(TextMessageRole::Assistant))
    }

    /// More of a message's text.
    pub fn text_message_content(message: impl Into<String>, delta: impl Into<String>) -> Self {
        Self::new(TextMessageContent::new(message, delta))
    }

    /// A message is complete.
    pub fn text_message_end(message: impl Into<String>) -> Self {
        Self::new(TextMessageEnd::new(message))
    }

    /// The agent begins to call a tool.
    pub fn tool_call_start(call: impl Into<String>, tool: impl Into<String>) -> Self {
        Self::new(ToolCallStart::new(call, tool))
    }

    /// More of a call's arguments, which are JSON in pieces.
    pub fn tool_call_args(call: impl Into<String>, delta: impl Into<String>) -> Self {
        Self::new(ToolCallArgs::new(call, delta))
    }

    /// A call's arguments are complete.
    pub fn tool_call_end(call: impl Into<String>) -> Self {
        Self::new(ToolCallEnd::new(call))
    }

    /// What a tool returned, as a message of its own.
    pub fn tool_call_result(
        message: impl Into<String>,
        call: impl Into<String>,
        content: impl Into<Content>,
    ) -> Self {
        Self::new(ToolCallResult::new(message, call, content).role(ToolRole::Tool))
    }

    /// The whole state that client and agent share.
    pub fn state_snapshot(state: impl Into<Value>) -> Self {
        Self::new(StateSnapshot::new(state))
    }

    /// Changes to the state, applied in order.
    pub fn state_delta(delta: impl Into<Vec<PatchOperation>>) -> Self {
        Self::new(StateDelta::new(delta))
    }

    /// The whole conversation.
    pub fn messages_snapshot(messages: impl Into<Vec<Message>>) -> Self {
        Self::new(MessagesSnapshot::new(messages))
    }

    /// Something of the application's own.
    pub fn custom(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(Custom::new(name, value))
    }

    /// The agent begins to think.
    pub fn reasoning_start(id: impl Into<String>) -> Self {
        Self::new(ReasoningStart::new(id))
    }

    /// The agent begins a message about what it thinks.
    pub fn reasoning_message_start(message: impl Into<String>) -> Self {
        Self::new(ReasoningMessageStart::new(
            message,
            ReasoningRole::Reasoning,
        ))
    }

    /// More of a reasoning message's text.
    pub fn reasoning_message_content(message: impl Into<String>, delta: impl Into<String>) -> Self {
        Self::new(ReasoningMessageContent::new(message, delta))
    }

    /// A reasoning message is complete.
    pub fn reasoning_message_end(message: impl Into<String>) -> Self {
        Self::new(ReasoningMessageEnd::new(message))
    }

    /// The agent has thought.
    pub fn reasoning_end(id: impl Into<String>) -> Self {
        Self::new(ReasoningEnd::new(id))
    }
}
