//! What does it cost that a user comes or goes, by how many are there?
//!
//! - `register`, `leave`: a new user, with N users present.
//! - `connections`: one more connection of a user who has N, in and out again.
//! - `map-change`, `map-lookup`: the maps that were considered for `src/registry/users.rs`, by themselves. They hold the
//!   same keys with the same ready-made hashes, so what differs is the map.

mod support;

use std::cell::{Cell, LazyCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main,
};
use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;
use support::{LockedHub, Mode, Random, current_thread};
use tidings::{ConnectionId, GenericBroadcaster, Text, UserId};

/// How many users come before they all go again.
const BATCH: usize = 256;

fn sizes() -> &'static [usize] {
    Mode::of_args().pick(&[1_000, 10_000, 100_000, 1_000_000], &[100])
}

fn settings(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(20);
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
}

fn names(prefix: &str, n: usize) -> Vec<UserId> {
    (0..n).map(|i| format!("{prefix}-{i:07}").into()).collect()
}

/// Users who are not there yet: so many that each finds another part of the map, and none finds it in the cache.
struct Newcomers {
    users: Vec<UserId>,
    next: Cell<usize>,
}

impl Newcomers {
    fn new() -> Self {
        Self {
            users: names("new", 1 << 15),
            next: Cell::new(0),
        }
    }

    /// Calls `batch` for so many in turn, no more than [`BATCH`] at a time, and adds up what it says. Goes on next time
    /// where it was.
    fn in_batches(&self, iters: u64, mut batch: impl FnMut(&[UserId]) -> Duration) -> Duration {
        let mut left = iters as usize;
        let mut total = Duration::ZERO;
        while left > 0 {
            let first = self.next.get();
            let users = &self.users[first..first + left.min(BATCH)];
            // The number of users is a multiple of that of a batch.
            self.next.set((first + BATCH) % self.users.len());
            total += batch(users);
            left -= users.len();
        }
        total
    }
}

fn register_and_leave(c: &mut Criterion) {
    let newcomers = Newcomers::new();
    let runtime = current_thread();
    for &users in sizes() {
        // Filled only if a benchmark of this size was asked for.
        let tidings = LazyCell::new(|| {
            let hub = GenericBroadcaster::<Text>::new();
            let present = names("user", users);
            let present = present.iter().map(|id| hub.register(id));
            let present: Vec<_> = present.map(|s| s.expect("there is no cap")).collect();
            (hub, present)
        });
        let locked = LazyCell::new(|| {
            let hub = LockedHub::default();
            let mut present = Vec::with_capacity(users);
            for id in names("user", users) {
                present.push(runtime.block_on(hub.register(id, ConnectionId::generate())));
            }
            (hub, present)
        });
        let tidings_batch = |users: &[UserId]| {
            let hub = &tidings.0;
            let mut kept = Vec::with_capacity(users.len());
            let begin = Instant::now();
            for id in users {
                kept.push(hub.register(id).expect("there is no cap"));
            }
            let registered = begin.elapsed();
            let begin = Instant::now();
            kept.clear();
            (registered, begin.elapsed())
        };
        let locked_batch = |users: &[UserId]| {
            let hub = &locked.0;
            runtime.block_on(async {
                let mut kept = Vec::with_capacity(users.len());
                let begin = Instant::now();
                for id in users {
                    let connection = ConnectionId::generate();
                    let receiver = hub.register(id.clone(), connection.clone()).await;
                    kept.push((id, connection, receiver));
                }
                let registered = begin.elapsed();
                let begin = Instant::now();
                for (id, connection, receiver) in kept.drain(..) {
                    hub.unregister(id, &connection).await;
                    drop(receiver);
                }
                (registered, begin.elapsed())
            })
        };
        let mut group = c.benchmark_group("register");
        settings(&mut group);
        group.bench_function(BenchmarkId::new("tidings", users), |b| {
            b.iter_custom(|iters| newcomers.in_batches(iters, |ids| tidings_batch(ids).0));
        });
        group.bench_function(BenchmarkId::new("rwlock", users), |b| {
            b.iter_custom(|iters| newcomers.in_batches(iters, |ids| locked_batch(ids).0));
        });
        group.finish();
        let mut group = c.benchmark_group("leave");
        settings(&mut group);
        group.bench_function(BenchmarkId::new("tidings", users), |b| {
            b.iter_custom(|iters| newcomers.in_batches(iters, |ids| tidings_batch(ids).1));
        });
        group.bench_function(BenchmarkId::new("rwlock", users), |b| {
            b.iter_custom(|iters| newcomers.in_batches(iters, |ids| locked_batch(ids).1));
        });
        group.finish();
    }
}

