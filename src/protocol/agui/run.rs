//! Which run an event belongs to. Most events do not say, so it is kept beside them.

use std::sync::Arc;

use tidings_agui::{Body, Event, RunAgentInput};

use super::order::Move;
use crate::error::EncodeError;
use crate::event::{Data, Tag, ToSse};

/// A run of an agent, by its ids. Cloning it costs two reference counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunRef {
    thread: Arc<str>,
    run: Arc<str>,
}

impl RunRef {
    /// Names the run `run` of the conversation `thread`.
    pub fn new(thread: impl Into<Arc<str>>, run: impl Into<Arc<str>>) -> Self {
        Self {
            thread: thread.into(),
            run: run.into(),
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

/// What a run's stream has to know of an event; its tag.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) run: Option<RunRef>,
    pub(super) step: Move,
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

    fn tag(&self) -> Option<Tag> {
        Some(Arc::new(Moment {
            run: self.run.clone(),
            step: Move::of(&self.event.body),
        }))
    }

    fn note(&self) -> Option<String> {
        let run = self.run.as_ref()?;
        serde_json::to_string(&[run.thread(), run.run()]).ok()
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        self.event.data(data)
    }
}

impl AgUiEvent {
    /// Makes the tag of an event that comes from another node, for [`Builder::tags`](crate::Builder::tags): a
    /// [`RunView`](super::RunView) shows what has one.
    #[must_use]
    pub fn tag_of(data: &str, note: Option<&str>) -> Option<Tag> {
        let event: Event = serde_json::from_str(data).ok()?;
        let run = note.and_then(|note| serde_json::from_str(note).ok());
        let run = run.map(|[thread, run]: [String; 2]| RunRef::new(thread, run));
        AgUiEvent {
            run: run.or_else(|| Self::new(event.clone()).run),
            event,
        }
        .tag()
    }
}
