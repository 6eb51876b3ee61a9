//! When the server gives up on a client that takes nothing, and how often it has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::grace::{GRACE, GracePeriod};
use super::patience::Patience;

/// Why a connection or stream is cut whose client takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stall {
    /// It took nothing for the stall limit.
    Limit,
    /// Its stream is over, and it did not take the rest within the grace period.
    Over,
}

/// Measures how long a client has taken nothing. The same for a connection and for a stream of HTTP/2.
#[derive(Debug)]
pub(super) struct StallTimer {
    pub(super) limit: Duration,
    patience: Patience,
}

impl StallTimer {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            patience: Patience::default(),
        }
    }

    /// Ready when the client, which has taken nothing since then, is to be cut: after the limit, or when the grace period is
    /// up, whichever is first.
    pub(super) fn poll(
        &mut self,
        since: Instant,
        grace_period: Option<&GracePeriod>,
        cx: &mut Context<'_>,
    ) -> Poll<Stall> {
        let stalled = since + self.limit;
        let grace_end = grace_period.and_then(|grace_period| grace_period.end(cx));
        let (deadline, wait, stall) = match grace_end {
            Some(end) if end < stalled => (end, GRACE, Stall::Over),
            _ => (stalled, self.limit, Stall::Limit),
        };
        self.patience.poll(deadline, wait, cx).map(|()| stall)
    }
}

/// How many connections and streams were cut because their clients took nothing, in this process so far:
/// a connection that stalls belongs to no broadcaster in particular.
///
/// ```
/// let stalls = tidings::serve::Stalls::now();
/// println!("{} sockets, {} HTTP/2 streams", stalls.sockets, stalls.streams);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stalls {
    /// Connections whose client took nothing for the [stall limit](super::StallListener::stall_limit).
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
    /// The counts so far. They only grow.
    #[must_use]
    pub fn now() -> Self {
        // Relaxed: they decide nothing.
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Self {
            sockets: get(&SOCKETS.limit),
            grace_period_sockets: get(&SOCKETS.over),
            streams: get(&STREAMS.limit),
            grace_period_streams: get(&STREAMS.over),
        }
    }

    /// Copies the counts to the recorder of the crate `metrics`, if there is one.
    pub(super) fn report() {
        #[cfg(feature = "metrics")]
        {
            let now = Self::now();
            for (what, reason, total) in [
                ("socket", "stalled", now.sockets),
                ("socket", "grace_period", now.grace_period_sockets),
                ("stream", "stalled", now.streams),
                ("stream", "grace_period", now.grace_period_streams),
            ] {
                ::metrics::counter!("tidings_stalls_total", "what" => what, "reason" => reason)
                    .absolute(total);
            }
        }
    }
}

/// How often something was cut.
pub(super) struct Cuts {
    limit: AtomicU64,
    over: AtomicU64,
}

pub(super) static SOCKETS: Cuts = Cuts::new();
pub(super) static STREAMS: Cuts = Cuts::new();

impl Cuts {
    const fn new() -> Self {
        Self {
            limit: AtomicU64::new(0),
            over: AtomicU64::new(0),
        }
    }

    pub(super) fn count(&self, stall: Stall) {
        let count = match stall {
            Stall::Limit => &self.limit,
            Stall::Over => &self.over,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Stalls::report();
    }
}
