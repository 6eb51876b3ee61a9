//! What one user was sent: the last events, and the newest of each key.
//!
//! One short lock holds together what must not come apart:
//!
//! 1. An event gets its number, is appended and is sent in one step. So the order of the numbers is the order in the ring,
//!    and there are no holes in it.
//! 2. A stream takes its receiving side and learns where that begins in one step. What is older is in the log, what is
//!    newer comes through the ring, and nothing is in both.
//! 3. A user is away if the log says so. It is set only while nobody is in, and cleared by whoever comes in, who takes the
//!    lock after having been counted. So the room for those who are away is given back once, and nobody who is in takes any.
//!
//! The ring's lock is taken inside it. Under it nothing is encoded and no code of the service runs: an event that is taken out
//! is handed out ([`Discarded`]), and the streams are woken once it is released, however many these are. A replay takes a
//! few events at a time. What takes longer moves many events at once, at the price of a few tree operations each: those
//! that are too old, and those that make room for a large one or for a user who goes. The same user's broadcasts and streams
//! meet here, users do not meet each other.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::discarded::Discarded;
use super::fanout::{Delivery, Welcome};
use super::latest::Latest;
use super::origin::{Accepted, Label, Origin};
use super::progress::{Found, Progress, Stamp};
use super::ring::{Feed, Ring};
use super::shared::Standing;
use super::window::{Completion, Retained, Window};
use super::{Missed, Replay, Resume, Retention};
use crate::gap::{Gap, GapReason};
use crate::position::{Place, Position};
use crate::sync::Mutex;

/// The most events that a replay takes in one go.
const CHUNK: u64 = 32;

pub(crate) struct Log<T> {
    retention: Arc<Retention>,
    window: Mutex<Window<T>>,
}

/// A stream that was let in.
pub(super) struct Joined<T> {
    pub(super) feed: Feed<T>,
    pub(super) replay: Replay<T>,
    pub(super) welcome: Welcome,
}

/// What a log has for a stream that is behind.
pub(super) struct Excerpt<T> {
    /// Events in order.
    pub(super) events: VecDeque<T>,
    /// Those that come before these, and are gone.
    pub(super) missed: Option<Missed>,
    /// Where to read on, once all of it is read.
    pub(super) until: u64,
}

