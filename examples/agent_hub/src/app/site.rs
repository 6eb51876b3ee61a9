//! Where the hub is reached, and which pages a browser may show that reach it.
//!
//! It is no login. It keeps out the other sites that a user's browser visits: those that send requests to the hub, and
//! those whose name an attacker points at this machine (DNS rebinding), so that the browser takes the hub for a part of them.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderName, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::body::Refusal;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The page's own script, style and requests, and an icon that stands in it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How clients reach the hub.
#[derive(Clone, Default)]
pub(crate) struct Site {
    hosts: Vec<String>,
    public_url: Option<String>,
    believes_proxy: bool,
}

impl Site {
    /// Answers to this host as well. Loopback names and addresses need not be named.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.hosts.push(host.to_owned());
        self
    }

    /// Clients reach the hub at this URL, whatever their requests look like here.
    ///
    /// # Errors
    ///
    /// When it is not an address of `http` or `https` that paths can be put behind.
    pub(crate) fn public_url(mut self, url: &str) -> Result<Self, &'static str> {
        let wrong = "it has to be http://HOST or https://HOST, with a path if there is one";
        let uri: Uri = url.parse().map_err(|_| wrong)?;
        let (scheme, host) = uri.scheme_str().zip(uri.host()).ok_or(wrong)?;
        if !matches!(scheme, "http" | "https") || uri.query().is_some() {
            return Err(wrong);
        }
        self.hosts.push(host.to_owned());
        self.public_url = Some(url.trim_end_matches('/').to_owned());
        Ok(self)
    }

    /// Believes `X-Forwarded-Host` and `X-Forwarded-Proto`. Only behind a proxy that sets both, whatever the client has
    /// sent.
    pub(crate) fn believes_proxy(mut self, believes_proxy: bool) -> Self {
        self.believes_proxy = believes_proxy;
        self
    }

    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The address of a path, as clients name it; `None` if the request says no host.
    pub(super) fn url(&self, uri: &Uri, headers: &HeaderMap, path: &str) -> Option<String> {
        if let Some(base) = &self.public_url {
            return Some(format!("{base}{path}"));
        }
        let authority = self.authority(uri, headers)?;
        let proto = self.forwarded(headers, &FORWARDED_PROTO);
        let scheme = if proto == Some("https") {
            "https"
        } else {
            "http"
        };
        Some(format!("{scheme}://{authority}{path}"))
    }

    /// What the proxy says, its nearest one if there are several.
    fn forwarded<'a>(&self, headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
        let last = headers.get_all(name).iter().next_back()?.to_str().ok()?;
        let nearest = last.rsplit(',').next()?.trim();
        self.believes_proxy.then_some(nearest)
    }

    /// The host and port that the client asked for.
    fn authority<'a>(&self, uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
        self.forwarded(headers, &FORWARDED_HOST)
            // HTTP/2 has it here, and no `Host`.
            .or(uri.authority().map(Authority::as_str))
            .or(headers.get(HOST).and_then(|host| host.to_str().ok()))
    }

    fn check(&self, request: &request::Parts) -> Result<(), Refusal> {
        let (uri, headers) = (&request.uri, &request.headers);
        let hosts = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
        let mut named = hosts
            .chain(uri.authority().map(|authority| Some(authority.as_str())))
            .chain(self.forwarded(headers, &FORWARDED_HOST).map(Some))
            .peekable();
        let is_known = |authority: Option<&str>| authority.is_some_and(|it| self.is_known(it));
        if named.peek().is_none() || !named.all(is_known) {
            let sentence = "The hub does not answer under this host name: see --host.";
            return Err((StatusCode::FORBIDDEN, sentence.into()));
        }
        // A link to the page may stand anywhere. Streams of other sites are refused as well as their posts: opening one takes
        // a place under the user's cap, whether or not its events can be read.
        let is_page = request.method == Method::GET && uri.path() == "/";
        if !is_page && self.is_of_another_site(uri, headers) {
            let sentence = "The request comes from another site.";
            return Err((StatusCode::FORBIDDEN, sentence.into()));
        }
        Ok(())
    }

    fn is_known(&self, authority: &str) -> bool {
        // A user's name and password have no place there.
        let (Ok(authority), false) = (authority.parse::<Authority>(), authority.contains('@'))
        else {
            return false;
        };
        let host = authority.host().trim_end_matches('.');
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = match address.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => {
                let name = host.to_ascii_lowercase();
                name == "localhost" || name.ends_with(".localhost")
            }
        };
        is_loopback
            || self
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(host))
    }

    /// Whether the browser says so: `Sec-Fetch-Site` is its own comparison, which no proxy disturbs; `Origin` goes with every
    /// post, and is compared here. Programs send neither.
    fn is_of_another_site(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        if let Some(site) = headers.get(SEC_FETCH_SITE) {
            return !matches!(site.as_bytes(), b"same-origin" | b"none");
        }
        let Some(origin) = headers.get(ORIGIN) else {
            return false;
        };
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        // `null`, the origin of what has none, is another one.
        let Some((_, origin)) = origin else {
            return true;
        };
        let public = self.public_url.as_ref().and_then(|url| url.parse().ok());
        let public = public.as_ref().and_then(Uri::authority);
        Some(origin) != self.authority(uri, headers)
            && Some(origin) != public.map(Authority::as_str)
    }
}

/// Refuses what is not for this host or comes from another site, and says with each answer what a browser may do with it.
pub(crate) async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match site.check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => refusal.into_response(),
    };
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
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
