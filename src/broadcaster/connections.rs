//! Connections: how they are opened, ended and counted.

use std::sync::Arc;
use std::time::Duration;

use super::GenericBroadcaster;
use crate::backplane::relay::Returning;
use crate::channel::{Connection, Resume, Roster, Welcome};
use crate::error::RegisterError;
use crate::frame::Frame;
use crate::id::{ConnectionId, EventId, LastEventId, UserId};
use crate::subscription::{LagPolicy, ResumeFilter, Subscription};

impl<E: ?Sized> GenericBroadcaster<E> {
    /// Opens a connection of `user` under a generated id.
    ///
    /// An event that is broadcast after this returned reaches the subscription, or is reported to it as lag. What was broadcast
    /// before is not: for a client that comes back, [`resume`](Self::resume) is there.
    ///
    /// # Errors
    ///
    /// When the user or the service has as many connections as the cap allows, or the broadcaster is [shutting
    /// down](Self::shutdown).
    pub fn register(&self, user: impl Into<UserId>) -> Result<Subscription, RegisterError> {
        self.register_as(user, ConnectionId::generate())
    }

    /// Opens a connection of `user` under the given id.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register), and when the user has a connection of this id.
    pub fn register_as(
        &self,
        user: impl Into<UserId>,
        connection: impl Into<ConnectionId>,
    ) -> Result<Subscription, RegisterError> {
        self.open(
            user.into(),
            Connection::new(connection.into()),
            &LastEventId::none(),
        )
    }

    /// Opens a connection for a client of `user` that reconnects: the stream replays what was broadcast after the last
    /// event the client saw, then continues with live events, with nothing lost or repeated between the two. Events
    /// that are no longer kept are reported first, as a [`Gap`](crate::Gap). Needs a
    /// [history](super::Builder::history).
    ///
    /// A client that has seen no event is registered as by [`register`](Self::register). An id that is not of the user's
    /// history, whatever it is, gives a gap of the reason `epoch` and then live events: no error, and never another user's
    /// events.
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
    /// hub.broadcast("ann", &Text::new("while you were away"))?;
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

