//! One connection: its receiving side, and how it is brought to an end from outside.
//!
//! Its phase only ever moves on:
//!
//! - Open: the stream yields what is broadcast, and waits for more.
//! - Finishing: the stream yields what was broadcast before, and ends where it would wait, or behind as many later events
//!   as the ring holds. Somebody asked it to.
//! - Ended: the stream yields nothing more. Somebody ended it, or it has finished, or it was dropped.
//!
//! Whatever first moves it on from Open also sets the reason, in the same step.
//!
//! Invariants:
//!
//! 1. Ended is final. It is set before the feed is taken, so whoever finds the feed gone or taken finds it set.
//! 2. The feed is dropped as soon as the connection ends, whether or not its stream is ever polled again: an event that
//!    nobody will read must not be kept in the ring for it.
//! 3. Nobody waits for the reader. The stream that polls meets there the call that ends it, and the attendant that reads in
//!    its place; whoever comes second leaves the rest to the first. So whoever has used the feed looks at the phase after
//!    letting go of it. A lock that is waited for would be simpler, and no faster where it was measured. But a poll clones and
//!    drops wakers, which is code of the executor: if that ended this very connection, it would wait for itself.
//! 4. Two wakers, for two waits. A stream that waits for an event leaves one with the reader; a request to finish takes it,
//!    and the stream leaves another when it waits again. Whoever waits for the client to take what the stream has yielded
//!    polls no stream, and leaves one of its own, which only a cut takes.
//! 5. A stream that finishes looks into the feed after it learned that it shall, so that it misses nothing from before. Nor
//!    does it take "not yet" for the end when its task has had its turn: the feed says so then whatever there is.
//! 6. A phase other than Open has a reason, which is final. Its ring ends only after that: whoever takes the ring away first
//!    finishes or cuts the connections that read from it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::ring::{Deferred, Feed};
use super::{Missed, Replay};
use crate::end::EndReason;
use crate::gap::GapReason;
use crate::id::ConnectionId;
use crate::position::Position;
use crate::sync::{self, AtomicUsize, Mutex, TryCell, contain, has_turn, spin_loop};

/// Bits of the phase. Ended outweighs finishing; cut says that it was ended from outside, and never stands without ended.
const FINISHING: usize = 1;
pub(super) const ENDED: usize = 2;
const CUT: usize = 4;
/// The reason stands above these, as its number plus one.
const REASON: u32 = 3;

pub(crate) struct Connection<T> {
    /// Whether the user's cap leaves it out.
    is_observer: bool,
    id: ConnectionId,
    since: Instant,
    /// Events lost to lag. Written by the stream alone, read by whoever asks; it decides nothing, so it is relaxed.
    lagged: AtomicU64,
    /// How many of the channel's events it has read or lost; the largest number as long as it does not read yet, so that
    /// it is not behind. Relaxed like the above, but for the step from there (`begin_at`).
    position: sync::AtomicU64,
    /// The position where a stream that finishes ends at the latest; the largest number before it knows. Written and read by
    /// the stream alone.
    last: AtomicU64,
    /// When it is to end, if ever. Set before its stream is first polled.
    expires: OnceLock<Instant>,
    /// When it was first seen to be too far behind, on the clock of whoever sweeps; zero if it is not.
    behind_since: AtomicU64,
    pub(super) phase: AtomicUsize,
    pub(super) reader: TryCell<Reader<T>>,
    /// The task that waits for the client, and gives that up when it learns of a cut (invariant 4).
    watcher: Mutex<Option<Waker>>,
}

