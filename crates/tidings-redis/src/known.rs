//! What a node knows of the log.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use tidings::backplane::Position;

/// The log as this node knows it. It learns the epoch from answers to its own questions only. How far the log of that epoch reaches,
/// it also learns from the messages that arrive.
#[derive(Debug, Default)]
pub(super) struct Known {
    epoch: u64,
    /// The log reaches up to here at least.
    head: u64,
    newest: Option<Seen>,
    /// Epochs that are over: an answer with one of them is late, or the log was restored from an older copy.
    past: Vec<u64>,
    /// How often the log has become another one.
    pub(super) resets: u64,
}

/// A message that the log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) offset: u64,
    pub(super) id: u128,
    /// Until then, the log must recognize its id. By the server's clock, in milliseconds.
    pub(super) until: u64,
}

impl Known {
    pub(super) fn horizon(&self) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.head,
        }
    }

    pub(super) fn is_past(&self, epoch: u64) -> bool {
        self.past.contains(&epoch)
    }

    /// The newest message that this node has seen.
    pub(super) fn newest(&self) -> Option<Seen> {
        self.newest
    }

    /// Takes over what the server has answered. Whether it is of this log.
    pub(super) fn learn(&mut self, epoch: u64, head: u64) -> bool {
        if self.is_past(epoch) {
            return false;
        }
        if epoch == self.epoch {
            self.head = self.head.max(head);
            return true;
        }
        if self.epoch != 0 {
            self.past.push(self.epoch);
            self.resets += 1;
        }
        (self.epoch, self.head, self.newest) = (epoch, head, None);
        true
    }

    /// Takes over that the log of an epoch has a message.
    pub(super) fn see(&mut self, epoch: u64, seen: Seen) {
        if epoch != self.epoch {
            return;
        }
        self.head = self.head.max(seen.offset);
        if self.newest.is_none_or(|newest| newest.offset < seen.offset) {
            self.newest = Some(seen);
        }
    }
}

/// A number that nobody else draws.
pub(super) fn random() -> u64 {
    // Each `RandomState` has keys of its own.
    RandomState::new().hash_one(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_is_over_does_not_come_back() {
        let mut known = Known::default();
        assert!(known.learn(1, 10));
        assert!(known.learn(2, 3));
        assert!(!known.learn(1, 11), "a late answer");
        assert_eq!((known.horizon().epoch, known.horizon().offset), (2, 3));
        assert_eq!(known.resets, 1);
    }

    #[test]
    fn the_newest_message_of_the_epoch_is_evidence() {
        let mut known = Known::default();
        known.learn(1, 10);
        assert_eq!(known.newest(), None);
        let seen = |offset| Seen {
            offset,
            id: u128::from(offset),
            until: 1_000 + offset,
        };
        known.see(1, seen(12));
        known.see(1, seen(11));
        known.see(2, seen(90));
        assert_eq!((known.newest(), known.head), (Some(seen(12)), 12));
        known.learn(1, 20);
        assert_eq!((known.newest(), known.head), (Some(seen(12)), 20));
        known.learn(2, 3);
        assert_eq!((known.newest(), known.head), (None, 3), "of another log");
    }
}