    /// [Resumes](Self::resume) under the given id.
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
        self.open(
            user.into(),
            Connection::new(connection.into()),
            last_event_id,
        )
    }

    /// [Resumes](Self::resume) under the given id. If the user already has a connection with this id, it is
    /// [ended](Self::unregister) first.
    ///
    /// For clients that name their connections, a tab for example. A client may come back before the server learns that its
    /// old connection is lost: a proxy can hold that open for any time. [`resume_as`](Self::resume_as) refuses the client
    /// until then.
    ///
    /// Only a connection of the same user is ended, so a caller that can choose the id can end that user's other connections.
    /// What the old connection had not read is dropped; with a [history](super::Builder::history) and the client's id nothing
    /// is lost. Of several that come for the same id at the same time, the last one stays.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, LastEventId, RegisterError, Text};
    ///
    /// let hub = GenericBroadcaster::<Text>::new();
    /// let ghost = hub.register_as("ann", "tab-1")?;
    /// let refused = hub.register_as("ann", "tab-1").unwrap_err();
    /// assert_eq!(refused, RegisterError::ConnectionIdInUse);
    ///
    /// let tab = hub.take_over("ann", "tab-1", &LastEventId::none())?;
    /// assert_eq!(hub.connection_count("ann"), 1);
    /// # drop((ghost, tab));
    /// # Ok::<(), RegisterError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register); the old connection has ended nevertheless.
    pub fn take_over(
        &self,
        user: impl Into<UserId>,
        connection: impl Into<ConnectionId>,
        last_event_id: &LastEventId,
    ) -> Result<Subscription, RegisterError> {
        let (user, connection) = (user.into(), connection.into());
        loop {
            self.unregister(&user, &connection);
            let new = Connection::new(connection.clone());
            match self.open(user.clone(), new, last_event_id) {
                // Another call has registered in between. Each call registers once, so this ends with the last of them.
                Err(RegisterError::ConnectionIdInUse) => {}
                opened => return opened,
            }
        }
    }

    /// Opens a connection that watches the events sent to `user`, for an operator's page.
    ///
    /// The user's cap ([`connections_per_user`](crate::Builder::connections_per_user)) does not count it, so it takes no place of
    /// the user's own; the [total](crate::Builder::total_connections) does. It goes on when it lags, and gets every gap,
    /// whatever the broadcaster's [`LagPolicy`] is. Events before it are not replayed, but for those of a
    /// [complete](Self::complete) channel. Otherwise it is a connection of the user: it counts in the figures, and ends with
    /// the others.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, Text};
    ///
    /// let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder().connections_per_user(1).build()?;
    /// let watched = hub.observe("ann", "operator-1")?;
    /// let own = hub.register("ann")?;
    /// assert_eq!(hub.connection_count("ann"), 2);
    /// assert!(hub.register("ann").is_err(), "the user's own place is taken");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the total is reached, the broadcaster shuts down, or the user has a connection of this id.
    pub fn observe(
        &self,
        user: impl Into<UserId>,
        connection: impl Into<ConnectionId>,
    ) -> Result<Subscription, RegisterError> {
        let connection = Connection::observer(connection.into());
        let observer = self.open(user.into(), connection, &LastEventId::none())?;
        Ok(observer.lag_policy(LagPolicy::Gap))
    }

    /// [Registers](Self::register) once the user's events arrive from other nodes: an event broadcast on any node after
    /// this returned reaches the subscription, or is reported to it as missing.
    ///
    /// [`register`](Self::register) does not wait. At [`Level::AtMostOnce`](crate::backplane::Level::AtMostOnce) a stream
    /// that it opens as the user's first on this node gets a gap a moment later, since an event of another node may have
    /// come too early for it; at [`Level::Replayable`](crate::backplane::Level::Replayable) it gets such an event, and
    /// perhaps one from up to a second before. Without a [backplane](super::Builder::backplane), and while its engine cannot
    /// be reached, this is the same as `register`.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing was registered.
    pub async fn register_when_ready(
        &self,
        user: impl Into<UserId>,
    ) -> Result<Subscription, RegisterError> {
        self.resume_when_ready(user, &LastEventId::none()).await
    }

    /// [Resumes](Self::resume) once the user's events arrive from other nodes; see
    /// [`register_when_ready`](Self::register_when_ready).
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing was registered.
    pub async fn resume_when_ready(
        &self,
        user: impl Into<UserId>,
        last_event_id: &LastEventId,
    ) -> Result<Subscription, RegisterError> {
        self.open_when_ready(user.into(), ConnectionId::generate(), last_event_id)
            .await
    }

    pub(super) async fn open_when_ready(
        &self,
        user: UserId,
        connection: ConnectionId,
        from: &LastEventId,
    ) -> Result<Subscription, RegisterError> {
        let Some(running) = &self.relay else {
            return self.open(user, Connection::new(connection), from);
        };
        let open = || self.open(user.clone(), Connection::new(connection), from);
        let opened = running.0.when_ready(&user, open).await;
        if opened.is_err() {
            running.0.withdraw(&user, &self.registry);
        }
        opened
    }

    fn open(
        &self,
        user: UserId,
        connection: Connection<Arc<Frame>>,
        from: &LastEventId,
    ) -> Result<Subscription, RegisterError> {
        let resume = match (from.is_none(), from.position()) {
            (true, _) if from.wants_all() => Resume::Start,
            (true, _) => Resume::Fresh,
            (false, Some(position)) => Resume::After(position),
            (false, None) => Resume::Unknown,
        };
        let id = connection.id().clone();
        let filter = self.filter(&user);
        match Subscription::open(&self.registry, user.clone(), connection, resume, filter) {
            Ok(subscription) => {
                self.registry.counters().registered.add(1);
                Ok(subscription
                    .lag_policy(self.lag_policy)
                    .told(from.is_told()))
            }
            Err(error) => {
                self.registry.counters().refused.count(&error);
                // Counted, and logged no louder: a client can cause it at will.
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

    /// The filter of a stream that has just been registered, if there are other nodes.
    fn filter(
        &self,
        user: &UserId,
    ) -> impl FnOnce(&Welcome) -> Option<Box<dyn ResumeFilter<Arc<Frame>>>> + use<E> {
        let relay = self.relay.as_ref().map(|running| running.0.clone());
        let user = user.clone();
        let registry = self.registry.clone();
        move |welcome| {
            let relay = relay?;
            relay.begin(&user, welcome.is_untouched);
            // The log may have been replaced while the channel was opened.
            relay.follow(&registry, &user);
            Some(Box::new(Returning::new(relay, user, welcome)))
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

    /// Ends all connections of a user immediately, drained ones included, for example when the user is locked out.
    /// Returns how many this call ended. A connection that leaves at the same moment is not counted. Events that they
    /// had not read are dropped. Connections that are registered later are not affected. A
    /// [history](super::Builder::history) stays; [`forget`](Self::forget) drops it too.
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
    /// events do not reach them. A [history](super::Builder::history) stays, and connections that are registered later are not
    /// affected.
    ///
    /// A drained connection no longer belongs to the user: [`connection_count`](Self::connection_count), the cap per user and
    /// a second drain do not count it, and its id is free. It counts towards [`total_connections`](Self::total_connections)
    /// and the cap of all connections until its stream is dropped. A client that does not read may delay that:
    /// [`disconnect_user`](Self::disconnect_user), a [`sweep`](Self::sweep) and a [`shutdown`](Self::shutdown) end drained
    /// connections too.
    pub fn drain_user(&self, user: &str) -> usize {
        let count = self.registry.drain(user);
        if count > 0 {
            tracing::debug!(user, connections = count, "drained");
        }
        count
    }

    /// Forgets a user's [history](super::Builder::history), and ends the user's connections as
    /// [`drain_user`](Self::drain_user) does. Nothing can cut these connections afterwards: if clients that do not read
    /// must be disconnected too, call [`disconnect_user`](Self::disconnect_user) first. A client that reconnects gets a
    /// gap.
    pub fn forget(&self, user: &str) -> usize {
        let count = self.registry.forget(user);
        tracing::debug!(user, connections = count, "forgotten");
        count
    }

    /// How many connections the user has.
    #[must_use]
    pub fn connection_count(&self, user: &str) -> usize {
        self.registry
            .with(user, |channel| channel.roster().len())
            .unwrap_or(0)
    }

    /// The current position of the user's history: a stream that resumes from this id gets what is broadcast from now on.
    /// Opens no connection.
    ///
    /// For a page that is rendered with the user's state in it. Ask for the position first, then read the state, and let the
    /// page open its stream with the id: it then gets every change that is not in the state, and may get one that is.
    ///
    /// `None` without a [history](super::Builder::history), and for a user who has neither a connection nor a history here.
    /// Over nodes at [`Level::Replayable`](crate::backplane::Level::Replayable) there is always one: that of the user's events
    /// here or, for a user whom this node does not know, that of the engine's log, which may be a second behind it.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, History, LastEventId, Text};
    /// use tokio_stream::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub: GenericBroadcaster<Text> =
    ///     GenericBroadcaster::builder().history(History::new(100)).build()?;
    /// let _other_tab = hub.register("ann")?;
    /// let position = hub.position("ann").expect("Ann is here");
    /// hub.broadcast("ann", &Text::new("while the page loads"))?;
    ///
    /// let mut tab = hub.resume("ann", &LastEventId::from(position))?;
    /// assert_eq!(tab.next().await.unwrap()?.data(), "while the page loads");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn position(&self, user: &str) -> Option<EventId> {
        let here = self.registry.with(user, |channel| channel.place());
        let horizon = || self.relay.as_ref()?.0.horizon();
        here.flatten().or_else(horizon).map(EventId::from)
    }

    /// How many events the user's connections have lost by falling behind, since the user's channel was opened.
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

    /// The users that have a connection, in no particular order. Walks over all of them.
    #[must_use]
    pub fn connected_users(&self) -> Vec<UserId> {
        self.registry
            .users
            .rosters()
            .iter()
            .filter(|roster| roster.len() > 0)
            .map(|roster| roster.user().clone())
            .collect()
    }

    /// Every connection of every user. Walks over all of them.
    #[must_use]
    pub fn connection_info(&self) -> Vec<ConnectionInfo> {
        self.registry
            .users
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
}

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The user.
    pub user: UserId,
    /// Its id.
    pub connection: ConnectionId,
    /// How long it has been open.
    pub age: Duration,
    /// How many events it has lost by falling behind.
    pub lagged: u64,
    /// How many events it has neither read nor lost yet.
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
