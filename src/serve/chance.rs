//! A second chance for clients, when it was the runtime that stood still.
//!
//! A timer that fires late says that nobody was polled for a while: somebody has blocked the threads of the runtime, or the
//! machine was suspended. What clients did meanwhile has not been looked at yet, for a runtime tells of timers and of
//! sockets in no order, and of so many sockets at a time. A client must not pay for that, so a limit that was found to be
//! exceeded too late begins anew. It does so once, or a runtime that is always late would never be rid of a client.

use std::time::Duration;

use tokio::time::Instant;

/// Whether a deadline was given a second chance, and until when.
#[derive(Debug, Default)]
pub(super) struct Chance(Option<(Instant, Instant)>);

impl Chance {
    /// The deadline, or the end of its second chance.
    pub(super) fn end_of(&self, deadline: Instant) -> Instant {
        match self.0 {
            Some((given, until)) if given == deadline => until,
            _ => deadline,
        }
    }

    /// Whether there is a second chance for a deadline that has passed, at the end of so long a wait: if it was noticed late,
    /// by a quarter of the wait or more. The deadline is to be asked for again.
    pub(super) fn give(&mut self, deadline: Instant, wait: Duration) -> bool {
        let now = Instant::now();
        let is_late = now.saturating_duration_since(deadline) > wait / 4;
        let has_had = self.end_of(deadline) != deadline;
        if is_late && !has_had {
            self.0 = Some((deadline, now + wait));
        }
        is_late && !has_had
    }
}
