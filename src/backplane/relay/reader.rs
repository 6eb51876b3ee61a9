//! What is read from the engine's log, and when: the decisions, without tasks, clocks and locks.
//!
//! A channel learns of a message when it arrives, and of a missing one when the next one does. Nothing announces a last
//! message that does not arrive; so the end of each user's log is asked for, of all users within about a minute, and
//! immediately when messages may have been lost.
//!
//! Whatever is read is read here. Of each user at most two reads go on, one for the channel and one for the streams, and
//! users take turns. A read for streams begins where the first of them is, and all that are within it get it: ten thousand
//! screens of one user that come back cost as much as one.
//!
//! While a channel is repaired, what arrives for it and is not next in line is dropped, and the log is read up to that as
//! well. So nothing has to be kept, and the last thing that arrived is never missed.
//!
//! [`Reads`](super::reads::Reads) says what has happened and when, and does what follows from it. `tests/relay_model` drives
//! the same code through every order of faults, up to a bound.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::pause::{LONGEST_PAUSE, longer};
use super::signals::{Copies, Counted, Delayed, Input, LogCopy, Order, Purpose};
use super::stretch::{Entry, Request, Stretch, Ticket, Waiting};
use crate::backplane::{Head, MAX_HEADS, Missing};
use crate::channel::{Accepted, Standing};
use crate::position::{Place, Position};

/// Reads at the same time.
const READS: usize = 64;
/// Requests for the ends of logs at the same time.
const REQUESTS: usize = 4;
/// How many times some of the users are compared with the log until all were.
const ROUND: usize = 45;
/// An engine that has answered nobody for so long is away.
const SILENCE: Duration = Duration::from_secs(5);

type Key<U> = (U, Purpose);

/// Times are since any moment, the same for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reader<U, T, I> {
    patience: Duration,
    /// Users to compare, in order.
    to_compare: VecDeque<U>,
    requests: usize,
    /// Users that are left of this round.
    round: Vec<U>,
    per_tick: usize,
    /// What has to be read. Each is in `turns`, is being read, or rests before it is read again.
    reads: BTreeMap<Key<U>, Read<T>>,
    turns: VecDeque<Key<U>>,
    running: usize,
    /// When the engine has answered last, and when it has last answered a read.
    answered: Duration,
    read_answered: Duration,
    orders: Vec<Order<U, T, I>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Read<T> {
    /// For the channel: its log is known to have something up to here.
    until: Option<Position>,
    /// Since when it has made no progress although the engine answers.
    since: Duration,
    /// For streams: those that wait.
    waiting: Waiting<T>,
    /// Once it has begun, and until it is answered: when the engine had last answered a read before.
    renewed: Option<Duration>,
    /// Before it is read again.
    pause: Duration,
}

impl<U: Clone + Ord, T: Ticket, I: Entry> Reader<U, T, I> {
    pub(super) fn new(now: Duration, patience: Duration) -> Self {
        Self {
            patience,
            to_compare: VecDeque::new(),
            requests: 0,
            round: Vec::new(),
            per_tick: 0,
            reads: BTreeMap::new(),
            turns: VecDeque::new(),
            running: 0,
            answered: now,
            read_answered: now,
            orders: Vec::new(),
        }
    }

