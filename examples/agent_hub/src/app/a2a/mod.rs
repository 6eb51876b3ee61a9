//! What A2A clients talk to, in both bindings: `rpc` is JSON-RPC, `rest` the other. What they ask for is done here. `v03` is
//! for clients of the version before.
//!
//! A task is what has been sent of it: the agent's events, or those that are posted to the user. `tasks` remembers them.

use ::a2a::{A2AError, SendMessageRequest, new_context_id, new_task_id};
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{any, get, post};
use serde_json::value::RawValue;
use serde_json::{Map, json};
use tidings::protocol::a2a::{A2aEvent, Message, Task, TaskState, TaskView};
use tidings::protocol::agui::{Event, RunRef};
use tidings::sse::SseResponse;
use tidings::{KeepAlive, RegisterError, Subscription};

use super::agent::Job;
use super::body::Refusal;
use super::runs::{self, Denied};
use super::{Hub, limits, refused};

mod card;
mod rest;
mod rpc;
pub(super) mod tasks;
mod v03;

use tasks::{Known, Unsent};
use v03::V03View;

pub(super) fn router() -> Router<Hub> {
    Router::new()
        .route("/a2a/{user}/.well-known/agent-card.json", get(card::card))
        .route("/a2a/{user}/rpc", post(rpc::call))
        .route("/a2a/{user}/message:stream", post(rest::send))
        // A pattern cannot end in the middle of a segment.
        .route("/a2a/{user}/tasks/{call}", get(rest::read).post(rest::call))
        .route(
            "/a2a/{user}/tasks/{id}/pushNotificationConfigs",
            any(rest::push_notifications),
        )
        .route(
            "/a2a/{user}/tasks/{id}/pushNotificationConfigs/{config}",
            any(rest::push_notifications),
        )
}

/// Why a call fails: the error, and the status if it is not the one that goes with the error.
struct Failure {
    error: A2AError,
    status: Option<StatusCode>,
}

impl From<A2AError> for Failure {
    fn from(error: A2AError) -> Self {
        Self {
            error,
            status: None,
        }
    }
}

impl From<RegisterError> for Failure {
    fn from(error: RegisterError) -> Self {
        Self {
            error: A2AError::internal(error.to_string()),
            status: Some(refused(error).status()),
        }
    }
}

impl From<Refusal> for Failure {
    fn from((status, sentence): Refusal) -> Self {
        if status == StatusCode::BAD_REQUEST {
            return A2AError::invalid_params(sentence).into();
        }
        Self {
            error: A2AError::internal(sentence),
            status: Some(status),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refusal) => refusal.into(),
            Denied::Full(error) => error.into(),
        }
    }
}

/// How a stream is written.
#[derive(Clone, Copy)]
enum Binding<'a> {
    Rest,
    /// The id of the call.
    JsonRpc(&'a RawValue),
    /// The same for a client of 0.3.
    JsonRpcV03(&'a RawValue),
}

/// What a client of one user asks for.
struct Client<'a> {
    hub: &'a Hub,
    user: &'a str,
    binding: Binding<'a>,
}

