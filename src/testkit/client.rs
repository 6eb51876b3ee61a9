//! The client: what is read, and what is waited for.

use std::fmt;
use std::panic::Location;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use tokio::time::timeout;

use super::decoder::Decoder;
use super::error::SseError;
use super::message::{Item, Message, SeenGap};
use super::request::SseRequest;
use super::transport::{Body, Transport};

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
    request: SseRequest,
    transport: Box<dyn Transport>,
    headers: HeaderMap,
    /// Until the stream ends.
    body: Option<Body>,
    decoder: Decoder,
    last_event_id: String,
    retry: Option<Duration>,
    gaps: Vec<SeenGap>,
}

impl SseClient {
    pub(super) async fn open(
        request: SseRequest,
        transport: Box<dyn Transport>,
    ) -> Result<Self, SseError> {
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

    /// Closes the connection if it is open, and opens another one with the same request, which names the
    /// [last event id](Self::last_event_id) in the header `Last-Event-ID` unless that is empty. At once: whoever wants to
    /// wait for [`retry`](Self::retry) does so before.
    ///
    /// # Errors
    ///
    /// As [`SseRequest::open`]; the client is disconnected then, and may try again. [`SseError::Request`] if the id has
    /// characters that cannot be in a header.
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

    /// Closes the connection. What had arrived and was not asked for is lost.
    pub fn disconnect(&mut self) {
        self.body = None;
        self.decoder = Decoder::resuming(&*self.last_event_id);
    }

    /// Keeps the connection open and reads nothing of it, like a client that hangs.
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

    /// The id that the client comes back with: the last one that was read, with an event or without. Empty if none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// How long the service wants the client to wait before it comes back, if it said so, on whichever connection.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The gaps that were announced so far, on all connections.
    #[must_use]
    pub fn gaps(&self) -> &[SeenGap] {
        &self.gaps
    }

    /// Asserts that no gap was announced so far.
    ///
    /// # Panics
    ///
    /// If one was; the message has them all.
    #[track_caller]
    pub fn assert_no_gap(&self) {
        let gaps = &self.gaps;
        assert!(gaps.is_empty(), "events are missing: {gaps:?}");
    }

    /// Waits for the next event.
    ///
    /// # Errors
    ///
    /// [`SseError::TimedOut`] if none comes within the bound, [`SseError::Ended`] if the stream ends, or
    /// [`SseError::Broken`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn try_next(&mut self) -> Result<Message, SseError> {
        let mut got = Vec::new();
        self.gather("an event", &mut got, |got| !got.is_empty())
            .await?;
        Ok(got.remove(0))
    }

