//! How far the server's shutdown is, and how its connections learn of it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Poll, Waker};

use tokio::sync::watch;

/// It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Connections finish what they do.
    Finishing,
    /// Connections end at once. So they do when the server is gone.
    Aborted,
}

/// The server's side.
#[derive(Debug)]
pub(super) struct Phases {
    sender: watch::Sender<Phase>,
    /// Goes before what the receivers are told, so that a look at it is enough to know that there is nothing to be told.
    changes: Arc<AtomicU8>,
}

/// A connection's side. It counts as long as it lives.
#[derive(Debug)]
pub(super) struct Watcher {
    receiver: watch::Receiver<Phase>,
    changes: Arc<AtomicU8>,
}

impl Phases {
    pub(super) fn new() -> Self {
        Self {
            sender: watch::Sender::new(Phase::Open),
            changes: Arc::default(),
        }
    }

    pub(super) fn set(&self, phase: Phase) {
        self.changes.fetch_add(1, Ordering::Release);
        self.sender.send_replace(phase);
    }

    pub(super) fn watch(&self) -> Watcher {
        Watcher {
            receiver: self.sender.subscribe(),
            changes: Arc::clone(&self.changes),
        }
    }

    /// How many connections there are.
    pub(super) fn watchers(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Waits for the last of them to end.
    pub(super) async fn unwatched(&self) {
        self.sender.closed().await;
    }
}

impl Drop for Phases {
    fn drop(&mut self) {
        self.set(Phase::Aborted);
    }
}

impl Watcher {
    pub(super) fn now(&self) -> Phase {
        *self.receiver.borrow()
    }

    /// Polls a future until it ends, or until the phase is another one. A watcher begins with what it was made with: a
    /// connection is told of every change, though not of each by itself.
    ///
    /// Who waits for a change is asked again for each event, and to wait takes a lock that all connections share. So it is
    /// done once, and after that a look at the count tells that nothing has changed: what has waited for the task stays
    /// until there is a change.
    pub(super) async fn during<F: Future + Unpin>(
        &mut self,
        future: &mut F,
    ) -> Result<F::Output, Phase> {
        let seen = self.changes.load(Ordering::Acquire);
        let ended = {
            let mut changed = pin!(self.receiver.changed());
            let mut waiting: Option<Waker> = None;
            poll_fn(|cx| {
                if let Poll::Ready(output) = Pin::new(&mut *future).poll(cx) {
                    return Poll::Ready(Some(output));
                }
                let is_waiting = waiting
                    .as_ref()
                    .is_some_and(|waker| waker.will_wake(cx.waker()));
                if is_waiting && self.changes.load(Ordering::Acquire) == seen {
                    return Poll::Pending;
                }
                // An error is the end of the server, which is a change too.
                let polled = changed.as_mut().poll(cx);
                waiting = polled.is_pending().then(|| cx.waker().clone());
                polled.map(|_| None)
            })
            .await
        };
        ended.ok_or_else(|| *self.receiver.borrow_and_update())
    }
}
