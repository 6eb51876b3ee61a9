//! What is posted: JSON of one kind or another, or a sentence that says what is wrong with it.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// An answer that is not what was asked for: a status and a sentence.
pub(super) type Refusal = (StatusCode, String);

pub(super) fn bad(sentence: impl Into<String>) -> Refusal {
    (StatusCode::BAD_REQUEST, sentence.into())
}

/// The body as a value of this type, which the sentence calls `name`.
pub(super) fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &[u8],
    name: &str,
) -> Result<T, Refusal> {
    must_be_json(headers)?;
    serde_json::from_slice(body)
        .map_err(|error| bad(format!("The body is not a valid {name}: {error}.")))
}

/// The text out of `{"text": "..."}`.
///
/// Parsed here and not by axum's `Json`, which would answer 415, 422 or 400, and would accept `["..."]` too.
pub(super) fn text(headers: &HeaderMap, body: &[u8]) -> Result<String, Refusal> {
    must_be_json(headers)?;
    let mut body: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| bad(format!("The body has to be a JSON object: {error}.")))?;
    match body.remove("text") {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(bad("The field \"text\" has to be a string.")),
        None => Err(bad("The field \"text\" is missing.")),
    }
}

/// A body without a type is taken for what it turns out to be.
fn must_be_json(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(CONTENT_TYPE) {
        Some(content_type) if !is_json(content_type.as_bytes()) => Err(bad(
            "The body has to be of the content type application/json.",
        )),
        _ => Ok(()),
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
