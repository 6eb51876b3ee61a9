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
//! Held for some tens of nanoseconds: nothing is encoded in it, and a replay takes a few events at a time. The same user's
//! broadcasts and streams meet here, users do not meet each other.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::latest::Latest;
use super::{Replay, Resume, Retention};
use crate::gap::{Gap, GapReason};
use crate::id::Position;
use crate::metrics::Counters;
use crate::sync::{Feed, Mutex};

/// The most events that a replay takes in one go.
const CHUNK: u64 = 32;

pub(crate) struct Log<T> {
    epoch: u64,
    retention: Arc<Retention>,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// The offset of the next event. Those that are kept are the ones before it.
    next: u64,
    kept: VecDeque<Entry<T>>,
    /// The sizes of those that are kept. They are in `history_bytes` of the counters as well, until the log is dropped.
    bytes: usize,
    counters: Arc<Counters>,
    latest: Latest<T>,
    /// Since when nobody is in. While it is set, a place for a user and `bytes` are taken of the room for those.
    away: Option<Instant>,
    /// Nobody has ever been in: the first one gets everything.
    unclaimed: bool,
}

struct Entry<T> {
    event: T,
    size: usize,
    /// When it was appended; known only where events grow too old.
    at: Option<Instant>,
}

/// What a log has for a stream that is behind.
pub(super) struct Excerpt<T> {
    /// Events in order, each with its offset.
    pub(super) events: VecDeque<(u64, T)>,
    /// Events that come before these, and are not to be had.
    pub(super) missed: u64,
    /// Whether the client is to know of that.
    pub(super) told: bool,
    /// Where to read on, once all of it is read.
    pub(super) until: u64,
}

impl<T: Clone + Send + 'static> Log<T> {
    pub(crate) fn new(retention: Arc<Retention>) -> Arc<Self> {
        Arc::new(Self {
            epoch: Position::new_epoch(),
            state: Mutex::new(State {
                next: 1,
                kept: VecDeque::new(),
                bytes: 0,
                counters: retention.counters.clone(),
                latest: Latest::new(retention.keys),
                away: None,
                unclaimed: false,
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
        log.state.with(|state| {
            state.away = Some(Instant::now());
            state.unclaimed = true;
        });
        Some(log)
    }

    /// Where ids are sent: only where there is a history that they could be looked up in.
    pub(crate) fn position(&self, offset: u64) -> Option<Position> {
        let epoch = self.epoch()?;
        Some(Position { epoch, offset })
    }

    pub(super) fn epoch(&self) -> Option<u64> {
        self.retention.history.map(|_| self.epoch)
    }

    pub(super) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Gives an event its offset, appends it, and sends it (invariant 1).
    pub(super) fn append(
        &self,
        size: usize,
        key: Option<&str>,
        make: impl FnOnce(Option<Position>) -> T,
        send: impl FnOnce(T) -> usize,
    ) -> usize {
        let now = self.retention.age().map(|_| Instant::now());
        self.state.with(|state| {
            let offset = state.next;
            let event = make(self.position(offset));
            state.next += 1;
            if self.retention.keys > 0 {
                state.latest.note(offset, key, &event);
            }
            let entry = Entry {
                event: event.clone(),
                size,
                at: now,
            };
            state.keep(entry, &self.retention);
            send(event)
        })
    }

    /// Lets a stream in, which was counted before: `subscribe` takes its receiving side, and where that begins is noted in
    /// the same step (invariants 2 and 3). Where the stream comes back with an id that is none of this log, that is said.
    pub(super) fn join(
        self: &Arc<Self>,
        resume: Resume,
        subscribe: impl FnOnce() -> Feed<T>,
    ) -> (Feed<T>, Replay<T>, Option<Gap>) {
        self.state.with(|state| {
            state.come_back(&self.retention);
            let feed = subscribe();
            let live = state.next;
            let unclaimed = std::mem::take(&mut state.unclaimed);
            let known = |position: Position| {
                let is_ours = Some(position.epoch) == self.epoch() && position.offset < live;
                is_ours.then(|| position.offset + 1)
            };
            let next = match resume {
                Resume::Fresh if unclaimed => Some(1),
                Resume::Fresh => Some(live),
                Resume::After(position) => known(position),
                Resume::Unknown => None,
            };
            let gap = next.is_none().then(|| Gap {
                reason: GapReason::Epoch,
                missed: None,
                position: self.position(live - 1),
            });
            let replay = Replay::new(self.clone(), next.unwrap_or(live), live);
            (feed, replay, gap)
        })
    }

    /// What there is of the events from `next` up to `end`, a few at a time. With `coalesce`, the newest of each key stand
    /// for what is gone.
    pub(super) fn read(&self, next: u64, end: u64, coalesce: bool) -> Excerpt<T> {
        let now = self.retention.age().map(|_| Instant::now());
        self.state.with(|state| {
            state.forget_old(now, &self.retention);
            let first = state.next - state.kept.len() as u64;
            if next < first {
                let until = end.min(first);
                let gone = next..until;
                let latest = if coalesce {
                    state.latest.within(&gone)
                } else {
                    Vec::new()
                };
                return Excerpt {
                    missed: until - next - latest.len() as u64,
                    told: !coalesce || !state.latest.accounts_from(next),
                    events: latest.into(),
                    until,
                };
            }
            let until = end.min(next + CHUNK);
            // Both fit: what is kept is in memory.
            let range = (next - first) as usize..(until - first) as usize;
            let events = state.kept.range(range).map(|entry| entry.event.clone());
            Excerpt {
                events: (next..).zip(events).collect(),
                missed: 0,
                told: false,
                until,
            }
        })
    }

    /// Keeps the log of a user who has gone, if `is_deserted` says that nobody is in; `false` if there is no room for it,
    /// and the channel is to be closed.
    pub(super) fn linger(&self, is_deserted: impl FnOnce() -> bool) -> bool {
        self.state.with(|state| {
            if state.away.is_some() || !is_deserted() {
                return true;
            }
            if !self.retention.away_users().take(1) {
                return false;
            }
            while !self.retention.away_bytes().take(state.bytes) {
                // With nothing left it asks for nothing, and gets it.
                state.forget_first(&self.retention);
            }
            state.away = Some(Instant::now());
            true
        })
    }

    /// Forgets events that are too old, and says whether the user has been away for too long.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.state.with(|state| {
            state.forget_old(Some(now), &self.retention);
            let linger = self.retention.linger();
            state
                .away
                .is_some_and(|since| now.saturating_duration_since(since) >= linger)
        })
    }

    /// Gives back what a user who is away takes. Called by whoever has closed the channel, after that.
    pub(crate) fn close(&self) {
        self.state.with(|state| state.come_back(&self.retention));
    }
}

