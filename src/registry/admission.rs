//! The count of all connections, its cap, and whether the registry is closed to newcomers.
//!
//! All in one atomic, so that a place is taken only while there is one and the registry is open, in one step: once it is
//! closed and the count is zero, nobody is in and nobody is on the way. Whoever is on the way asks
//! [once more](Admission::is_closed).

use std::sync::atomic::Ordering;

use crate::sync::AtomicUsize;

/// Set beside the count once the registry is closed; final.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Set beside the count while somebody watches who comes and leaves.
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
            // Pairs with the release in `give_back`: who gets the place of a connection that left sees that it has left
            // its channel, and is not refused there on its account.
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

    /// No place is given from now on.
    pub(crate) fn close(&self) {
        // Acquires what `is_closed` releases: a connection whose registration found the registry open there is in the map
        // for whoever looks after this.
        self.taken.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Whether the registry was closed after a place was taken, for whoever has entered the map with it.
    pub(crate) fn is_closed(&self) -> bool {
        // A read-modify-write, which has one order with `close`. Before it: `close` acquires what was done until now. After
        // it: the bit is seen here.
        self.taken.fetch_or(0, Ordering::AcqRel) & CLOSED != 0
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed) & !(CLOSED | WATCHED)
    }

    /// Says whether somebody watches. Not by two threads at a time.
    pub(crate) fn set_watched(&self, is_watched: bool) {
        let was_watched = self.taken.load(Ordering::Relaxed) & WATCHED != 0;
        match (was_watched, is_watched) {
            // Acquires what whoever met the count before has done.
            (false, true) => _ = self.taken.fetch_or(WATCHED, Ordering::AcqRel),
            (true, false) => _ = self.taken.fetch_sub(WATCHED, Ordering::Release),
            _ => {}
        }
    }

    /// Whether somebody watches, for a thread that has changed the membership and then met the count in a read-modify-write: that
    /// of `give_back`, `is_closed` or `meet`. What that read, this load sees too; and if it came before the flag, whoever set the
    /// flag acquires the change.
    pub(crate) fn is_watched(&self) -> bool {
        self.taken.load(Ordering::Relaxed) & WATCHED != 0
    }

    /// Meets the count without a change.
    pub(crate) fn meet(&self) {
        // Pairs with the acquire in `set_watched`.
        self.taken.fetch_or(0, Ordering::AcqRel);
    }

    pub(crate) fn cap(&self) -> usize {
        self.cap
    }
}
