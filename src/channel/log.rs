//! What one user was sent: the last events, and the newest of each key.
//!
//! One short lock holds together what must not come apart:
//!
//! 1. An event gets its offset, is appended and is sent in one step. So the order of the offsets is the order in the ring,
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
use super::latest::Latest;
use super::ring::Feed;
use super::shared::{Accepted, Incoming, Marks, Standing};
use super::window::{Mark, Retained, Window};
use super::{Replay, Resume, Retention};
use crate::gap::{Gap, GapReason};
use crate::id::Position;
use crate::sync::Mutex;

/// The most events that a replay takes in one go.
const CHUNK: u64 = 32;

pub(crate) struct Log<T> {
    epoch: u64,
    retention: Arc<Retention>,
    window: Mutex<Window<T>>,
}

/// A stream that was let in.
pub(super) struct Joined<T> {
    pub(super) feed: Feed<T>,
    pub(super) replay: Replay<T>,
    /// What its client is to be told first.
    pub(super) gap: Option<Gap>,
    /// Where it begins.
    pub(super) cursor: Option<Position>,
    /// Up to where its client needs what the engine's log has.
    pub(super) log: Option<Position>,
}

/// What a log has for a stream that is behind.
pub(super) struct Excerpt<T> {
    /// Events in order.
    pub(super) events: VecDeque<T>,
    /// Events that come before these, and are not to be had.
    pub(super) missed: u64,
    /// Whether the client is to know of that.
    pub(super) told: bool,
    /// Where to read on, once all of it is read.
    pub(super) until: u64,
    /// The place behind those that are missed, where it has an id.
    pub(super) position: Option<Position>,
}

