//! The task that publishes what waits in the outbox.
//!
//! At [`Level::Replayable`] a batch has at most one message of each user, and the user's next one goes out when the outcome
//! of that one is known: so a user's events are appended in their order, however often one of them has to be published
//! again. A user whose message fails waits; the others go on.
//!
//! - Accepted: done.
//! - Refused for good: the event is lost, and a count of lost events takes its place.
//! - Refused for now, or nothing was handed over: published again.
//! - Unknown, at [`Level::Replayable`]: published again as long as the engine recognizes it; after that, or when the log was
//!   replaced, it may be lost, and that is published in its place.
//! - Unknown or refused, at [`Level::AtMostOnce`]: the same, without a second attempt, which could deliver it twice.
//!
//! What is lost is published until it is accepted: of all messages it is the last that may be missing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Relay;
use super::guarded::guarded;
use super::outbox::{Haul, Outgoing};
use crate::backplane::{self, BackplaneError, Level, Message, Published};
use crate::error::{RelayError, with_causes};
use crate::id::UserId;

/// The most that is published at once.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
/// For how long the task looks again and again before it goes to sleep, and how often.
const AWAKE: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(1);
/// How long it waits before it tries again.
const RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_millis(500);

/// Runs until `stop` says until when, and everything is published that can be. Who waits for the rest is told.
pub(super) async fn run(relay: Arc<Relay>, stop: watch::Receiver<Option<Instant>>) {
    publish_all(&relay, stop).await;
    relay.outbox.close();
    drop(relay.outbox.take());
}

async fn publish_all(relay: &Relay, mut stop: watch::Receiver<Option<Instant>>) {
    let mut backlog = Backlog::default();
    let mut busy = Instant::now();
    let mut looked: Option<Instant> = None;
    loop {
        if backlog.turns.is_empty() {
            // Whoever looks all the time is in the way of those who broadcast.
            if let Some(looked) = looked.filter(|_| stop.borrow().is_none()) {
                sleep_until(looked + LOOK).await;
            }
            looked = Some(Instant::now());
        }
        backlog.fill(relay.outbox.take());
        backlog.resume(Instant::now());
        let deadline = *stop.borrow();
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return;
        }
        if !backlog.turns.is_empty() && backlog.held.is_none() {
            busy = Instant::now();
            let batch = backlog.batch(relay);
            match publish(relay, batch, &mut backlog, deadline).await {
                Step::On => continue,
                Step::End => return,
                Step::Wait => {}
            }
        } else if backlog.is_empty() {
            relay.waits_not();
            if deadline.is_some() {
                return;
            }
            if busy.elapsed() < AWAKE {
                continue;
            }
        }
        let due = [backlog.due(), deadline].into_iter().flatten().min();
        let pause = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = relay.outbox.wait(), if backlog.held.is_none() => busy = Instant::now(),
            () = pause => {}
            () = relay.restored.notified() => backlog.hurry(),
            _ = stop.changed() => {}
        }
        looked = None;
    }
}

/// How it goes on after a batch.
enum Step {
    On,
    /// The engine cannot be reached.
    Wait,
    End,
}

/// What was taken out of the outbox, user by user.
#[derive(Default)]
struct Backlog {
    lanes: HashMap<UserId, VecDeque<Item>>,
    /// Users with something to publish now.
    turns: VecDeque<UserId>,
    /// Users whose next message waits, and until when.
    paused: Vec<(Instant, UserId)>,
    /// Nothing is published until then: the engine cannot be reached.
    held: Option<Instant>,
    pause: Duration,
}

/// Something to publish.
struct Item {
    what: What,
    /// Its id, from the first attempt on.
    id: Option<u128>,
    /// When it was handed over the first time without an outcome, and in which log.
    unknown: Option<(Instant, Option<u64>)>,
    pause: Duration,
}

enum What {
    Event(Outgoing),
    /// So many events were lost, if that is known.
    Lost(Option<u64>),
}

impl From<What> for Item {
    fn from(what: What) -> Self {
        Self {
            what,
            id: None,
            unknown: None,
            pause: RETRY,
        }
    }
}

#[derive(Default)]
struct Batch {
    messages: Vec<Message>,
    items: Vec<Item>,
}

