//! The end of a stream, as seen by whoever holds its socket.

use std::fmt;
use std::sync::Arc;
use std::task::Context;

use tokio::time::Instant;

use crate::channel::Connection;
use crate::frame::Frame;

/// Says whether a stream is over. Travels in the extensions of its response, to the server.
///
/// A stream whose client does not read is not polled, and cannot say so itself. Whoever waits for that client has itself
/// woken when the stream is [cut](Self::watch), and knows its [deadline](Self::expires) beforehand.
///
/// It keeps neither the connection registered nor its events.
pub(crate) struct StreamEnd<T = Arc<Frame>>(Arc<Connection<T>>);

impl<T: Clone + Send + 'static> StreamEnd<T> {
    pub(super) fn new(connection: Arc<Connection<T>>) -> Self {
        Self(connection)
    }

    /// Whether the stream was ended from outside, or its deadline has passed. A stream that ended by itself is not over:
    /// its last bytes have all the time there is.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.0.is_over(now)
    }

    /// Has the task woken when the stream is ended from outside. Ask whether it [is over](Self::is_over) afterwards.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        self.0.watch(cx.waker());
    }

    /// When its deadline is, if it has one.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.0.expires()
    }
}

impl<T> Clone for StreamEnd<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for StreamEnd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamEnd").finish_non_exhaustive()
    }
}
