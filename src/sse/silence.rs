//! Finds when a stream has been silent for so long that a keep-alive is due.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use super::KeepAlive;
use super::keep_alive::Form;

/// Measures how long nothing was sent.
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
    /// What `sleep` is set to; cheaper to read here.
    deadline: Instant,
    /// The task that it wakes.
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

    /// Whether the deadline has passed. Before it, the timer is polled only if it would wake another task: a timer keeps its
    /// waker, and never wakes early.
    fn poll(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let is_set = |waker: &Waker| waker.will_wake(cx.waker());
        if now < self.deadline && self.waker.as_ref().is_some_and(is_set) {
            return Poll::Pending;
        }
        // Otherwise `Pending` may mean that the task has no coop budget left, and no waker was registered.
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

    /// Notes that something was sent.
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
