//! The body of a response.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
#[cfg(feature = "serve")]
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
#[cfg(feature = "serve")]
use http_body::SizeHint;
use http_body::{Body, Frame as Chunk};
use tokio::time::Instant;

use super::dequeue::on_dequeue;
use super::keep_alive::COMMENT;
use super::shape::Shape;
use super::silence::Silence;
use super::view::{Chunks, View};
use super::{AGENT_HEARTBEAT_INTERVAL, Cursor, HEARTBEAT_INTERVAL, KeepAlive};
use crate::end::EndReason;
use crate::frame::Frame;
use crate::id::EventId;
use crate::position::Position;
#[cfg(feature = "serve")]
use crate::subscription::Exchange;
use crate::subscription::Subscription;
use crate::time::{LONGEST, reconnect_after};

/// The events of a [`Subscription`] as the body of an HTTP response.
///
/// An event is a chunk of its own, the shared bytes: handing it out copies and allocates nothing. Events that wait when the
/// response is polled, because the client or the server was busy, are joined to a chunk of up to 32 KiB.
///
/// Where events are missing, and the [`LagPolicy`](crate::LagPolicy) says so, the event `gap` takes their place, with
/// `{"reason":"lagged","missed":n}` for data; see [`Gap`](crate::Gap). With a [history](crate::History) every event has an
/// id, the gap has the one after which the stream goes on, and the stream begins with the [`cursor`](Self::cursor).
///
/// When there is nothing to send yet, the body begins with an empty comment, `:` and LF. Some proxies (http-proxy, the
/// development servers that use it, relays over undici) hold back the head of a response until its first byte.
///
/// # The end
///
/// - In a [shutdown](crate::GenericBroadcaster::shutdown): a `retry:` line, which spreads the reconnects.
/// - After its [deadline](Subscription::deadline): a `retry:` line with one to six seconds at random, unless the stream
///   began with a [`retry`](Self::retry), which is random already.
/// - Because the channel is complete, or at the event that [`until`](Self::until) names: if [`filter_map`](Self::filter_map)
///   left the last event out, its id, in the form of the cursor, so that the client resumes after it. Not if the cursor is
///   off.
/// - Because events were lost and the policy is [`LagPolicy::End`](crate::LagPolicy::End): the
///   [id](Subscription::restart_id) with which the client's next request succeeds, in the form of the cursor.
///
/// A stream with a [`view`](Self::view) ends as the view says, after the id.
///
/// The keep-alive needs the timer of a tokio runtime when the body is polled.
///
/// # Cancel safety
///
/// Waiting for the next frame can be cancelled at any time; no event is lost by it.
#[derive(Debug)]
pub struct SseBody {
    /// `None` once it has ended, so that the connection leaves even if the body is kept.
    subscription: Option<Subscription>,
    /// Decides what the client is shown; without one, everything.
    view: Option<Box<Viewed>>,
    /// What it leaves out, and where it ends.
    shape: Option<Box<Shape>>,
    /// As the service set it.
    keep_alive: KeepAlive,
    /// The keep-alive of this stream, if it is on.
    silence: Option<Silence>,
    /// A piece that was taken and did not fit.
    held: Option<Bytes>,
    has_begun: bool,
    /// Bytes were sent, so that proxies have passed the head on.
    has_sent: bool,
    /// A chunk began with an event.
    has_shown: bool,
    cursor: Cursor,
    /// The position of the id that the client has, if it is known. What a view shows may be without ids.
    told: Option<Position>,
    retry: Option<Duration>,
    #[cfg(feature = "serve")]
    exchange: Option<Arc<Exchange>>,
}

impl SseBody {
    /// The body of this subscription, with the default keep-alive.
    #[must_use]
    pub fn new(subscription: Subscription) -> Self {
        let body = Self {
            held: None,
            has_begun: false,
            has_sent: false,
            has_shown: false,
            cursor: Cursor::from(!subscription.is_strict()),
            told: subscription.seen(),
            retry: None,
            subscription: Some(subscription),
            view: None,
            shape: None,
            keep_alive: KeepAlive::default(),
            silence: None,
            #[cfg(feature = "serve")]
            exchange: None,
        };
        body.with_keep_alive()
    }

