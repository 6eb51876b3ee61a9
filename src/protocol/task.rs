//! The stream of one A2A task.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::a2a::{A2aEvent, Task};
use crate::frame::Frame;
use crate::sse::{AGENT_HEARTBEAT_INTERVAL, Chunks, View};

/// What a [`TaskView`] has to know of an event; its tag.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) task: Option<Box<str>>,
    pub(super) is_terminal: bool,
}

impl Moment {
    pub(super) fn of(event: &A2aEvent) -> Self {
        Self {
            task: event.task_id().map(Into::into),
            is_terminal: event.is_terminal(),
        }
    }
}

/// Shows one task to an A2A client: the answer to `SendStreamingMessage` and `SubscribeToTask`.
///
/// Of all that is sent to the user it shows the events of this task, and ends the response behind the one that brings the
/// task to a state that it never leaves. The bytes of an event are shared by all streams; what JSON-RPC wants around them
/// is this stream's own.
///
/// A message of the task is shown like other events, but the official client in Python takes any message for the end of the
/// stream. What the agent says in the course of a task belongs into its status, as the protocol has it.
///
/// Register first, then look up the task that the stream [begins with](Self::starting_with): what happens in between is
/// then told twice rather than never. Subscribing to a task that has ended is an error of the protocol, which the caller
/// answers.
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
    /// What stands around each event, if something does.
    call: Option<Bytes>,
}

impl TaskView {
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
    #[must_use]
    pub fn json_rpc(task: impl Into<String>, id: &RawValue) -> Self {
        let prefix = format!(
            "data: {{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":",
            one_line(id)
        );
        Self {
            call: Some(prefix.into()),
            ..Self::rest(task)
        }
    }

    /// Begins with the task as it is now.
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

    fn push(&self, frame: &Frame, chunks: &mut Chunks) {
        match (&self.call, frame.data_line()) {
            (Some(prefix), Some(json)) => {
                chunks.push(prefix.clone());
                chunks.push(json);
                chunks.push("}\n\n");
            }
            (Some(_), None) => tracing::debug!("an event that is not JSON on one line"),
            (None, _) => chunks.push(frame.to_bytes()),
        }
    }
}

/// An id as it was sent. White space can stand in it if it is something else than an id should be.
fn one_line(id: &RawValue) -> String {
    id.get().replace(['\r', '\n'], " ")
}

impl View for TaskView {
    fn begin(&mut self, chunks: &mut Chunks) {
        if let Some(frame) = self.first.take() {
            self.push(&frame, chunks);
        }
    }

    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        let Some(moment) = frame.tag::<Moment>() else {
            return ControlFlow::Continue(());
        };
        if moment.task.as_deref() != Some(&*self.task) {
            return ControlFlow::Continue(());
        }
        self.push(frame, chunks);
        if moment.is_terminal {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn keep_alive_interval(&self) -> Duration {
        AGENT_HEARTBEAT_INTERVAL
    }
}
