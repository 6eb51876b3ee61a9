//! The connections of one channel, the ring that they read from, and whether the channel is closed.
//!
//! All of it is one snapshot behind one `ArcSwap`: an operation loads it, decides, and installs a changed copy by
//! compare-and-swap, or starts again if it has changed meanwhile. A connection is a *member* until it is drained; from then
//! until its stream is dropped it is *leaving*: it does not count towards the cap, its id is free, and nothing more is sent
//! to it, since a drain replaces the ring and the old one ends. The states, and what each operation does in them:
//!
//! - Open, with connections: `attach` adds a member, unless the cap is reached or the id is in use. `drain` turns all members
//!   into leaving connections. `detach` removes a connection; if it was the last and no history lingers, the same step closes
//!   the channel, and the caller must unlink it. `close` closes, `close_unless_kept` too unless a hold or history remains.
//! - Open, without connections, while a history lingers or a hold keeps the channel: `attach` adds one. `close_if_deserted`
//!   closes unless it is held; the other two close as above.
//! - Closed, with connections: `attach` is refused, `drain` does nothing, `detach` removes one. The call that closed unlinks.
//! - Closed, empty: final. `attach` is refused, `detach` finds nothing.
//!
//! A hold keeps the channel open as a connection does, and `release` ends it as `detach` does a connection. Where no history
//! lingers, an open channel has a connection or a hold: it is created with its first one.
//!
//! Invariants:
//!
//! 1. Closed is final, and exactly one call closes: the one whose compare-and-swap succeeds.
//! 2. A connection is removed once, and the call that removed it gives its place back.
//! 3. A member is found by id and removed by identity, so that a late call cannot remove another connection with the same id.
//! 4. A broadcast after a member's registration goes to the ring that the member reads from, unless it was drained since.
//! 5. A ring that is taken out of the state is kept, as [`Retired`], until each of its readers has its end reason.

use std::cmp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use equivalent::{Comparable, Equivalent};
use imbl::{OrdMap, OrdSet};
use tokio::time::Instant;

use super::ring::Ring;
use super::{Connection, Log};
use crate::end::EndReason;
use crate::id::{ConnectionId, UserId};
use crate::sync::{self, ArcSwap, Loaded};

pub(crate) struct Roster<T> {
    user: UserId,
    /// The user's hash, computed once per channel.
    hash: u64,
    state: ArcSwap<State<T>>,
    /// How many events were sent, which is the number of the last one: to tell how far behind a connection is, and which
    /// events come before an ephemeral one. Relaxed: a caller that must see an event counted runs after its sender.
    head: sync::AtomicU64,
    /// How many events its connections have lost, including connections that have left.
    lagged: AtomicU64,
    /// How many gap notices are among what was sent. Decides what a stream reports that lagged.
    notices: sync::AtomicU64,
    log: Option<Arc<Log<T>>>,
}

struct State<T> {
    /// `None` once the channel is closed.
    ring: Option<Arc<Ring<T>>>,
    members: OrdSet<Member<T>>,
    /// By identity, since ids may repeat.
    leaving: OrdMap<usize, Leaving<T>>,
    /// How many holds keep the channel open.
    holds: usize,
}

impl<T: Clone + Send + 'static> State<T> {
    fn is_closed(&self) -> bool {
        self.ring.is_none()
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.leaving.is_empty() && self.holds == 0
    }

    /// Whether at least `cap` members are the user's own. Observers are few, and are left out only where they could decide.
    fn counts(&self, cap: usize) -> bool {
        let is_own = |Member(member): &&Member<T>| !member.is_observer();
        self.members.len() >= cap && self.members.iter().filter(is_own).count() >= cap
    }

    /// The state without this connection; `None` if it is not in it.
    fn without(&self, connection: &Arc<Connection<T>>) -> Option<Self> {
        let mut state = self.clone();
        let id = connection.id().as_str();
        match self.members.get(id) {
            Some(Member(member)) if Arc::ptr_eq(member, connection) => {
                state.members.remove(id);
            }
            _ => {
                state.leaving.remove(&identity(connection))?;
            }
        }
        Some(state)
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self {
            ring: self.ring.clone(),
            members: self.members.clone(),
            leaving: self.leaving.clone(),
            holds: self.holds,
        }
    }
}

