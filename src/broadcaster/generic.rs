//! The broadcaster of one type of event.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::Builder;
use crate::backplane::relay::Running;
use crate::channel::{Connection, Label, Origin, Resume, Roster, Upstream};
use crate::error::{BroadcastError, EncodeError, RegisterError, with_causes};
use crate::event::{ToSse, Traced};
use crate::frame::{Draft, Frame};
use crate::id::{ConnectionId, LastEventId, UserId};
use crate::metrics::{Sample, Stats, fanned_out};
use crate::registry::{Limits, Registry};
use crate::subscription::{LagPolicy, Subscription};
use crate::trace::TraceParent;

/// Sends events of type `E` to users, each on all the streams that the user has open.
///
/// Cloning it costs a reference count, and all clones are the same broadcaster: keep one as axum `State`. No method
/// waits, so all of them can be called from anywhere, inside a runtime or not.
///
/// ```
/// use tidings::{GenericBroadcaster, Text};
///
/// let hub = GenericBroadcaster::<Text>::new();
/// let tab = hub.register("ann")?;
/// let reached = hub.broadcast("ann", &Text::new("hello".into()))?;
/// assert_eq!(reached, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GenericBroadcaster<E: ?Sized> {
    pub(super) registry: Arc<Registry<Arc<Frame>>>,
    lag_policy: LagPolicy,
    pub(super) relay: Option<Arc<Running>>,
    pub(super) name: &'static str,
    event: PhantomData<fn(&E)>,
}

