//! The real primitives.

use std::sync::Arc;
use std::task::{Context, Poll};

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
pub(crate) use std::thread::yield_now as spin_loop;

pub(crate) use super::receiver::Receiver;
pub(crate) use tokio::sync::Notify;

/// Whether the task that is polled now still has its turn. When it has not, tokio's own "not yet" says nothing: the task is
/// woken at once.
pub(crate) use tokio::task::coop::has_budget_remaining as has_turn;

/// "Not yet" unless it has, and then the task is woken. Uses up nothing of the turn.
pub(crate) fn wait_for_turn(cx: &mut Context<'_>) -> Poll<()> {
    // Given back when it is dropped.
    tokio::task::coop::poll_proceed(cx).map(drop)
}

/// Uses up a part of the turn, for something that tokio does not count.
pub(crate) fn use_turn(cx: &mut Context<'_>) {
    if let Poll::Ready(turn) = tokio::task::coop::poll_proceed(cx) {
        turn.made_progress();
    }
}

/// A snapshot that was loaded from an [`ArcSwap`].
pub(crate) type Loaded<T> = arc_swap::Guard<Arc<T>>;

/// A copy-on-write cell: readers load a snapshot, writers exchange it against the very snapshot they decided on.
pub(crate) struct ArcSwap<T>(arc_swap::ArcSwap<T>);

impl<T> ArcSwap<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value))
    }

    /// The current snapshot. Hold it briefly and never over an await: a guard pins the snapshot and all that it holds.
    pub(crate) fn load(&self) -> Loaded<T> {
        self.0.load()
    }

    /// Puts `new` in the place of `current`; `false` if somebody was faster, and then nothing has changed.
    #[must_use]
    pub(crate) fn compare_and_swap(&self, current: &Arc<T>, new: T) -> bool {
        let found = self.0.compare_and_swap(current, Arc::new(new));
        Arc::ptr_eq(&found, current)
    }
}

/// A cell that is only ever tried, never waited for.
pub(crate) struct TryCell<T>(std::sync::Mutex<T>);

impl<T> TryCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Runs `f` on the value unless another thread is in here right now.
    pub(crate) fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        use std::sync::TryLockError;
        match self.0.try_lock() {
            Ok(mut value) => Some(f(&mut value)),
            // A waker that panicked in here left the value whole: `f` only moves it in or out, or polls it.
            Err(TryLockError::Poisoned(value)) => Some(f(&mut value.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A mutex, for what may be waited for: short, and never over an await.
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // A panic in here leaves the value whole: whoever uses it changes it last.
        let mut value = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        f(&mut value)
    }
}

/// A mutex that may be taken inside tokio's: under it nothing else is taken, and no code of the service runs.
pub(crate) struct Leaf<T>(Mutex<T>);

impl<T> Leaf<T> {
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.0.with(f)
    }

    /// The same, for what tokio calls. The models tell them apart.
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

    /// Sends to every receiver that exists now, and says how many these are. With none, gives the event back.
    pub(crate) fn send(&self, event: T) -> Result<usize, T> {
        self.0.send(event).map_err(|unsent| unsent.0)
    }

    pub(crate) fn subscribe(&self) -> Receiver<T> {
        Receiver::new(self.0.subscribe())
    }

    /// A mutex that this channel may take.
    pub(crate) fn leaf<V>(&self, value: V) -> Leaf<V> {
        Leaf(Mutex::new(value))
    }

    #[cfg(test)]
    #[allow(dead_code, reason = "for deliberate faults")]
    pub(crate) fn receiver_count(&self) -> usize {
        self.0.receiver_count()
    }
}

/// Runs code of the service that nobody here is to suffer from: a waker, or the drop of an event. If it panics, the panic
/// hook has said so, and that is all.
pub(crate) fn contain(f: impl FnOnce()) {
    // It owns what it runs on, so nobody sees that half done.
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
        // What it panicked with may panic in its drop as well.
        std::mem::forget(panic);
    }
}

/// The hasher of the registry. Keyed at random, so that nobody outside can choose ids that collide.
pub(crate) type KeyedHasher = std::collections::hash_map::RandomState;

/// How many shards the map of users has. Writers to different shards do not meet; an empty shard costs 128 bytes. A change copies
/// less of a smaller map.
pub(crate) const SHARDS: usize = 256;

/// Over how many cache lines a counter is spread that every broadcast changes.
pub(crate) const STRIPES: usize = 8;

/// How many streams a task that attends to many looks at between two yields.
#[cfg(feature = "serve")]
pub(crate) const TURN: usize = 64;
