//! Streams of a user's events, one kind each.

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tidings::sse::SseResponse;
use tidings::{AGENT_HEARTBEAT_INTERVAL, KeepAlive, LagPolicy, LastEventId, RefusalForm};

use super::body::Refusal;
use super::{Hub, unknown_kind};

#[derive(Deserialize)]
pub(super) struct Choice {
    #[serde(default)]
    heartbeat: Heartbeat,
}

/// What is sent to a stream that is silent.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Heartbeat {
    #[default]
    Comment,
    /// The event `heartbeat`. Streams of AG-UI and A2A get the comment nevertheless: it is no event of theirs.
    Event,
}

/// Opens a stream of the user's events, from where the client was.
pub(super) async fn open(
    State(hub): State<Hub>,
    Path((user, kind)): Path<(String, String)>,
    Query(choice): Query<Choice>,
    last_event_id: LastEventId,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let subscription = match &*kind {
        "text" => hub.text.resume(user, &last_event_id),
        "context" => hub.events.context().resume(user, &last_event_id),
        "analytics" => hub.events.analytics().resume(user, &last_event_id),
        "agui" => hub.events.agui().resume(user, &last_event_id),
        "a2a" => hub.events.a2a().resume(user, &last_event_id),
        _ => return Err(unknown_kind("streams", &kind)),
    };
    Ok(match subscription {
        Ok(subscription) => {
            // Clients of a single run or task have routes of their own. Clients of these streams understand the event `gap`.
            let subscription = subscription.lag_policy(LagPolicy::Gap);
            let connection = subscription.guard().connection_id().clone();
            let keep_alive = match (&*kind, choice.heartbeat) {
                ("agui" | "a2a", _) => KeepAlive::comment().interval(AGENT_HEARTBEAT_INTERVAL),
                (_, Heartbeat::Comment) => KeepAlive::comment(),
                (_, Heartbeat::Event) => KeepAlive::heartbeat_event(),
            };
            let mut response =
                SseResponse::new(subscription).keep_alive(&hub.keep_alive(keep_alive));
            if let Some(after) = hub.retry {
                response = response.retry(after);
            }
            hub.cuts.watch(connection, response)
        }
        // It would never try again after a status that says what is the matter.
        Err(error) if is_event_source(&headers) => {
            error.in_form(RefusalForm::ComeBack).into_response()
        }
        // Has the status and the `Retry-After` that go with it.
        Err(error) => error.into_response(),
    })
}

/// Whether the client takes a stream and nothing else, as an `EventSource` does, a browser's or another: it gives up for good
/// on a status that says what is the matter. A browser names itself (`Sec-Fetch-Dest`) only on HTTPS and to localhost.
fn is_event_source(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .is_some_and(|accept| accept == "text/event-stream")
}
