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
use super::kept::{Entry, State};
use super::latest::Latest;
use super::ring::Feed;
use super::shared::{Head, Incoming, Mark, Marks, Taken};
use super::{Replay, Resume, Retention};
use crate::gap::{Gap, GapReason};
use crate::id::{Position, Seen};
use crate::sync::Mutex;

/// The most events that a replay takes in one go.
const CHUNK: u64 = 32;

pub(crate) struct Log<T> {
    epoch: u64,
    retention: Arc<Retention>,
    state: Mutex<State<T>>,
}

/// A stream that was let in.
pub(super) struct Joined<T> {
    pub(super) feed: Feed<T>,
    pub(super) replay: Replay<T>,
    /// What its client is to be told first.
    pub(super) gap: Option<Gap>,
    /// Where it begins.
    pub(super) cursor: Option<Position>,
    /// The engine is to be asked for what comes before that.
    pub(super) asks: bool,
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
            state: Mutex::new(State {
                next: 1,
                kept: VecDeque::new(),
                bytes: 0,
                counters: retention.counters.clone(),
                latest: Latest::new(retention.keys),
                away: None,
                unclaimed: false,
                marks: retention.upstream.as_ref().map(|up| Marks::at(up.head())),
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
        log.with(|state, _| {
            state.away = Some(Instant::now());
            state.unclaimed = true;
        });
        Some(log)
    }

    /// What the log is known by: in the ids of its events or, where several nodes have the history in common, beside the
    /// engine's epoch in them.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the ids of its events begin with, if they get any: an epoch and, where several nodes have the history in common,
    /// the channel.
    pub(super) fn id_prefix(&self) -> Option<(u64, Option<u64>)> {
        match &self.retention.upstream {
            Some(upstream) => Some((upstream.epoch(), Some(self.epoch))),
            None => self.retention.history.map(|_| (self.epoch, None)),
        }
    }

    /// The place behind the event of this offset. Where ids are sent: only where there is a history that they could be
    /// looked up in.
    fn position(&self, offset: u64) -> Option<Position> {
        self.retention.history.map(|_| Position {
            epoch: self.epoch,
            offset,
            own: None,
            settled: false,
        })
    }

    pub(super) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Runs `f` under the lock. What it discards is dropped after that.
    fn with<R>(&self, f: impl FnOnce(&mut State<T>, &mut Discarded<T>) -> R) -> R {
        let mut discarded = Discarded::new();
        self.state.with(|state| f(state, &mut discarded))
    }

    /// Gives an event its offset, appends it, and sends it (invariant 1).
    pub(super) fn append(
        &self,
        size: usize,
        key: Option<&str>,
        make: impl FnOnce(Option<Position>) -> T,
        send: impl FnOnce(T) -> usize,
    ) -> usize {
        let now = self.now();
        self.with(|state, discarded| {
            let mut mark = None;
            if let Some(marks) = &mut state.marks {
                marks.last.own += 1;
                mark = Some((marks.last, true));
            }
            let event = make(self.place(state));
            self.push((state, discarded), (size, key), (now, mark), event, send)
        })
    }

    /// Appends and sends an event that the engine sends, if it is its turn. `echo` says which of the events that were sent
    /// here first it is, if it is one.
    pub(super) fn take(
        &self,
        incoming: Incoming,
        echo: Option<u64>,
        (size, key): (usize, Option<&str>),
        make: impl FnOnce(Option<Position>) -> T,
        send: impl FnOnce(T) -> usize,
    ) -> Taken {
        let now = self.now();
        self.with(|state, discarded| {
            let Some(marks) = &mut state.marks else {
                return Taken::Again;
            };
            if incoming.position <= marks.last.remote {
                return Taken::Again;
            }
            if incoming.previous > marks.last.remote {
                return Taken::Early(marks.last.remote);
            }
            marks.last.remote = incoming.position;
            if let Some(count) = echo {
                marks.confirmed = marks.confirmed.max(count);
                return Taken::Echo;
            }
            let mark = Some((marks.last, true));
            let event = make(self.place(state));
            Taken::Sent(self.push((state, discarded), (size, key), (now, mark), event, send))
        })
    }

    /// The engine has nothing up to this position that is not here, or cannot be had.
    pub(super) fn catch_up(&self, position: u64) {
        self.with(|state, _| {
            if let Some(marks) = &mut state.marks {
                marks.last.remote = marks.last.remote.max(position);
            }
        });
    }

    /// Appends and sends something that is no event.
    pub(super) fn note(
        &self,
        size: usize,
        make: impl FnOnce(Option<Position>) -> T,
        send: impl FnOnce(T) -> usize,
    ) -> usize {
        let now = self.now();
        self.with(|state, discarded| {
            let mark = state.marks.map(|marks| (marks.last, false));
            let offset = state.next;
            let place = self.place(state).or_else(|| self.position(offset));
            let event = make(place);
            self.push((state, discarded), (size, None), (now, mark), event, send)
        })
    }

    /// The engine's log is another one. What is here of the old one is dropped, and `make` says so.
    pub(super) fn reset(
        &self,
        head: Head,
        make: impl FnOnce(Option<Position>) -> T,
        send: impl FnOnce(T) -> usize,
    ) {
        let now = self.now();
        self.with(|state, discarded| {
            let Some(mut marks) = state.marks else {
                return;
            };
            if marks.epoch == head.epoch {
                return;
            }
            // Before the marks are anew: whatever is forgotten leaves its own.
            while state.forget_first(&self.retention, discarded) {}
            marks.epoch = head.epoch;
            marks.last.remote = head.position;
            marks.dropped = marks.last;
            marks.confirmed = marks.last.own;
            marks.begun = marks.last;
            state.marks = Some(marks);
            let mark = Some((marks.last, false));
            let event = make(self.place(state));
            self.push((state, discarded), (1, None), (now, mark), event, send);
        });
    }

    /// How far the log is in the engine's.
    pub(super) fn remote(&self) -> u64 {
        self.with(|state, _| state.marks.map_or(0, |marks| marks.last.remote))
    }

    /// The id of the event that is appended next, where `append` has raised the mark already.
    fn place(&self, state: &State<T>) -> Option<Position> {
        match state.marks {
            Some(marks) => Some(self.shared_position(&marks, marks.last)),
            None => self.position(state.next),
        }
    }

    fn shared_position(&self, marks: &Marks, mark: Mark) -> Position {
        Position {
            epoch: marks.epoch,
            offset: mark.remote,
            own: Some(Seen {
                channel: self.epoch,
                count: mark.own,
            }),
            settled: mark == marks.last && marks.confirmed >= mark.own,
        }
    }

    fn push(
        &self,
        (state, discarded): (&mut State<T>, &mut Discarded<T>),
        (size, key): (usize, Option<&str>),
        (at, mark): (Option<Instant>, Option<(Mark, bool)>),
        event: T,
        send: impl FnOnce(T) -> usize,
    ) -> usize {
        let entry = Entry {
            event: event.clone(),
            size,
            at,
            mark,
        };
        state.keep(key, entry, &self.retention, discarded);
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
        self.with(|state, _| {
            state.come_back(&self.retention);
            let feed = subscribe();
            let live = state.next;
            let unclaimed = std::mem::take(&mut state.unclaimed);
            let start = match resume {
                Resume::Fresh if unclaimed => Start::At(1),
                Resume::Fresh => Start::At(live),
                Resume::After(position) => self.find(state, position),
                Resume::Unknown => Start::Unknown,
            };
            // Who is given everything has yet to get it, and comes back from before it if cut off until then.
            let gets_all = unclaimed && resume == Resume::Fresh;
            let cursor = match (state.marks, gets_all) {
                (Some(marks), true) => Some(self.shared_position(&marks, marks.begun)),
                (Some(marks), false) => Some(self.shared_position(&marks, marks.last)),
                (None, true) => self.position(0),
                (None, false) => self.position(live - 1),
            };
            let next = match start {
                Start::At(next) | Start::Ask(next) => next,
                Start::Unknown => live,
            };
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
                asks: matches!(start, Start::Ask(_)),
            }
        })
    }

