//! What a log has to know where several nodes have a user's history in common.
//!
//! An engine between the nodes keeps the history that counts. A node sends its own events to its streams first and hands
//! them to the engine then; those of other nodes come from there. So where a stream is, is said by two counts, its [`Mark`]:
//! behind which of the engine's positions, and behind how many of the events that this channel sent first. Both only ever
//! rise, in each log and in each stream, and each event raises exactly one of them.
//!
//! 1. The engine's events are appended in its order and without a hole: one that has another before it that is not here
//!    yet is refused, and so is one that is here already.
//! 2. An event that was sent here first comes back from the engine. It is not appended again, but its position is noted:
//!    a client that goes to another node will find it there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the engine's log is, and which one it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) epoch: u64,
    pub(crate) position: u64,
}

/// Where a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// The engine's position.
    pub(super) remote: u64,
    /// How many of the events that were sent here first.
    pub(super) own: u64,
}

/// What a log keeps of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// Which log of the engine the positions are of.
    pub(super) epoch: u64,
    pub(super) last: Mark,
    /// Before the first event of this log.
    pub(super) begun: Mark,
    /// Behind the last event that was dropped.
    pub(super) dropped: Mark,
    /// How many of the events that were sent here first the engine is known to have, or to have been told that they are
    /// lost.
    pub(super) confirmed: u64,
}

impl Marks {
    pub(super) fn at(head: Head) -> Self {
        let start = Mark {
            remote: head.position,
            own: 0,
        };
        Self {
            epoch: head.epoch,
            last: start,
            begun: start,
            dropped: start,
            confirmed: 0,
        }
    }
}

/// Where the engine is, for logs that begin: no event that is broadcast from now on has a smaller position.
pub(crate) struct Upstream {
    head: Mutex<Head>,
    /// Also here, for those who broadcast: what they learn too late is mended under the log's lock.
    epoch: AtomicU64,
}

impl Upstream {
    pub(crate) fn new(head: Head) -> Self {
        Self {
            epoch: AtomicU64::new(head.epoch),
            head: Mutex::new(head),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub(crate) fn head(&self) -> Head {
        *self.lock()
    }

    /// The engine is at least here.
    pub(crate) fn advance(&self, to: Head) {
        let mut head = self.lock();
        if head.epoch == to.epoch {
            head.position = head.position.max(to.position);
        }
    }

    /// The engine's log is another one.
    pub(crate) fn reset(&self, to: Head) {
        *self.lock() = to;
        self.epoch.store(to.epoch, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Head> {
        // A copy in, a copy out: no panic can leave it half done.
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event that the engine sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming {
    pub(crate) position: u64,
    /// That of the user's event before it.
    pub(crate) previous: u64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was sent to so many streams.
    Sent(usize),
    /// It had been sent here first.
    Echo,
    /// It had been taken already.
    Again,
    /// There is one before it that has not come, behind this position.
    Early(u64),
}
