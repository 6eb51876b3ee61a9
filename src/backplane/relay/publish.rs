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
//! What the engine [takes back](crate::backplane::Event::Lost) is lost as well, in a number that is not known.
//!
//! What is lost is published until it is accepted: of all messages it is the last that may be missing.
//!
//! Everything that is published again waits for one pause, which grows until nothing has to be published again. After a call
//! that failed as a whole, everything else waits for it as well.
//!
//! If streams here are to get events without the engine after a while ([`local_after`](crate::Builder::local_after)), they
//! are shown what waits once the engine has not answered for so long, and from then on what comes, until it answers. Only
//! what the engine was never given, or has refused: of everything else it may have a form that does not say that it was shown.
//!
//! A user who has a queue is in exactly one place: in `turns`, in `again`, or in the call.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Relay;
use super::calls::{Guarded, guarded};
use super::inbox::Users;
use super::outbox::{Drained, Outgoing};
use super::pause::{LONGEST_PAUSE, longer};
use crate::backplane::{self, BackplaneError, Level, Message, Published};
use crate::error::{RelayError, with_causes};
use crate::id::UserId;

/// The most that is published at once.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
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
    let mut backlog = Backlog::default();
    let mut call: Option<Call> = None;
    // When the outbox was not empty last, and when to look into it next.
    let (mut busy, mut look) = (Instant::now(), Instant::now());
    loop {
        let now = Instant::now();
        let deadline = *stop.borrow();
        if deadline.is_some_and(|at| at <= now) {
            return;
        }
        let is_apart = relay.apart_at().is_some_and(|at| at <= now);
        backlog.set_apart(relay, registry, is_apart);
        if look <= now || deadline.is_some() {
            look = now + LOOK;
            backlog.fill(relay, registry, relay.outbox.drain());
        }
        backlog.lose(relay.take_lost());
        backlog.resume(now);
        if call.is_none() && !backlog.is_held {
            call = backlog.call(relay);
        }
        let is_idle = call.is_none() && backlog.turns.is_empty();
        if !is_idle {
            busy = now;
        } else if backlog.again.is_empty() {
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
        let due = [look_due, backlog.due, deadline, apart_due];
        let due = due.into_iter().flatten().min();
        tokio::select! {
            published = answer(&mut call) => {
                let call = call.take().expect("it has answered");
                if backlog.settle(relay, call, published).is_break() {
                    return;
                }
            }
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            () = relay.outbox.wait(), if sleeps || is_apart => (busy, look) = (Instant::now(), now),
            () = relay.restored.notified() => backlog.hurry(),
            () = relay.has_lost.notified() => {}
            _ = stop.changed() => {}
        }
    }
}

/// A batch that the engine was given.
struct Call {
    answer: Guarded<'static, Vec<Published>>,
    batch: Vec<(UserId, Vec<Item>)>,
    began: Instant,
    /// Of the log that there was.
    epoch: Option<u64>,
}

async fn answer(call: &mut Option<Call>) -> Result<Vec<Published>, BackplaneError> {
    match call {
        Some(call) => (&mut call.answer).await,
        None => std::future::pending().await,
    }
}

/// What was taken out of the outbox, user by user.
#[derive(Default)]
struct Backlog {
    queues: HashMap<UserId, VecDeque<Item>>,
    /// Users with something to publish now.
    turns: VecDeque<UserId>,
    /// Users whose next message is published again.
    again: Vec<UserId>,
    /// When that is.
    due: Option<Instant>,
    pause: Duration,
    /// Nothing else is published until then.
    is_held: bool,
    /// Streams here get events without the engine.
    is_apart: bool,
    /// How many they have got.
    shown: u64,
}

/// Something to publish.
struct Item {
    what: What,
    /// Its id, from the first attempt on.
    id: Option<u128>,
    /// When it was handed over the first time without an outcome, and in which log.
    unknown: Option<(Instant, Option<u64>)>,
    /// Streams here have it, under this number.
    shown: Option<u64>,
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
            shown: None,
        }
    }
}

/// What follows from an outcome.
enum Next {
    Done,
    Again,
    Lost(RelayError),
}

impl Backlog {
    /// Shows streams here what waits, once the engine has been away for long enough.
    fn set_apart(&mut self, relay: &Relay, registry: &Weak<Users>, is_apart: bool) {
        if is_apart && !self.is_apart {
            for (user, queue) in &mut self.queues {
                for item in queue {
                    item.show(relay, registry, user, &mut self.shown);
                }
            }
        }
        self.is_apart = is_apart;
    }

