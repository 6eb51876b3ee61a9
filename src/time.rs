//! Durations that timers can be set to.

use std::time::Duration;

/// The longest duration that is ever added to an instant: thirty years. A longer one could overflow it.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Clamps a duration to what a timer can be set to: a millisecond to thirty years.
#[cfg(feature = "serve")]
pub(crate) fn settable(duration: Duration) -> Duration {
    duration.clamp(Duration::from_millis(1), LONGEST)
}

/// A random time to reconnect after: one second, and up to `spread` more.
pub(crate) fn reconnect_after(spread: Duration) -> Duration {
    Duration::from_secs(1) + spread.mul_f64(fastrand::f64())
}
