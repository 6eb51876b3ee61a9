//! Holding channels without a connection, and completing them.

use std::sync::Arc;

use super::{Change, Log, Registry, UserId};
use crate::channel::{Accepted, Roster};

impl<T: Clone + Send + 'static> Registry<T> {
    /// Keeps a user's channel open, a new one if there is none, until [`release`](Self::release); `None` if there is no room.
    pub(crate) fn hold(&self, user: &UserId) -> Option<Arc<Roster<T>>> {
        if !self.retention.away_users().take(1) {
            return None;
        }
        let hash = self.users.hash(user);
        let mut fresh = None;
        let roster = self.users.update(hash, user, |there| {
            if let Some(channel) = there.filter(|channel| channel.roster().hold()) {
                return Change::Leave(channel.roster().clone());
            }
            let channel = fresh.get_or_insert_with(|| {
                let log = Log::of_held(self.retention.clone());
                let channel = self.open(user, hash, Some(log), None);
                channel.roster().hold();
                channel
            });
            Change::Put(channel.clone(), channel.roster().clone())
        });
        if let Some(log) = roster.log() {
            log.come_back();
        }
        Some(roster)
    }

    /// Ends a hold of a channel.
    pub(crate) fn release(&self, roster: &Arc<Roster<T>>) {
        self.retention.away_users().give_back(1);
        self.settle(roster, roster.release());
    }

    /// Completes a user's channel, a new one if there is none; `None` if there is no room for that.
    pub(crate) fn complete(&self, user: &str) -> Option<Accepted> {
        loop {
            let completed = self.with(user, |channel| {
                let accepted = channel.roster().complete(None);
                // If the channel was closed before, no later call finds it complete: try again.
                (!channel.roster().is_closed()).then_some(accepted)
            });
            match completed.flatten() {
                Some(accepted) => return Some(accepted),
                None if self.open_for_unconnected(user) => {}
                None => return None,
            }
        }
    }
}
