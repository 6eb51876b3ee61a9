//! What time it is, for events that say so.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, the form that JavaScript's `Date` has.
#[must_use]
pub fn now() -> i64 {
    // Before 1970 the clock is wrong, and so far after it that milliseconds need 64 bits as well.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
