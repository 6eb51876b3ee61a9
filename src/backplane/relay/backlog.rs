//! What waits to be published, user by user: the decisions, without tasks, clocks and locks.
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

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::pause::{LONGEST_PAUSE, longer};

/// The most that is published at once.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// What the backlog needs of the rest of the node. `E` is an event, with whoever waits for its outcome.
pub(super) trait Outlet<U, E> {
    /// Why the engine refuses something.
    type Reason;

    /// Whether the engine has a log.
    fn is_replayable(&self) -> bool;

    /// Which log there is.
    fn epoch(&self) -> Option<u64>;

    /// For how long the engine recognizes a message that is published a second time.
    fn duplicate_window(&self) -> Duration;

    /// An id that no other message has.
    fn message_id(&self) -> u128;

    /// How long the message is that says this.
    fn len_of(&self, item: &Item<E>) -> usize;

    /// Shows an event to streams here, under this number. `false` if the user has none, or it is not to be shown.
    fn show(&self, user: &U, event: &E, number: u64) -> bool;

    /// The engine has it.
    fn published(&self, what: What<E>);

    /// It is given up.
    fn failed(&self, event: E, reason: Failure);

    /// The engine refuses an event for good.
    fn refused(&self, user: &U, reason: &Self::Reason);
}

/// Why an event is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Failure {
    /// The engine refuses it for good.
    Refused,
    /// The engine may have it, and would not recognize it any more.
    Unconfirmed,
}

/// What the engine did with a message; no outcome is [`Unknown`](Self::Unknown).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Outcome<R> {
    Accepted,
    Refused { permanent: bool, reason: R },
    Unknown,
}

/// What the engine did with a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer<R> {
    /// With each message, in their order.
    Outcomes(Vec<Outcome<R>>),
    /// Nothing was handed to it.
    Unavailable,
    /// Nobody knows.
    Failed,
}

/// What the engine is given at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Batch<U, E> {
    pub(super) items: Vec<(U, Vec<Item<E>>)>,
    began: Duration,
    /// Of the log that there was.
    epoch: Option<u64>,
}

/// What was taken out of the outbox, user by user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Backlog<U, E> {
    queues: BTreeMap<U, VecDeque<Item<E>>>,
    /// Users with something to publish now.
    turns: VecDeque<U>,
    /// Users whose next message is published again.
    again: Vec<U>,
    /// When that is.
    due: Option<Duration>,
    pause: Duration,
    /// Nothing else is published until then.
    is_held: bool,
    /// Streams here get events without the engine.
    is_apart: bool,
    /// How many they have got.
    shown: u64,
}

/// Something to publish.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Item<E> {
    pub(super) what: What<E>,
    /// Its id, from the first attempt on.
    pub(super) id: Option<u128>,
    /// When it was handed over the first time without an outcome, and in which log.
    unknown: Option<(Duration, Option<u64>)>,
    /// Streams here have it, under this number.
    pub(super) shown: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum What<E> {
    Event(E),
    /// So many events were lost, if that is known.
    Lost(Option<u64>),
}

impl<E> From<What<E>> for Item<E> {
    fn from(what: What<E>) -> Self {
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
    Lost(Failure),
}

impl<U: Clone + Ord, E> Backlog<U, E> {
    pub(super) fn new() -> Self {
        Self {
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            again: Vec::new(),
            due: None,
            pause: Duration::ZERO,
            is_held: false,
            is_apart: false,
            shown: 0,
        }
    }

    /// Whether there is something to publish now.
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.again.is_empty()
    }

    /// When something is published again.
    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Shows streams here what waits, once the engine has been away for long enough.
    pub(super) fn set_apart(&mut self, is_apart: bool, outlet: &impl Outlet<U, E>) {
        if is_apart && !self.is_apart {
            for (user, queue) in &mut self.queues {
                for item in queue {
                    item.show(user, &mut self.shown, outlet);
                }
            }
        }
        self.is_apart = is_apart;
    }

    /// Takes in what was broadcast, and what was lost of it, of each user in order.
    pub(super) fn fill(
        &mut self,
        broadcast: impl IntoIterator<Item = (U, What<E>)>,
        outlet: &impl Outlet<U, E>,
    ) {
        for (user, what) in broadcast {
            let mut item = Item::from(what);
            if self.is_apart {
                item.show(&user, &mut self.shown, outlet);
            }
            match self.queues.get_mut(&user) {
                Some(queue) => add(queue, item),
                None => {
                    self.turns.push_back(user.clone());
                    self.queues.insert(user, [item].into());
                }
            }
        }
    }

