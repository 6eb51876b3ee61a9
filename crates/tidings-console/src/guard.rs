//! Keeps out other sites that an operator's browser visits. It is not a login.
//!
//! 1. A request names a host that the console answers to. When an attacker's name resolves to this machine (DNS rebinding), a
//!    browser takes the attacker's page and the console for one site; but its requests still name the attacker's host.
//! 2. A request comes from the console's own page, or from a program that is no browser.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::served::{Refusal, Shared};

/// A script can set it only on requests to its own site: for another site the browser asks first (CORS), and gets no
/// permission.
const ACTION: HeaderName = HeaderName::from_static("x-tidings-console");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Its own script, style and streams, and an icon that stands in the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Refuses requests of other sites, and says with each response what a browser may do with it.
pub(super) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let checked = check_host(&shared.hosts, request.uri(), request.headers())
        .and_then(|()| check(request.method(), request.uri(), request.headers()));
    let mut response = match checked {
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

/// Checks that the request names a host, and that every host it names is known.
fn check_host(known: &[String], uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let named = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
    // HTTP/2 has it here, and no `Host`.
    let named = named.chain(uri.authority().map(|authority| Some(authority.as_str())));
    let mut named = named
        .map(|authority| authority.and_then(host_of))
        .peekable();
    let is_known =
        |host: Option<String>| host.is_some_and(|host| is_loopback(&host) || known.contains(&host));
    if named.peek().is_some() && named.all(is_known) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "The console does not answer under this host name: see Console::hosts.",
    ))
}

/// The name or address alone, in one of its spellings.
pub(super) fn host_of(authority: &str) -> Option<String> {
    let authority: Authority = authority.parse().ok()?;
    // A user name and password do not belong there.
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().trim_end_matches('.');
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(host.to_ascii_lowercase())
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let is_page = method == Method::GET && matches!(uri.path(), "" | "/" | "/page");
    // Any site may link to the page. Everything else is for the page alone, streams included: opening one takes a place under
    // the caps, whether or not its events can be read.
    if !is_page && is_of_another_site(uri, headers) {
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

/// Whether the browser says that another site sent the request. `Sec-Fetch-Site` is the browser's own comparison, which no
/// proxy disturbs; without it, `Origin` is compared here with the host of the request. Programs send neither.
fn is_of_another_site(uri: &Uri, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let host = uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let host = host.or(headers.get(HOST).map(HeaderValue::as_bytes));
    let of_origin = origin.to_str().ok().and_then(|origin| {
        let (_, host) = origin.split_once("://")?;
        Some(host.as_bytes())
    });
    // `null`, which stands for no origin, is another site.
    of_origin.is_none() || of_origin != host
}
