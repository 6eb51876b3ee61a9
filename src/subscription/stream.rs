//! The stream of one connection's events.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{ConnectionGuard, LagPolicy};
use crate::channel::{Connection, Missed, Resume, Welcome};
use crate::end::EndReason;
use crate::error::RegisterError;
use crate::frame::Frame;
use crate::gap::{Gap, GapReason};
use crate::id::{EventId, UserId};
use crate::position::Position;
use crate::registry::{Admitted, Registry};

/// The events of one connection, in the order they were broadcast.
///
/// With the feature `axum` it is a response: return it from a handler. It is also a [`Stream`] of shared frames, for
/// other transports. Dropping it removes the connection immediately, in whichever thread.
///
/// The stream ends (`None`) when the connection is ended from outside: immediately after
/// [`unregister`](crate::GenericBroadcaster::unregister), and after what was broadcast before when the user is
/// [drained](crate::GenericBroadcaster::drain_user). It then holds no events. It is counted until it is dropped, unless the
/// call that ended it has removed it from the count.
///
/// # Lag
///
/// A user's events are in a ring that all of the user's streams read. A stream that is not polled while more events are
/// broadcast than the ring holds loses the oldest ones: its next item is `Err(`[`Gap`]`)` with their number, and it goes on
/// with the oldest event still there, unless its [`LagPolicy`] ends it. Other streams are not affected. With a
/// [history](crate::History) the stream reads from there what the ring has overwritten, with a replayable
/// [backplane](crate::backplane) from the engine's log what the history has dropped, and only what is not there either is a gap.
/// A stream that is drained does not wait for the engine.
///
/// # Cancel safety
///
/// Waiting for the next item can be cancelled at any time; no event is lost by it.
#[must_use = "dropping a subscription ends its connection"]
#[derive(Debug)]
pub struct Subscription<T: Clone + Send + 'static = Arc<Frame>> {
    guard: ConnectionGuard<T>,
    lag_policy: LagPolicy,
    deadline: Option<Deadline>,
    /// The gap to report first.
    gap: Option<Box<Gap>>,
    /// Where it begins, if the client named no event that it had seen.
    cursor: Option<Position>,
    /// The position that the client resumed from, unless that was a [restart id](Self::restart_id).
    seen: Option<Position>,
    /// The client may have an id, from this stream or another.
    has_id: bool,
    /// The client knows already that events are missing that were broadcast before the stream began. Cleared when the stream
    /// comes to something that was broadcast later, be it an event or a gap.
    is_told: bool,
    /// Set when it ends because events were lost.
    restart_id: Option<EventId>,
    /// Where there are several nodes: what filters the channel's events for this client.
    filter: Option<Box<dyn ResumeFilter<T>>>,
}

