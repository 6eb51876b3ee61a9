//! Calls to an adapter, which is foreign code: one that panics or does not return fails, and nothing else does.

use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, timeout_at};

use crate::backplane::{BackplaneError, CALL_LIMIT};

/// Runs foreign code, which may panic.
pub(super) fn caught<T>(code: impl FnOnce() -> T) -> Option<T> {
    // What it panicked with is leaked: dropping it is foreign code as well.
    catch_unwind(AssertUnwindSafe(code))
        .map_err(mem::forget)
        .ok()
}

/// A call that fails when it panics, also before it has returned its future, and when it takes too long.
pub(super) struct Guarded<'a, T>(Pin<Box<dyn Future<Output = Answer<T>> + Send + 'a>>);

type Answer<T> = Result<T, BackplaneError>;

/// Guards a call that may take [`CALL_LIMIT`].
pub(super) fn guarded<'a, T, F>(call: impl FnOnce() -> F + Send + 'a) -> Guarded<'a, T>
where
    F: Future<Output = Answer<T>> + Send + 'a,
{
    guarded_until(Instant::now() + CALL_LIMIT, call)
}

pub(super) fn guarded_until<'a, T, F>(
    deadline: Instant,
    call: impl FnOnce() -> F + Send + 'a,
) -> Guarded<'a, T>
where
    F: Future<Output = Answer<T>> + Send + 'a,
{
    Guarded(Box::pin(async move {
        let answer = timeout_at(deadline, async { call().await }).await;
        answer.unwrap_or_else(|late| Err(BackplaneError::other(late)))
    }))
}

impl<T> Future for Guarded<'_, T> {
    type Output = Answer<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The future is not polled again, and what the adapter keeps beside it is the adapter's to keep whole.
        caught(|| self.0.as_mut().poll(cx)).unwrap_or_else(|| {
            tracing::error!("a call to the backplane panicked");
            Poll::Ready(Err(BackplaneError::other("it panicked")))
        })
    }
}
