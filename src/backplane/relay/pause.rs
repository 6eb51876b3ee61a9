//! The pauses between attempts of whatever is tried again.

use std::time::Duration;

/// Each is twice as long as the one before, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The pause that follows this one.
pub(super) fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}
