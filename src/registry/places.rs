//! The count of all connections, and its cap.

use std::sync::atomic::Ordering;

use crate::sync::AtomicUsize;

pub(crate) struct Places {
    taken: AtomicUsize,
    cap: usize,
}

impl Places {
    pub(crate) fn new(cap: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            cap,
        }
    }

    /// Takes a place if there is one. The count is tested and raised in one step, so it never passes the cap.
    pub(crate) fn take(&self) -> bool {
        let mut taken = self.taken.load(Ordering::Relaxed);
        while taken < self.cap {
            // Pairs with the release in `give_back`: who gets the place of a connection that left sees that it has left
            // its channel, and is not refused there on its account.
            match self.taken.compare_exchange_weak(
                taken,
                taken + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => taken = now,
            }
        }
        false
    }

    /// Gives a place back, once for each that was taken, after the connection has left its channel.
    pub(crate) fn give_back(&self) {
        // Pairs with the acquire in `take`.
        self.taken.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn cap(&self) -> usize {
        self.cap
    }
}
