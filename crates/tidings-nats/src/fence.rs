//! Whether the server has done what it was told before.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Statistics, Subscriber};
use futures_core::Stream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use tidings::backplane::BackplaneError;

/// Publishes messages to an inbox of its own. A server handles what comes over one connection in order: when such a message
/// has come back, everything before it is done.
#[derive(Debug)]
pub(super) struct Fence {
    client: Client,
    statistics: Arc<Statistics>,
    inbox: String,
    next: AtomicU64,
    waiting: Arc<Waiting>,
    reader: AbortHandle,
    limit: Duration,
}

#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<u64, oneshot::Sender<()>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        // Nothing panics inside.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which connection to the server it is, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connection(u64);

impl Connection {
    pub(super) fn number(self) -> u64 {
        self.0
    }
}

impl Fence {
    pub(super) async fn new(
        client: Client,
        limit: Duration,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(inbox.clone()).await?;
        let waiting = Arc::<Waiting>::default();
        let reader = tokio::spawn(read(subscriber, Arc::clone(&waiting)));
        Ok(Self {
            statistics: client.statistics(),
            client,
            inbox,
            next: AtomicU64::new(0),
            waiting,
            reader: reader.abort_handle(),
            limit,
        })
    }

    /// Which connection there is, or was last. It is counted before anything arrives on a new one.
    pub(super) fn connection(&self) -> Connection {
        Connection(self.statistics.connects.load(Ordering::Acquire))
    }

    /// How long the server may take to answer.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until the server has done everything that was sent since then, and fails unless it was all on that connection.
    pub(super) async fn pass(&self, since: Connection) -> Result<(), BackplaneError> {
        if !self.is_connected() || self.connection() != since {
            return Err(BackplaneError::unavailable());
        }
        // Relaxed: it orders nothing, it only never repeats.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        self.waiting.lock().insert(number, tx);
        let _forget = Forget {
            waiting: &self.waiting,
            number,
        };
        let round = async {
            let body = number.to_string().into();
            let sent = self.client.publish(self.inbox.clone(), body).await;
            sent.map_err(BackplaneError::other)?;
            rx.await.map_err(|_| BackplaneError::unavailable())
        };
        timeout(self.limit, round)
            .await
            .map_err(|_| BackplaneError::unavailable())??;
        if self.connection() == since {
            Ok(())
        } else {
            Err(BackplaneError::unavailable())
        }
    }
}

/// Nobody waits for it any more.
struct Forget<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.number);
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // Its subscription would keep the connection.
        self.reader.abort();
    }
}

async fn read(mut inbox: Subscriber, waiting: Arc<Waiting>) {
    while let Some(message) = poll_fn(|cx| Pin::new(&mut inbox).poll_next(cx)).await {
        let number = std::str::from_utf8(&message.payload)
            .ok()
            .and_then(|text| text.parse().ok());
        if let Some(tx) = number.and_then(|number: u64| waiting.lock().remove(&number)) {
            // Whoever waited may have given up.
            let _ = tx.send(());
        }
    }
}