    /// Sets the keep-alive. A stream whose policy is [`LagPolicy::End`](crate::LagPolicy::End), because its clients
    /// would treat an unknown event as an error, sends a comment in place of the heartbeat event.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: &KeepAlive) -> Self {
        self.keep_alive = keep_alive.clone();
        self.with_keep_alive()
    }

    fn with_keep_alive(mut self) -> Self {
        let is_strict = self
            .subscription
            .as_ref()
            .is_some_and(Subscription::is_strict);
        let of_view = self
            .view
            .as_ref()
            .map(|view| view.view.keep_alive_interval());
        let mut default = of_view.unwrap_or(HEARTBEAT_INTERVAL);
        if is_strict {
            default = default.min(AGENT_HEARTBEAT_INTERVAL);
        }
        let keep_alive = self.keep_alive.clone().for_strict_clients(is_strict);
        self.silence = Silence::new(&keep_alive, default);
        self
    }
}

impl SseBody {
    /// Sets the view that decides what the client gets. The stream then begins without a [`cursor`](Self::cursor),
    /// unless you set one afterwards.
    #[must_use]
    pub fn view(mut self, view: impl View) -> Self {
        self.cursor = Cursor::Off;
        self.view = Some(Box::new(Viewed {
            view: Box::new(view),
            chunks: Chunks::default(),
        }));
        self.with_keep_alive()
    }

    /// Sets whether the stream begins with an id, and in which [form](Cursor), so that a client whose connection breaks
    /// before its first event can resume as well. Sent only if there is a [history](crate::History), and to clients
    /// that came without an id. [Keep-alives](KeepAlive#ids) send newer ids in the same form. Default `true`, a
    /// [block](Cursor::Block), but `false` for streams whose policy is [`LagPolicy::End`](crate::LagPolicy::End).
    ///
    /// ```
    /// use tidings::sse::{Cursor, SseBody};
    /// # use tidings::{GenericBroadcaster, History, Text};
    /// # let hub = GenericBroadcaster::<Text>::builder().history(History::new(100)).build()?;
    ///
    /// // For clients that ignore a block without data.
    /// let body = SseBody::new(hub.register("ann")?).cursor(Cursor::Event);
    /// # drop(body);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn cursor(mut self, cursor: impl Into<Cursor>) -> Self {
        self.cursor = cursor.into();
        self
    }

    /// Tells the client how long to wait before it reconnects: this long to half as long again, at random, so that many
    /// clients that lost their streams together do not reconnect together. Default: no `retry:` is sent, and clients
    /// choose how long to wait, browsers about three seconds.
    ///
    /// At most 2³¹ − 1 milliseconds (25 days) are sent, with the random part: browsers take more for one millisecond.
    #[must_use]
    pub fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }

    pub(super) fn shape_mut(&mut self) -> &mut Shape {
        self.shape.get_or_insert_default()
    }

    /// What precedes the first event.
    fn opening(&mut self) -> Option<Bytes> {
        if std::mem::replace(&mut self.has_begun, true) {
            return None;
        }
        let retry = self.retry.map(|after| {
            // Within what can be added to.
            let after = after.min(LONGEST);
            after + after.mul_f64(fastrand::f64() / 2.0)
        });
        let cursor = self.subscription.as_ref().and_then(Subscription::cursor);
        let begin = |view: &mut Box<Viewed>| view.view.begin(&mut view.chunks).is_break();
        if self.view.as_mut().is_some_and(begin) {
            let subscription = self.subscription.take();
            subscription.inspect(|it| it.end(EndReason::Completed));
        }
        block(retry, cursor.map(|id| self.cursor.bytes(&id)))
    }

    /// What follows the last event of a stream that has ended, if there is no view.
    fn closing(&self, subscription: &Subscription) -> Option<Bytes> {
        let is_late = || self.retry.is_none() && subscription.is_expired();
        let spread = subscription.guard().reconnect_spread();
        let spread = spread.or_else(|| is_late().then_some(DEADLINE_SPREAD));
        let left_out = || self.shape.as_ref()?.left_out(self.cursor, subscription);
        let id = subscription.restart_id().or_else(left_out);
        let id = id.map(|id| match self.cursor {
            Cursor::Off | Cursor::Block => Cursor::Block.bytes(&id),
            Cursor::Event => Cursor::Event.bytes(&id),
        });
        block(spread.map(reconnect_after), id)
    }
}

