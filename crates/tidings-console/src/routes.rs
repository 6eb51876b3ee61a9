//! The routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::caller::Caller;
use super::served::{MOST_WATCHES, Refusal, Served, Shared, answer};
use super::watch::Seen;
use super::{actions, assets, guard, users};
use tidings::sse::SseResponse;

/// More than an operator types.
const MOST_BODY: usize = 64 * 1024;

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
    let page = shared
        .feed
        .open(&shared.sources, shared.interval, !shared.read_only);
    let (page, view) = page.map_err(IntoResponse::into_response)?;
    Ok(SseResponse::new(page)
        .view(view)
        .retry(Duration::from_secs(2)))
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
