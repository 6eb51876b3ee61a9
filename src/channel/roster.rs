//! The connections of one channel, the ring that they read from, and whether the channel is closed.
//!
//! All of it stands in one snapshot behind one `ArcSwap`, so that each change is decided on and made against the very same
//! state, by compare-and-swap. A connection is a *member* until it is drained; from then until its stream is dropped it is
//! *leaving*. Leaving connections do not count towards the cap, and their ids are free. Nothing more is sent to them: an
//! drain replaces the ring, and the old one ends. The states, and what each operation does in them:
//!
//! - Open, with connections: `attach` adds a member, unless the cap or the id forbids. `drain` turns all members into leaving
//!   connections. `detach` removes a connection; if it was the last, the same step closes the channel, unless its history
//!   lingers, and the caller must unlink it. `close` closes.
//! - Open, without connections, while a history lingers or somebody holds the channel: `attach` adds one. `close_if_deserted`
//!   and `close_unless_kept` close unless it is held, and `close` closes.
//! - Closed, with connections (after `close`): `attach` is refused. `drain` finds nobody. `detach` removes one; nobody
//!   unlinks, the closer did.
//! - Closed, empty: final. `attach` is refused, `detach` finds nobody.
//!
//! A hold is in like a connection, but is none: `release` is for it what `detach` is. Where no history lingers there is no open
//! channel without either: it is created with its first one in it.
//!
//! Invariants:
//!
//! 1. Closed is final, and one call alone closes: the one whose compare-and-swap did it.
//! 2. A connection is removed once: the one call that removed it is the one that gives its place back.
//! 3. A member is found by id and removed by identity, so that a call that comes late cannot remove a namesake.
//! 4. A member reads from the ring of the state that it was attached in. A broadcast after its registration loads that state
//!    or a later one, so it sends to the member's ring, unless the member has been drained since.
//! 5. Whoever takes a ring out of the state holds it, as [`Retired`], until the connections that read from it have a reason to
//!    end. `detach` need not: it closes when nobody is left to read.

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
    /// How many events were sent. Says how far behind a connection is, and decides nothing exact, so it is relaxed.
    head: AtomicU64,
    /// How many events its connections have lost, those that have left among them.
    lagged: AtomicU64,
    /// How many of the events that were sent are none, but tell of a gap. Decides what a stream that lagged is told.
    notices: sync::AtomicU64,
    log: Option<Arc<Log<T>>>,
}

struct State<T> {
    /// `None` once the channel is closed.
    ring: Option<Arc<Ring<T>>>,
    members: OrdSet<Member<T>>,
    /// By identity, since there may be namesakes.
    leaving: OrdMap<usize, Leaving<T>>,
    /// How many keep the channel open without a connection.
    holds: usize,
}

impl<T: Clone + Send + 'static> State<T> {
    fn is_closed(&self) -> bool {
        self.ring.is_none()
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.leaving.is_empty() && self.holds == 0
    }

    /// Whether so many members are the user's own. Observers are few, and told apart only where they may decide.
    fn counts(&self, cap: usize) -> bool {
        let is_own = |Member(member): &&Member<T>| !member.is_observer();
        self.members.len() >= cap && self.members.iter().filter(is_own).count() >= cap
    }

    /// The same without this connection; `None` if it is not in.
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

/// What detaching a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detached {
    /// It was not in: somebody else removed it, and does what has to follow.
    NotIn,
    /// It is out, and there is nothing to unlink.
    Out,
    /// It is out, was the last one, and closed the channel: unlink it.
    OutAndClosed,
    /// It is out, was the last one, and the channel is open, so that its history can linger.
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
            head: AtomicU64::new(0),
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

    /// Lets the history linger, if nobody is in; `false` if there is no room for that, and the channel is to be closed.
    pub(crate) fn linger(&self) -> bool {
        self.log()
            .is_some_and(|log| log.linger(|| self.is_deserted()))
    }

    /// Closes the channel if its history has lingered long enough and nobody is in. Drops what has grown too old of it.
    pub(crate) fn close_if_over(&self, now: Instant) -> bool {
        let close = || self.close_if_deserted();
        let closed = self.log.as_ref().and_then(|log| log.if_over(now, close));
        closed.is_some()
    }

    /// Whether the channel stays open when its last member leaves.
    fn lingers(&self) -> bool {
        self.log().is_some_and(|log| log.retention().lingers())
    }

    /// Adds a member, and says which ring it is to read from.
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

    /// Keeps the channel open until this is [taken back](Self::release); `false` if it is closed.
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

    /// Takes a hold back.
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

    /// Drains all members, if there are any. Their ring ends behind what was sent before; a new one of this capacity takes its
    /// place.
    pub(crate) fn drain(&self, capacity: usize) -> Option<Retired<T>> {
        let mut fresh = None;
        loop {
            let state = self.state.load();
            if state.is_closed() || state.members.is_empty() {
                return None;
            }
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
                return Some(Retired(State {
                    leaving: OrdMap::new(),
                    ..State::clone(&state)
                }));
            }
        }
    }

    /// The state of this moment. Hold it briefly, and drop it outside all locks: if the ring has been replaced meanwhile, this
    /// may be the last reference to it, and its end wakes the tasks that read from it.
    pub(super) fn current(&self) -> Current<T> {
        Current(self.state.load())
    }

    /// Closes the channel; `None` if it was closed already. Its connections stay in until each leaves.
    pub(crate) fn close(&self) -> Option<Retired<T>> {
        self.close_if(|_| true)
    }

    /// The same for a channel that would not stay without connections: its history does not linger, and nobody holds it.
    pub(crate) fn close_unless_kept(&self) -> Option<Retired<T>> {
        let lingers = self.log.as_ref().is_some_and(|log| log.would_linger());
        self.close_if(|state| !lingers && state.holds == 0)
    }

    /// Closes the channel if nobody is in; `None` if somebody is, or it was closed already.
    pub(crate) fn close_if_deserted(&self) -> Option<Retired<T>> {
        self.close_if(State::is_empty)
    }

    /// Whether nobody is in, although the channel is open.
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

    /// Counts an event, before it is sent.
    pub(crate) fn advance(&self) {
        self.head.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Counts something that tells of a gap, before it is sent: who loses it to lag cannot know how much is missing.
    pub(crate) fn add_notice(&self) {
        // Pairs with the acquire in `notices`: who has lost a notice in the ring finds it counted.
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

    /// Calls `f` for each connection of one moment, the leaving ones included, with the number of events that were sent to it.
    /// Holds no guard meanwhile.
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

/// A ring that is no longer the channel's, and the connections that its end concerns.
///
/// The ring ends when this is dropped, at the earliest: tell the connections [why](Self::finish) before.
pub(crate) struct Retired<T>(State<T>);

impl<T: Clone + Send + 'static> Retired<T> {
    /// How many of the connections are members.
    pub(crate) fn len(&self) -> usize {
        self.0.members.len()
    }

    /// Asks all of them to finish.
    pub(crate) fn finish(&self, reason: EndReason) {
        let state = &self.0;
        state.members.iter().for_each(|it| it.0.finish(reason));
        let leaving = state.leaving.values();
        leaving.for_each(|it| it.connection.finish(reason));
    }
}

/// The state of one moment.
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
