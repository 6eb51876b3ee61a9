//! What AG-UI's HttpAgent talks to: a POST that is answered with one run.

use std::ops::ControlFlow;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidings::protocol::agui::{Content, ContentPart, Message, RunAgentInput, RunRef, RunView};
use tidings::sse::{Chunks, SseResponse, View};
use tidings::{Frame, Gap, GapReason, KeepAlive, LagPolicy, LastEventId, Subscription};

use super::Hub;
use super::agent::Job;
use super::body::{self, bad};
use super::limits::{self, Posted};
use super::runs::Denied;

/// Of the state that the agent is given, as JSON.
const MOST_STATE: usize = 64 * 1024;

#[derive(Deserialize)]
pub(super) struct Choice {
    agent: Option<String>,
}

/// Follows the run that the body names, from its start. It consists of the events of the agent that is asked for, or of those
/// that are posted to the user as belonging to it.
pub(super) async fn run(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    Query(choice): Query<Choice>,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Result<Response, Denied> {
    let input = input(&headers, &body)?;
    let run = RunRef::from(&input);
    // Whether all that the stream has is of this run.
    let (stream, is_own) = match choice.agent.as_deref() {
        Some("echo") => (ask(&hub, &user, input)?, true),
        Some(other) => {
            let sentence = format!("There is no agent {other:?}, only \"echo\".");
            return Err(bad(sentence).into());
        }
        None => {
            let (thread, from_start) = (Some(run.thread()), LastEventId::none());
            match hub.runs.follow(&user, thread, run.run(), &from_start)? {
                Some(stream) => (stream, true),
                None => (hub.events.agui().resume_from_start(&*user)?, false),
            }
        }
    };
    // The view reports a gap.
    let stream = stream.lag_policy(LagPolicy::Gap);
    let connection = stream.guard().connection_id().clone();
    let response = SseResponse::new(stream)
        .keep_alive(&hub.keep_alive(KeepAlive::comment()))
        .view(Kept {
            view: RunView::new(run),
            has_begun: is_own,
        });
    Ok(hub.cuts.watch(connection, response))
}

pub(super) fn input(headers: &HeaderMap, body: &[u8]) -> Result<RunAgentInput, Denied> {
    let input: RunAgentInput = body::json(headers, body, "RunAgentInput")?;
    limits::names([&*input.thread_id, &*input.run_id])?;
    Ok(input)
}

/// A stream of a run of the agent, from its start. The run begins if nobody has asked for it before.
pub(super) fn ask(hub: &Hub, user: &str, input: RunAgentInput) -> Result<Subscription, Denied> {
    let (messages, job) = job(input);
    if json!(job.state).to_string().len() > MOST_STATE {
        let sentence = format!("The agent takes a state of at most {MOST_STATE} bytes.");
        return Err(bad(sentence).into());
    }
    let place = || hub.work.take(user, &job.text);
    let (stream, run) = hub.runs.ask(user, &job.conversation, &job.id, place)?;
    if let Some(run) = run {
        hub.threads.begin(user, &job.conversation, &messages);
        hub.start_agent(run, user.into(), job);
    }
    Ok(stream)
}

/// A run among all events that are kept of a user. A gap before the first of them is not reported: it may be one of other runs. If
/// this run began in it, the view reports that at the end.
struct Kept {
    view: RunView,
    has_begun: bool,
}

impl View for Kept {
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        self.has_begun = true;
        self.view.show(frame, chunks)
    }

    fn gap(&mut self, gap: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        if !self.has_begun && gap.reason != GapReason::Lagged {
            return ControlFlow::Continue(());
        }
        self.view.gap(gap, chunks)
    }

    fn end(&mut self, chunks: &mut Chunks) {
        self.view.end(chunks);
    }

    fn keep_alive_interval(&self) -> Duration {
        self.view.keep_alive_interval()
    }
}

/// What the input asks for, and the conversation so far.
fn job(input: RunAgentInput) -> (Vec<Message>, Job) {
    let mut messages = input.messages.iter().rev();
    let text = messages.find_map(|message| match message {
        Message::User(message) => Some(text_of(&message.content)),
        _ => None,
    });
    let job = Job {
        conversation: input.thread_id,
        id: input.run_id,
        text: text.unwrap_or_default(),
        state: match input.state.map(|state| state.0) {
            Some(Value::Object(state)) => state,
            _ => Map::new(),
        },
    };
    (input.messages, job)
}

pub(super) fn text_of(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => parts
            .iter()
            .filter_map(|part| match part {
                ContentPart::Text(part) => Some(&*part.text),
                _ => None,
            })
            .collect(),
    }
}
