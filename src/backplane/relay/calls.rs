//! Calls to an adapter, which is foreign code: one that panics fails, and nothing else does.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::backplane::BackplaneError;

/// The pauses between attempts of whatever is tried again: each twice as long as the one before, from the first to the
/// longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The pause that follows this one.
pub(super) fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

/// A call whose panic is an error, also one before it has returned its future.
pub(super) struct Guarded<'a, T>(Pin<Box<dyn Future<Output = Answer<T>> + Send + 'a>>);

type Answer<T> = Result<T, BackplaneError>;

pub(super) fn guarded<'a, T, F>(call: impl FnOnce() -> F + Send + 'a) -> Guarded<'a, T>
where
    F: Future<Output = Answer<T>> + Send + 'a,
{
    Guarded(Box::pin(async move { call().await }))
}

impl<T> Future for Guarded<'_, T> {
    type Output = Answer<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The future is not polled again, and what the adapter keeps beside it is the adapter's to keep whole.
        let polled = catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| {
            tracing::error!("a call to the backplane panicked");
            Poll::Ready(Err(BackplaneError::other("it panicked")))
        })
    }
}
