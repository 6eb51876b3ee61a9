//! What one user was sent: the last events, and the newest of each key.
//!
//! One short lock keeps three invariants:
//!
//! 1. An event gets its number, is appended and is sent in one step. So the ring has the events in the order of their
//!    numbers, without holes.
//! 2. A stream subscribes to the ring and learns the number of the first event it will get there, in one step. It reads older
//!    events from the log and newer ones from the ring, and none twice.
//! 3. A user is away while `away` is set, which it can be only while the roster is empty: a stream that joins clears it, and
//!    is on the roster before it takes the lock. So the room for users who are away is given back once, and a connected user
//!    takes none.
//!
//! The ring's lock is taken inside this one. Under it nothing is encoded and no code of the service runs: an event that is
//! taken out goes to [`Discarded`], and the streams, however many, are woken after the release. A replay reads a few events
//! at a time. Only two steps take longer, with a few tree operations for each event they remove: dropping events that are too
//! old, and making room for a large event or for a user who leaves. Only broadcasts and streams of the same user share this
//! lock.

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
use super::window::{Retained, Window};
use super::{Missed, Replay, Resume, Retention};
use crate::gap::{Gap, GapReason};
use crate::position::Position;
use crate::sync::Mutex;

/// The most events that a replay reads under one lock.
const CHUNK: u64 = 32;

pub(crate) struct Log<T> {
    retention: Arc<Retention>,
    window: Mutex<Window<T>>,
}

/// A stream that has joined.
pub(super) struct Joined<T> {
    pub(super) feed: Feed<T>,
    pub(super) replay: Replay<T>,
    pub(super) welcome: Welcome,
}

/// What a log has for a stream that is behind.
pub(super) struct Excerpt<T> {
    /// Events in order, with their numbers in the channel.
    pub(super) events: VecDeque<(u64, T)>,
    /// The dropped events before these, if any.
    pub(super) missed: Option<Missed>,
    /// The number to read on from, once all of it is read.
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
                retention: retention.clone(),
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

    /// A log of a user who never had a connection; `None` if there is no room for one more.
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