/// A `retry:` line and the bytes that give the client an id, or the one of them that there is.
fn block(retry: Option<Duration>, id: Option<Bytes>) -> Option<Bytes> {
    let id = id.filter(|id| !id.is_empty());
    match (retry.map(Frame::retry_line), id) {
        (Some(retry), Some(id)) => Some([retry, id].concat().into()),
        (retry, id) => retry.or(id),
    }
}

/// The pieces of a stream, and how they are joined.
impl SseBody {
    /// The next piece of what is sent: an event, or what goes before and after events.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(opening) = self.opening() {
            return Poll::Ready(Some(opening));
        }
        loop {
            if let Some(chunk) = self.view.as_mut().and_then(|view| view.chunks.pop()) {
                return Poll::Ready(Some(chunk));
            }
            let Some(subscription) = &mut self.subscription else {
                return Poll::Ready(None);
            };
            let mut item = ready!(Pin::new(&mut *subscription).poll_next(cx));
            let mut is_last = false;
            if let Some(Ok(frame)) = &mut item {
                on_dequeue(frame, subscription.guard());
                if let Some(shape) = &mut self.shape {
                    let (shown, ends) = shape.apply(frame);
                    is_last = ends;
                    match shown {
                        Some(shown) => *frame = shown,
                        None if ends => item = None,
                        None => continue,
                    }
                }
            }
            if is_last {
                subscription.end(EndReason::Completed);
            }
            match (item, &mut self.view) {
                (Some(Ok(frame)), None) => {
                    self.told = frame.place().or(self.told);
                    self.has_shown = true;
                    return Poll::Ready(Some(frame.to_bytes()));
                }
                (Some(Err(gap)), None) => {
                    self.told = gap.position.or(self.told);
                    self.shape.iter_mut().for_each(|shape| shape.pass(&gap));
                    return Poll::Ready(Some(Frame::gap(&gap).to_bytes()));
                }
                (Some(Ok(frame)), Some(view)) => {
                    if view.view.show(&frame, &mut view.chunks).is_break() {
                        subscription.end(EndReason::Completed);
                        self.subscription = None;
                    }
                }
                (Some(Err(gap)), Some(view)) => {
                    if view.view.gap(&gap, &mut view.chunks).is_break() {
                        view.give(subscription.id_after(&gap));
                        subscription.end(EndReason::Gap);
                        self.subscription = None;
                    }
                }
                (None, None) => {
                    let subscription = self.subscription.take();
                    return Poll::Ready(subscription.and_then(|ended| self.closing(&ended)));
                }
                (None, Some(view)) => {
                    view.view.end(&mut view.chunks);
                    view.give(subscription.restart_id());
                    self.subscription = None;
                }
            }
        }
    }

    /// The id that a keep-alive gives the client: of the position that the history has moved on to.
    fn moved(&mut self) -> Option<EventId> {
        if self.cursor == Cursor::Off {
            return None;
        }
        let place = self.subscription.as_ref()?.place()?;
        let is_new = self.told.replace(place) != Some(place);
        is_new.then(|| place.into())
    }

    /// The next chunk: what is ready, or what is written in silence.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let first = match self.held.take() {
            Some(held) => Poll::Ready(Some(held)),
            None => self.poll_piece(cx),
        };
        match (first, &mut self.silence) {
            (Poll::Ready(Some(first)), silence) => {
                self.has_sent = true;
                if let Some(silence) = silence {
                    silence.broken(Instant::now());
                }
                let has_shown = self.has_shown;
                let chunk = self.join(first, cx);
                // An event behind something else does not count.
                self.has_shown = has_shown;
                Poll::Ready(Some(chunk))
            }
            (Poll::Ready(None), _) => Poll::Ready(None),
            (Poll::Pending, silence) if !self.has_sent => {
                self.has_sent = true;
                if let Some(silence) = silence {
                    silence.broken(Instant::now());
                }
                Poll::Ready(Some(Bytes::from_static(COMMENT)))
            }
            (Poll::Pending, None) => Poll::Pending,
            (Poll::Pending, Some(silence)) => {
                let form = ready!(silence.poll(cx));
                let bytes = form.bytes(self.cursor, self.moved().as_ref());
                Poll::Ready(Some(bytes))
            }
        }
    }

    /// Whether another piece may be ready: cheaper to ask than to poll.
    fn has_more(&self) -> bool {
        let has_chunks = |view: &Viewed| !view.chunks.is_empty();
        self.view.as_deref().is_some_and(has_chunks)
            || self
                .subscription
                .as_ref()
                .is_some_and(Subscription::is_behind)
    }

    /// Joins a piece with those that are ready after it. A single event is not copied; for a backlog, one larger write costs
    /// less than many small ones.
    fn join(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        let mut joined = Vec::new();
        let mut size = first.len();
        while size < JOINED && self.has_more() {
            let Poll::Ready(Some(piece)) = self.poll_piece(cx) else {
                break;
            };
            size += piece.len();
            if size > JOINED {
                self.held = Some(piece);
                break;
            }
            if joined.is_empty() {
                joined.reserve(2 * size);
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&piece);
        }
        if joined.is_empty() {
            first
        } else {
            joined.into()
        }
    }
}

