//! Event streams are taken out of hyper once their heads are sent.
//!
//! hyper reads requests and writes heads. For the hours in which a stream then sends events, hyper would keep a buffer for
//! the next request and one for heads, and pass each event through its dispatcher: half of what an idle connection costs and
//! a good part of what an event costs. So hyper is given a body that never yields anything. Once hyper has written the head,
//! the connection is taken apart, and the [stream](super::stream) goes on with the socket. After the stream has ended, a new
//! hyper connection reads the next request.
//!
//! Only simple streams leave: event streams that hyper has begun in chunks, in answer to a request without a body, and for
//! which hyper has nothing more to do, such as sending trailers or upgrading the connection. hyper serves all others to their
//! end. `tests/http/differential.rs` compares the bytes.

use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::rewind::Observer;
use crate::sync::lock;

/// What the IO beneath hyper, and the task around it, need to know of the response that hyper sends.
#[derive(Debug)]
pub(super) struct Slot<B> {
    current: Mutex<Current<B>>,
    /// Bytes that hyper has read. Only the task of the connection uses it: any ordering will do.
    read: AtomicU64,
}

#[derive(Debug)]
enum Current<B> {
    /// No request has come yet.
    Nothing,
    /// No response, or one that is no event stream.
    Other,
    /// An event stream that leaves when hyper is done with its head.
    Leaving(Leaving<B>),
    /// An event stream that hyper serves to its end. hyper does not read while bytes after the request are in its buffer.
    Staying {
        /// After this many bytes the body of the request is complete, and what follows is the next request.
        body_end: u64,
    },
}

#[derive(Debug)]
struct Leaving<B> {
    stream: Handed<B>,
    /// hyper has polled the body, so the head is in its buffer.
    is_polled: bool,
    /// Everything that was in hyper's buffer then has been written.
    is_flushed: bool,
}

/// A body whose head is sent.
#[derive(Debug)]
pub(super) struct Handed<B> {
    pub(super) body: B,
    /// Whether the connection may serve another request afterwards.
    pub(super) is_reusable: bool,
}

impl<B> Default for Slot<B> {
    fn default() -> Self {
        Self {
            current: Mutex::new(Current::Nothing),
            read: AtomicU64::new(0),
        }
    }
}

impl<B: Body> Slot<B> {
    /// Notes that a request has come. hyper may have read some of its body already.
    pub(super) fn begin(&self, request: &Request<Incoming>) -> RequestFacts {
        *lock(&self.current) = Current::Other;
        // The length of a chunked body is not known beforehand.
        let body_len = request.body().size_hint().upper().unwrap_or(u64::MAX);
        let has_body = !request.body().is_end_stream();
        let is_1_1 = request.version() == Version::HTTP_11;
        RequestFacts {
            is_1_1,
            // What is left of a request's body must not be taken for the next request. With `Upgrade`, a handler may wait
            // for hyper to give it the connection.
            may_leave: is_1_1
                && request.method() != Method::HEAD
                && request.method() != Method::CONNECT
                && !request.headers().contains_key(UPGRADE)
                && !has_body,
            is_reusable: !says_close(request.headers()),
            body_end: self.read.load(Ordering::Relaxed).saturating_add(body_len),
        }
    }

    /// What hyper is to send: the response as it is, or its head alone.
    pub(super) fn split(
        self: &Arc<Self>,
        request: RequestFacts,
        mut response: Response<B>,
    ) -> Response<Outgoing<B>> {
        // A handler may pass on another server's response of HTTP/3. hyper panics at a version that it does not know here,
        // and sends a response of HTTP/2 as one of HTTP/1.1. A client of HTTP/1.0 gets its own version anyway.
        if request.is_1_1
            && !matches!(
                response.version(),
                Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2
            )
        {
            *response.version_mut() = Version::HTTP_11;
        }
        if !is_event_stream(response.headers()) {
            return response.map(|body| Outgoing::Whole(Box::pin(body)));
        }
        if !request.may_leave || !is_in_chunks(&response) {
            *lock(&self.current) = Current::Staying {
                body_end: request.body_end,
            };
            let slot = Arc::clone(self);
            return response.map(|body| {
                let body = Box::pin(body);
                Outgoing::Stream(Staying { body, slot })
            });
        }
        let is_reusable = request.is_reusable && !says_close(response.headers());
        let (head, body) = response.into_parts();
        *lock(&self.current) = Current::Leaving(Leaving {
            stream: Handed { body, is_reusable },
            is_polled: false,
            is_flushed: false,
        });
        Response::from_parts(head, Outgoing::Later(Arc::clone(self)))
    }

