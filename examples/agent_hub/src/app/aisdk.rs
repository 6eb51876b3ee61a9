//! What `useChat` of the AI SDK talks to: a POST that is answered with a run of the agent, and a GET that resumes it.
//!
//! Each run is a channel of its own, in a broadcaster of its own. A chat can be resumed on the hub that runs its agent.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ::a2a::new_message_id;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use tidings::protocol::a2a::A2aEvent;
use tidings::protocol::agui::{AgUiEvent, Body};
use tidings::protocol::aisdk::{
    self, Abort, Chunk, ChunkView, Finish, FinishReason, FinishStep, ReasoningDelta, ReasoningEnd,
    ReasoningStart, Start, StartStep, TextDelta, TextEnd, TextStart, ToolInputAvailable,
    ToolInputDelta, ToolInputStart, ToolOutputAvailable,
};
use tidings::sse::SseResponse;
use tidings::{
    BroadcastError, GenericBroadcaster, History, Hold, KeepAlive, RegisterError, Subscription,
};

use super::agent::{Job, Outlet};
use super::body::{self, Refusal};
use super::limits::{self, Posted};
use super::work::Place;
use super::{Hub, refused};

/// Chunks of a run, more than the agent has for the longest text that it reads.
const MOST_CHUNKS: usize = 20_000;

/// How long the history of a finished run stays, for streams that lag.
const LINGER: Duration = Duration::from_secs(10);

/// A user, and one of the user's chats.
type ChatKey = (String, String);

/// Chats and their runs.
#[derive(Clone)]
pub(super) struct Chats {
    runs: GenericBroadcaster<Chunk>,
    /// The newest run of each chat, until it ends. Its last chunk is sent, and its stream opened, under this lock: a client
    /// that resumes gets the whole run, or learns that none is under way, also right after the last chunk.
    under_way: Arc<Mutex<HashMap<ChatKey, String>>>,
}

impl Chats {
    pub(super) fn new() -> Self {
        let runs = GenericBroadcaster::builder()
            .name("aisdk")
            .history(History::new(MOST_CHUNKS).linger_completed(LINGER))
            .sweep_every(Duration::from_secs(1))
            .build();
        Self {
            runs: runs.expect("the settings are valid"),
            under_way: Arc::default(),
        }
    }

    pub(super) fn runs(&self) -> &GenericBroadcaster<Chunk> {
        &self.runs
    }

    /// The user's runs that are under way.
    pub(super) fn runs_of(&self, user: &str) -> Vec<String> {
        let under_way = self.lock();
        let of_user = under_way.iter().filter(|((owner, _), _)| owner == user);
        of_user.map(|(_, run)| run.clone()).collect()
    }

    /// A stream of the chat's run, from its start; `None` if no run is under way.
    fn resume(&self, chat: &ChatKey) -> Option<Result<Subscription, RegisterError>> {
        let under_way = self.lock();
        let run = under_way.get(chat)?;
        Some(self.runs.resume_from_start(&**run))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChatKey, String>> {
        self.under_way
            .lock()
            .expect("nothing panics while it is held")
    }
}

#[derive(Deserialize)]
struct Request {
    /// The chat.
    id: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Part {
    Text {
        text: String,
    },
    #[serde(other)]
    Other,
}

/// `POST /aisdk/{user}/chat`: the agent answers the user's last message.
pub(super) async fn send(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Result<Response, Refusal> {
    let request: Request = body::json(&headers, &body, "request of the AI SDK")?;
    limits::names([&*request.id])?;
    let text = text_of(&request.messages);
    let place = hub.work.take(&user, &text)?;
    let id = new_message_id();
    let hold = hub.chats.runs.hold(&*id).map_err(|error| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        (status, format!("The run cannot be kept: {error}."))
    })?;
    let stream = match hub.chats.runs.resume_from_start(&*id) {
        Ok(stream) => stream,
        Err(error) => return Ok(refused(error)),
    };
    let run = Run {
        chats: hub.chats.clone(),
        chat: (user, request.id),
        id,
        call: Mutex::default(),
        _hold: hold,
        _place: place,
    };
    run.begin();
    let job = Job {
        conversation: run.chat.1.clone(),
        id: run.id.clone(),
        text,
        state: Map::new(),
    };
    hub.start(job, run);
    Ok(respond(&hub, stream))
}

/// `GET /aisdk/{user}/chat/{id}/stream`
pub(super) async fn resume(State(hub): State<Hub>, Path(chat): Path<(String, String)>) -> Response {
    match hub.chats.resume(&chat) {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(Ok(stream)) => respond(&hub, stream),
        Some(Err(error)) => refused(error),
    }
}

fn respond(hub: &Hub, stream: Subscription) -> Response {
    let connection = stream.guard().connection_id().clone();
    let response = SseResponse::new(stream)
        .keep_alive(&hub.keep_alive(KeepAlive::comment()))
        .view(ChunkView::default());
    ([aisdk::HEADER], hub.cuts.watch(connection, response)).into_response()
}

fn text_of(messages: &[Message]) -> String {
    let asked = messages.iter().rfind(|message| message.role == "user");
    let parts = asked.map_or(&[][..], |message| &message.parts);
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(&**text),
        Part::Other => None,
    });
    texts.collect()
}

