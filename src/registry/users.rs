//! The map from user to channel.
//!
//! Each shard is a persistent hash map behind an `ArcSwap`: a reader loads a snapshot and looks up in it; a writer makes
//! a new version, which shares all but a path of nodes with the old one, and exchanges it against the snapshot it
//! decided on.
//!
//! Why this map, of those that `benches/registry` compares (`cargo bench --bench registry -- '^map'`): a change costs the
//! logarithm of the number of users, whatever that number turns out to be, and an empty map costs next to nothing. Cloning
//! one whole map is too slow: 50 µs at a thousand users and 148 ms at a million. 65,536 copy-on-write buckets are two to six
//! times cheaper to change up to a million users, but take half a megabyte before the first one and grow with the number of
//! users per bucket after that. Look-ups cost the same in all of them.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use equivalent::Equivalent;
use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;

use crate::channel::{Channel, Roster};
use crate::id::UserId;
use crate::sync::{ArcSwap, KeyedHasher, SHARDS};

type Snapshot<T> = GenericHashMap<Entry<T>, (), BuildHasherDefault<Prehashed>, DefaultSharedPtr>;

pub(crate) struct Users<T> {
    hasher: KeyedHasher,
    shards: Box<[Shard<T>]>,
}

/// Alone on its cache lines: writing one shard must not slow down reading the next.
#[repr(align(128))]
struct Shard<T>(ArcSwap<Snapshot<T>>);

impl<T: Clone + Send + 'static> Users<T> {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS)
            .map(|_| Shard(ArcSwap::new(Snapshot::default())))
            .collect();
        Self {
            hasher: KeyedHasher::default(),
            shards,
        }
    }

    pub(crate) fn hash(&self, user: &str) -> u64 {
        self.hasher.hash_one(user)
    }

    fn shard(&self, hash: u64) -> &ArcSwap<Snapshot<T>> {
        // The map inside uses the low bits.
        &self.shards[(hash >> 32) as usize % self.shards.len()].0
    }

    /// Runs `f` on the user's channel, if there is one. Its snapshot is held meanwhile, which keeps the channel alive without
    /// a reference count of its own.
    pub(crate) fn with<R>(
        &self,
        hash: u64,
        user: &str,
        f: impl FnOnce(&Channel<T>) -> R,
    ) -> Option<R> {
        let snapshot = self.shard(hash).load();
        let channel = find(&snapshot, hash, user)?;
        Some(f(channel))
    }

    /// Changes the user's entry in the map in one step: `f` is given the channel that is there, and returns the change. If
    /// another thread changes the shard first, `f` is called again: it always decides on the snapshot that its change is made
    /// against.
    pub(super) fn update<R>(
        &self,
        hash: u64,
        user: &str,
        mut f: impl FnMut(Option<&Channel<T>>) -> Change<T, R>,
    ) -> R {
        let shard = self.shard(hash);
        loop {
            let snapshot = shard.load();
            let (next, result) = match f(find(&snapshot, hash, user)) {
                Change::Put(channel, result) => (snapshot.update(Entry(channel), ()), result),
                Change::Remove(result) => (snapshot.without(&Key { hash, user }), result),
                Change::Leave(result) => return result,
            };
            if shard.compare_and_swap(&snapshot, next) {
                return result;
            }
        }
    }

    /// How many users have a channel, including users who are away.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.load().len()).sum()
    }

    /// The rosters of all users, shard by shard: not a snapshot of one moment.
    pub(crate) fn rosters(&self) -> Vec<Arc<Roster<T>>> {
        (0..SHARDS)
            .flat_map(|shard| self.rosters_of_shard(shard))
            .collect()
    }

    pub(crate) fn rosters_of_shard(&self, shard: usize) -> Vec<Arc<Roster<T>>> {
        let snapshot = self.shards[shard].0.load();
        let roster = |Entry(channel): &Entry<T>| channel.roster().clone();
        snapshot.keys().map(roster).collect()
    }

    /// Runs `f` on each channel of a shard: on every one that is in the map when this is called and stays there meanwhile, and
    /// on none twice.
    pub(crate) fn for_each_of_shard(&self, shard: usize, mut f: impl FnMut(&Channel<T>)) {
        // A clone is a reference count. A guard would be held for as long as all the calls take.
        let snapshot = Snapshot::clone(&self.shards[shard].0.load());
        snapshot.keys().for_each(|Entry(channel)| f(channel));
    }
}

/// What [`Users::update`] shall do.
pub(super) enum Change<T, R> {
    /// Put this channel into the map for the user.
    Put(Arc<Channel<T>>, R),
    /// Take the user out of the map.
    Remove(R),
    /// Leave everything as it is.
    Leave(R),
}

fn find<'a, T: Clone + Send + 'static>(
    snapshot: &'a Snapshot<T>,
    hash: u64,
    user: &str,
) -> Option<&'a Channel<T>> {
    snapshot
        .get_key_value(&Key { hash, user })
        .map(|(Entry(channel), ())| &**channel)
}

/// A channel in the map; its key is the user in its roster.
struct Entry<T>(Arc<Channel<T>>);

impl<T: Clone + Send + 'static> Entry<T> {
    fn user(&self) -> &UserId {
        self.0.roster().user()
    }
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Send + 'static> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.user() == other.user()
    }
}

impl<T: Clone + Send + 'static> Eq for Entry<T> {}

impl<T: Clone + Send + 'static> Hash for Entry<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.roster().hash());
    }
}

/// A key that is looked for: the user and, so that it is computed once, its hash.
struct Key<'a> {
    hash: u64,
    user: &'a str,
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<T: Clone + Send + 'static> Equivalent<Entry<T>> for Key<'_> {
    fn equivalent(&self, entry: &Entry<T>) -> bool {
        self.user == entry.user().as_str()
    }
}

/// Passes on the hash that entries and keys carry.
#[derive(Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("entries and keys write one u64")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attacker cannot know which ids collide: not from the source, and not from another process.
    #[test]
    fn each_map_has_hashes_of_its_own() {
        let (one, other) = (Users::<u8>::new(), Users::<u8>::new());
        assert_eq!(one.hash("ann"), one.hash("ann"));
        assert_ne!(one.hash("ann"), other.hash("ann"));
    }
    /// Equal hashes are rare, and no reason to take one user for another.
    #[test]
    fn users_of_one_hash_are_kept_apart() {
        let users = Users::<u8>::new();
        for user in ["ann", "bob"] {
            let channel = Arc::new(Channel::open(user.into(), 7, 4, None, None));
            users.update(7, user, |there| {
                assert!(there.is_none());
                Change::Put(channel.clone(), ())
            });
        }
        let find = |user| users.with(7, user, |channel| channel.roster().user().to_string());
        assert_eq!(find("ann").as_deref(), Some("ann"));
        assert_eq!(find("bob").as_deref(), Some("bob"));
        assert_eq!(find("eve"), None);
        users.update(7, "ann", |there| {
            assert!(there.is_some_and(|ann| &**ann.roster().user() == "ann"));
            Change::Remove(())
        });
        assert_eq!((find("ann"), users.len()), (None, 1));
        assert_eq!(find("bob").as_deref(), Some("bob"));
    }
}
