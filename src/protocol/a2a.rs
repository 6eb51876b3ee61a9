//! A2A 1.0: what an agent streams about a task, and bodies of 0.3.
//!
//! The types are those of the protocol's own crate, `a2a-lf`, passed on. An [`A2aEvent`] is one of them, or any other
//! body with a name.
//!
//! ```
//! use tidings::protocol::a2a::{A2aEvent, TaskState};
//! use tidings::{Frame, JsonEvent};
//!
//! let working = A2aEvent::status("task-1", "context-1", TaskState::Working);
//! assert_eq!((working.name(), working.task_id()), ("statusUpdate", Some("task-1")));
//! assert!(!working.is_terminal());
//! assert!(A2aEvent::status("task-1", "context-1", TaskState::Completed).is_terminal());
//!
//! let old = serde_json::json!({"kind": "message", "role": "agent", "parts": [], "messageId": "m"});
//! let frame = Frame::encode(&A2aEvent::v03(old.clone())?)?;
//! assert_eq!(frame, Frame::encode(&JsonEvent::new(old).event("message"))?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use tidings_agui::clock;

pub use ::a2a::{
    Artifact, Message, Part, PartContent, Role, StreamResponse, Task, TaskArtifactUpdateEvent,
    TaskState, TaskStatus, TaskStatusUpdateEvent,
};

pub use super::task::TaskView;

use super::task::TaskStep;
use crate::error::EncodeError;
use crate::event::{Attachment, Data, Meta, ToSse};

/// The members of a [`StreamResponse`], of which each has exactly one. They are the names of the events.
const MEMBERS: [&str; 4] = ["task", "message", "statusUpdate", "artifactUpdate"];

/// One A2A event.
///
/// As a server-sent event its name is `task`, `message`, `statusUpdate` or `artifactUpdate`, or the `kind` of a body of 0.3;
/// A2A clients read the data alone. Timestamps are written in UTC with a `Z`, the only form that all clients read.
#[derive(Clone)]
pub struct A2aEvent(Body);

#[derive(Clone)]
enum Body {
    Response(Box<StreamResponse>),
    /// Checked: an object with a `kind`.
    V03(Value),
    Other {
        name: Arc<str>,
        body: Arc<dyn Other>,
    },
}

/// A body that is known only by its JSON.
trait Other: Send + Sync {
    fn write(&self, data: &mut Data<'_>) -> Result<(), EncodeError>;
    fn value(&self) -> Result<Value, serde_json::Error>;
}

impl<T: Serialize + Send + Sync> Other for T {
    fn write(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.json(self)
    }

    fn value(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(self)
    }
}

impl A2aEvent {
    /// Builds an A2A 1.0 event.
    pub fn new(response: impl Into<StreamResponse>) -> Self {
        Self(Body::Response(Box::new(response.into())))
    }

    /// Says that a task is in this state from now on.
    pub fn status(task: impl Into<String>, context: impl Into<String>, state: TaskState) -> Self {
        // Whole milliseconds: some clients hold no more.
        let now = UNIX_EPOCH + Duration::from_millis(clock::now().unsigned_abs());
        Self::new(StreamResponse::StatusUpdate(TaskStatusUpdateEvent {
            task_id: task.into(),
            context_id: context.into(),
            status: TaskStatus {
                state,
                message: None,
                timestamp: Some(now.into()),
            },
            metadata: None,
        }))
    }

    /// Takes a body of A2A 0.3 unchanged. Its `kind` is the event's name: `task`, `message`, `status-update` or
    /// `artifact-update`.
    ///
    /// # Errors
    ///
    /// When it is no object with such a `kind`.
    pub fn v03(body: Value) -> Result<Self, InvalidA2a> {
        match body.get("kind").and_then(Value::as_str) {
            Some("task" | "message" | "status-update" | "artifact-update") => {
                Ok(Self(Body::V03(body)))
            }
            Some(_) => Err(InvalidA2a::Kind),
            None => Err(InvalidA2a::NoKind),
        }
    }

    /// Takes any body, under any name. Such an event belongs to no task, and is never terminal.
    ///
    /// It is serialised once, when it is broadcast and has a recipient.
    pub fn other(name: impl Into<Arc<str>>, body: impl Serialize + Send + Sync + 'static) -> Self {
        Self(Body::Other {
            name: name.into(),
            body: Arc::new(body),
        })
    }

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &str {
        let [task, message, status, artifact] = MEMBERS;
        match &self.0 {
            Body::Response(response) => match **response {
                StreamResponse::Task(_) => task,
                StreamResponse::Message(_) => message,
                StreamResponse::StatusUpdate(_) => status,
                StreamResponse::ArtifactUpdate(_) => artifact,
            },
            Body::V03(body) => body["kind"].as_str().unwrap_or_default(),
            Body::Other { name, .. } => name,
        }
    }

    /// The event as the type of the protocol's crate, if it is one of 1.0.
    #[must_use]
    pub fn response(&self) -> Option<&StreamResponse> {
        match &self.0 {
            Body::Response(response) => Some(response),
            Body::V03(_) | Body::Other { .. } => None,
        }
    }

    /// The task, if the event is one.
    #[must_use]
    pub fn task(&self) -> Option<&Task> {
        match self.response() {
            Some(StreamResponse::Task(task)) => Some(task),
            _ => None,
        }
    }

