//! What `useChat` of the AI SDK talks to: a POST that is answered with a run of the agent, a GET that resumes it, and a POST
//! that stops it.
//!
//! Each run is a channel of its own, in a broadcaster of its own. A chat has at most one run at a time, and can be resumed on
//! the hub that runs its agent.

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
    self, Abort, Chunk, ChunkView, Failure, Finish, FinishReason, FinishStep, ReasoningDelta,
    ReasoningEnd, ReasoningStart, Start, StartStep, TextDelta, TextEnd, TextStart,
    ToolInputAvailable, ToolInputDelta, ToolInputStart, ToolOutputAvailable,
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
    /// The run of each chat, until it ends. It begins, its last chunk is sent, and its streams are opened under this lock: a
    /// client that resumes gets the whole run, or learns that none is under way, also right after the last chunk.
    under_way: Arc<Mutex<HashMap<ChatKey, UnderWay>>>,
}

/// A run that has not ended.
struct UnderWay {
    run: String,
    asked: Asked,
}

/// What a run answers. A client that sends the same again, because a connection broke before the response, means this run.
#[derive(PartialEq)]
struct Asked {
    trigger: String,
    message: Option<String>,
    text: String,
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
        of_user.map(|(_, it)| it.run.clone()).collect()
    }

    /// A stream of the chat's run, from its start; `None` if no run is under way.
    fn resume(&self, chat: &ChatKey) -> Option<Result<Subscription, RegisterError>> {
        let under_way = self.lock();
        let UnderWay { run, .. } = under_way.get(chat)?;
        Some(self.runs.resume_from_start(&**run))
    }

    /// Ends the chat's run for the client, if one is under way. The agent finds out by itself.
    fn stop(&self, chat: &ChatKey) {
        let mut under_way = self.lock();
        if let Some(UnderWay { run, .. }) = under_way.remove(chat) {
            let last = Abort::new().reason("the user has stopped it");
            if let Err(error) = self.finish(&run, &last.into()) {
                tracing::warn!(error = error.to_string(), "the end of a run was not sent");
            }
        }
    }

    fn finish(&self, run: &str, last: &Chunk) -> Result<(), BroadcastError> {
        let sent = self.runs.broadcast(run, last);
        if let Err(error) = self.runs.complete(run) {
            tracing::warn!(error = error.to_string(), "a run did not end");
        }
        sent.map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChatKey, UnderWay>> {
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
    /// Whether the message is new or shall be answered again.
    #[serde(default)]
    trigger: String,
}

#[derive(Deserialize)]
struct Message {
    id: Option<String>,
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

/// `POST /aisdk/{user}/chat`: the agent answers the user's last message. While it does, another message is refused, and the same
/// one joins the run.
pub(super) async fn send(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Result<Response, Refusal> {
    let request: Request = body::json(&headers, &body, "request of the AI SDK")?;
    let asked = asked(request.messages, request.trigger);
    let message = asked.message.as_deref().unwrap_or_default();
    limits::names([&*request.id, &*asked.trigger, message])?;
    let chat = (user, request.id);
    let runs = &hub.chats.runs;

    let mut under_way = hub.chats.lock();
    if let Some(it) = under_way.get(&chat) {
        if it.asked != asked || asked.message.is_none() {
            let sentence = "This chat is being answered. Ask again after that, or stop it first.";
            return Err((StatusCode::CONFLICT, sentence.into()));
        }
        return Ok(respond(&hub, runs.resume_from_start(&*it.run)));
    }
    let place = hub.work.take(&chat.0, &asked.text)?;
    let id = new_message_id();
    let hold = runs.hold(&*id).map_err(|error| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        (status, format!("The run cannot be kept: {error}."))
    })?;
    let stream = match runs.resume_from_start(&*id) {
        Ok(stream) => stream,
        Err(error) => return Ok(refused(error)),
    };
    let job = Job {
        conversation: chat.1.clone(),
        id: id.clone(),
        text: asked.text.clone(),
        state: Map::new(),
    };
    let run = id.clone();
    under_way.insert(chat.clone(), UnderWay { run, asked });
    drop(under_way);
    let run = Run {
        chats: hub.chats.clone(),
        chat,
        id,
        call: Mutex::default(),
        _hold: hold,
        _place: place,
    };
    hub.start(job, run);
    Ok(respond(&hub, Ok(stream)))
}

/// `GET /aisdk/{user}/chat/{id}/stream`
pub(super) async fn resume(State(hub): State<Hub>, Path(chat): Path<ChatKey>) -> Response {
    match hub.chats.resume(&chat) {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(stream) => respond(&hub, stream),
    }
}

/// `POST /aisdk/{user}/chat/{id}/stop`: `stop` of `useChat` ends the response alone, since the page may come back.
pub(super) async fn stop(State(hub): State<Hub>, Path(chat): Path<ChatKey>) -> StatusCode {
    hub.chats.stop(&chat);
    StatusCode::NO_CONTENT
}

fn respond(hub: &Hub, stream: Result<Subscription, RegisterError>) -> Response {
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return refused(error),
    };
    let connection = stream.guard().connection_id().clone();
    let response = SseResponse::new(stream)
        .keep_alive(&hub.keep_alive(KeepAlive::comment()))
        .view(ChunkView::default());
    ([aisdk::HEADER], hub.cuts.watch(connection, response)).into_response()
}

fn asked(messages: Vec<Message>, trigger: String) -> Asked {
    let last = messages.into_iter().rfind(|message| message.role == "user");
    let (message, parts) = last.map_or_else(Default::default, |last| (last.id, last.parts));
    let texts = parts.into_iter().filter_map(|part| match part {
        Part::Text { text } => Some(text),
        Part::Other => None,
    });
    Asked {
        trigger,
        message,
        text: texts.collect(),
    }
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
    /// Ends the run, unless it was stopped.
    fn end(&self, last: &Chunk) -> Result<(), BroadcastError> {
        let mut under_way = self.chats.lock();
        // After a stop the chat may have another run.
        if under_way.get(&self.chat).is_none_or(|it| it.run != self.id) {
            return Ok(());
        }
        under_way.remove(&self.chat);
        self.chats.finish(&self.id, last)
    }

    /// What the AI SDK calls this; `None` for what it does not know.
    fn chunk(&self, event: &Body) -> Option<Chunk> {
        let mut call = self.call.lock().expect("nothing panics while it is held");
        Some(match event {
            Body::RunStarted(_) => Start::new().message_id(&*self.id).into(),
            Body::RunFinished(_) => Finish::new().finish_reason(FinishReason::Stop).into(),
            Body::RunError(error) => Failure::new(&*error.message).into(),
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
        let sent = match self.chunk(&event.event.body) {
            None => return Ok(()),
            Some(last @ (Chunk::Finish(_) | Chunk::Failure(_))) => self.end(&last),
            Some(chunk) => self.chats.runs.broadcast(&self.id, &chunk).map(drop),
        };
        match sent {
            // It was stopped, which the agent asks about.
            Err(BroadcastError::Complete) => Ok(()),
            sent => sent,
        }
    }

    fn a2a(&self, _: &A2aEvent) -> Result<(), BroadcastError> {
        Ok(())
    }

    fn is_canceled(&self) -> bool {
        self.chats.runs.is_complete(&self.id)
    }
}

impl Drop for Run {
    /// An agent that failed, or panicked, has sent no last chunk.
    fn drop(&mut self) {
        // Only a hub that stops refuses it, and that ends the streams as well.
        let _ = self.end(&Failure::new("The agent has failed.").into());
    }
}
