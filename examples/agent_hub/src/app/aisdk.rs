//! What `useChat` of the AI SDK talks to: a POST that is answered with a run of the agent, a GET that resumes it, and a POST
//! that stops it.
//!
//! A chat has at most one run at a time, and can be resumed on any of the hubs that share their events.

use std::mem;
use std::sync::Mutex;

use ::a2a::new_message_id;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidings::protocol::a2a::A2aEvent;
use tidings::protocol::agui::{AgUiEvent, Body};
use tidings::sse::SseResponse;
use tidings::{BroadcastError, KeepAlive, LastEventId, Subscription};
use tidings_aisdk::{
    Abort, Chunk, ChunkView, Failure, Finish, FinishReason, FinishStep, HEADER, ReasoningDelta,
    ReasoningEnd, ReasoningStart, Start, StartStep, TextDelta, TextEnd, TextStart,
    ToolInputAvailable, ToolInputDelta, ToolInputStart, ToolOutputAvailable,
};

use super::Hub;
use super::agent::{Job, Outlet};
use super::body;
use super::limits::{self, Posted};
use super::runs::{self, Denied, Phase, Run, Runs};

/// A user, and one of the user's chats.
type ChatKey = (String, String);

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
) -> Result<Response, Denied> {
    let request: Request = body::json(&headers, &body, "request of the AI SDK")?;
    let (message, text) = asked(request.messages);
    let name = message.as_deref().unwrap_or_default();
    limits::names([&*request.id, &*request.trigger, name])?;
    let chat = (user, request.id);
    // A client that sends the same again, because a connection broke before the response, means the same run.
    let question = message.map(|message| json!([request.trigger, message, text]).to_string());
    let question = question.as_deref().map(runs::hash);
    let id = new_message_id();
    let place = || hub.work.take(&chat.0, &text);
    let asked = hub
        .chats
        .ask_in_turn(&chat.0, &chat.1, question, &id, place);
    let (stream, run) = asked?;
    if let Some(run) = run {
        let answer = Answer {
            chats: hub.chats.clone(),
            chat: chat.clone(),
            id: id.clone(),
            call: Mutex::default(),
            _run: run,
        };
        let job = Job {
            conversation: chat.1,
            id,
            text,
            state: Map::new(),
        };
        hub.start(job, answer);
    }
    Ok(respond(&hub, stream))
}

/// `GET /aisdk/{user}/chat/{id}/stream`
pub(super) async fn resume(
    State(hub): State<Hub>,
    Path((user, chat)): Path<ChatKey>,
) -> Result<Response, Denied> {
    let run = hub.chats.newest(&user, &chat);
    // One that ends in between is kept for a while: its client gets all of it.
    let from_start = LastEventId::none();
    let stream = match run {
        Some(run) => hub.chats.follow(&user, Some(&chat), &run, &from_start)?,
        None => None,
    };
    Ok(match stream {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(stream) => respond(&hub, stream),
    })
}

/// `POST /aisdk/{user}/chat/{id}/stop`: `stop` of `useChat` ends the response alone, since the page may come back. The agent finds
/// out by itself.
pub(super) async fn stop(State(hub): State<Hub>, Path((user, chat)): Path<ChatKey>) -> StatusCode {
    if let Some(run) = hub.chats.newest(&user, &chat) {
        let last = Abort::new().reason("the user has stopped it").into();
        let end = Some(Phase::Finished);
        if let Err(error) = hub.chats.say(&user, &chat, &run, &last, end, || Ok(())) {
            tracing::warn!(error = error.to_string(), "the end of a run was not sent");
        }
    }
    StatusCode::NO_CONTENT
}

fn respond(hub: &Hub, stream: Subscription) -> Response {
    let connection = stream.guard().connection_id().clone();
    let response = SseResponse::new(stream)
        .keep_alive(&hub.keep_alive(KeepAlive::comment()))
        .view(ChunkView::default());
    ([HEADER], hub.cuts.watch(connection, response)).into_response()
}

/// The id and the text of the message that is to be answered.
fn asked(messages: Vec<Message>) -> (Option<String>, String) {
    let last = messages.into_iter().rfind(|message| message.role == "user");
    let (message, parts) = last.map_or_else(Default::default, |last| (last.id, last.parts));
    let texts = parts.into_iter().filter_map(|part| match part {
        Part::Text { text } => Some(text),
        Part::Other => None,
    });
    (message, texts.collect())
}

/// The agent's way to a chat.
struct Answer {
    chats: Runs<Chunk>,
    chat: ChatKey,
    /// Of the run, and of the message that the client makes of it.
    id: String,
    /// The tool that is being called.
    call: Mutex<Call>,
    _run: Run<Chunk>,
}

/// A tool's name, and its arguments as far as they have come.
#[derive(Default)]
struct Call {
    tool: String,
    arguments: String,
}

impl Answer {
    /// Says nothing any more once the run was stopped.
    fn say(&self, chunk: &Chunk) -> Result<(), BroadcastError> {
        let end = match chunk {
            Chunk::Finish(_) => Some(Phase::Finished),
            Chunk::Failure(_) => Some(Phase::Failed),
            _ => None,
        };
        let (user, chat) = &self.chat;
        let said = self.chats.say(user, chat, &self.id, chunk, end, || Ok(()));
        said.map(drop)
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

impl Outlet for Answer {
    fn agui(&self, event: &AgUiEvent) -> Result<(), BroadcastError> {
        let chunk = self.chunk(&event.event.body);
        chunk.map_or(Ok(()), |chunk| self.say(&chunk))
    }

    fn a2a(&self, _: &A2aEvent) -> Result<(), BroadcastError> {
        Ok(())
    }

    fn is_canceled(&self) -> bool {
        !self.chats.is_under_way(&self.chat.0, &self.id)
    }
}

impl Drop for Answer {
    /// An agent that failed, or panicked, has sent no last chunk.
    fn drop(&mut self) {
        // Only a hub that stops refuses it, and that ends the streams as well.
        let _ = self.say(&Failure::new("The agent has failed.").into());
    }
}
