//! How much a request may be, and what it may name. A request beyond these limits is refused before it costs anything.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::body::{Refusal, bad};

/// Of a body.
pub(super) const MOST_BODY: usize = 2 * 1024 * 1024;

/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Of a path with its query, and so of a user's name.
const MOST_URI: usize = 16 * 1024;

/// Of what a body names and the hub remembers: a task, a run, a conversation, a message, a call, a step.
pub(super) const MOST_NAME: usize = 256;

/// A body that is not too long, and has come in time. Of one that is too long, nothing is kept.
pub(super) struct Posted(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await {
            Ok(Ok(body)) => Ok(Self(body)),
            Ok(Err(rejection)) => Err(rejection.into_response()),
            Err(_) => {
                let sentence = format!("The body did not come within {BODY_TIME:?}.");
                Err((StatusCode::REQUEST_TIMEOUT, sentence).into_response())
            }
        }
    }
}

/// Refuses paths that are too long.
pub(super) async fn uri(request: Request, next: Next) -> Response {
    let uri = request.uri();
    if uri.path_and_query().map_or(0, |uri| uri.as_str().len()) > MOST_URI {
        let sentence = format!("A path and its query have at most {MOST_URI} bytes.");
        return (StatusCode::URI_TOO_LONG, sentence).into_response();
    }
    next.run(request).await
}

/// Refuses names that are too long.
pub(super) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Refusal> {
    if names.into_iter().any(|name| name.len() > MOST_NAME) {
        let sentence = "The name of a task, a run, a conversation, a message, a call or a step";
        return Err(bad(format!("{sentence} has at most {MOST_NAME} bytes.")));
    }
    Ok(())
}
