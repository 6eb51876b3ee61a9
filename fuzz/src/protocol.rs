//! JSON for events of protocols: what the input is, or, if that is no JSON, what is made of it.

use arbitrary::Unstructured;
use serde_json::Value;

use crate::json;

/// The names of the members that events have, each once.
pub const NAMES: &[&str] = &[
    "type",
    "timestamp",
    "rawEvent",
    "metadata",
    "subagentRunId",
    "threadId",
    "runId",
    "parentRunId",
    "input",
    "result",
    "outcome",
    "interrupts",
    "message",
    "code",
    "stepName",
    "messageId",
    "role",
    "delta",
    "name",
    "toolCallId",
    "toolCallName",
    "parentMessageId",
    "content",
    "snapshot",
    "messages",
    "activityType",
    "replace",
    "patch",
    "event",
    "source",
    "value",
    "subtype",
    "entityId",
    "encryptedValue",
    "id",
    "text",
    "url",
    "data",
    "mimeType",
    "fileId",
    "provider",
    "op",
    "path",
    "from",
    "toolCalls",
    "function",
    "arguments",
    "error",
    "state",
    "tools",
    "context",
    "forwardedProps",
    "description",
    "parameters",
    "kind",
    "reason",
    "agentId",
    "task",
    "statusUpdate",
    "artifactUpdate",
    "contextId",
    "taskId",
    "status",
    "artifacts",
    "history",
    "artifact",
    "artifactId",
    "parts",
    "extensions",
    "append",
    "lastChunk",
    "raw",
    "mediaType",
    "filename",
    "referenceTaskIds",
    "final",
    "assistant",
    "user",
    "system",
    "developer",
    "tool",
    "activity",
    "reasoning",
    "success",
    "interrupt",
    "add",
    "remove",
    "replace",
    "move",
    "copy",
    "test",
    "ROLE_USER",
    "ROLE_AGENT",
    "TASK_STATE_WORKING",
    "TASK_STATE_COMPLETED",
    "2026-11-22T12:00:00Z",
    "status-update",
    "artifact-update",
];

/// The JSON text of an event.
pub fn text(input: &[u8], types: &[&str]) -> Option<String> {
    if let Ok(text) = str::from_utf8(input) {
        if serde_json::from_str::<Value>(text).is_ok() {
            return Some(text.to_owned());
        }
    }
    let mut u = Unstructured::new(input);
    let mut object = json::object(&mut u, NAMES).ok()?;
    if !types.is_empty() {
        let name = u.choose(types).ok()?;
        object.insert("type".to_owned(), (*name).into());
    }
    Some(Value::Object(object).to_string())
}
