//! What a test needs from an adapter.

use std::sync::Arc;

use async_trait::async_trait;

use tidings::backplane::Backplane;

/// Nodes of one service.
///
/// # Cancel safety
///
/// The tests wait for each of these futures, and drop one only if they are given up themselves.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Connects another node.
    async fn node(&self) -> Arc<dyn Backplane>;

    /// How many messages of one user the log keeps, for tests that publish more. `None` if it is more than can be tried.
    fn max_per_user(&self) -> Option<usize> {
        None
    }
}

/// A cluster whose engine can be made to fail.
///
/// # Cancel safety
///
/// As [`Cluster`].
#[async_trait]
pub trait Faults: Cluster {
    /// Ends the engine, as a crash does. Returns when it is gone.
    async fn stop(&self);

    /// Starts the engine again, with what it had kept.
    async fn start(&self);

    /// Cuts the connections of a node. New ones fail.
    async fn cut(&self, node: &Arc<dyn Backplane>);

    /// Lets a node connect again.
    async fn mend(&self, node: &Arc<dyn Backplane>);
}
