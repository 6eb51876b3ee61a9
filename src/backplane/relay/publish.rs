//! The task that publishes what waits in the outbox, as the [`Backlog`] decides.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Relay;
use super::backlog::{self, Backlog, Batch, Failure, Outcome, Outlet, What};
use super::calls::{Guarded, guarded};
use super::copies::Users;
use super::outbox::Outgoing;
use crate::backplane::{self, BackplaneError, Level, Message, Published};
use crate::error::{RelayError, with_causes};
use crate::id::UserId;

/// For how long the task looks again and again before it goes to sleep, and how often.
const AWAKE: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(1);

/// Runs until `stop` says until when, and everything is published that can be. Callers that wait for the rest are told.
pub(super) async fn run(
    relay: Arc<Relay>,
    registry: Weak<Users>,
    stop: watch::Receiver<Option<Instant>>,
) {
    publish_all(&relay, &registry, stop).await;
    relay.outbox.close();
    drop(relay.outbox.drain());
}

async fn publish_all(
    relay: &Relay,
    registry: &Weak<Users>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let begun = Instant::now();
    let mut backlog = Backlog::new();
    let outlet = Node { relay, registry };
    let mut call: Option<Call> = None;
    // When the outbox was not empty last, and when to look into it next.
    let (mut busy, mut look) = (Instant::now(), Instant::now());
    loop {
        let now = Instant::now();
        let since = now - begun;
        let deadline = *stop.borrow();
        if deadline.is_some_and(|at| at <= now) {
            return;
        }
        let is_apart = relay.apart_at().is_some_and(|at| at <= now);
        backlog.set_apart(is_apart, &outlet);
        if look <= now || deadline.is_some() {
            look = now + LOOK;
            let drained = relay.outbox.drain();
            let events = drained.events.into_iter();
            let events =
                events.map(|(user, event)| (user, event.map_or(What::Lost(Some(1)), What::Event)));
            let lost = drained.lost.into_iter();
            let lost = lost.map(|(user, count)| (user, What::Lost(Some(count))));
            backlog.fill(events.chain(lost), &outlet);
        }
        backlog.lose(since, relay.take_lost());
        backlog.resume(since);
        if call.is_none() {
            let batch = backlog.batch(since, &outlet);
            call = batch.map(|batch| relay.call(batch));
        }
        let is_idle = call.is_none() && !backlog.has_turns();
        if !is_idle {
            busy = now;
        } else if backlog.is_empty() {
            relay.waits_not();
            if deadline.is_some() {
                return;
            }
        }
        // Whoever looks all the time is in the way of those who broadcast, and so is whoever has to be woken by them.
        let sleeps = is_idle && now - busy >= AWAKE;
        let look_due = (is_idle && !sleeps).then_some(look);
        // It may be the call that has no answer.
        let apart_due = relay.apart_at().filter(|_| !is_apart);
        let again_due = backlog.due().map(|due| begun + due);
        let due = [look_due, again_due, deadline, apart_due];
        let due = due.into_iter().flatten().min();
        tokio::select! {
            published = answer(&mut call) => {
                let call = call.take().expect("it has answered");
                let answer = match published {
                    Ok(published) => backlog::Answer::Outcomes(published.into_iter().map(Outcome::from).collect()),
                    Err(error) if error.is_closed() => return,
                    Err(error) => {
                        tracing::debug!(error = with_causes(&error), "not published");
                        match error.is_unavailable() {
                            true => backlog::Answer::Unavailable,
                            false => backlog::Answer::Failed,
                        }
                    }
                };
                if backlog.settle(begun.elapsed(), call.batch, answer, &outlet) {
                    relay.waits_not();
                }
            }
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            () = relay.outbox.wait(), if sleeps || is_apart => (busy, look) = (Instant::now(), now),
            () = relay.restored.notified() => backlog.hurry(begun.elapsed()),
            () = relay.has_lost.notified() => {}
            _ = stop.changed() => {}
        }
    }
}

