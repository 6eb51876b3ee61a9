//! The protocol by which connections come and go.
//!
//! A registration takes a place in [`Admission`], then joins the user's channel or puts a new one into the map; a connection
//! that leaves does the same in reverse. The map is touched only for a user's first connection and after the last.
//!
//! 1. At most one open channel per user is in the map. The call that closed a channel unlinks it; until then a registration
//!    may replace it, and does not wait for that call.
//! 2. A channel is unlinked by identity: if another has replaced it, that one stays.
//! 3. The call that removed a connection from its roster gives its place back: once, and after the removal.
//! 4. A registration that is refused gives its place back.
//! 5. A connection that was registered is counted under its end reason, once, by the call that removed it.
//! 6. A call that has changed a user's members then marks the user for the watches (`presence`).

mod runs;
mod shutdown;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

use super::admission::Refused;
use super::users::Change;
use super::{Admission, Limits, Patience, Users, Watches};
use crate::channel::{
    Channel, Connection, Detached, Log, Refusal, Resume, Retention, Retired, Roster, Upstream,
    Welcome,
};
use crate::end::EndReason;
use crate::error::RegisterError;
use crate::id::{ConnectionId, UserId};
use crate::metrics::Counters;

/// A connection that was registered.
pub(crate) struct Admitted<T> {
    pub(crate) roster: Arc<Roster<T>>,
    pub(crate) connection: Arc<Connection<T>>,
    pub(crate) welcome: Welcome,
}

const NO_SHUTDOWN: u64 = u64::MAX;

pub(crate) struct Registry<T> {
    pub(crate) users: Users<T>,
    pub(super) admission: Admission,
    pub(super) watches: Watches,
    limits: Limits,
    counters: Arc<Counters>,
    retention: Arc<Retention>,
    /// The beginning of the clock that sweeps note times on.
    started: Instant,
    /// The time over which clients spread their reconnects, in milliseconds; [`NO_SHUTDOWN`] before a shutdown.
    spread: AtomicU64,
}

