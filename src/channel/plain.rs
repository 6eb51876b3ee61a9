//! How an [attendant](Bell) reads a connection, to write its events in place of the stream.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::Connection;
use super::connection::{ENDED, Reader};
use super::ring::{Bell, Feed};
use crate::sync::contain;

/// What an attendant finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plain<T> {
    Event(T),
    /// There is no event yet.
    Nothing,
    /// The stream has to poll itself.
    Other,
}

impl<T: Clone + Send + 'static> Connection<T> {
    /// Lets an attendant read for this stream, from its first poll on. `None` if the stream has ended.
    pub(crate) fn attend(&self) -> Option<Bell<T>> {
        let bell = self
            .reader
            .try_with(|reader| reader.feed.as_mut().map(Feed::attend));
        self.look_again();
        bell.flatten()
    }

    /// The next event, for an attendant. An event that is not `plain`, and anything but an event, is left to the stream.
    pub(crate) fn next_plain(&self, plain: impl Fn(&T) -> bool) -> Plain<T> {
        if self.phase.load(Ordering::Acquire) != 0 {
            return Plain::Other;
        }
        let next = self.reader.try_with(|reader| {
            let next = reader.next_plain(plain);
            (next, reader.owes())
        });
        let (next, owed) = next.unzip();
        if let Some(owed) = owed.flatten() {
            owed.release();
        }
        let phase = self.look_again();
        match next {
            Some(Plain::Event(event)) if phase & ENDED == 0 => {
                self.advance(1);
                Plain::Event(event)
            }
            Some(Plain::Nothing) if phase == 0 => Plain::Nothing,
            _ => Plain::Other,
        }
    }

    /// Wakes the stream, as an event would.
    pub(crate) fn wake(&self) {
        let waker = self.reader.try_with(|reader| reader.waker.take());
        self.look_again();
        if let Some(waker) = waker.flatten() {
            contain(|| waker.wake());
        }
    }
}

impl<T: Clone + Send + 'static> Reader<T> {
    /// Leaves no waker: the task of an attendant never runs out of coop budget.
    fn next_plain(&mut self, plain: impl Fn(&T) -> bool) -> Plain<T> {
        if self.left.is_some() {
            return Plain::Other;
        }
        match self.poll_item(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Plain::Nothing,
            Poll::Ready(Some(Ok(event))) if plain(&event) => Plain::Event(event),
            Poll::Ready(item) => {
                self.left = Some(Box::new(item));
                Plain::Other
            }
        }
    }
}
