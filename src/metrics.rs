//! Counters, and the [`Stats`] made of them.
//!
//! All of them are relaxed: they are read to be shown and never to decide. Those that every broadcast counts are spread
//! over several cache lines, so that threads that broadcast to different users do not meet here.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;

/// A count that many threads raise at once.
#[derive(Default)]
pub(crate) struct Counter {
    stripes: [Stripe; STRIPES],
}

const STRIPES: usize = 8;

#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        // A thread that is being torn down has no locals any more; any stripe will do.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        self.stripes[stripe].0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.stripes
            .iter()
            .map(|stripe| stripe.0.load(Ordering::Relaxed))
            .sum()
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) broadcasts: Counter,
    pub(crate) deliveries: Counter,
    pub(crate) encoded: Counter,
    pub(crate) failed: Counter,
    pub(crate) lagged: Counter,
    pub(crate) registered: Counter,
    pub(crate) refused: Counter,
    pub(crate) pruned: Counter,
    pub(crate) replayed: Counter,
    pub(crate) healed: Counter,
    pub(crate) evicted: Counter,
}

/// What a broadcaster is doing and has done since it was built.
///
/// Serialises to an object with these fields.
///
/// The figures are read one after another while others change: each is right, their sum need not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Users that have a connection now.
    pub users: usize,
    /// Users that have none, and whose history is kept.
    pub away: usize,
    /// Bytes that are kept for those.
    pub away_bytes: usize,
    /// Connections that are open now.
    pub connections: usize,
    /// Connections that were let in.
    pub registered: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Connections that were taken out because they had been too far behind for too long.
    pub pruned: u64,
    /// Calls to broadcast, whether or not the user was there.
    pub broadcasts: u64,
    /// Broadcasts that had somebody to reach and were encoded.
    pub encoded: u64,
    /// Broadcasts that could not be encoded.
    pub failed: u64,
    /// Streams reached, added up over all broadcasts: an event that goes to three streams counts three. What such a
    /// stream then loses by falling behind is counted in `lagged` as well.
    pub deliveries: u64,
    /// Events that streams lost by falling behind, added up over all streams, each counted when its stream learns of it.
    pub lagged: u64,
    /// Events that streams read from the history instead of losing them by falling behind.
    pub healed: u64,
    /// Events that streams read from the history because their clients had been away.
    pub replayed: u64,
    /// Events that the history had dropped when streams wanted to replay them, and that their clients were told of.
    pub evicted: u64,
    /// What goes on between nodes, if there is a [backplane](crate::Builder::backplane).
    pub backplane: Option<BackplaneStats>,
}

/// What goes on between this node and others. Counts are since the broadcaster was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackplaneStats {
    /// Whether the engine can be reached, as far as is known.
    pub connected: bool,
    /// Events that wait to be published.
    pub queued: usize,
    /// For how many milliseconds what is being published has waited for the engine. While it cannot be reached, this grows.
    pub lag_ms: u64,
    /// Users whose events this node gets.
    pub users: usize,
    /// Messages that the engine has accepted.
    pub published: u64,
    /// Events that were broadcast here and not published, because the queue was full, or they were too large, or it was too
    /// late.
    pub refused: u64,
    /// Messages of which nobody knows whether the engine has accepted them; other nodes are told that they may be missing.
    pub unconfirmed: u64,
    /// Messages that came from the engine and are of nodes like this one.
    pub received: u64,
    /// Of these, what this node had sent itself.
    pub echoes: u64,
    /// Of these, what had come before.
    pub duplicates: u64,
    /// Messages that came from the engine and are of no such node; they were dropped.
    pub dropped: u64,
    /// Messages for users who have no stream here any more, or not yet.
    pub unwanted: u64,
    /// Messages that came before another that belongs in front of them, which was then read from the engine's log.
    pub holes: u64,
    /// Events that were read from the engine's log.
    pub fetched: u64,
}
