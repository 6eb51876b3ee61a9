//! The receiving side of tokio's broadcast channel. It becomes a `BroadcastStream` when it waits for the first time.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio::sync::broadcast::{self, error::TryRecvError};
use tokio::task::coop;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

/// Reads one stream's events.
pub(crate) struct Receiver<T>(Reading<T>);

enum Reading<T> {
    /// Has never waited.
    Looking(broadcast::Receiver<T>),
    Waiting(BroadcastStream<T>),
    /// While `Looking` becomes `Waiting`.
    Changing,
}

impl<T: Clone + Send + 'static> Receiver<T> {
    pub(super) fn new(receiver: broadcast::Receiver<T>) -> Self {
        Self(Reading::Looking(receiver))
    }

    /// Returns the next event; `Err(n)` when `n` were overwritten before they could be read; `None` once the sender was dropped
    /// and everything it sent has been read.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, u64>>> {
        if let Reading::Looking(_) = self.0 {
            let next = self.try_next(cx);
            if next.is_ready() {
                return next;
            }
            if let Reading::Looking(receiver) = mem::replace(&mut self.0, Reading::Changing) {
                self.0 = Reading::Waiting(BroadcastStream::new(receiver));
            }
        }
        let Reading::Waiting(stream) = &mut self.0 else {
            return Poll::Ready(None);
        };
        Pin::new(stream).poll_next(cx).map(|next| {
            next.map(|item| item.map_err(|BroadcastStreamRecvError::Lagged(missed)| missed))
        })
    }

    /// Like [`poll_next`](Self::poll_next), but registers no waker and works without coop budget.
    pub(crate) fn try_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, u64>>> {
        let Reading::Looking(receiver) = &mut self.0 else {
            return self.poll_next(&mut Context::from_waker(Waker::noop()));
        };
        let next = match receiver.try_recv() {
            Ok(event) => Some(Ok(event)),
            Err(TryRecvError::Lagged(missed)) => Some(Err(missed)),
            Err(TryRecvError::Closed) => None,
            Err(TryRecvError::Empty) => return Poll::Pending,
        };
        // Uses a unit of budget, as a receiver that has waited does.
        if let Poll::Ready(turn) = coop::poll_proceed(cx) {
            turn.made_progress();
        }
        Poll::Ready(next)
    }
}
