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
use crate::backplane::{self, BackplaneError, Level, Message, Published};
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
#[derive(Default)]
struct Batch {
    messages: Vec<Message>,
    /// Of each message.
    notes: Vec<Note>,
}

/// Beside a message that is published.
struct Note {
    confirm: Option<Confirm>,
    is_deferred: bool,
    /// What is lost if it is.
    lost: Lost,
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
        let mut batch = Batch::default();
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
        let (body, note) = if let Some(event) = lane.events.pop_front() {
            let note = Note {
                confirm: event.confirm,
                is_deferred: event.is_deferred,
                lost: Lost {
                    count: None,
                    last: event.first,
                },
            };
            (event.body, note)
        } else if let Some(lost) = lane.lost.0.pop_front() {
            let note = Note {
                confirm: None,
                is_deferred: false,
                lost,
            };
            (backplane::lost(relay.node, lost.last, lost.count), note)
        } else {
            return 0;
        };
        let size = body.len();
        self.notes.push(note);
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
    mut batch: Batch,
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
        match published {
            Ok(published) => {
                batch = relay.settle_all(registry, batch, published, backlog);
                if batch.messages.is_empty() {
                    return Ok(());
                }
            }
            Err(error) => {
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
                    for (message, note) in batch.messages.into_iter().zip(batch.notes) {
                        relay.counters.unconfirmed.add(1);
                        backlog.lose(message.user, note.lost);
                    }
                    return Ok(());
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_RETRY),
            () = relay.restored.notified() => pause = RETRY,
            _ = stop.changed() => {}
        }
    }
}

impl Relay {
    /// Notes the outcome of each message. Those that are to be published again.
    fn settle_all(
        &self,
        registry: &Weak<Users>,
        batch: Batch,
        published: Vec<Published>,
        backlog: &mut Backlog,
    ) -> Batch {
        let mut again = Batch::default();
        let notes = batch.messages.into_iter().zip(batch.notes);
        for ((message, note), published) in notes.zip(published) {
            let lost = match published {
                Published::Accepted(position) => {
                    self.counters.published.add(1);
                    self.settle(registry, &message.user, note.is_deferred, position);
                    if let Some(confirm) = note.confirm {
                        // The caller may have given up.
                        let _ = confirm.send(());
                    }
                    continue;
                }
                Published::Refused {
                    permanent: true,
                    reason,
                } => {
                    tracing::warn!(
                        user = message.user.as_str(),
                        error = crate::error::with_causes(&reason),
                        "the engine refuses an event"
                    );
                    self.counters.refused.add(1);
                    Lost {
                        count: note.lost.count.or(Some(1)),
                        ..note.lost
                    }
                }
                Published::Unknown(_) if self.level == Level::AtMostOnce => {
                    self.counters.unconfirmed.add(1);
                    note.lost
                }
                Published::Refused { .. } | Published::Unknown(_) => {
                    again.messages.push(message);
                    again.notes.push(note);
                    continue;
                }
            };
            backlog.lose(message.user, lost);
        }
        again
    }

    /// What was broadcast to users without a channel is published. A channel that is opened from now on begins behind it.
    fn settle(
        &self,
        registry: &Weak<Users>,
        user: &UserId,
        is_deferred: bool,
        position: Option<backplane::Position>,
    ) {
        let (Some(at), Some(registry)) = (position, registry.upgrade()) else {
            return;
        };
        if let Some(upstream) = registry.retention().upstream() {
            let (epoch, position) = (at.epoch, at.offset);
            upstream.advance(Head { epoch, position });
        }
        if is_deferred {
            let hash = registry.hash(user);
            self.outbox.settle(hash, user, at.offset);
            let at = registry.with(user, |channel| channel.remote());
            self.outbox.defers(hash, user, at);
        }
    }
}
