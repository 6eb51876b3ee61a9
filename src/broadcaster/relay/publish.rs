//! The task that publishes what waits in the outbox.
//!
//! At [`Level::Replayable`] a batch has at most one event of each user, and the next one goes out when all of them are
//! accepted: so a user's events are appended in their order, however often some of them have to be published again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Relay;
use super::inbox::Users;
use super::outbox::{Confirm, Haul, Losses, Lost, Outgoing};
use crate::backplane::{self, BackplaneError, Level, Message};
use crate::channel::Head;
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
pub(super) async fn run(
    relay: Arc<Relay>,
    registry: Weak<Users>,
    stop: watch::Receiver<Option<Instant>>,
) {
    publish_all(&relay, registry, stop).await;
    relay.outbox.close();
    drop(relay.outbox.take());
}

async fn publish_all(
    relay: &Relay,
    registry: Weak<Users>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let mut backlog = Backlog::default();
    let mut busy = Instant::now();
    let mut looked: Option<Instant> = None;
    loop {
        if backlog.is_empty() {
            // Whoever looks all the time is in the way of those who broadcast.
            if let Some(looked) = looked.filter(|_| stop.borrow().is_none()) {
                sleep_until(looked + LOOK).await;
            }
            looked = Some(Instant::now());
            backlog.fill(relay.outbox.take());
        }
        if !backlog.is_empty() {
            busy = Instant::now();
            let batch = backlog.batch(relay);
            let deadline = *stop.borrow();
            if publish(relay, &registry, batch, &mut backlog, &mut stop)
                .await
                .is_err()
                || deadline.is_some_and(|at| at <= Instant::now())
            {
                return;
            }
            continue;
        }
        relay.behind_since(None);
        if stop.borrow().is_some() {
            return;
        }
        if busy.elapsed() < AWAKE {
            continue;
        }
        tokio::select! {
            () = relay.outbox.wait() => busy = Instant::now(),
            _ = stop.changed() => {}
        }
        looked = None;
    }
}

/// What was taken out of the outbox, user by user.
#[derive(Default)]
struct Backlog {
    lanes: HashMap<UserId, Lane>,
    /// Whose turn it is.
    turns: VecDeque<UserId>,
}

#[derive(Default)]
struct Lane {
    events: VecDeque<Outgoing>,
    lost: Losses,
}

/// What is published at once, and who is to learn of it.
struct Batch {
    messages: Vec<Message>,
    confirms: Vec<Confirm>,
    deferred: Vec<UserId>,
    /// Events in it, and the last of each user: what is lost if it is.
    lost: Vec<(UserId, Lost)>,
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn lane(&mut self, user: UserId) -> &mut Lane {
        if !self.lanes.contains_key(&user) {
            self.turns.push_back(user.clone());
        }
        self.lanes.entry(user).or_default()
    }

    fn fill(&mut self, haul: Haul) {
        for event in haul.events {
            self.lane(event.user.clone()).events.push_back(event);
        }
        for (user, losses) in haul.lost {
            for lost in losses.0 {
                self.lose(user.clone(), lost);
            }
        }
    }

    /// What is lost of a user comes behind what is not.
    fn lose(&mut self, user: UserId, lost: Lost) {
        self.lane(user).lost.add(lost);
    }

    fn batch(&mut self, relay: &Relay) -> Batch {
        let mut batch = Batch {
            messages: Vec::new(),
            confirms: Vec::new(),
            deferred: Vec::new(),
            lost: Vec::new(),
        };
        let mut bytes = 0;
        for _ in 0..self.turns.len() {
            if batch.messages.len() >= BATCH || bytes >= BATCH_BYTES {
                break;
            }
            let Some(user) = self.turns.pop_front() else {
                break;
            };
            let mut lane = self.lanes.remove(&user).unwrap_or_default();
            loop {
                let before = batch.messages.len();
                bytes += batch.add(relay, &user, &mut lane);
                let is_done = batch.messages.len() == before;
                if is_done || relay.level == Level::Replayable || batch.messages.len() >= BATCH {
                    break;
                }
            }
            if !lane.events.is_empty() || !lane.lost.0.is_empty() {
                self.lanes.insert(user.clone(), lane);
                self.turns.push_back(user);
            }
        }
        batch
    }
}

impl Batch {
    /// Adds the next of a user, and says how large it is.
    fn add(&mut self, relay: &Relay, user: &UserId, lane: &mut Lane) -> usize {
        let (body, lost) = if let Some(event) = lane.events.pop_front() {
            let lost = Lost {
                count: None,
                last: event.first,
            };
            self.confirms.extend(event.confirm);
            if event.is_deferred {
                self.deferred.push(user.clone());
            }
            (event.body, lost)
        } else if let Some(lost) = lane.lost.0.pop_front() {
            (backplane::lost(relay.node, lost.last, lost.count), lost)
        } else {
            return 0;
        };
        let size = body.len();
        self.lost.push((user.clone(), lost));
        self.messages.push(Message {
            user: user.clone(),
            id: relay.message_id(),
            body,
        });
        size
    }
}

/// Publishes a batch; an error if it is time to stop.
async fn publish(
    relay: &Relay,
    registry: &Weak<Users>,
    batch: Batch,
    backlog: &mut Backlog,
    stop: &mut watch::Receiver<Option<Instant>>,
) -> Result<(), ()> {
    relay.behind_since(Some(Instant::now()));
    let mut pause = RETRY;
    loop {
        let published = relay.backplane.publish(&batch.messages);
        let deadline = *stop.borrow();
        let published = match deadline {
            None => published.await,
            Some(at) => timeout_at(at, published)
                .await
                .unwrap_or(Err(BackplaneError::closed())),
        };
        let error = match published {
            Ok(position) => {
                relay.settle(registry, &batch.deferred, position);
                relay.counters.published.add(batch.messages.len() as u64);
                for confirm in batch.confirms {
                    // Whoever waited may have given up.
                    let _ = confirm.send(());
                }
                return Ok(());
            }
            Err(error) => error,
        };
        tracing::debug!(
            messages = batch.messages.len(),
            error = crate::error::with_causes(&error),
            "not published"
        );
        if error.is_closed() {
            return Err(());
        }
        if relay.level == Level::AtMostOnce && !error.is_unavailable() {
            // Nobody knows which of them arrived, and to publish them again would send some twice.
            for (user, lost) in batch.lost {
                relay.counters.unconfirmed.add(1);
                backlog.lose(user, lost);
            }
            return Ok(());
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_RETRY),
            () = relay.restored.notified() => pause = RETRY,
            _ = stop.changed() => {}
        }
    }
}

impl Relay {
    /// What was broadcast to users without a channel is published. A channel that is opened from now on begins behind it.
    fn settle(
        &self,
        registry: &Weak<Users>,
        deferred: &[UserId],
        position: Option<backplane::Position>,
    ) {
        let (Some(position), Some(registry)) = (position, registry.upgrade()) else {
            return;
        };
        if let Some(upstream) = registry.retention().upstream() {
            let (epoch, position) = (upstream.epoch(), position.0);
            upstream.advance(Head { epoch, position });
        }
        for user in deferred {
            let hash = registry.hash(user);
            self.outbox.settle(hash, user, position.0);
            let at = registry.with(user, |channel| channel.remote());
            self.outbox.defers(hash, user, at);
        }
    }
}
