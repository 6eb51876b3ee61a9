//! A connection in the place of one that its client has lost.

use super::GenericBroadcaster;
use crate::error::RegisterError;
use crate::id::{ConnectionId, LastEventId, UserId};
use crate::subscription::Subscription;

impl<E: ?Sized> GenericBroadcaster<E> {
    /// [Resumes](Self::resume) under the id given, in place of the connection that has it. If the user has one of this id, it
    /// is [ended](Self::unregister) first.
    ///
    /// For clients that name their connections, a tab for example. A client that comes back may be faster than the news that
    /// its old connection is lost: a proxy can hold that open for as long as it likes. [`resume_as`](Self::resume_as)
    /// refuses the client until then.
    ///
    /// Only a connection of the same user is ended, so whoever can choose the id can end that user's other connections.
    /// What the old connection had not read is dropped; with a [history](super::Builder::history) and the client's id
    /// nothing is lost. Of several that come for the same id at the same time, the last one stays.
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
            match self.open(user.clone(), connection.clone(), last_event_id) {
                // Another call has come in between. Each comes in once, so this ends with the last of them.
                Err(RegisterError::ConnectionIdInUse) => {}
                opened => return opened,
            }
        }
    }
}
