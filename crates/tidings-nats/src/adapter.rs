//! A node's end of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions};
use async_trait::async_trait;
use futures_core::Stream;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connection::Connection;
use super::error::ConnectError;
use super::fence::Fence;
use super::interest::Interest;
use super::link::{self, Command, Link, RETRY, VerifiedConnection};
use super::live::Live;
use super::log::Log;
use super::peers::Peers;
use super::settings::Settings;
use super::signals::Signals;
use super::subjects::Subjects;
use tidings::UserId;
use tidings::backplane::{
    Backplane, BackplaneError, Event, Fetched, Head, Level, Message, Position, Published,
};

/// So many events wait for the broadcaster at most. What comes then waits in the subscriptions.
const EVENTS: usize = 1024;

/// What a server's limit for a message has to hold besides the body: the header with the message's id.
const HEADROOM: usize = 1024;

/// A [`Backplane`] over NATS. See the [crate](crate) for what it promises.
pub struct Nats {
    client: Client,
    signals: Arc<Signals>,
    fence: Arc<Fence>,
    log: Option<Arc<Log>>,
    live: Arc<Live>,
    subjects: Subjects,
    limit: Duration,
    verified: Arc<VerifiedConnection>,
    commands: mpsc::UnboundedSender<Command>,
    closing: watch::Sender<bool>,
    events: Mutex<Option<mpsc::Receiver<Event>>>,
    /// Until it has been waited for. It stays here meanwhile, for whoever waits next if one gives up.
    link: AsyncMutex<Option<JoinHandle<()>>>,
}

impl Nats {
    /// Connects a node to NATS, over a [connection](Connection) of its own, and finds or creates the log if the
    /// settings have one.
    ///
    /// `servers` and `options` are those of [`Connection::open`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`] when the settings are invalid, no server can be reached, the connection takes TLS and there is no
    /// [crypto provider](super#tls), the log is another than they say, or another node of the scope has another level.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what was begun. A log that was made stays.
    pub async fn connect(
        servers: &str,
        mut options: ConnectOptions,
        settings: Settings,
    ) -> Result<Self, ConnectError> {
        settings.check()?;
        if !settings.wait.is_zero() {
            options = options.retry_on_initial_connect();
        }
        let connection = Connection::open(servers, options).await?;
        Self::start(&connection, settings, true).await
    }