impl<T: Clone + Send + 'static> Subscription<T> {
    /// Opens a connection, with the filter that `filter` makes.
    pub(crate) fn open(
        registry: &Arc<Registry<T>>,
        user: UserId,
        connection: Connection<T>,
        resume: Resume,
        filter: impl FnOnce(&Welcome) -> Option<Box<dyn ResumeFilter<T>>>,
    ) -> Result<Self, RegisterError> {
        let Admitted {
            roster,
            connection,
            welcome,
        } = registry.register(user, connection, resume)?;
        let is_new = matches!(resume, Resume::Fresh | Resume::Start);
        let cursor = welcome.cursor.filter(|_| is_new);
        Ok(Self {
            filter: filter(&welcome),
            cursor,
            seen: match resume {
                Resume::After(position) => Some(position),
                Resume::Fresh | Resume::Start | Resume::Unknown => None,
            },
            has_id: welcome.cursor.is_some() || !is_new,
            is_told: false,
            restart_id: None,
            guard: ConnectionGuard::new(registry.clone(), roster, connection),
            lag_policy: LagPolicy::default(),
            deadline: None,
            gap: welcome.gap.map(Box::new),
        })
    }

    /// Sets whether its client came with a [`restart_id`](Self::restart_id).
    pub(crate) fn told(mut self, is_told: bool) -> Self {
        self.is_told = is_told;
        self.seen = self.seen.filter(|_| !is_told);
        self
    }

    /// Sets what this stream does when it has lost events, in place of the broadcaster's policy.
    pub fn lag_policy(mut self, policy: LagPolicy) -> Self {
        let coalesces = policy == LagPolicy::Coalesce;
        if coalesces != (self.lag_policy == LagPolicy::Coalesce) {
            self.guard.connection.coalesce(coalesces);
        }
        self.lag_policy = policy;
        self
    }

    /// Sets when the stream ends, cleanly and in any state: for example when the client's token expires. Only the first
    /// call counts. A response then tells its client to reconnect after one to six seconds, at random: streams that
    /// were opened together often have the same deadline.
    ///
    /// A stream whose client has stopped reading is not polled, and cannot end by itself. As a response of
    /// `tidings::serve::serve` it ends in time nevertheless: the client has a quarter of a second for what is on its way,
    /// then the socket is closed, or the HTTP/2 stream reset. Behind another server the next
    /// [sweep](crate::GenericBroadcaster::sweep) removes the connection, and the socket stays until that server gives up on
    /// the client: with `tidings::serve::listener` under `axum::serve`, after the stall limit.
    ///
    /// Needs the timer of a tokio runtime when the stream is polled.
    pub fn deadline(mut self, at: Instant) -> Self {
        let at = self.guard.connection.expire_at(at);
        self.deadline = Some(Deadline { at, timer: None });
        self
    }

    /// The id after which this stream began, if there is a [history](crate::History) and the client named no event that it
    /// had seen. A client that has it can resume even if it is cut off before the first event.
    ///
    /// [`SseBody`](crate::SseBody) sends it as a block with an id and no data.
    #[must_use]
    pub fn cursor(&self) -> Option<EventId> {
        self.cursor.map(EventId::from)
    }

    /// The position that the client has before the first event, if it is given the [`cursor`](Self::cursor).
    pub(crate) fn seen(&self) -> Option<Position> {
        self.seen.or(self.cursor)
    }

    /// The stream's position in the history: a client that resumes from it gets what comes next. `None` without a history,
    /// and while there is something that the stream has not yielded yet.
    pub(crate) fn place(&self) -> Option<Position> {
        if self.gap.is_some() {
            return None;
        }
        let place = self.guard.connection.place()?;
        match &self.filter {
            Some(filter) => filter.place(place),
            None => Some(place),
        }
    }

    /// The id for the client's next request, once the stream has ended because events were lost and its policy is
    /// [`LagPolicy::End`]. With any other id the client might meet the same gap, and the same end, again and again.
    ///
    /// [`SseBody`](crate::SseBody) ends with it. `None` before that end, and where the client cannot have an id: without a
    /// [history](crate::History) and without one that it came with.
    #[must_use]
    pub fn restart_id(&self) -> Option<EventId> {
        self.restart_id.clone()
    }

    /// The id for the client's next request, if its stream ends with this gap and the client may have an id.
    pub(crate) fn id_after(&self, gap: &Gap) -> Option<EventId> {
        self.has_id.then(|| EventId::after_gap(gap.position))
    }

    /// Why the stream ends: `None` as long as nothing has ended it or asked it to end. Once there is a reason it does not
    /// change, although the stream may still have to yield what was broadcast before.
    ///
    /// ```
    /// # use tidings::{EndReason, GenericBroadcaster, Text};
    /// # use tokio_stream::StreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = GenericBroadcaster::<Text>::new();
    /// let mut stream = hub.register("ann")?;
    /// assert_eq!(stream.end_reason(), None);
    /// hub.drain_user("ann");
    /// assert!(stream.next().await.is_none());
    /// assert_eq!(stream.end_reason(), Some(EndReason::Drained));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.guard.connection.end_reason()
    }

    /// Whether the channel is [complete](crate::GenericBroadcaster::complete) and the client has all of it: the stream
    /// ends without an event. Its response is then 204, after which an `EventSource` does not reconnect.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.end_reason() == Some(EndReason::Completed) && self.place().is_some()
    }

    /// Ends the connection on behalf of the stream's reader.
    pub(crate) fn end(&self, reason: EndReason) {
        self.guard.connection.end(reason);
    }

    /// Whether its [`deadline`](Self::deadline) has passed.
    pub(crate) fn is_expired(&self) -> bool {
        self.guard.connection.is_expired(Instant::now())
    }

    /// Whether something was broadcast that this stream has not yielded yet and need not wait for, as far as that is known
    /// without a lock.
    pub(crate) fn is_behind(&self) -> bool {
        let guard = &self.guard;
        guard.connection.behind(guard.roster.head()) > 0
            || guard.connection.has_ephemerals()
            || self.filter.as_ref().is_some_and(|filter| filter.has_next())
    }

    /// Whether something other than its connection decides what it yields, as long as it lives.
    #[cfg(feature = "serve")]
    pub(crate) fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// Whether what it yields next is the next event of its connection, if that has one.
    #[cfg(feature = "serve")]
    pub(crate) fn is_plain(&self) -> bool {
        !self.is_filtered() && self.gap.is_none() && !self.is_told
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.lag_policy == LagPolicy::End
    }

    /// The guard that keeps this connection registered: its user and id, and what it has lost.
    #[must_use]
    pub fn guard(&self) -> &ConnectionGuard<T> {
        &self.guard
    }
}

