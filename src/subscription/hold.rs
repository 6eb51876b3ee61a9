//! A hold, which keeps a channel and its history without a connection.

use std::fmt;
use std::sync::Arc;

use crate::channel::Roster;
use crate::frame::Frame;
use crate::id::UserId;
use crate::registry::Registry;

/// Keeps a user's history while it lives, without a connection: see [`hold`](crate::GenericBroadcaster::hold).
///
/// When it is dropped and the user is not connected, the history is kept for as long as after a disconnect
/// ([`History::linger`](crate::History::linger)), that of a complete channel until
/// [`History::linger_completed`](crate::History::linger_completed) is over.
#[must_use = "dropping a hold lets the history go"]
pub struct Hold<T: Clone + Send + 'static = Arc<Frame>> {
    registry: Arc<Registry<T>>,
    roster: Arc<Roster<T>>,
}

impl<T: Clone + Send + 'static> Hold<T> {
    /// Takes one; `None` if there is no room.
    pub(crate) fn take(registry: &Arc<Registry<T>>, user: &UserId) -> Option<Self> {
        Some(Self {
            roster: registry.hold(user)?,
            registry: registry.clone(),
        })
    }

    /// The user whose history it keeps.
    #[must_use]
    pub fn user(&self) -> &UserId {
        self.roster.user()
    }
}

impl<T: Clone + Send + 'static> Drop for Hold<T> {
    fn drop(&mut self) {
        self.registry.release(&self.roster);
    }
}

impl<T: Clone + Send + 'static> fmt::Debug for Hold<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("user", self.user()).finish()
    }
}
