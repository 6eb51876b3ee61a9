//! The page, as it is in the binary.

use axum::extract::OriginalUri;
use axum::http::Uri;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use super::routes::Refusal;

const PAGE: &str = include_str!("assets/console.html");
const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");

/// The page, where its address ends in a slash. Its own addresses are relative, so that it works wherever it is nested and
/// whatever a proxy does to the path; without the slash they would lead beside it.
pub(super) async fn page(OriginalUri(uri): OriginalUri) -> Response {
    if uri.path().ends_with('/') {
        return typed("text/html; charset=utf-8", PAGE);
    }
    // Relative, for the same reason. With a dot in front, because what is before a colon would be taken for a scheme.
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    let place = [(LOCATION, format!("./{last}/"))];
    (StatusCode::PERMANENT_REDIRECT, place).into_response()
}

pub(super) async fn style() -> Response {
    typed("text/css; charset=utf-8", STYLE)
}

pub(super) async fn script() -> Response {
    typed("text/javascript; charset=utf-8", SCRIPT)
}

/// A router that is nested at `/console` is not asked for its `/` by `/console/`, but for something it does not have.
pub(super) async fn elsewhere(uri: Uri, original: OriginalUri) -> Response {
    if matches!(uri.path(), "" | "/") {
        return page(original).await;
    }
    Refusal::new(StatusCode::NOT_FOUND, "There is nothing at this address.").into_response()
}

fn typed(content_type: &'static str, body: &'static str) -> Response {
    let content_type: [(HeaderName, _); 1] = [(CONTENT_TYPE, content_type)];
    (content_type, body).into_response()
}