impl<T: Clone + Send + 'static> Stream for Subscription<T> {
    type Item = Result<T, Gap>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let gap = match ready!(this.poll_item(cx)) {
                Some(Err(gap)) => gap,
                other => {
                    this.is_told = false;
                    return Poll::Ready(other);
                }
            };
            this.guard.registry.counters().gaps[gap.reason as usize].add(1);
            tracing::debug!(parent: &this.guard.span, reason = gap.reason.as_str(), missed = gap.missed, "gap");
            if this.is_told {
                continue;
            }
            match this.lag_policy {
                LagPolicy::End => {
                    this.guard.connection.end(EndReason::Gap);
                    this.restart_id = this.id_after(&gap);
                    return Poll::Ready(None);
                }
                // A client that has just reconnected need not do so again.
                LagPolicy::Disconnect if gap.reason == GapReason::Lagged => {
                    this.guard.connection.end(EndReason::Gap);
                }
                LagPolicy::Gap | LagPolicy::Disconnect | LagPolicy::Coalesce => {}
            }
            return Poll::Ready(Some(Err(gap)));
        }
    }
}

impl<T: Clone + Send + 'static> Subscription<T> {
    /// The next event or gap, whatever the policy makes of the gap.
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Gap>>> {
        if let Some(deadline) = &mut self.deadline {
            if deadline.poll(cx).is_ready() {
                tracing::debug!(parent: &self.guard.span, "deadline");
                self.guard.connection.end(EndReason::Deadline);
            }
        }
        if let Some(gap) = self.gap.take() {
            return Poll::Ready(Some(Err(*gap)));
        }
        loop {
            if let Some(filter) = &mut self.filter {
                match filter.poll_before(cx) {
                    // Whatever its channel has: the client has all that comes before the end.
                    Poll::Ready(None) if filter.has_ended() => {
                        self.guard.connection.end(EndReason::Completed);
                        return Poll::Ready(None);
                    }
                    Poll::Ready(None) => {}
                    before => {
                        // The connection is not polled meanwhile, so its end is looked for here.
                        let connection = &self.guard.connection;
                        if connection.is_told_to_end(cx) {
                            // A stream that finishes does not wait for what it has lost.
                            if before.is_pending() && filter.give_up() {
                                continue;
                            }
                            if before.is_pending() || connection.has_ended() {
                                connection.conclude();
                                return Poll::Ready(None);
                            }
                        }
                        if let Poll::Ready(Some(Err(gap))) = &before {
                            self.guard.count_missed(gap);
                        }
                        return before;
                    }
                }
            }
            let guard = &self.guard;
            let head = || guard.roster.head();
            match ready!(guard.connection.poll_next(cx, guard.registry.ring(), head)) {
                Some(Ok(event)) => {
                    let Some(filter) = &mut self.filter else {
                        return Poll::Ready(Some(Ok(event)));
                    };
                    match filter.pass(event) {
                        Verdict::Event(event) => return Poll::Ready(Some(Ok(event))),
                        Verdict::Gap(gap) => {
                            self.is_told &= guard.connection.is_catching_up();
                            return Poll::Ready(Some(Err(gap)));
                        }
                        Verdict::Nothing => {}
                    }
                }
                Some(Err(missed)) => {
                    self.is_told &= missed.gap.reason == GapReason::Evicted;
                    let gap = match &mut self.filter {
                        Some(filter) => filter.lose(&missed, guard.roster.notices()),
                        None => Some(missed.gap),
                    };
                    let Some(gap) = gap else {
                        continue;
                    };
                    self.guard.count_missed(&missed.gap);
                    // Newer events stand for lost events, but not for lost notices.
                    if missed.told || gap.missed.is_none() {
                        return Poll::Ready(Some(Err(gap)));
                    }
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

/// When a stream ends, and the timer that wakes it then; made when it is first polled, where there is a runtime.
#[derive(Debug)]
struct Deadline {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().poll(cx)
    }
}

/// Gives a client what it missed on another node, and leaves out what it has seen there.
pub(crate) trait ResumeFilter<T>: Send + Sync + std::fmt::Debug {
    /// The next item before anything that the channel has; `None` once there is no more.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Gap>>>;

    /// Whether the engine's log says that no event follows those that the client has.
    fn has_ended(&self) -> bool {
        false
    }

    /// Whether it has something before anything that the channel has, which need not be waited for.
    fn has_next(&self) -> bool {
        false
    }

    /// Reports, as the next item, what the client has lost and what is still being read; `false` if it has lost nothing.
    fn give_up(&mut self) -> bool {
        false
    }

    /// What to report for what the channel, which has sent this many gap notices so far, cannot give the client any more.
    /// `None` if the client has it, or gets it before anything else.
    fn lose(&mut self, missed: &Missed, notices: u64) -> Option<Gap>;

    /// The position of a client that has all of its channel, which is at this position; `None` if more comes before that.
    fn place(&self, channel: Position) -> Option<Position>;

    /// What to do with an event of the channel.
    fn pass(&mut self, event: T) -> Verdict<T>;
}

/// What to do with an event on its way to a client.
pub(crate) enum Verdict<T> {
    /// The client gets it.
    Event(T),
    /// It is a gap notice: the client gets the gap.
    Gap(Gap),
    /// The client has it already.
    Nothing,
}
