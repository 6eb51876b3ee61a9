//! Responses for axum.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use super::{Cursor, KeepAlive, SseBody, View};
use crate::error::{BroadcastError, Field, RefusalForm, RegisterError, RelayError};
use crate::frame::Frame;
use crate::subscription::Subscription;
use crate::time::reconnect_after;

const EVENT_STREAM: [(HeaderName, &str); 3] = [
    (CONTENT_TYPE, "text/event-stream"),
    (CACHE_CONTROL, "no-cache, no-transform"),
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// A subscription as a response, with a keep-alive of your choice.
///
/// Sends `content-type: text/event-stream`, `cache-control: no-cache, no-transform` and `x-accel-buffering: no`, so that
/// caches, compressing proxies and nginx pass each event on as it comes. Returning the [`Subscription`] itself does the
/// same with the default keep-alive.
///
/// If the channel is [complete](crate::GenericBroadcaster::complete) and the client has all of it, the response is 204 without a
/// body, at which an `EventSource` reconnects no more. With a [`view`](Self::view), which may still show something, it is
/// always a stream.
///
/// Its extensions tell `tidings::serve::serve` when the stream is over, so that the server does not wait for a client that
/// does not read, and let [one task](crate::serve#one-writer-for-each-user) write the events of all streams of a user.
///
/// ```
/// use std::time::Duration;
///
/// use axum::extract::{Path, State};
/// use tidings::{GenericBroadcaster, KeepAlive, RegisterError, Text, sse::SseResponse};
///
/// async fn stream(
///     State(hub): State<GenericBroadcaster<Text>>,
///     Path(user): Path<String>,
/// ) -> Result<SseResponse, RegisterError> {
///     let keep_alive = KeepAlive::comment().interval(Duration::from_secs(20));
///     Ok(SseResponse::new(hub.register(user)?).keep_alive(&keep_alive))
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct SseResponse {
    body: SseBody,
    /// There is nothing to send, now or later.
    is_exhausted: bool,
    #[cfg(feature = "serve")]
    handle: crate::subscription::StreamHandle,
}

impl SseResponse {
    /// The response of this subscription.
    pub fn new(subscription: Subscription) -> Self {
        #[cfg(feature = "serve")]
        let handle = subscription.guard().stream_handle();
        let is_exhausted = subscription.is_exhausted();
        let body = SseBody::new(subscription);
        Self {
            is_exhausted,
            #[cfg(feature = "serve")]
            body: body.with_exchange(handle.exchange()),
            #[cfg(not(feature = "serve"))]
            body,
            #[cfg(feature = "serve")]
            handle,
        }
    }

    /// Sets the keep-alive.
    pub fn keep_alive(mut self, keep_alive: &KeepAlive) -> Self {
        self.body = self.body.keep_alive(keep_alive);
        self
    }

    /// Sets the view that decides what the client gets, see [`SseBody::view`].
    pub fn view(mut self, view: impl View) -> Self {
        self.body = self.body.view(view);
        self.is_exhausted = false;
        self
    }

    /// Decides for each event what the client gets, see [`SseBody::filter_map`].
    pub fn filter_map(
        mut self,
        map: impl FnMut(Arc<Frame>) -> Option<Arc<Frame>> + Send + Sync + 'static,
    ) -> Self {
        self.body = self.body.filter_map(map);
        self
    }

    /// Ends the stream after the first event for which this is `true`, see [`SseBody::until`].
    pub fn until(mut self, is_last: impl FnMut(&Frame) -> bool + Send + Sync + 'static) -> Self {
        self.body = self.body.until(is_last);
        self
    }

    /// Sets whether the stream begins with an id, and in which form, see [`SseBody::cursor`].
    pub fn cursor(mut self, cursor: impl Into<Cursor>) -> Self {
        self.body = self.body.cursor(cursor);
        self
    }

    /// Tells the client how long to wait before it reconnects, see [`SseBody::retry`].
    pub fn retry(mut self, after: Duration) -> Self {
        self.body = self.body.retry(after);
        self
    }
}

impl IntoResponse for SseResponse {
    fn into_response(self) -> Response {
        if self.is_exhausted {
            return StatusCode::NO_CONTENT.into_response();
        }
        let response = (EVENT_STREAM, Body::new(self.body)).into_response();
        #[cfg(feature = "serve")]
        let response = (axum::Extension(self.handle), response).into_response();
        response
    }
}

impl IntoResponse for Subscription {
    fn into_response(self) -> Response {
        SseResponse::new(self).into_response()
    }
}

/// [`BroadcastError`] has a table of the statuses.
impl IntoResponse for BroadcastError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Encode(error) if error.field().is_some_and(|field| field != Field::Data) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::Encode(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Complete => StatusCode::CONFLICT,
            Self::NotRelayed { reason, .. } => match reason {
                RelayError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                RelayError::Refused => StatusCode::BAD_GATEWAY,
                RelayError::Unconfirmed => StatusCode::GATEWAY_TIMEOUT,
                RelayError::QueueFull | RelayError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            },
        };
        (status, self.to_string()).into_response()
    }
}

/// The response is in the [`RefusalForm`] that the error carries. As a status: 429 for a full user, 503 for a full service
/// and during a shutdown, with `Retry-After`: five to ten seconds, at random. An id that is in use is always 409. The body of
/// a status is the error's sentence.
///
/// By default a full cap is a status and a shutdown is not. A browser's `EventSource` gives up for good on any status but
/// 200; to make it try again see [`Builder::when_full`](crate::Builder::when_full) and [`RegisterError::in_form`].
impl IntoResponse for RegisterError {
    fn into_response(self) -> Response {
        let (status, form) = match self {
            Self::UserFull { form, .. } => (StatusCode::TOO_MANY_REQUESTS, form),
            Self::TotalFull { form, .. } | Self::ShuttingDown { form } => {
                (StatusCode::SERVICE_UNAVAILABLE, form)
            }
            Self::ConnectionIdInUse => {
                return (StatusCode::CONFLICT, self.to_string()).into_response();
            }
        };
        match form {
            RefusalForm::Status => {
                // Clients that are refused together must not come back together.
                let after = [(RETRY_AFTER, fastrand::u64(5..=10))];
                (status, after, self.to_string()).into_response()
            }
            RefusalForm::ComeBack => {
                let retry = Frame::retry_line(reconnect_after(Duration::from_secs(10)));
                let refused = Frame::refused(self.reason(), self.cap());
                let body = [&retry, refused.as_bytes()].concat();
                (EVENT_STREAM, Body::from(body)).into_response()
            }
        }
    }
}
