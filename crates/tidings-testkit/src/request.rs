//! Requests for streams.

use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::error::SseError;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A request for an event stream, which [`open`](Self::open) and [`connect`](Self::connect) send, and each
/// [`reconnect`](crate::SseClient::reconnect) sends again.
///
/// It has the headers `accept: text/event-stream` and `cache-control: no-store`, as a browser's has, where it is not given
/// others.
#[derive(Clone)]
#[must_use]
pub struct SseRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
    pub(super) last_event_id: String,
    pub(super) limit: Duration,
    pub(super) receive_buffer: Option<u32>,
}

impl SseRequest {
    /// A GET request for a path, which may have a query.
    ///
    /// # Panics
    ///
    /// If it is no path.
    #[track_caller]
    pub fn get(path: impl AsRef<str>) -> Self {
        Self::new(Method::GET, path.as_ref(), String::new())
    }

    /// A POST request with this body, for services that open a stream that way. Set the body's `content-type` as a
    /// [`header`](Self::header).
    ///
    /// # Panics
    ///
    /// If it is no path.
    #[track_caller]
    pub fn post(path: impl AsRef<str>, body: impl Into<String>) -> Self {
        Self::new(Method::POST, path.as_ref(), body.into())
    }

    #[track_caller]
    fn new(method: Method, path: &str, body: String) -> Self {
        let uri = path.parse().ok().filter(|_| path.starts_with('/'));
        let headers = [
            (ACCEPT, HeaderValue::from_static("text/event-stream")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        Self {
            method,
            uri: uri.unwrap_or_else(|| panic!("{path:?} is no path")),
            headers: HeaderMap::from_iter(headers),
            body,
            last_event_id: String::new(),
            limit: Duration::from_secs(30),
            receive_buffer: None,
        }
    }

    /// Sets a header.
    ///
    /// # Panics
    ///
    /// If the name or the value is none that HTTP allows.
    #[track_caller]
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: fmt::Debug>,
        V: TryInto<HeaderValue, Error: fmt::Debug>,
    {
        let name = name.try_into().expect("the name of a header");
        let value = value.try_into().expect("the value of a header");
        self.headers.insert(name, value);
        self
    }

    /// Starts as a client that has seen the event with this id. Default: none, and no header `Last-Event-ID`.
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.last_event_id = id.into();
        self
    }

    /// Sets how long opening, and each of the client's methods, waits before it gives up. Default: 30 seconds, twice
    /// the [interval of heartbeats](tidings::HEARTBEAT_INTERVAL).
    ///
    /// Only a test that fails waits so long. It is time of tokio's clock: with the clock paused, no time at all.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets how many bytes that the client does not read the socket takes, over TCP. The kernel has a minimum, and
    /// Linux doubles the value. Default: the kernel's, which often grows to megabytes.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// The request as it is sent by a client that has seen this id last.
    pub(super) fn to_http(&self, last_event_id: &str) -> Result<Request<String>, SseError> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if !last_event_id.is_empty() {
            let value = HeaderValue::from_bytes(last_event_id.as_bytes());
            let value = value.map_err(|error| SseError::Request(error.into()))?;
            request.headers_mut().insert(LAST_EVENT_ID, value);
        }
        Ok(request)
    }
}

/// Headers may be secrets.
impl fmt::Debug for SseRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.uri)
    }
}