    fn fill(&mut self, relay: &Relay, registry: &Weak<Users>, drained: Drained) {
        let lost = drained.lost.into_iter();
        let lost = lost.map(|(user, count)| (user, What::Lost(Some(count))));
        let events = drained.events.into_iter();
        let events = events.map(|(user, event)| (user, What::Event(event)));
        for (user, what) in events.chain(lost) {
            let mut item = Item::from(what);
            if self.is_apart {
                item.show(relay, registry, &user, &mut self.shown);
            }
            match self.queues.get_mut(&user) {
                Some(queue) => queue.push_back(item),
                None => {
                    self.turns.push_back(user.clone());
                    self.queues.insert(user, [item].into());
                }
            }
        }
    }

    /// Of these users something was lost that counted as published. If nothing of them is accepted any more, that is noticed
    /// late as well: hence the pause.
    fn lose(&mut self, users: impl IntoIterator<Item = UserId>) {
        for user in users {
            let Some(queue) = self.queues.get_mut(&user) else {
                self.queues
                    .insert(user.clone(), [What::Lost(None).into()].into());
                self.again.push(user);
                self.due.get_or_insert(Instant::now() + LONGEST_PAUSE);
                continue;
            };
            match queue.back_mut().map(|item| &mut item.what) {
                Some(What::Lost(count)) => *count = None,
                _ => queue.push_back(What::Lost(None).into()),
            }
        }
    }

    /// Gives those their turn who are tried again, if it is time.
    fn resume(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.is_held = false;
            self.turns.extend(self.again.drain(..));
        }
    }

    /// The engine is there again.
    fn hurry(&mut self) {
        self.pause = Duration::ZERO;
        self.due = self.due.map(|_| Instant::now());
    }

    /// Gives the engine what comes next, if there is something.
    fn call(&mut self, relay: &Relay) -> Option<Call> {
        let mut batch = Vec::new();
        let mut messages: Vec<Message> = Vec::new();
        let mut bytes = 0;
        let epoch = relay.epoch();
        while messages.len() < BATCH && bytes < BATCH_BYTES {
            let Some(user) = self.turns.pop_front() else {
                break;
            };
            let queue = self
                .queues
                .get_mut(&user)
                .expect("whose turn it is has one");
            let at_most = match relay.level {
                Level::AtMostOnce => BATCH - messages.len(),
                Level::Replayable => 1,
            };
            let mut items: Vec<Item> = queue.drain(..at_most.min(queue.len())).collect();
            for item in &mut items {
                item.leave_log(relay, epoch);
                let body = match &item.what {
                    What::Event(event) => match item.shown {
                        Some(number) => backplane::shown(&event.body, number),
                        None => event.body.clone(),
                    },
                    What::Lost(count) => backplane::lost(relay.node, *count),
                };
                bytes += body.len();
                messages.push(Message {
                    user: user.clone(),
                    id: *item.id.get_or_insert_with(|| relay.message_id()),
                    body,
                });
            }
            batch.push((user, items));
        }
        if messages.is_empty() {
            return None;
        }
        let began = Instant::now();
        relay.waits_since(began);
        let backplane = relay.backplane.clone();
        Some(Call {
            answer: guarded(move || async move { backplane.publish(&messages).await }),
            batch,
            began,
            epoch,
        })
    }

    /// Does what the outcomes ask for. Breaks when the backplane is closed.
    fn settle(
        &mut self,
        relay: &Relay,
        call: Call,
        published: Result<Vec<Published>, BackplaneError>,
    ) -> ControlFlow<()> {
        let (mut outcomes, is_unavailable) = match published {
            Ok(published) => {
                // A log without a leader or a quorum refuses everything for now: that is an outage.
                let is_answer = |outcome: &_| match outcome {
                    Published::Accepted(_) => true,
                    Published::Refused { permanent, .. } => *permanent,
                    Published::Unknown(_) => false,
                };
                if published.iter().any(is_answer) {
                    relay.waits_not();
                }
                (published.into_iter(), false)
            }
            Err(error) if error.is_closed() => return ControlFlow::Break(()),
            Err(error) => {
                tracing::debug!(error = with_causes(&error), "not published");
                self.is_held = true;
                (Vec::new().into_iter(), error.is_unavailable())
            }
        };
        for (user, items) in call.batch {
            let queue = self.queues.get_mut(&user).expect("it was in the call");
            let mut left: VecDeque<Item> = VecDeque::new();
            let mut is_repeated = false;
            for mut item in items {
                let outcome = outcomes.next();
                let next = match is_unavailable {
                    true => Next::Again,
                    false => item.judge(relay, (&user, queue), (call.began, call.epoch), outcome),
                };
                match next {
                    Next::Done => relay.published(item.what),
                    Next::Again => {
                        is_repeated = true;
                        left.push_back(item);
                    }
                    Next::Lost(reason) => {
                        relay.fail(item.what, reason);
                        let count = (reason == RelayError::Refused).then_some(1);
                        match left.back_mut().map(|item| &mut item.what) {
                            Some(What::Lost(before)) => *before = sum(*before, count),
                            _ => left.push_back(What::Lost(count).into()),
                        }
                    }
                }
            }
            left.append(queue);
            match (left.is_empty(), is_repeated) {
                (true, _) => drop(self.queues.remove(&user)),
                (false, true) => self.again.push(user.clone()),
                (false, false) => self.turns.push_back(user.clone()),
            }
            if let Some(queue) = self.queues.get_mut(&user) {
                *queue = left;
            }
        }
        if self.again.is_empty() && !self.is_held {
            self.pause = Duration::ZERO;
        } else if self.due.is_none() {
            self.pause = longer(self.pause);
            self.due = Some(Instant::now() + self.pause);
        }
        ControlFlow::Continue(())
    }
}

