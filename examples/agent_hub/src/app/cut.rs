//! Connections that break as if the server had crashed, to try out how clients react.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tidings::{ConnectionId, GenericBroadcaster};

/// The connections that were cut and whose streams have not noticed yet.
#[derive(Clone, Default)]
pub(super) struct Cuts(Arc<Mutex<HashSet<ConnectionId>>>);

impl Cuts {
    /// Cuts all connections of a user and returns how many there were.
    pub(super) fn cut<E>(&self, hub: &GenericBroadcaster<E>, user: &str) -> usize {
        // Held to the end: a stream that wakes up meanwhile must not look for its mark before it is there.
        let mut marks = self.lock();
        let mut count = 0;
        for info in hub.connection_info_of(user) {
            if hub.unregister(user, &info.connection) {
                marks.insert(info.connection);
                count += 1;
            }
        }
        count
    }

    /// Makes the response of this connection break when the connection is cut.
    pub(super) fn watch(&self, connection: ConnectionId, response: impl IntoResponse) -> Response {
        let mark = Mark {
            cuts: self.clone(),
            connection,
        };
        response
            .into_response()
            .map(|events| Body::new(Breakable { events, mark }))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ConnectionId>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

/// A body that fails where it would end, if its connection was cut. hyper then closes the socket without the last chunk.
struct Breakable {
    // Dropped first. Once the connection has left nobody can mark it any more, and a mark that is there is wiped.
    events: Body,
    mark: Mark,
}

impl HttpBody for Breakable {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.events).poll_frame(cx));
        if frame.is_none() && self.mark.wipe() {
            return Poll::Ready(Some(Err(axum::Error::new("the connection was cut"))));
        }
        Poll::Ready(frame)
    }
}

/// Where the mark of one connection would be.
struct Mark {
    cuts: Cuts,
    connection: ConnectionId,
}

impl Mark {
    /// Takes the mark away; `false` if there is none.
    fn wipe(&self) -> bool {
        self.cuts.lock().remove(&self.connection)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.wipe();
    }
}