impl Backlog {
    fn lane(&mut self, user: &UserId) -> &mut VecDeque<Item> {
        if !self.lanes.contains_key(user) {
            self.turns.push_back(user.clone());
        }
        self.lanes.entry(user.clone()).or_default()
    }

    fn fill(&mut self, haul: Haul) {
        for (user, event) in haul.events {
            self.lane(&user).push_back(What::Event(event).into());
        }
        for (user, lost) in haul.lost {
            self.lane(&user).push_back(What::Lost(Some(lost)).into());
        }
    }

    /// Gives those their turn whose pause is over.
    fn resume(&mut self, now: Instant) {
        if self.held.is_some_and(|until| until > now) {
            return;
        }
        self.held = None;
        let turns = &mut self.turns;
        self.paused.retain(|(until, user)| {
            let is_due = *until <= now;
            if is_due {
                turns.push_back(user.clone());
            }
            !is_due
        });
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.paused.is_empty()
    }

    /// When something has to be done next.
    fn due(&self) -> Option<Instant> {
        let first = self.paused.iter().map(|(until, _)| *until).min();
        self.held.or(first)
    }

    /// The engine is there again.
    fn hurry(&mut self) {
        self.held = None;
        self.pause = Duration::ZERO;
        let now = Instant::now();
        self.paused.iter_mut().for_each(|(until, _)| *until = now);
    }

    /// Publishes nothing for a while.
    fn hold(&mut self) {
        self.pause = (self.pause * 2).clamp(RETRY, LONGEST_RETRY);
        self.held = Some(Instant::now() + self.pause);
    }

    fn batch(&mut self, relay: &Relay) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while batch.messages.len() < BATCH && bytes < BATCH_BYTES {
            let Some(user) = self.turns.pop_front() else {
                break;
            };
            let Some(lane) = self.lanes.get_mut(&user) else {
                continue;
            };
            let at_most = match relay.level {
                Level::AtMostOnce => BATCH - batch.messages.len(),
                Level::Replayable => 1,
            };
            for mut item in lane.drain(..at_most.min(lane.len())) {
                // The old log may have it, and the new one does not know it as the same.
                let is_of_another_log = |(_, log): (Instant, Option<u64>)| log != relay.epoch();
                if item.unknown.is_some_and(is_of_another_log) {
                    if let What::Event(_) = item.what {
                        relay.counters.unconfirmed.add(1);
                        relay.fail(item.what, RelayError::Unconfirmed);
                        item = What::Lost(None).into();
                    }
                }
                let id = *item.id.get_or_insert_with(|| relay.message_id());
                let body = match &item.what {
                    What::Event(event) => event.body.clone(),
                    What::Lost(count) => backplane::lost(relay.node, *count),
                };
                bytes += body.len();
                batch.items.push(item);
                batch.messages.push(Message {
                    user: user.clone(),
                    id,
                    body,
                });
            }
        }
        batch
    }

    /// A message was published, or is to be published before the user's next one. The lane was not touched meanwhile.
    fn put_back(&mut self, user: UserId, item: Item, pause: Option<Duration>) {
        self.lanes.entry(user.clone()).or_default().push_front(item);
        match pause {
            None => self.turns.push_front(user),
            Some(pause) => self.paused.push((Instant::now() + pause, user)),
        }
    }

    /// A message of this user is done.
    fn go_on(&mut self, user: UserId) {
        match self.lanes.get(&user) {
            Some(lane) if lane.is_empty() => {
                self.lanes.remove(&user);
            }
            Some(_) => self.turns.push_back(user),
            None => {}
        }
    }
}