impl Item {
    /// Shows it to streams here, if the engine cannot have it.
    fn show(&mut self, relay: &Relay, registry: &Weak<Users>, user: &UserId, count: &mut u64) {
        let What::Event(event) = &self.what else {
            return;
        };
        if self.unknown.is_some() || self.shown.is_some() || backplane::is_complete(&event.body) {
            return;
        }
        let number = *count + 1;
        let show = |channel: &_| relay.show(channel, event.body.clone(), number);
        let registry = registry.upgrade();
        if registry.and_then(|users| users.with(user, show)).is_some() {
            *count = number;
            self.shown = Some(number);
        }
    }

    /// Gives up an event that another log than this one may have: this one would not recognize it.
    fn leave_log(&mut self, relay: &Relay, epoch: Option<u64>) {
        let is_in_another = self.unknown.is_some_and(|(_, log)| log != epoch);
        if is_in_another && matches!(self.what, What::Event(_)) {
            relay.counters.unconfirmed.add(1);
            let lost = What::Lost(None).into();
            relay.fail(std::mem::replace(self, lost).what, RelayError::Unconfirmed);
        }
    }

    fn judge(
        &mut self,
        relay: &Relay,
        (user, behind): (&UserId, &mut VecDeque<Item>),
        handed_over: (Instant, Option<u64>),
        outcome: Option<Published>,
    ) -> Next {
        let is_replayable = relay.level == Level::Replayable;
        match (outcome, &mut self.what) {
            (Some(Published::Accepted(_)), _) => Next::Done,
            (
                Some(Published::Refused {
                    permanent: true,
                    reason,
                }),
                What::Event(_),
            ) => {
                relay.warn_refused(user, &reason);
                Next::Lost(RelayError::Refused)
            }
            (
                Some(Published::Refused {
                    permanent: true, ..
                }),
                What::Lost(count),
            ) => {
                // Nothing of this user is accepted. What waits behind this would only wait.
                for item in behind.drain(..) {
                    *count = sum(*count, relay.fail(item.what, RelayError::Refused));
                }
                Next::Again
            }
            (Some(Published::Refused { .. }), _) if is_replayable => Next::Again,
            (_, What::Lost(_)) => Next::Again,
            (_, What::Event(_)) => {
                let (since, log) = *self.unknown.get_or_insert(handed_over);
                let window = relay.backplane.duplicate_window().mul_f64(0.75);
                let is_recognized = since.elapsed() + LONGEST_PAUSE < window;
                if is_replayable && log == relay.epoch() && is_recognized {
                    return Next::Again;
                }
                relay.counters.unconfirmed.add(1);
                Next::Lost(RelayError::Unconfirmed)
            }
        }
    }
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one? + other?)
}

impl Relay {
    /// The engine has it.
    fn published(&self, what: What) {
        self.counters.published.add(1);
        self.answer(what, Ok(()));
    }

    /// Gives up something that waited; says how many events are lost by it.
    fn fail(&self, what: What, reason: RelayError) -> Option<u64> {
        if let What::Lost(count) = what {
            return count;
        }
        if reason == RelayError::Refused {
            self.counters.refused.add(1);
        }
        self.answer(what, Err(reason));
        Some(1)
    }

    fn answer(&self, what: What, outcome: Result<(), RelayError>) {
        if let What::Event(event) = what {
            self.outbox.give_back(event.place);
            if let Some(confirm) = event.confirm {
                // The caller may have given up.
                let _ = confirm.send(outcome);
            }
        }
    }
}
