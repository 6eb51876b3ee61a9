//! A stream, as the server that holds its socket sees it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use crate::channel::{Bell, Connection, Plain};
use crate::frame::Frame;
use crate::position::Position;
use crate::sync::lock;

/// Says whether a stream is over, and reads its next events where these only have to be written. Travels to the server in the
/// extensions of the stream's response.
///
/// A stream whose client does not read is not polled, and cannot say that it is over. The server task that waits for that
/// client asks to be woken when the stream is [cut](Self::watch), and knows its [deadline](Self::expires) beforehand.
///
/// It keeps neither the connection registered nor its events.
pub(crate) struct StreamHandle<T = Arc<Frame>> {
    connection: Arc<Connection<T>>,
    exchange: Arc<Exchange>,
}

impl<T: Clone + Send + 'static> StreamHandle<T> {
    pub(super) fn new(connection: Arc<Connection<T>>) -> Self {
        Self {
            connection,
            exchange: Arc::default(),
        }
    }

    /// Whether the stream was ended from outside, or its deadline has passed. A stream that ended by itself is not over:
    /// its last bytes may take any time.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.connection.is_over(now)
    }

    /// Wakes the task when the stream is ended from outside. Ask whether it [is over](Self::is_over) afterwards.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        self.connection.watch(cx.waker());
    }

    /// When its deadline is, if it has one.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.connection.expires()
    }

    /// Lets an attendant read for the stream. `None` if the stream has ended.
    pub(crate) fn attend(&self) -> Option<Bell<T>> {
        self.connection.attend()
    }

    /// What its body and its attendant tell each other.
    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// The next event, if it is plain: if its bytes only have to be written.
    pub(crate) fn next_plain(&self, plain: impl Fn(&T) -> bool) -> Plain<T> {
        self.connection.next_plain(plain)
    }

    /// For how long the stream has been open.
    pub(crate) fn age(&self) -> Duration {
        self.connection.age()
    }

    /// Wakes the stream, as an event would.
    pub(crate) fn wake(&self) {
        self.connection.wake();
    }
}

impl<T> Clone for StreamHandle<T> {
    fn clone(&self) -> Self {
        Self {
            connection: Arc::clone(&self.connection),
            exchange: Arc::clone(&self.exchange),
        }
    }
}

impl<T> fmt::Debug for StreamHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").finish_non_exhaustive()
    }
}

/// What the body of a stream and its attendant, which writes events in place of the body, tell each other. They take turns.
#[derive(Debug, Default)]
pub(crate) struct Exchange(Mutex<Words>);

#[derive(Debug, Default)]
struct Words {
    /// The address and length of the chunk that the body has handed out and the server has not got yet.
    chunk: Option<(usize, usize)>,
    /// A chunk has not arrived as it was handed out, before the body was polled again: a layer is in between.
    is_indirect: bool,
    /// The body waits for an event, its next bytes are those of that event, and it has handed out an event before.
    is_plain: bool,
    /// When the attendant has written last, and the position of the last event that has one.
    written: Option<Instant>,
    told: Option<Position>,
}

impl Exchange {
    /// Called by the body.
    pub(crate) fn hand_out(&self, chunk: Option<&[u8]>, is_plain: bool) {
        let mut words = self.lock();
        // The server has not got the chunk before.
        words.is_indirect |= words.chunk.is_some();
        words.chunk = chunk.map(identity);
        words.is_plain = is_plain;
    }

    /// Called by the server, with the bytes that it has got, if they came in one piece. They are the very ones that the body
    /// has handed out if nothing between the two has changed or copied them.
    pub(crate) fn arrived(&self, chunk: Option<&[u8]>) {
        let mut words = self.lock();
        let expected = words.chunk.take();
        words.is_indirect |= chunk.is_none() || chunk.map(identity) != expected;
    }

    /// Whether the next bytes are those of the next event, and nothing is in between.
    pub(crate) fn is_plain(&self) -> bool {
        let words = self.lock();
        words.is_plain && !words.is_indirect
    }

    /// Called by the attendant.
    pub(crate) fn wrote(&self, now: Instant, told: Option<Position>) {
        let mut words = self.lock();
        words.written = Some(now);
        words.told = told.or(words.told);
    }

    /// What the attendant has recorded since the last call.
    pub(crate) fn written(&self) -> (Option<Instant>, Option<Position>) {
        let mut words = self.lock();
        (words.written.take(), words.told.take())
    }

    fn lock(&self) -> MutexGuard<'_, Words> {
        lock(&self.0)
    }
}

fn identity(bytes: &[u8]) -> (usize, usize) {
    (bytes.as_ptr().addr(), bytes.len())
}