/// A run of the agent, which ends when it is dropped.
struct Run {
    chats: Chats,
    chat: ChatKey,
    /// Also the id of the message that the client makes of it.
    id: String,
    /// The tool that is being called.
    call: Mutex<Call>,
    _hold: Hold,
    _place: Place,
}

/// A tool's name, and its arguments as far as they have come.
#[derive(Default)]
struct Call {
    tool: String,
    arguments: String,
}

impl Run {
    fn begin(&self) {
        let mut under_way = self.chats.lock();
        under_way.insert(self.chat.clone(), self.id.clone());
    }

    fn end(&self, last: &Chunk) -> Result<(), BroadcastError> {
        let mut under_way = self.chats.lock();
        // The chat may have a newer run.
        if under_way.get(&self.chat) == Some(&self.id) {
            under_way.remove(&self.chat);
        }
        let sent = self.chats.runs.broadcast(&self.id, last);
        if let Err(error) = self.chats.runs.complete(&self.id) {
            tracing::warn!(error = error.to_string(), "a run did not end");
        }
        sent.map(drop)
    }

    /// What the AI SDK calls this; `None` for what it does not know.
    fn chunk(&self, event: &Body) -> Option<Chunk> {
        let mut call = self.call.lock().expect("nothing panics while it is held");
        Some(match event {
            Body::RunStarted(_) => Start::new().message_id(&*self.id).into(),
            Body::RunFinished(_) => Finish::new().finish_reason(FinishReason::Stop).into(),
            Body::RunError(error) => Abort::new().reason(&*error.message).into(),
            Body::StepStarted(_) => StartStep::new().into(),
            Body::StepFinished(_) => FinishStep::new().into(),
            Body::ReasoningMessageStart(it) => ReasoningStart::new(&*it.message_id).into(),
            Body::ReasoningMessageContent(it) => {
                ReasoningDelta::new(&*it.message_id, &*it.delta).into()
            }
            Body::ReasoningMessageEnd(it) => ReasoningEnd::new(&*it.message_id).into(),
            Body::ToolCallStart(it) => {
                call.tool.clone_from(&it.tool_call_name);
                ToolInputStart::new(&*it.tool_call_id, &*it.tool_call_name).into()
            }
            Body::ToolCallArgs(it) => {
                call.arguments.push_str(&it.delta);
                ToolInputDelta::new(&*it.tool_call_id, &*it.delta).into()
            }
            Body::ToolCallEnd(it) => {
                let Call { tool, arguments } = mem::take(&mut *call);
                let input: Value = serde_json::from_str(&arguments).unwrap_or_default();
                ToolInputAvailable::new(&*it.tool_call_id, tool, input).into()
            }
            Body::ToolCallResult(it) => {
                let output = serde_json::to_value(&it.content).ok()?;
                ToolOutputAvailable::new(&*it.tool_call_id, output).into()
            }
            Body::TextMessageStart(it) => TextStart::new(&*it.message_id).into(),
            Body::TextMessageContent(it) => TextDelta::new(&*it.message_id, &*it.delta).into(),
            Body::TextMessageEnd(it) => TextEnd::new(&*it.message_id).into(),
            _ => return None,
        })
    }
}

impl Outlet for Run {
    fn agui(&self, event: &AgUiEvent) -> Result<(), BroadcastError> {
        match self.chunk(&event.event.body) {
            None => Ok(()),
            Some(last @ (Chunk::Finish(_) | Chunk::Abort(_))) => self.end(&last),
            Some(chunk) => self.chats.runs.broadcast(&self.id, &chunk).map(drop),
        }
    }

    fn a2a(&self, _: &A2aEvent) -> Result<(), BroadcastError> {
        Ok(())
    }
}

impl Drop for Run {
    /// An agent that failed, or panicked, has sent no last chunk.
    fn drop(&mut self) {
        if !self.chats.runs.is_complete(&self.id) {
            let last = Abort::new().reason("the agent has failed");
            // Only a hub that stops refuses it, and that ends the streams as well.
            let _ = self.end(&last.into());
        }
    }
}
