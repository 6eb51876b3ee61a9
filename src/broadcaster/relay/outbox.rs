//! What waits to be published.
//!
//! A broadcast must not wait for the network, and should hardly notice that there is one: it pushes under a short lock that
//! it shares with few other users, and wakes the task that publishes only if that sleeps. The task does not go to sleep
//! between two broadcasts that follow each other closely, so a stream of events costs no wake-ups.
//!
//! 1. A user's events are in one lane, in the order in which they were pushed.
//! 2. Where there is no room, an event is counted and not kept. What is lost of a user stands behind what was kept: as long
//!    as a lane has been full since it was emptied last, it takes nothing.
//! 3. A user's own events come in the order in which they were broadcast, on each node. One that was broadcast while the user
//!    had no channel here comes from the engine, should the user have one by then; so what is broadcast after it comes from
//!    there as well, until it has come.
//! 4. Nobody sleeps through a push. The task says that it sleeps before it looks into the lanes for the last time, and a
//!    push looks whether it does after having pushed. The lane's lock orders the two: either the task finds the event, or
//!    the push finds it asleep.
//! 5. A push comes under the lock of its channel's log. So nobody asks a log for anything under a lane's lock.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::RelayError;
use crate::id::{Seen, UserId};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Notify};

const LANES: usize = 8;
/// The most room that a lane is given again.
const SPARE_BYTES: usize = 64 << 10;
const SPARE_RECORDS: usize = 1024;

/// An event that is to be published.
pub(super) struct Outgoing {
    pub(super) user: UserId,
    pub(super) body: Bytes,
    pub(super) first: Option<Seen>,
    /// The streams here get it from the engine.
    pub(super) is_deferred: bool,
    /// Who waits for it to be accepted.
    pub(super) confirm: Option<Confirm>,
}

pub(crate) type Confirm = oneshot::Sender<()>;

/// So many of a user's events were lost that the same channel sent first, or none did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    /// `None` if nobody knows.
    pub(super) count: Option<u64>,
    pub(super) last: Option<Seen>,
}

/// What was lost of a user's events, by the channel that sent it first: its streams have seen it, and no others.
#[derive(Debug, Default)]
pub(super) struct Losses(pub(super) VecDeque<Lost>);

impl Losses {
    pub(super) fn add(&mut self, lost: Lost) {
        let channel = |lost: &Lost| lost.last.map(|last| last.channel);
        let same = self.0.iter_mut().find(|one| channel(one) == channel(&lost));
        match same {
            None => self.0.push_back(lost),
            Some(one) => {
                one.count = one.count.zip(lost.count).map(|(one, more)| one + more);
                one.last = lost.last;
            }
        }
    }
}

/// What the task takes out at once: events, and behind them what was lost.
#[derive(Default)]
pub(super) struct Haul {
    pub(super) events: Vec<Outgoing>,
    pub(super) lost: HashMap<UserId, Losses>,
}

pub(super) struct Outbox {
    lanes: [Lane; LANES],
    room: Room,
    is_asleep: AtomicBool,
    wake: Notify,
    /// Users whose events come from the engine.
    deferred: AtomicUsize,
}

/// Of a user whose events come from the engine.
#[derive(Default)]
struct Deferred {
    /// So many are not published yet.
    waiting: usize,
    /// The last one is there up to this position.
    until: u64,
}

/// How much one lane takes.
#[derive(Clone, Copy)]
struct Room {
    events: usize,
    bytes: usize,
}

/// Alone on its cache lines, like the shards of the registry.
#[repr(align(128))]
struct Lane(Mutex<Waiting>);

/// What waits in a lane.
///
/// Events are copied into one buffer: what another thread would have to free, or to count down, costs more than that.
#[derive(Default)]
struct Waiting {
    /// Of each event the user, and then what is published.
    buffer: Vec<u8>,
    records: Vec<Record>,
    confirms: VecDeque<Confirm>,
    is_full: bool,
    is_closed: bool,
    lost: HashMap<UserId, Losses>,
    deferred: HashMap<UserId, Deferred>,
}

#[derive(Clone, Copy)]
struct Record {
    user_len: usize,
    body_len: usize,
    first: Option<Seen>,
    is_deferred: bool,
    /// Whether the next of the confirms is its.
    is_confirmed: bool,
}

impl Outbox {
    pub(super) fn new(events: usize, bytes: usize) -> Self {
        Self {
            lanes: std::array::from_fn(|_| Lane(Mutex::new(Waiting::default()))),
            room: Room {
                events: events.div_ceil(LANES),
                bytes: bytes.div_ceil(LANES),
            },
            is_asleep: AtomicBool::new(false),
            wake: Notify::new(),
            deferred: AtomicUsize::new(0),
        }
    }

    fn lane(&self, hash: u64) -> &Mutex<Waiting> {
        // The registry's shards and maps use other bits.
        &self.lanes[(hash >> 56) as usize % LANES].0
    }

