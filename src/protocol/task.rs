//! The stream of one A2A task.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;

use super::a2a::{A2aEvent, Task};
use crate::event::JsonEvent;
use crate::frame::Frame;
use crate::gap::Gap;
use crate::sse::{AGENT_HEARTBEAT_INTERVAL, Chunks, View};

/// An event's attachment: what a [`TaskView`] needs to know of the event.
#[derive(Debug)]
pub(super) struct TaskStep {
    pub(super) task: Option<Box<str>>,
    pub(super) is_terminal: bool,
}

impl TaskStep {
    pub(super) fn of(event: &A2aEvent) -> Self {
        Self {
            task: event.task_id().map(Into::into),
            is_terminal: event.is_terminal(),
        }
    }
}

/// Shows one task to an A2A client: the answer to `SendStreamingMessage` and `SubscribeToTask`.
///
/// Of all events of the user it shows those of this task, and ends the response after the one that brings the task to a state
/// that it never leaves. All streams share the bytes of an event; the JSON-RPC envelope around them is this stream's own.
///
/// A message of the task is shown like other events, but the official client in Python takes any message for the end of the
/// stream. The protocol wants what the agent says during a task in the task's status.
///
/// If events are lost, or the stream is ended from outside before the task, the client gets an error that says so, and the
/// response ends. Over JSON-RPC it is the error of the call, with the code -32603; over REST an event `error` with the
/// protocol's error object, and the status `UNAVAILABLE`. The reason in its details is [`CUT_OFF`](Self::CUT_OFF). It is the
/// same in 0.3. The official clients raise it, and may subscribe to the task again.
///
/// Register first, then look up the task that the stream [begins with](Self::starting_with): a change in
/// between is then shown twice rather than never. Subscribing to a task that has ended is an error of the protocol, which the
/// caller answers.
///
/// ```
/// use tidings::protocol::a2a::{A2aEvent, TaskState, TaskView};
/// use tidings::sse::SseBody;
/// use tidings::A2ABroadcaster;
/// use serde_json::value::RawValue;
///
/// let hub = A2ABroadcaster::new();
/// let id: Box<RawValue> = serde_json::from_str("\"call-1\"")?;
/// let body = SseBody::new(hub.register("ann")?).view(TaskView::json_rpc("task-1", &id));
/// hub.broadcast("ann", &A2aEvent::status("task-1", "context-1", TaskState::Completed))?;
/// // data: {"jsonrpc":"2.0","id":"call-1","result":{"statusUpdate":{...}}}
/// # drop(body);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TaskView {
    task: Box<str>,
    first: Option<Frame>,
    call: Option<Call>,
}

/// The beginning of each answer to a JSON-RPC call.
#[derive(Debug)]
struct Call {
    result: Bytes,
    error: Bytes,
}

impl TaskView {
    /// The reason of the error that tells the client that it does not get the rest of the task.
    pub const CUT_OFF: &str = "STREAM_CUT_OFF";

    /// Shows this task over the REST binding: events as they are.
    #[must_use]
    pub fn rest(task: impl Into<String>) -> Self {
        Self {
            task: task.into().into(),
            first: None,
            call: None,
        }
    }

    /// Shows this task over the JSON-RPC binding: each event as the result of the call of this id, which is echoed byte for
    /// byte.
    ///
    /// The view keeps two copies of the id until the response ends, and sends it with each event. The id is the client's, of
    /// any length, so refuse long ones first.
    #[must_use]
    pub fn json_rpc(task: impl Into<String>, id: &RawValue) -> Self {
        let before = |member| {
            let id = one_line(id);
            Bytes::from(format!(r#"data: {{"jsonrpc":"2.0","id":{id},"{member}":"#))
        };
        Self {
            call: Some(Call {
                result: before("result"),
                error: before("error"),
            }),
            ..Self::rest(task)
        }
    }

    /// Begins with the task as it is now. If it has ended already, the response ends after it.
    ///
    /// # Panics
    ///
    /// When the task cannot be written as JSON, which one that was read from JSON always can.
    #[must_use]
    pub fn starting_with(mut self, task: Task) -> Self {
        let frame = Frame::encode(&A2aEvent::from(task)).expect("a task is JSON");
        self.first = Some(frame);
        self
    }

    fn cut_off(&self, why: &str, chunks: &mut Chunks) {
        let message = format!("{why}; subscribe to the task for the rest");
        let details = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": Self::CUT_OFF,
            "domain": "tidings",
            "metadata": { "taskId": self.task },
        }]);
        let encode = |error| Frame::encode(&error).expect("a name and JSON can be encoded");
        match &self.call {
            Some(call) => {
                let error = json!({ "code": INTERNAL_ERROR, "message": message, "data": details });
                answer(&call.error, &encode(JsonEvent::new(error)), chunks);
            }
            // Clients of this binding take data without a name for an event that has no member they know.
            None => {
                let error = json!({
                    "error": { "code": 503, "status": "UNAVAILABLE", "message": message, "details": details }
                });
                chunks.push(encode(JsonEvent::new(error).event("error")).to_bytes());
            }
        }
    }
}

/// JSON-RPC's own code for what is the server's fault.
const INTERNAL_ERROR: i32 = -32603;

fn answer(before: &Bytes, frame: &Frame, chunks: &mut Chunks) {
    let Some(json) = frame.data_line() else {
        return tracing::debug!("an event that is not JSON on one line is not shown");
    };
    chunks.push(before.clone());
    chunks.push(json);
    chunks.push("}\n\n");
}

/// An id as it was sent. White space can stand in it if it is something else than an id should be.
fn one_line(id: &RawValue) -> String {
    id.get().replace(['\r', '\n'], " ")
}

impl View for TaskView {
    fn begin(&mut self, chunks: &mut Chunks) -> ControlFlow<()> {
        match self.first.take() {
            Some(frame) => self.show(&frame, chunks),
            None => ControlFlow::Continue(()),
        }
    }

    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        let Some(step) = frame.attachment::<TaskStep>() else {
            return ControlFlow::Continue(());
        };
        if step.task.as_deref() != Some(&*self.task) {
            return ControlFlow::Continue(());
        }
        match &self.call {
            Some(call) => answer(&call.result, frame, chunks),
            None => chunks.push(frame.to_bytes()),
        }
        if step.is_terminal {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn gap(&mut self, _: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        self.cut_off("events were lost", chunks);
        ControlFlow::Break(())
    }

    fn end(&mut self, chunks: &mut Chunks) {
        self.cut_off("the stream was ended before the task", chunks);
    }

    fn keep_alive_interval(&self) -> Duration {
        AGENT_HEARTBEAT_INTERVAL
    }
}
