//! The newest event of each key, for streams that coalesce what they lost.
//!
//! As long as the log's window has an event, only the window holds it. When the window drops an event that is still the
//! newest of its key, this holds it: so each event is held once, and those here are older than those in the window.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::window::Retained;

/// What a key costs besides its bytes: its entries in both maps. These are trees: they grow and shrink node by node, so no
/// resize happens under the lock.
const KEY_OVERHEAD: usize = 256;

pub(super) struct Latest<T> {
    /// The number of each key's newest event.
    numbers: BTreeMap<Arc<str>, u64>,
    /// The same by number.
    newest: BTreeMap<u64, Newest<T>>,
    cap: usize,
    /// The newest event that no later one stands for: it had no key, or its key was forgotten, or it was not kept.
    unaccounted: u64,
}

struct Newest<T> {
    key: Arc<str>,
    /// The event, once the window has dropped it.
    held: Option<Retained<T>>,
}

/// What was taken out.
pub(super) struct Removed<T> {
    pub(super) key: Arc<str>,
    pub(super) event: Option<T>,
    /// What both cost.
    pub(super) bytes: usize,
}

impl<T> From<Newest<T>> for Removed<T> {
    fn from(Newest { key, held }: Newest<T>) -> Self {
        let size = held.as_ref().map_or(0, |held| held.size);
        Self {
            bytes: size + cost_of(&key),
            event: held.map(|held| held.event),
            key,
        }
    }
}

pub(super) fn cost_of(key: &str) -> usize {
    KEY_OVERHEAD + key.len()
}

impl<T> Latest<T> {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            numbers: BTreeMap::new(),
            newest: BTreeMap::new(),
            cap,
            unaccounted: 0,
        }
    }

    /// Whether there is a place for keys.
    pub(super) fn takes_keys(&self) -> bool {
        self.cap > 0
    }

    /// Whether the next key takes the place of another.
    pub(super) fn is_full(&self) -> bool {
        self.newest.len() >= self.cap
    }

    /// Nothing stands for this event.
    pub(super) fn miss(&mut self, number: u64) {
        self.unaccounted = self.unaccounted.max(number);
    }

    /// Takes out a key, because its next event has come.
    pub(super) fn remove(&mut self, key: &str) -> Option<Removed<T>> {
        let number = self.numbers.remove(key)?;
        self.newest.remove(&number).map(Removed::from)
    }

    /// Adds a key that is not in, with the number of its newest event.
    pub(super) fn insert(&mut self, number: u64, key: Arc<str>) {
        self.numbers.insert(key.clone(), number);
        self.newest.insert(number, Newest { key, held: None });
    }

    /// Holds an event that the window does not have, if it is the newest of its key; gives it back if it is not.
    pub(super) fn hold(&mut self, number: u64, entry: Retained<T>) -> Result<(), Retained<T>> {
        match self.newest.get_mut(&number) {
            None => Err(entry),
            Some(newest) => {
                newest.held = Some(entry);
                Ok(())
            }
        }
    }

    /// Forgets the key whose newest event is the oldest.
    pub(super) fn forget_key(&mut self) -> Option<Removed<T>> {
        let (number, newest) = self.newest.pop_first()?;
        self.numbers.remove(&newest.key);
        self.miss(number);
        Some(newest.into())
    }

    /// Forgets the oldest event that is held, if `may_go` says so.
    pub(super) fn forget_held(
        &mut self,
        may_go: impl FnOnce(&Retained<T>) -> bool,
    ) -> Option<Removed<T>> {
        let (_, oldest) = self.newest.first_key_value()?;
        oldest.held.as_ref().filter(|held| may_go(held))?;
        self.forget_key()
    }

    /// Takes out every event that is held.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.numbers.clear();
        let newest = std::mem::take(&mut self.newest).into_values();
        newest.filter_map(|newest| newest.held.map(|held| held.event))
    }

    /// Whether each event from this one on that is not the newest of its key has a newer one.
    pub(super) fn accounts_from(&self, number: u64) -> bool {
        self.unaccounted < number
    }
}

impl<T: Clone> Latest<T> {
    /// The first held events in this range, in order, `most` at most; and the number up to which that covers the range.
    pub(super) fn within(&self, numbers: Range<u64>, most: usize) -> (Vec<(u64, T)>, u64) {
        let end = numbers.end;
        let mut held = self.newest.range(numbers).filter_map(|(number, newest)| {
            let held = newest.held.as_ref()?;
            Some((*number, held))
        });
        let some = held.by_ref().take(most);
        let some: Vec<_> = some.map(|(at, held)| (at, held.event.clone())).collect();
        let until = held.next().map_or(end, |(number, _)| number);
        (some, until)
    }
}
