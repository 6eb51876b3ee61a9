//! The baseline over HTTP: axum's own `Sse`, one clone of the `Event` for each connection.

use std::convert::Infallible;

use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tidings::{ConnectionId, UserId};
use tokio::runtime::Handle;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::LockedHub;

/// Takes a connection out of the map when its stream is dropped. That needs the lock, and so a task.
struct Leave {
    hub: LockedHub,
    user: UserId,
    connection: ConnectionId,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let (hub, user, connection) =
            (self.hub.clone(), self.user.clone(), self.connection.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { hub.unregister(&user, &connection).await });
        }
    }
}

impl LockedHub {
    /// Registers a connection, and answers with its events.
    pub(crate) async fn stream(self, user: UserId) -> Response {
        let connection = ConnectionId::generate();
        let events = self.register(user.clone(), connection.clone()).await;
        let leave = Leave {
            hub: self,
            user,
            connection,
        };
        let events = UnboundedReceiverStream::new(events).map(move |event| {
            let _ = &leave;
            Ok::<_, Infallible>(event)
        });
        Sse::new(events)
            .keep_alive(KeepAlive::default())
            .into_response()
    }
}