async fn publish(
    relay: &Relay,
    mut batch: Batch,
    backlog: &mut Backlog,
    deadline: Option<Instant>,
) -> Step {
    let began = Instant::now();
    relay.waits_since(began);
    let epoch = relay.epoch();
    let published = guarded(relay.backplane.publish(&batch.messages));
    let published = match deadline {
        None => published.await,
        Some(at) => timeout_at(at, published)
            .await
            .unwrap_or(Err(BackplaneError::closed())),
    };
    let published = match published {
        Ok(published) => published,
        Err(error) if error.is_closed() => return Step::End,
        Err(error) if error.is_unavailable() => {
            for (message, item) in batch.messages.into_iter().zip(batch.items).rev() {
                backlog.put_back(message.user, item, None);
            }
            backlog.hold();
            return Step::Wait;
        }
        Err(error) => {
            tracing::debug!(error = with_causes(&error), "not published");
            Vec::new()
        }
    };
    backlog.pause = Duration::ZERO;
    relay.waits_not();
    let mut outcomes = published.into_iter();
    let messages = std::mem::take(&mut batch.messages).into_iter();
    // One after the other, so that what takes a message's place stands before the user's next one. At most once, a batch may
    // have several of one user, and what takes a place comes after all of them.
    for (message, item) in messages.zip(batch.items) {
        let outcome = outcomes.next();
        settle(relay, backlog, (began, epoch), message.user, item, outcome);
    }
    Step::On
}

/// Does what the outcome of a message asks for.
fn settle(
    relay: &Relay,
    backlog: &mut Backlog,
    (began, epoch): (Instant, Option<u64>),
    user: UserId,
    mut item: Item,
    outcome: Option<Published>,
) {
    let lost = match outcome {
        Some(Published::Accepted(_)) => {
            relay.counters.published.add(1);
            if let What::Event(event) = item.what {
                relay.outbox.give_back(event.place);
                if let Some(confirm) = event.confirm {
                    // The caller may have given up.
                    let _ = confirm.send(Ok(()));
                }
            }
            return backlog.go_on(user);
        }
        Some(Published::Refused {
            permanent: true,
            reason,
        }) if matches!(item.what, What::Event(_)) => {
            relay.warn_refused(&user, &reason);
            Some(1)
        }
        Some(Published::Refused {
            permanent: true, ..
        }) if relay.level == Level::Replayable => {
            // Not even that something was lost: nothing of this user is accepted. What waits behind it would only wait.
            if let What::Lost(count) = &mut item.what {
                let lane = backlog.lanes.entry(user.clone()).or_default();
                for behind in lane.drain(..) {
                    let lost = relay.fail(behind.what, RelayError::Refused);
                    *count = count.zip(lost).map(|(one, other)| one + other);
                }
            }
            let pause = item.pause;
            item.pause = (pause * 2).min(LONGEST_RETRY);
            return backlog.put_back(user, item, Some(pause));
        }
        Some(Published::Refused { .. })
            if relay.level == Level::Replayable || matches!(item.what, What::Lost(_)) =>
        {
            let pause = item.pause;
            item.pause = (pause * 2).min(LONGEST_RETRY);
            return backlog.put_back(user, item, Some(pause));
        }
        Some(Published::Refused { .. } | Published::Unknown(_)) | None => {
            let (since, log) = *item.unknown.get_or_insert((began, epoch));
            let window = relay.backplane.duplicate_window().mul_f64(0.75);
            let is_lost = matches!(item.what, What::Lost(_));
            let may_repeat = relay.level == Level::Replayable
                && log == relay.epoch()
                && since.elapsed() + item.pause < window;
            if may_repeat || is_lost {
                let pause = item.pause;
                item.pause = (pause * 2).min(LONGEST_RETRY);
                return backlog.put_back(user, item, Some(pause));
            }
            relay.counters.unconfirmed.add(1);
            None
        }
    };
    let reason = match lost {
        Some(_) => RelayError::Refused,
        None => RelayError::Unconfirmed,
    };
    relay.fail(item.what, reason);
    let lane = backlog.lanes.entry(user.clone()).or_default();
    match lane.front_mut().map(|item| &mut item.what) {
        Some(What::Lost(count)) => *count = count.zip(lost).map(|(one, other)| one + other),
        _ => lane.push_front(What::Lost(lost).into()),
    }
    backlog.go_on(user);
}

impl Relay {
    /// Gives up something that waited; says how many events are lost by it.
    fn fail(&self, what: What, reason: RelayError) -> Option<u64> {
        let event = match what {
            What::Lost(count) => return count,
            What::Event(event) => event,
        };
        self.outbox.give_back(event.place);
        if reason == RelayError::Refused {
            self.counters.refused.add(1);
        }
        if let Some(confirm) = event.confirm {
            // The caller may have given up.
            let _ = confirm.send(Err(reason));
        }
        Some(1)
    }
}