    /// The id of the task that the event belongs to.
    #[must_use]
    pub fn task_id(&self) -> Option<&str> {
        match &self.0 {
            Body::Response(response) => match &**response {
                StreamResponse::Task(task) => Some(&task.id),
                StreamResponse::Message(message) => message.task_id.as_deref(),
                StreamResponse::StatusUpdate(update) => Some(&update.task_id),
                StreamResponse::ArtifactUpdate(update) => Some(&update.task_id),
            },
            Body::V03(body) if body["kind"] == "task" => body["id"].as_str(),
            Body::V03(body) => body["taskId"].as_str(),
            Body::Other { .. } => None,
        }
    }

    /// The id of the conversation that the event belongs to.
    #[must_use]
    pub fn context_id(&self) -> Option<&str> {
        match &self.0 {
            Body::Response(response) => match &**response {
                StreamResponse::Task(task) => Some(&task.context_id),
                StreamResponse::Message(message) => message.context_id.as_deref(),
                StreamResponse::StatusUpdate(update) => Some(&update.context_id),
                StreamResponse::ArtifactUpdate(update) => Some(&update.context_id),
            },
            Body::V03(body) => body["contextId"].as_str(),
            Body::Other { .. } => None,
        }
    }

    /// Whether it is the last of its stream: its task has reached a final state, or it is a message that answers
    /// without a task. In 0.3 also a status that says it is `final`.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match &self.0 {
            Body::Response(response) => match &**response {
                StreamResponse::Task(task) => task.status.state.is_terminal(),
                StreamResponse::StatusUpdate(update) => update.status.state.is_terminal(),
                StreamResponse::Message(message) => message.task_id.is_none(),
                StreamResponse::ArtifactUpdate(_) => false,
            },
            Body::V03(body) => {
                let state = body["status"]["state"].as_str();
                let ended = matches!(
                    state,
                    Some("completed" | "canceled" | "failed" | "rejected")
                );
                let answer = body["kind"] == "message" && body.get("taskId").is_none();
                ended || answer || body["final"] == true
            }
            Body::Other { .. } => false,
        }
    }
}

impl From<StreamResponse> for A2aEvent {
    fn from(response: StreamResponse) -> Self {
        Self::new(response)
    }
}

impl From<Task> for A2aEvent {
    fn from(task: Task) -> Self {
        Self::new(StreamResponse::Task(task))
    }
}

impl From<Message> for A2aEvent {
    fn from(message: Message) -> Self {
        Self::new(StreamResponse::Message(message))
    }
}

impl From<TaskStatusUpdateEvent> for A2aEvent {
    fn from(update: TaskStatusUpdateEvent) -> Self {
        Self::new(StreamResponse::StatusUpdate(update))
    }
}

impl From<TaskArtifactUpdateEvent> for A2aEvent {
    fn from(update: TaskArtifactUpdateEvent) -> Self {
        Self::new(StreamResponse::ArtifactUpdate(update))
    }
}

impl ToSse for A2aEvent {
    fn event(&self) -> Option<&str> {
        Some(self.name())
    }

    fn meta(&self) -> Meta<'_> {
        Meta {
            attachment: Some(self.attachment()),
            ..Meta::default()
        }
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        match &self.0 {
            Body::Response(response) => data.json(response),
            Body::V03(body) => data.json(body),
            Body::Other { body, .. } => body.write(data),
        }
    }
}

impl A2aEvent {
    /// Restores the attachment of an event of another node, for [`Builder::attachments`](crate::Builder::attachments). A
    /// [`TaskView`] shows only events that have one.
    #[must_use]
    pub fn attachment_of(data: &str, _: Option<&str>) -> Option<Attachment> {
        let event: Self = serde_json::from_str(data).ok()?;
        Some(event.attachment())
    }

    fn attachment(&self) -> Attachment {
        Arc::new(TaskStep::of(self))
    }
}

impl fmt::Debug for A2aEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What people and agents say to each other stays out of logs.
        f.debug_struct("A2aEvent")
            .field("name", &self.name())
            .field("task_id", &self.task_id())
            .finish_non_exhaustive()
    }
}

impl Serialize for A2aEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Body::Response(response) => response.serialize(serializer),
            Body::V03(body) => body.serialize(serializer),
            Body::Other { body, .. } => {
                let value = body.value().map_err(S::Error::custom)?;
                value.serialize(serializer)
            }
        }
    }
}

/// An object with a `kind` is one of 0.3 and kept unchanged. From any other object, fields that 1.0 does not have are dropped.
impl<'de> Deserialize<'de> for A2aEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        if fields.contains_key("kind") {
            return Self::v03(Value::Object(fields)).map_err(D::Error::custom);
        }
        // The crate takes the first that it finds.
        let members = MEMBERS.iter().filter(|name| fields.contains_key(**name));
        if members.count() != 1 {
            return Err(D::Error::custom(InvalidA2a::Members));
        }
        let response = serde_json::from_value::<StreamResponse>(Value::Object(fields));
        response.map(Self::new).map_err(D::Error::custom)
    }
}

/// A body is not an A2A event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidA2a {
    /// It has no string `kind`, so it is not an event of 0.3.
    NoKind,
    /// Its `kind` is not one of 0.3.
    Kind,
    /// It does not have exactly one of the members of which 1.0 requires one.
    Members,
}

impl fmt::Display for InvalidA2a {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKind => "the body has no kind",
            Self::Kind => "the kind is none of task, message, status-update and artifact-update",
            Self::Members => {
                "there must be exactly one of task, message, statusUpdate and artifactUpdate"
            }
        })
    }
}

impl Error for InvalidA2a {}
