//! An observer's connection, for an operator.

use super::GenericBroadcaster;
use crate::error::RegisterError;
use crate::id::{ConnectionId, UserId};
use crate::subscription::{LagPolicy, Subscription};

impl<E: ?Sized> GenericBroadcaster<E> {
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
        let user = user.into();
        let filter = self.filter(&user);
        match Subscription::observe(&self.registry, user.clone(), connection.into(), filter) {
            Ok(subscription) => {
                self.registry.counters().registered.add(1);
                Ok(subscription.lag_policy(LagPolicy::Gap))
            }
            Err(error) => {
                self.registry.counters().refused.count(&error);
                Err(error)
            }
        }
    }
}
