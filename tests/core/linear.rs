//! Concurrent `register_as`, `unregister` and `connection_count` are linearizable: recorded histories of real threads have the
//! results of some sequential order. A broadcast is not one step beside them (a connection is counted before it is reached,
//! and is no longer reached once it is no longer counted), so the number it returns is checked against bounds.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::hint;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidings::{ConnectionId, GenericBroadcaster, Text};

type Hub = GenericBroadcaster<Text>;

const THREADS: usize = 3;
const CALLS: usize = 4;
const HISTORIES: u64 = 2000;
/// A busy machine records fewer.
const ENOUGH: Duration = Duration::from_secs(2);
/// How long a thread waits for the others to start: it does not need them, so that no panic can leave it waiting.
const SPINS: u32 = 10_000;
const IDS: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// The id, and whether it was registered.
    Register(usize, bool),
    /// The id, and whether this call removed it.
    Unregister(usize, bool),
    Count(usize),
    /// The number of streams reached.
    Broadcast(usize),
}

#[derive(Debug, Clone, Copy)]
struct Record {
    call: Call,
    /// Ticks of one clock, shared by the threads.
    begun: u64,
    ended: u64,
}

impl Call {
    /// The members after this call, or `None` if its result does not fit the members before it. Each bit is an id.
    fn apply(self, members: u8) -> Option<u8> {
        let has = |id: usize| members & (1 << id) != 0;
        match self {
            Self::Register(id, is_new) => (is_new != has(id)).then_some(members | 1 << id),
            Self::Unregister(id, is_removed) => {
                (is_removed == has(id)).then_some(members & !(1 << id))
            }
            Self::Count(count) => (count == members.count_ones() as usize).then_some(members),
            Self::Broadcast(_) => Some(members),
        }
    }
}

/// Whether some order of the calls fits their times and their results (the algorithm of Wing and Gong).
fn is_linearizable(history: &[Record]) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![(0_u32, 0_u8)];
    while let Some((done, members)) = open.pop() {
        if done.count_ones() as usize == history.len() {
            return true;
        }
        if !seen.insert((done, members)) {
            continue;
        }
        let left = || (0..history.len()).filter(|at| done & (1 << at) == 0);
        let first_end = left().map(|at| history[at].ended).min();
        for at in left() {
            let record = history[at];
            // A call that began after another had ended comes after it.
            if first_end.is_some_and(|end| record.begun <= end) {
                let next = record.call.apply(members);
                open.extend(next.map(|members| (done | 1 << at, members)));
            }
        }
    }
    false
}

/// Whether each broadcast reached every connection that was in throughout, and none that was not in at all.
fn reaches_members(history: &[Record]) -> bool {
    history.iter().all(|broadcast| {
        let Call::Broadcast(reached) = broadcast.call else {
            return true;
        };
        let registered = history
            .iter()
            .filter(|it| matches!(it.call, Call::Register(_, true)) && it.begun < broadcast.ended);
        let removed = history.iter().filter(|it| {
            matches!(it.call, Call::Unregister(_, true)) && it.ended < broadcast.begun
        });
        let most = registered.clone().count() - removed.count();
        let least = registered.filter(|it| {
            let Call::Register(id, _) = it.call else {
                return false;
            };
            it.ended < broadcast.begun
                && !history.iter().any(|other| {
                    matches!(other.call, Call::Unregister(its, _) if its == id)
                        && other.begun < broadcast.ended
                        && other.ended > it.begun
                })
        });
        (least.count()..=most).contains(&reached)
    })
}

fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 33) as usize
}

fn record(seed: u64) -> Vec<Record> {
    let hub = Hub::new();
    let clock = AtomicU64::new(0);
    let started = AtomicUsize::new(0);
    let run = |thread: usize| {
        let mut seed = seed ^ 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(thread as u64 + 1);
        let (mut records, mut streams) = (Vec::new(), Vec::new());
        started.fetch_add(1, Ordering::SeqCst);
        for _ in 0..SPINS {
            if started.load(Ordering::SeqCst) == THREADS {
                break;
            }
            hint::spin_loop();
        }
        for _ in 0..CALLS {
            let (kind, id) = (next(&mut seed) % 6, next(&mut seed) % IDS.len());
            let begun = clock.fetch_add(1, Ordering::SeqCst);
            let call = match kind {
                0 | 1 => {
                    let stream = hub.register_as("ann", IDS[id]);
                    let is_new = stream.is_ok();
                    streams.extend(stream);
                    Call::Register(id, is_new)
                }
                2 | 3 => Call::Unregister(id, hub.unregister("ann", &ConnectionId::from(IDS[id]))),
                4 => Call::Count(hub.connection_count("ann")),
                _ => Call::Broadcast(hub.broadcast("ann", &Text::new("x")).expect("text")),
            };
            let ended = clock.fetch_add(1, Ordering::SeqCst);
            records.push(Record { call, begun, ended });
        }
        // A drop is none of the calls: the streams are dropped after all threads have ended.
        (records, streams)
    };
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        let ended: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().expect("a call panicked"))
            .collect();
        ended.into_iter().flat_map(|(records, _)| records).collect()
    })
}

#[test]
fn concurrent_calls_have_the_results_of_some_sequential_order() {
    let seed = RandomState::new().hash_one(0) | 1;
    println!("seed {seed}");
    let begun = Instant::now();
    for number in 0..HISTORIES {
        if begun.elapsed() > ENOUGH {
            println!("{number} histories");
            break;
        }
        let history = record(seed.wrapping_add(number << 1));
        assert!(
            is_linearizable(&history),
            "seed {seed}, {number}: {history:#?}"
        );
        assert!(
            reaches_members(&history),
            "seed {seed}, {number}: {history:#?}"
        );
    }
}

#[test]
fn histories_without_a_sequential_order_are_rejected() {
    let record = |call, begun, ended| Record { call, begun, ended };
    let twice = [
        record(Call::Register(0, true), 0, 3),
        record(Call::Register(0, true), 1, 4),
    ];
    assert!(!is_linearizable(&twice));
    let stale = [
        record(Call::Register(0, true), 0, 1),
        record(Call::Count(0), 2, 3),
    ];
    assert!(!is_linearizable(&stale));
    let meets = [
        record(Call::Register(0, true), 0, 2),
        record(Call::Count(0), 1, 3),
    ];
    assert!(is_linearizable(&meets));
    let missed = [
        record(Call::Register(0, true), 0, 1),
        record(Call::Broadcast(0), 2, 3),
    ];
    assert!(!reaches_members(&missed));
    let invented = [record(Call::Broadcast(1), 0, 1)];
    assert!(!reaches_members(&invented));
}
