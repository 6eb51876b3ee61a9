//! Finds connections whose clients do not keep up.
//!
//! A stream whose client has stopped reading is not polled any more, so it cannot notice by itself that it falls behind.
//! A sweep compares each connection's position with its channel's head and removes those that have been too far behind for
//! too long. It reads snapshots and counters, and delays no broadcast.

use tokio::time::Instant;

use super::Registry;
use crate::end::EndReason;
use crate::sync::SHARDS;

impl<T: Clone + Send + 'static> Registry<T> {
    /// Disconnects connections that lag too far or whose deadline has passed, and returns how many there were. Forgets the
    /// histories of users who have been away for too long, and events that are too old.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        (0..SHARDS).map(|shard| self.sweep_shard(shard, now)).sum()
    }

    /// One part of a [sweep](Self::sweep), for callers that yield between the parts.
    pub(crate) fn sweep_shard(&self, shard: usize, now: Instant) -> usize {
        let patience = self.patience();
        // From 1, since 0 stands for "not behind".
        let millis = 1 + self.since_started(now);
        let longest = u64::try_from(patience.time.as_millis()).unwrap_or(u64::MAX);
        let mut count = 0;
        for roster in self.users.rosters_of_shard(shard) {
            roster.for_each(|connection, head| {
                let too_far = connection.behind(head) > patience.behind;
                let since = connection.note_behind(too_far, millis);
                let stuck = too_far && since >= longest;
                let expired = connection.is_expired(now);
                let reason = match stuck {
                    true => EndReason::Behind,
                    false => EndReason::Deadline,
                };
                if (stuck || expired) && self.remove(&roster, connection, reason) {
                    count += 1;
                }
            });
            self.close_if_over(&roster, now);
        }
        count
    }

    fn since_started(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started());
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1)
    }
}