    /// Of these users something was lost that counted as published. If nothing of them is accepted any more, that is noticed
    /// late as well: hence the pause.
    pub(super) fn lose(&mut self, now: Duration, users: impl IntoIterator<Item = U>) {
        for user in users {
            let Some(queue) = self.queues.get_mut(&user) else {
                self.queues
                    .insert(user.clone(), [What::Lost(None).into()].into());
                self.again.push(user);
                self.due.get_or_insert(now + LONGEST_PAUSE);
                continue;
            };
            add(queue, What::Lost(None).into());
        }
    }

    /// Gives those their turn who are tried again, if it is time.
    pub(super) fn resume(&mut self, now: Duration) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.is_held = false;
            self.turns.extend(self.again.drain(..));
        }
    }

    /// The engine is there again.
    pub(super) fn hurry(&mut self, now: Duration) {
        self.pause = Duration::ZERO;
        self.due = self.due.map(|_| now);
    }

    /// What the engine is given next, if there is something. It is to be [settled](Self::settle) before the next one.
    pub(super) fn batch(
        &mut self,
        now: Duration,
        outlet: &impl Outlet<U, E>,
    ) -> Option<Batch<U, E>> {
        if self.is_held {
            return None;
        }
        let epoch = outlet.epoch();
        let mut items_of = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        while count < BATCH && bytes < BATCH_BYTES {
            let Some(user) = self.turns.pop_front() else {
                break;
            };
            let queue = self
                .queues
                .get_mut(&user)
                .expect("whose turn it is has one");
            let at_most = match outlet.is_replayable() {
                false => BATCH - count,
                true => 1,
            };
            let mut items: Vec<Item<E>> = queue.drain(..at_most.min(queue.len())).collect();
            for item in &mut items {
                item.give_up(now, epoch, outlet);
                item.id.get_or_insert_with(|| outlet.message_id());
                bytes += outlet.len_of(item);
            }
            count += items.len();
            items_of.push((user, items));
        }
        (count > 0).then_some(Batch {
            items: items_of,
            began: now,
            epoch,
        })
    }

    /// Does what the outcomes ask for. Says whether the engine has answered.
    pub(super) fn settle<O: Outlet<U, E>>(
        &mut self,
        now: Duration,
        batch: Batch<U, E>,
        answer: Answer<O::Reason>,
        outlet: &O,
    ) -> bool {
        self.is_held = !matches!(answer, Answer::Outcomes(_));
        let is_unavailable = matches!(answer, Answer::Unavailable);
        let outcomes = match answer {
            Answer::Outcomes(outcomes) => outcomes,
            Answer::Unavailable | Answer::Failed => Vec::new(),
        };
        // A log without a leader or a quorum refuses everything for now: that is an outage.
        let has_answered = outcomes.iter().any(|outcome| match outcome {
            Outcome::Accepted => true,
            Outcome::Refused { permanent, .. } => *permanent,
            Outcome::Unknown => false,
        });
        let mut outcomes = outcomes.into_iter();
        let handed_over = (batch.began, batch.epoch);
        for (user, items) in batch.items {
            let queue = self.queues.get_mut(&user).expect("it was in the call");
            let mut left: VecDeque<Item<E>> = VecDeque::new();
            let mut is_repeated = false;
            for mut item in items {
                let outcome = outcomes.next();
                let next = match is_unavailable {
                    true => Next::Again,
                    false => {
                        let outcome = outcome.unwrap_or(Outcome::Unknown);
                        item.judge(now, (&user, queue), handed_over, outcome, outlet)
                    }
                };
                match next {
                    Next::Done => outlet.published(item.what),
                    Next::Again => {
                        is_repeated = true;
                        add(&mut left, item);
                    }
                    Next::Lost(reason) => {
                        item.what.fail(reason, outlet);
                        let count = (reason == Failure::Refused).then_some(1);
                        add(&mut left, What::Lost(count).into());
                    }
                }
            }
            if let Some(next) = queue.pop_front() {
                add(&mut left, next);
            }
            left.into_iter()
                .rev()
                .for_each(|item| queue.push_front(item));
            match (queue.is_empty(), is_repeated) {
                (true, _) => drop(self.queues.remove(&user)),
                (false, true) => self.again.push(user),
                (false, false) => self.turns.push_back(user),
            }
        }
        if self.again.is_empty() && !self.is_held {
            self.pause = Duration::ZERO;
        } else if self.due.is_none() {
            self.pause = longer(self.pause);
            self.due = Some(now + self.pause);
        }
        has_answered
    }
}

