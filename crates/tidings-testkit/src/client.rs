//! The client: its connection, and what it has read.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::timeout;
use tower_service::Service;

use super::decoder::Decoder;
use super::error::{Source, SseError};
use super::message::{Item, Message, SeenGap};
use super::request::SseRequest;
use super::tcp::Tcp;
use super::transport::{Body, ServiceTransport, Transport};

pub(super) const PAUSED: &str = " (with the clock paused, which does not wait for sockets)";

/// As much of the body of a refusal is kept.
const REFUSAL: usize = 64 * 1024;

/// A client of one event stream, which an [`SseRequest`] opened.
///
/// It reads while one of its methods waits, and only then; to drop it closes the connection. What it knows
/// ([`last_event_id`](Self::last_event_id), [`retry`](Self::retry), [`gaps`](Self::gaps)) is what those methods have
/// returned or passed over, whatever else has arrived: a test is not at the mercy of how the stream was cut.
///
/// Methods that wait give up after the request's [bound](SseRequest::within). All but those that return a `Result` panic
/// then, and the message says what they waited for, what came instead, and where in the test that was.
pub struct SseClient {
    pub(super) request: SseRequest,
    transport: Box<dyn Transport>,
    headers: HeaderMap,
    /// Until the stream ends.
    body: Option<Body>,
    decoder: Decoder,
    last_event_id: String,
    retry: Option<Duration>,
    gaps: Vec<SeenGap>,
}

impl SseRequest {
    /// Opens the stream on a service in the same process: an axum `Router`, or any tower service.
    ///
    /// # Errors
    ///
    /// [`SseError::Refused`] if the response is no event stream, [`SseError::TimedOut`] if there is none within the
    /// [bound](Self::within), [`SseError::Broken`] if the service fails.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with a timer.
    ///
    /// # Cancel safety
    ///
    /// The response is lost if the future is dropped.
    pub async fn open<S, B>(self, service: S) -> Result<SseClient, SseError>
    where
        S: Service<Request<String>, Response = Response<B>> + Send + 'static,
        S::Future: Send,
        S::Error: Into<Source>,
        B: http_body::Body + Send + 'static,
        B::Error: Into<Source>,
    {
        SseClient::open(self, Box::new(ServiceTransport(service))).await
    }

    /// Opens the stream over TCP, with HTTP/1.1 in plain text, on a connection of its own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); [`SseError::Broken`] also if there is no connection or the response is no HTTP.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with a timer and sockets.
    ///
    /// # Cancel safety
    ///
    /// The connection is closed if the future is dropped.
    pub async fn connect(self, addr: SocketAddr) -> Result<SseClient, SseError> {
        let receive_buffer = self.receive_buffer;
        let tcp = Tcp {
            addr,
            receive_buffer,
        };
        SseClient::open(self, Box::new(tcp)).await
    }
}

impl SseClient {
    async fn open(request: SseRequest, transport: Box<dyn Transport>) -> Result<Self, SseError> {
        let mut client = Self {
            last_event_id: request.last_event_id.clone(),
            request,
            transport,
            headers: HeaderMap::new(),
            body: None,
            decoder: Decoder::new(),
            retry: None,
            gaps: Vec::new(),
        };
        client.reconnect().await?;
        Ok(client)
    }

    /// Closes the connection if it is open, and opens another one with the same request, which names the [last event
    /// id](Self::last_event_id) in the header `Last-Event-ID` unless that is empty. It does so immediately; to wait for
    /// [`retry`](Self::retry), wait before the call.
    ///
    /// # Errors
    ///
    /// As [`SseRequest::open`]; the client is disconnected then, and may try again. [`SseError::Request`] if the id has
    /// characters that cannot be in a header.
    ///
    /// # Cancel safety
    ///
    /// The client is disconnected if the future is dropped, and may try again.
    pub async fn reconnect(&mut self) -> Result<(), SseError> {
        self.disconnect();
        let request = self.request.to_http(&self.last_event_id)?;
        let (start, limit) = (Instant::now(), self.request.limit);
        let Ok(answer) = timeout(limit, self.transport.send(request)).await else {
            let awaited = format!("the response to {:?}", self.request);
            return Err(self.timed_out(start, awaited));
        };
        let (head, body) = answer?.into_parts();
        if head.status == StatusCode::OK && is_event_stream(&head.headers) {
            self.headers = head.headers;
            self.body = Some(body);
            return Ok(());
        }
        let text = refusal(body, limit).await;
        Err(SseError::Refused(Box::new(Response::from_parts(
            head, text,
        ))))
    }

    /// Closes the connection. Events that had arrived and were not read are lost.
    pub fn disconnect(&mut self) {
        self.body = None;
        self.decoder = Decoder::resuming(&*self.last_event_id);
    }

