//! A small agent. It says back what it is told, word by word; before that it thinks, calls a tool and changes the state
//! that it shares with the client.
//!
//! It works for the clients of both protocols at once: what it does is a run of AG-UI and a task of A2A, under the same id.
//! For the AI SDK, `aisdk` translates the run.

use std::time::Duration;

use ::a2a::new_message_id;
use serde_json::{Map, Value, json};
use tidings::BroadcastError;
use tidings::protocol::a2a::{
    A2aEvent, Artifact, Message, Part, Role, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus,
};
use tidings::protocol::agui::{AddOperation, AgUiEvent, Event, PatchOperation, RunRef};

/// How long it takes for a word.
const PAUSE: Duration = Duration::from_millis(20);

/// Where the agent's events go.
pub(crate) trait Outlet {
    fn agui(&self, event: &AgUiEvent) -> Result<(), BroadcastError>;
    fn a2a(&self, event: &A2aEvent) -> Result<(), BroadcastError>;

    /// Whether nobody wants the rest any more.
    fn is_canceled(&self) -> bool {
        false
    }
}

/// What the agent is to do.
pub(crate) struct Job {
    /// The conversation: a thread in the words of AG-UI, a context in those of A2A.
    pub(crate) conversation: String,
    /// The run, which is the task.
    pub(crate) id: String,
    /// What to say back.
    pub(crate) text: String,
    /// The state that the client had.
    pub(crate) state: Map<String, Value>,
}

/// Does the job, and tells all along.
pub(crate) async fn work(job: Job, outlet: impl Outlet) -> Result<(), BroadcastError> {
    let run = RunRef::new(&*job.conversation, &*job.id);
    let agui = |event: Event| go_on(outlet.agui(&run.event(event)));
    let a2a = |event: A2aEvent| go_on(outlet.a2a(&event));
    let status = |state| a2a(A2aEvent::status(&job.id, &job.conversation, state));
    // Ids that no other run has: clients keep the messages of all runs of a conversation in one list. They are in every
    // event, so they are not made of the run's id, which a client may have chosen as long as it may be.
    let unique = new_message_id();
    let named = |what: &str| format!("{unique}-{what}");

    agui(Event::run_started(&job.conversation, &job.id))?;
    a2a(task(&job).into())?;
    status(TaskState::Working)?;

    think(&job, &named("thought"), &agui).await?;
    let words = count_words(&job, &named("call"), &named("result"), &agui).await?;

    // The whole first, so that there is something that the change applies to.
    agui(Event::state_snapshot(Value::Object(job.state.clone())))?;
    let change = AddOperation::new("/words", words);
    agui(Event::state_delta([PatchOperation::from(change)]))?;

    let cancel = || {
        // No second end of a task that was canceled itself.
        status(TaskState::Canceled)?;
        agui(Event::run_error("the task was canceled"))
    };
    if outlet.is_canceled() {
        return cancel();
    }
    let (message, artifact) = (named("message"), named("artifact"));
    agui(Event::text_message_start(&message))?;
    for (index, word) in job.text.split_inclusive(' ').enumerate() {
        tokio::time::sleep(PAUSE).await;
        if outlet.is_canceled() {
            return cancel();
        }
        agui(Event::text_message_content(&message, word))?;
        a2a(piece(&job, &artifact, word, index > 0).into())?;
    }
    agui(Event::text_message_end(&message))?;
    status(TaskState::Completed)?;
    agui(Event::run_finished(&job.conversation, &job.id))
}

/// An event that does not reach every stream is no reason to stop: those that lack it get a gap, or have ended.
fn go_on(sent: Result<(), BroadcastError>) -> Result<(), BroadcastError> {
    match sent {
        Err(BroadcastError::NotRelayed { .. } | BroadcastError::Complete) => Ok(()),
        sent => sent,
    }
}

async fn think(
    job: &Job,
    id: &str,
    agui: &impl Fn(Event) -> Result<(), BroadcastError>,
) -> Result<(), BroadcastError> {
    let thought = format!("I was told {:?}. I shall say it back.", job.text);
    agui(Event::step_started("think"))?;
    agui(Event::reasoning_start(id))?;
    agui(Event::reasoning_message_start(id))?;
    for words in thought.split_inclusive(". ") {
        tokio::time::sleep(PAUSE).await;
        agui(Event::reasoning_message_content(id, words))?;
    }
    agui(Event::reasoning_message_end(id))?;
    agui(Event::reasoning_end(id))?;
    agui(Event::step_finished("think"))
}

/// Calls the only tool there is.
async fn count_words(
    job: &Job,
    call: &str,
    result: &str,
    agui: &impl Fn(Event) -> Result<(), BroadcastError>,
) -> Result<usize, BroadcastError> {
    agui(Event::step_started("count"))?;
    agui(Event::tool_call_start(call, "count_words"))?;
    // Arguments come in pieces, cut anywhere.
    let arguments = json!({ "text": job.text }).to_string();
    let (head, tail) = arguments.split_at(r#"{"text":"#.len());
    for piece in [head, tail] {
        tokio::time::sleep(PAUSE).await;
        agui(Event::tool_call_args(call, piece))?;
    }
    agui(Event::tool_call_end(call))?;
    let words = job.text.split_whitespace().count();
    agui(Event::tool_call_result(result, call, words.to_string()))?;
    agui(Event::step_finished("count"))?;
    Ok(words)
}

/// The task as it is in the beginning.
fn task(job: &Job) -> Task {
    let mut told = Message::new(Role::User, vec![Part::text(&*job.text)]);
    told.task_id = Some(job.id.clone());
    told.context_id = Some(job.conversation.clone());
    Task {
        id: job.id.clone(),
        context_id: job.conversation.clone(),
        status: TaskStatus {
            state: TaskState::Submitted,
            message: None,
            timestamp: None,
        },
        artifacts: None,
        history: Some(vec![told]),
        metadata: None,
    }
}

/// A piece of the answer, which is the task's only artifact.
fn piece(job: &Job, artifact: &str, text: &str, append: bool) -> TaskArtifactUpdateEvent {
    TaskArtifactUpdateEvent {
        task_id: job.id.clone(),
        context_id: job.conversation.clone(),
        artifact: Artifact {
            artifact_id: artifact.into(),
            name: Some("echo".into()),
            description: None,
            parts: vec![Part::text(text)],
            metadata: None,
            extensions: None,
        },
        append: Some(append),
        last_chunk: None,
        metadata: None,
    }
}