impl Client<'_> {
    /// A message that names a task follows that task. One that names none is what the agent is to work on.
    fn send(&self, request: SendMessageRequest) -> Result<Response, Failure> {
        let message = request.message;
        let names = [&message.task_id, &message.context_id];
        limits::names(names.into_iter().flatten().map(String::as_str))?;
        let named = |id: &Option<String>| id.clone().filter(|id| !id.is_empty());
        match named(&message.task_id) {
            Some(id) => self.follow(&id, named(&message.context_id)),
            None => {
                let id = new_task_id();
                let text = text_of(&message);
                let job = Job {
                    conversation: named(&message.context_id).unwrap_or_else(new_context_id),
                    id: id.clone(),
                    text: text.clone(),
                    state: Map::new(),
                };
                // A client that sends the same again, because a connection broke before the response, means the same task.
                let question = [&*message.message_id, &*text];
                let question = json!([question, message.context_id]).to_string();
                // Before the agent starts, or the task would begin without its reader.
                let stream = self.hub.events.a2a().register(self.user)?;
                let place = || self.hub.work.take(self.user, &job.text);
                let (runs, question) = (&self.hub.runs, runs::hash(&question));
                match runs.ask_once(self.user, &job.conversation, question, &job.id, place)? {
                    Err(known) => {
                        // Not two streams of one client.
                        drop(stream);
                        self.follow(&known, None)
                    }
                    Ok(run) => {
                        self.hub.start_agent(run, self.user.into(), job);
                        Ok(self.respond(&id, None, stream))
                    }
                }
            }
        }
    }

    /// Follows a task, which the stream begins with. A client that also names a context is refused a task of another one.
    ///
    /// A run that has begun a moment ago has not sent its task yet. The stream begins when it does.
    fn follow(&self, id: &str, context: Option<String>) -> Result<Response, Failure> {
        let begins = self.hub.runs.is_under_way(self.user, id);
        // Between what is known and the stream nothing is lost, and nothing is in both.
        self.hub.tasks.look(self.user, id, |known| {
            let first = match known {
                None if begins => None,
                None => return Err(A2AError::task_not_found(id).into()),
                Some(known) => {
                    let of = &known.task().context_id;
                    if context.is_some_and(|context| context != *of) {
                        let sentence = format!("the task {id} is one of another context");
                        return Err(A2AError::invalid_params(sentence).into());
                    }
                    if known.task().status.state.is_terminal() {
                        let sentence = format!("task has ended: {id}");
                        return Err(A2AError::unsupported_operation(sentence).into());
                    }
                    Some(whole(known)?)
                }
            };
            let stream = self.hub.events.a2a().register(self.user)?;
            Ok(self.respond(id, first, stream))
        })
    }

    /// A task with the last so many messages of its history, or all.
    fn get(&self, id: &str, history_length: Option<i32>) -> Result<Task, Failure> {
        let most = history_length.map(usize::try_from).transpose();
        let most = most.map_err(|_| A2AError::invalid_params("historyLength is negative"))?;
        let mut task = self.hub.tasks.look(self.user, id, |known| match known {
            Some(known) => whole(known),
            None => Err(A2AError::task_not_found(id)),
        })?;
        if let (Some(most), Some(history)) = (most, &mut task.history) {
            history.drain(..history.len().saturating_sub(most));
        }
        task.history = task.history.filter(|history| !history.is_empty());
        Ok(task)
    }

    /// Cancels a task, also one that is canceled already: clients repeat a call whose answer they have not seen.
    fn cancel(&self, id: &str) -> Result<Task, Failure> {
        // As far as it is known: what has become too large to be shown can be canceled.
        let get = || {
            let look = |known: Option<&Known>| known.map(|known| known.task().clone());
            let task = self.hub.tasks.look(self.user, id, look);
            task.ok_or_else(|| A2AError::task_not_found(id))
        };
        let task = get()?;
        if !task.status.state.is_terminal() {
            let run = RunRef::new(&*task.context_id, id);
            let event = A2aEvent::status(id, task.context_id, TaskState::Canceled);
            match self.hub.publish_a2a(self.user, &event) {
                Ok(_) | Err(Unsent::Ended | Unsent::Full) => {}
                Err(Unsent::Failed(error)) => {
                    return Err(A2AError::internal(error.to_string()).into());
                }
            }
            // The agent sees that its run has ended, and stops.
            let last = run.event(Event::run_error("the task was canceled"));
            if let Err(error) = self.hub.say_agui(self.user, &last) {
                return Err(A2AError::internal(error.to_string()).into());
            }
        }
        // It may have ended in another way meanwhile.
        let task = get()?;
        match task.status.state {
            TaskState::Canceled => Ok(task),
            _ => Err(A2AError::task_not_cancelable(id).into()),
        }
    }

    fn respond(&self, id: &str, first: Option<Task>, stream: Subscription) -> Response {
        let connection = stream.guard().connection_id().clone();
        let response =
            SseResponse::new(stream).keep_alive(&self.hub.keep_alive(KeepAlive::comment()));
        let begin = |view: TaskView| match first.clone() {
            Some(task) => view.starting_with(task),
            None => view,
        };
        let response = match self.binding {
            Binding::Rest => response.view(begin(TaskView::rest(id))),
            Binding::JsonRpc(call) => response.view(begin(TaskView::json_rpc(id, call))),
            Binding::JsonRpcV03(call) => response.view(V03View {
                view: TaskView::json_rpc(id, call),
                first,
            }),
        };
        self.hub.cuts.watch(connection, response)
    }
}

/// The task, unless it has become too large to be kept.
fn whole(known: &Known) -> Result<Task, A2AError> {
    known.whole().cloned().ok_or_else(|| {
        let sentence = format!("too large to be shown: {}", known.task().id);
        A2AError::unsupported_operation(sentence)
    })
}

fn text_of(message: &Message) -> String {
    message
        .parts
        .iter()
        .filter_map(|part| part.as_text())
        .collect()
}

/// Clients of 0.3 have other names for everything, and do not get here. One that does not say is taken at its word.
fn check_version(headers: &HeaderMap) -> Result<(), A2AError> {
    let Some(version) = headers.get(::a2a::SVC_PARAM_VERSION) else {
        return Ok(());
    };
    match version.as_bytes() {
        b"" | b"1" | [b'1', b'.', ..] => Ok(()),
        other => Err(A2AError::version_not_supported(&String::from_utf8_lossy(
            other,
        ))),
    }
}
