//! The counters of a broadcaster.
//!
//! All of them are relaxed: they are shown, and nothing is decided by them. Those that every broadcast changes are spread
//! over several cache lines, so that threads that broadcast to different users do not contend here.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::stats::{Ends, Gaps, Refusals, Stats};
use crate::end::EndReason;
use crate::error::RegisterError;
use crate::sync::STRIPES;

/// A count that many threads change at once.
#[derive(Default)]
pub(crate) struct StripedCounter {
    stripes: [Stripe; STRIPES],
}

#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl StripedCounter {
    pub(crate) fn add(&self, n: u64) {
        self.stripe().fetch_add(n, Ordering::Relaxed);
    }

    /// Subtracts what this or another thread has added. A single stripe may wrap around, their sum does not.
    pub(crate) fn sub(&self, n: u64) {
        self.stripe().fetch_sub(n, Ordering::Relaxed);
    }

    fn stripe(&self) -> &AtomicU64 {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        // A thread that is being torn down no longer has thread locals; any stripe will do.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        &self.stripes[stripe].0
    }

    pub(crate) fn get(&self) -> u64 {
        self.stripes.iter().fold(0, |sum: u64, stripe| {
            sum.wrapping_add(stripe.0.load(Ordering::Relaxed))
        })
    }

    /// The value of a counter that is also subtracted from. A change between the reads of two stripes may make the sum negative,
    /// which counts as zero.
    fn level(&self) -> usize {
        usize::try_from(self.get() as i64).unwrap_or(0)
    }
}

/// A counter that changes rarely: one atomic, not spread over cache lines.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one broadcaster.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) broadcasts: StripedCounter,
    pub(crate) deliveries: StripedCounter,
    pub(crate) encoded: StripedCounter,
    pub(crate) encoded_bytes: StripedCounter,
    pub(crate) failed: StripedCounter,
    pub(crate) lagged: StripedCounter,
    pub(crate) registered: StripedCounter,
    pub(crate) replayed: StripedCounter,
    pub(crate) healed: StripedCounter,
    pub(crate) evicted: StripedCounter,
    /// Bytes that histories keep now.
    pub(crate) history_bytes: StripedCounter,
    pub(crate) refused: RefusalCounters,
    /// Indexed by the number of the [`EndReason`].
    pub(crate) ended: [Counter; EndReason::ALL.len()],
    /// Indexed by the number of the `GapReason`.
    pub(crate) gaps: [Counter; 4],
}

#[derive(Default)]
pub(crate) struct RefusalCounters {
    user_full: Counter,
    total_full: Counter,
    id_in_use: Counter,
    shutting_down: Counter,
}

impl RefusalCounters {
    pub(crate) fn count(&self, refusal: &RegisterError) {
        let counter = match refusal {
            RegisterError::UserFull { .. } => &self.user_full,
            RegisterError::TotalFull { .. } => &self.total_full,
            RegisterError::ConnectionIdInUse => &self.id_in_use,
            RegisterError::ShuttingDown { .. } => &self.shutting_down,
        };
        counter.add(1);
    }
}

impl Counters {
    /// The totals of [`Stats`], without the figures of current users and connections.
    pub(crate) fn totals(&self) -> Stats {
        let refusals = Refusals {
            user_full: self.refused.user_full.get(),
            total_full: self.refused.total_full.get(),
            id_in_use: self.refused.id_in_use.get(),
            shutting_down: self.refused.shutting_down.get(),
        };
        // In the order of `GapReason`.
        let [lagged, evicted, epoch, backplane] = self.gaps.each_ref().map(Counter::get);
        Stats {
            history_bytes: self.history_bytes.level(),
            registered: self.registered.get(),
            refused: refusals.total(),
            refusals,
            ended: Ends(self.ended.each_ref().map(Counter::get)),
            broadcasts: self.broadcasts.get(),
            encoded: self.encoded.get(),
            encoded_bytes: self.encoded_bytes.get(),
            failed: self.failed.get(),
            deliveries: self.deliveries.get(),
            lagged: self.lagged.get(),
            healed: self.healed.get(),
            replayed: self.replayed.get(),
            evicted: self.evicted.get(),
            gaps: Gaps {
                lagged,
                evicted,
                epoch,
                backplane,
            },
            backplane: None,
            ..Stats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_thread_adds_another_may_take_back() {
        let counter = StripedCounter::default();
        counter.add(5);
        std::thread::scope(|scope| {
            // Each on a stripe of its own.
            for _ in 0..STRIPES {
                scope.spawn(|| {
                    counter.add(10);
                    counter.sub(3);
                });
            }
        });
        counter.sub(7 * STRIPES as u64);
        assert_eq!((counter.get(), counter.level()), (5, 5));
        counter.sub(6);
        assert_eq!(counter.level(), 0);
    }
}
