//! A connection to NATS, which several broadcasters may share.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;

use async_nats::rustls::crypto::CryptoProvider;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};

use super::error::ConnectError;
use super::signals::Signals;

/// A connection to NATS that several [`Nats`](super::Nats) share.
///
/// Each [`Nats::connect`](super::Nats::connect) opens a connection of its own. A service with several broadcasters may open
/// one and give it to [`Nats::over`](super::Nats::over) for each of them: fewer sockets, and one place where messages wait
/// for a slow reader.
///
/// The connection ends when the last clone and the last `Nats` over it are dropped.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    listeners: Arc<Listeners>,
}

type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// Who is told of the client's events.
#[derive(Default)]
struct Listeners {
    signals: Mutex<Vec<Weak<Signals>>>,
    application: Option<OnEvent>,
}

impl Listeners {
    fn hear(&self, event: Event) {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.retain(|signals| match signals.upgrade() {
            Some(signals) => {
                signals.hear(&event);
                true
            }
            None => false,
        });
        drop(signals);
        if let Some(application) = &self.application {
            application(event);
        }
    }
}

impl Connection {
    /// Connects to one of these servers: URLs with commas between them, `nats://10.0.0.1:4222,nats://10.0.0.2:4222`. The
    /// scheme and the port may be left out.
    ///
    /// Credentials in the first URL are used, unless it has none: then those of the options. The options are async-nats's
    /// own, except that the event callback is replaced; [`open_with_events`](Self::open_with_events) takes one. Two more
    /// matter here: with the subscription capacity (65,536) a node says how many messages of one user, or of one bucket, may
    /// wait before the next one is dropped, which is announced as a gap. A server that hangs is noticed after up to three
    /// ping intervals of a minute each: choose a shorter one.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Servers`] when a URL is not valid, and [`ConnectError::Connect`] when no server can be reached or
    /// the credentials are refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what was begun.
    pub async fn open(servers: &str, options: ConnectOptions) -> Result<Self, ConnectError> {
        Self::connect(servers, options, None).await
    }

    /// [Opens](Self::open) a connection and calls `on_event` for each event of the client, in the task that reads them: it
    /// must not block.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// As [`open`](Self::open).
    pub async fn open_with_events(
        servers: &str,
        options: ConnectOptions,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, ConnectError> {
        Self::connect(servers, options, Some(Box::new(on_event))).await
    }

    async fn connect(
        servers: &str,
        mut options: ConnectOptions,
        application: Option<OnEvent>,
    ) -> Result<Self, ConnectError> {
        let addrs: Vec<ServerAddr> = servers
            .split(',')
            .map(|server| server.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(ConnectError::Servers)?;
        // async-nats ignores what a URL says of them.
        if let Some((user, password)) = addrs[0].username().zip(addrs[0].password()) {
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        let listeners = Arc::new(Listeners {
            application,
            ..Listeners::default()
        });
        let options = options.event_callback({
            let listeners = Arc::clone(&listeners);
            move |event| {
                listeners.hear(event);
                std::future::ready(())
            }
        });
        let client = connect(addrs, options).await?;
        Ok(Self { client, listeners })
    }

    /// The client, for other uses of NATS in the service.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn listen(&self, signals: &Arc<Signals>) {
        let mut all = self
            .listeners
            .signals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::downgrade(signals));
    }
}

/// Connects as async-nats does, which panics where TLS has no crypto provider.
async fn connect(addrs: Vec<ServerAddr>, options: ConnectOptions) -> Result<Client, ConnectError> {
    let mut connecting = pin!(async_nats::connect_with_options(addrs, options));
    let connected = poll_fn(|cx| {
        // After a panic it is not polled again.
        let poll = AssertUnwindSafe(|| connecting.as_mut().poll(cx));
        match catch_unwind(poll) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    });
    match connected.await {
        Ok(connected) => connected.map_err(ConnectError::Connect),
        // If that had been found, it would be the process's by now.
        Err(_) if CryptoProvider::get_default().is_none() => Err(ConnectError::NoCryptoProvider),
        Err(panic) => resume_unwind(panic),
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
