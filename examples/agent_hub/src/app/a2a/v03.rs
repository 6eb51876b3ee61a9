//! Clients of 0.3. They read other objects than those of 1.0, which all events here are, so each is translated for them: once
//! for each stream, which is more than clients of 1.0 cost.

use std::ops::ControlFlow;
use std::time::Duration;

use ::a2a::{A2AError, SendMessageRequest};
use serde_json::{Map, Value, json};
use tidings::protocol::a2a::{A2aEvent, Task, TaskView};
use tidings::sse::{Chunks, View};
use tidings::{Frame, Gap};

/// Shows a task as [`TaskView`] does, in the objects of 0.3.
pub(super) struct V03View {
    pub(super) view: TaskView,
    /// What the stream begins with.
    pub(super) first: Option<Task>,
}

impl V03View {
    fn show_event(&mut self, event: &A2aEvent, chunks: &mut Chunks) -> ControlFlow<()> {
        let translated = A2aEvent::v03(event_of(json!(event)));
        match translated.map(|event| Frame::encode(&event)) {
            Ok(Ok(frame)) => self.view.show(&frame, chunks),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl View for V03View {
    fn begin(&mut self, chunks: &mut Chunks) -> ControlFlow<()> {
        match self.first.take() {
            Some(task) => self.show_event(&task.into(), chunks),
            None => ControlFlow::Continue(()),
        }
    }

    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        match serde_json::from_str(&frame.data()) {
            Ok(event) => self.show_event(&event, chunks),
            Err(_) => ControlFlow::Continue(()),
        }
    }

    // Errors are those of JSON-RPC, and so the same.
    fn gap(&mut self, gap: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        self.view.gap(gap, chunks)
    }

    fn end(&mut self, chunks: &mut Chunks) {
        self.view.end(chunks);
    }

    fn keep_alive_interval(&self) -> Duration {
        self.view.keep_alive_interval()
    }
}

/// What `message/stream` asks for.
pub(super) fn request(mut params: Value) -> Result<SendMessageRequest, A2AError> {
    let mut message = take(&mut params, "message");
    if let Some(role) = message["role"].as_str() {
        message["role"] = format!("ROLE_{}", role.to_ascii_uppercase()).into();
    }
    if let Some(parts) = message.get_mut("parts").and_then(Value::as_array_mut) {
        parts.iter_mut().for_each(part_to_v1);
    }
    let request = serde_json::from_value(json!({ "message": message }));
    request.map_err(|error| A2AError::invalid_params(error.to_string()))
}

pub(super) fn task(task: &Task) -> Value {
    task_of(json!(task))
}

/// A member, if there is one. What was sent may be anything, and indexing panics where it is no object.
fn take(value: &mut Value, name: &str) -> Value {
    value.get_mut(name).map_or(Value::Null, Value::take)
}

fn part_to_v1(part: &mut Value) {
    let mut new = Map::new();
    let file = take(part, "file");
    for (name, value) in [
        ("text", take(part, "text")),
        ("data", take(part, "data")),
        ("raw", file["bytes"].clone()),
        ("url", file["uri"].clone()),
        ("filename", file["name"].clone()),
        ("mediaType", file["mimeType"].clone()),
        ("metadata", take(part, "metadata")),
    ] {
        if !value.is_null() {
            new.insert(name.into(), value);
        }
    }
    *part = new.into();
}

/// An event is the one member of what it is in 1.0, with a word for what it is.
fn event_of(mut event: Value) -> Value {
    if let Some(task) = event.get_mut("task") {
        return task_of(task.take());
    }
    if let Some(message) = event.get_mut("message") {
        return message_of(message.take());
    }
    if let Some(update) = event.get_mut("artifactUpdate") {
        update["kind"] = "artifact-update".into();
        artifact(&mut update["artifact"]);
        return update.take();
    }
    let mut update = event["statusUpdate"].take();
    update["kind"] = "status-update".into();
    status(&mut update["status"]);
    let state = update["status"]["state"].as_str().unwrap_or_default();
    // A stream ended not only with its task, but also where the task waits for its client.
    let is_final = matches!(
        state,
        "completed" | "canceled" | "failed" | "rejected" | "input-required" | "auth-required"
    );
    update["final"] = is_final.into();
    update
}

fn task_of(mut task: Value) -> Value {
    task["kind"] = "task".into();
    status(&mut task["status"]);
    if let Some(artifacts) = task.get_mut("artifacts").and_then(Value::as_array_mut) {
        artifacts.iter_mut().for_each(artifact);
    }
    if let Some(history) = task.get_mut("history").and_then(Value::as_array_mut) {
        for message in history {
            *message = message_of(message.take());
        }
    }
    task
}

fn message_of(mut message: Value) -> Value {
    message["kind"] = "message".into();
    message["role"] = match message["role"].as_str() {
        Some("ROLE_USER") => "user".into(),
        _ => "agent".into(),
    };
    parts(&mut message["parts"]);
    message
}

/// `TASK_STATE_INPUT_REQUIRED` was `input-required`.
fn status(status: &mut Value) {
    let state = status["state"].as_str().unwrap_or_default();
    let state = match state.strip_prefix("TASK_STATE_") {
        None | Some("UNSPECIFIED") => "unknown".into(),
        Some(state) => state.to_ascii_lowercase().replace('_', "-"),
    };
    status["state"] = state.into();
    if let Some(message) = status.get_mut("message") {
        *message = message_of(message.take());
    }
}

fn artifact(artifact: &mut Value) {
    parts(&mut artifact["parts"]);
}

fn parts(parts: &mut Value) {
    for part in parts.as_array_mut().into_iter().flatten() {
        *part = part_of(part.take());
    }
}

fn part_of(mut part: Value) -> Value {
    let mut old = if !part["text"].is_null() {
        json!({ "kind": "text", "text": part["text"].take() })
    } else if !part["raw"].is_null() || !part["url"].is_null() {
        let mut file = Map::new();
        for (name, old) in [
            ("raw", "bytes"),
            ("url", "uri"),
            ("filename", "name"),
            ("mediaType", "mimeType"),
        ] {
            if !part[name].is_null() {
                file.insert(old.into(), part[name].take());
            }
        }
        json!({ "kind": "file", "file": file })
    } else {
        // Only objects were data.
        match part["data"].take() {
            data @ Value::Object(_) => json!({ "kind": "data", "data": data }),
            other => json!({ "kind": "data", "data": { "value": other } }),
        }
    };
    if !part["metadata"].is_null() {
        old["metadata"] = part["metadata"].take();
    }
    old
}