impl<T: Clone + Send + 'static> Connection<T> {
    pub(crate) fn new(id: ConnectionId) -> Self {
        Self {
            is_observer: false,
            id,
            since: Instant::now(),
            lagged: AtomicU64::new(0),
            position: sync::AtomicU64::new(u64::MAX),
            last: AtomicU64::new(u64::MAX),
            expires: OnceLock::new(),
            behind_since: AtomicU64::new(0),
            phase: AtomicUsize::new(0),
            reader: TryCell::new(Reader {
                left: None,
                feed: None,
                replay: None,
                waker: None,
            }),
            watcher: Mutex::new(None),
        }
    }

    /// One that looks on and is not the user's own: the user's cap does not count it.
    pub(crate) fn observer(id: ConnectionId) -> Self {
        Self {
            is_observer: true,
            ..Self::new(id)
        }
    }

    pub(crate) fn is_observer(&self) -> bool {
        self.is_observer
    }

    pub(crate) fn id(&self) -> &ConnectionId {
        &self.id
    }

    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    /// Says when it is to end, and answers when it will: the first call decides.
    pub(crate) fn expire_at(&self, at: Instant) -> Instant {
        *self.expires.get_or_init(|| at)
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires.get().is_some_and(|at| *at <= now)
    }

    /// How far behind the channel's head it is, in events.
    pub(crate) fn behind(&self, head: u64) -> u64 {
        head.saturating_sub(self.position.load(Ordering::Relaxed))
    }

    /// Counts what the stream has read or lost. Nobody else writes the position once there is a stream.
    pub(super) fn advance(&self, events: u64) {
        let position = self.position.load(Ordering::Relaxed);
        self.position.store(position + events, Ordering::Relaxed);
    }

    /// Notes where a finishing stream ends at the latest, once it has yielded something since it was asked to.
    ///
    /// It must yield all that was sent before it was asked. With a log, positions are exact, and that is all up to the head.
    /// Without one, a position may be too high by what was sent while the stream was registered. But then all that the stream
    /// can still get is in the ring: had it lagged, the lag would have been the first thing that it yielded.
    fn set_last(&self, head: u64, ring: u64) {
        if self.last.load(Ordering::Relaxed) == u64::MAX {
            let position = self.position.load(Ordering::Relaxed);
            self.last
                .store(position.max(head) + ring, Ordering::Relaxed);
        }
    }

    /// Whether it reads from the channel.
    pub(super) fn has_begun(&self) -> bool {
        // Pairs with the release in `begin_at`: the feed of one that has begun is installed, and nobody is in the reader for that.
        self.position.load(Ordering::Acquire) != u64::MAX
    }

    /// Says where in the channel it begins to read.
    pub(crate) fn begin_at(&self, head: u64) {
        self.position.store(head, Ordering::Release);
    }

    /// Notes whether it is too far behind, and answers for how long it has been, in the unit of `now`, which begins at 1.
    pub(crate) fn note_behind(&self, too_far: bool, now: u64) -> u64 {
        if !too_far {
            self.behind_since.store(0, Ordering::Relaxed);
            return 0;
        }
        // One sweep at a time is usual; two at once would at worst note the later of two moments.
        match self.behind_since.load(Ordering::Relaxed) {
            0 => {
                self.behind_since.store(now, Ordering::Relaxed);
                0
            }
            since => now.saturating_sub(since),
        }
    }

    /// Gives the connection what it will read from. Done by the call that registers it, before its stream exists.
    pub(super) fn install(&self, feed: Feed<T>, replay: Option<Box<Replay<T>>>) {
        // If the cell is taken, the connection is being ended already, or asked to finish before it began: the feed is not
        // needed, and dropped here. Its stream ends at the first poll.
        let replaced = self.reader.try_with(|reader| {
            reader.replay = replay;
            reader.feed.replace(feed)
        });
        drop(replaced);
        self.look_again();
    }

    /// Sets whether the newest event of each key stands for those before it that were lost.
    pub(crate) fn coalesce(&self, coalesces: bool) {
        // Called before its stream is first polled. If somebody else is in there, it is to end that.
        self.reader.try_with(|reader| {
            if let Some(replay) = &mut reader.replay {
                replay.coalesce(coalesces);
            }
        });
        self.look_again();
    }

    /// Where its stream is in the history, if that has read everything. For the stream itself.
    pub(crate) fn place(&self) -> Option<Position> {
        // If somebody else is in there, it is to end that.
        let place = self.reader.try_with(|reader| match reader.left {
            Some(_) => None,
            None => reader.replay.as_ref()?.place(),
        });
        self.look_again();
        place.flatten()
    }

    /// The next event, from a ring of this capacity. `None` once the connection has ended, or the ring has and all of it has
    /// been read. `head` says how many events have been sent; it is asked after the phase.
    pub(crate) fn poll_next(
        &self,
        cx: &mut Context<'_>,
        ring: u64,
        head: impl Fn() -> u64,
    ) -> Poll<Option<Result<T, Box<Missed>>>> {
        // Pairs with the releases in `finish` and `end`.
        let mut phase = self.phase.load(Ordering::Acquire);
        loop {
            if phase & ENDED != 0 {
                return Poll::Ready(None);
            }
            let finishes = phase & FINISHING != 0;
            if finishes
                && self.position.load(Ordering::Relaxed) >= self.last.load(Ordering::Relaxed)
            {
                self.conclude();
                return Poll::Ready(None);
            }
            let polled = self
                .reader
                .try_with(|reader| (reader.poll(cx), reader.owes()));
            let (polled, owed) = polled.unzip();
            if let Some(owed) = owed.flatten() {
                owed.release();
            }
            phase = self.look_again();
            match polled {
                Some(Poll::Ready(Some(Ok(event)))) => {
                    self.advance(1);
                    if finishes {
                        self.set_last(head(), ring);
                    }
                    return Poll::Ready(Some(Ok(event)));
                }
                Some(Poll::Ready(Some(Err(lost)))) => {
                    let missed = lost.gap.missed.unwrap_or(0);
                    if lost.gap.reason == GapReason::Lagged {
                        self.lagged.fetch_add(missed, Ordering::Relaxed);
                    }
                    self.advance(missed);
                    if finishes {
                        self.set_last(head(), ring);
                    }
                    return Poll::Ready(Some(Err(lost)));
                }
                // Somebody is in there for an instant, to wake us for a request to finish: come back when that is done.
                None if phase & ENDED == 0 => {
                    spin_loop();
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // The ring has ended, and why stands in the phase (invariant 6).
                Some(Poll::Ready(None)) => {
                    self.conclude();
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(None),
                // With no turn left it is woken at once, and looks again (invariant 5).
                Some(Poll::Pending) if phase == 0 || !has_turn() => return Poll::Pending,
                Some(Poll::Pending) if finishes => {
                    self.conclude();
                    return Poll::Ready(None);
                }
                // The phase has moved on meanwhile.
                Some(Poll::Pending) => {}
            }
        }
    }

    /// Whether a stream that does not read yet is to end, or to end once it has read what there is. If not, it is woken when
    /// it is.
    pub(crate) fn is_told_to_end(&self, cx: &mut Context<'_>) -> bool {
        let kept = self.reader.try_with(|reader| reader.keep(cx));
        if kept.is_none() {
            // Somebody is in there for an instant, to end it or to wake it: come back when that is done.
            cx.waker().wake_by_ref();
        }
        let phase = self.look_again();
        // A channel that is complete ends its streams behind everything, also behind what they read elsewhere.
        phase & ENDED != 0 || (phase != 0 && self.end_reason() != Some(EndReason::Completed))
    }

    /// Moves the phase on. The reason is set unless there is one already.
    ///
    /// Open is zero, so only the first exchange can succeed, and every later caller finds a reason (invariant 6). In either case
    /// the phase is touched by a read-modify-write, which `look_again` relies on.
    fn advance_to(&self, flags: usize, reason: EndReason) {
        let first = flags | ((reason as usize + 1) << REASON);
        let exchanged = self
            .phase
            .compare_exchange(0, first, Ordering::AcqRel, Ordering::Relaxed);
        if exchanged.is_err() {
            self.phase.fetch_or(flags, Ordering::AcqRel);
        }
    }

    /// Why it ends or has ended; `None` while it is open. Final, and nothing else is read on account of it, so it is relaxed:
    /// whoever has seen the end has seen this value or moved on from it.
    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        let number = self.phase.load(Ordering::Relaxed) >> REASON;
        EndReason::ALL.get(number.checked_sub(1)?).copied()
    }

    /// Asks the stream to end once it has yielded what was broadcast before this call.
    pub(crate) fn finish(&self, reason: EndReason) {
        // Whoever sees that it shall finish finds in the ring what was broadcast before.
        self.advance_to(FINISHING, reason);
        let waker = self.reader.try_with(|reader| reader.waker.take());
        // The stream may have seen it, and have ended while we were in there (invariant 3).
        self.look_again();
        if let Some(waker) = waker.flatten() {
            contain(|| waker.wake());
        }
    }

    /// Ends the connection: its stream yields `None` from now on. For the stream itself, whose last words are worth
    /// waiting for.
    pub(crate) fn end(&self, reason: EndReason) {
        self.advance_to(ENDED, reason);
        self.release();
    }

    /// The same for a stream that was asked to finish, and has.
    pub(crate) fn conclude(&self) {
        self.phase.fetch_or(ENDED, Ordering::AcqRel);
        self.release();
    }

    /// Ends the connection from outside: nor is what its stream has yielded already waited for much longer. Wakes the
    /// stream's task, and the one that [watches](Self::watch). May be called at any time, again and again.
    pub(crate) fn cut(&self, reason: EndReason) {
        self.advance_to(ENDED | CUT, reason);
        self.release();
        let watcher = self.watcher.with(Option::take);
        if let Some(watcher) = watcher {
            contain(|| watcher.wake());
        }
    }

    /// Has a task woken when the connection is cut. Ask [`is_over`](Self::is_over) afterwards: a cut that came before is
    /// seen there, since either this finds the lock that the cut let go of, or the cut finds the waker.
    #[allow(dead_code, reason = "asked by the server, which is a feature")]
    pub(crate) fn watch(&self, waker: &Waker) {
        let is_kept =
            |kept: &mut Option<Waker>| kept.as_ref().is_some_and(|it| it.will_wake(waker));
        if self.watcher.with(is_kept) {
            return;
        }
        // What clones and drops a waker is the executor's: it does not run under the lock.
        let waker = waker.clone();
        let replaced = self.watcher.with(|kept| kept.replace(waker));
        drop(replaced);
    }

    /// Whether what its stream has yielded is worth waiting for no more: it was cut, or its time is up. A stream that ends
    /// by itself is not over in this sense, for its last words may still be on their way.
    #[allow(dead_code, reason = "asked by the server, which is a feature")]
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        // Pairs with the release in `cut`.
        self.phase.load(Ordering::Acquire) & CUT != 0 || self.is_expired(now)
    }

    /// When its time is up, if ever.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.expires.get().copied()
    }

    /// Drops the feed and wakes the stream, unless the stream is in there right now.
    fn release(&self) {
        let taken = self.reader.try_with(|reader| {
            (
                reader.feed.take(),
                (reader.replay.take(), reader.left.take()),
                reader.waker.take(),
            )
        });
        let Some((feed, read, waker)) = taken else {
            return;
        };
        contain(|| drop((feed, read)));
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
    }

    /// The phase after having used the reader; drops the feed if the connection has ended meanwhile.
    ///
    /// Both the stream and whoever moves the phase on do two things, each in its own order: the stream lets go of the
    /// reader, then looks at the phase; the other sets the phase, then looks into the reader. Neither may miss the
    /// other, or a feed would stay, or a stream would sleep on. So both touch the phase by a read-modify-write, and
    /// these stand in one order. Ours after the other: we see the new phase. Ours before: the other reads what we wrote,
    /// so it sees the reader let go of, and finds there what is to be dropped and woken.
    pub(super) fn look_again(&self) -> usize {
        let phase = self.phase.fetch_or(0, Ordering::AcqRel);
        if phase & ENDED != 0 {
            self.release();
        }
        phase
    }
}

