//! Connections that break as if the server had crashed, to try out how clients react.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tidings::{ConnectionId, GenericBroadcaster};

/// The connections whose responses break when they are cut, and whether each was cut.
#[derive(Clone, Default)]
pub(super) struct Cuts(Arc<Mutex<HashMap<ConnectionId, bool>>>);

impl Cuts {
    /// Cuts all connections of a user and returns how many there were.
    pub(super) fn cut<E>(&self, hub: &GenericBroadcaster<E>, user: &str) -> usize {
        // Held to the end: a stream that wakes up meanwhile must not look before it is marked.
        let mut watched = self.lock();
        let mut count = 0;
        for info in hub.connection_info_of(user) {
            if hub.unregister(user, &info.connection) {
                if let Some(is_cut) = watched.get_mut(&info.connection) {
                    *is_cut = true;
                }
                count += 1;
            }
        }
        count
    }

    /// Makes the response of this connection break when the connection is cut.
    pub(super) fn watch(&self, connection: ConnectionId, response: impl IntoResponse) -> Response {
        self.lock().insert(connection.clone(), false);
        let cuts = self.clone();
        response.into_response().map(|events| {
            Body::new(Breakable {
                events,
                cuts,
                connection,
            })
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, bool>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

/// A body that fails where it would end, if its connection was cut. hyper then closes the socket without the last chunk.
struct Breakable {
    events: Body,
    cuts: Cuts,
    connection: ConnectionId,
}

impl HttpBody for Breakable {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.events).poll_frame(cx));
        let is_cut = || self.cuts.lock().get(&self.connection) == Some(&true);
        if frame.is_none() && is_cut() {
            return Poll::Ready(Some(Err(axum::Error::new("the connection was cut"))));
        }
        Poll::Ready(frame)
    }
}

impl Drop for Breakable {
    fn drop(&mut self) {
        self.cuts.lock().remove(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use tidings::Text;

    use super::*;

    #[test]
    fn a_connection_without_a_response_leaves_nothing_when_it_is_cut() {
        let (hub, cuts) = (GenericBroadcaster::<Text>::new(), Cuts::default());
        let watched = hub.register("ann").expect("no cap is reached");
        let _other = hub.register("ann").expect("no cap is reached");
        let response = cuts.watch(watched.guard().connection_id().clone(), watched);
        assert_eq!(cuts.cut(&hub, "ann"), 2);
        drop(response);
        assert_eq!(cuts.lock().len(), 0);
    }
}
