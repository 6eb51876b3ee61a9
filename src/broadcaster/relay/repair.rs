//! Reads from the engine's log what a channel lacks.
//!
//! While a user is being repaired, what comes for that user and is not next in line is dropped, and noted: there is one
//! more look into the log then. So nothing has to be kept, and the last thing that came is never missed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Relay;
use super::inbox::{Users, tell};
use crate::backplane::{
    BackplaneError, Envelope, Fetched, Head, MAX_HEADS, Missing, Place, Position,
};
use crate::channel::Taken;
use crate::id::UserId;

/// Users that are repaired at once.
const AT_ONCE: usize = 64;
/// Messages that are read at once.
pub(super) const CHUNK: usize = 128;
/// How long it waits before it asks again.
const RETRY: Duration = Duration::from_millis(100);

pub(super) struct Repairs {
    relay: Arc<Relay>,
    tasks: JoinSet<Done>,
    /// Those that are being repaired or wait for it, and whether one more look is needed.
    users: HashMap<UserId, bool>,
    waiting: VecDeque<UserId>,
    running: usize,
}

/// What the engine has answered.
pub(super) enum Done {
    Fetched(UserId, Result<Fetched, BackplaneError>),
    /// Where the logs of those users end who may lack something.
    Heads(Result<Vec<Head>, BackplaneError>, Vec<UserId>),
}

impl Repairs {
    pub(super) fn new(relay: Arc<Relay>) -> Self {
        Self {
            relay,
            tasks: JoinSet::new(),
            users: HashMap::new(),
            waiting: VecDeque::new(),
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
                    tracing::error!(error = error.to_string(), "asking the backplane panicked")
                }
            }
        }
    }

    /// Repairs those of the users who lack something.
    pub(super) fn look(&mut self, users: Vec<UserId>) {
        for users in users.chunks(MAX_HEADS) {
            let backplane = self.relay.backplane.clone();
            let users = users.to_vec();
            self.tasks
                .spawn(async move { Done::Heads(backplane.heads(&users).await, users) });
        }
    }

    /// Reads what a user's channel lacks.
    pub(super) fn repair(&mut self, registry: &Users, user: &UserId) {
        if let Some(again) = self.users.get_mut(user) {
            *again = true;
            return;
        }
        self.users.insert(user.clone(), false);
        self.waiting.push_back(user.clone());
        self.start(registry);
    }

    fn start(&mut self, registry: &Users) {
        while self.running < AT_ONCE {
            let Some(user) = self.waiting.pop_front() else {
                return;
            };
            if !self.fetch(registry, user.clone(), Duration::ZERO) {
                self.users.remove(&user);
            }
        }
    }

    /// `false` if the user has gone.
    fn fetch(&mut self, registry: &Users, user: UserId, pause: Duration) -> bool {
        let Some(offset) = registry.with(&user, |channel| channel.remote()) else {
            return false;
        };
        let epoch = registry.retention().upstream().map_or(0, |up| up.epoch());
        let after = Position { epoch, offset };
        self.running += 1;
        let backplane = self.relay.backplane.clone();
        self.tasks.spawn(async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let fetched = backplane.fetch(&user, after, CHUNK).await;
            Done::Fetched(user, fetched)
        });
        true
    }

    pub(super) fn finish(&mut self, registry: &Users, done: Done) {
        match done {
            Done::Heads(Ok(heads), users) => {
                for (user, head) in users.into_iter().zip(heads) {
                    let at = registry.with(&user, |channel| channel.remote());
                    if at.is_some_and(|at| at < head.newest.offset) {
                        self.repair(registry, &user);
                    }
                }
            }
            // Each finds out for itself.
            Done::Heads(Err(_), users) => {
                for user in users {
                    self.repair(registry, &user);
                }
            }
            Done::Fetched(user, fetched) => {
                self.running -= 1;
                let again = match fetched {
                    Ok(fetched) => {
                        let has_more = !fetched.is_complete();
                        let is_other = fetched.head.epoch != fetched.through.epoch;
                        if !is_other {
                            self.apply(registry, &user, fetched);
                        }
                        has_more.then_some(if is_other { RETRY } else { Duration::ZERO })
                    }
                    Err(error) if error.is_closed() => None,
                    Err(_) => Some(RETRY),
                };
                let was_noted = self.users.insert(user.clone(), false).unwrap_or(false);
                let again = again.or(was_noted.then_some(Duration::ZERO));
                let goes_on = again.is_some_and(|pause| self.fetch(registry, user.clone(), pause));
                if !goes_on {
                    self.users.remove(&user);
                }
                self.start(registry);
            }
        }
    }

    fn apply(&self, registry: &Users, user: &UserId, fetched: Fetched) {
        let counters = &self.relay.counters;
        registry.with(user, |channel| {
            match fetched.missing {
                Missing::Nothing => {}
                Missing::Messages(missing) => tell(channel, Some(missing)),
                Missing::Unknown => tell(channel, None),
            }
            for (position, body) in fetched.messages {
                let Some(envelope) = Envelope::parse(body) else {
                    counters.foreign.add(1);
                    continue;
                };
                let place = Place {
                    position,
                    // What comes before it is here: the log was read from where the channel is.
                    previous: 0,
                };
                if let Taken::Sent(_) = self.relay.take(channel, envelope, place) {
                    counters.fetched.add(1);
                }
            }
            channel.catch_up(fetched.through.offset);
        });
    }
}