/// For an attendant, which writes events in place of the body.
#[cfg(feature = "serve")]
impl SseBody {
    /// The upper bound that it [hints](Body::size_hint) at.
    pub(crate) const MOST: u64 = 1 << 62;

    pub(crate) fn with_exchange(mut self, exchange: &Arc<Exchange>) -> Self {
        self.exchange = Some(Arc::clone(exchange));
        self
    }

    /// Whether the client gets every event as it is.
    fn shows_frames(&self) -> bool {
        let is_filtered = |it: &Subscription| it.is_filtered();
        self.view.is_none()
            && self.shape.is_none()
            && !self.subscription.as_ref().is_some_and(is_filtered)
    }

    fn listen(&mut self) {
        let Some(exchange) = &self.exchange else {
            return;
        };
        let (written, told) = exchange.written();
        self.told = told.or(self.told);
        if let (Some(silence), Some(written)) = (&mut self.silence, written) {
            silence.broken(written);
        }
    }

    fn say(&self, polled: &Poll<Option<Bytes>>) {
        let Some(exchange) = &self.exchange else {
            return;
        };
        match polled {
            Poll::Ready(chunk) => exchange.hand_out(chunk.as_deref(), false),
            Poll::Pending => {
                let is_plain = self
                    .subscription
                    .as_ref()
                    .is_some_and(Subscription::is_plain);
                // A layer that changes events may hand on all else as it is.
                exchange.hand_out(None, is_plain && self.has_shown && self.shows_frames());
            }
        }
    }
}

/// The most that is joined, in bytes. An event that is larger goes alone.
pub(crate) const JOINED: usize = 32 * 1024;

impl Body for SseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk<Bytes>, Infallible>>> {
        let this = &mut *self;
        #[cfg(feature = "serve")]
        this.listen();
        let polled = this.poll_chunk(cx);
        #[cfg(feature = "serve")]
        this.say(&polled);
        polled.map(|chunk| chunk.map(|chunk| Ok(Chunk::data(chunk))))
    }

    /// Where an attendant may write events in place of this body, the upper bound is one that no stream will ever reach. It
    /// shows the server that no layer in between gives another bound or none.
    #[cfg(feature = "serve")]
    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::default();
        if self.exchange.is_some() && self.shows_frames() {
            hint.set_upper(Self::MOST);
        }
        hint
    }

    fn is_end_stream(&self) -> bool {
        let has_chunks = |view: &Viewed| !view.chunks.is_empty();
        self.subscription.is_none()
            && self.held.is_none()
            && !self.view.as_deref().is_some_and(has_chunks)
    }
}

/// A view, and what it has shown that is not yet sent.
struct Viewed {
    view: Box<dyn View>,
    chunks: Chunks,
}

impl Viewed {
    /// Puts the id for the client's next request into the first of the last blocks.
    fn give(&mut self, id: Option<EventId>) {
        if let Some(id) = id {
            if self.chunks.is_empty() {
                self.chunks.push("\n");
            }
            self.chunks.push_front(Frame::id_line(&id));
        }
    }
}

impl fmt::Debug for Viewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

/// Streams that were opened together, after a restart for example, often have the same deadline.
const DEADLINE_SPREAD: Duration = Duration::from_secs(5);