/// Why a connection was not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The channel is closed. It will not open again: put a new one in its place.
    Closed,
    /// The cap is reached.
    Full,
    /// A member has this id.
    IdInUse,
}

/// The result of detaching a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detached {
    /// Another call removed it, and does what has to follow.
    NotIn,
    /// It is removed, and there is nothing to unlink.
    Out,
    /// It was the last one, and removing it closed the channel: unlink it.
    OutAndClosed,
    /// It was the last one, and the channel stays open so that its history can linger.
    OutAndDeserted,
}

impl<T: Clone + Send + 'static> Roster<T> {
    /// An open roster with a ring of this capacity, and with its first member, if there is one already.
    pub(crate) fn new(
        user: UserId,
        hash: u64,
        capacity: usize,
        log: Option<Arc<Log<T>>>,
        first: Option<&Arc<Connection<T>>>,
    ) -> Self {
        let members = first.into_iter().map(|it| Member(it.clone())).collect();
        Self {
            user,
            hash,
            state: ArcSwap::new(State {
                ring: Some(Arc::new(Ring::new(capacity))),
                members,
                leaving: OrdMap::new(),
                holds: 0,
            }),
            head: sync::AtomicU64::new(0),
            lagged: AtomicU64::new(0),
            notices: sync::AtomicU64::new(0),
            log,
        }
    }

    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn log(&self) -> Option<&Arc<Log<T>>> {
        self.log.as_ref()
    }

    /// Closes a deserted channel whose history does not linger or has no room; `true` if that closed it.
    pub(crate) fn linger_or_close(&self) -> bool {
        let (is_deserted, close) = (|| self.is_deserted(), || self.close_if_deserted());
        let closed = self.log().and_then(|log| log.linger(is_deserted, close));
        closed.is_some()
    }

    /// Closes the channel if it is deserted and its history has lingered long enough. Also drops events that are too old.
    pub(crate) fn close_if_over(&self, now: Instant) -> bool {
        let close = || self.close_if_deserted();
        let closed = self.log.as_ref().and_then(|log| log.if_over(now, close));
        closed.is_some()
    }

    /// Whether the channel stays open when its last member leaves.
    fn lingers(&self) -> bool {
        self.log().is_some_and(|log| log.retention().lingers())
    }

    /// Adds a member, and returns the ring it is to read from.
    pub(crate) fn attach(
        &self,
        connection: &Arc<Connection<T>>,
        cap: usize,
    ) -> Result<Arc<Ring<T>>, Refusal> {
        loop {
            let state = self.state.load();
            let Some(ring) = &state.ring else {
                return Err(Refusal::Closed);
            };
            if state.members.contains(connection.id().as_str()) {
                return Err(Refusal::IdInUse);
            }
            if !connection.is_observer() && state.counts(cap) {
                return Err(Refusal::Full);
            }
            let ring = ring.clone();
            // A close, a drain or another attach since the load makes the exchange fail, and all is asked again. After it, a
            // broadcast loads this state or a later one, which has this ring until a drain (invariant 4).
            let mut next = State::clone(&state);
            next.members.insert(Member(connection.clone()));
            if self.state.compare_and_swap(&state, next) {
                return Ok(ring);
            }
        }
    }

    pub(crate) fn detach(&self, connection: &Arc<Connection<T>>) -> Detached {
        self.take_out(|state| state.without(connection))
    }

    /// Keeps the channel open until [`release`](Self::release); `false` if it is closed.
    pub(crate) fn hold(&self) -> bool {
        loop {
            let state = self.state.load();
            if state.is_closed() {
                return false;
            }
            let mut next = State::clone(&state);
            next.holds += 1;
            if self.state.compare_and_swap(&state, next) {
                return true;
            }
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.state.load().holds > 0
    }

    /// Ends a hold.
    pub(crate) fn release(&self) -> Detached {
        self.take_out(|state| {
            let mut next = state.clone();
            next.holds -= 1;
            Some(next)
        })
    }

    fn take_out(&self, without: impl Fn(&State<T>) -> Option<State<T>>) -> Detached {
        loop {
            let state = self.state.load();
            let Some(mut next) = without(&state) else {
                return Detached::NotIn;
            };
            // Of two that leave together, the exchange of one fails: it looks again, and finds that it is the last. The ring
            // that it takes out has no reader left (invariant 5).
            let deserts = next.is_empty() && !state.is_closed();
            let closes = deserts && !self.lingers();
            if closes {
                next.ring = None;
            }
            if self.state.compare_and_swap(&state, next) {
                return match (closes, deserts) {
                    (true, _) => Detached::OutAndClosed,
                    (false, true) => Detached::OutAndDeserted,
                    (false, false) => Detached::Out,
                };
            }
        }
    }

    /// Drains all members, if there are any: their ring ends after what was sent before, and a new one takes its place.
    pub(crate) fn drain(&self, capacity: usize) -> Option<Retired<T>> {
        let mut fresh = None;
        loop {
            let state = self.state.load();
            if state.is_closed() || state.members.is_empty() {
                return None;
            }
            // An event is counted before its ring is chosen. One that was counted before this load may go to the new ring, and
            // one that is counted after it to the old: leaving connections then count as behind by one too many, or too few.
            let head = self.head();
            let mut leaving = state.leaving.clone();
            for Member(connection) in &state.members {
                let connection = connection.clone();
                leaving.insert(identity(&connection), Leaving { connection, head });
            }
            let ring = fresh.get_or_insert_with(|| Arc::new(Ring::new(capacity)));
            let next = State {
                ring: Some(ring.clone()),
                members: OrdSet::new(),
                leaving,
                holds: state.holds,
            };
            if self.state.compare_and_swap(&state, next) {
                return Some(Retired(State::clone(&state)));
            }
        }
    }

    /// The current state. Hold it briefly, and drop it outside all locks: if the ring has been replaced meanwhile, this may
    /// be the last reference to it, and dropping a ring wakes the tasks that read from it.
    pub(super) fn current(&self) -> Current<T> {
        Current(self.state.load())
    }

    /// Closes the channel; `None` if it was closed already. Its connections stay on the roster until each leaves.
    pub(crate) fn close(&self) -> Option<Retired<T>> {
        self.close_if(|_| true)
    }

    /// Closes the channel unless it would stay open without connections: because it is held, or its history would linger.
    pub(crate) fn close_unless_kept(&self) -> Option<Retired<T>> {
        let close = || self.close_if(|state| state.holds == 0);
        self.log().map_or_else(close, |log| log.unless_kept(close))
    }

    /// Closes the channel if it has neither connections nor holds; `None` if it has, or was closed already.
    pub(crate) fn close_if_deserted(&self) -> Option<Retired<T>> {
        self.close_if(State::is_empty)
    }

    /// Whether the channel is open and has neither connections nor holds.
    pub(crate) fn is_deserted(&self) -> bool {
        let state = self.state.load();
        !state.is_closed() && state.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load().is_closed()
    }

    fn close_if(&self, may_close: impl Fn(&State<T>) -> bool) -> Option<Retired<T>> {
        loop {
            let state = self.state.load();
            if state.is_closed() || !may_close(&state) {
                return None;
            }
            let next = State {
                ring: None,
                ..State::clone(&state)
            };
            if self.state.compare_and_swap(&state, next) {
                return Some(Retired(State::clone(&state)));
            }
        }
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.state.load().members.len()
    }

    /// Whether the channel is open and has a member that is the user's own.
    pub(crate) fn is_occupied(&self) -> bool {
        let state = self.state.load();
        !state.is_closed() && state.counts(1)
    }

    /// The member of this id.
    pub(crate) fn get(&self, id: &ConnectionId) -> Option<Arc<Connection<T>>> {
        let state = self.state.load();
        state.members.get(id.as_str()).map(|it| it.0.clone())
    }

    /// Counts an event, before it is sent. Returns its number.
    pub(crate) fn advance(&self) -> u64 {
        self.head.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Counts a gap notice, before it is sent: a stream that loses it to lag cannot know how much is missing.
    pub(crate) fn add_notice(&self) {
        // Pairs with the acquire in `notices`: a stream that has lost a notice in the ring finds it counted.
        self.notices.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn notices(&self) -> u64 {
        self.notices.load(Ordering::Acquire)
    }

    /// Counts events that one of the connections has lost.
    pub(crate) fn add_lagged(&self, missed: u64) {
        self.lagged.fetch_add(missed, Ordering::Relaxed);
    }

    pub(crate) fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    /// The members at one moment, in the order of their ids.
    pub(crate) fn members(&self) -> Vec<Arc<Connection<T>>> {
        let state = self.state.load();
        state.members.iter().map(|it| it.0.clone()).collect()
    }

    /// Calls `f` for each connection of one snapshot, with the channel's head, or for a leaving one the head when it was
    /// drained. Holds no `ArcSwap` guard meanwhile.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Arc<Connection<T>>, u64)) {
        let state = State::clone(&self.state.load());
        let head = self.head();
        state.members.iter().for_each(|it| f(&it.0, head));
        state
            .leaving
            .values()
            .for_each(|it| f(&it.connection, it.head));
    }
}

/// A ring that is no longer the channel's, and the members that read from it. Give these their [reason](Self::finish) first:
/// the ring ends when this is dropped.
pub(crate) struct Retired<T>(State<T>);

impl<T: Clone + Send + 'static> Retired<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.members.len()
    }

    /// Asks the members to finish. Connections that leave read from older rings, and are asked by the calls that drained them.
    pub(crate) fn finish(&self, reason: EndReason) {
        let members = self.0.members.iter();
        members.for_each(|it| it.0.finish(reason));
    }
}

