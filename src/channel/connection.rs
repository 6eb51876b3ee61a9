//! One connection: its receiving side, and how other threads end it.
//!
//! Its phase only moves forward:
//!
//! - Open: the stream yields what is broadcast, and waits for more.
//! - Finishing, asked for by `finish`: the stream yields what was broadcast before. It ends where it would wait for more, at
//!   the latest after as many further events as the ring holds.
//! - Ended, by `end`, `cut` or `conclude`: the stream yields nothing more.
//!
//! The call that first moves it out of Open also sets the reason, in the same step.
//!
//! Invariants:
//!
//! 1. Ended is final. It is set before the feed is taken out, so a stream that finds its feed taken out finds it set.
//! 2. The feed is dropped as soon as the connection ends, whether or not its stream is ever polled again: the ring must not
//!    keep an event for a stream that will not read it.
//! 3. No thread waits for a poll. Three kinds meet in the reader's cell: the stream, an attendant that reads in its place,
//!    and a call that ends the connection or wakes the stream. One that finds the cell taken leaves its work to the
//!    holder, so each holder looks at the phase after letting go (`look_again`). A blocking lock, which would save that look
//!    but no time that could be measured, could deadlock: a poll clones and drops wakers, which runs code of the executor,
//!    and that may end this connection. Between its polls the stream does wait (`enter`): others only move things out then.
//! 4. Two wakers, for two waits. A stream that waits for an event leaves its waker in the reader; a request to finish takes
//!    it, so does the sender of an [ephemeral](super::ephemeral) event, and the stream leaves another when it waits again.
//!    A server task that waits for the client to take what the stream has yielded does not poll the stream; it leaves its
//!    own waker in `watcher`, which only a cut takes.
//! 5. A stream looks into the feed after it has seen Finishing, so that it misses nothing sent before. And it does not take
//!    `Pending` for the end when its task has no coop budget left: the feed is then pending whatever it holds.
//! 6. A phase other than Open has a reason, which is final. The ring ends only after that: the call that retires the ring
//!    first finishes or cuts the connections that read from it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::ephemeral::{Ephemerals, Next};
use super::ring::{Deferred, Feed};
use super::{Missed, Replay};
use crate::end::EndReason;
use crate::id::ConnectionId;
use crate::position::Position;
use crate::sync::{
    self, AtomicUsize, Mutex, TryCell, contain, has_turn, keep_waker, spin_loop, use_turn,
};

/// Bits of the phase. Ended outweighs finishing. Cut means ended from outside, and is never set without ended.
const FINISHING: usize = 1;
pub(super) const ENDED: usize = 2;
const CUT: usize = 4;
/// The bits above these hold the reason, as its number plus one.
const REASON: u32 = 3;

