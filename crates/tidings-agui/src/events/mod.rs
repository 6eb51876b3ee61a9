//! The bodies of the 31 types of events.

mod reasoning;
mod run;
mod special;
mod state;
mod subagent;
mod text;
mod tool;

pub use reasoning::{
    EncryptedSubtype, ReasoningEncryptedValue, ReasoningEnd, ReasoningMessageChunk,
    ReasoningMessageContent, ReasoningMessageEnd, ReasoningMessageStart, ReasoningRole,
    ReasoningStart,
};
pub use run::{
    CancelledOutcome, Interrupt, InterruptOutcome, Outcome, RunError, RunFinished, RunStarted,
    StepFinished, StepStarted, SuccessOutcome, TokenUsage,
};
pub use special::{Custom, Raw};
pub use state::{
    ActivityDelta, ActivitySnapshot, AddOperation, CopyOperation, JsonPointer, MessagesSnapshot,
    MoveOperation, PatchOperation, RemoveOperation, ReplaceOperation, StateDelta, StateSnapshot,
    TestOperation,
};
pub use subagent::{
    SubagentError, SubagentFinished, SubagentOutcome, SubagentStarted, SubagentSuccess,
    SubagentSuspended,
};
pub use text::{
    TextMessageChunk, TextMessageContent, TextMessageEnd, TextMessageRole, TextMessageStart,
};
pub use tool::{ToolCallArgs, ToolCallChunk, ToolCallEnd, ToolCallResult, ToolCallStart, ToolRole};
