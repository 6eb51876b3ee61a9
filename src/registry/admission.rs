//! The count of all connections, its cap, and whether the registry is closed to newcomers.
//!
//! All in one atomic: one step checks the cap, checks that the registry is open, and takes a place. So once the registry is
//! closed and the count is zero, no connection is registered and no registration is in progress. A registration in progress
//! asks [once more](Admission::is_closed).

use std::sync::atomic::Ordering;

use crate::sync::AtomicUsize;

/// Set beside the count once the registry is closed; final.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Set beside the count while there is a watch (`presence`).
const WATCHED: usize = CLOSED >> 1;

pub(crate) struct Admission {
    taken: AtomicUsize,
    cap: usize,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

impl Admission {
    pub(crate) fn new(cap: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            cap: cap.min(WATCHED - 1),
        }
    }

    /// Takes a place if there is one. The count is tested and raised in one step, so it never passes the cap.
    pub(crate) fn take(&self) -> Result<(), Refused> {
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            if taken & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            if taken & !WATCHED >= self.cap {
                return Err(Refused::Full);
            }
            // Pairs with the release in `give_back`: a registration that gets the place of a connection that left sees that
            // it has left its channel, and is not refused there because of it.
            match self.taken.compare_exchange_weak(
                taken,
                taken + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => taken = now,
            }
        }
    }

    /// Gives a place back, once for each that was taken, after the connection has left its channel.
    pub(crate) fn give_back(&self) {
        // Pairs with the acquire in `take`.
        self.taken.fetch_sub(1, Ordering::Release);
    }

    /// Gives no place from now on.
    pub(crate) fn close(&self) {
        // Pairs with the release in `is_closed`: if a registration found the registry open there, its connection is in the
        // map for every look after this.
        self.taken.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Whether the registry was closed after a place was taken, for a registration that has entered the map with that place.
    pub(crate) fn is_closed(&self) -> bool {
        // A read-modify-write, so this and `close` have one order. If this is first, `close` acquires what was done until
        // now. If `close` is first, this sees its bit.
        self.taken.fetch_or(0, Ordering::AcqRel) & CLOSED != 0
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed) & !(CLOSED | WATCHED)
    }

    /// Sets whether there is a watch. Not called by two threads at a time.
    pub(crate) fn set_watched(&self, is_watched: bool) {
        let was_watched = self.taken.load(Ordering::Relaxed) & WATCHED != 0;
        match (was_watched, is_watched) {
            // Pairs with the releases in `give_back`, `is_closed` and `meet`: acquires the changes made before those.
            (false, true) => _ = self.taken.fetch_or(WATCHED, Ordering::AcqRel),
            (true, false) => _ = self.taken.fetch_sub(WATCHED, Ordering::Release),
            _ => {}
        }
    }

    /// Whether there is a watch, for a thread that has changed the membership and then done a read-modify-write of the count:
    /// in `give_back`, `is_closed` or `meet`. If that came after the flag was set, this load sees the flag; if it came
    /// before, `set_watched` acquires the change.
    pub(crate) fn is_watched(&self) -> bool {
        self.taken.load(Ordering::Relaxed) & WATCHED != 0
    }

    /// A read-modify-write of the count that changes nothing.
    pub(crate) fn meet(&self) {
        // Pairs with the acquire in `set_watched`.
        self.taken.fetch_or(0, Ordering::AcqRel);
    }

    pub(crate) fn cap(&self) -> usize {
        self.cap
    }
}
