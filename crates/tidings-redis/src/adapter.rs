//! A node's end of it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Client, IntoConnectionInfo, ProtocolVersion, RedisError};
use tidings::UserId;
use tidings::backplane::{
    Backplane, BackplaneError, Event, Fetched, Head, Level, Message, Missing, Position, Published,
};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::error::{ConnectError, Fault, failed, fault};
use super::link::{Interest, Link};
use super::server::{Server, lock, number};
use super::settings::Settings;

/// So many events wait for the broadcaster at most. What comes then is dropped, which is told.
const EVENTS: usize = 65_536;

/// A [`Backplane`] over Redis. See the [crate](crate) for what it promises.
pub struct Redis {
    server: Arc<Server>,
    interest: mpsc::UnboundedSender<Interest>,
    closing: watch::Sender<bool>,
    events: Mutex<Option<mpsc::Receiver<Event>>>,
    link: AsyncMutex<Option<JoinHandle<()>>>,
}

impl Redis {
    /// Connects a node to a server: `redis://user:password@host:port/db`, or another address that the client accepts.
    ///
    /// It has two connections, one for messages that arrive and one for all else, and makes both again when one ends.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] when the settings are invalid, the server cannot be reached or refuses this node, is a replica, or
    /// would drop keys of the log.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what was begun. A log that was made stays.
    pub async fn connect(
        server: impl IntoConnectionInfo,
        settings: Settings,
    ) -> Result<Self, ConnectError> {
        settings.check()?;
        let info = server
            .into_connection_info()
            .map_err(ConnectError::Connect)?;
        // There, each subscription has an answer of its own, and a refusal is one.
        let resp3 = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(resp3);
        let database = info.redis_settings().db();
        let client = Client::open(info).map_err(ConnectError::Connect)?;
        let server = Arc::new(Server::new(settings, database));
        let (interest_tx, interest) = mpsc::unbounded_channel();
        let (closing_tx, closing) = watch::channel(false);
        let (events_tx, events) = mpsc::channel(EVENTS);
        let mut link = Link::new(client, Arc::clone(&server), interest, events_tx, closing);
        let session = link.open().await?;
        server.set_connection(Some(session.handle()));
        Ok(Self {
            server,
            interest: interest_tx,
            closing: closing_tx,
            events: Mutex::new(Some(events)),
            link: AsyncMutex::new(Some(tokio::spawn(link.run(session)))),
        })
    }

    fn check_open(&self) -> Result<(), BackplaneError> {
        if *self.closing.borrow() || self.interest.is_closed() {
            return Err(BackplaneError::closed());
        }
        Ok(())
    }

    fn connection(&self) -> Result<(u64, MultiplexedConnection), BackplaneError> {
        self.check_open()?;
        self.server
            .connection()
            .ok_or_else(BackplaneError::unavailable)
    }

    /// Notes what an error says of the connection.
    fn hear(&self, connection: u64, error: &RedisError) -> Fault {
        let fault = fault(error);
        if matches!(fault, Fault::Gone | Fault::Elsewhere) {
            self.server.give_up(connection);
        }
        fault
    }

    fn is_long(&self, message: &Message) -> bool {
        message.body.len() > self.server.settings.max_body
    }

    /// What an answer says of a message.
    fn outcome(&self, connection: u64, answer: Result<Option<Position>, RedisError>) -> Published {
        match answer {
            Ok(place) => Published::Accepted(place),
            Err(error) => match self.hear(connection, &error) {
                Fault::Gone => Published::Unknown(failed(error)),
                fault => Published::Refused {
                    permanent: fault == Fault::Denied,
                    reason: failed(error),
                },
            },
        }
    }

    /// Without a log, users may have several messages in a call, which keep their order.
    async fn publish_in_order(
        &self,
        messages: &[Message],
    ) -> Result<Vec<Published>, BackplaneError> {
        let (connection, handle) = self.connection()?;
        let short = messages.iter().filter(|message| !self.is_long(message));
        let answers = self.server.publish(handle, short).await;
        let answers = answers.map_err(|error| {
            self.hear(connection, &error);
            failed(error)
        })?;
        let mut answers = answers.into_iter();
        let published = messages.iter().map(|message| {
            if self.is_long(message) {
                return too_long();
            }
            match answers.next() {
                Some(answer) => self.outcome(connection, answer.map(|_| None)),
                None => Published::Unknown(BackplaneError::other("Redis did not answer")),
            }
        });
        Ok(published.collect())
    }

