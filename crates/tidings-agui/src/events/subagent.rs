//! Agents that an agent hands work to.

use serde_json::Value;

use crate::wire::{tagged, wire};

wire! {
    /// A subagent begins.
    struct SubagentStarted {
        /// Its run, which events that come from it name.
        subagent_run_id: String,
        /// Its name.
        name: String,
    } optional {
        /// What it is for.
        description: String,
        /// The subagent that it works for, if it is not the agent itself.
        parent_subagent_run_id: String,
        /// The call that began it.
        parent_tool_call_id: String,
        /// The message that began it.
        parent_message_id: String,
    }

    /// A subagent has come to its end.
    struct SubagentFinished {
        /// Its run.
        subagent_run_id: String,
    } optional {
        /// What it returns. Not null.
        result: Value,
        /// How it ended.
        outcome: SubagentOutcome,
    }

    /// A subagent has failed.
    struct SubagentError {
        /// Its run.
        subagent_run_id: String,
        /// What went wrong.
        message: String,
    } optional {
        /// The same, for programs.
        code: String,
    }
}

tagged! {
    /// How a subagent ended.
    enum SubagentOutcome by "type" {
        /// It is done.
        "success" => Success(SubagentSuccess),
        /// It waits for answers.
        "suspended" => Suspended(SubagentSuspended),
    }
}

wire! {
    /// A subagent is done.
    #[derive(Default)]
    struct SubagentSuccess {} optional {}

    /// A subagent waits for answers.
    #[derive(Default)]
    struct SubagentSuspended {} optional {
        /// The interrupts to be answered.
        interrupt_ids: Vec<String>,
    }
}