impl<T: Clone + Send + 'static> Log<T> {
    pub(crate) fn new(retention: Arc<Retention>) -> Arc<Self> {
        Arc::new(Self {
            epoch: Position::new_epoch(),
            window: Mutex::new(Window {
                next: 1,
                events: VecDeque::new(),
                bytes: 0,
                counters: retention.counters.clone(),
                latest: Latest::new(retention.keys),
                away: None,
                unclaimed: false,
                marks: retention
                    .upstream
                    .as_ref()
                    .map(|up| Marks::at(up.horizon())),
                dropped_between: 0,
                apart: None,
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

    /// The epoch of its events' ids, if they get any: its own, or that of the engine's log.
    pub(super) fn id_epoch(&self) -> Option<u64> {
        match &self.retention.upstream {
            Some(_) => self.place().map(|place| place.epoch),
            None => self.retention.history.map(|_| self.epoch),
        }
    }

    /// The place behind the event of this offset. Where ids are sent: only where there is a history that they could be
    /// looked up in.
    fn position(&self, offset: u64) -> Option<Position> {
        self.retention.history.map(|_| Position {
            epoch: self.epoch,
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

    /// Gives an event its offset, appends it, and sends it (invariant 1). Not for a channel in an engine's log.
    pub(super) fn append(
        &self,
        size: usize,
        key: Option<&str>,
        make: impl FnOnce(Option<Position>) -> T,
        send: impl FnOnce(T) -> usize,
    ) -> usize {
        let now = self.now();
        self.with(|window, discarded| {
            let event = make(self.position(window.next));
            self.push((window, discarded), (size, key), (now, None), event, send)
        })
    }

    /// Appends and sends an event of the engine's log, if it is its turn. If something was [shown](Self::show) before it, the
    /// notice of the gap comes first, and is counted by `count`.
    pub(super) fn take(
        &self,
        incoming: Incoming,
        (size, key): (usize, Option<&str>),
        make: impl FnOnce(Position) -> T,
        count: impl FnOnce(),
        mut send: impl FnMut(T) -> usize,
    ) -> Accepted {
        let now = self.now();
        self.with(|window, discarded| {
            let place = incoming.position;
            let Some(marks) = window.marks.as_mut().filter(|at| at.epoch == place.epoch) else {
                return Accepted::Elsewhere;
            };
            if place.offset <= marks.last {
                return Accepted::Duplicate;
            }
            if incoming.previous > marks.last {
                return Accepted::OutOfOrder;
            }
            let before = (marks.last, true);
            marks.last = place.offset;
            if let Some((size, notice)) = window.apart.take() {
                count();
                let sized = (size, None);
                self.push(
                    (window, discarded),
                    sized,
                    (now, Some(before)),
                    notice,
                    &mut send,
                );
            }
            let event = make(place);
            let at = (now, Some((place.offset, false)));
            Accepted::Delivered(self.push((window, discarded), (size, key), at, event, send))
        })
    }

    /// Sends an event that the engine's log has not returned, and keeps it behind what the log has returned. A notice of a gap
    /// stands before the first such event, and is kept for [`take`](Self::take) to send behind the last.
    pub(super) fn show(
        &self,
        (size, key): (usize, Option<&str>),
        event: T,
        notice: (usize, T),
        count: impl FnOnce(),
        mut send: impl FnMut(T) -> usize,
    ) {
        let now = self.now();
        self.with(|window, discarded| {
            let at = (now, window.marks.map(|marks| (marks.last, true)));
            if window.apart.is_none() {
                count();
                let (size, first) = notice.clone();
                window.apart = Some(notice);
                self.push((window, discarded), (size, None), at, first, &mut send);
            }
            self.push((window, discarded), (size, key), at, event, send);
        });
    }

    /// What comes next in the engine's log is missing, up to this place: appends and sends what says so. Nothing, if the
    /// channel is there already.
    pub(super) fn skip(
        &self,
        until: Position,
        size: usize,
        make: impl FnOnce(Position) -> T,
        count: impl FnOnce(),
        send: impl FnMut(T) -> usize,
    ) {
        let incoming = Incoming {
            position: until,
            previous: 0,
        };
        self.take(incoming, (size, None), make, count, send);
    }

    /// The engine's log has nothing up to this place that is not here, or known to be missing.
    pub(super) fn catch_up(&self, place: Position) {
        self.with(|window, _| {
            if let Some(marks) = window.marks.as_mut().filter(|at| at.epoch == place.epoch) {
                marks.last = marks.last.max(place.offset);
            }
        });
    }

    /// Compares itself with the end of the user's log, which has nothing between `newest` and `through`.
    pub(super) fn compare(&self, newest: Position, through: u64) -> Standing {
        self.with(|window, _| match &mut window.marks {
            Some(marks) if marks.epoch == newest.epoch => {
                if newest.offset > marks.last {
                    return Standing::Behind;
                }
                marks.last = marks.last.max(through);
                Standing::Level
            }
            _ => Standing::Elsewhere,
        })
    }

    /// If the engine's log is another one than this is in, goes over to it: what is here of the old one is dropped, and
    /// `make` says so to the streams.
    pub(super) fn follow(
        &self,
        size: usize,
        make: impl FnOnce(Position) -> T,
        send: impl FnOnce(T) -> usize,
    ) {
        let Some(upstream) = &self.retention.upstream else {
            return;
        };
        let now = self.now();
        self.with(|window, discarded| {
            // Asked under the lock. Outside, a slow caller could bring an answer from before the last change, and lead the
            // channel back into the old log.
            let horizon = upstream.horizon();
            if window
                .marks
                .is_none_or(|marks| marks.epoch == horizon.epoch)
            {
                return;
            }
            while window.forget_oldest(&self.retention, discarded) {}
            window.marks = Some(Marks::at(horizon));
            window.apart = None;
            let event = make(horizon);
            self.push(
                (window, discarded),
                (size, None),
                (now, Some((horizon.offset, false))),
                event,
                send,
            );
        });
    }

    /// Where it is in the engine's log, if it is in one.
    pub(super) fn place(&self) -> Option<Position> {
        self.with(|window, _| window.marks.map(|marks| marks.position(marks.last)))
    }

    /// Where a stream is that goes on with the event of this offset, unless there is one already.
    pub(super) fn place_before(&self, next: u64) -> Option<Position> {
        self.with(|window, _| {
            if window.next != next {
                return None;
            }
            let marks = window.marks.map(|marks| marks.position(marks.last));
            marks.or_else(|| self.position(next - 1))
        })
    }

    fn push(
        &self,
        (window, discarded): (&mut Window<T>, &mut Discarded<T>),
        (size, key): (usize, Option<&str>),
        (at, mark): (Option<Instant>, Option<Mark>),
        event: T,
        send: impl FnOnce(T) -> usize,
    ) -> usize {
        let entry = Retained {
            event: event.clone(),
            size,
            at,
            mark,
        };
        window.keep(key, entry, &self.retention, discarded);
        send(event)
    }

    fn now(&self) -> Option<Instant> {
        self.retention.age().map(|_| Instant::now())
    }

    /// Lets a stream in, which was counted before: `subscribe` takes its receiving side, and where that begins is noted in
    /// the same step (invariants 2 and 3). Where the stream comes back with an id that is none of this log, that is said.
    pub(super) fn join(
        self: &Arc<Self>,
        resume: Resume,
        subscribe: impl FnOnce() -> Feed<T>,
    ) -> Joined<T> {
        self.with(|window, _| {
            window.come_back(&self.retention);
            let feed = subscribe();
            let live = window.next;
            let unclaimed = std::mem::take(&mut window.unclaimed);
            let start = match resume {
                Resume::Fresh if unclaimed => Start::At(1),
                Resume::Fresh => Start::At(live),
                Resume::After(position) => self.find(window, position),
                Resume::Unknown => Start::Unknown,
            };
            // Who is given everything has yet to get it, and comes back from before it if cut off until then.
            let gets_all = unclaimed && resume == Resume::Fresh;
            let cursor = match (window.marks, gets_all) {
                (Some(marks), true) => Some(marks.position(marks.begun)),
                (Some(marks), false) => Some(marks.position(marks.last)),
                (None, true) => self.position(0),
                (None, false) => self.position(live - 1),
            };
            let next = match start {
                Start::At(next) => next,
                Start::Log | Start::Unknown => live,
            };
            let last = window.marks.map(|marks| marks.position(marks.last));
            let unknown = matches!(start, Start::Unknown);
            Joined {
                feed,
                replay: Replay::new(self.clone(), next, live),
                gap: unknown.then_some(Gap {
                    reason: GapReason::Epoch,
                    missed: None,
                    position: cursor,
                }),
                cursor,
                log: match (start, resume) {
                    (Start::Log, _) => last,
                    (Start::At(_), Resume::After(position)) => last.map(|_| position),
                    _ => None,
                },
            }
        })
    }

    /// Where a stream goes on that has been here before, or on another node.
    fn find(&self, window: &Window<T>, position: Position) -> Start {
        let live = window.next;
        let Some(marks) = window.marks else {
            let is_ours = self.retention.history.is_some()
                && position.epoch == self.epoch
                && position.offset < live;
            return if is_ours {
                Start::At(position.offset + 1)
            } else {
                Start::Unknown
            };
        };
        if position.epoch != marks.epoch {
            return Start::Unknown;
        }
        if position.offset < marks.dropped {
            return Start::Log;
        }
        let first = live - window.events.len() as u64;
        Start::At(first + window.behind(position.offset))
    }

    /// What there is of the events from `next` up to `end`, a few at a time. With `coalesce`, the newest of each key stand
    /// for what is gone.
    pub(super) fn read(&self, next: u64, end: u64, coalesce: bool) -> Excerpt<T> {
        let now = self.retention.age().map(|_| Instant::now());
        self.with(|window, discarded| {
            window.forget_old(now, &self.retention, discarded);
            let first = window.next - window.events.len() as u64;
            if next < first {
                let mut until = end.min(first);
                let mut latest = Vec::new();
                if coalesce {
                    (latest, until) = window.latest.within(next..until, CHUNK as usize);
                }
                let position = match window.marks {
                    None => None,
                    // A stream that has read the log up to there lacks events that were shown meanwhile.
                    Some(_) if next <= window.dropped_between => None,
                    Some(marks) if until == first => Some(marks.position(marks.dropped)),
                    Some(_) => None,
                };
                let shared = window.marks.is_some();
                let before = latest.first().map_or(until, |(offset, _)| *offset);
                return Excerpt {
                    missed: until - next - latest.len() as u64,
                    told: !coalesce || !window.latest.accounts_from(next),
                    position: match shared {
                        true => position.filter(|_| latest.is_empty()),
                        // What is left of the stretch is still to come.
                        false => self.position(before - 1),
                    },
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
                missed: 0,
                told: false,
                until,
                position: None,
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
            if !self.retention.away_users().take(1) {
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

    /// Forgets events that are too old, and says whether the user has been away for too long.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.with(|window, discarded| {
            window.forget_old(Some(now), &self.retention, discarded);
            let linger = self.retention.linger();
            window
                .away
                .is_some_and(|since| now.saturating_duration_since(since) >= linger)
        })
    }

    /// Gives back what a user who is away takes. Called by whoever has closed the channel, after that.
    pub(crate) fn close(&self) {
        self.with(|window, _| window.come_back(&self.retention));
    }
}

/// Where a stream goes on.
enum Start {
    /// With the event of this offset.
    At(u64),
    /// With what the engine's log has up to here, then with what comes.
    Log,
    /// Nobody can say.
    Unknown,
}