    /// Takes an event of this length if there is room for it; otherwise notes that it is lost. `write` writes it.
    pub(super) fn push(
        &self,
        (hash, user): (u64, &str),
        first: Option<Seen>,
        is_deferred: bool,
        confirm: Option<Confirm>,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), RelayError> {
        let pushed = self.lane(hash).with(|lane| {
            if lane.is_closed {
                return Err(RelayError::Closed);
            }
            let fits = lane.records.len() < self.room.events
                && lane.buffer.len() + user.len() + len <= self.room.bytes;
            if lane.is_full || !fits {
                lane.is_full = true;
                lane.lose(user, first);
                return Err(RelayError::QueueFull);
            }
            lane.buffer.extend_from_slice(user.as_bytes());
            let start = lane.buffer.len();
            write(&mut lane.buffer);
            lane.records.push(Record {
                user_len: user.len(),
                body_len: lane.buffer.len() - start,
                first,
                is_deferred,
                is_confirmed: confirm.is_some(),
            });
            lane.confirms.extend(confirm);
            if is_deferred {
                let deferred = lane.deferred.entry(user.into()).or_insert_with(|| {
                    self.deferred.fetch_add(1, Ordering::Relaxed);
                    Deferred::default()
                });
                deferred.waiting += 1;
            }
            Ok(())
        });
        // Of a loss the task is to learn as well, and it is to empty the lane: one that is full of a single event that has no
        // room at all has not been pushed to before.
        self.wake();
        pushed
    }

    /// Notes that an event is lost that can never be published. What the lane takes until it is emptied is lost as well,
    /// so that what is lost stands behind what is not.
    pub(super) fn lose(&self, hash: u64, user: &str, first: Option<Seen>) {
        self.lane(hash).with(|lane| {
            lane.is_full = true;
            lane.lose(user, first);
        });
        self.wake();
    }

    fn wake(&self) {
        // Relaxed: the lane's lock orders it (invariant 4).
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Takes out everything there is.
    pub(super) fn take(&self) -> Haul {
        let mut haul = Haul::default();
        for Lane(lane) in &self.lanes {
            let (buffer, records, mut confirms, lost) = lane.with(|lane| {
                // As much room again, so that it need not grow event by event.
                let room = Vec::with_capacity(lane.buffer.len().min(SPARE_BYTES));
                let buffer = Bytes::from(std::mem::replace(&mut lane.buffer, room));
                let room = Vec::with_capacity(lane.records.len().min(SPARE_RECORDS));
                let records = std::mem::replace(&mut lane.records, room);
                lane.is_full = false;
                let confirms = std::mem::take(&mut lane.confirms);
                (buffer, records, confirms, std::mem::take(&mut lane.lost))
            });
            let mut rest = buffer;
            for record in records {
                let user = rest.split_to(record.user_len);
                let user = std::str::from_utf8(&user).expect("it was copied from a `str`");
                haul.events.push(Outgoing {
                    user: user.into(),
                    body: rest.split_to(record.body_len),
                    first: record.first,
                    is_deferred: record.is_deferred,
                    confirm: record.is_confirmed.then(|| confirms.pop_front()).flatten(),
                });
            }
            haul.lost.extend(lost);
        }
        haul
    }

    fn is_empty(&self) -> bool {
        self.lanes
            .iter()
            .all(|Lane(lane)| lane.with(|lane| lane.records.is_empty() && lane.lost.is_empty()))
    }

    pub(super) fn len(&self) -> usize {
        self.lanes
            .iter()
            .map(|Lane(lane)| lane.with(|lane| lane.records.len()))
            .sum()
    }

    /// Waits until there is something.
    pub(super) async fn wait(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        if self.is_empty() {
            self.wake.notified().await;
        }
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Takes nothing from now on.
    pub(super) fn close(&self) {
        for Lane(lane) in &self.lanes {
            lane.with(|lane| lane.is_closed = true);
        }
        self.wake.notify_one();
    }

    /// Whether any user's events come from the engine. Relaxed: whoever has pushed one before sees it.
    pub(super) fn defers_any(&self) -> bool {
        self.deferred.load(Ordering::Relaxed) > 0
    }

    /// Whether this user's do, whose channel is so far in the engine's log, if there is one.
    pub(super) fn defers(&self, hash: u64, user: &str, at: Option<u64>) -> bool {
        self.defers_in(self.lane(hash), user, at)
    }

    fn defers_in(&self, lane: &Mutex<Waiting>, user: &str, at: Option<u64>) -> bool {
        lane.with(|lane| {
            let Some(deferred) = lane.deferred.get(user) else {
                return false;
            };
            let is_over = deferred.waiting == 0 && at.is_none_or(|at| at >= deferred.until);
            if is_over {
                lane.deferred.remove(user);
                self.deferred.fetch_sub(1, Ordering::Relaxed);
            }
            !is_over
        })
    }

    /// One of them is published, up to this position.
    pub(super) fn settle(&self, hash: u64, user: &UserId, position: u64) {
        self.lane(hash).with(|lane| {
            if let Some(deferred) = lane.deferred.get_mut(user) {
                deferred.waiting = deferred.waiting.saturating_sub(1);
                deferred.until = deferred.until.max(position);
            }
        });
    }

    /// Forgets those who are over. `at` says how far a user's channel is, if there is one.
    pub(super) fn forget_settled(&self, at: impl Fn(&str) -> Option<u64>) {
        for Lane(lane) in &self.lanes {
            let settled: Vec<UserId> = lane.with(|lane| {
                let deferred = lane.deferred.iter();
                let settled = deferred.filter(|(_, deferred)| deferred.waiting == 0);
                settled.map(|(user, _)| user.clone()).collect()
            });
            for user in settled {
                // Asked outside (invariant 5).
                let at = at(&user);
                self.defers_in(lane, &user, at);
            }
        }
    }
}

impl Waiting {
    fn lose(&mut self, user: &str, last: Option<Seen>) {
        let lost = Lost {
            count: Some(1),
            last,
        };
        match self.lost.get_mut(user) {
            Some(losses) => losses.add(lost),
            None => {
                let mut losses = Losses::default();
                losses.add(lost);
                self.lost.insert(user.into(), losses);
            }
        }
    }
}