fn connections(c: &mut Criterion) {
    let runtime = current_thread();
    let user = UserId::from("ann");
    let mut group = c.benchmark_group("connections");
    settings(&mut group);
    for &present in Mode::of_args().pick(&[1, 10, 100, 1_000, 10_000][..], &[10]) {
        let hub = GenericBroadcaster::<Text>::builder()
            .connections_per_user(None)
            .build()
            .expect("the settings are valid");
        let register = || hub.register(&user).expect("there is no cap");
        let _present: Vec<_> = (0..present).map(|_| register()).collect();
        group.bench_function(BenchmarkId::new("tidings", present), |b| b.iter(register));

        let hub = LockedHub::default();
        let register = || hub.register(user.clone(), ConnectionId::generate());
        let _present: Vec<_> = (0..present).map(|_| runtime.block_on(register())).collect();
        group.bench_function(BenchmarkId::new("rwlock", present), |b| {
            b.iter_custom(|iters| {
                runtime.block_on(async {
                    let begin = Instant::now();
                    for _ in 0..iters {
                        let id = ConnectionId::generate();
                        let receiver = hub.register(user.clone(), id.clone()).await;
                        hub.unregister(&user, &id).await;
                        drop(receiver);
                    }
                    begin.elapsed()
                })
            });
        });
    }
    group.finish();
}

/// A user with its hash, as `src/registry/users.rs` keeps it.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    hash: u64,
    user: UserId,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Passes on the hash that a key carries.
#[derive(Default, Clone)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key writes one u64")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Stands in for a channel.
type Value = Arc<u64>;
type Pass = BuildHasherDefault<Prehashed>;
type Persistent = GenericHashMap<Key, Value, Pass, DefaultSharedPtr>;

/// A map that threads share and readers need no lock for.
trait Candidate: FromIterator<(Key, Value)> {
    fn insert(&self, key: &Key, value: &Value);
    fn remove(&self, key: &Key);
    fn get(&self, key: &Key) -> Option<u64>;
}

/// Puts a new version in the place of the one it was made from.
fn update<T>(cell: &ArcSwap<T>, change: impl Fn(&T) -> T) {
    loop {
        let current = cell.load();
        let next = Arc::new(change(&current));
        if Arc::ptr_eq(&cell.compare_and_swap(&*current, next), &current) {
            return;
        }
    }
}

/// A hash map, cloned as a whole for each change.
struct Whole(ArcSwap<HashMap<Key, Value, Pass>>);

impl FromIterator<(Key, Value)> for Whole {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(entries: I) -> Self {
        Self(ArcSwap::from_pointee(entries.into_iter().collect()))
    }
}

impl Candidate for Whole {
    fn insert(&self, key: &Key, value: &Value) {
        update(&self.0, |map| {
            let mut map = map.clone();
            map.insert(key.clone(), value.clone());
            map
        });
    }

    fn remove(&self, key: &Key) {
        update(&self.0, |map| {
            let mut map = map.clone();
            map.remove(key);
            map
        });
    }

    fn get(&self, key: &Key) -> Option<u64> {
        self.0.load().get(key).map(|value| **value)
    }
}

/// 65,536 buckets, each a list that is cloned for each change, or nothing.
struct Buckets(Box<[ArcSwapOption<Bucket>]>);

type Bucket = Vec<(Key, Value)>;

impl Buckets {
    fn bucket(&self, key: &Key) -> &ArcSwapOption<Bucket> {
        &self.0[(key.hash >> 48) as usize]
    }

    fn update(&self, key: &Key, change: impl Fn(&mut Bucket)) {
        let bucket = self.bucket(key);
        loop {
            let current = bucket.load();
            let mut next = current.as_ref().map_or_else(Bucket::new, |list| {
                let mut next = Bucket::with_capacity(list.len() + 1);
                next.extend_from_slice(list);
                next
            });
            change(&mut next);
            let next = (!next.is_empty()).then(|| Arc::new(next));
            let found = bucket.compare_and_swap(&*current, next);
            if found.as_ref().map(Arc::as_ptr) == current.as_ref().map(Arc::as_ptr) {
                return;
            }
        }
    }
}

