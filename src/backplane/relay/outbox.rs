//! What waits to be published.
//!
//! A broadcast must not wait for the network, and should hardly notice that there is one: it pushes under a short lock that
//! it shares with few other users, and wakes the task that publishes only if that sleeps. The task does not go to sleep
//! between two broadcasts that follow each other closely, so a stream of events costs no wake-ups.
//!
//! 1. A user's events are in one shard, in the order in which they were pushed.
//! 2. Where there is no room, an event is counted and not kept. The count stands after the events that were kept before it
//!    and before those that are kept later: once a user has lost an event, the user's next ones are lost as well, until the
//!    task has taken the count. An event that can never be published is a record of its own instead, if there is room for that.
//! 3. Room is taken by a push, and given back when the event was published or given up: what the task has taken counts as
//!    well. One user takes at most half of a shard.
//! 4. Nobody sleeps through a push. The task says that it sleeps before it looks into the shards for the last time, and a
//!    push looks whether it does after having pushed. The shard's lock orders the two: either the task finds the event, or
//!    the push finds it asleep.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::RelayError;
use crate::id::UserId;
use crate::sync::{AtomicBool, Mutex, Notify};

const SHARDS: usize = 8;
/// Users that share an account of their room. More accounts make it rarer that a user has no room because of another.
const SHARES: usize = 64;
/// The most room that a shard is given again.
const SPARE_BYTES: usize = 64 << 10;
const SPARE_RECORDS: usize = 1024;

/// An event that is to be published.
pub(super) struct Outgoing {
    pub(super) body: Bytes,
    pub(super) place: Room,
    /// The caller that waits for the outcome.
    pub(super) confirm: Option<Confirm>,
}

pub(crate) type Confirm = oneshot::Sender<Result<(), RelayError>>;

/// What the task takes out at once: each user's events in order, nothing where one can never be published, and after them how
/// many more the user has lost.
#[derive(Default)]
pub(super) struct Drained {
    pub(super) events: Vec<(UserId, Option<Outgoing>)>,
    pub(super) lost: HashMap<UserId, u64>,
}

pub(super) struct Outbox {
    shards: [Shard; SHARDS],
    limit: Used,
    is_asleep: AtomicBool,
    wake: Notify,
}

/// How much is used, or may be.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    events: usize,
    bytes: usize,
}

impl Used {
    fn has_room(self, bytes: usize, limit: Self) -> bool {
        self.events < limit.events && self.bytes + bytes <= limit.bytes
    }

    fn add(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    fn sub(&mut self, bytes: usize) {
        self.events -= 1;
        self.bytes -= bytes;
    }
}

/// The room that an event takes, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    shard: usize,
    share: usize,
    bytes: usize,
}

impl Room {
    fn of(hash: u64, bytes: usize) -> Self {
        Self {
            // The registry's shards and maps use other bits.
            shard: (hash >> 56) as usize % SHARDS,
            share: (hash >> 48) as usize % SHARES,
            bytes,
        }
    }
}

/// Alone on its cache lines, like the shards of the registry.
#[repr(align(128))]
struct Shard(Mutex<Queue>);

/// What waits in a shard.
///
/// Events are copied into one buffer: what another thread would have to free, or to count down, costs more than that.
struct Queue {
    /// Of each event the user, and then what is published.
    buffer: Vec<u8>,
    records: Vec<Record>,
    confirms: VecDeque<Confirm>,
    lost: HashMap<UserId, u64>,
    used: Used,
    shares: Box<[Used]>,
    is_closed: bool,
}

#[derive(Clone, Copy)]
struct Record {
    user_len: usize,
    /// Nothing: the event was lost.
    body_len: Option<usize>,
    place: Room,
    /// Whether the next of the confirms is its.
    is_confirmed: bool,
}

