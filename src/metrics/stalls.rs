//! What the server has cut off, in the whole process: a connection that stalls is nobody's in particular.

use serde::Serialize;

use super::counters::Tally;

/// How many connections and streams [stall guards](crate::serve::StallGuard) have ended in this process so far.
///
/// ```
/// let stalls = tidings::metrics::Stalls::now();
/// println!("{} sockets, {} HTTP/2 streams", stalls.sockets, stalls.streams);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stalls {
    /// Connections whose client took nothing for the [stall limit](crate::serve::StallListener::stall_limit).
    pub sockets: u64,
    /// Connections whose stream was over, and whose client did not take the rest of it in a quarter of a second.
    pub grace_period_sockets: u64,
    /// HTTP/2 streams that were reset because their client withheld the window for the stall limit, or because they held
    /// the window of the connection for which others had waited so long. Their connections went on.
    pub streams: u64,
    /// HTTP/2 streams that were over, and whose client did not take the rest in a quarter of a second.
    pub grace_period_streams: u64,
}

impl Stalls {
    /// The figures of this moment. They only grow.
    #[must_use]
    pub fn now() -> Self {
        Self {
            sockets: SOCKETS.stalled.get(),
            grace_period_sockets: SOCKETS.grace_period.get(),
            streams: STREAMS.stalled.get(),
            grace_period_streams: STREAMS.grace_period.get(),
        }
    }
}

pub(crate) struct StallTallies {
    stalled: Tally,
    grace_period: Tally,
}

pub(crate) static SOCKETS: StallTallies = StallTallies::new();
pub(crate) static STREAMS: StallTallies = StallTallies::new();

impl StallTallies {
    const fn new() -> Self {
        Self {
            stalled: Tally::new(),
            grace_period: Tally::new(),
        }
    }

    /// Counts one that is ended; `is_over` says that its stream was over anyway.
    pub(crate) fn count(&self, is_over: bool) {
        let tally = if is_over {
            &self.grace_period
        } else {
            &self.stalled
        };
        tally.add(1);
    }
}