impl<T: Clone + Send + 'static> Log<T> {
    pub(crate) fn new(retention: Arc<Retention>) -> Arc<Self> {
        let own = Position {
            epoch: Position::new_epoch(),
            offset: 0,
        };
        let upstream = retention.upstream.as_ref();
        Arc::new(Self {
            window: Mutex::new(Window {
                next: 1,
                events: VecDeque::new(),
                bytes: 0,
                counters: retention.counters.clone(),
                latest: Latest::new(retention.keys),
                away: None,
                unclaimed: false,
                progress: Progress::at(upstream.map_or(own, |upstream| upstream.horizon())),
                dropped_between: 0,
                complete: None,
                ahead: None,
            }),
            retention,
        })
    }

    /// A log of a user who is not in and never was; `None` if there is no room for one more.
    pub(crate) fn of_unconnected(retention: Arc<Retention>) -> Option<Arc<Self>> {
        if !retention.away_users().take(1) {
            return None;
        }
        let log = Self::new(retention);
        log.with(|window, _| {
            window.away = Some(Instant::now());
            window.unclaimed = true;
        });
        Some(log)
    }

    /// A log of a user who is not in and whose channel is held.
    pub(crate) fn of_held(retention: Arc<Retention>) -> Arc<Self> {
        let unclaimed = retention.keeps_for_unconnected();
        let log = Self::new(retention);
        log.with(|window, _| window.unclaimed = unclaimed);
        log
    }

    /// Whether its events get ids: its own, or those of the engine's log.
    pub(super) fn has_ids(&self) -> bool {
        self.retention.history.is_some() || !self.is_own()
    }

    /// The place of this offset, where ids are sent: only where there is a history that they could be looked up in.
    fn position(&self, progress: Progress, offset: u64) -> Option<Position> {
        self.retention.history.map(|_| Position {
            epoch: progress.epoch,
            offset,
        })
    }

    pub(super) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Runs `f` under the lock. What it discards is dropped after that.
    fn with<R>(&self, f: impl FnOnce(&mut Window<T>, &mut Discarded<T>) -> R) -> R {
        let mut discarded = Discarded::new();
        self.window.with(|window| f(window, &mut discarded))
    }

    /// Gives its place to what `make` makes of it, appends it, and sends it (invariant 1), if it is its turn.
    pub(super) fn append(
        &self,
        origin: Origin<T>,
        label: Label<'_>,
        make: &mut dyn FnMut(Option<Position>) -> T,
        delivery: &mut Delivery<'_, T>,
    ) -> Accepted {
        let at = self.retention.age().map(|_| Instant::now());
        self.with(|window, discarded| {
            if window.complete.is_some() {
                return window.refuse(origin, discarded);
            }
            let progress = window.progress;
            let (stamp, id) = match origin {
                Origin::Here => {
                    debug_assert!(self.is_own(), "the engine's log decides the places");
                    let offset = progress.last + 1;
                    (Stamp::at(offset), self.position(progress, offset))
                }
                Origin::Upstream(place) => {
                    if let Err(refused) = progress.turn(place) {
                        return refused;
                    }
                    if let Some((notice, weight)) = window.ahead.take() {
                        let label = Label::notice(weight);
                        let stamp = Stamp::after(progress.last);
                        self.push((window, discarded), label, (at, stamp), notice, delivery);
                    }
                    (Stamp::at(place.position.offset), Some(place.position))
                }
                Origin::Ahead { notice, weight } => {
                    let stamp = Stamp::after(progress.last);
                    if window.ahead.is_none() {
                        window.ahead = Some((notice.clone(), weight));
                        let label = Label::notice(weight);
                        self.push((window, discarded), label, (at, stamp), notice, delivery);
                    } else {
                        discarded.push(notice);
                    }
                    (stamp, None)
                }
                Origin::Reset => {
                    let Some(upstream) = &self.retention.upstream else {
                        return Accepted::Elsewhere;
                    };
                    // Asked under the lock. Outside, a slow caller could bring an answer from before the last change, and lead
                    // the channel back into the old log.
                    let horizon = upstream.horizon();
                    if horizon.epoch == progress.epoch {
                        return Accepted::Duplicate;
                    }
                    while window.forget_oldest(&self.retention, discarded) {}
                    window.progress = Progress::at(horizon);
                    discarded.extend(window.ahead.take().map(|(notice, _)| notice));
                    (Stamp::at(horizon.offset), Some(horizon))
                }
            };
            let event = make(id);
            window.progress.last = stamp.offset;
            let reached = self.push((window, discarded), label, (at, stamp), event, delivery);
            Accepted::Delivered(reached)
        })
    }

    fn push(
        &self,
        (window, discarded): (&mut Window<T>, &mut Discarded<T>),
        label: Label<'_>,
        (at, stamp): (Option<Instant>, Stamp),
        event: T,
        delivery: &mut Delivery<'_, T>,
    ) -> usize {
        let retained = Retained {
            event: event.clone(),
            size: label.weight,
            at,
            stamp,
        };
        window.keep(label.key, retained, &self.retention, discarded);
        delivery.send(event, label)
    }

    /// Takes no event any more from now on. Of the engine's log, if it is the turn of what says so. A client at `last` or behind
    /// it is known to have everything.
    pub(super) fn complete(&self, place: Option<Place>, mut last: Option<u64>) -> Accepted {
        let since = Instant::now();
        self.with(|window, _| {
            if let Some(completion) = &mut window.complete {
                // Whoever reads the end in the engine's log knows better what is before it.
                completion.last = completion.last.into_iter().chain(last).min();
                return Accepted::Complete;
            }
            if let Some(place) = place {
                if let Err(refused) = window.progress.turn(place) {
                    return refused;
                }
                // Everything in front of the end has been appended.
                last = last.or(Some(window.progress.last));
                window.progress.last = place.position.offset;
            }
            window.complete = Some(Completion { since, last });
            Accepted::Delivered(0)
        })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.with(|window, _| window.complete.is_some())
    }

    /// Whether it stays for a while when nobody is in any more.
    pub(super) fn would_linger(&self) -> bool {
        let linger = self.with(|window, _| self.retention.linger(window.complete.is_some()));
        !linger.is_zero()
    }

    /// The engine's log has nothing up to this place that is not here, or known to be missing.
    pub(super) fn catch_up(&self, place: Position) {
        self.with(|window, _| window.progress.catch_up(place));
    }

    /// Compares itself with the end of the user's log, which has nothing between `newest` and `through`.
    pub(super) fn compare(&self, newest: Position, through: u64) -> Standing {
        self.with(|window, _| {
            if window.complete.is_some() {
                return Standing::Level;
            }
            window.progress.compare(newest, through)
        })
    }

    /// Where it is in the history, if places have ids.
    pub(super) fn place(&self) -> Option<Position> {
        self.with(|window, _| self.position(window.progress, window.last_shown()))
    }

    /// Where a stream is that goes on with the event of this number, unless there is one already.
    pub(super) fn place_before(&self, next: u64) -> Option<Position> {
        self.with(|window, _| {
            if window.next != next {
                return None;
            }
            self.position(window.progress, window.last_shown())
        })
    }

    /// Lets a stream in, which was counted before: it subscribes to the ring, and where it begins there is noted in the same
    /// step (invariants 2 and 3). Where the stream comes back with an id that is none of this log, that is said.
    pub(super) fn join(self: &Arc<Self>, resume: Resume, ring: &Ring<T>) -> Joined<T> {
        self.with(|window, _| {
            window.come_back(&self.retention);
            let feed = ring.subscribe();
            let live = window.next;
            let unclaimed = std::mem::take(&mut window.unclaimed);
            let progress = window.progress;
            let resume = match resume {
                Resume::Fresh if window.complete.is_some() => Resume::Start,
                resume => resume,
            };
            let beginning = Position {
                epoch: progress.epoch,
                offset: 0,
            };
            let start = match resume {
                Resume::Fresh if unclaimed => Start::At(1),
                Resume::Fresh => Start::At(live),
                Resume::Start if self.is_own() => Start::At(1),
                Resume::Start => self.find(window, beginning),
                Resume::After(position) => self.find(window, position),
                Resume::Unknown => Start::Unknown,
            };
            let last = self.position(progress, progress.last);
            let shown = self.position(progress, window.last_shown());
            // Who is given everything has yet to get it, and comes back from before it if cut off until then.
            let cursor = match resume {
                Resume::Fresh if unclaimed => self.position(progress, progress.begun),
                Resume::Start => self.position(progress, 0),
                Resume::Fresh | Resume::After(_) | Resume::Unknown => shown,
            };
            let from = match resume {
                Resume::Start => Some(beginning),
                Resume::After(position) => Some(position),
                Resume::Fresh | Resume::Unknown => None,
            };
            let next = match start {
                Start::At(next) => next,
                Start::Log | Start::Unknown => live,
            };
            let unknown = matches!(start, Start::Unknown);
            Joined {
                feed,
                replay: Replay::new(self.clone(), next, live),
                welcome: Welcome {
                    gap: unknown.then(|| Gap::new(GapReason::Epoch, None).at(cursor)),
                    cursor,
                    log: match start {
                        Start::Log => from.zip(last),
                        Start::At(_) if !self.is_own() => from.map(|from| (from, from)),
                        Start::At(_) | Start::Unknown => None,
                    },
                    notices: 0,
                },
            }
        })
    }

    /// Whether the history is this log's alone, and no engine's log.
    fn is_own(&self) -> bool {
        self.retention.upstream.is_none()
    }

    /// Where a stream goes on that has been here before, or on another node.
    fn find(&self, window: &Window<T>, position: Position) -> Start {
        let progress = window.progress;
        let Position { epoch, offset } = position;
        if epoch != progress.epoch || self.retention.history.is_none() {
            return Start::Unknown;
        }
        if self.is_own() {
            return match offset > progress.last {
                // Nobody can have seen what comes only now.
                true => Start::Unknown,
                // Offsets are the numbers of the channel's events. What the window has dropped is told when it is read.
                false => Start::At(offset + 1),
            };
        }
        if window.is_all(offset) {
            return Start::At(window.next);
        }
        match progress.find(position) {
            Found::Window => Start::At(window.first_after(offset)),
            Found::Log => Start::Log,
            Found::Nowhere => Start::Unknown,
        }
    }

    /// What there is of the events from `next` up to `end`, a few at a time; what is gone is missed for this reason. With
    /// `coalesce`, the newest of each key stand for what is gone.
    pub(super) fn read(
        &self,
        next: u64,
        end: u64,
        reason: GapReason,
        coalesce: bool,
    ) -> Excerpt<T> {
        let now = self.retention.age().map(|_| Instant::now());
        self.with(|window, discarded| {
            window.forget_old(now, &self.retention, discarded);
            let first = window.first();
            if next < first {
                let mut until = end.min(first);
                let mut latest = Vec::new();
                if coalesce {
                    (latest, until) = window.latest.within(next..until, CHUNK as usize);
                }
                let progress = window.progress;
                let before = latest.first().map_or(until, |(number, _)| *number);
                // Where the events of an engine's log stood that are dropped is not known, but for the last. And a stream that
                // has read the log up to there lacks events that were shown meanwhile.
                let is_known = before == first && next > window.dropped_between;
                let place = match self.is_own() {
                    true => Some(before - 1),
                    false => is_known.then_some(progress.dropped),
                };
                let position = place.and_then(|offset| self.position(progress, offset));
                let missed = until - next - latest.len() as u64;
                return Excerpt {
                    missed: (missed > 0).then(|| Missed {
                        gap: Gap::new(reason, Some(missed)).at(position),
                        told: !coalesce || !window.latest.accounts_from(next),
                    }),
                    events: latest.into_iter().map(|(_, event)| event).collect(),
                    until,
                };
            }
            let until = end.min(next + CHUNK);
            // Both fit: what is kept is in memory.
            let range = (next - first) as usize..(until - first) as usize;
            let events = window.events.range(range).map(|entry| entry.event.clone());
            Excerpt {
                events: events.collect(),
                missed: None,
                until,
            }
        })
    }

    /// Keeps the log of a user who has gone, if `is_deserted` says that nobody is in; `false` if there is no room for it,
    /// and the channel is to be closed.
    pub(super) fn linger(&self, is_deserted: impl FnOnce() -> bool) -> bool {
        self.with(|window, discarded| {
            if window.away.is_some() || !is_deserted() {
                return true;
            }
            let linger = self.retention.linger(window.complete.is_some());
            if linger.is_zero() || !self.retention.away_users().take(1) {
                return false;
            }
            while !self.retention.away_bytes().take(window.bytes) {
                // With nothing left it asks for nothing, and gets it.
                window.forget_oldest(&self.retention, discarded);
            }
            window.away = Some(Instant::now());
            true
        })
    }

    /// Forgets events that are too old, and lets `close` decide if the user has been away, or the channel complete, for long
    /// enough. Under the lock: nobody completes the channel between the decision and what comes of it.
    pub(super) fn if_over<R>(&self, now: Instant, close: impl FnOnce() -> Option<R>) -> Option<R> {
        self.with(|window, discarded| {
            window.forget_old(Some(now), &self.retention, discarded);
            let since = window.complete.map(|completion| completion.since);
            let linger = self.retention.linger(since.is_some());
            let is_over = |since| now.saturating_duration_since(since) >= linger;
            match since.or(window.away).is_some_and(is_over) {
                true => close(),
                false => None,
            }
        })
    }

    /// Gives back what a user who is away takes. Called by whoever has closed the channel, or holds it, after that.
    pub(crate) fn come_back(&self) {
        self.with(|window, _| window.come_back(&self.retention));
    }
}

/// Where a stream goes on.
enum Start {
    /// With the event of this number.
    At(u64),
    /// With what the engine's log has up to here, then with what comes.
    Log,
    /// Nobody can say.
    Unknown,
}
