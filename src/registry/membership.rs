//! The protocol by which connections come and go.
//!
//! A registration takes a place, then joins the user's channel or puts a new one into the map; a connection that leaves
//! does the same in reverse. The map is touched only for a user's first connection and after the last.
//!
//! 1. At most one open channel per user is in the map. A closed one in the map is waiting to be unlinked by its closer,
//!    and may be replaced: nobody waits for the closer.
//! 2. A channel is unlinked by identity: if another stands in its place, that one stays.
//! 3. Whoever removed a connection from its roster gives its place back: once, and after the removal.
//! 4. A registration that is refused gives its place back.

use std::sync::Arc;

use super::users::Change;
use super::{Places, Users};
use crate::channel::{Channel, Connection, Detached, Refusal, Roster};
use crate::error::RegisterError;
use crate::id::{ConnectionId, UserId};
use crate::metrics::Counters;

/// How large things may grow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Events that a user's ring holds.
    pub(crate) capacity: usize,
    /// Connections of one user.
    pub(crate) per_user: usize,
    /// Connections of all users.
    pub(crate) total: usize,
}

/// A connection that was let in, and the roster it stands in.
type Admitted<T> = (Arc<Roster<T>>, Arc<Connection<T>>);

pub(crate) struct Registry<T> {
    users: Users<T>,
    places: Places,
    limits: Limits,
    counters: Counters,
}

impl<T: Clone + Send + 'static> Registry<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            users: Users::new(),
            places: Places::new(limits.total),
            limits,
            counters: Counters::default(),
        }
    }

    /// Lets a connection in. When this returns, the connection is subscribed and counted.
    pub(crate) fn register(
        &self,
        user: UserId,
        id: ConnectionId,
    ) -> Result<Admitted<T>, RegisterError> {
        if !self.places.take() {
            return Err(RegisterError::TotalFull {
                cap: self.places.cap(),
            });
        }
        let connection = Arc::new(Connection::new(id));
        match self.join_or_open(&user, &connection) {
            Ok(roster) => Ok((roster, connection)),
            Err(refused) => {
                self.places.give_back();
                Err(refused)
            }
        }
    }

    fn join_or_open(
        &self,
        user: &UserId,
        connection: &Arc<Connection<T>>,
    ) -> Result<Arc<Roster<T>>, RegisterError> {
        let hash = self.users.hash(user);
        let mut fresh = None;
        self.users.update(hash, user, |there| {
            if let Some(channel) = there {
                match channel.join(connection, self.limits.per_user) {
                    Ok(()) => return Change::Leave(Ok(channel.roster().clone())),
                    Err(Refusal::Full) => {
                        let cap = self.limits.per_user;
                        return Change::Leave(Err(RegisterError::UserFull { cap }));
                    }
                    Err(Refusal::IdInUse) => {
                        return Change::Leave(Err(RegisterError::ConnectionIdInUse));
                    }
                    // Whoever closed it will unlink it, or find it gone (invariants 1 and 2).
                    Err(Refusal::Closed) => {}
                }
            }
            let channel = fresh.get_or_insert_with(|| {
                Arc::new(Channel::open(
                    user.clone(),
                    hash,
                    self.limits.capacity,
                    connection,
                ))
            });
            Change::Put(channel.clone(), Ok(channel.roster().clone()))
        })
    }

    /// Takes a connection out; `false` if somebody else has done that. Its feed must have been dropped.
    pub(crate) fn leave(&self, roster: &Arc<Roster<T>>, connection: &Arc<Connection<T>>) -> bool {
        let detached = roster.detach(connection);
        if detached == Detached::NotIn {
            return false;
        }
        self.places.give_back();
        if detached == Detached::OutAndClosed {
            self.unlink(roster);
        }
        true
    }

    /// Ends one connection of a user and takes it out; `false` if there is none of this id.
    pub(crate) fn unregister(&self, user: &str, id: &ConnectionId) -> bool {
        let found = self.users.with(self.users.hash(user), user, |channel| {
            let connection = channel.roster().get(id)?;
            Some((channel.roster().clone(), connection))
        });
        let Some((roster, connection)) = found.flatten() else {
            return false;
        };
        connection.end();
        self.leave(&roster, &connection)
    }

    /// Closes a user's channel and says how many connections that ends. Each reads what was sent before, then ends, and
    /// gives its own place back when its stream is dropped.
    pub(crate) fn evict(&self, user: &str) -> usize {
        let roster = self.users.with(self.users.hash(user), user, |channel| {
            channel.roster().clone()
        });
        let Some(roster) = roster else { return 0 };
        let Some(count) = roster.close() else {
            return 0;
        };
        self.unlink(&roster);
        count
    }

    /// Takes a closed channel out of the map, if it is still there.
    fn unlink(&self, roster: &Arc<Roster<T>>) {
        self.users
            .update(roster.hash(), roster.user(), |there| match there {
                Some(channel) if Arc::ptr_eq(channel.roster(), roster) => Change::Remove(()),
                _ => Change::Leave(()),
            });
    }

    /// Runs `f` on the user's channel, if there is one; see [`Users::with`].
    pub(crate) fn with<R>(&self, user: &str, f: impl FnOnce(&Channel<T>) -> R) -> Option<R> {
        self.users.with(self.users.hash(user), user, f)
    }

    pub(crate) fn user_count(&self) -> usize {
        self.users.len()
    }

    pub(crate) fn rosters(&self) -> Vec<Arc<Roster<T>>> {
        self.users.rosters()
    }

    pub(crate) fn total(&self) -> usize {
        self.places.taken()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }
}
