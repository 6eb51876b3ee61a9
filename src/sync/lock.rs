//! Mutexes of std, for code that has no model.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also after a panic under it. What it protects must be usable then: nothing that runs under the lock leaves
/// it half changed, or the place says what a panic leaves behind.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
