//! What `@tanstack/ai-client` talks to, with `fetchServerSentEvents("/tanstack/ann")`: a POST that is answered with a run of the
//! agent, and a GET for pages that load in the middle of one.
//!
//! Each event has an id. A client whose stream is cut sends the same POST again, with the id of the last event that it has: that
//! goes on with the run and never begins one.

use std::ops::ControlFlow;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidings::protocol::agui::{AgUiEvent, Body, Event, RunError, RunRef, RunView};
use tidings::sse::{Chunks, SseResponse, View};
use tidings::{Frame, Gap, KeepAlive, LastEventId, Subscription};

use super::body::bad;
use super::limits::Posted;
use super::runs::Denied;
use super::{Hub, agui};

/// Bytes of a last event that is remembered whole.
const MOST_LAST: usize = 4 * 1024;

/// `POST /tanstack/{user}`: the agent answers the user's last message.
pub(super) async fn run(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    last_event_id: LastEventId,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Result<Response, Denied> {
    let input = agui::input(&headers, &body)?;
    let run = input.run_id.clone();
    if headers.get("x-run-id").is_some_and(|id| id != &*run) {
        return Err(bad("The header X-Run-Id and the body name different runs.").into());
    }
    let stream = if last_event_id.is_none() {
        agui::ask(&hub, &user, input)?
    } else {
        known(&hub, &user, Some(&input.thread_id), &run, &last_event_id)?
    };
    Ok(respond(&hub, &user, &run, stream))
}

/// The query of a page that loads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    offset: Option<String>,
    run_id: Option<String>,
    thread_id: Option<String>,
}

/// `GET /tanstack/{user}?offset=-1&runId=R` answers with a run from its start, `GET /tanstack/{user}?threadId=T` with the messages of
/// a conversation and the run that is under way.
pub(super) async fn get(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    Query(wanted): Query<Wanted>,
    last_event_id: LastEventId,
) -> Result<Response, Denied> {
    match (wanted.run_id, wanted.thread_id) {
        (Some(run), None) => {
            let from_start = wanted.offset.as_deref() == Some("-1");
            if !from_start && (wanted.offset.is_some() || last_event_id.is_none()) {
                return Err(bad("A run is joined with offset=-1.").into());
            }
            let stream = known(&hub, &user, None, &run, &last_event_id)?;
            Ok(respond(&hub, &user, &run, stream))
        }
        (None, Some(thread)) => {
            // In this order, so that the text of a run that ends in between is among the messages.
            let active = hub.runs.newest(&user, &thread);
            let messages = hub.threads.messages(&user, &thread);
            let active = active.map(|run| json!({ "runId": run }));
            let page = json!({ "messages": messages, "activeRun": active, "interrupts": null });
            Ok(Json(page).into_response())
        }
        _ => Err(bad("Either \"runId\" or \"threadId\" has to be named.").into()),
    }
}

fn known(
    hub: &Hub,
    user: &str,
    thread: Option<&str>,
    run: &str,
    last: &LastEventId,
) -> Result<Subscription, Denied> {
    let stream = hub.runs.follow(user, thread, run, last)?;
    stream.ok_or_else(|| {
        let sentence = format!(
            "There is no run {run:?} of this user: it has not begun, or is over and forgotten, or the hub was restarted."
        );
        (StatusCode::NOT_FOUND, sentence).into()
    })
}

fn respond(hub: &Hub, user: &str, run: &str, stream: Subscription) -> Response {
    let connection = stream.guard().connection_id().clone();
    let elsewhere = || {
        let (thread, has_failed) = hub.runs.ended_elsewhere(user, run)?;
        Some(short(&RunRef::new(thread, run), has_failed))
    };
    let view = EventsOfRun {
        last: hub.runs.last(user, run).or_else(elsewhere),
        has_shown: false,
    };
    let response = SseResponse::new(stream)
        .keep_alive(&hub.keep_alive(KeepAlive::comment()))
        .view(view);
    hub.cuts.watch(connection, response)
}

/// The events of a run, to the last. The client takes any other event for one of the run, so a gap is an error of the run.
struct EventsOfRun {
    /// If the run was over when the stream was opened.
    last: Option<Frame>,
    has_shown: bool,
}

impl EventsOfRun {
    fn error(chunks: &mut Chunks, why: String) {
        let error = RunError::new(why).code(RunView::CUT_OFF);
        chunks.push(encode(&Event::new(error).into()).to_bytes());
    }
}

fn encode(event: &AgUiEvent) -> Frame {
    Frame::encode(event).expect("an event of strings")
}

/// The last event of a run, as it is sent again: without what it carries if it is longer than [`MOST_LAST`].
pub(super) fn summary(last: &AgUiEvent) -> Option<Frame> {
    let of = last.run.as_ref()?;
    let whole = Frame::encode(last).ok();
    let whole = whole.filter(|frame| frame.to_bytes().len() <= MOST_LAST);
    let has_failed = matches!(last.event.body, Body::RunError(_));
    Some(whole.unwrap_or_else(|| short(of, has_failed)))
}

/// The last event of a run, without what it carries.
fn short(of: &RunRef, has_failed: bool) -> Frame {
    match has_failed {
        true => encode(&of.event(Event::run_error("the run has failed"))),
        false => encode(&of.event(Event::run_finished(of.thread(), of.run()))),
    }
}

impl View for EventsOfRun {
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        self.has_shown = true;
        chunks.push(frame.to_bytes());
        match frame.event() {
            Some("RUN_FINISHED" | "RUN_ERROR") => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn gap(&mut self, gap: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        Self::error(chunks, format!("Events of this run are missing: {gap}."));
        ControlFlow::Break(())
    }

    /// The client reconnects after a stream that had an event, and takes one without events for a run that failed, even if it has
    /// the last event already. So it gets that event again, without the id, by which it would skip it.
    fn end(&mut self, chunks: &mut Chunks) {
        match &self.last {
            _ if self.has_shown => {}
            Some(last) => chunks.push(last.to_bytes()),
            None => Self::error(chunks, "The stream was ended before the run.".into()),
        }
    }
}
