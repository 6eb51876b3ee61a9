//! Which run an event belongs to. Most events do not say, so it is kept beside them.

use std::fmt;
use std::sync::Arc;

use tidings_agui::{Body, Event, RunAgentInput};

use super::order::Transition;
use crate::error::EncodeError;
use crate::event::{Attachment, Data, Meta, ToSse};

/// A run of an agent, by its ids. Cloning it costs three reference counts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RunRef {
    thread: Arc<str>,
    run: Arc<str>,
    /// Both as JSON, for the run's events on other nodes: written once, not for each event.
    relay_data: Arc<str>,
}

impl RunRef {
    /// Names the run `run` of the conversation `thread`.
    pub fn new(thread: impl Into<Arc<str>>, run: impl Into<Arc<str>>) -> Self {
        let (thread, run) = (thread.into(), run.into());
        let relay_data = serde_json::json!([&*thread, &*run]).to_string().into();
        Self {
            thread,
            run,
            relay_data,
        }
    }

    /// The conversation, `threadId`.
    #[must_use]
    pub fn thread(&self) -> &str {
        &self.thread
    }

    /// The run, `runId`.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Makes an event one of this run.
    #[must_use]
    pub fn event(&self, event: impl Into<Event>) -> AgUiEvent {
        AgUiEvent {
            event: event.into(),
            run: Some(self.clone()),
        }
    }
}

/// The run that is asked for.
impl From<&RunAgentInput> for RunRef {
    fn from(input: &RunAgentInput) -> Self {
        Self::new(&*input.thread_id, &*input.run_id)
    }
}

impl fmt::Debug for RunRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunRef")
            .field("thread", &self.thread)
            .field("run", &self.run)
            .finish()
    }
}

/// An event's attachment: what a [`RunView`](super::RunView) needs to know of the event.
#[derive(Debug)]
pub(super) struct RunStep {
    pub(super) run: Option<RunRef>,
    pub(super) transition: Transition,
}

/// An AG-UI event and the run that it belongs to: what an [`AgUiBroadcaster`](crate::AgUiBroadcaster) sends.
///
/// On the wire it is the event alone.
#[derive(Debug, Clone, PartialEq)]
pub struct AgUiEvent {
    /// The event.
    pub event: Event,
    /// Its run, if that is known.
    pub run: Option<RunRef>,
}

impl AgUiEvent {
    /// Takes the run from the event, if it is one that says so: `RUN_STARTED` or `RUN_FINISHED`.
    pub fn new(event: impl Into<Event>) -> Self {
        let event = event.into();
        let run = match &event.body {
            Body::RunStarted(body) => Some(RunRef::new(&*body.thread_id, &*body.run_id)),
            Body::RunFinished(body) => Some(RunRef::new(&*body.thread_id, &*body.run_id)),
            _ => None,
        };
        Self { event, run }
    }
}

impl<E: Into<Event>> From<E> for AgUiEvent {
    fn from(event: E) -> Self {
        Self::new(event)
    }
}

/// Its name is the type; AG-UI clients read the data alone, which names the type too.
impl ToSse for Event {
    fn event(&self) -> Option<&str> {
        Some(self.type_name())
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        self.check().map_err(EncodeError::other)?;
        data.json(self)
    }
}

impl ToSse for AgUiEvent {
    fn event(&self) -> Option<&str> {
        self.event.event()
    }

    fn meta(&self) -> Meta<'_> {
        Meta {
            attachment: Some(self.attachment()),
            relay_data: self.run.as_ref().map(|run| (*run.relay_data).into()),
            ..Meta::default()
        }
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        self.event.data(data)
    }
}

impl AgUiEvent {
    /// Restores the attachment of an event of another node, for [`Builder::attachments`](crate::Builder::attachments). A
    /// [`RunView`](super::RunView) shows only events that have one.
    #[must_use]
    pub fn attachment_of(data: &str, relay_data: Option<&str>) -> Option<Attachment> {
        let mut event = Self::new(serde_json::from_str::<Event>(data).ok()?);
        let ids = relay_data.and_then(|ids| serde_json::from_str::<[String; 2]>(ids).ok());
        if let Some([thread, run]) = ids {
            event.run = Some(RunRef::new(thread, run));
        }
        Some(event.attachment())
    }

    fn attachment(&self) -> Attachment {
        Arc::new(RunStep {
            run: self.run.clone(),
            transition: Transition::of(&self.event),
        })
    }
}
