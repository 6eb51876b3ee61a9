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
use crate::backplane::{BackplaneError, Envelope, Fetched, Head, Missing, Place, Position};
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
    /// Where it is, for those who may lack something.
    Head(Result<Head, BackplaneError>, Vec<UserId>),
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

    /// Asks the engine where it is.
    pub(super) fn ask_head(&mut self) {
        self.look(Vec::new());
    }

    /// Repairs those of the users who lack something.
    pub(super) fn look(&mut self, users: Vec<UserId>) {
        let backplane = self.relay.backplane.clone();
        self.tasks
            .spawn(async move { Done::Head(backplane.ask_head().await, users) });
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
        let Some(after) = registry.with(&user, |channel| channel.remote()) else {
            return false;
        };
        self.running += 1;
        let backplane = self.relay.backplane.clone();
        self.tasks.spawn(async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let fetched = backplane.fetch(&user, Position(after), CHUNK).await;
            Done::Fetched(user, fetched)
        });
        true
    }

    pub(super) fn finish(&mut self, registry: &Users, done: Done) {
        match done {
            Done::Head(Ok(head), users) => {
                if let Some(upstream) = registry.retention().upstream() {
                    upstream.advance(crate::channel::Head {
                        epoch: head.epoch,
                        position: head.position.0,
                    });
                }
                for user in users {
                    let at = registry.with(&user, |channel| channel.remote());
                    if at.is_some_and(|at| at < head.position.0) {
                        self.repair(registry, &user);
                    }
                }
            }
            // Each finds out for itself.
            Done::Head(Err(_), users) => {
                for user in users {
                    self.repair(registry, &user);
                }
            }
            Done::Fetched(user, fetched) => {
                self.running -= 1;
                let again = match fetched {
                    Ok(fetched) => {
                        let has_more = fetched.has_more;
                        self.apply(registry, &user, fetched);
                        has_more.then_some(Duration::ZERO)
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
                    previous: Position(0),
                };
                if let Taken::Sent(_) = self.relay.take(channel, envelope, place) {
                    counters.fetched.add(1);
                }
            }
            channel.catch_up(fetched.through.0);
        });
    }
}