impl<E> Item<E> {
    /// Shows it to streams here, if the engine cannot have it.
    fn show<U>(&mut self, user: &U, count: &mut u64, outlet: &impl Outlet<U, E>) {
        let What::Event(event) = &self.what else {
            return;
        };
        if self.unknown.is_some() || self.shown.is_some() {
            return;
        }
        let number = *count + 1;
        if outlet.show(user, event, number) {
            *count = number;
            self.shown = Some(number);
        }
    }

    /// Gives up an event that the engine may have and would not recognize: in another log than this one, or after a stop of
    /// this process.
    fn give_up<U>(&mut self, now: Duration, epoch: Option<u64>, outlet: &impl Outlet<U, E>) {
        if !self.is_recognized(now, epoch, outlet) && matches!(self.what, What::Event(_)) {
            let lost = What::Lost(None).into();
            let given_up = std::mem::replace(self, lost);
            given_up.what.fail(Failure::Unconfirmed, outlet);
        }
    }

    /// Whether the engine knows it again, if it has it.
    fn is_recognized<U>(
        &self,
        now: Duration,
        epoch: Option<u64>,
        outlet: &impl Outlet<U, E>,
    ) -> bool {
        self.unknown.is_none_or(|(since, log)| {
            let window = outlet.duplicate_window().mul_f64(0.75);
            log == epoch && now.saturating_sub(since) < window
        })
    }

    fn judge<U, O: Outlet<U, E>>(
        &mut self,
        now: Duration,
        (user, behind): (&U, &mut VecDeque<Item<E>>),
        handed_over: (Duration, Option<u64>),
        outcome: Outcome<O::Reason>,
        outlet: &O,
    ) -> Next {
        match (outcome, &mut self.what) {
            (Outcome::Accepted, _) => Next::Done,
            (
                Outcome::Refused {
                    permanent: true,
                    reason,
                },
                What::Event(_),
            ) => {
                outlet.refused(user, &reason);
                // The engine may have taken it when it was published before.
                Next::Lost(match self.unknown {
                    None => Failure::Refused,
                    Some(_) => Failure::Unconfirmed,
                })
            }
            (
                Outcome::Refused {
                    permanent: true, ..
                },
                What::Lost(count),
            ) => {
                // Nothing of this user is accepted. What waits behind this would only wait. It is another message then: the
                // log may have this one, before streams that lack what waited.
                if !behind.is_empty() {
                    self.id = None;
                }
                for item in behind.drain(..) {
                    *count = sum(*count, item.what.fail(Failure::Refused, outlet));
                }
                Next::Again
            }
            (Outcome::Refused { .. }, _) if outlet.is_replayable() => Next::Again,
            (_, What::Lost(_)) => Next::Again,
            (_, What::Event(_)) => {
                self.unknown.get_or_insert(handed_over);
                let then = now + LONGEST_PAUSE;
                if outlet.is_replayable() && self.is_recognized(then, outlet.epoch(), outlet) {
                    return Next::Again;
                }
                Next::Lost(Failure::Unconfirmed)
            }
        }
    }
}

impl<E> What<E> {
    /// Gives it up; says how many events are lost by it.
    fn fail<U>(self, reason: Failure, outlet: &impl Outlet<U, E>) -> Option<u64> {
        match self {
            Self::Lost(count) => count,
            Self::Event(event) => {
                outlet.failed(event, reason);
                Some(1)
            }
        }
    }
}

/// Puts an item behind the others. Losses that follow each other are one item, however many there are.
fn add<E>(queue: &mut VecDeque<Item<E>>, item: Item<E>) {
    let (Some(last), What::Lost(count)) = (queue.back_mut(), &item.what) else {
        queue.push_back(item);
        return;
    };
    match &mut last.what {
        What::Lost(before) => {
            *before = sum(*before, *count);
            // It is another message then: the log may have the one that says less.
            last.id = None;
        }
        What::Event(_) => queue.push_back(item),
    }
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one? + other?)
}
