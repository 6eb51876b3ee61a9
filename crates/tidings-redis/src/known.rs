//! What a node knows of the log.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use tidings::backplane::Position;
use tokio::time::Instant;

/// The log as this node knows it. It learns from answers to its own questions only, never from what was published.
#[derive(Debug, Default)]
pub(super) struct Known {
    epoch: u64,
    /// The log reaches up to here at least.
    head: u64,
    /// The newest message that this node has seen, and when.
    newest: Option<(u64, u128, Instant)>,
    /// Epochs that are over: an answer with one of them is late, or the log was restored from an older copy.
    past: Vec<u64>,
    /// How often the log has become another one.
    pub(super) resets: u64,
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

    /// The newest message that the log must have, and still recognizes by its id.
    pub(super) fn evidence(&self, window: Duration) -> (u64, Option<u128>) {
        match self.newest {
            // Half the window, since the two clocks are not one.
            Some((offset, id, at)) if at.elapsed() < window / 2 => (offset, Some(id)),
            _ => (self.head, None),
        }
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

    /// A message that the log has.
    pub(super) fn see(&mut self, position: Position, id: u128) {
        if position.epoch != self.epoch {
            return;
        }
        self.head = self.head.max(position.offset);
        if self
            .newest
            .is_none_or(|(newest, ..)| newest < position.offset)
        {
            self.newest = Some((position.offset, id, Instant::now()));
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

    #[tokio::test(start_paused = true)]
    async fn an_epoch_that_is_over_does_not_come_back() {
        let mut known = Known::default();
        assert!(known.learn(1, 10));
        assert!(known.learn(2, 3));
        assert!(!known.learn(1, 11), "a late answer");
        assert_eq!((known.horizon().epoch, known.horizon().offset), (2, 3));
        assert_eq!(known.resets, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_evidence_while_its_id_is_recognized() {
        let window = Duration::from_secs(120);
        let mut known = Known::default();
        known.learn(1, 10);
        assert_eq!(known.evidence(window), (10, None));
        let at = |epoch, offset| Position { epoch, offset };
        known.see(at(1, 12), 7);
        known.see(at(1, 11), 6);
        known.see(at(2, 90), 5);
        assert_eq!(known.evidence(window), (12, Some(7)));
        known.learn(1, 20);
        assert_eq!(known.evidence(window), (12, Some(7)), "by what it has seen");
        tokio::time::advance(window / 2).await;
        assert_eq!(known.evidence(window), (20, None));
    }
}
