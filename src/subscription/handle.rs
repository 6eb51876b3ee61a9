//! A stream, as whoever holds its socket sees it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use tokio::time::Instant;

use crate::channel::{Bell, Connection, Plain, Roster};
use crate::frame::Frame;
use crate::position::Position;

/// Says whether a stream is over, and reads its next events where these need nothing but to be written. Travels in the extensions
/// of its response, to the server.
///
/// A stream whose client does not read is not polled, and cannot say that it is over. Whoever waits for that client has itself
/// woken when the stream is [cut](Self::watch), and knows its [deadline](Self::expires) beforehand.
///
/// It keeps neither the connection registered nor its events.
pub(crate) struct StreamHandle<T = Arc<Frame>> {
    connection: Arc<Connection<T>>,
    roster: Arc<Roster<T>>,
    exchange: Arc<Exchange>,
}

impl<T: Clone + Send + 'static> StreamHandle<T> {
    pub(super) fn new(connection: Arc<Connection<T>>, roster: Arc<Roster<T>>) -> Self {
        Self {
            connection,
            roster,
            exchange: Arc::default(),
        }
    }

    /// Whether the stream was ended from outside, or its deadline has passed. A stream that ended by itself is not over:
    /// its last bytes have all the time there is.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.connection.is_over(now)
    }

    /// Has the task woken when the stream is ended from outside. Ask whether it [is over](Self::is_over) afterwards.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        self.connection.watch(cx.waker());
    }

    /// When its deadline is, if it has one.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.connection.expires()
    }

    /// How many streams its user has.
    pub(crate) fn siblings(&self) -> usize {
        self.roster.len()
    }

    /// Has an attendant read for the stream. `None` if that has ended.
    pub(crate) fn attend(&self) -> Option<Bell<T>> {
        let bell = self.connection.attend();
        self.exchange
            .is_attended
            .store(bell.is_some(), Ordering::Relaxed);
        bell
    }

    /// What its body and its attendant have to say to each other.
    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// The next event, if it is plain: if all that is to be done with it is to write its bytes.
    pub(crate) fn next_plain(&self, plain: impl Fn(&T) -> bool) -> Plain<T> {
        self.connection.next_plain(plain)
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
            roster: Arc::clone(&self.roster),
            exchange: Arc::clone(&self.exchange),
        }
    }
}

impl<T> fmt::Debug for StreamHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").finish_non_exhaustive()
    }
}

/// What the body of a stream and its attendant, who writes events where the body would have, have to say to each other. They
/// take turns.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    is_attended: AtomicBool,
    words: Mutex<Words>,
}

#[derive(Debug, Default)]
struct Words {
    /// Where the chunk stands that the body has handed out last, and how long it is.
    chunk: Option<(usize, usize)>,
    /// The body waits for an event, and its next bytes are those of that.
    is_plain: bool,
    /// When the attendant has written last, and the position of the last event that has one.
    written: Option<Instant>,
    told: Option<Position>,
}

impl Exchange {
    pub(crate) fn is_attended(&self) -> bool {
        self.is_attended.load(Ordering::Relaxed)
    }

    /// Said by the body.
    pub(crate) fn hand_out(&self, chunk: Option<&[u8]>, is_plain: bool) {
        let mut words = self.lock();
        words.chunk = chunk.map(identity);
        words.is_plain = is_plain;
    }

    /// Whether these are the very bytes that the body has handed out: nothing between it and the socket has changed or
    /// copied them.
    pub(crate) fn has_handed_out(&self, chunk: &[u8]) -> bool {
        self.lock().chunk == Some(identity(chunk))
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.lock().is_plain
    }

    /// Said by the attendant.
    pub(crate) fn wrote(&self, now: Instant, told: Option<Position>) {
        let mut words = self.lock();
        words.written = Some(now);
        words.told = told.or(words.told);
    }

    /// What the attendant has said since the last time.
    pub(crate) fn written(&self) -> (Option<Instant>, Option<Position>) {
        let mut words = self.lock();
        (words.written.take(), words.told.take())
    }

    fn lock(&self) -> MutexGuard<'_, Words> {
        // Nothing in here panics half-way.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(bytes: &[u8]) -> (usize, usize) {
    (bytes.as_ptr().addr(), bytes.len())
}
