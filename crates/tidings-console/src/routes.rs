//! The routes, and what they have in common.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use super::caller::{Caller, Operator};
use super::feed::Feed;
use super::source::{Source, Sources};
use super::watch::Seen;
use super::{actions, assets, guard, users};
use tidings::sse::SseResponse;

/// The most streams watched at a time, of all users together: the users' caps do not count them.
pub(super) const MOST_WATCHES: usize = 16;

/// More than an operator types.
const MOST_BODY: usize = 64 * 1024;

/// What a console serves, and how.
pub(super) struct Served {
    pub(super) sources: Sources,
    pub(super) feed: Arc<Feed>,
    pub(super) interval: Duration,
    pub(super) rows: usize,
    /// The hosts it answers to, beside those of loopback.
    pub(super) hosts: Vec<String>,
    pub(super) read_only: bool,
    pub(super) operator: Option<Arc<Operator>>,
    /// A permit for each stream that is watched.
    pub(super) watches: Arc<Semaphore>,
}

pub(super) type Shared = Arc<Served>;

impl Served {
    pub(super) fn source(&self, name: &str) -> Result<&Arc<dyn Source>, Refusal> {
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "There is no such broadcaster.");
        self.sources.get(name).ok_or_else(unknown)
    }
}

pub(super) fn router<S: Clone + Send + Sync + 'static>(served: Served) -> Router<S> {
    let shared = Arc::new(served);
    Router::new()
        .route("/", get(assets::entrance))
        .route("/page", get(assets::page))
        .route("/console.css", get(assets::style))
        .route("/console.js", get(assets::script))
        .route("/live", get(live))
        .route("/users", get(list))
        .route("/watch", get(watch))
        .route("/disconnect", post(actions::disconnect))
        .route("/send", post(actions::send))
        .fallback(assets::nothing)
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(from_fn_with_state(shared.clone(), guard::guard))
        .with_state(shared)
}

/// The figures, as they come.
async fn live(State(shared): State<Shared>) -> Result<SseResponse, Response> {
    let page = shared.feed.open(&shared);
    let page = page.map_err(IntoResponse::into_response)?;
    Ok(SseResponse::new(page).retry(Duration::from_secs(2)))
}

#[derive(Deserialize)]
struct Search {
    broadcaster: String,
    #[serde(default)]
    search: String,
}

async fn list(
    State(shared): State<Shared>,
    query: Result<Query<Search>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Search {
        broadcaster,
        search,
    }) = query?;
    let source = shared.source(&broadcaster)?.clone();
    // A walk over all users, which must not block the other requests of this thread.
    let listing =
        tokio::task::spawn_blocking(move || users::list(source.as_ref(), &search, shared.rows));
    match listing.await {
        Ok(listing) => Ok(answer(&listing)),
        Err(_) => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The service is stopping.",
        )),
    }
}

#[derive(Deserialize)]
struct Watched {
    broadcaster: String,
    user: String,
}

/// A user's stream, through a connection that the user's cap does not count.
async fn watch(
    State(shared): State<Shared>,
    caller: Caller,
    query: Result<Query<Watched>, QueryRejection>,
) -> Result<SseResponse, Response> {
    let Query(Watched { broadcaster, user }) =
        query.map_err(|error| Refusal::from(error).into_response())?;
    let source = shared.source(&broadcaster);
    let source = source.map_err(IntoResponse::into_response)?;
    let place = shared.watches.clone().try_acquire_owned().map_err(|_| {
        let sentence = format!("The console watches {MOST_WATCHES} streams already.");
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, sentence).into_response()
    })?;
    let watching = source.watch(&user).map_err(IntoResponse::into_response)?;
    tracing::info!(
        broadcaster,
        user,
        peer = caller.peer(),
        host = caller.host(),
        operator = caller.operator(),
        "watched by an operator"
    );
    Ok(SseResponse::new(watching)
        .view(Seen::new(place))
        .retry(Duration::from_secs(2)))
}

/// An error response: a sentence for the operator.
pub(super) struct Refusal(StatusCode, Cow<'static, str>);

impl Refusal {
    pub(super) fn new(status: StatusCode, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self(status, sentence.into())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, answer(&json!({ "error": self.1 }))).into_response()
    }
}

pub(super) fn answer<T: Serialize>(value: &T) -> Response {
    let json = serde_json::to_vec(value).expect("what is answered has string keys");
    ([(CONTENT_TYPE, "application/json")], json).into_response()
}
