//! The event streams of a connection leave hyper's hands when their heads are sent.
//!
//! hyper reads requests and writes heads, and does it well. For the hours in which a stream then sends events, it would
//! keep a buffer to read the next request into and one for heads to write, and go through a dispatcher for each event: half
//! of what an idle connection costs and a good part of what an event costs. So it is given a body that says nothing, and once
//! it has written everything else, the connection is taken apart; the [stream](super::stream) goes on with the socket. When
//! it has come to its end, a new hyper connection reads the next request.
//!
//! Only what is simple leaves: an event stream that hyper has begun in chunks, in answer to a request without a body, and
//! of which it has nothing more to do, such as to send trailers or to give the connection to another protocol. All others
//! hyper serves to their end. `tests/differential.rs` compares the bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A body that waits to be taken over, and how far hyper is.
#[derive(Debug)]
pub(super) struct Slot<B>(Mutex<Option<Waiting<B>>>);

#[derive(Debug)]
struct Waiting<B> {
    stream: Handed<B>,
    /// hyper has asked for the body, so the head is in its buffer.
    is_asked: bool,
    /// And everything that was in its buffer has been written.
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
        Self(Mutex::new(None))
    }
}

impl<B: Body> Slot<B> {
    /// What hyper is to send: the response as it is, or its head alone.
    pub(super) fn split(
        self: &Arc<Self>,
        request: Asked,
        response: Response<B>,
    ) -> Response<Outgoing<B>> {
        if !request.may_leave || !is_event_stream(response.headers()) || !is_in_chunks(&response) {
            return response.map(|body| Outgoing::Whole(Box::pin(body)));
        }
        let is_reusable = request.is_reusable && !says_close(response.headers());
        let (head, body) = response.into_parts();
        *self.lock() = Some(Waiting {
            stream: Handed { body, is_reusable },
            is_asked: false,
            is_flushed: false,
        });
        Response::from_parts(head, Outgoing::Later(Arc::clone(self)))
    }

    fn asked(&self) {
        if let Some(waiting) = &mut *self.lock() {
            waiting.is_asked = true;
        }
    }

    /// hyper flushes the IO when its own buffer is empty.
    fn flushed(&self) {
        if let Some(waiting) = &mut *self.lock() {
            waiting.is_flushed = waiting.is_asked;
        }
    }

    /// The body, if it is its turn.
    pub(super) fn take(&self) -> Option<Handed<B>> {
        let waiting = self.lock().take_if(|waiting| waiting.is_flushed)?;
        Some(waiting.stream)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waiting<B>>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a request decides about its response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    may_leave: bool,
    is_reusable: bool,
}

impl Asked {
    pub(super) fn of(request: &Request<Incoming>) -> Self {
        Self {
            // What is left of a request's body must not be taken for the next request. And hyper has the connection for
            // whoever waits for an upgrade.
            may_leave: request.version() == Version::HTTP_11
                && request.method() != Method::HEAD
                && request.method() != Method::CONNECT
                && !request.headers().contains_key(UPGRADE)
                && request.body().is_end_stream(),
            is_reusable: !says_close(request.headers()),
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    content_type.is_some_and(|value| value.starts_with(b"text/event-stream"))
}

/// Whether hyper sends this in chunks, without trailers, to a client of HTTP/1.1. Later versions it sends as 1.1, but
/// streams of these are rare.
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

/// As hyper reads it: a line that is no text says nothing.
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
    /// It never says anything: that it was asked is all there is to know.
    Later(Arc<Slot<B>>),
}

impl<B: Body> Body for Outgoing<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut *self {
            Self::Whole(body) => body.as_mut().poll_frame(cx),
            // The connection is looked at when it has been polled: nobody need be woken.
            Self::Later(slot) => {
                slot.asked();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Later(_) => SizeHint::default(),
        }
    }
}

/// An IO that tells of flushes.
pub(super) struct Watched<I, B> {
    pub(super) io: I,
    slot: Arc<Slot<B>>,
}

impl<I, B> Watched<I, B> {
    pub(super) fn new(io: I, slot: Arc<Slot<B>>) -> Self {
        Self { io, slot }
    }
}

impl<I: AsyncRead + Unpin, B> AsyncRead for Watched<I, B> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin, B: Body> AsyncWrite for Watched<I, B> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.slot.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
