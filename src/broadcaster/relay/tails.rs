//! Compares channels with the engine's log, and reads from it what they lack.
//!
//! A channel learns of a message when it arrives, and of a missing one when the next one does. Nothing announces a last
//! message that does not arrive; so the end of each user's log is asked for, of all users within about a minute, and
//! immediately when messages may have been lost. Requests are bounded in number and size; who waits longest is next.
//!
//! While a channel is repaired, what arrives for it and is not next in line is dropped, and the log is read up to that as
//! well. So nothing has to be kept, and the last thing that arrived is never missed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Relay;
use super::calls::guarded;
use super::inbox::{Users, tell_missing, users_of};
use super::returning::CHUNK;
use crate::backplane::{
    BackplaneError, Envelope, Fetched, Head, MAX_HEADS, Missing, Place, Position,
};
use crate::channel::{Standing, Taken};
use crate::id::UserId;

/// Users that are repaired at once.
const REPAIRS: usize = 64;
/// Requests for the ends of logs at once.
const REQUESTS: usize = 4;
/// How long it waits before it asks again.
const RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// Ticks, which come once a second, until every user was compared.
const ROUND: usize = 45;

pub(super) struct Tails {
    relay: Arc<Relay>,
    tasks: JoinSet<Done>,
    /// Users to compare, in order.
    to_compare: VecDeque<UserId>,
    requests: usize,
    /// Users that are left of this round.
    round: Vec<UserId>,
    per_tick: usize,
    /// Users that are repaired, or wait for it.
    repairs: HashMap<UserId, Repair>,
    to_repair: VecDeque<UserId>,
    running: usize,
}

struct Repair {
    /// The log is known to have something up to here.
    until: u64,
    /// Since when it has not got on.
    since: Instant,
    pause: Duration,
}

/// What the engine has answered.
pub(super) enum Done {
    Heads(Vec<UserId>, Result<Vec<Head>, BackplaneError>),
    Fetched(UserId, Position, Result<Fetched, BackplaneError>),
}

impl Tails {
    pub(super) fn new(relay: Arc<Relay>) -> Self {
        Self {
            relay,
            tasks: JoinSet::new(),
            to_compare: VecDeque::new(),
            requests: 0,
            round: Vec::new(),
            per_tick: 0,
            repairs: HashMap::new(),
            to_repair: VecDeque::new(),
            running: 0,
        }
    }

    /// The next answer. May be dropped without losing one.
    pub(super) async fn next(&mut self) -> Done {
        loop {
            match self.tasks.join_next().await {
                None => std::future::pending().await,
                Some(Ok(done)) => return done,
                Some(Err(error)) => {
                    tracing::error!(error = error.to_string(), "asking the backplane panicked");
                }
            }
        }
    }

    /// Once a second: compares a part of all users.
    pub(super) fn tick(&mut self, registry: &Users) {
        // The engine is slower than that, or silent.
        if !self.to_compare.is_empty() || self.requests > 0 {
            return;
        }
        if self.round.is_empty() {
            self.round = users_of(registry);
            self.per_tick = self.round.len().div_ceil(ROUND);
        }
        let left = self.round.len().saturating_sub(self.per_tick);
        let users = self.round.split_off(left);
        self.compare(users);
    }

    /// Compares these users' channels with the log.
    pub(super) fn compare(&mut self, users: Vec<UserId>) {
        self.to_compare.extend(users);
        self.ask();
    }

    /// Compares all channels with the log.
    pub(super) fn compare_all(&mut self, registry: &Users) {
        // Those who wait already are among them.
        self.to_compare.clear();
        self.compare(users_of(registry));
    }

    fn ask(&mut self) {
        while self.requests < REQUESTS && !self.to_compare.is_empty() {
            let count = self.to_compare.len().min(MAX_HEADS);
            let users: Vec<UserId> = self.to_compare.drain(..count).collect();
            self.requests += 1;
            let backplane = self.relay.backplane.clone();
            self.tasks.spawn(async move {
                let heads = guarded(backplane.heads(&users)).await;
                if heads.as_ref().is_err_and(|error| !error.is_closed()) {
                    sleep(LONGEST_RETRY).await;
                }
                Done::Heads(users, heads)
            });
        }
    }

    /// Reads what a user's channel lacks, at least up to there.
    pub(super) fn repair(&mut self, registry: &Users, user: &UserId, until: u64) {
        if let Some(repair) = self.repairs.get_mut(user) {
            repair.until = repair.until.max(until);
            return;
        }
        let repair = Repair {
            until,
            since: Instant::now(),
            pause: Duration::ZERO,
        };
        self.repairs.insert(user.clone(), repair);
        self.to_repair.push_back(user.clone());
        self.start(registry);
    }

