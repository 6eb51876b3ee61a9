//! Calls to an adapter, which is foreign code: one that panics fails, and nothing else does.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::backplane::BackplaneError;

/// A call whose panic is an error.
pub(super) async fn guarded<T>(
    call: impl Future<Output = Result<T, BackplaneError>> + Send,
) -> Result<T, BackplaneError> {
    Guarded(Box::pin(call)).await
}

struct Guarded<F>(Pin<Box<F>>);

impl<T, F: Future<Output = Result<T, BackplaneError>>> Future for Guarded<F> {
    type Output = Result<T, BackplaneError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The future is not polled again, and what the adapter keeps beside it is the adapter's to keep whole.
        let polled = catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| {
            tracing::error!("a call to the backplane panicked");
            Poll::Ready(Err(BackplaneError::other("it panicked")))
        })
    }
}
