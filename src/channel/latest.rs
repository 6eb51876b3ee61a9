//! The newest event of each key, for streams that coalesce what they lost.

use std::collections::HashMap;
use std::ops::Range;

use crate::sync::KeyedHasher;

pub(super) struct Latest<T> {
    keys: HashMap<Box<str>, (u64, T), KeyedHasher>,
    cap: usize,
    /// The newest event that no later one stands for: it had no key, or its key was forgotten.
    unaccounted: u64,
}

impl<T: Clone> Latest<T> {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            keys: HashMap::default(),
            cap,
            unaccounted: 0,
        }
    }

    pub(super) fn note(&mut self, offset: u64, key: Option<&str>, event: &T) {
        let Some(key) = key.filter(|_| self.cap > 0) else {
            self.unaccounted = offset;
            return;
        };
        if let Some(newest) = self.keys.get_mut(key) {
            *newest = (offset, event.clone());
            return;
        }
        if self.keys.len() == self.cap {
            self.forget_the_oldest();
        }
        self.keys.insert(key.into(), (offset, event.clone()));
    }

    fn forget_the_oldest(&mut self) {
        let oldest = self.keys.iter().min_by_key(|(_, (offset, _))| *offset);
        if let Some((key, &(offset, _))) = oldest {
            let key = key.clone();
            self.keys.remove(&key);
            self.unaccounted = self.unaccounted.max(offset);
        }
    }

    /// Of these events, those that are the newest of their key, in order.
    pub(super) fn within(&self, offsets: &Range<u64>) -> Vec<(u64, T)> {
        let mut newest: Vec<_> = self
            .keys
            .values()
            .filter(|(offset, _)| offsets.contains(offset))
            .cloned()
            .collect();
        newest.sort_unstable_by_key(|(offset, _)| *offset);
        newest
    }

    /// Whether each event from this one on that is not the newest of its key has a newer one.
    pub(super) fn accounts_from(&self, offset: u64) -> bool {
        self.unaccounted < offset
    }
}
