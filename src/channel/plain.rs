//! How an [attendant](Bell) reads a connection, to write its events in place of the stream.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::Connection;
use super::connection::{ENDED, Reader};
use super::ephemeral::Ephemerals;
use super::ring::{Bell, Feed};

/// What an attendant finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plain<T> {
    /// With its number in the channel.
    Event(T, u64),
    /// There is no event yet.
    Nothing,
    /// The stream has to poll itself.
    Other,
}

impl<T: Clone + Send + 'static> Connection<T> {
    /// Lets an attendant read for this stream, from its first poll on. `None` if the stream has ended.
    pub(crate) fn attend(&self) -> Option<Bell<T>> {
        self.enter(|reader| reader.feed.as_mut().map(Feed::attend))
            .flatten()
    }

    /// The next event, for an attendant. An event that is not `plain`, and anything but an event, is left to the stream.
    pub(crate) fn next_plain(&self, plain: impl Fn(&T) -> bool) -> Plain<T> {
        if self.phase.load(Ordering::Acquire) != 0 {
            return Plain::Other;
        }
        let next = self.reader.try_with(|reader| {
            let next = reader.next_plain(plain, &self.ephemerals);
            (next, reader.owes())
        });
        let (next, owed) = next.unzip();
        if let Some(owed) = owed.flatten() {
            owed.release();
        }
        let phase = self.look_again();
        match next {
            Some(event @ Plain::Event(..)) if phase & ENDED == 0 => {
                self.advance(1);
                // As in `enter`. The attendant may read no more for this stream until the next event.
                if phase != 0 || self.ephemerals.is_any() {
                    self.wake();
                }
                event
            }
            // The sender of an ephemeral event may have found the cell taken by us, and not have woken the stream.
            Some(Plain::Nothing) if phase == 0 && !self.ephemerals.is_any() => Plain::Nothing,
            _ => Plain::Other,
        }
    }
}

impl<T: Clone + Send + 'static> Reader<T> {
    /// Leaves no waker: the task of an attendant never runs out of coop budget. Ephemeral events are left to the stream.
    fn next_plain(&mut self, plain: impl Fn(&T) -> bool, ephemerals: &Ephemerals<T>) -> Plain<T> {
        if self.left.is_some() {
            return Plain::Other;
        }
        match self.poll_item(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Plain::Nothing,
            // Asked after the event is read: an ephemeral event that was sent before it is seen here.
            Poll::Ready(Some(Ok(event))) if plain(&event) && !ephemerals.is_any() => {
                Plain::Event(event, self.number())
            }
            Poll::Ready(item) => {
                self.left = Some(Box::new(item));
                Plain::Other
            }
        }
    }
}
