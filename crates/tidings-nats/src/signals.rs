//! What the client's events say about this node's subscriptions and messages.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Event, ServerError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many refused subjects are remembered at a time. Where there are more, all subscriptions are verified.
const REFUSED: usize = 1024;

/// How long a refusal to publish to a subject explains a missing acknowledgement.
const FRESH: Duration = Duration::from_secs(10);

/// What the task has not yet heard, and what whoever publishes asks for.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// A subscription was full, and a message for it was dropped.
    slow: AtomicBool,
    /// The connection has gone or is back, or there is something below.
    pub(super) changed: Notify,
    refused: Mutex<Refused>,
    /// Subjects to which this node may not publish, and since when that is known.
    unpublished: Mutex<HashMap<String, Instant>>,
    /// There is another one.
    pub(super) denied: Notify,
}

/// Subscriptions that the server refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// For lack of a permission.
    pub(super) subjects: Vec<String>,
    /// There were more than are remembered, or it was not said which.
    pub(super) others: bool,
    /// The server allows no more subscriptions on a connection.
    pub(super) limit: bool,
    /// What it said last.
    pub(super) detail: String,
}

impl Signals {
    pub(super) fn hear(&self, event: &Event) {
        match event {
            Event::SlowConsumer(_) => self.slow.store(true, Ordering::Release),
            Event::Connected | Event::Disconnected => {}
            Event::ServerError(ServerError::Other(text)) => self.hear_error(text),
            _ => return,
        }
        self.changed.notify_one();
    }

    fn hear_error(&self, text: &str) {
        let lower = text.to_lowercase();
        if let Some(rest) = after(&lower, text, "permissions violation for publish to ") {
            if let Some(subject) = quoted(rest) {
                let now = Instant::now();
                let mut unpublished = lock(&self.unpublished);
                unpublished.retain(|_, since| now.duration_since(*since) < FRESH);
                unpublished.insert(subject.to_owned(), now);
                drop(unpublished);
                self.denied.notify_waiters();
            }
            return;
        }
        let mut refused = lock(&self.refused);
        if let Some(rest) = after(&lower, text, "permissions violation for subscription to ") {
            match quoted(rest) {
                Some(subject) if refused.subjects.len() < REFUSED => {
                    refused.subjects.push(subject.to_owned());
                }
                _ => refused.others = true,
            }
        } else if lower.contains("maximum subscriptions exceeded") {
            refused.limit = true;
        } else {
            return;
        }
        text.clone_into(&mut refused.detail);
    }

    pub(super) fn take_slow(&self) -> bool {
        self.slow.swap(false, Ordering::Acquire)
    }

    pub(super) fn take_refused(&self) -> Refused {
        std::mem::take(&mut lock(&self.refused))
    }

    /// The subjects to which this node may not publish, as far as nobody has heard of them.
    pub(super) fn take_unpublished(&self) -> HashSet<String> {
        lock(&self.unpublished)
            .drain()
            .map(|(subject, _)| subject)
            .collect()
    }

    /// Whether there are [any](Self::take_unpublished).
    pub(super) fn has_unpublished(&self) -> bool {
        !lock(&self.unpublished).is_empty()
    }

    /// Whether the server has said after `since` that this node may not publish to a subject.
    pub(super) fn is_denied(&self, subject: &str, since: Instant) -> bool {
        let unpublished = lock(&self.unpublished);
        unpublished.get(subject).is_some_and(|at| *at >= since)
    }

    /// Waits until [it is](Self::is_denied).
    pub(super) async fn wait_denied(&self, subject: &str, since: Instant) {
        loop {
            let denied = self.denied.notified();
            if self.is_denied(subject, since) {
                return;
            }
            denied.await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics inside.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What follows a beginning, whatever case that is in.
fn after<'a>(lower: &str, text: &'a str, beginning: &str) -> Option<&'a str> {
    let at = lower.find(beginning)?;
    text.get(at + beginning.len()..)
}

fn quoted(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('"')?;
    rest.split_once('"').map(|(subject, _)| subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Event {
        Event::ServerError(ServerError::Other(text.to_owned()))
    }

    #[test]
    fn a_refused_subscription_is_known_by_its_subject() {
        let signals = Signals::default();
        // As it is said for a new one, and for one that a change of the configuration ends.
        for text in [
            "Permissions Violation for Subscription to \"chat.live.4.1.ann\"",
            "Permissions Violation for Subscription to \"chat.live.4.2.>\" (sid \"7\")",
        ] {
            signals.hear(&error(text));
        }
        let refused = signals.take_refused();
        assert_eq!(refused.subjects, ["chat.live.4.1.ann", "chat.live.4.2.>"]);
        assert!(!refused.others && !refused.limit);
        assert_eq!(signals.take_refused(), Refused::default());
        signals.hear(&error("Maximum Subscriptions Exceeded"));
        assert!(signals.take_refused().limit);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_message_is_known_by_its_subject_and_time() {
        let signals = Signals::default();
        let before = Instant::now();
        signals.hear(&error(
            "Permissions Violation for Publish to \"chat.log.4.1.ann\"",
        ));
        signals.wait_denied("chat.log.4.1.ann", before).await;
        assert!(!signals.is_denied("chat.log.4.1.bob", before));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!signals.is_denied("chat.log.4.1.ann", Instant::now()));
    }
}
