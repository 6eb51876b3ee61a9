//! Samples: for a few broadcasts, how many streams they reached and how fast.

use std::cell::Cell;
use std::time::Duration;

use ::metrics::Histogram;
use tokio::time::Instant;

use super::facade::{FANOUT, LABEL, PUBLISH_TO_WRITE};

/// One in this many broadcasts is sampled, on average.
const ONE_IN: u32 = 64;

/// Travels with a sampled event.
#[derive(Clone)]
pub(crate) struct Sample {
    /// When it was sent.
    at: Instant,
    /// Looked up once here, not by each stream.
    publish_to_write: Histogram,
}

impl Sample {
    /// Returns a sample if this event is one to sample.
    ///
    /// The distance to the next one is random. Otherwise, a thread that broadcasts to 64 users in turn would always sample the
    /// same one.
    pub(crate) fn take(broadcaster: &'static str) -> Option<Self> {
        thread_local! {
            static LEFT: Cell<u32> = const { Cell::new(0) };
        }
        let left = LEFT.get();
        if left > 0 {
            LEFT.set(left - 1);
            return None;
        }
        LEFT.set(fastrand::u32(0..2 * ONE_IN - 1));
        Some(Self {
            at: Instant::now(),
            publish_to_write: ::metrics::histogram!(PUBLISH_TO_WRITE, LABEL => broadcaster),
        })
    }

    /// Records that a stream, open for `age`, has taken the event to write it. A stream opened after the broadcast replays the
    /// event; the time that its client was away is not a delay of ours and is not recorded.
    pub(crate) fn written(&self, age: Duration) {
        let took = self.at.elapsed();
        if took <= age {
            self.publish_to_write.record(took);
        }
    }
}

/// Records the number of streams that a sampled event reached.
pub(crate) fn fanned_out(broadcaster: &'static str, streams: usize) {
    ::metrics::histogram!(FANOUT, LABEL => broadcaster).record(streams as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_64_is_taken_and_not_at_regular_distances() {
        let taken: Vec<u32> = (0..64_000)
            .filter(|_| Sample::take("test").is_some())
            .collect();
        // A thousand, plus or minus six standard deviations of a sum of uniform distances.
        assert!((880..=1130).contains(&taken.len()), "{}", taken.len());
        let turns: std::collections::BTreeSet<u32> = taken.iter().map(|at| at % 64).collect();
        assert_eq!(turns.len(), 64);
    }
}
