//! The page, as it is in the binary.

use axum::extract::OriginalUri;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use super::served::Refusal;

const PAGE: &str = include_str!("assets/console.html");
const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");

pub(super) async fn page() -> Response {
    typed("text/html; charset=utf-8", PAGE)
}

/// Redirects to the page. The page names its parts relative to itself, so that it works wherever it is nested and whatever a
/// proxy does to the path: at this address, which may or may not end with a slash, it would not find them.
pub(super) async fn entrance(OriginalUri(uri): OriginalUri) -> Response {
    // Relative, for the same reason: `./console/page` from `/ops/console`, and `./page` from `/ops/console/`. With the dot
    // in front, because what is before a colon would be taken for a scheme.
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    let slash = if last.is_empty() { "" } else { "/" };
    let place = [(LOCATION, format!("./{last}{slash}page"))];
    (StatusCode::TEMPORARY_REDIRECT, place).into_response()
}

pub(super) async fn style() -> Response {
    typed("text/css; charset=utf-8", STYLE)
}

pub(super) async fn script() -> Response {
    typed("text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn nothing() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "There is nothing at this address.")
}

fn typed(content_type: &'static str, body: &'static str) -> Response {
    let content_type: [(HeaderName, _); 1] = [(CONTENT_TYPE, content_type)];
    (content_type, body).into_response()
}