impl Outbox {
    pub(super) fn new(events: usize, bytes: usize) -> Self {
        let shard = || Queue {
            buffer: Vec::new(),
            records: Vec::new(),
            confirms: VecDeque::new(),
            lost: HashMap::new(),
            used: Used::default(),
            shares: vec![Used::default(); SHARES].into(),
            is_closed: false,
        };
        Self {
            shards: std::array::from_fn(|_| Shard(Mutex::new(shard()))),
            limit: Used {
                events: events.div_ceil(SHARDS),
                bytes: bytes.div_ceil(SHARDS),
            },
            is_asleep: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    fn shard(&self, place: Room) -> &Mutex<Queue> {
        &self.shards[place.shard].0
    }

    /// Takes an event of this length if there is room for it; otherwise counts it as lost. `write` writes it.
    pub(super) fn push(
        &self,
        user: (u64, &str),
        confirm: Option<Confirm>,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), RelayError> {
        self.put(user, confirm, len, |buffer| {
            let start = buffer.len();
            write(buffer);
            Some(buffer.len() - start)
        })
    }

    /// Takes that an event is lost, since it can never be published. Without room for that, it is counted.
    pub(super) fn lose(&self, user: (u64, &str)) {
        let _ = self.put(user, None, 0, |_| None);
    }

    fn put(
        &self,
        (hash, user): (u64, &str),
        confirm: Option<Confirm>,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
    ) -> Result<(), RelayError> {
        let place = Room::of(hash, user.len() + len);
        let pushed = self.shard(place).with(|shard| {
            if shard.is_closed {
                return Err(RelayError::Closed);
            }
            if !shard.has_room(place, self.limit) || shard.has_lost(user) {
                shard.lose(user);
                return Err(RelayError::QueueFull);
            }
            shard.used.add(place.bytes);
            shard.shares[place.share].add(place.bytes);
            shard.buffer.extend_from_slice(user.as_bytes());
            let body_len = write(&mut shard.buffer);
            shard.records.push(Record {
                user_len: user.len(),
                body_len,
                place,
                is_confirmed: confirm.is_some(),
            });
            shard.confirms.extend(confirm);
            Ok(())
        });
        // Of a loss the task is to learn as well.
        self.wake();
        pushed
    }

    /// Gives the room of an event back.
    pub(super) fn give_back(&self, place: Room) {
        self.shard(place).with(|shard| {
            shard.used.sub(place.bytes);
            shard.shares[place.share].sub(place.bytes);
        });
    }

    fn wake(&self) {
        // Relaxed: the shard's lock orders it (invariant 4).
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Takes out everything there is.
    pub(super) fn drain(&self) -> Drained {
        let mut drained = Drained::default();
        for Shard(shard) in &self.shards {
            let (buffer, records, mut confirms, lost) = shard.with(|shard| {
                // As much capacity again, so that it need not grow event by event.
                let spare = Vec::with_capacity(shard.buffer.len().min(SPARE_BYTES));
                let buffer = Bytes::from(std::mem::replace(&mut shard.buffer, spare));
                let spare = Vec::with_capacity(shard.records.len().min(SPARE_RECORDS));
                let records = std::mem::replace(&mut shard.records, spare);
                let confirms = std::mem::take(&mut shard.confirms);
                (buffer, records, confirms, std::mem::take(&mut shard.lost))
            });
            let mut rest = buffer;
            for record in records {
                let user = rest.split_to(record.user_len);
                let user = std::str::from_utf8(&user).expect("it was copied from a `str`");
                let event = record.body_len.map(|len| Outgoing {
                    body: rest.split_to(len),
                    place: record.place,
                    confirm: record.is_confirmed.then(|| confirms.pop_front()).flatten(),
                });
                if event.is_none() {
                    self.give_back(record.place);
                }
                drained.events.push((user.into(), event));
            }
            drained.lost.extend(lost);
        }
        drained
    }

    fn is_empty(&self) -> bool {
        self.shards.iter().all(|Shard(shard)| {
            shard.with(|shard| shard.records.is_empty() && shard.lost.is_empty())
        })
    }

    /// How many events wait, those included that the task has taken.
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|Shard(shard)| shard.with(|shard| shard.used.events))
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
        for Shard(shard) in &self.shards {
            shard.with(|shard| shard.is_closed = true);
        }
        self.wake.notify_one();
    }
}

impl Queue {
    fn has_room(&self, place: Room, limit: Used) -> bool {
        let share = self.shares[place.share];
        let half = Used {
            events: limit.events.div_ceil(2),
            bytes: limit.bytes / 2,
        };
        // An event that is larger than half of the room may take more, if it is the only one.
        let has_share = share.events == 0 || share.has_room(place.bytes, half);
        has_share && self.used.has_room(place.bytes, limit)
    }

    fn has_lost(&self, user: &str) -> bool {
        !self.lost.is_empty() && self.lost.contains_key(user)
    }

    fn lose(&mut self, user: &str) {
        match self.lost.get_mut(user) {
            Some(count) => *count += 1,
            None => {
                self.lost.insert(user.into(), 1);
            }
        }
    }
}
