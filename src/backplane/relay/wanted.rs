//! Whose events this node wants from the others: those of users that have a channel here, and for a while after. The decisions,
//! without tasks, clocks and locks.
//!
//! A stream says so when it has registered, so one that is refused adds nothing. What is no longer wanted is found by
//! looking: a user who has no channel at two looks in a row, and whom nobody has wanted in between, is taken out. So the
//! registry knows nothing of it, and users whose streams come and go are not added and taken out each time.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::stretch::Ticket;

#[derive(Debug, Clone)]
pub(super) struct Wanted<U, W> {
    pub(super) users: HashMap<U, Interest<W>>,
    /// What the engine is to be told of users: in, or out.
    pub(super) changes: HashMap<U, bool>,
    /// Who was taken out since the last look, or before it and the engine was not told yet. What it said of them may still be on
    /// its way.
    pub(super) left: HashSet<U>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Interest<W> {
    pub(super) answer: Answer,
    /// Somebody has wanted it since the last look.
    is_wanted: bool,
    /// Those who wait for the answer.
    pub(super) waiters: Vec<W>,
    /// A stream has begun before it was ready.
    has_early: bool,
    /// What the engine says may answer an earlier interest that was withdrawn.
    is_doubtful: bool,
}

/// What the engine says of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Nothing,
    /// The user's events arrive.
    Ready,
    /// They do not, and the adapter goes on trying.
    Unheard,
}

/// Whether the channel of a stream that has just begun may be behind the log, and nothing else has it compared: the engine has
/// said already that the user's events arrive, before the channel was there, or they do not.
pub(super) fn is_behind(answer: Answer, is_untouched: bool) -> bool {
    match answer {
        // What it says next has it compared.
        Answer::Nothing => false,
        Answer::Ready => is_untouched,
        Answer::Unheard => true,
    }
}

impl<W: Ticket> Interest<W> {
    fn answer(&mut self, answer: Answer) -> Vec<W> {
        self.answer = answer;
        std::mem::take(&mut self.waiters)
    }

    fn is_awaited(&self) -> bool {
        self.waiters.iter().any(|waiter| !waiter.is_closed())
    }
}

impl<U: Clone + Eq + Hash, W: Ticket> Wanted<U, W> {
    pub(super) fn new() -> Self {
        Self {
            users: HashMap::new(),
            changes: HashMap::new(),
            left: HashSet::new(),
        }
    }

    fn want(&mut self, user: &U) -> &mut Interest<W> {
        if !self.users.contains_key(user) {
            let interest = Interest {
                answer: Answer::Nothing,
                is_wanted: false,
                waiters: Vec::new(),
                has_early: false,
                is_doubtful: self.left.remove(user),
            };
            self.users.insert(user.clone(), interest);
            self.changes.insert(user.clone(), true);
        }
        let interest = self.users.get_mut(user);
        let interest = interest.expect("it is there, or was put there");
        interest.is_wanted = true;
        interest
    }

    /// A stream of this user has begun. Says what the engine has said; after [`Answer::Nothing`] it will say something.
    pub(super) fn begin(&mut self, user: &U) -> Answer {
        let interest = self.want(user);
        interest.has_early |= interest.answer != Answer::Ready;
        interest.answer
    }

    /// Somebody waits until the engine says something of this user, and keeps the interest meanwhile. Whoever waits is dropped
    /// at once if it has.
    pub(super) fn wait(&mut self, user: &U, waiter: W) {
        let interest = self.want(user);
        interest.waiters.retain(|waiter| !waiter.is_closed());
        if interest.answer == Answer::Nothing {
            interest.waiters.push(waiter);
        }
    }

    /// The engine sends what is published to this user from now on. Returns those who wait, and whether a stream has begun
    /// before; nothing if the user was taken out meanwhile.
    pub(super) fn note_ready(&mut self, user: &U) -> Option<(Vec<W>, bool)> {
        let interest = self.users.get_mut(user)?;
        let had_early = std::mem::replace(&mut interest.has_early, interest.is_doubtful);
        Some((interest.answer(Answer::Ready), had_early))
    }

    /// The engine does not send what is published to this user. Returns those who wait, and whether that is new; nothing if
    /// the user was taken out meanwhile.
    pub(super) fn note_unheard(&mut self, user: &U) -> Option<(Vec<W>, bool)> {
        let interest = self.users.get_mut(user)?;
        // What is published until it is ready does not arrive.
        interest.has_early = true;
        let is_new = interest.answer != Answer::Unheard;
        Some((interest.answer(Answer::Unheard), is_new))
    }

    /// Takes a user out whose stream was refused, unless somebody else wants the user.
    pub(super) fn withdraw(&mut self, user: &U, has_channel: impl Fn(&U) -> bool) {
        let is_awaited = self.users.get(user).is_none_or(Interest::is_awaited);
        if !is_awaited && !has_channel(user) {
            self.users.remove(user);
            self.changes.insert(user.clone(), false);
            self.left.insert(user.clone());
        }
    }

    /// Takes out users whom nobody wants any more. By the next look, the node has handled what the engine said before it was told of
    /// this.
    pub(super) fn look(&mut self, has_channel: impl Fn(&U) -> bool) {
        let (changes, left) = (&mut self.changes, &mut self.left);
        left.retain(|user| changes.contains_key(user));
        self.users.retain(|user, interest| {
            interest.is_doubtful &= changes.contains_key(user);
            let is_wanted = std::mem::take(&mut interest.is_wanted);
            let stays = is_wanted || interest.is_awaited() || has_channel(user);
            if !stays {
                changes.insert(user.clone(), false);
                left.insert(user.clone());
            }
            stays
        });
    }

    /// What has changed since the last call: who is in, and who is out.
    pub(super) fn take_changes(&mut self) -> HashMap<U, bool> {
        std::mem::take(&mut self.changes)
    }

    /// The engine was not told of this. What has changed since is newer.
    pub(super) fn put_back(&mut self, user: U, is_in: bool) {
        self.changes.entry(user).or_insert(is_in);
    }

    /// How many users there are, and of how many of these the engine says that it does not send what is published to them.
    pub(super) fn count(&self) -> (usize, usize) {
        let interests = self.users.values();
        let unheard = interests.filter(|interest| interest.answer == Answer::Unheard);
        (self.users.len(), unheard.count())
    }
}