/// A snapshot of the state.
pub(super) struct Current<T>(Loaded<State<T>>);

impl<T: Clone + Send + 'static> Current<T> {
    /// The ring that a channel sends to, if it is open.
    pub(super) fn ring(&self) -> Option<&Ring<T>> {
        self.0.ring.as_deref()
    }
}

fn identity<T>(connection: &Arc<Connection<T>>) -> usize {
    Arc::as_ptr(connection).addr()
}

/// A connection that was drained.
struct Leaving<T> {
    connection: Arc<Connection<T>>,
    /// How many events had been sent by then.
    head: u64,
}

/// A connection, ordered and looked up by its id.
struct Member<T>(Arc<Connection<T>>);

impl<T> Clone for Member<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Send + 'static> Ord for Member<T> {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.0.id().cmp(other.0.id())
    }
}

impl<T: Clone + Send + 'static> PartialOrd for Member<T> {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Clone + Send + 'static> PartialEq for Member<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Clone + Send + 'static> Eq for Member<T> {}

impl<T: Clone + Send + 'static> Equivalent<Member<T>> for str {
    fn equivalent(&self, member: &Member<T>) -> bool {
        self == member.0.id().as_str()
    }
}

impl<T: Clone + Send + 'static> Comparable<Member<T>> for str {
    fn compare(&self, member: &Member<T>) -> cmp::Ordering {
        self.cmp(member.0.id().as_str())
    }
}

impl<T> Clone for Leaving<T> {
    fn clone(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            head: self.head,
        }
    }
}