    /// Takes in what has happened, changes channels accordingly, and says what else is to be done.
    pub(super) fn handle<M>(
        &mut self,
        now: Duration,
        input: Input<U, M, T, I>,
        copies: &mut impl Copies<U, M>,
    ) -> Vec<Order<U, T, I>> {
        match input {
            Input::Message(user, place, message) => {
                self.receive(now, user, place, message, copies);
            }
            Input::Behind(mut users) => {
                // A channel that is opened later is compared then.
                users.retain(|user| copies.with(user, |_| ()).is_some());
                self.compare(users);
            }
            Input::Changed => self.compare_all(copies.users()),
            Input::Reset => {
                self.orders.push(Order::Follow);
                self.compare_all(copies.users());
            }
            Input::Request(user, request) => {
                let read = self.read(now, (user, Purpose::Resume));
                read.waiting.push(request);
            }
            Input::Tick => {
                for read in self.reads.values_mut() {
                    let late = read.lose_patience(now, self.read_answered, self.patience);
                    answer(&mut self.orders, late, None);
                }
                self.tick(|| copies.users());
            }
            Input::Heads(users, answer) => self.has_heads(now, users, answer, copies),
            Input::Repaired(user, after, answer) => {
                self.has_repaired(now, user, after, answer, copies);
            }
            Input::Resumed(user, after, answer) => {
                self.has_resumed(now, user, after, answer, copies);
            }
            Input::Due(Delayed::Read(user, purpose)) => self.turns.push_back((user, purpose)),
            Input::Due(Delayed::Compare(users)) => {
                self.requests -= 1;
                self.compare(users);
            }
        }
        self.start(copies);
        std::mem::take(&mut self.orders)
    }

    fn receive<M>(
        &mut self,
        now: Duration,
        user: U,
        place: Place,
        message: M,
        copies: &mut impl Copies<U, M>,
    ) {
        match copies.with(&user, |copy| copy.append(message, place)) {
            None => self.orders.push(Order::Count(Counted::Unwanted)),
            Some(Accepted::OutOfOrder) => self.repair(now, user, place.position),
            Some(Accepted::Elsewhere) => {
                // Behind that place there may be this message.
                copies.with(&user, |copy| copy.follow());
                self.compare(vec![user]);
            }
            Some(Accepted::Delivered(_) | Accepted::Duplicate | Accepted::Complete) => {}
        }
    }

    /// Compares a part of all users.
    fn tick(&mut self, users: impl FnOnce() -> Vec<U>) {
        // The engine is slower than that, or silent.
        if !self.to_compare.is_empty() || self.requests > 0 {
            return;
        }
        if self.round.is_empty() {
            self.round = users();
            self.per_tick = self.round.len().div_ceil(ROUND);
        }
        let left = self.round.len().saturating_sub(self.per_tick);
        let users = self.round.split_off(left);
        self.compare(users);
    }

    /// Compares these users' channels with the log.
    fn compare(&mut self, users: Vec<U>) {
        self.to_compare.extend(users);
        while self.requests < REQUESTS && !self.to_compare.is_empty() {
            let count = self.to_compare.len().min(MAX_HEADS);
            let users = self.to_compare.drain(..count).collect();
            self.requests += 1;
            self.orders.push(Order::Compare(users));
        }
    }

    /// Compares all channels with the log.
    fn compare_all(&mut self, users: Vec<U>) {
        // Those who wait already are among them.
        self.to_compare.clear();
        self.compare(users);
    }

    /// Reads what a user's channel lacks, at least up to there.
    fn repair(&mut self, now: Duration, user: U, until: Position) {
        self.orders.push(Order::Count(Counted::Hole));
        self.read(now, (user, Purpose::Repair)).reach(now, until);
    }

    fn read(&mut self, now: Duration, key: Key<U>) -> &mut Read<T> {
        let turns = &mut self.turns;
        self.reads.entry(key.clone()).or_insert_with(|| {
            turns.push_back(key);
            Read {
                until: None,
                since: now,
                waiting: Waiting::default(),
                renewed: None,
                pause: Duration::ZERO,
            }
        })
    }

    fn start<M>(&mut self, copies: &mut impl Copies<U, M>) {
        while self.running < READS {
            let Some(key) = self.turns.pop_front() else {
                return;
            };
            let read = self.reads.get_mut(&key).expect("it is in `turns`");
            let after = match key.1 {
                Purpose::Repair => {
                    let place = copies.with(&key.0, |copy| copy.place()).flatten();
                    // Offsets of the log before say nothing of this one, which the channel is compared with anyway.
                    place.filter(|place| read.until.is_some_and(|until| until.epoch == place.epoch))
                }
                Purpose::Resume => read.waiting.first(),
            };
            let Some(after) = after else {
                // Nobody is there any more, or the log is another one.
                self.reads.remove(&key);
                continue;
            };
            self.running += 1;
            read.renewed.get_or_insert(self.read_answered);
            self.orders.push(Order::Read(key.0, key.1, after));
        }
    }

