//! A bound for everything that has to happen.

use std::time::Duration;

/// Waits for something that is going to happen. The limit only says when to give up on it.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within 30 seconds"))
}