/// What a feed yields.
pub(super) type Item<T> = Option<Result<T, Box<Missed>>>;

/// What the stream reads from, and the task that waits for the next event.
pub(super) struct Reader<T> {
    /// What an attendant has left to the stream.
    pub(super) left: Option<Box<Item<T>>>,
    pub(super) feed: Option<Feed<T>>,
    /// Where the channel has a log.
    replay: Option<Box<Replay<T>>>,
    pub(super) waker: Option<Waker>,
}

impl<T: Clone + Send + 'static> Reader<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Item<T>> {
        let polled = self.poll_item(cx);
        if polled.is_pending() {
            self.keep(cx);
        }
        polled
    }

    pub(super) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Item<T>> {
        if let Some(item) = self.left.take() {
            return Poll::Ready(*item);
        }
        let Some(feed) = &mut self.feed else {
            return Poll::Ready(None);
        };
        match &mut self.replay {
            Some(replay) => replay.poll(feed, cx),
            None => feed
                .poll_next(cx)
                .map(|next| next.map(|item| item.map_err(Missed::lagged))),
        }
    }

    /// What is to be released after a poll, outside of the cell.
    pub(super) fn owes(&self) -> Option<Arc<Deferred<T>>> {
        self.feed.as_ref()?.owes()
    }

    fn keep(&mut self, cx: &mut Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }
}
