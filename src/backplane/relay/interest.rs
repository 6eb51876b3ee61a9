//! Whose events this node wants from the others: those of users that have a channel here, and for a while after.
//!
//! A stream says so when it has registered, so one that is refused adds nothing. What is no longer wanted is found by
//! looking: a user who has no channel at two looks in a row, and whom nobody has wanted in between, is taken out. So the
//! registry knows nothing of it, and users whose streams come and go are not added and taken out each time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::Relay;
use super::calls::guarded;
use super::pause::longer;
use crate::error::with_causes;
use crate::frame::Frame;
use crate::id::UserId;
use crate::registry::Registry;
use crate::sync::lock;

const SHARDS: usize = 64;

pub(super) struct Interests {
    shards: Vec<Mutex<HashMap<UserId, Interest>>>,
    hasher: RandomState,
    /// What the engine is to be told of users: in, or out.
    changes: Mutex<HashMap<UserId, bool>>,
    changed: Notify,
}

#[derive(Default)]
struct Interest {
    answer: Answer,
    /// Somebody has wanted it since the last look.
    is_wanted: bool,
    /// Dropped with the answer.
    waiters: Vec<oneshot::Sender<()>>,
    /// A stream has begun before it was ready.
    has_early: bool,
}

impl Interest {
    /// Notes the answer. Dropping the waiters that are returned wakes tasks: not under the shard's lock.
    #[must_use]
    fn answer(&mut self, answer: Answer) -> Vec<oneshot::Sender<()>> {
        self.answer = answer;
        std::mem::take(&mut self.waiters)
    }

    fn is_awaited(&self) -> bool {
        self.waiters.iter().any(|waiter| !waiter.is_closed())
    }
}

/// What the engine says of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Nothing,
    /// The user's events arrive.
    Ready,
    /// They do not, and the adapter goes on trying.
    Unheard,
}

