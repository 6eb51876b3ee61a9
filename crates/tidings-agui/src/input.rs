//! What a client asks for: the body of its POST.

use serde::{Deserialize, Serialize};
use serde_json::{Error, Value};

use super::check::{Check, InvalidEvent};
use super::message::Message;
use super::wire::{wire, words};
use crate::record::{FromJson, Metadata};

wire! {
    /// A request to run an agent.
    ///
    /// Clients before 1.0 require `tools` and `context` when an input is echoed to them, so set both there, if only to empty lists.
    struct RunAgentInput {
        /// The conversation.
        thread_id: String,
        /// The run.
        run_id: String,
        /// The conversation so far.
        messages: Vec<Message>,
    } optional {
        /// The version that the client speaks.
        protocol_version: String,
        /// The run that this one goes on from.
        parent_run_id: String,
        /// The state that client and agent share.
        state: State,
        /// What the client can do for the agent.
        tools: Vec<Tool>,
        /// What the agent shall know.
        context: Vec<Context>,
        /// Whatever the application hands to its agent. Not null.
        forwarded_props: Value,
        /// Answers to interrupts of the run before.
        resume: Vec<ResumeEntry>,
    }

    /// Something that the client can do for the agent.
    struct Tool {
        /// Its name.
        name: String,
        /// What it does, for the model.
        description: String,
    } optional {
        /// A JSON schema of its arguments. Not null.
        parameters: Value,
        /// Information of the application's own.
        metadata: Metadata,
    }

    /// Something that the agent shall know.
    struct Context {
        /// What it is.
        description: String,
        /// The thing itself.
        value: String,
    } optional {}

    /// The answer to an interrupt.
    struct ResumeEntry {
        /// The interrupt.
        interrupt_id: String,
        /// What became of it.
        status: ResumeStatus,
    } optional {
        /// The answer. Not null.
        payload: Value,
        /// Information of the application's own.
        metadata: Metadata,
    }
}

words! {
    /// What became of an interrupt.
    enum ResumeStatus {
        /// It was answered.
        "resolved" => Resolved,
        /// It was called off.
        "cancelled" => Cancelled,
    }
}

/// The state that client and agent share: any JSON. Clients take `null` for none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct State(pub Value);

impl FromJson for State {
    fn from_json(value: Value) -> Result<Self, Error> {
        Ok(Self(value))
    }
}

impl From<Value> for State {
    fn from(state: Value) -> Self {
        Self(state)
    }
}

impl Check for State {
    fn check(&self) -> Result<(), InvalidEvent> {
        Ok(())
    }
}
