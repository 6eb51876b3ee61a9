//! What is counted, and how.
//!
//! All of them are relaxed: they are read to be shown and never to decide. Those that every broadcast counts are spread
//! over several cache lines, so that threads that broadcast to different users do not meet here.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::stats::{Ends, Gaps, Refusals, Stats};
use crate::end::EndReason;
use crate::error::RegisterError;
use crate::sync::STRIPES;

/// A count that many threads change at once.
#[derive(Default)]
pub(crate) struct Counter {
    stripes: [Stripe; STRIPES],
}

#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.stripe().fetch_add(n, Ordering::Relaxed);
    }

    /// Takes back what was added, be it by another thread: a stripe alone may wrap around, their sum does not.
    pub(crate) fn sub(&self, n: u64) {
        self.stripe().fetch_sub(n, Ordering::Relaxed);
    }

    fn stripe(&self) -> &AtomicU64 {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        // A thread that is being torn down has no locals any more; any stripe will do.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        &self.stripes[stripe].0
    }

    pub(crate) fn get(&self) -> u64 {
        self.stripes.iter().fold(0, |sum: u64, stripe| {
            sum.wrapping_add(stripe.0.load(Ordering::Relaxed))
        })
    }

    /// Of a count that is also taken back from. Read between two stripes it may seem to have lost what it never had.
    fn level(&self) -> usize {
        usize::try_from(self.get() as i64).unwrap_or(0)
    }
}

/// A count that is raised seldom: an eighth of the cache lines.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one broadcaster.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) broadcasts: Counter,
    pub(crate) deliveries: Counter,
    pub(crate) encoded: Counter,
    pub(crate) encoded_bytes: Counter,
    pub(crate) failed: Counter,
    pub(crate) lagged: Counter,
    pub(crate) registered: Counter,
    pub(crate) replayed: Counter,
    pub(crate) healed: Counter,
    pub(crate) evicted: Counter,
    /// What histories keep now.
    pub(crate) history_bytes: Counter,
    pub(crate) refused: RefusalTallies,
    pub(crate) ended: EndTallies,
    pub(crate) gaps_lagged: Tally,
    pub(crate) gaps_evicted: Tally,
    pub(crate) gaps_backplane: Tally,
    pub(crate) gaps_epoch: Tally,
}

#[derive(Default)]
pub(crate) struct RefusalTallies {
    user_full: Tally,
    total_full: Tally,
    id_in_use: Tally,
    shutting_down: Tally,
}

impl RefusalTallies {
    pub(crate) fn count(&self, refusal: &RegisterError) {
        let tally = match refusal {
            RegisterError::UserFull { .. } => &self.user_full,
            RegisterError::TotalFull { .. } => &self.total_full,
            RegisterError::ConnectionIdInUse => &self.id_in_use,
            RegisterError::ShuttingDown { .. } => &self.shutting_down,
        };
        tally.add(1);
    }
}

/// By the number of the reason.
#[derive(Default)]
pub(crate) struct EndTallies([Tally; EndReason::ALL.len()]);

impl EndTallies {
    pub(crate) fn count(&self, reason: EndReason) {
        self.0[reason as usize].add(1);
    }

    fn get(&self, reason: EndReason) -> u64 {
        self.0[reason as usize].get()
    }
}

impl Counters {
    /// What is known here of the stats: all but who is there now.
    pub(crate) fn totals(&self) -> Stats {
        let refusals = Refusals {
            user_full: self.refused.user_full.get(),
            total_full: self.refused.total_full.get(),
            id_in_use: self.refused.id_in_use.get(),
            shutting_down: self.refused.shutting_down.get(),
        };
        Stats {
            history_bytes: self.history_bytes.level(),
            registered: self.registered.get(),
            refused: refusals.total(),
            refusals,
            ended: Ends {
                dropped: self.ended.get(EndReason::Dropped),
                completed: self.ended.get(EndReason::Completed),
                unregistered: self.ended.get(EndReason::Unregistered),
                disconnected: self.ended.get(EndReason::Disconnected),
                drained: self.ended.get(EndReason::Drained),
                forgotten: self.ended.get(EndReason::Forgotten),
                behind: self.ended.get(EndReason::Behind),
                gap: self.ended.get(EndReason::Gap),
                deadline: self.ended.get(EndReason::Deadline),
                shutdown: self.ended.get(EndReason::Shutdown),
            },
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
                lagged: self.gaps_lagged.get(),
                evicted: self.gaps_evicted.get(),
                epoch: self.gaps_epoch.get(),
                backplane: self.gaps_backplane.get(),
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
        let counter = Counter::default();
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