    /// Waits for the next event.
    ///
    /// # Panics
    ///
    /// Where [`try_next`](Self::try_next) has an error.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[allow(
        clippy::should_implement_trait,
        reason = "the name that streams have for it, and no iterator's, since it waits"
    )]
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Message> + Send {
        let caller = Location::caller();
        async move { or_panic(self.try_next().await, caller) }
    }

    /// Waits for whatever the stream says next: comments, which keep-alives are, ids and retries as well as events.
    ///
    /// ```
    /// # use tidings::testkit::{Item, SseClient};
    /// /// Reads the id that a stream with a history begins with, before there is an event.
    /// async fn cursor(client: &mut SseClient) -> String {
    ///     while client.last_event_id().is_empty() {
    ///         client.next_item().await;
    ///     }
    ///     client.last_event_id().to_owned()
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// If nothing comes within the bound, the stream ends or breaks.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[track_caller]
    pub fn next_item(&mut self) -> impl Future<Output = Item> + Send {
        let caller = Location::caller();
        async move {
            let (start, limit) = (Instant::now(), self.request.limit);
            let awaited = "anything".to_owned();
            let item = match timeout(limit, self.read_item()).await {
                Ok(Ok(item)) => item.ok_or(SseError::Ended { awaited }),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(self.timed_out(start, awaited)),
            };
            or_panic(item, caller)
        }
    }

    /// Waits for so many events; the bound is for all of them.
    ///
    /// # Panics
    ///
    /// If they do not come; the message has those that did.
    ///
    /// # Cancel safety
    ///
    /// What was read is lost if the future is dropped.
    #[track_caller]
    pub fn collect(&mut self, count: usize) -> impl Future<Output = Vec<Message>> + Send {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            let awaited = format!("{count} events");
            let gathered = self.gather(&awaited, &mut got, |got| got.len() >= count);
            or_panic(gathered.await, caller);
            got
        }
    }

    /// Waits for an event that is as it should be, and returns it with all before it; the bound is for all of them.
    ///
    /// # Panics
    ///
    /// If none comes; the message has those that did.
    ///
    /// # Cancel safety
    ///
    /// What was read is lost if the future is dropped.
    #[track_caller]
    pub fn collect_until<P>(&mut self, mut is_last: P) -> impl Future<Output = Vec<Message>> + Send
    where
        P: FnMut(&Message) -> bool + Send,
    {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            let is_enough = |got: &[Message]| got.last().is_some_and(&mut is_last);
            let gathered = self.gather("an event that fits", &mut got, is_enough);
            or_panic(gathered.await, caller);
            got
        }
    }

    /// Waits for the end of the stream, and returns the events before it; the bound is for all of them.
    ///
    /// # Panics
    ///
    /// If the stream does not end as it should; the message has the events that came.
    ///
    /// # Cancel safety
    ///
    /// What was read is lost if the future is dropped.
    #[track_caller]
    pub fn collect_to_end(&mut self) -> impl Future<Output = Vec<Message>> + Send {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            match self.gather("the end", &mut got, |_| false).await {
                Err(SseError::Ended { .. }) => got,
                other => or_panic(other.map(|()| got), caller),
            }
        }
    }

    /// Waits for the end of the stream. What is no event may come before it, as the `retry` of a shutdown does.
    ///
    /// # Panics
    ///
    /// If an event comes first, or nothing within the bound, or if the connection breaks without an end.
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = ()> + Send {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            match self
                .gather("the end", &mut got, |got| !got.is_empty())
                .await
            {
                Err(SseError::Ended { .. }) => {}
                Ok(()) => panic!("not the end, but {:?}, at {caller}", got[0]),
                Err(error) => or_panic(Err(error), caller),
            }
        }
    }

    /// Waits until the connection breaks, without the end of the stream, and returns the events before that: a client that
    /// was cut off.
    ///
    /// # Panics
    ///
    /// If the stream ends as it should, or does neither within the bound.
    #[track_caller]
    pub fn expect_break(&mut self) -> impl Future<Output = Vec<Message>> + Send {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            match self.gather("a break", &mut got, |_| false).await {
                Err(SseError::Broken(_)) => got,
                other => or_panic(other.map(|()| got), caller),
            }
        }
    }

    /// Asserts that no event comes for so long. Comments, ids and retries are passed over; a heartbeat that is an event is
    /// one.
    ///
    /// # Panics
    ///
    /// If one comes, or the stream ends or breaks.
    #[track_caller]
    pub fn assert_silent_for(&mut self, duration: Duration) -> impl Future<Output = ()> + Send {
        let caller = Location::caller();
        async move {
            let awaited = || format!("silence of {duration:?} to pass");
            let came = match timeout(duration, self.read_message()).await {
                Err(_) => return,
                Ok(Ok(Some(message))) => format!("{message:?} came"),
                Ok(Ok(None)) => "the stream ended".to_owned(),
                Ok(Err(error)) => error.to_string(),
            };
            panic!("{came} while waiting for {}, at {caller}", awaited());
        }
    }

    /// The events that are there now, without waiting. In the process that is all that the body has to say. Over TCP it is
    /// what has arrived and the runtime has noticed, which is a question of luck: wait for what should be there instead.
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

    /// Reads events until there are enough, at most for the bound.
    async fn gather(
        &mut self,
        awaited: &str,
        got: &mut Vec<Message>,
        mut is_enough: impl FnMut(&[Message]) -> bool + Send,
    ) -> Result<(), SseError> {
        let (start, limit) = (Instant::now(), self.request.limit);
        let enough = async {
            while !is_enough(got) {
                match self.read_message().await? {
                    Some(message) => got.push(message),
                    None => return Ok(false),
                }
            }
            Ok(true)
        };
        let is_there = timeout(limit, enough).await;
        let awaited = || match &got[..] {
            [] => awaited.to_owned(),
            got => format!("{awaited}; so far came {got:?}"),
        };
        match is_there {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(SseError::Ended { awaited: awaited() }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.timed_out(start, awaited())),
        }
    }

    /// The next event; `None` at the end. Nothing is lost if the future is dropped.
    async fn read_message(&mut self) -> Result<Option<Message>, SseError> {
        while let Some(item) = self.read_item().await? {
            if let Item::Message(message) = item {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// The next item; `None` at the end. Nothing is lost if the future is dropped.
    async fn read_item(&mut self) -> Result<Option<Item>, SseError> {
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

    fn timed_out(&self, start: Instant, mut awaited: String) -> SseError {
        let limit = self.request.limit;
        // Only tokio's clock can have been there already.
        if self.transport.has_sockets() && start.elapsed() < limit / 2 {
            awaited += " (with the clock paused, which does not wait for sockets)";
        }
        SseError::TimedOut { awaited, limit }
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

/// A client whose connection is open, and that reads nothing. To drop it closes the connection.
#[derive(Debug)]
#[must_use = "to drop it closes the connection"]
pub struct Stalled(SseClient);

impl Stalled {
    /// The client reads again, from where it was.
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

fn or_panic<T>(result: Result<T, SseError>, caller: &Location<'_>) -> T {
    result.unwrap_or_else(|error| panic!("{error}, at {caller}"))
}
