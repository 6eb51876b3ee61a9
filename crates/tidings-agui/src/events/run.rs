//! Runs and their steps.

use serde_json::Value;

use crate::check::{InvalidEvent, Problem, at};
use crate::input::RunAgentInput;
use crate::record::{Extra, Metadata};
use crate::wire::{tagged, wire};

wire! {
    /// A run begins. It is the first event of its stream.
    struct RunStarted {
        /// The conversation.
        thread_id: String,
        /// The run.
        run_id: String,
    } optional {
        /// The version that the agent speaks.
        protocol_version: String,
        /// The run that this one goes on from.
        parent_run_id: String,
        /// What was asked for.
        input: Box<RunAgentInput>,
    }

    /// A run has come to its end.
    struct RunFinished {
        /// The conversation.
        thread_id: String,
        /// The run.
        run_id: String,
    } optional {
        /// What it returns. Not null.
        result: Value,
        /// How it ended.
        outcome: Outcome,
        /// What it used of each model.
        usage: Vec<TokenUsage>,
    }

    /// A run has failed, which ends it.
    struct RunError {
        /// What went wrong.
        message: String,
    } optional {
        /// The same, for programs.
        code: String,
        /// What it used of each model.
        usage: Vec<TokenUsage>,
    }

    /// A step begins.
    struct StepStarted {
        /// Its name.
        step_name: String,
    } optional {}

    /// A step has come to its end.
    struct StepFinished {
        /// Its name.
        step_name: String,
    } optional {}
}

tagged! {
    /// How a run ended.
    ///
    /// Clients before 1.0 end with an error at `cancelled`, and at the pending calls of a success.
    enum Outcome by "type" {
        /// It is done.
        "success" => Success(SuccessOutcome),
        /// It waits for answers, which the next run brings.
        "interrupt" => Interrupt(InterruptOutcome),
        /// It was called off.
        "cancelled" => Cancelled(CancelledOutcome),
    }
}

wire! {
    /// A run is done.
    #[derive(Default)]
    struct SuccessOutcome {} optional {
        /// Calls that the client has yet to answer.
        pending_tool_call_ids: Vec<String>,
    }

    /// A run waits for answers.
    struct InterruptOutcome {
        /// The questions, at least one.
        interrupts: Vec<Interrupt>,
    } optional {}

    /// A run was called off.
    #[derive(Default)]
    struct CancelledOutcome {} optional {}

    /// A question that has to be answered before the agent can go on.
    struct Interrupt {
        /// Its id.
        id: String,
        /// Why it is asked.
        reason: String,
    } optional {
        /// The question, for people.
        message: String,
        /// The call that it is about.
        tool_call_id: String,
        /// A JSON schema of the answer.
        response_schema: Extra,
        /// Until when an answer is taken, as ISO 8601.
        expires_at: String,
        /// Information of the application's own.
        metadata: Metadata,
        /// The subagent that asks.
        subagent_run_id: String,
    }

    /// What was used of a model. Each number at most 2^53 - 1.
    #[derive(Default)]
    struct TokenUsage {} optional {
        /// Who runs the model.
        provider: String,
        /// The model.
        model: String,
        /// Tokens read.
        input_tokens: u64,
        /// Tokens written.
        output_tokens: u64,
        /// Both together.
        total_tokens: u64,
        /// Of those written, the ones for reasoning.
        reasoning_tokens: u64,
        /// Of those read, the ones that came from a cache.
        cached_input_tokens: u64,
        /// Of those read, the ones that went into a cache.
        cache_write_input_tokens: u64,
    }
}

impl InterruptOutcome {
    /// Refuses an interrupt that asks nothing.
    pub(crate) fn check_not_empty(&self) -> Result<(), InvalidEvent> {
        if self.interrupts.is_empty() {
            return Err(at("interrupts")(InvalidEvent::new(Problem::Empty)));
        }
        Ok(())
    }
}