    fn start(&mut self, registry: &Users) {
        while self.running < REPAIRS {
            let Some(user) = self.to_repair.pop_front() else {
                return;
            };
            self.fetch(registry, user);
        }
    }

    fn fetch(&mut self, registry: &Users, user: UserId) {
        let after = registry.with(&user, |channel| channel.place()).flatten();
        let (Some(after), Some(repair)) = (after, self.repairs.get(&user)) else {
            // The user has gone.
            self.repairs.remove(&user);
            return;
        };
        self.running += 1;
        let pause = repair.pause;
        let backplane = self.relay.backplane.clone();
        self.tasks.spawn(async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let fetched = guarded(backplane.fetch(&user, after, CHUNK)).await;
            Done::Fetched(user, after, fetched)
        });
    }

    pub(super) fn finish(&mut self, registry: &Users, done: Done) {
        match done {
            Done::Heads(users, heads) => {
                self.requests -= 1;
                match heads {
                    Ok(heads) => {
                        self.relay.answered();
                        for (user, head) in users.into_iter().zip(heads) {
                            self.compared(registry, user, head);
                        }
                    }
                    Err(error) if error.is_closed() => {}
                    Err(_) => self.to_compare.extend(users),
                }
                self.ask();
            }
            Done::Fetched(user, after, fetched) => {
                self.running -= 1;
                self.fetched(registry, user, after, fetched);
                self.start(registry);
            }
        }
    }

    fn compared(&mut self, registry: &Users, user: UserId, head: Head) {
        let standing = registry.with(&user, |channel| channel.compare(head.newest, head.through));
        match standing {
            Some(Standing::Behind) => {
                self.relay.counters.holes.add(1);
                self.repair(registry, &user, head.newest.offset);
            }
            Some(Standing::Elsewhere) => self.relay.follow(registry, &user),
            Some(Standing::Level) | None => {}
        }
    }

    fn fetched(
        &mut self,
        registry: &Users,
        user: UserId,
        after: Position,
        fetched: Result<Fetched, BackplaneError>,
    ) {
        let Some(repair) = self.repairs.get_mut(&user) else {
            return;
        };
        match fetched {
            Err(error) if error.is_closed() => {
                self.repairs.remove(&user);
                return;
            }
            Err(_) => {
                // The engine is silent, and nothing is missing yet.
                repair.since = Instant::now();
                repair.pause = (repair.pause * 2).clamp(RETRY, LONGEST_RETRY);
            }
            Ok(fetched) if fetched.head.epoch != after.epoch => {
                self.relay.follow(registry, &user);
                self.repairs.remove(&user);
                return;
            }
            Ok(fetched) => {
                self.relay.answered();
                let (through, head) = (fetched.through.offset, fetched.head.offset);
                if through > after.offset {
                    repair.since = Instant::now();
                    repair.pause = Duration::ZERO;
                } else {
                    repair.pause = (repair.pause * 2).clamp(RETRY, LONGEST_RETRY);
                }
                repair.until = repair.until.max(head);
                self.relay.append(registry, &user, fetched);
                let is_done = through >= repair.until;
                // Whoever promised more does not give it: the log has dropped it, perhaps.
                let is_given_up = repair.since.elapsed() >= self.relay.patience;
                if is_given_up && !is_done {
                    let until = Position {
                        offset: repair.until,
                        ..after
                    };
                    registry.with(&user, |channel| tell_missing(channel, None, until));
                }
                if is_done || is_given_up {
                    self.repairs.remove(&user);
                    return;
                }
            }
        }
        // Behind those who wait already.
        self.to_repair.push_back(user);
    }
}

impl Relay {
    /// Appends what the log has after a channel's place.
    fn append(&self, registry: &Users, user: &UserId, fetched: Fetched) {
        let first = fetched.messages.first();
        // Up to here it is missing, if it is.
        let missing = Position {
            offset: first.map_or(fetched.through.offset, |(first, _)| first.offset - 1),
            ..fetched.through
        };
        registry.with(user, |channel| {
            match fetched.missing {
                Missing::Nothing => {}
                Missing::Messages(count) => tell_missing(channel, Some(count), missing),
                Missing::Unknown => tell_missing(channel, None, missing),
            }
            for (position, body) in fetched.messages {
                let Some(envelope) = Envelope::parse(body) else {
                    self.counters.foreign.add(1);
                    continue;
                };
                let place = Place {
                    position,
                    // What comes before it is here: the log was read from where the channel is.
                    previous: 0,
                };
                if let Taken::Sent(_) = self.take(channel, envelope, place) {
                    self.counters.fetched.add(1);
                }
            }
            channel.catch_up(fetched.through);
        });
    }
}