impl Interests {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            changes: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn shard(&self, user: &UserId) -> MutexGuard<'_, HashMap<UserId, Interest>> {
        let shard = self.hasher.hash_one(user) as usize % SHARDS;
        lock(&self.shards[shard])
    }

    fn with<R>(&self, user: &UserId, f: impl FnOnce(&mut Interest) -> R) -> R {
        let mut shard = self.shard(user);
        if !shard.contains_key(user) {
            shard.insert(user.clone(), Interest::default());
            // Under the shard's lock, so that the changes of one user are in their order.
            lock(&self.changes).insert(user.clone(), true);
            self.changed.notify_one();
        }
        let interest = shard.get_mut(user).expect("it is there, or was put there");
        interest.is_wanted = true;
        f(interest)
    }

    /// A stream of this user has begun.
    pub(super) fn begin(&self, user: &UserId) {
        self.with(user, |interest| {
            interest.has_early |= interest.answer != Answer::Ready;
        });
    }

    /// Waits until a user's events arrive, or the engine says that they do not. Keeps the interest meanwhile.
    pub(super) async fn wait(&self, user: &UserId) {
        let (waiter, answered) = oneshot::channel();
        self.with(user, |interest| {
            interest.waiters.retain(|waiter| !waiter.is_closed());
            if interest.answer == Answer::Nothing {
                interest.waiters.push(waiter);
            }
        });
        // Nothing is sent: the answer is that the waiter is dropped.
        drop(answered.await);
    }

    /// The engine sends what is published to these from now on. Says for which of them a stream has begun before.
    pub(super) fn note_ready(&self, users: Vec<UserId>) -> Vec<(UserId, bool)> {
        let mut noted = Vec::with_capacity(users.len());
        for user in users {
            let note = |interest: &mut Interest| {
                let waiters = interest.answer(Answer::Ready);
                (waiters, std::mem::take(&mut interest.has_early))
            };
            // A user who was taken out meanwhile is no longer of interest.
            let answered = self.shard(&user).get_mut(&user).map(note);
            // The shard is unlocked here.
            if let Some((waiters, had_early)) = answered {
                drop(waiters);
                noted.push((user, had_early));
            }
        }
        noted
    }

    /// The engine does not send what is published to these.
    pub(super) fn note_unheard(&self, users: &[UserId]) {
        for user in users {
            let note = |interest: &mut Interest| {
                // What is published until it is ready does not arrive.
                interest.has_early = true;
                interest.answer(Answer::Unheard)
            };
            let waiters = self.shard(user).get_mut(user).map(note);
            // The shard is unlocked here.
            drop(waiters);
        }
    }

    /// Takes a user out whose stream was refused, unless somebody else wants the user.
    pub(super) fn withdraw(&self, user: &UserId, registry: &Registry<Arc<Frame>>) {
        let mut shard = self.shard(user);
        let is_awaited = shard.get(user).is_none_or(Interest::is_awaited);
        if is_awaited || registry.has(user) {
            return;
        }
        shard.remove(user);
        lock(&self.changes).insert(user.clone(), false);
        self.changed.notify_one();
    }

    /// Takes out whom nobody wants any more.
    fn look(&self, registry: &Registry<Arc<Frame>>) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let mut changes = lock(&self.changes);
            shard.retain(|user, interest| {
                let is_wanted = std::mem::take(&mut interest.is_wanted);
                let stays = is_wanted || interest.is_awaited() || registry.has(user);
                if !stays {
                    changes.insert(user.clone(), false);
                }
                stays
            });
        }
        self.changed.notify_one();
    }

    /// What has changed since the last call: who is in, and who is out.
    fn take_changes(&self) -> (Vec<UserId>, Vec<UserId>) {
        let changes = std::mem::take(&mut *lock(&self.changes));
        let (add, remove): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, is_in)| *is_in);
        let users = |pairs: Vec<(UserId, bool)>| pairs.into_iter().map(|(user, _)| user).collect();
        (users(add), users(remove))
    }

    /// The engine was not told of these. What has changed since is newer.
    fn put_back(&self, add: Vec<UserId>, remove: Vec<UserId>) {
        let mut changes = lock(&self.changes);
        let add = add.into_iter().map(|user| (user, true));
        for (user, is_in) in add.chain(remove.into_iter().map(|user| (user, false))) {
            changes.entry(user).or_insert(is_in);
        }
        self.changed.notify_one();
    }

    /// How many users there are, and of how many of these the engine says that it does not send what is published to them.
    pub(super) fn count(&self) -> (usize, usize) {
        let counts = self.shards.iter().map(|shard| {
            let shard = lock(shard);
            let unheard = shard
                .values()
                .filter(|interest| interest.answer == Answer::Unheard);
            (shard.len(), unheard.count())
        });
        counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
}

/// Tells the engine, until `stop` has something.
pub(super) async fn run(
    relay: Arc<Relay>,
    registry: Weak<Registry<Arc<Frame>>>,
    linger: Duration,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let mut looks = tokio::time::interval(linger);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = relay.interests.changed.notified() => {}
            _ = looks.tick() => {
                let Some(registry) = registry.upgrade() else {
                    return;
                };
                relay.interests.look(&registry);
            }
            _ = stop.changed() => return,
        }
        let (add, remove) = relay.interests.take_changes();
        if add.is_empty() && remove.is_empty() {
            continue;
        }
        let Err(error) = guarded(|| relay.backplane.set_interest(&add, &remove)).await else {
            pause = Duration::ZERO;
            continue;
        };
        if error.is_closed() {
            return;
        }
        if pause.is_zero() {
            let users = add.len() + remove.len();
            tracing::warn!(users, error = with_causes(&error), "interest is not noted");
        }
        // The next attempt is with what changes meanwhile: an engine may refuse a user who is then wanted no more.
        relay.interests.put_back(add, remove);
        pause = longer(pause);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => return,
        }
    }
}
