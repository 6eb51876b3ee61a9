//! Whose events this node wants: [`Wanted`], in shards for callers of all threads, and the task that tells the engine.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::Relay;
use super::calls::guarded;
use super::copies::Users;
use super::pause::longer;
use super::wanted::{self, Answer};
use crate::error::with_causes;
use crate::id::UserId;
use crate::sync::lock;

const SHARDS: usize = 64;

/// Whoever waits is dropped when there is an answer. That wakes a task: not under the shard's lock.
type Wanted = wanted::Wanted<UserId, oneshot::Sender<()>>;

type Note = fn(&mut Wanted, &UserId) -> Option<(Vec<oneshot::Sender<()>>, bool)>;

pub(super) struct Interests {
    shards: Vec<Mutex<Wanted>>,
    hasher: RandomState,
    changed: Notify,
}

impl Interests {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Wanted::new())).collect(),
            hasher: RandomState::new(),
            changed: Notify::new(),
        }
    }

    fn shard(&self, user: &UserId) -> MutexGuard<'_, Wanted> {
        let shard = self.hasher.hash_one(user) as usize % SHARDS;
        lock(&self.shards[shard])
    }

    fn change<R>(&self, user: &UserId, f: impl FnOnce(&mut Wanted) -> R) -> R {
        let mut shard = self.shard(user);
        let result = f(&mut shard);
        if !shard.changes.is_empty() {
            self.changed.notify_one();
        }
        result
    }

    /// A stream of this user has begun. Says what the engine has said of the user.
    pub(super) fn begin(&self, user: &UserId) -> Answer {
        self.change(user, |wanted| wanted.begin(user))
    }

    /// Waits until a user's events arrive, or the engine says that they do not. Keeps the interest meanwhile.
    pub(super) async fn wait(&self, user: &UserId) {
        let (waiter, answered) = oneshot::channel();
        self.change(user, |wanted| wanted.wait(user, waiter));
        // Nothing is sent: the answer is that the waiter is dropped.
        drop(answered.await);
    }

    /// The engine sends what is published to these from now on. Those that are of interest, and of which a stream has begun
    /// before.
    pub(super) fn note_ready(&self, users: Vec<UserId>) -> Vec<(UserId, bool)> {
        self.note(users, Wanted::note_ready)
    }

    /// The engine does not send what is published to these. Those that are of interest, and of which that is new.
    pub(super) fn note_unheard(&self, users: Vec<UserId>) -> Vec<(UserId, bool)> {
        self.note(users, Wanted::note_unheard)
    }

    fn note(&self, users: Vec<UserId>, note: Note) -> Vec<(UserId, bool)> {
        let mut noted = Vec::with_capacity(users.len());
        for user in users {
            let answered = note(&mut self.shard(&user), &user);
            // The shard is unlocked here.
            if let Some((waiters, is_meant)) = answered {
                drop(waiters);
                noted.push((user, is_meant));
            }
        }
        noted
    }

    /// Takes a user out whose stream was refused, unless somebody else wants the user.
    pub(super) fn withdraw(&self, user: &UserId, registry: &Users) {
        self.change(user, |wanted| {
            wanted.withdraw(user, |user| registry.has(user));
        });
    }

    /// Takes out whom nobody wants any more.
    fn look(&self, registry: &Users) {
        for shard in &self.shards {
            lock(shard).look(|user| registry.has(user));
        }
    }

    /// What has changed since the last call: who is in, and who is out.
    fn take_changes(&self) -> (Vec<UserId>, Vec<UserId>) {
        let changes = self.shards.iter().map(|shard| lock(shard).take_changes());
        let (add, remove): (Vec<_>, Vec<_>) = changes.flatten().partition(|(_, is_in)| *is_in);
        let users = |pairs: Vec<(UserId, bool)>| pairs.into_iter().map(|(user, _)| user).collect();
        (users(add), users(remove))
    }

    /// The engine was not told of these.
    fn put_back(&self, add: Vec<UserId>, remove: Vec<UserId>) {
        let add = add.into_iter().map(|user| (user, true));
        for (user, is_in) in add.chain(remove.into_iter().map(|user| (user, false))) {
            self.shard(&user).put_back(user.clone(), is_in);
        }
        self.changed.notify_one();
    }

    /// How many users there are, and of how many of these the engine says that it does not send what is published to them.
    pub(super) fn count(&self) -> (usize, usize) {
        let counts = self.shards.iter().map(|shard| lock(shard).count());
        counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
}

/// Tells the engine, until `stop` has something.
pub(super) async fn run(
    relay: Arc<Relay>,
    registry: Weak<Users>,
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
            relay.set_connected(false);
            return;
        }
        if pause.is_zero() {
            let users = add.len() + remove.len();
            tracing::warn!(
                users,
                error = with_causes(&error),
                "interest was not set; trying again"
            );
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
