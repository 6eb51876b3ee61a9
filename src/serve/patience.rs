//! How long the server waits for a client, and a second chance for the client after the runtime stood still.
//!
//! A timer that fires late shows that no task was polled for a while: a task blocked the threads of the runtime, or the
//! machine was suspended. The server has not seen yet what clients did meanwhile, since a runtime reports timers and sockets
//! in no order, and only some sockets at a time. A client must not pay for that, so a limit that is found exceeded too late
//! begins anew. It does so once, or a runtime that is always late would never cut a client.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Waits for deadlines that mostly move on before they have passed: one timer operation per limit, not per event.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Set to the present deadline or an earlier one. It is set again when it fires.
    timer: Option<Pin<Box<Sleep>>>,
    /// The deadline that was given a second chance, and until when.
    second_chance: Option<(Instant, Instant)>,
}

impl Patience {
    /// Ready when the deadline has passed, which is the end of a wait of this length.
    pub(super) fn poll(
        &mut self,
        deadline: Instant,
        wait: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut end = self.end_of(deadline);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        loop {
            let timer = self.timer.as_mut().expect("it was just set");
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= end {
                let now = Instant::now();
                let is_late = now.saturating_duration_since(deadline) > wait / 4;
                let has_had = end != deadline;
                if !is_late || has_had {
                    return Poll::Ready(());
                }
                end = now + wait;
                self.second_chance = Some((deadline, end));
            }
            timer.as_mut().reset(end);
        }
    }

    /// The deadline, or the end of its second chance.
    fn end_of(&self, deadline: Instant) -> Instant {
        match self.second_chance {
            Some((given, until)) if given == deadline => until,
            _ => deadline,
        }
    }
}