pub(crate) struct Connection<T> {
    /// Whether the user's cap does not count it.
    is_observer: bool,
    id: ConnectionId,
    since: Instant,
    /// Events lost to lag. Only the stream writes it. Relaxed: it decides nothing.
    lagged: AtomicU64,
    /// How many of the channel's events it has read or lost; `u64::MAX` until it begins to read, so that it is not behind.
    /// Relaxed like the above, but for the store that begins (`begin_at`).
    position: sync::AtomicU64,
    /// The position where a finishing stream ends at the latest; `u64::MAX` until that is known. Only the stream uses it.
    last: AtomicU64,
    /// Its deadline, if it has one. Set before its stream is first polled.
    expires: OnceLock<Instant>,
    /// When a sweep first saw it too far behind, on the sweep's clock; zero if it is not.
    behind_since: AtomicU64,
    pub(super) phase: AtomicUsize,
    pub(super) reader: TryCell<Reader<T>>,
    pub(super) ephemerals: Ephemerals<T>,
    /// The server task that waits for the client until a cut wakes it (invariant 4).
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
            ephemerals: Ephemerals::new(),
            watcher: Mutex::new(None),
        }
    }

    /// An observer, which is not the user's own: the user's cap does not count it.
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

    pub(crate) fn add_lagged(&self, missed: u64) {
        self.lagged.fetch_add(missed, Ordering::Relaxed);
    }

    /// Sets its deadline, and returns the one that holds: the first call decides.
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

    /// Counts what the stream, or an attendant in its place, has read or lost. Only these write the position once there is a
    /// stream.
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

    /// Whether it has begun to read from the channel.
    pub(super) fn has_begun(&self) -> bool {
        // Pairs with the release in `begin_at`: the feed of a connection that has begun is installed, and `install` has left
        // the reader.
        self.position.load(Ordering::Acquire) != u64::MAX
    }

    /// Says where in the channel it begins to read.
    pub(crate) fn begin_at(&self, head: u64) {
        self.position.store(head, Ordering::Release);
    }

    /// Notes whether it is too far behind, and returns for how long it has been, in the unit of `now`, which begins at 1.
    pub(crate) fn note_behind(&self, too_far: bool, now: u64) -> u64 {
        if !too_far {
            self.behind_since.store(0, Ordering::Relaxed);
            return 0;
        }
        // Sweeps usually run one at a time; two in parallel would at worst note the later of two moments.
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
        // If the cell is taken, another call is ending the connection, or asking it to finish before it began: the feed is
        // not needed, and dropped here. The stream ends at its first poll.
        let replaced = self.reader.try_with(|reader| {
            reader.replay = replay;
            reader.feed.replace(feed)
        });
        drop(replaced);
        self.look_again();
    }

    /// Sets whether the newest event of each key stands for those before it that were lost.
    pub(crate) fn coalesce(&self, coalesces: bool) {
        self.enter(|reader| {
            if let Some(replay) = &mut reader.replay {
                replay.coalesce(coalesces);
            }
        });
    }

    /// The stream's position in the history, if it has read everything. Called by the stream.
    pub(crate) fn place(&self) -> Option<Position> {
        let place = self.enter(|reader| match reader.left {
            Some(_) => None,
            None => reader.replay.as_ref()?.place(),
        });
        place.flatten()
    }

    /// Runs `f` on the reader, for the stream between its polls. `None` once the connection has ended.
    pub(super) fn enter<R>(&self, mut f: impl FnMut(&mut Reader<T>) -> R) -> Option<R> {
        loop {
            let result = self.reader.try_with(&mut f);
            let phase = self.look_again();
            // A thread that finishes the stream or passes an event may have found the cell taken, and the waker in it.
            if result.is_some() && (phase != 0 || self.ephemerals.is_any()) {
                self.wake();
            }
            if phase & ENDED != 0 || result.is_some() {
                return result;
            }
            // Another call holds the cell for an instant, to wake the stream (invariant 3).
            spin_loop();
        }
    }

    /// The next event, from a ring of this capacity. `None` once the connection has ended, or the ring has ended and been
    /// read. `head` returns how many events have been sent; it is called after the phase is loaded.
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
            let ephemerals = (!finishes).then_some(&self.ephemerals);
            if finishes
                && self.position.load(Ordering::Relaxed) >= self.last.load(Ordering::Relaxed)
            {
                self.conclude();
                return Poll::Ready(None);
            }
            let polled = self
                .reader
                .try_with(|reader| (reader.poll(cx, ephemerals), reader.owes()));
            let (polled, owed) = polled.unzip();
            if let Some(owed) = owed.flatten() {
                owed.release();
            }
            phase = self.look_again();
            match polled {
                Some(Poll::Ready(Next::Ephemeral(event))) => {
                    // It has no number, so it does not change the position.
                    use_turn(cx);
                    return Poll::Ready(Some(Ok(event)));
                }
                Some(Poll::Ready(Next::Numbered(Some(Ok(event))))) => {
                    self.advance(1);
                    if finishes {
                        self.set_last(head(), ring);
                    }
                    return Poll::Ready(Some(Ok(event)));
                }
                Some(Poll::Ready(Next::Numbered(Some(Err(lost))))) => {
                    self.advance(lost.gap.missed.unwrap_or(0));
                    if finishes {
                        self.set_last(head(), ring);
                    }
                    return Poll::Ready(Some(Err(lost)));
                }
                // Another call holds the cell for an instant, to wake us: poll again.
                None if phase & ENDED == 0 => {
                    spin_loop();
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // The ring has ended, and the phase has the reason (invariant 6).
                Some(Poll::Ready(Next::Numbered(None))) => {
                    self.conclude();
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(None),
                // Without coop budget the task is woken immediately, and polls again (invariant 5).
                Some(Poll::Pending) if !has_turn() => return Poll::Pending,
                // The sender of an ephemeral event may have found the cell taken by us: poll again.
                Some(Poll::Pending) if phase == 0 && self.ephemerals.is_any() => {}
                Some(Poll::Pending) if phase == 0 => return Poll::Pending,
                Some(Poll::Pending) if finishes => {
                    self.conclude();
                    return Poll::Ready(None);
                }
                // The phase has moved on meanwhile.
                Some(Poll::Pending) => {}
            }
        }
    }

    /// Whether a stream that does not read yet has ended or is asked to finish. If not, its task is woken when that changes.
    pub(crate) fn is_told_to_end(&self, cx: &mut Context<'_>) -> bool {
        let keep = |reader: &mut Reader<T>| keep_waker(&mut reader.waker, cx);
        if self.reader.try_with(keep).is_none() {
            // Another call holds the cell for an instant, to end the stream or to wake it: poll again.
            cx.waker().wake_by_ref();
        }
        let phase = self.look_again();
        // A complete channel ends its streams after everything, also after what they read elsewhere.
        phase & ENDED != 0 || (phase != 0 && self.end_reason() != Some(EndReason::Completed))
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.phase.load(Ordering::Relaxed) & ENDED != 0
    }

    /// Sets flags of the phase, and the reason unless there is one already.
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

    /// Why it ends or has ended; `None` while it is open. Final. Relaxed: no other memory is read because of it, and a thread
    /// that has seen the end reads that value of the phase or a later one, which has the same reason.
    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        let number = self.phase.load(Ordering::Relaxed) >> REASON;
        EndReason::ALL.get(number.checked_sub(1)?).copied()
    }

    /// Asks the stream to end once it has yielded what was broadcast before this call.
    pub(crate) fn finish(&self, reason: EndReason) {
        // Pairs with the acquire in `poll_next`: a stream that sees Finishing finds in the ring what was broadcast before.
        self.advance_to(FINISHING, reason);
        self.ephemerals.clear();
        let waker = self.reader.try_with(|reader| reader.waker.take());
        // The stream may have seen Finishing, and have ended while we held the cell (invariant 3).
        self.look_again();
        if let Some(waker) = waker.flatten() {
            contain(|| waker.wake());
        }
    }

    /// Ends the connection: its stream yields `None` from now on. Called by the stream: the server still waits until the
    /// client has what it has yielded.
    pub(crate) fn end(&self, reason: EndReason) {
        self.advance_to(ENDED, reason);
        self.release();
    }

    /// Ends a connection that has its reason: its stream has finished, or its ring has ended.
    pub(crate) fn conclude(&self) {
        self.phase.fetch_or(ENDED, Ordering::AcqRel);
        self.release();
    }

    /// Ends the connection from outside: the server does not wait much longer for the client to take what the stream has
    /// yielded. Wakes the stream's task and the one that [watches](Self::watch). May be called at any time, and repeatedly.
    pub(crate) fn cut(&self, reason: EndReason) {
        self.advance_to(ENDED | CUT, reason);
        self.release();
        let watcher = self.watcher.with(Option::take);
        if let Some(watcher) = watcher {
            contain(|| watcher.wake());
        }
    }

    /// Wakes this task when the connection is cut. Ask [`is_over`](Self::is_over) afterwards: either `cut` locks after us and
    /// finds the waker, or it locks before us and `is_over` sees the cut.
    #[allow(dead_code, reason = "asked by the server, which is a feature")]
    pub(crate) fn watch(&self, waker: &Waker) {
        let is_kept =
            |kept: &mut Option<Waker>| kept.as_ref().is_some_and(|it| it.will_wake(waker));
        if self.watcher.with(is_kept) {
            return;
        }
        // Cloning and dropping a waker runs the executor's code: not under the lock.
        let waker = waker.clone();
        let replaced = self.watcher.with(|kept| kept.replace(waker));
        drop(replaced);
    }

    /// Whether the server no longer waits for the client to take what the stream has yielded: the connection was cut, or its
    /// deadline has passed. A stream that ends by itself is not over in this sense: its last events may still be on their
    /// way.
    #[allow(dead_code, reason = "asked by the server, which is a feature")]
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        // Pairs with the release in `cut`.
        self.phase.load(Ordering::Acquire) & CUT != 0 || self.is_expired(now)
    }

    /// Its deadline, if it has one.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.expires.get().copied()
    }

    /// Drops the feed and wakes the stream, unless the cell is taken: its holder then does so in `look_again`.
    fn release(&self) {
        let taken = self.reader.try_with(|reader| {
            (
                reader.feed.take(),
                (reader.replay.take(), reader.left.take()),
                reader.waker.take(),
            )
        });
        self.ephemerals.clear();
        let Some((feed, read, waker)) = taken else {
            return;
        };
        contain(|| drop((feed, read)));
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
    }

    /// The phase after the reader was used; drops the feed if the connection has ended meanwhile.
    ///
    /// Two threads each do two things. The stream lets go of the reader, then looks at the phase. The ending call sets the
    /// phase, then looks into the reader. If each missed the other, a feed would stay, or a stream would sleep on. So both
    /// access the phase by a read-modify-write, and all of these have one order. If ours is later, we see the new phase. If
    /// ours is earlier, the ending call reads what we wrote: it sees the reader free, and finds there the feed to drop and
    /// the waker to wake.
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

/// What the stream reads from, and the waker of its task.
pub(super) struct Reader<T> {
    /// An item that an attendant took from the feed and left to the stream.
    pub(super) left: Option<Box<Item<T>>>,
    pub(super) feed: Option<Feed<T>>,
    /// `Some` where the channel has a log.
    pub(super) replay: Option<Box<Replay<T>>>,
    pub(super) waker: Option<Waker>,
}

impl<T: Clone + Send + 'static> Reader<T> {
    /// The next item, or one of these ephemeral events if that comes first.
    fn poll(&mut self, cx: &mut Context<'_>, ephemerals: Option<&Ephemerals<T>>) -> Poll<Next<T>> {
        let polled = match ephemerals {
            Some(ephemerals) => self.poll_beside(cx, ephemerals),
            None => self.poll_item(cx).map(Next::Numbered),
        };
        if polled.is_pending() {
            keep_waker(&mut self.waker, cx);
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
}
