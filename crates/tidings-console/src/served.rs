//! What a console serves, and what its routes answer with.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::feed::Feed;
use super::source::{Source, Sources};

/// The most streams watched at a time, of all users together: the users' caps do not count them.
pub(super) const MOST_WATCHES: usize = 16;

/// How the service names an operator.
pub(super) type Operator = dyn Fn(&Parts) -> Option<String> + Send + Sync;

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