/// A batch that the engine was given.
struct Call {
    answer: Guarded<'static, Vec<Published>>,
    batch: Batch<UserId, Outgoing>,
}

async fn answer(call: &mut Option<Call>) -> Result<Vec<Published>, BackplaneError> {
    match call {
        Some(call) => (&mut call.answer).await,
        None => std::future::pending().await,
    }
}

impl From<Published> for Outcome<BackplaneError> {
    fn from(published: Published) -> Self {
        match published {
            Published::Accepted(_) => Self::Accepted,
            Published::Refused { permanent, reason } => Self::Refused { permanent, reason },
            Published::Unknown(_) => Self::Unknown,
        }
    }
}

/// The rest of the node, as the [`Backlog`] sees it.
struct Node<'a> {
    relay: &'a Relay,
    registry: &'a Weak<Users>,
}

impl Outlet<UserId, Outgoing> for Node<'_> {
    type Reason = BackplaneError;

    fn is_replayable(&self) -> bool {
        self.relay.level == Level::Replayable
    }

    fn epoch(&self) -> Option<u64> {
        self.relay.epoch()
    }

    fn duplicate_window(&self) -> Duration {
        self.relay.backplane.duplicate_window()
    }

    fn message_id(&self) -> u128 {
        self.relay.message_id()
    }

    fn len_of(&self, item: &Item) -> usize {
        match &item.what {
            What::Event(event) => event.body.len() + item.shown.map_or(0, |_| backplane::SHOWN),
            What::Lost(_) => backplane::HEAD,
        }
    }

    fn show(&self, user: &UserId, event: &Outgoing, number: u64) -> bool {
        if backplane::is_complete(&event.body) {
            return false;
        }
        let show = |channel: &_| self.relay.show(channel, event.body.clone(), number);
        let registry = self.registry.upgrade();
        registry.and_then(|users| users.with(user, show)).is_some()
    }

    fn published(&self, what: What<Outgoing>) {
        self.relay.counters.published.add(1);
        if let What::Event(event) = what {
            self.relay.answer(event, Ok(()));
        }
    }

    fn failed(&self, event: Outgoing, reason: Failure) {
        let counters = &self.relay.counters;
        let (counter, error) = match reason {
            Failure::Refused => (&counters.refused, RelayError::Refused),
            Failure::Unconfirmed => (&counters.unconfirmed, RelayError::Unconfirmed),
        };
        counter.add(1);
        self.relay.answer(event, Err(error));
    }

    fn refused(&self, user: &UserId, reason: &BackplaneError) {
        self.relay.warn_refused(user, reason);
    }
}

type Item = backlog::Item<Outgoing>;

impl Relay {
    /// Hands a batch to the engine.
    fn call(&self, batch: Batch<UserId, Outgoing>) -> Call {
        let items = batch.items.iter();
        let items = items.flat_map(|(user, items)| items.iter().map(move |item| (user, item)));
        let message = |(user, item): (&UserId, &Item)| Message {
            user: user.clone(),
            id: item.id.expect("what is in a batch has one"),
            body: match (&item.what, item.shown) {
                (What::Event(event), Some(number)) => backplane::shown(&event.body, number),
                (What::Event(event), None) => event.body.clone(),
                (What::Lost(count), _) => backplane::lost(self.node, *count),
            },
        };
        let messages: Vec<Message> = items.map(message).collect();
        self.waits_since(Instant::now());
        let backplane = self.backplane.clone();
        Call {
            answer: guarded(move || async move { backplane.publish(&messages).await }),
            batch,
        }
    }

    fn answer(&self, event: Outgoing, outcome: Result<(), RelayError>) {
        self.outbox.give_back(event.place);
        if let Some(confirm) = event.confirm {
            // The caller may have given up.
            let _ = confirm.send(outcome);
        }
    }
}