    /// Where a stream goes on that has been here before, or on another node.
    fn find(&self, state: &State<T>, position: Position) -> Start {
        let live = state.next;
        let Some(marks) = state.marks else {
            let is_ours = self.retention.history.is_some()
                && position.epoch == self.epoch
                && position.own.is_none()
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
        let first = live - state.kept.len() as u64;
        let mark = position.own.filter(|own| own.channel == self.epoch);
        let mark = mark.map(|own| Mark {
            remote: position.offset,
            own: own.count,
        });
        if let Some(mark) = mark {
            if mark.remote > marks.last.remote || mark.own > marks.last.own {
                return Start::Unknown;
            }
            if mark >= marks.dropped {
                return Start::At(first + state.behind(mark));
            }
        }
        // The events that were sent here first and are not in the engine yet cannot be had from there.
        let is_confirmed = |entry: &Entry<T>| {
            let own = entry.mark.map_or(0, |(mark, _)| mark.own);
            own <= marks.confirmed
        };
        let confirmed = state.kept.partition_point(is_confirmed);
        Start::Ask(first + confirmed as u64)
    }

    /// What there is of the events from `next` up to `end`, a few at a time. With `coalesce`, the newest of each key stand
    /// for what is gone.
    pub(super) fn read(&self, next: u64, end: u64, coalesce: bool) -> Excerpt<T> {
        let now = self.retention.age().map(|_| Instant::now());
        self.with(|state, discarded| {
            state.forget_old(now, &self.retention, discarded);
            let first = state.next - state.kept.len() as u64;
            if next < first {
                let mut until = end.min(first);
                let mut latest = Vec::new();
                if coalesce {
                    (latest, until) = state.latest.within(next..until, CHUNK as usize);
                }
                let position = match state.marks {
                    None => None,
                    Some(marks) if until == first => {
                        Some(self.shared_position(&marks, marks.dropped))
                    }
                    Some(_) => None,
                };
                let shared = state.marks.is_some();
                let before = latest.first().map_or(until, |(offset, _)| *offset);
                return Excerpt {
                    missed: until - next - latest.len() as u64,
                    told: !coalesce || !state.latest.accounts_from(next),
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
            let events = state.kept.range(range).map(|entry| entry.event.clone());
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
        self.with(|state, discarded| {
            if state.away.is_some() || !is_deserted() {
                return true;
            }
            if !self.retention.away_users().take(1) {
                return false;
            }
            while !self.retention.away_bytes().take(state.bytes) {
                // With nothing left it asks for nothing, and gets it.
                state.forget_oldest(&self.retention, discarded);
            }
            state.away = Some(Instant::now());
            true
        })
    }

    /// Forgets events that are too old, and says whether the user has been away for too long.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.with(|state, discarded| {
            state.forget_old(Some(now), &self.retention, discarded);
            let linger = self.retention.linger();
            state
                .away
                .is_some_and(|since| now.saturating_duration_since(since) >= linger)
        })
    }

    /// Gives back what a user who is away takes. Called by whoever has closed the channel, after that.
    pub(crate) fn close(&self) {
        self.with(|state, _| state.come_back(&self.retention));
    }
}

/// Where a stream goes on.
enum Start {
    /// With the event of this offset.
    At(u64),
    /// With what the engine has, and then with the event of this offset.
    Ask(u64),
    /// Nobody can say.
    Unknown,
}
