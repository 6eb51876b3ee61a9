//! Responses for axum.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use super::{KeepAlive, SseBody};
use crate::error::RegisterError;
use crate::subscription::Subscription;

/// A subscription as a response, with a keep-alive of your choice.
///
/// Sends `content-type: text/event-stream`, `cache-control: no-cache, no-transform` and `x-accel-buffering: no`, so that
/// caches, compressing proxies and nginx pass each event on as it comes. Returning the [`Subscription`] itself does the
/// same with the default keep-alive.
///
/// ```
/// use axum::extract::{Path, State};
/// use tidings::{GenericBroadcaster, RegisterError, Text, sse::SseResponse, standard_keep_alive};
///
/// async fn stream(
///     State(hub): State<GenericBroadcaster<Text>>,
///     Path(user): Path<String>,
/// ) -> Result<SseResponse, RegisterError> {
///     Ok(SseResponse::new(hub.register(user)?).keep_alive(&standard_keep_alive()))
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct SseResponse {
    body: SseBody,
}

impl SseResponse {
    /// The response of this subscription.
    pub fn new(subscription: Subscription) -> Self {
        Self {
            body: SseBody::new(subscription),
        }
    }

    /// Sets the keep-alive.
    pub fn keep_alive(mut self, keep_alive: &KeepAlive) -> Self {
        self.body = self.body.keep_alive(keep_alive);
        self
    }
}

impl IntoResponse for SseResponse {
    fn into_response(self) -> Response {
        let headers = [
            (CONTENT_TYPE, "text/event-stream"),
            (CACHE_CONTROL, "no-cache, no-transform"),
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        (headers, Body::new(self.body)).into_response()
    }
}

impl IntoResponse for Subscription {
    fn into_response(self) -> Response {
        SseResponse::new(self).into_response()
    }
}

/// 429 for a full user, 503 for a full service, both with `Retry-After` in seconds; 409 for an id that is in use. The
/// body is the error's sentence.
///
/// A browser's `EventSource` gives up for good on any of them.
impl IntoResponse for RegisterError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::UserFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::TotalFull { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectionIdInUse => {
                return (StatusCode::CONFLICT, self.to_string()).into_response();
            }
        };
        (status, [(RETRY_AFTER, "5")], self.to_string()).into_response()
    }
}
