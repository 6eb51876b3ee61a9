//! The real `Wanted`, and what stands between it and the engine: the task that tells the adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use super::engine::User;
use super::stretch::Ticket;
use super::wanted::{Answer, Wanted};

/// Which client waits, at which of its visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Waiter {
    pub(super) client: usize,
    pub(super) visit: u8,
}

impl Ticket for Waiter {
    fn is_closed(&self) -> bool {
        // That a client has gone may be noticed late.
        false
    }
}

#[derive(Debug, Clone)]
pub(super) struct Interests {
    wanted: Wanted<User, Waiter>,
    /// What the adapter is being told.
    call: BTreeMap<User, bool>,
    /// Users of the adapter, and whether their messages come.
    pub(super) hears: BTreeMap<User, bool>,
}

impl Interests {
    pub(super) fn new() -> Self {
        Self {
            wanted: Wanted::new(),
            call: BTreeMap::new(),
            hears: BTreeMap::new(),
        }
    }

    /// A stream of this user has begun.
    pub(super) fn begin(&mut self, user: User) -> Answer {
        self.wanted.begin(&user)
    }

    pub(super) fn wait(&mut self, user: User, waiter: Waiter) -> bool {
        self.wanted.wait(&user, waiter);
        // It was dropped if there is an answer.
        let interest = &self.wanted.users[&user];
        !interest.waiters.contains(&waiter)
    }

    pub(super) fn has_answer(&self, user: User) -> bool {
        let interest = self.wanted.users.get(&user);
        interest.is_some_and(|interest| interest.answer != Answer::Nothing)
    }

    pub(super) fn note_ready(&mut self, user: User) -> Option<(Vec<Waiter>, bool)> {
        self.wanted.note_ready(&user)
    }

    pub(super) fn note_unheard(&mut self, user: User) -> Option<(Vec<Waiter>, bool)> {
        self.wanted.note_unheard(&user)
    }

    pub(super) fn withdraw(&mut self, user: User, has_channel: bool) {
        self.wanted.withdraw(&user, |_| has_channel);
    }

    pub(super) fn look(&mut self, has_channel: impl Fn(&User) -> bool) {
        self.wanted.look(has_channel);
    }

    pub(super) fn has_changes(&self) -> bool {
        self.call.is_empty() && !self.wanted.changes.is_empty()
    }

    pub(super) fn is_telling(&self) -> bool {
        !self.call.is_empty()
    }

    /// The task hands over what has changed.
    pub(super) fn tell(&mut self) {
        self.call = self.wanted.take_changes().into_iter().collect();
    }

    /// The adapter has noted it, or not. Returns users that were added and whose messages come already: it says so again.
    pub(super) fn note(&mut self, is_noted: bool) -> Vec<User> {
        let mut ready = Vec::new();
        for (user, is_in) in std::mem::take(&mut self.call) {
            match (is_noted, is_in) {
                (false, _) => self.wanted.put_back(user, is_in),
                (true, true) => {
                    let hears = self.hears.entry(user).or_insert(false);
                    ready.extend(hears.then_some(user));
                }
                (true, false) => drop(self.hears.remove(&user)),
            }
        }
        ready
    }

    fn sorted(&self) -> impl Hash + Eq {
        let users = self.wanted.users.clone().into_iter();
        let changes = self.wanted.changes.clone().into_iter();
        let users: BTreeMap<_, _> = users.collect();
        let changes: BTreeMap<_, _> = changes.collect();
        let left: BTreeSet<_> = self.wanted.left.iter().copied().collect();
        (users, changes, left, self.call.clone(), self.hears.clone())
    }
}

impl PartialEq for Interests {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

impl Eq for Interests {}

impl Hash for Interests {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sorted().hash(state);
    }
}