    async fn append(&self, message: &Message) -> Published {
        let (connection, handle) = match self.connection() {
            Ok(connection) => connection,
            Err(reason) => {
                return Published::Refused {
                    permanent: false,
                    reason,
                };
            }
        };
        if self.is_long(message) {
            return too_long();
        }
        match self.server.append(handle, message).await {
            Ok(None) => Published::Unknown(BackplaneError::other("the log is another one")),
            answer => self.outcome(connection, answer),
        }
    }
}

fn too_long() -> Published {
    Published::Refused {
        permanent: true,
        reason: BackplaneError::other("the message is too long"),
    }
}

#[async_trait]
impl Backplane for Redis {
    fn level(&self) -> Level {
        match self.server.settings.log {
            Some(_) => Level::Replayable,
            None => Level::AtMostOnce,
        }
    }

    fn horizon(&self) -> Option<Position> {
        let log = self.server.settings.log.as_ref();
        log.map(|_| self.server.known().horizon())
    }

    fn max_body(&self) -> usize {
        self.server.settings.max_body
    }

    fn duplicate_window(&self) -> Duration {
        let log = self.server.settings.log.as_ref();
        log.map_or(self.server.settings.timeout, |log| log.duplicate_window)
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, BackplaneError> {
        self.connection()?;
        let published = match self.level() {
            Level::AtMostOnce => self.publish_in_order(messages).await,
            // None waits for another's answer. Each is of another user.
            _ => Ok(join_all(messages.iter().map(|message| self.append(message))).await),
        };
        self.check_open()?;
        let mut published = published?;
        let is_unknown = |published: &Published| matches!(published, Published::Unknown(_));
        if published.iter().all(is_unknown) {
            if let Some(Published::Unknown(error)) = published.pop() {
                return Err(error);
            }
        }
        Ok(published)
    }

    async fn set_interest(&self, add: &[UserId], remove: &[UserId]) -> Result<(), BackplaneError> {
        self.check_open()?;
        let noted = self.interest.send(Interest {
            add: add.to_vec(),
            remove: remove.to_vec(),
        });
        noted.map_err(|_| BackplaneError::closed())
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        Box::pin(Events(lock(&self.events).take()))
    }

    async fn fetch(
        &self,
        user: &UserId,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError> {
        let (connection, handle) = self.connection()?;
        let answer = self.server.fetch(handle, user, after.offset, limit).await;
        let answer = answer.map_err(|error| {
            self.hear(connection, &error);
            failed(error)
        })?;
        self.check_open()?;
        if !answer.is_current || answer.rest.len() < 2 {
            return Err(BackplaneError::other("the log is another one"));
        }
        let at = |offset| Position {
            offset,
            ..answer.end
        };
        let (floor, newest) = (number(&answer.rest[0]), number(&answer.rest[1]));
        if after.epoch != answer.end.epoch {
            return Ok(Fetched {
                messages: Vec::new(),
                through: after,
                head: at(newest),
                missing: Missing::Unknown,
            });
        }
        let (mut messages, mut before) = (Vec::new(), None);
        let mut rest = answer.rest.into_iter().skip(2);
        while let (Some(offset), Some(previous), Some(body)) =
            (rest.next(), rest.next(), rest.next())
        {
            before.get_or_insert(number(&previous));
            messages.push((at(number(&offset)), Bytes::from(body)));
        }
        let last = messages
            .last()
            .map_or(after.offset, |(last, _)| last.offset);
        let through = if last < newest {
            last
        } else {
            last.max(answer.end.offset)
        };
        // The first names the one before it. If there is none, and none that the log has dropped for its age, nothing is missing.
        let is_missing = match before {
            Some(previous) => previous > after.offset,
            None => newest == 0 && after.offset < floor,
        };
        Ok(Fetched {
            messages,
            through: at(through),
            head: at(newest),
            missing: if is_missing {
                Missing::Unknown
            } else {
                Missing::Nothing
            },
        })
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, BackplaneError> {
        let (connection, handle) = self.connection()?;
        let answer = self.server.heads(handle, users).await.map_err(|error| {
            self.hear(connection, &error);
            failed(error)
        })?;
        self.check_open()?;
        if !answer.is_current || answer.rest.len() != users.len() {
            return Err(BackplaneError::other("the log is another one"));
        }
        let head = |newest: &Vec<u8>| Head {
            newest: Position {
                offset: number(newest),
                ..answer.end
            },
            through: answer.end.offset,
        };
        Ok(answer.rest.iter().map(head).collect())
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

impl Drop for Redis {
    fn drop(&mut self) {
        // The task ends, and with it the connections.
        self.closing.send_replace(true);
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("settings", &self.server.settings)
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