    fn polled(&self) {
        if let Current::Leaving(leaving) = &mut *lock(&self.current) {
            leaving.is_polled = true;
        }
    }

    pub(super) fn has_request(&self) -> bool {
        !matches!(*lock(&self.current), Current::Nothing)
    }

    /// The body, once hyper has written everything before it.
    pub(super) fn take(&self) -> Option<Handed<B>> {
        let mut current = lock(&self.current);
        match mem::replace(&mut *current, Current::Other) {
            Current::Leaving(leaving) if leaving.is_flushed => Some(leaving.stream),
            other => {
                *current = other;
                None
            }
        }
    }
}

/// hyper flushes whenever it is polled, after it has read what it wants, and when its own buffer is empty.
impl<B> Observer for Arc<Slot<B>> {
    fn on_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn on_flush(&self) -> Option<u64> {
        match &mut *lock(&self.current) {
            Current::Leaving(leaving) => leaving.is_flushed = leaving.is_polled,
            Current::Staying { body_end } => {
                return Some(body_end.saturating_sub(self.read.load(Ordering::Relaxed)));
            }
            Current::Nothing | Current::Other => {}
        }
        None
    }
}

/// What of a request decides how its response is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestFacts {
    is_1_1: bool,
    may_leave: bool,
    is_reusable: bool,
    body_end: u64,
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    content_type.is_some_and(|value| value.starts_with(b"text/event-stream"))
}

/// Whether hyper sends this in chunks, without trailers, to a client of HTTP/1.1. It does so with a response of version
/// HTTP/2 too; those are rare, and stay with it.
fn is_in_chunks<B: Body>(response: &Response<B>) -> bool {
    let headers = response.headers();
    response.version() == Version::HTTP_11
        && response.status() == StatusCode::OK
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
        && !headers.contains_key(TRAILER)
        && !response.body().is_end_stream()
        && response.body().size_hint().exact().is_none()
}

/// As hyper reads it: a line that is not text is ignored.
fn says_close(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONNECTION).iter();
    let mut tokens = lines
        .filter_map(|line| HeaderValue::to_str(line).ok())
        .flat_map(|line| line.split(','));
    tokens.any(|token| token.trim().eq_ignore_ascii_case("close"))
}

/// A body for hyper.
pub(super) enum Outgoing<B> {
    Whole(Pin<Box<B>>),
    /// The whole of an event stream.
    Stream(Staying<B>),
    /// Never yields anything; only notes that hyper has polled it.
    Later(Arc<Slot<B>>),
}

/// While it lives, the stream is with hyper.
pub(super) struct Staying<B> {
    body: Pin<Box<B>>,
    slot: Arc<Slot<B>>,
}

impl<B> Drop for Staying<B> {
    fn drop(&mut self) {
        *lock(&self.slot.current) = Current::Other;
    }
}

impl<B: Body> Body for Outgoing<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut *self {
            Self::Whole(body) | Self::Stream(Staying { body, .. }) => body.as_mut().poll_frame(cx),
            // The connection's task looks at the slot after each poll: no wake is needed.
            Self::Later(slot) => {
                slot.polled();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) | Self::Stream(Staying { body, .. }) => body.is_end_stream(),
            Self::Later(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) | Self::Stream(Staying { body, .. }) => body.size_hint(),
            Self::Later(_) => SizeHint::default(),
        }
    }
}
