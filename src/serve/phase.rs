//! How far the server's shutdown is, and how its connections learn of it.

use std::future::Future;

use tokio::sync::watch;

/// It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Connections finish what they do.
    Finishing,
    /// Connections end immediately, as they do when the server is dropped.
    Aborted,
}

/// The server's side.
#[derive(Debug)]
pub(super) struct Phases(watch::Sender<Phase>);

/// A connection's side. The connection counts as long as this lives.
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

    /// Polls a future until it ends or the phase changes. A watcher begins with the phase it was made in: it misses no
    /// change, but may see two changes as one.
    ///
    /// Each time the future is not ready, the wait for a change is polled as well, although the phase rarely changes: after a
    /// spurious wake-up, a wait that is not polled again is no longer registered.
    pub(super) async fn during<F: Future + Unpin>(
        &mut self,
        future: &mut F,
    ) -> Result<F::Output, Phase> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            changed = self.0.changed() => match changed {
                Ok(()) => Err(*self.0.borrow_and_update()),
                // The server was dropped.
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

    /// Without coop budget, tokio's `Pending` only means that the task should poll again: nothing is registered.
    #[tokio::test]
    async fn a_task_out_of_budget_sees_the_change_as_well() {
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
    async fn dropping_the_server_aborts_its_connections() {
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
