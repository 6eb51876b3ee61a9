//! `backplane/relay/outbox.rs`: nothing is slept through, and what is lost stands behind what is not.
//!
//! The broadcaster itself is not compiled for the models, its outbox is: the same file, included here.

use std::sync::Arc;

use loom::future::block_on;
use loom::thread;

use self::source::Outbox;
use super::support::model;
use crate::error::RelayError;

#[path = "../src/backplane/relay/outbox.rs"]
mod source;

/// How many shards there are, among which the room is divided; all events here are in one of them.
const SHARDS: usize = 8;

/// The event of this number of the one user, of this length.
fn push(outbox: &Outbox, number: u8, len: usize) -> Result<(), RelayError> {
    outbox.push((0, "u"), None, len, |buffer| {
        buffer.resize(buffer.len() + len, number);
    })
}

/// What the task takes out: the numbers of events, and behind them how many were lost. Of one user, each number is one or the
/// other.
#[derive(Debug, Default)]
struct Taken {
    events: Vec<u64>,
    lost: u64,
}

impl Taken {
    fn take(&mut self, outbox: &Outbox) {
        let drained = outbox.drain();
        for (_, event) in drained.events {
            let Some(event) = event else {
                self.lost += 1;
                continue;
            };
            let number = u64::from(event.body[0]);
            assert_eq!(
                number,
                self.total() + 1,
                "in order, and what is lost in its place"
            );
            self.events.push(number);
            outbox.give_back(event.place);
        }
        self.lost += drained.lost.into_values().sum::<u64>();
    }

    fn total(&self) -> u64 {
        self.events.len() as u64 + self.lost
    }

    /// As the task does: takes what is there, and sleeps when there is nothing.
    fn take_until(outbox: &Outbox, total: u64) -> Self {
        let mut taken = Self::default();
        taken.take(outbox);
        while taken.total() < total {
            block_on(outbox.wait());
            taken.take(outbox);
        }
        taken
    }
}

/// An event is pushed just when the task goes to sleep.
///
/// Fails: asleep_after_the_last_look, the_push_looks_before_it_pushes.
#[test]
fn push_meets_sleep() {
    model(10, || {
        let outbox = Arc::new(Outbox::new(8, 1 << 20));
        let task = {
            let outbox = outbox.clone();
            thread::spawn(move || Taken::take_until(&outbox, 1))
        };
        assert_eq!(push(&outbox, 1, 1), Ok(()));
        assert_eq!(task.join().unwrap().events, [1]);
        assert_eq!(outbox.len(), 0);
    });
}

/// One wakes the task, and another pushes when the task has been told already.
///
/// Fails: asleep_after_the_last_look, the_push_looks_before_it_pushes.
#[test]
fn two_pushes_meet_sleep() {
    model(190, || {
        let outbox = Arc::new(Outbox::new(8 * SHARDS, 1 << 20));
        let pusher = {
            let outbox = outbox.clone();
            thread::spawn(move || {
                assert_eq!(push(&outbox, 1, 1), Ok(()));
                assert_eq!(push(&outbox, 2, 1), Ok(()));
            })
        };
        assert_eq!(Taken::take_until(&outbox, 2).events, [1, 2]);
        pusher.join().unwrap();
        assert_eq!(outbox.len(), 0);
    });
}

/// An event that has no room even in an empty shard: the task learns of the loss, and the user's next event is taken.
///
/// Fails: a_loss_does_not_wake.
#[test]
fn a_loss_meets_sleep() {
    model(50, || {
        let outbox = Arc::new(Outbox::new(8, 100 * SHARDS));
        let pusher = {
            let outbox = outbox.clone();
            thread::spawn(move || assert_eq!(push(&outbox, 1, 200), Err(RelayError::QueueFull)))
        };
        let taken = Taken::take_until(&outbox, 1);
        assert_eq!((taken.events.len(), taken.lost), (0, 1));
        pusher.join().unwrap();
        assert_eq!(push(&outbox, 2, 1), Ok(()), "there is room again");
    });
}

/// A shard that is full is emptied while events are pushed, of which a small one would fit behind a large one that did not.
///
/// Fails: what_fits_is_taken_behind_a_loss, a_shard_is_emptied_in_two_steps.
#[test]
fn take_meets_a_full_shard() {
    model(5, || {
        let outbox = Arc::new(Outbox::new(8 * SHARDS, 100 * SHARDS));
        let pusher = {
            let outbox = outbox.clone();
            thread::spawn(move || {
                let lost = [(1, 40), (2, 80), (3, 1)]
                    .map(|(count, letters)| u64::from(push(&outbox, count, letters).is_err()));
                lost.iter().sum::<u64>()
            })
        };
        let mut taken = Taken::default();
        taken.take(&outbox);
        let lost = pusher.join().unwrap();
        taken.take(&outbox);
        assert_eq!(
            (taken.total(), taken.lost),
            (3, lost),
            "each is kept or counted"
        );
        assert_eq!(outbox.len(), 0);
    });
}

/// The task empties a shard while one of a user's events is lost that can never be published: it is lost in its place, and alone.
///
/// Fails: what_is_too_large_is_lost_last.
#[test]
fn take_meets_a_loss_in_its_place() {
    model(5, || {
        let outbox = Arc::new(Outbox::new(8 * SHARDS, 100 * SHARDS));
        let pusher = {
            let outbox = outbox.clone();
            thread::spawn(move || {
                assert_eq!(push(&outbox, 1, 1), Ok(()));
                outbox.lose((0, "u"));
                assert_eq!(push(&outbox, 3, 1), Ok(()));
            })
        };
        let mut taken = Taken::default();
        taken.take(&outbox);
        pusher.join().unwrap();
        taken.take(&outbox);
        assert_eq!((taken.events, taken.lost), (vec![1, 3], 1));
        assert_eq!(outbox.len(), 0);
    });
}