impl<T: Clone + Send + 'static> Registry<T> {
    pub(crate) fn new(limits: Limits, upstream: Option<Upstream>) -> Self {
        let counters = Arc::<Counters>::default();
        let retention = Retention::new(limits.history, limits.keys, upstream, counters.clone());
        Self {
            users: Users::new(),
            admission: Admission::new(limits.total),
            watches: Watches::new(),
            limits,
            counters,
            retention: Arc::new(retention),
            started: Instant::now(),
            spread: AtomicU64::new(NO_SHUTDOWN),
        }
    }

    /// Registers a connection. When this returns, the connection is subscribed and counted.
    pub(crate) fn register(
        &self,
        user: UserId,
        connection: Connection<T>,
        resume: Resume,
    ) -> Result<Admitted<T>, RegisterError> {
        let closed = RegisterError::ShuttingDown {
            form: self.limits.when_shutting_down,
        };
        self.admission.take().map_err(|refused| match refused {
            Refused::Full => RegisterError::TotalFull {
                cap: self.admission.cap(),
                form: self.limits.when_full,
            },
            Refused::Closed => closed,
        })?;
        let connection = Arc::new(connection);
        match self.join_or_open(&user, &connection, resume) {
            Ok((roster, welcome)) => {
                // `close`, and a call that ends all connections after it, may have come between `take` and here. If `close` came
                // before this look, the registration is refused; if it comes after, the call that follows it finds the
                // connection in the map. If another call has removed it already, the registration succeeds, and its stream has
                // ended.
                if self.admission.is_closed() {
                    connection.cut(EndReason::Shutdown);
                    if self.take_out(&roster, &connection) {
                        return Err(closed);
                    }
                }
                if !connection.is_observer() {
                    self.mark(roster.user());
                }
                Ok(Admitted {
                    roster,
                    connection,
                    welcome,
                })
            }
            Err(refused) => {
                self.admission.give_back();
                Err(refused)
            }
        }
    }

    fn join_or_open(
        &self,
        user: &UserId,
        connection: &Arc<Connection<T>>,
        resume: Resume,
    ) -> Result<(Arc<Roster<T>>, Welcome), RegisterError> {
        let hash = self.users.hash(user);
        let mut fresh = None;
        self.users.update(hash, user, |there| {
            if let Some(channel) = there {
                match channel.join(connection, self.limits.per_user, resume) {
                    Ok(welcome) => {
                        return Change::Leave(Ok((channel.roster().clone(), welcome)));
                    }
                    Err(Refusal::Full) => {
                        return Change::Leave(Err(RegisterError::UserFull {
                            cap: self.limits.per_user,
                            form: self.limits.when_full,
                        }));
                    }
                    Err(Refusal::IdInUse) => {
                        return Change::Leave(Err(RegisterError::ConnectionIdInUse));
                    }
                    // The call that closed it will unlink it, or find it replaced (invariants 1 and 2).
                    Err(Refusal::Closed) => {}
                }
            }
            // Subscribed and counted before other threads can see the channel.
            let (channel, welcome) = fresh.get_or_insert_with(|| {
                let log = self.retention.keeps_anything();
                let log = log.then(|| Log::new(self.retention.clone()));
                let channel = self.open(user, hash, log, Some(connection));
                let welcome = channel.admit(connection, resume);
                (channel, welcome)
            });
            Change::Put(channel.clone(), Ok((channel.roster().clone(), *welcome)))
        })
    }

    fn open(
        &self,
        user: &UserId,
        hash: u64,
        log: Option<Arc<Log<T>>>,
        first: Option<&Arc<Connection<T>>>,
    ) -> Arc<Channel<T>> {
        let capacity = self.limits.capacity;
        Arc::new(Channel::open(user.clone(), hash, capacity, log, first))
    }

    /// Opens a channel that keeps what is broadcast to a user who has none; `false` if there is no room for it.
    fn open_for_unconnected(&self, user: &str) -> bool {
        let Some(log) = Log::of_unconnected(self.retention.clone()) else {
            return false;
        };
        let hash = self.users.hash(user);
        let channel = self.open(&user.into(), hash, Some(log.clone()), None);
        let put = self.users.update(hash, user, |there| match there {
            // Another call has opened one since: that one keeps the event, and ours gives its room back.
            Some(there) if !there.roster().is_closed() => Change::Leave(false),
            _ => Change::Put(channel.clone(), true),
        });
        if !put {
            log.come_back();
        }
        true
    }

    /// Removes a connection that has ended, and counts why; `false` if another call has removed it.
    pub(crate) fn leave(&self, roster: &Arc<Roster<T>>, connection: &Arc<Connection<T>>) -> bool {
        let left = self.take_out(roster, connection);
        if let Some(reason) = connection.end_reason().filter(|_| left) {
            self.counters.ended[reason as usize].add(1);
        }
        left
    }

    /// Removes a connection; `false` if another call has removed it. Its feed must have been dropped.
    fn take_out(&self, roster: &Arc<Roster<T>>, connection: &Arc<Connection<T>>) -> bool {
        let detached = roster.detach(connection);
        if detached == Detached::NotIn {
            return false;
        }
        self.admission.give_back();
        self.settle(roster, detached);
        if !connection.is_observer() {
            self.mark(roster.user());
        }
        true
    }

    /// What has to follow a removal.
    fn settle(&self, roster: &Arc<Roster<T>>, detached: Detached) {
        match detached {
            Detached::OutAndClosed => self.unlink(roster),
            Detached::OutAndDeserted if roster.linger_or_close() => self.after_close(roster),
            _ => {}
        }
    }

    /// Ends one connection of a user and removes it; `false` if there is none of this id.
    pub(crate) fn unregister(&self, user: &str, id: &ConnectionId) -> bool {
        let found = self.users.with(self.users.hash(user), user, |channel| {
            let connection = channel.roster().get(id)?;
            Some((channel.roster().clone(), connection))
        });
        let Some((roster, connection)) = found.flatten() else {
            return false;
        };
        // It may have left since, and another have taken its id: only this one is removed (the roster's invariant 3).
        self.remove(&roster, &connection, EndReason::Unregistered)
    }

    /// Closes a user's channel, forgets its history, and returns how many connections that ends. Each reads what was sent
    /// before, then ends, and gives its own place back when its stream is dropped.
    pub(crate) fn forget(&self, user: &str) -> usize {
        self.roster(user)
            .map_or(0, |roster| self.finish_channel(&roster))
    }

    /// Ends the members of a user's channel and returns how many there are. Each reads what was sent before, then ends, and
    /// gives its own place back when its stream is dropped. Until then it stays on the roster, where a later call can cut it.
    /// The channel and its history stay.
    pub(crate) fn drain(&self, user: &str) -> usize {
        let Some(roster) = self.roster(user) else {
            return 0;
        };
        let Some(drained) = roster.drain(self.limits.capacity) else {
            return 0;
        };
        self.meet_and_mark(roster.user());
        drained.finish(EndReason::Drained);
        drained.len()
    }

    /// Ends all connections of a user immediately and removes them; returns how many there were. A history stays.
    pub(crate) fn disconnect(&self, user: &str) -> usize {
        let Some(roster) = self.roster(user) else {
            return 0;
        };
        self.end_connections(&roster, EndReason::Disconnected, Roster::close_unless_kept)
    }

    fn roster(&self, user: &str) -> Option<Arc<Roster<T>>> {
        self.users.with(self.users.hash(user), user, |channel| {
            channel.roster().clone()
        })
    }

    /// Closes a channel by `close`, so that no connection can join it; `None` if that does not close it.
    fn close_channel(
        &self,
        roster: &Arc<Roster<T>>,
        close: impl FnOnce(&Roster<T>) -> Option<Retired<T>>,
    ) -> Option<Retired<T>> {
        let closed = close(roster)?;
        self.after_close(roster);
        self.meet_and_mark(roster.user());
        Some(closed)
    }

    /// Closes a channel and asks its members to finish; returns how many there are.
    fn finish_channel(&self, roster: &Arc<Roster<T>>) -> usize {
        let Some(closed) = self.close_channel(roster, Roster::close) else {
            return 0;
        };
        closed.finish(EndReason::Forgotten);
        closed.len()
    }

    /// Closes a channel that is deserted if it has lingered long enough.
    pub(super) fn close_if_over(&self, roster: &Arc<Roster<T>>, now: Instant) {
        if roster.close_if_over(now) {
            self.after_close(roster);
        }
    }

    /// What a call that has closed a channel must do.
    fn after_close(&self, roster: &Arc<Roster<T>>) {
        self.unlink(roster);
        if let Some(log) = roster.log() {
            log.come_back();
        }
    }

    /// Ends all connections of a channel immediately, lets `close` close it, and removes the connections; returns how many
    /// there were.
    fn end_connections(
        &self,
        roster: &Arc<Roster<T>>,
        reason: EndReason,
        close: impl FnOnce(&Roster<T>) -> Option<Retired<T>>,
    ) -> usize {
        // Before the channel is closed: a stream that finds it closed ends by itself, without being cut.
        roster.for_each(|connection, _| connection.cut(reason));
        // Held until connections that registered since are cut, so that their ring does not end before.
        let _closed = self.close_channel(roster, close);
        let mut ended = 0;
        roster.for_each(|connection, _| {
            ended += usize::from(self.remove(roster, connection, reason));
        });
        ended
    }

    /// Ends a connection and removes it; `false` if another call has removed it.
    pub(super) fn remove(
        &self,
        roster: &Arc<Roster<T>>,
        connection: &Arc<Connection<T>>,
        reason: EndReason,
    ) -> bool {
        connection.cut(reason);
        self.leave(roster, connection)
    }

    /// Takes a closed channel out of the map, if it is still there.
    fn unlink(&self, roster: &Arc<Roster<T>>) {
        self.users
            .update(roster.hash(), roster.user(), |there| match there {
                // Since it was closed, a registration may have put another one here (invariant 2).
                Some(channel) if Arc::ptr_eq(channel.roster(), roster) => Change::Remove(()),
                _ => Change::Leave(()),
            });
    }

    /// Runs `f` on the user's channel, if there is one; see [`Users::with`].
    pub(crate) fn with<R>(&self, user: &str, f: impl FnOnce(&Channel<T>) -> R) -> Option<R> {
        self.users.with(self.users.hash(user), user, f)
    }

    /// As [`with`](Self::with); a user without a channel is given one first, if events are kept for such users.
    pub(crate) fn with_or_keep<R>(
        &self,
        user: &str,
        mut f: impl FnMut(&Channel<T>) -> R,
    ) -> Option<R> {
        let there = self.with(user, &mut f);
        if there.is_some() || !self.retention.keeps_for_unconnected() {
            return there;
        }
        self.open_for_unconnected(user);
        // It may be closed again by now. That forgets what it kept, as if `f` had run before.
        self.with(user, f)
    }

    /// Whether the user has a channel.
    pub(crate) fn has(&self, user: &str) -> bool {
        self.with(user, |_| ()).is_some()
    }

    pub(crate) fn total(&self) -> usize {
        self.admission.taken()
    }

    /// How many events a user's ring holds.
    pub(crate) fn ring(&self) -> u64 {
        self.limits.capacity as u64
    }

    pub(super) fn patience(&self) -> Patience {
        self.limits.patience
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.retention
    }
}
