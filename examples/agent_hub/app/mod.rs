//! The routes. [`router`] is the whole of it, so that tests can serve it in a process of their own.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, KeepAlive, LastEventId, Stats, Text};

mod cut;

use cut::Cuts;

/// An answer that is not what was asked for: a status and a sentence.
type Refusal = (StatusCode, String);

#[derive(Clone)]
struct Hub {
    text: GenericBroadcaster<Text>,
    keep_alive: KeepAlive,
    /// How long clients shall wait before they reconnect.
    retry: Option<Duration>,
    cuts: Cuts,
}

/// Everything the hub answers to.
///
/// The user is a part of the path, so that one can play with it. A service would take it from what it has
/// authenticated: whoever names a user here gets that user's events.
pub(crate) fn router(
    text: GenericBroadcaster<Text>,
    keep_alive: KeepAlive,
    retry: Option<Duration>,
) -> Router {
    let hub = Hub {
        text,
        keep_alive,
        retry,
        cuts: Cuts::default(),
    };
    Router::new()
        .route("/", get(Html(include_str!("index.html"))))
        .route("/stats", get(stats))
        .route("/users/{user}/streams/{kind}", get(stream))
        .route("/users/{user}/events/{kind}", post(publish))
        .route("/users/{user}/drop", post(cut_connections))
        .route("/users/{user}/end", post(end_connections))
        .fallback(unknown_path)
        .with_state(hub)
}

/// Opens a stream of the user's events, from where the client was.
async fn stream(
    State(hub): State<Hub>,
    Path((user, kind)): Path<(String, String)>,
    last_event_id: LastEventId,
    headers: HeaderMap,
) -> Response {
    if kind != "text" {
        return unknown_kind("streams", &kind).into_response();
    }
    match hub.text.resume(user, &last_event_id) {
        Ok(subscription) => {
            let connection = subscription.guard().connection_id().clone();
            let mut response = SseResponse::new(subscription).keep_alive(&hub.keep_alive);
            if let Some(after) = hub.retry {
                response = response.retry(after);
            }
            hub.cuts.watch(connection, response)
        }
        // A browser's EventSource would never try again after a status that says what is the matter.
        Err(error) if is_event_source(&headers) => error.come_back().into_response(),
        // Has the status and the `Retry-After` that go with it.
        Err(error) => error.into_response(),
    }
}

/// Whether a browser asks on behalf of an `EventSource`: it says that it is a browser, and that it takes a stream only.
fn is_event_source(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-dest")
        && headers
            .get(ACCEPT)
            .is_some_and(|accept| accept == "text/event-stream")
}

/// Sends an event to all streams that the user has open.
async fn publish(
    State(hub): State<Hub>,
    Path((user, kind)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    if kind != "text" {
        return Err(unknown_kind("events", &kind));
    }
    let event = Text::new(text_of(&headers, &body)?).event("text");
    let reached = hub
        .text
        .broadcast(&user, &event)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(json!({ "reached": reached })))
}

/// Ends the user's connections as a server ends a response: clients see that it is complete.
async fn end_connections(State(hub): State<Hub>, Path(user): Path<String>) -> Json<Value> {
    Json(json!({ "ended": hub.text.evict(&user) }))
}

/// Ends the user's connections as a crash would: clients see that the response is not complete.
async fn cut_connections(State(hub): State<Hub>, Path(user): Path<String>) -> Json<Value> {
    Json(json!({ "dropped": hub.cuts.cut(&hub.text, &user) }))
}

async fn stats(State(hub): State<Hub>) -> Json<Stats> {
    Json(hub.text.stats())
}

async fn unknown_path(uri: Uri) -> Refusal {
    let sentence = format!("There is nothing at {}.", uri.path());
    (StatusCode::NOT_FOUND, sentence)
}

fn unknown_kind(what: &str, kind: &str) -> Refusal {
    let sentence = format!("There are no {what} of the kind {kind:?}, only of the kind \"text\".");
    (StatusCode::NOT_FOUND, sentence)
}

/// The text out of `{"text": "..."}`.
///
/// Looked at by hand and not by axum's `Json`, which would answer 415, 422 or 400, and would take `["..."]` for it too.
fn text_of(headers: &HeaderMap, body: &[u8]) -> Result<String, Refusal> {
    let bad = |sentence: String| (StatusCode::BAD_REQUEST, sentence);
    // A body without a type is taken for what it turns out to be.
    if let Some(content_type) = headers.get(CONTENT_TYPE) {
        if !is_json(content_type.as_bytes()) {
            let sentence = "The body has to be of the content type application/json.";
            return Err(bad(sentence.into()));
        }
    }
    let mut body: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| bad(format!("The body has to be a JSON object: {error}.")))?;
    match body.remove("text") {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(bad("The field \"text\" has to be a string.".into())),
        None => Err(bad("The field \"text\" is missing.".into())),
    }
}

/// Whether this is `application/json` or one of its kin, such as `application/ld+json`.
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|&byte| byte == b';').next();
    let essence = essence
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    essence == b"application/json"
        || (essence.starts_with(b"application/") && essence.ends_with(b"+json"))
}
