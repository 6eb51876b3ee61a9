//! What keeps other sites out that an operator's browser visits. It is no login.

use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::routes::Refusal;

/// A script can set it on requests to its own site only: browsers ask first (CORS) whether another one may, and get no yes.
const ACTION: HeaderName = HeaderName::from_static("x-tidings-console");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Its own script, style and streams, and an icon that stands in the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Refuses what other sites ask for, and says with each answer what a browser may do with it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let mut response = match check(request.method(), request.headers(), request.uri().path()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    let fixed = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // The streams have one of their own.
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn check(method: &Method, headers: &HeaderMap, path: &str) -> Result<(), Refusal> {
    let is_page = method == Method::GET && matches!(path, "" | "/" | "/page");
    // A link to the page may stand anywhere. Everything else is the page's own business, streams included: opening one
    // takes a place under the caps, whether or not its events can be read.
    if !is_page && is_of_another_site(headers) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "The request comes from another site.",
        ));
    }
    let is_action = !matches!(*method, Method::GET | Method::HEAD);
    if is_action && !headers.contains_key(ACTION) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "The request lacks the header x-tidings-console.",
        ));
    }
    Ok(())
}

/// Whether the browser says so. `Sec-Fetch-Site` is the browser's own comparison, which no proxy disturbs; `Origin` is
/// compared here, with the host that was asked for, where there is no such word. Programs send neither.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let of_origin = origin.to_str().ok().and_then(|origin| {
        let (_, host) = origin.split_once("://")?;
        Some(host.as_bytes())
    });
    // `null`, the origin of what has none, is another one.
    of_origin.is_none() || of_origin != host
}