    /// Keeps the connection open and reads nothing from it, like a client that hangs.
    ///
    /// In the process the body is not polled. Over TCP the socket is not read: what is sent fills its
    /// [receive buffer](SseRequest::receive_buffer) and the send buffer of the service, and from there on the service
    /// has to wait. How much that is, the kernels decide: send until the service notices.
    pub fn stall(self) -> Stalled {
        Stalled(self)
    }

    /// The headers of the response.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The id that the client reconnects with: the last one it read, with an event or without. Empty if none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// How long the service wants the client to wait before it reconnects, if it has said so on any connection.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The gaps reported so far, on all connections.
    #[must_use]
    pub fn gaps(&self) -> &[SeenGap] {
        &self.gaps
    }

    /// Asserts that no gap was reported so far.
    ///
    /// # Panics
    ///
    /// If one was; the message has them all.
    #[track_caller]
    pub fn assert_no_gap(&self) {
        let gaps = &self.gaps;
        assert!(gaps.is_empty(), "events are missing: {gaps:?}");
    }

    /// The events available now, without waiting. In the same process, these are all events that the body has ready.
    /// Over TCP, they are those that have arrived and that the runtime has noticed, which depends on timing: wait for
    /// the expected events instead.
    ///
    /// The end of the stream is not told; [`expect_end`](Self::expect_end) is for that.
    ///
    /// # Panics
    ///
    /// If the stream breaks.
    #[track_caller]
    pub fn ready(&mut self) -> Vec<Message> {
        let mut got = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            // "Not yet" would otherwise also be what a task hears whose turn has been long enough.
            let next = tokio::task::unconstrained(self.read_message());
            match pin!(next).poll(&mut cx) {
                Poll::Ready(Ok(Some(message))) => got.push(message),
                Poll::Ready(Ok(None)) | Poll::Pending => return got,
                Poll::Ready(Err(error)) => panic!("{error}, after {got:?}"),
            }
        }
    }

    /// The next event; `None` at the end. Nothing is lost if the future is dropped.
    pub(super) async fn read_message(&mut self) -> Result<Option<Message>, SseError> {
        while let Some(item) = self.read_item().await? {
            if let Item::Message(message) = item {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// The next item; `None` at the end. Nothing is lost if the future is dropped.
    pub(super) async fn read_item(&mut self) -> Result<Option<Item>, SseError> {
        loop {
            if let Some(item) = self.decoder.next() {
                self.note(&item);
                return Ok(Some(item));
            }
            let Some(body) = &mut self.body else {
                return Ok(None);
            };
            let chunk = body.chunk().await;
            match chunk {
                Some(Ok(bytes)) => self.decoder.push(&bytes),
                end => {
                    self.body = None;
                    end.transpose().map_err(SseError::Broken)?;
                }
            }
        }
    }

    fn note(&mut self, item: &Item) {
        match item {
            Item::Message(message) => {
                self.last_event_id.clone_from(&message.id);
                self.gaps.extend(message.gap());
            }
            Item::Id(id) => self.last_event_id.clone_from(id),
            Item::Retry(after) => self.retry = Some(*after),
            Item::Comment(_) => {}
        }
    }

    pub(super) fn timed_out(&self, start: Instant, mut awaited: String) -> SseError {
        let limit = self.request.limit;
        if self.is_clock_paused(start, limit) {
            awaited += PAUSED;
        }
        SseError::TimedOut { awaited, limit }
    }

    /// Whether a time-out had nothing to do with the sockets, since only tokio's clock was there already.
    pub(super) fn is_clock_paused(&self, start: Instant, limit: Duration) -> bool {
        self.transport.has_sockets() && start.elapsed() < limit / 2
    }
}

impl fmt::Debug for SseClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseClient")
            .field("request", &self.request)
            .field("is_connected", &self.body.is_some())
            .field("last_event_id", &self.last_event_id)
            .field("gaps", &self.gaps)
            .finish_non_exhaustive()
    }
}

/// A client whose connection is open, and that reads nothing. Dropping it closes the connection.
#[derive(Debug)]
#[must_use = "to drop it closes the connection"]
pub struct Stalled(SseClient);

impl Stalled {
    /// The client reads again, from where it stopped.
    #[must_use]
    pub fn resume_reading(self) -> SseClient {
        self.0
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// What comes of the body in time: the body of a wrong content type may have no end.
async fn refusal(mut body: Body, limit: Duration) -> String {
    let mut text = Vec::new();
    let read = async {
        while let Some(Ok(bytes)) = body.chunk().await {
            text.extend_from_slice(&bytes);
            if text.len() >= REFUSAL {
                break;
            }
        }
    };
    // Whatever ended it, the refusal is the news.
    let _ = timeout(limit, read).await;
    text.truncate(REFUSAL);
    String::from_utf8_lossy(&text).into_owned()
}
