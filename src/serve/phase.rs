//! How far the server's shutdown is, and how its connections learn of it.

use std::future::Future;

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
pub(super) struct Phases(watch::Sender<Phase>);

/// A connection's side. It counts as long as it lives.
#[derive(Debug)]
pub(super) struct Watcher(watch::Receiver<Phase>);

impl Phases {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Phase::Open))
    }

    pub(super) fn set(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    pub(super) fn watch(&self) -> Watcher {
        Watcher(self.0.subscribe())
    }

    /// How many connections there are.
    pub(super) fn watchers(&self) -> usize {
        self.0.receiver_count()
    }

    /// Waits for the last of them to end.
    pub(super) async fn unwatched(&self) {
        self.0.closed().await;
    }
}

impl Watcher {
    pub(super) fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// Polls a future until it ends, or until the phase is another one. A watcher begins with what it was made with: a
    /// connection is told of every change, though not of each by itself.
    ///
    /// Each time the future is not ready, the wait for a change is polled as well, although it rarely has news: a wake-up may
    /// be spurious, and who is not polled after it waits for nothing any more.
    pub(super) async fn during<F: Future + Unpin>(
        &mut self,
        future: &mut F,
    ) -> Result<F::Output, Phase> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            changed = self.0.changed() => match changed {
                Ok(()) => Err(*self.0.borrow_and_update()),
                // The server is gone.
                Err(_) => Err(Phase::Aborted),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use tokio::task::coop::has_budget_remaining;
    use tokio::time::timeout;

    use super::*;

    /// A task that has used up its turn waits for nothing unless it is made to: tokio says "not yet" and means "ask again".
    #[tokio::test]
    async fn who_had_no_turn_left_is_told_as_well() {
        let phases = Phases::new();
        let mut watcher = phases.watch();
        let watching = tokio::spawn(async move {
            let mut ticks = 0;
            let mut busy = Box::pin(poll_fn(|cx| {
                ticks += 1;
                if ticks == 1 {
                    while has_budget_remaining() {
                        let _ = pin!(tokio::task::consume_budget()).poll(cx);
                    }
                }
                Poll::<()>::Pending
            }));
            watcher.during(&mut busy).await
        });
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        phases.set(Phase::Finishing);
        let told = timeout(Duration::from_secs(10), watching).await;
        assert_eq!(told.expect("it is told").unwrap(), Err(Phase::Finishing));
    }

    #[tokio::test]
    async fn every_watcher_is_told_of_the_end_of_the_server() {
        let phases = Phases::new();
        let mut watcher = phases.watch();
        let watching =
            tokio::spawn(async move { watcher.during(&mut Box::pin(pending::<()>())).await });
        tokio::task::yield_now().await;
        drop(phases);
        let told = timeout(Duration::from_secs(10), watching).await;
        assert_eq!(told.expect("it is told").unwrap(), Err(Phase::Aborted));
    }
}
