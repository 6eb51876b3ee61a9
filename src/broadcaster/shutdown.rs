//! Shutdown: ends every stream, spread over a time.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::GenericBroadcaster;
use crate::time::LONGEST;

/// How often a shutdown checks whether all connections have left.
const LOOK: Duration = Duration::from_millis(5);

/// The least time that a backplane has after the last stream has ended.
const LAST_WORDS: Duration = Duration::from_millis(250);

impl<E: ?Sized> GenericBroadcaster<E> {
    /// Ends every stream within `over`, at most thirty years, and returns how many had to be cut because they did not end in
    /// time.
    ///
    /// From the first moment on, registrations are refused
    /// ([`RegisterError::ShuttingDown`](crate::RegisterError::ShuttingDown)), including one in progress on another thread.
    /// Each stream is asked to end at a moment of its own in the first three quarters of the time. It yields what was
    /// broadcast before that moment and, if events keep coming, at most as many more as the ring holds; then, in a response,
    /// it sends a `retry:` that spreads the reconnects over as long again, and ends cleanly. The rest of the time is for
    /// streams that are slow to write. Returns as soon as all have left.
    ///
    /// Call it in the future that is given to axum's `with_graceful_shutdown`, which then has no stream to wait for:
    ///
    /// ```no_run
    /// # async fn run(listener: tokio::net::TcpListener, app: axum::Router) -> std::io::Result<()> {
    /// use std::time::Duration;
    /// use tidings::{GenericBroadcaster, Text};
    ///
    /// let hub = GenericBroadcaster::<Text>::new();
    /// let drain = async move {
    ///     let _ = tokio::signal::ctrl_c().await;
    ///     hub.shutdown(Duration::from_secs(5)).await;
    /// };
    /// axum::serve(listener, app).with_graceful_shutdown(drain).await
    /// # }
    /// ```
    ///
    /// With a [backplane](super::Builder::backplane), what was broadcast before is published in the rest of the time, and at
    /// least in a quarter of a second more; then the backplane is closed, and nothing goes to other nodes any more.
    ///
    /// A connection whose user was [forgotten](Self::forget) and whose client does not read cannot be cut from here; it does
    /// not hold up the return beyond `over`.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, registrations stay refused and streams that were asked to end do so; the others go on.
    /// Call it again to end them, and to have the rest published and the backplane closed. With no time at all, every stream
    /// has ended after the first poll.
    pub async fn shutdown(&self, over: Duration) -> usize {
        let registry = &self.registry;
        let over = over.min(LONGEST);
        let deadline = Instant::now() + over;
        let members = registry.close(over);
        tracing::debug!(connections = registry.total(), ?over, "shutting down");

        let spread = over * 3 / 4;
        let mut plan: Vec<_> = members
            .into_iter()
            .map(|member| (Instant::now() + spread.mul_f64(fastrand::f64()), member))
            .collect();
        plan.sort_unstable_by_key(|(at, _)| *at);
        for (at, member) in plan {
            // A timer for a moment that is over already fires a moment later.
            if at > Instant::now() {
                sleep_until(at).await;
            }
            member.finish();
        }

        while registry.total() > 0 && Instant::now() < deadline {
            sleep(LOOK.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
        let cut = registry.disconnect_all();
        if cut > 0 {
            tracing::warn!(connections = cut, "cut at the end of the shutdown");
        }
        if let Some(running) = &self.relay {
            // The last broadcasts are to be published as well.
            let deadline = deadline.max(Instant::now() + LAST_WORDS);
            running.0.close(deadline).await;
        }
        cut
    }
}