impl<T> State<T> {
    fn keep(&mut self, entry: Entry<T>, retention: &Retention) {
        let Some(history) = retention.history else {
            return;
        };
        if entry.size > history.bytes || history.events == 0 {
            // Those before it cannot stay either: what is kept has no holes.
            while self.forget_first(retention) {}
            return;
        }
        while self.kept.len() >= history.events || self.bytes > history.bytes - entry.size {
            self.forget_first(retention);
        }
        if self.away.is_some() {
            while !retention.away_bytes().take(entry.size) {
                if !self.forget_first(retention) {
                    return;
                }
            }
        }
        self.bytes += entry.size;
        self.counters.history_bytes.add(entry.size as u64);
        self.kept.push_back(entry);
    }

    fn forget_first(&mut self, retention: &Retention) -> bool {
        let Some(entry) = self.kept.pop_front() else {
            return false;
        };
        self.bytes -= entry.size;
        self.counters.history_bytes.sub(entry.size as u64);
        if self.away.is_some() {
            retention.away_bytes().give_back(entry.size);
        }
        true
    }

    fn forget_old(&mut self, now: Option<Instant>, retention: &Retention) {
        let (Some(now), Some(age)) = (now, retention.age()) else {
            return;
        };
        let is_old = |entry: &Entry<T>| {
            entry
                .at
                .is_some_and(|at| now.saturating_duration_since(at) > age)
        };
        while self.kept.front().is_some_and(is_old) {
            self.forget_first(retention);
        }
    }

    /// The user is not away any more.
    fn come_back(&mut self, retention: &Retention) {
        if self.away.take().is_some() {
            retention.away_bytes().give_back(self.bytes);
            retention.away_users().give_back(1);
        }
    }
}

impl<T> Drop for State<T> {
    fn drop(&mut self) {
        self.counters.history_bytes.sub(self.bytes as u64);
    }
}
