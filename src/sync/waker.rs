//! The waker of a task that waits.

use std::task::{Context, Waker};

/// Keeps the waker of the task. Clones it only if the one that is kept wakes another.
pub(crate) fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    match kept {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *kept = Some(cx.waker().clone()),
    }
}