impl<E: ?Sized> GenericBroadcaster<E> {
    /// A broadcaster with the defaults of [`Builder`].
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build().expect("the defaults are valid")
    }

    /// Begins to build a broadcaster with settings of your own.
    pub fn builder() -> Builder<E> {
        Builder::new()
    }

    pub(super) fn with_settings(
        limits: Limits,
        lag_policy: LagPolicy,
        name: &'static str,
        upstream: Option<Upstream>,
    ) -> Self {
        Self {
            registry: Arc::new(Registry::new(limits, upstream)),
            lag_policy,
            relay: None,
            name,
            event: PhantomData,
        }
    }

    /// Opens a connection of `user` under an id of its own.
    ///
    /// An event that is broadcast after this returned reaches the subscription, or is told to it as lag.
    ///
    /// # Errors
    ///
    /// When the user or the service has as many connections as the cap allows.
    pub fn register(&self, user: impl Into<UserId>) -> Result<Subscription, RegisterError> {
        self.register_as(user, ConnectionId::generate())
    }

    /// Opens a connection of `user` under the id given.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register), and when the user has a connection of this id.
    pub fn register_as(
        &self,
        user: impl Into<UserId>,
        connection: impl Into<ConnectionId>,
    ) -> Result<Subscription, RegisterError> {
        self.open(user.into(), connection.into(), &LastEventId::none())
    }

    /// Opens a connection of `user` whose client comes back: the stream begins with what was broadcast after the event
    /// that the client saw last, and goes on with what comes, without a gap and with nothing twice. What is not to be had
    /// any more is announced first, as a [`Gap`](crate::Gap). Needs a [history](Builder::history).
    ///
    /// A client that has seen no event is let in as by [`register`](Self::register). An id that is not of the user's
    /// history, whatever it is, gives a gap of the reason `epoch` and what comes from now on: no error, and never another
    /// user's events.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, History, LastEventId, Text};
    /// use tokio_stream::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub: GenericBroadcaster<Text> =
    ///     GenericBroadcaster::builder().history(History::new(100)).build()?;
    /// let tab = hub.register("ann")?;
    /// let seen = LastEventId::new(&tab.cursor().expect("there is a history"));
    /// drop(tab);
    /// hub.broadcast("ann", &Text::new("while you were away".into()))?;
    ///
    /// let mut tab = hub.resume("ann", &seen)?;
    /// assert_eq!(tab.next().await.unwrap()?.data(), "while you were away");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn resume(
        &self,
        user: impl Into<UserId>,
        last_event_id: &LastEventId,
    ) -> Result<Subscription, RegisterError> {
        self.resume_as(user, ConnectionId::generate(), last_event_id)
    }

    /// [Resumes](Self::resume) under the id given.
    ///
    /// # Errors
    ///
    /// As [`register_as`](Self::register_as).
    pub fn resume_as(
        &self,
        user: impl Into<UserId>,
        connection: impl Into<ConnectionId>,
        last_event_id: &LastEventId,
    ) -> Result<Subscription, RegisterError> {
        self.open(user.into(), connection.into(), last_event_id)
    }

    pub(super) fn open(
        &self,
        user: UserId,
        id: ConnectionId,
        from: &LastEventId,
    ) -> Result<Subscription, RegisterError> {
        let resume = match (from.is_none(), from.position()) {
            (true, _) => Resume::Fresh,
            (false, Some(position)) => Resume::After(position),
            (false, None) => Resume::Unknown,
        };
        let gate = self.gate(&user, from);
        match Subscription::open(&self.registry, user.clone(), id.clone(), resume, gate) {
            Ok(subscription) => {
                self.registry.counters().registered.add(1);
                Ok(subscription
                    .lag_policy(self.lag_policy)
                    .told(from.is_told()))
            }
            Err(error) => {
                self.registry.counters().refused.count(&error);
                // Counted. No louder, since a client can have it as often as it likes.
                tracing::debug!(
                    user = user.as_str(),
                    connection = id.as_str(),
                    error = error.to_string(),
                    "refused"
                );
                Err(error)
            }
        }
    }

    /// Ends one connection of a user immediately; events that it had not read are dropped. Returns whether this call ended
    /// it: `false` if the user has no connection of this id, or the connection left at the same moment. For its socket see
    /// [`disconnect_user`](Self::disconnect_user).
    pub fn unregister(&self, user: &str, connection: &ConnectionId) -> bool {
        let found = self.registry.unregister(user, connection);
        if found {
            tracing::debug!(user, connection = connection.as_str(), "unregistered");
        }
        found
    }

    /// Ends all connections of a user immediately, drained ones included, and returns how many this call ended: when the user
    /// is locked out, for example. A connection that leaves at the same moment is not counted. Events that they had not read
    /// are dropped. Connections that are registered later are not affected. A [history](Builder::history) stays;
    /// [`forget`](Self::forget) drops it too.
    ///
    /// The sockets are closed by the server. `tidings::serve::serve` gives a client a quarter of a second for what is on its
    /// way; behind another server a client that does not read keeps its socket until that gives up on it, with
    /// `tidings::serve::listener` under `axum::serve` after the stall limit.
    pub fn disconnect_user(&self, user: &str) -> usize {
        let count = self.registry.disconnect(user);
        if count > 0 {
            tracing::debug!(user, connections = count, "disconnected");
        }
        count
    }

    /// Ends all connections of a user after the events that were broadcast before, and returns how many there were. Later
    /// events do not reach them. A [history](Builder::history) stays, and connections that are registered later are not
    /// affected.
    ///
    /// A drained connection no longer belongs to the user: [`connection_count`](Self::connection_count), the cap per user and
    /// a second drain do not count it, and its id is free. It counts towards [`total_connections`](Self::total_connections)
    /// and the cap of all connections until its stream is dropped. A client that does not read may delay that:
    /// [`disconnect_user`](Self::disconnect_user), a [`sweep`](Self::sweep) and a [`shutdown`](Self::shutdown) end drained
    /// connections too.
    pub fn drain_user(&self, user: &str) -> usize {
        let count = self.registry.evict(user);
        if count > 0 {
            tracing::debug!(user, connections = count, "drained");
        }
        count
    }

    /// Forgets a user's [history](Builder::history), and ends the user's connections as [`drain_user`](Self::drain_user) does;
    /// but nothing can cut them afterwards, so call [`disconnect_user`](Self::disconnect_user) before this if a client that does
    /// not read must go. A client that comes back is told that events may be missing.
    pub fn forget(&self, user: &str) -> usize {
        let count = self.registry.forget(user);
        tracing::debug!(user, connections = count, "forgotten");
        count
    }

    /// What it is [called](Builder::name).
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many connections the user has.
    #[must_use]
    pub fn connection_count(&self, user: &str) -> usize {
        self.registry
            .with(user, |channel| channel.roster().len())
            .unwrap_or(0)
    }

    /// How many events the user's connections have lost by falling behind, since the first of them came.
    #[must_use]
    pub fn lagged(&self, user: &str) -> u64 {
        self.registry
            .with(user, |channel| channel.roster().lagged())
            .unwrap_or(0)
    }

    /// How many connections there are.
    #[must_use]
    pub fn total_connections(&self) -> usize {
        self.registry.total()
    }

    /// The users that have a connection, in no order. Costs a walk over all of them.
    #[must_use]
    pub fn connected_users(&self) -> Vec<UserId> {
        self.registry
            .rosters()
            .iter()
            .filter(|roster| roster.len() > 0)
            .map(|roster| roster.user().clone())
            .collect()
    }

    /// Every connection of every user. Costs a walk over all of them.
    #[must_use]
    pub fn connection_info(&self) -> Vec<ConnectionInfo> {
        self.registry
            .rosters()
            .iter()
            .flat_map(|roster| ConnectionInfo::of(roster))
            .collect()
    }

    /// Every connection of one user, in the order of their ids.
    #[must_use]
    pub fn connection_info_of(&self, user: &str) -> Vec<ConnectionInfo> {
        let roster = self.registry.with(user, |channel| channel.roster().clone());
        roster
            .map(|roster| ConnectionInfo::of(&roster))
            .unwrap_or_default()
    }

    /// What the broadcaster is doing and has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            backplane: self.relay.as_ref().map(|running| running.0.stats()),
            ..stats_of(&self.registry)
        }
    }
}

