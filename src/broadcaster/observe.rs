//! A connection of somebody who looks on: an operator.

use super::GenericBroadcaster;
use crate::error::RegisterError;
use crate::id::{ConnectionId, LastEventId, UserId};
use crate::subscription::{LagPolicy, Subscription};

impl<E: ?Sized> GenericBroadcaster<E> {
    /// Opens a connection of `user` that the user's cap does not count, so that it takes no place of the user's own. It is
    /// told of every gap, also where the user's streams are rather cut off.
    pub(crate) fn observe(&self, user: UserId) -> Result<Subscription, RegisterError> {
        let from = LastEventId::none();
        let gate = self.gate(&user, &from);
        let id = format!("console-{}", ConnectionId::generate());
        match Subscription::observe(&self.registry, user.clone(), id.into(), gate) {
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