    fn has_heads<M>(
        &mut self,
        now: Duration,
        users: Vec<U>,
        answer: Option<Vec<Head>>,
        copies: &mut impl Copies<U, M>,
    ) {
        match answer {
            Some(heads) => {
                self.requests -= 1;
                self.answered = now;
                for (user, head) in users.into_iter().zip(heads) {
                    match copies.with(&user, |copy| copy.compare(head)) {
                        Some(Standing::Behind) => self.repair(now, user, head.newest),
                        Some(Standing::Elsewhere) => {
                            copies.with(&user, |copy| copy.follow());
                        }
                        Some(Standing::Level) | None => {}
                    }
                }
                self.compare(Vec::new());
            }
            None => {
                let again = Delayed::Compare(users);
                self.orders.push(Order::Delay(LONGEST_PAUSE, again));
            }
        }
    }

    fn has_repaired<M>(
        &mut self,
        now: Duration,
        user: U,
        after: Position,
        answer: Option<Stretch<M>>,
        copies: &mut impl Copies<U, M>,
    ) {
        self.running -= 1;
        let key = (user, Purpose::Repair);
        let read = self.reads.get_mut(&key).expect("it was being read");
        let patience = self.patience;
        // Whether it gives up what is known to be missing.
        let mut is_over = false;
        let mut is_done = match answer {
            None => {
                is_over = read.fail(now, self.answered) >= patience;
                false
            }
            Some(part) => {
                (self.answered, self.read_answered) = (now, now);
                let (through, head) = (part.through.offset, part.head);
                let is_here = copies.with(&key.0, |copy| append(copy, after, part));
                if is_here != Some(true) {
                    // It is read again from where the channel is, if there is one.
                    false
                } else if head.epoch != after.epoch {
                    true
                } else {
                    read.answer(now, through > after.offset);
                    let is_done = through >= read.reach(now, head).offset;
                    // Promised and not given: the log has dropped it, perhaps.
                    is_over = !is_done && now.saturating_sub(read.since) >= patience;
                    is_done
                }
            }
        };
        if let Some(until) = read.until.filter(|_| is_over) {
            let lacks = |copy: &mut dyn LogCopy<M>| copy.tell_missing(None, Place::up_to(until));
            copies.with(&key.0, lacks);
            is_done = true;
        }
        self.go_on(key, is_done);
    }

    fn has_resumed<M>(
        &mut self,
        now: Duration,
        user: U,
        after: Position,
        answered: Option<Stretch<I>>,
        copies: &mut impl Copies<U, M>,
    ) {
        self.running -= 1;
        // A stream may read further than its channel is, which ends in its turn.
        let end = answered.as_ref().and_then(Stretch::end);
        if let Some(end) = end {
            let standing = copies.with(&user, |copy| copy.find_end(end));
            if standing == Some(Standing::Behind) {
                self.repair(now, user.clone(), end.position);
            }
        }
        let key = (user, Purpose::Resume);
        let read = self.reads.get_mut(&key).expect("it was being read");
        let (orders, patience) = (&mut self.orders, self.patience);
        match answered {
            Some(part) if part.head.epoch != after.epoch => {
                let is_of_old = |request: &Request<T>| request.after.epoch == after.epoch;
                answer(orders, read.waiting.take(is_of_old), None);
            }
            None => {
                read.fail(now, self.answered);
                let late = read.lose_patience(now, self.read_answered, patience);
                answer(orders, late, None);
            }
            Some(part) => {
                (self.answered, self.read_answered) = (now, now);
                read.answer(now, part.through.offset > after.offset);
                let stretch = Arc::new(part);
                let is_served = |request: &Request<T>| stretch.serves(request.after);
                let served = read.waiting.take(is_served);
                answer(orders, served, Some(&stretch));
                if !read.pause.is_zero() {
                    let is_late = |request: &Request<T>| request.has_waited(now) >= patience;
                    answer(orders, read.waiting.take(is_late), None);
                }
            }
        }
        let is_done = read.waiting.is_empty();
        self.go_on(key, is_done);
    }

