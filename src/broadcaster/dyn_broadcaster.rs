//! The object-safe trait.

use async_trait::async_trait;

use super::{GenericBroadcaster, Reach};
use crate::error::{BroadcastError, RegisterError};
use crate::event::ToSse;
use crate::id::{ConnectionId, LastEventId, UserId};
use crate::subscription::Subscription;

/// Registers, unregisters, broadcasts and counts, for use behind `dyn`.
///
/// Where the type is known, call the methods of [`GenericBroadcaster`]: its versions of these are
/// not `async`, and it has many more.
///
/// Sealed: only `GenericBroadcaster` implements it, since only that can make a [`Subscription`]. Methods may be added.
///
/// # Cancel safety
///
/// When the future of [`register`](Self::register) is dropped, nothing was registered. With a `GenericBroadcaster` the others
/// are ready with their first poll.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use tidings::{Broadcaster, ConnectionId, GenericBroadcaster, Text, UserId};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let hub: Arc<dyn Broadcaster<Event = Text>> = Arc::new(GenericBroadcaster::<Text>::new());
/// let ann = UserId::from("ann");
/// let tab = hub.register(&ann, ConnectionId::from("tab-1")).await?;
/// assert_eq!(hub.broadcast(&ann, &Text::new("hello")).await?, 1);
/// drop(tab);
/// assert_eq!(hub.total_connections().await, 0);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
#[async_trait]
pub trait Broadcaster: sealed::Sealed + Send + Sync {
    /// What is broadcast.
    type Event: ?Sized;

    /// Opens a connection; see [`GenericBroadcaster::register_as`]. With a
    /// [backplane](super::Builder::backplane), waits until the user's events arrive from other
    /// nodes; see [`GenericBroadcaster::register_when_ready`].
    ///
    /// # Errors
    ///
    /// As [`GenericBroadcaster::register_as`].
    async fn register(
        &self,
        user: &UserId,
        connection: ConnectionId,
    ) -> Result<Subscription, RegisterError>;

    /// Ends a connection; see [`GenericBroadcaster::unregister`].
    async fn unregister(&self, user: &UserId, connection: &ConnectionId) -> bool;

    /// Sends an event to all streams of a user; see [`GenericBroadcaster::broadcast`].
    ///
    /// # Errors
    ///
    /// As [`GenericBroadcaster::broadcast`].
    async fn broadcast(&self, user: &UserId, event: &Self::Event) -> Result<usize, BroadcastError>;

    /// Sends an event to many users; see [`GenericBroadcaster::broadcast_many`].
    ///
    /// # Errors
    ///
    /// As [`GenericBroadcaster::broadcast_many`].
    async fn broadcast_many(
        &self,
        users: &[UserId],
        event: &Self::Event,
    ) -> Result<Reach, BroadcastError>;

    /// Sends an event to all users of this node; see [`GenericBroadcaster::broadcast_all`].
    ///
    /// # Errors
    ///
    /// As [`GenericBroadcaster::broadcast_all`].
    async fn broadcast_all(&self, event: &Self::Event) -> Result<Reach, BroadcastError>;

    /// How many connections the user has.
    async fn connection_count(&self, user: &UserId) -> usize;

    /// How many connections there are.
    async fn total_connections(&self) -> usize;
}

mod sealed {
    pub trait Sealed {}
}

impl<E: ToSse + Sync + ?Sized> sealed::Sealed for GenericBroadcaster<E> {}

#[async_trait]
impl<E: ToSse + Sync + ?Sized> Broadcaster for GenericBroadcaster<E> {
    type Event = E;

    async fn register(
        &self,
        user: &UserId,
        connection: ConnectionId,
    ) -> Result<Subscription, RegisterError> {
        self.open_when_ready(user.clone(), connection, &LastEventId::none())
            .await
    }

    async fn unregister(&self, user: &UserId, connection: &ConnectionId) -> bool {
        self.unregister(user, connection)
    }

    async fn broadcast(&self, user: &UserId, event: &E) -> Result<usize, BroadcastError> {
        self.broadcast(user, event)
    }

    async fn broadcast_many(&self, users: &[UserId], event: &E) -> Result<Reach, BroadcastError> {
        self.broadcast_many(users, event)
    }

    async fn broadcast_all(&self, event: &E) -> Result<Reach, BroadcastError> {
        self.broadcast_all(event)
    }

    async fn connection_count(&self, user: &UserId) -> usize {
        self.connection_count(user)
    }

    async fn total_connections(&self) -> usize {
        self.total_connections()
    }
}