    /// A log of a user without connections whose channel is held.
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
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Window<T>, &mut Discarded<T>) -> R) -> R {
        let mut discarded = Discarded::new();
        self.window.with(|window| f(window, &mut discarded))
    }

    /// Gives an event its position, has `make` make it, appends it and sends it (invariant 1), if the event's turn has come.
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
                        Self::push((window, discarded), label, (at, stamp), notice, delivery);
                    }
                    (Stamp::at(place.position.offset), Some(place.position))
                }
                Origin::Ahead { notice, weight } => {
                    let stamp = Stamp::after(progress.last);
                    if window.ahead.is_none() {
                        window.ahead = Some((notice.clone(), weight));
                        let label = Label::notice(weight);
                        Self::push((window, discarded), label, (at, stamp), notice, delivery);
                    } else {
                        discarded.push(notice);
                    }
                    (stamp, None)
                }
                Origin::Reset => {
                    let Some(upstream) = &self.retention.upstream else {
                        return Accepted::Elsewhere;
                    };
                    // Read under the lock. Outside, a slow caller could bring a horizon from before the last change, and lead
                    // the channel back into the old log.
                    let horizon = upstream.horizon();
                    if horizon.epoch == progress.epoch {
                        return Accepted::Duplicate;
                    }
                    while window.forget_oldest(discarded) {}
                    window.progress = Progress::at(horizon);
                    discarded.extend(window.ahead.take().map(|(notice, _)| notice));
                    (Stamp::at(horizon.offset), Some(horizon))
                }
            };
            let event = make(id);
            window.progress.last = stamp.offset;
            let reached = Self::push((window, discarded), label, (at, stamp), event, delivery);
            Accepted::Delivered(reached)
        })
    }

    fn push(
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
        window.keep(label.key, retained, discarded);
        delivery.send(event, label)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.with(|window, _| window.complete.is_some())
    }

    /// Calls `close` unless the log is kept for a while after the last connection has left. Under the lock: no other thread
    /// completes the channel between the check and the close.
    pub(super) fn unless_kept<R>(&self, close: impl FnOnce() -> Option<R>) -> Option<R> {
        self.with(|window, _| {
            let linger = self.retention.linger(window.complete.is_some());
            linger.is_zero().then(close).flatten()
        })
    }

    /// Notes that all that the engine's log has up to this place is here, or known to be missing.
    pub(super) fn catch_up(&self, place: Position) {
        self.with(|window, _| window.progress.catch_up(place));
    }

    /// Compares itself with the engine's log: the user's newest event there is at `newest`, and none follows up to `through`.
    pub(super) fn compare(&self, newest: Position, through: u64) -> Standing {
        self.with(|window, _| {
            if window.complete.is_some() {
                return Standing::Level;
            }
            window.progress.compare(newest, through)
        })
    }

    /// Its position in the history, if events have ids.
    pub(super) fn place(&self) -> Option<Position> {
        self.with(|window, _| self.position(window.progress, window.last_shown()))
    }

    /// The position of a stream whose next event has this number; `None` if that event is here already.
    pub(super) fn place_before(&self, next: u64) -> Option<Position> {
        self.with(|window, _| {
            if window.next != next {
                return None;
            }
            self.position(window.progress, window.last_shown())
        })
    }

    /// Joins a stream whose connection is on the roster: subscribes it to the ring and notes where it begins there, in one
    /// step (invariants 2 and 3). An id that is not of this log yields a gap.
    pub(super) fn join(self: &Arc<Self>, resume: Resume, ring: &Ring<T>) -> Joined<T> {
        self.with(|window, _| {
            window.come_back();
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
            // The cursor of a stream that gets everything stands before all of it, in case the client is cut off.
            let cursor = match resume {
                Resume::Fresh if unclaimed => self.position(progress, progress.begun),
                Resume::Start => self.position(progress, 0),
                Resume::Fresh | Resume::After(_) | Resume::Unknown => shown,
            };
            let from = match resume {
                Resume::Start => Some(beginning),
                Resume::After(position) => Some(position),
                Resume::Fresh | Resume::Unknown => cursor,
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
                        _ if self.is_own() => None,
                        Start::Log => from.zip(last),
                        Start::At(_) => from.zip(from),
                        Start::Unknown => cursor.zip(cursor),
                    },
                    notices: 0,
                    replays: next < live,
                    is_untouched: progress.last == progress.begun,
                },
            }
        })
    }

    /// Whether the history is this log's alone, and no engine's log.
    fn is_own(&self) -> bool {
        self.retention.upstream.is_none()
    }

    /// Where a stream goes on whose client was at this position, here or on another node.
    fn find(&self, window: &Window<T>, position: Position) -> Start {
        let progress = window.progress;
        let Position { epoch, offset } = position;
        if epoch != progress.epoch || self.retention.history.is_none() {
            return Start::Unknown;
        }
        if self.is_own() {
            return match offset > progress.last {
                // No client can have seen an event that was not sent yet.
                true => Start::Unknown,
                // Offsets are the numbers of the channel's events. What the window has dropped is reported when the stream
                // reads there.
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

    /// The events that are kept from `next` up to `end`, a few at a time; dropped ones are missed for this reason. With
    /// `coalesce`, the newest of each key stand for the dropped ones.
    pub(super) fn read(
        &self,
        next: u64,
        end: u64,
        reason: GapReason,
        coalesce: bool,
    ) -> Excerpt<T> {
        let now = self.retention.age().map(|_| Instant::now());
        self.with(|window, discarded| {
            window.forget_old(now, discarded);
            let first = window.first();
            if next < first {
                let mut until = end.min(first);
                let mut latest = Vec::new();
                if coalesce {
                    (latest, until) = window.latest.within(next..until, CHUNK as usize);
                }
                let progress = window.progress;
                let before = latest.first().map_or(until, |(number, _)| *number);
                // The engine's log does not have events that were shown ahead of it.
                let in_log = match self.is_own() || next <= window.dropped_between {
                    true => None,
                    false => self.position(progress, progress.dropped),
                };
                let position = match self.is_own() {
                    true => self.position(progress, before - 1),
                    // Of the dropped events, only the last one's offset is known.
                    false => in_log.filter(|_| before == first),
                };
                let missed = until - next - latest.len() as u64;
                return Excerpt {
                    missed: (missed > 0).then(|| Missed {
                        gap: Gap::new(reason, Some(missed)).at(position),
                        told: !coalesce || !window.latest.accounts_from(next),
                        in_log,
                    }),
                    events: latest.into(),
                    until,
                };
            }
            let until = end.min(next + CHUNK);
            // Both fit: what is kept is in memory.
            let range = (next - first) as usize..(until - first) as usize;
            let events = window.events.range(range).map(|entry| entry.event.clone());
            Excerpt {
                events: (next..).zip(events).collect(),
                missed: None,
                until,
            }
        })
    }

    /// Keeps the log of a user who has left, if `is_deserted` still holds. Calls `close` if it is not to linger or there is no
    /// room for it. Under the lock: no other thread completes the channel between the check and the close.
    pub(super) fn linger<R>(
        &self,
        is_deserted: impl FnOnce() -> bool,
        close: impl FnOnce() -> Option<R>,
    ) -> Option<R> {
        self.with(|window, discarded| {
            if window.away.is_some() || !is_deserted() {
                return None;
            }
            let linger = self.retention.linger(window.complete.is_some());
            if linger.is_zero() || !self.retention.away_users().take(1) {
                return close();
            }
            while !self.retention.away_bytes().take(window.bytes) {
                // This ends: an empty window takes zero bytes, which are granted.
                window.forget_oldest(discarded);
            }
            window.away = Some(Instant::now());
            None
        })
    }

    /// Forgets events that are too old, and calls `close` if the user has been away, or the channel complete, for long
    /// enough. All under the lock: no other thread completes the channel between the check and the close.
    pub(super) fn if_over<R>(&self, now: Instant, close: impl FnOnce() -> Option<R>) -> Option<R> {
        self.with(|window, discarded| {
            window.forget_old(Some(now), discarded);
            let since = window.complete.map(|completion| completion.since);
            let linger = self.retention.linger(since.is_some());
            let is_over = |since| now.saturating_duration_since(since) >= linger;
            match since.or(window.away).is_some_and(is_over) {
                true => close(),
                false => None,
            }
        })
    }

    /// Gives back the room that a user who is away takes. Called after the channel was closed or held.
    pub(crate) fn come_back(&self) {
        self.with(|window, _| window.come_back());
    }
}

/// Where a stream goes on.
enum Start {
    /// With the event of this number.
    At(u64),
    /// With what the engine's log has up to the channel's position, then with live events.
    Log,
    /// Unknown.
    Unknown,
}
