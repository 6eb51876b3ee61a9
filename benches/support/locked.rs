//! The baseline: a map of senders behind an async lock, as SSE services commonly have it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::response::sse::Event;
use tidings::{ConnectionId, UserId};
use tokio::sync::RwLock;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Connections = HashMap<ConnectionId, UnboundedSender<Event>>;

/// `Arc<RwLock<HashMap<user, HashMap<connection, sender>>>>`, each event cloned for each connection.
#[derive(Clone, Default)]
pub(crate) struct LockedHub {
    users: Arc<RwLock<HashMap<UserId, Connections>>>,
}

impl LockedHub {
    pub(crate) async fn register(
        &self,
        user: UserId,
        connection: ConnectionId,
    ) -> UnboundedReceiver<Event> {
        let (tx, rx) = unbounded_channel();
        let mut users = self.users.write().await;
        users.entry(user).or_default().insert(connection, tx);
        rx
    }

    pub(crate) async fn unregister(&self, user: &str, connection: &ConnectionId) {
        let mut users = self.users.write().await;
        if let Some(connections) = users.get_mut(user) {
            connections.remove(connection);
            if connections.is_empty() {
                users.remove(user);
            }
        }
    }

    /// Sends a clone of the event to each of the user's connections and says how many these are.
    pub(crate) async fn broadcast(&self, user: &str, event: Event) -> usize {
        let users = self.users.read().await;
        let Some(connections) = users.get(user) else {
            return 0;
        };
        connections
            .values()
            .filter(|tx| tx.send(event.clone()).is_ok())
            .count()
    }

    /// How many users there are, and how many connections.
    pub(crate) async fn counts(&self) -> (usize, usize) {
        let users = self.users.read().await;
        (users.len(), users.values().map(HashMap::len).sum())
    }

    pub(crate) async fn connection_count(&self, user: &str) -> usize {
        self.users.read().await.get(user).map_or(0, HashMap::len)
    }
}