    /// Connects a node over a connection that other broadcasters use as well.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn over(connection: &Connection, settings: Settings) -> Result<Self, ConnectError> {
        settings.check()?;
        Self::start(connection, settings, false).await
    }

    async fn start(
        connection: &Connection,
        settings: Settings,
        is_own: bool,
    ) -> Result<Self, ConnectError> {
        let signals = Arc::<Signals>::default();
        connection.listen(&signals);
        let client = connection.client().clone();

        let deadline = Instant::now() + settings.wait;
        let connected = async {
            while client.connection_state() != State::Connected {
                signals.changed.notified().await;
            }
        };
        timeout_at(deadline, connected)
            .await
            .map_err(|_| ConnectError::NotInTime)?;

        let limit = settings.timeout;
        let subjects = Subjects::new(&settings.scope, settings.buckets);
        let fence = Fence::new(client.clone(), limit)
            .await
            .map_err(|error| ConnectError::Log(error.into()))?;
        let fence = Arc::new(fence);
        let verified = Arc::new(VerifiedConnection::new(fence.connection()));
        let name = client.new_inbox();
        let name = name.rsplit('.').next().unwrap_or_default().to_owned();
        let level = match &settings.log {
            Some(_) => "replayable",
            None => "at-most-once",
        };
        let kind = format!("{level} {}", settings.buckets);
        let probe = format!("{}.{name}", subjects.peers());
        let peers = Peers::new(client.clone(), &subjects, name, kind)
            .await
            .map_err(|error| ConnectError::Log(error.into()))?;
        peers.meet().await;
        if peers.disagree() {
            return Err(ConnectError::Disagreement);
        }
        let log = match &settings.log {
            Some(log) => Some(Arc::new(loop {
                match Log::open(client.clone(), log, &subjects, limit).await {
                    // A cluster that has just started has no leader yet.
                    Err(ConnectError::Log(_)) if Instant::now() < deadline => sleep(RETRY).await,
                    opened => break opened?,
                }
            })),
            None => None,
        };

        let live = Live::new(
            client.clone(),
            Arc::clone(&fence),
            Arc::clone(&signals),
            subjects.clone(),
        );
        let live = Arc::new(live);
        let (commands_tx, commands) = mpsc::unbounded_channel();
        let (closing_tx, closing) = watch::channel(false);
        let (events_tx, events) = mpsc::channel(EVENTS);
        let link = Link {
            client: client.clone(),
            fence: Arc::clone(&fence),
            peers: Arc::new(peers),
            log: log.clone(),
            live: Arc::clone(&live),
            probe,
            is_own,
            interest: Interest::new(settings.interest, subjects.clone()),
            commands,
            signals: Arc::clone(&signals),
            events: events_tx,
            closing,
            verified: Arc::clone(&verified),
            state: link::State::new(),
        };
        Ok(Self {
            client,
            signals,
            fence,
            log,
            live,
            subjects,
            limit,
            verified,
            commands: commands_tx,
            closing: closing_tx,
            events: Mutex::new(Some(events)),
            link: AsyncMutex::new(Some(tokio::spawn(link.run()))),
        })
    }

    fn check_open(&self) -> Result<(), BackplaneError> {
        if *self.closing.borrow() || self.commands.is_closed() {
            return Err(BackplaneError::closed());
        }
        Ok(())
    }

    fn log(&self) -> Result<&Log, BackplaneError> {
        self.check_open()?;
        let none = || BackplaneError::other("there is no log at this level");
        self.log.as_deref().ok_or_else(none)
    }

    /// Asks the log, which must be the one that was told of last.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, BackplaneError>>,
    ) -> Result<T, BackplaneError> {
        let is_verified = || self.verified.is(self.fence.connection()) && self.fence.is_connected();
        if !is_verified() {
            return Err(BackplaneError::unavailable());
        }
        let answer = question.await;
        self.check_open()?;
        match answer {
            Ok(_) if !is_verified() => Err(BackplaneError::unavailable()),
            Ok(answer) => Ok(answer),
            Err(error) => {
                // It may have been deleted.
                let _ = self.commands.send(Command::Look);
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Backplane for Nats {
    fn level(&self) -> Level {
        match self.log {
            Some(_) => Level::Replayable,
            None => Level::AtMostOnce,
        }
    }

    fn horizon(&self) -> Option<Position> {
        self.log.as_ref().map(|log| log.horizon())
    }

    fn max_body(&self) -> usize {
        let max = self.client.server_info().max_payload;
        max.saturating_sub(HEADROOM)
    }

    fn duplicate_window(&self) -> Duration {
        let log = self.log.as_ref();
        log.map_or(self.limit, |log| log.duplicate_window())
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, BackplaneError> {
        self.check_open()?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        // Otherwise the client would keep them, and send them after their failure was told.
        if !self.fence.is_connected() {
            return Err(BackplaneError::unavailable());
        }
        let is_verified = self.verified.is(self.fence.connection());
        let published = async {
            match &self.log {
                Some(log) => {
                    if !is_verified {
                        // The log may be another one, and the task may not have heard of the new connection yet.
                        log.question();
                    }
                    let (subjects, signals) = (&self.subjects, &*self.signals);
                    log.publish(messages, subjects, signals, self.max_body())
                        .await
                }
                None => self.live.publish(messages, self.max_body()).await,
            }
        };
        let published = timeout(self.limit, published)
            .await
            .unwrap_or_else(|late| Err(BackplaneError::other(late)));
        self.check_open()?;
        let is_odd = |published: &Published| !matches!(published, Published::Accepted(_));
        let all_fine = published.as_ref().is_ok_and(|all| !all.iter().any(is_odd));
        if !all_fine && self.log.is_some() {
            let _ = self.commands.send(Command::Look);
        }
        published
    }

    async fn set_interest(&self, add: &[UserId], remove: &[UserId]) -> Result<(), BackplaneError> {
        self.check_open()?;
        let command = Command::Interest {
            add: add.to_vec(),
            remove: remove.to_vec(),
        };
        let noted = self.commands.send(command);
        noted.map_err(|_| BackplaneError::closed())
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(Events(events.take()))
    }

    async fn fetch(
        &self,
        user: &UserId,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError> {
        let log = self.log()?;
        let subject = self.subjects.log(user);
        self.ask(log.fetch(&subject, after, limit)).await
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, BackplaneError> {
        let log = self.log()?;
        let subjects = users.iter().map(|user| self.subjects.log(user));
        self.ask(log.heads(subjects)).await
    }

    async fn close(&self, deadline: Instant) {
        self.closing.send_replace(true);
        let Ok(mut link) = timeout_at(deadline, self.link.lock()).await else {
            return;
        };
        let Some(task) = link.as_mut() else { return };
        if timeout_at(deadline, &mut *task).await.is_err() {
            task.abort();
        }
        *link = None;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // The task ends, and with it the connection.
        self.closing.send_replace(true);
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("subjects", &self.subjects)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// What happened. Ends when the task does; a second one has ended from the start.
struct Events(Option<mpsc::Receiver<Event>>);

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match &mut self.0 {
            Some(events) => events.poll_recv(cx),
            None => Poll::Ready(None),
        }
    }
}
