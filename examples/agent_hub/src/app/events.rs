//! Events that are sent to all streams of a user that they concern.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings::protocol::a2a::A2aEvent;
use tidings::protocol::agui::{AgUiEvent, Event, RunRef};
use tidings::protocol::analytics::AnalyticsEvent;
use tidings::protocol::system::SystemEvent;
use tidings::{BroadcastError, Text};

use super::a2a::tasks::Unsent;
use super::body::{self, Refusal, bad};
use super::limits::{self, Posted};
use super::{Hub, unknown_kind};

/// Which run an AG-UI event belongs to. Most events do not say.
#[derive(Deserialize)]
pub(super) struct Run {
    thread: Option<String>,
    run: Option<String>,
}

/// Sends an event. The answer says how many streams of each kind it was sent to.
pub(super) async fn publish(
    State(hub): State<Hub>,
    Path((user, kind)): Path<(String, String)>,
    Query(run): Query<Run>,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Result<Json<Value>, Refusal> {
    let routed = match &*kind {
        "text" => {
            let event = Text::new(body::text(&headers, &body)?).event("text");
            let reached = hub.text.broadcast(&user, &event).map_err(failed)?;
            return Ok(Json(json!({ "reached": reached })));
        }
        "agui" => {
            let event = agui(body::json(&headers, &body, "AG-UI event")?, run)?;
            hub.publish_agui(&user, &event)
        }
        "a2a" => {
            let event: A2aEvent = body::json(&headers, &body, "A2A event")?;
            if event.response().is_none() {
                return Err(bad(
                    "The body is an A2A event of 0.3, and the streams are of 1.0.",
                ));
            }
            limits::names(event.task_id().into_iter().chain(event.context_id()))?;
            let refused = |status, sentence: &str| Err((status, sentence.to_owned()));
            return match hub.publish_a2a(&user, &event) {
                Ok(routed) => Ok(Json(json!(routed))),
                Err(Unsent::Ended) => refused(StatusCode::CONFLICT, "The task has ended."),
                Err(Unsent::Full) => {
                    let sentence = "There are too many tasks that have not ended.";
                    refused(StatusCode::TOO_MANY_REQUESTS, sentence)
                }
                Err(Unsent::Failed(error)) => Err(failed(error)),
            };
        }
        "system" => {
            let event: SystemEvent = body::json(&headers, &body, "system event")?;
            hub.events.route_system(&user, &event)
        }
        "analytics" => {
            let event: AnalyticsEvent = body::json(&headers, &body, "analytics event")?;
            hub.events.route_analytics(&user, &event)
        }
        _ => return Err(unknown_kind("events", &kind)),
    };
    Ok(Json(json!(routed.map_err(failed)?)))
}

fn agui(event: Event, run: Run) -> Result<AgUiEvent, Refusal> {
    // Each stream that follows the run keeps these ids.
    let fields = json!(event);
    let fields = fields.as_object().into_iter().flatten();
    let names = fields.filter(|(field, _)| field.ends_with("Id") || *field == "stepName");
    let names = names.filter_map(|(_, name)| name.as_str());
    let of_run = run.thread.iter().chain(&run.run).map(String::as_str);
    limits::names(names.chain(of_run))?;
    // A broadcast does the same, but only when there is somebody to reach.
    if let Err(error) = event.check() {
        return Err(bad(format!(
            "AG-UI clients would not take the event: {error}."
        )));
    }
    let event = AgUiEvent::new(event);
    let run = match (run.thread, run.run) {
        (None, None) => return Ok(event),
        (Some(thread), Some(run)) => RunRef::new(thread, run),
        _ => return Err(bad("A run is named by both \"thread\" and \"run\".")),
    };
    match event.run {
        Some(own) if own != run => Err(bad(
            "The event names another run than \"thread\" and \"run\" do.",
        )),
        _ => Ok(run.event(event.event)),
    }
}

fn failed(error: BroadcastError) -> Refusal {
    let sentence = error.to_string();
    (error.into_response().status(), sentence)
}