    /// It was read.
    fn go_on(&mut self, key: Key<U>, is_done: bool) {
        let pause = self.reads[&key].pause;
        if is_done {
            self.reads.remove(&key);
        } else if pause.is_zero() {
            // Behind those who wait already.
            self.turns.push_back(key);
        } else {
            let again = Delayed::Read(key.0, key.1);
            self.orders.push(Order::Delay(pause, again));
        }
    }
}

impl<T: Ticket> Read<T> {
    /// The channel's log has something up to here. Returns up to where it is known to have something.
    fn reach(&mut self, now: Duration, until: Position) -> Position {
        let known = self.until.filter(|known| known.epoch == until.epoch);
        if known.is_none() {
            self.since = now;
        }
        let furthest = known.map_or(until, |known| Position {
            offset: known.offset.max(until.offset),
            ..until
        });
        *self.until.insert(furthest)
    }

    /// Takes out streams that have waited for too long, be it for their turn, for an answer, or for one that does not fail.
    ///
    /// It may be slow because very many ask: until this user's turn, each answer to a read renews the patience of all. The
    /// last one came at `answered`.
    fn lose_patience(
        &mut self,
        now: Duration,
        answered: Duration,
        patience: Duration,
    ) -> Vec<Request<T>> {
        let renewed = self.renewed.unwrap_or(answered);
        self.waiting
            .take(|request| now.saturating_sub(request.since.max(renewed)) >= patience)
    }

    /// It was answered.
    fn answer(&mut self, now: Duration, is_further: bool) {
        self.renewed = None;
        if is_further {
            self.since = now;
            self.pause = Duration::ZERO;
        } else {
            // Not yet: there is more, and the server that answered does not have it.
            self.pause = longer(self.pause);
        }
    }

    /// It has failed, and the last answer to anybody came at `answered`. Returns for how long it has failed while others were
    /// answered: if the engine is silent, nothing is missing yet.
    fn fail(&mut self, now: Duration, answered: Duration) -> Duration {
        if self.pause.is_zero() || now.saturating_sub(answered) >= SILENCE {
            self.since = now;
        }
        self.pause = longer(self.pause);
        answered.saturating_sub(self.since)
    }
}

/// Appends what the log has after a place, or goes over to the log that there is. `false` if the channel is not there: it has
/// gone over to another log, or was closed and opened again further back. It would leave out what is in between.
fn append<M>(copy: &mut dyn LogCopy<M>, after: Position, part: Stretch<M>) -> bool {
    let place = copy.place().and_then(|place| place.compare(after));
    if place.is_none_or(Ordering::is_lt) {
        return false;
    }
    if part.head.epoch != after.epoch {
        copy.follow();
        return true;
    }
    let begins = Place::up_to(part.begins());
    match part.missing {
        Missing::Nothing => {}
        Missing::Messages(count) => copy.tell_missing(Some(count), begins),
        Missing::Unknown => copy.tell_missing(None, begins),
    }
    for (position, message) in part.messages {
        // What comes before it is here: the log was read from where the channel is.
        copy.append(message, Place::up_to(position));
    }
    copy.catch_up(part.through);
    true
}

/// Answers streams.
fn answer<U, T, I>(
    orders: &mut Vec<Order<U, T, I>>,
    requests: Vec<Request<T>>,
    stretch: Option<&Arc<Stretch<I>>>,
) {
    let answers = requests.into_iter();
    orders.extend(answers.map(|request| Order::Answer(request.ticket, stretch.cloned())));
}