// The bound on `E` stands at each method: where it does not hold, the compiler then says what `ToSse` is.
impl<E: ?Sized> GenericBroadcaster<E> {
    /// Sends an event to all streams of a user and says how many these are. For a user who is not there, and for whom no
    /// [history](Builder::history) is kept, nothing is encoded or allocated, and the answer is 0.
    ///
    /// The event is encoded once. A stream that is reached yields the event, or, should it fall behind the ring, counts
    /// it in a [`Gap`](crate::Gap).
    ///
    /// With a [backplane](Builder::backplane) it goes to other nodes as well, after this has returned: the answer is how many
    /// streams here it was sent to, or is for. [`broadcast_confirmed`](Self::broadcast_confirmed) waits for the engine.
    ///
    /// # Errors
    ///
    /// When the event cannot be encoded; then no stream got any part of it. With a backplane also when the event does not go
    /// to other nodes; the error says how many streams here got it nevertheless.
    ///
    /// # Panics
    ///
    /// When the event's [`ToSse`] panics; nothing else is harmed by it.
    pub fn broadcast(&self, user: &str, event: &E) -> Result<usize, BroadcastError>
    where
        E: ToSse,
    {
        self.broadcast_as(user, event)
    }

    /// [Broadcasts](Self::broadcast) an event together with the trace that it is published in: see [`TraceParent`]. It takes
    /// the place of one that the event has [itself](crate::Meta::trace_parent).
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    ///
    /// # Panics
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn broadcast_traced(
        &self,
        user: &str,
        event: &E,
        parent: TraceParent,
    ) -> Result<usize, BroadcastError>
    where
        E: ToSse,
    {
        self.broadcast_as(user, &Traced { event, parent })
    }

    /// Sends what stands for an event, such as JSON that was made of it elsewhere.
    pub(crate) fn broadcast_as<T: ToSse + ?Sized>(
        &self,
        user: &str,
        event: &T,
    ) -> Result<usize, BroadcastError> {
        let counters = self.registry.counters();
        counters.broadcasts.add(1);
        if let Some(running) = &self.relay {
            return self.broadcast_to_all(&running.0, user, event, None);
        }
        let sent = self.registry.with_or_keep(user, |channel| {
            let (draft, meta) = Draft::encode(event, channel.id_epoch())?;
            let label = Label::event(draft.weight(), meta.key);
            let sample = Sample::take(self.name);
            let is_sampled = sample.is_some();
            let draft = draft.with_sample(sample);
            let mut bytes = 0;
            let accepted = channel.append(Origin::Here, label, |id| {
                let frame = draft.finish(id);
                bytes = frame.as_bytes().len();
                Arc::new(frame)
            });
            let reached = accepted.reached();
            if is_sampled {
                fanned_out(self.name, reached);
            }
            Ok((reached, bytes))
        });
        let sent = sent.map_or(Ok(None), |sent| sent.map(Some));
        self.count_broadcast(user, sent)
            .map(Option::unwrap_or_default)
    }

    /// Counts what became of a broadcast: how many streams it reached and its bytes, or `None` if it was for nobody.
    pub(super) fn count_broadcast(
        &self,
        user: &str,
        sent: Result<Option<(usize, usize)>, EncodeError>,
    ) -> Result<Option<usize>, BroadcastError> {
        let counters = self.registry.counters();
        match sent {
            Ok(Some((reached, bytes))) => {
                counters.encoded.add(1);
                counters.encoded_bytes.add(bytes as u64);
                counters.deliveries.add(reached as u64);
                Ok(Some(reached))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                counters.failed.add(1);
                tracing::warn!(user, error = with_causes(&error), "not encoded");
                Err(BroadcastError::Encode(error))
            }
        }
    }
}

/// What is going on now, and has been counted.
pub(super) fn stats_of(registry: &Registry<Arc<Frame>>) -> Stats {
    let away = registry.retention().away();
    Stats {
        users: registry.user_count().saturating_sub(away),
        away,
        away_bytes: registry.retention().kept_for_away(),
        connections: registry.total(),
        ..registry.counters().totals()
    }
}

impl<E: ?Sized> Clone for GenericBroadcaster<E> {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
            lag_policy: self.lag_policy,
            relay: self.relay.clone(),
            name: self.name,
            event: PhantomData,
        }
    }
}

impl<E: ?Sized> Default for GenericBroadcaster<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: ?Sized> fmt::Debug for GenericBroadcaster<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenericBroadcaster")
            .field("name", &self.name)
            .field("stats", &self.stats())
            .finish()
    }
}

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Whose it is.
    pub user: UserId,
    /// Its id.
    pub connection: ConnectionId,
    /// How long it has been open.
    pub age: Duration,
    /// How many events it has lost by falling behind.
    pub lagged: u64,
    /// How many events it has still to read or to lose.
    pub behind: u64,
}

impl ConnectionInfo {
    fn of(roster: &Roster<Arc<Frame>>) -> Vec<Self> {
        let head = roster.head();
        let info = |connection: Arc<Connection<_>>| Self {
            user: roster.user().clone(),
            connection: connection.id().clone(),
            age: connection.age(),
            lagged: connection.lagged(),
            behind: connection.behind(head),
        };
        roster.members().into_iter().map(info).collect()
    }
}
