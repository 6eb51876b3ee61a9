//! The real primitives.

use std::sync::Arc;
use std::task::{Context, Poll};

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
pub(crate) use std::thread::yield_now as spin_loop;

pub(crate) use super::receiver::Receiver;
pub(crate) use tokio::sync::Notify;

/// Whether the current task has coop budget left. Without budget, `Pending` from a type of tokio's says nothing about that
/// type, and the task is woken immediately.
pub(crate) use tokio::task::coop::has_budget_remaining as has_turn;

/// Returns `Pending` and wakes the task if it has no coop budget left. Uses no budget.
pub(crate) fn wait_for_turn(cx: &mut Context<'_>) -> Poll<()> {
    // The unit of budget is given back when it is dropped.
    tokio::task::coop::poll_proceed(cx).map(drop)
}

/// Uses a unit of coop budget, for work that tokio does not count.
pub(crate) fn use_turn(cx: &mut Context<'_>) {
    if let Poll::Ready(turn) = tokio::task::coop::poll_proceed(cx) {
        turn.made_progress();
    }
}

/// A snapshot that was loaded from an [`ArcSwap`].
pub(crate) type Loaded<T> = arc_swap::Guard<Arc<T>>;

/// A copy-on-write cell: readers load a snapshot; writers replace it only if it is still the snapshot they decided on.
pub(crate) struct ArcSwap<T>(arc_swap::ArcSwap<T>);

impl<T> ArcSwap<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value))
    }

    /// Returns the current snapshot. Hold it briefly and never across an await: a guard keeps the snapshot and its contents
    /// alive.
    pub(crate) fn load(&self) -> Loaded<T> {
        self.0.load()
    }

    /// Replaces `current` by `new`. Returns `false`, and changes nothing, if `current` had already been replaced.
    #[must_use]
    pub(crate) fn compare_and_swap(&self, current: &Arc<T>, new: T) -> bool {
        let found = self.0.compare_and_swap(current, Arc::new(new));
        Arc::ptr_eq(&found, current)
    }
}

/// A mutex taken only with `try_lock`.
pub(crate) struct TryCell<T>(std::sync::Mutex<T>);

impl<T> TryCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Runs `f` on the value, or returns `None` if another thread holds the mutex.
    pub(crate) fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        use std::sync::TryLockError;
        match self.0.try_lock() {
            Ok(mut value) => Some(f(&mut value)),
            // A waker that panicked here left the value intact: `f` only moves it in or out, or polls it.
            Err(TryLockError::Poisoned(value)) => Some(f(&mut value.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A mutex that threads wait for. Hold it briefly and never across an await.
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // A panic here leaves the value intact: each `f` changes it as its last step.
        let mut value = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        f(&mut value)
    }
}

/// A mutex that may be taken while tokio's is held: under it no other lock is taken and no code of the service runs.
pub(crate) struct Leaf<T>(Mutex<T>);

impl<T> Leaf<T> {
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.0.with(f)
    }

    /// Like [`with`](Self::with), for code that tokio calls. The models distinguish the two.
    pub(crate) fn with_inside<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.0.with(f)
    }
}

/// The sending side of a ring.
pub(crate) struct Sender<T>(tokio::sync::broadcast::Sender<T>);

impl<T: Clone + Send + 'static> Sender<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(tokio::sync::broadcast::Sender::new(capacity))
    }

    /// Sends to every receiver that exists now and returns their number. Without receivers, returns the event.
    pub(crate) fn send(&self, event: T) -> Result<usize, T> {
        self.0.send(event).map_err(|unsent| unsent.0)
    }

    pub(crate) fn subscribe(&self) -> Receiver<T> {
        Receiver::new(self.0.subscribe())
    }

    /// Creates a mutex that code called by this channel may take.
    pub(crate) fn leaf<V>(&self, value: V) -> Leaf<V> {
        Leaf(Mutex::new(value))
    }

    #[cfg(test)]
    #[allow(dead_code, reason = "for deliberate faults")]
    pub(crate) fn receiver_count(&self) -> usize {
        self.0.receiver_count()
    }
}

/// Runs code of the service whose panic must not spread: a waker, a recorder, an IO, or the drop of an event. A panic has
/// no effect beyond the panic hook.
pub(crate) fn contain(f: impl FnOnce()) {
    // Each `f` owns what it changes, or changes only a pass, which begins anew with the next stream.
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
        // Dropping the payload may panic as well.
        std::mem::forget(panic);
    }
}

/// The hasher of the registry, with a random key, so that clients cannot choose ids that collide.
pub(crate) type KeyedHasher = std::collections::hash_map::RandomState;

/// The number of shards of the map of users. Writers to different shards do not contend; an empty shard costs 128 bytes. A change
/// copies less of a smaller map.
pub(crate) const SHARDS: usize = 256;

/// The number of cache lines over which a counter that every broadcast changes is spread.
pub(crate) const STRIPES: usize = 8;

/// The number of streams that a task with many streams polls between two yields.
#[cfg(feature = "serve")]
pub(crate) const TURN: usize = 64;