impl FromIterator<(Key, Value)> for Buckets {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(entries: I) -> Self {
        let this = Self((0..1 << 16).map(|_| ArcSwapOption::empty()).collect());
        for (key, value) in entries {
            this.insert(&key, &value);
        }
        this
    }
}

impl Candidate for Buckets {
    fn insert(&self, key: &Key, value: &Value) {
        self.update(key, |list| list.push((key.clone(), value.clone())));
    }

    fn remove(&self, key: &Key) {
        self.update(key, |list| list.retain(|(there, _)| there != key));
    }

    fn get(&self, key: &Key) -> Option<u64> {
        let list = self.bucket(key).load();
        let (_, value) = list.as_ref()?.iter().find(|(there, _)| there == key)?;
        Some(**value)
    }
}

/// Persistent maps: versions share all that did not change. 64 of them is what tidings has, but for the key, which it
/// keeps inside the channel.
struct Shards<const N: usize>(Box<[Shard]>);

#[repr(align(128))]
struct Shard(ArcSwap<Persistent>);

impl<const N: usize> Shards<N> {
    fn shard(&self, key: &Key) -> &ArcSwap<Persistent> {
        &self.0[(key.hash >> 32) as usize % N].0
    }
}

impl<const N: usize> FromIterator<(Key, Value)> for Shards<N> {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(entries: I) -> Self {
        let shards = (0..N).map(|_| Shard(ArcSwap::default()));
        let this = Self(shards.collect());
        for (key, value) in entries {
            this.insert(&key, &value);
        }
        this
    }
}

impl<const N: usize> Candidate for Shards<N> {
    fn insert(&self, key: &Key, value: &Value) {
        update(self.shard(key), |map| {
            map.update(key.clone(), value.clone())
        });
    }

    fn remove(&self, key: &Key) {
        update(self.shard(key), |map| map.without(key));
    }

    fn get(&self, key: &Key) -> Option<u64> {
        self.shard(key).load().get(key).map(|value| **value)
    }
}

fn map<M: Candidate>(c: &mut Criterion, name: &str) {
    let hasher = RandomState::new();
    let keys = |prefix: &str, n: usize| -> Vec<Key> {
        let users = names(prefix, n).into_iter();
        users
            .map(|user| Key {
                hash: hasher.hash_one(&user),
                user,
            })
            .collect()
    };
    for &users in sizes() {
        let filled = LazyCell::new(|| {
            let present = keys("user", users);
            let map: M = present
                .iter()
                .map(|key| (key.clone(), Value::new(1)))
                .collect();
            (map, present)
        });
        let newcomers = keys("new", 1 << 15);

        let mut group = c.benchmark_group("map-change");
        settings(&mut group);
        if name == "whole" {
            // A change takes up to a fifth of a second.
            group.sampling_mode(SamplingMode::Flat).sample_size(10);
        }
        group.bench_function(BenchmarkId::new(name, users), |b| {
            // Before the clock starts.
            let (map, _) = &*filled;
            let mut newcomers = newcomers.iter().cycle();
            let value = Value::new(1);
            b.iter(|| {
                let key = newcomers.next().expect("a cycle does not end");
                map.insert(key, &value);
                map.remove(key);
            });
        });
        group.finish();

        let mut group = c.benchmark_group("map-lookup");
        settings(&mut group);
        group.bench_function(BenchmarkId::new(name, users), |b| {
            let (map, present) = &*filled;
            let mut random = Random::new();
            b.iter(|| {
                let key = &present[random.below(users)];
                black_box(map.get(key));
            });
        });
        group.finish();
    }
}

fn maps(c: &mut Criterion) {
    map::<Whole>(c, "whole");
    map::<Buckets>(c, "buckets-65536");
    map::<Shards<1>>(c, "imbl");
    map::<Shards<64>>(c, "imbl-64-shards");
}

criterion_group!(benches, register_and_leave, connections, maps);
criterion_main!(benches);
