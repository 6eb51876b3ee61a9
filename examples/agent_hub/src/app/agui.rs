//! What AG-UI's HttpAgent talks to: a POST that is answered with one run.

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidings::KeepAlive;
use tidings::protocol::agui::{Content, ContentPart, Message, RunAgentInput, RunRef, RunView};
use tidings::sse::SseResponse;

use super::agent::Job;
use super::body::{self, Refusal, bad};
use super::limits::{self, Posted};
use super::{Hub, refused};

#[derive(Deserialize)]
pub(super) struct Choice {
    agent: Option<String>,
}

/// Follows the run that the body names. It consists of the events that are posted to the user as belonging to it, or of
/// those of the agent that is asked for.
pub(super) async fn run(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    Query(choice): Query<Choice>,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Result<Response, Refusal> {
    let input: RunAgentInput = body::json(&headers, &body, "RunAgentInput")?;
    limits::names([&*input.thread_id, &*input.run_id])?;
    let run = RunRef::from(&input);
    let job = match choice.agent.as_deref() {
        None => None,
        Some("echo") => {
            let job = job(input);
            Some((hub.work.take(&user, &job.text)?, job))
        }
        Some(other) => {
            let sentence = format!("There is no agent {other:?}, only \"echo\".");
            return Err(bad(sentence));
        }
    };
    // Before the agent starts, or the run would begin without its reader.
    let subscription = match hub.events.agui().register(&*user) {
        Ok(subscription) => subscription,
        // A client that reads one run would take an empty stream for one.
        Err(error) => return Ok(refused(error)),
    };
    let connection = subscription.guard().connection_id().clone();
    let response = SseResponse::new(subscription)
        .keep_alive(&hub.keep_alive(KeepAlive::comment()))
        .view(RunView::new(run));
    if let Some((place, job)) = job {
        hub.start_agent(place, user, job);
    }
    Ok(hub.cuts.watch(connection, response))
}

fn job(input: RunAgentInput) -> Job {
    let text = input
        .messages
        .iter()
        .rev()
        .find_map(|message| match message {
            Message::User(message) => Some(text_of(&message.content)),
            _ => None,
        });
    Job {
        conversation: input.thread_id,
        id: input.run_id,
        text: text.unwrap_or_default(),
        state: match input.state.map(|state| state.0) {
            Some(Value::Object(state)) => state,
            _ => Map::new(),
        },
    }
}

fn text_of(content: &Content) -> String {
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
