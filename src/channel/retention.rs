//! What all logs of a broadcaster share: the settings, and the room for users who are away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{History, Upstream};
use crate::metrics::Counters;
use crate::sync::AtomicUsize;

pub(crate) struct Retention {
    pub(super) history: Option<History>,
    /// The number of keys whose newest event each log keeps.
    pub(super) keys: usize,
    pub(super) counters: Arc<Counters>,
    /// `Some` where nodes share the history.
    pub(super) upstream: Option<Upstream>,
    away_users: Room,
    away_bytes: Room,
}

impl Retention {
    pub(crate) fn new(
        history: Option<History>,
        keys: usize,
        upstream: Option<Upstream>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            upstream,
            history,
            keys,
            counters,
            away_users: Room::new(history.map_or(0, |history| history.away_users)),
            away_bytes: Room::new(history.map_or(0, |history| history.away_bytes)),
        }
    }

    /// Whether anything is kept, so that channels need a log.
    pub(crate) fn keeps_anything(&self) -> bool {
        self.history.is_some() || self.keys > 0
    }

    /// Whether events get ids.
    pub(crate) fn gives_ids(&self) -> bool {
        self.history.is_some()
    }

    /// Whether a channel stays after its last connection has left, at least once it is complete.
    pub(crate) fn lingers(&self) -> bool {
        self.history
            .is_some_and(|history| !history.linger.max(history.completed).is_zero())
    }

    /// Whether users who have no channel get one when something is broadcast to them.
    pub(crate) fn keeps_for_unconnected(&self) -> bool {
        self.history.is_some_and(|history| history.unconnected)
    }

    pub(super) fn linger(&self, is_complete: bool) -> Duration {
        self.history
            .map_or(Duration::ZERO, |history| match is_complete {
                true => history.completed,
                false => history.linger,
            })
    }

    /// How many users may be away, if there is a history.
    pub(crate) fn away_cap(&self) -> Option<usize> {
        self.history.map(|history| history.away_users)
    }

    pub(super) fn age(&self) -> Option<Duration> {
        self.history.and_then(|history| history.age)
    }

    pub(crate) fn away_users(&self) -> &Room {
        &self.away_users
    }

    pub(super) fn away_bytes(&self) -> &Room {
        &self.away_bytes
    }

    /// How many users are away and have a history.
    pub(crate) fn away(&self) -> usize {
        self.away_users.taken()
    }

    /// How many bytes are kept for users who are away.
    pub(crate) fn kept_for_away(&self) -> usize {
        self.away_bytes.taken()
    }
}

/// An amount of which no more is taken than there is.
pub(crate) struct Room {
    taken: AtomicUsize,
    size: usize,
}

impl Room {
    fn new(size: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            size,
        }
    }

    /// Takes this amount, if that much is left. Relaxed: it counts, and orders nothing.
    pub(crate) fn take(&self, amount: usize) -> bool {
        let mut taken = self.taken.load(Ordering::Relaxed);
        while amount <= self.size.saturating_sub(taken) {
            match self.taken.compare_exchange_weak(
                taken,
                taken + amount,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => taken = now,
            }
        }
        false
    }

    pub(crate) fn give_back(&self, amount: usize) {
        self.taken.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}
