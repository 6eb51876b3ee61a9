//! When a stream has been silent for so long that a keep-alive is due.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use super::KeepAlive;
use super::keep_alive::Form;

/// Watches for silence that has lasted as long as it may.
///
/// An event does not touch the timer, it only notes the time. When the timer fires too early for what was noted, it is
/// set again for the rest: a timer operation per interval instead of one per event.
#[derive(Debug)]
pub(super) struct Silence {
    interval: Duration,
    form: Form,
    since: Option<Instant>,
    timer: Option<Timer>,
}

#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// What it is set to, at hand.
    deadline: Instant,
    /// Whom it wakes.
    waker: Option<Waker>,
}

impl Timer {
    fn at(deadline: Instant) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep_until(deadline)),
            deadline,
            waker: None,
        }
    }

    /// Whether its time has come. Before that it is not touched while it knows whom to wake: a timer keeps that, and never
    /// wakes early.
    fn poll(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let is_set = |waker: &Waker| waker.will_wake(cx.waker());
        if now < self.deadline && self.waker.as_ref().is_some_and(is_set) {
            return Poll::Pending;
        }
        // Without that, "not yet" may mean that the task has used up its turn, and nobody has been noted.
        let polled = pin!(unconstrained(self.sleep.as_mut())).poll(cx);
        self.waker = polled.is_pending().then(|| cx.waker().clone());
        polled
    }

    fn reset(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline);
        self.deadline = deadline;
        self.waker = None;
    }
}

impl Silence {
    pub(super) fn new(keep_alive: &KeepAlive, default: Duration) -> Option<Self> {
        Some(Self {
            interval: keep_alive.interval.unwrap_or(default),
            form: keep_alive.form?,
            since: None,
            timer: None,
        })
    }

    /// Something was sent.
    pub(super) fn broken(&mut self, now: Instant) {
        self.since = self.since.max(Some(now));
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Form> {
        let now = Instant::now();
        let deadline = *self.since.get_or_insert(now) + self.interval;
        let timer = self.timer.get_or_insert_with(|| Timer::at(deadline));
        loop {
            ready!(timer.poll(now, cx));
            if now >= deadline {
                self.since = Some(now);
                timer.reset(now + self.interval);
                return Poll::Ready(self.form);
            }
            timer.reset(deadline);
        }
    }
}
