//! Events that were taken out under a lock, to be dropped after it was released.

use crate::sync::contain;

/// Drops its events one by one; a panic in one drop neither stops the others nor reaches the caller.
///
/// Made before the lock is taken. An append usually takes out two events at most, the oldest of the history and the one that
/// it replaces under its key: these need no allocation.
pub(super) struct Discarded<T> {
    few: [Option<T>; 2],
    many: Vec<T>,
}

impl<T> Discarded<T> {
    pub(super) fn new() -> Self {
        Self {
            few: [None, None],
            many: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, event: T) {
        match self.few.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(event),
            None => self.many.push(event),
        }
    }
}

impl<T> Extend<T> for Discarded<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, events: I) {
        events.into_iter().for_each(|event| self.push(event));
    }
}

impl<T> Drop for Discarded<T> {
    fn drop(&mut self) {
        let few = self.few.iter_mut().filter_map(Option::take);
        for event in few.chain(self.many.drain(..)) {
            contain(|| drop(event));
        }
    }
}
