//! The task that keeps a node connected, and its users' channels subscribed.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tidings::UserId;
use tidings::backplane::{Cause, Event};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::ears::{ENDED, Ears};
use super::error::{ConnectError, Fault, fault};
use super::server::{Process, Server, lock};
use super::wire::Heard;

/// How often the server is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Before a connection is made again, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Before a refused subscription is made again, at first and at most.
const REFUSALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// Subscriptions on their way at a time.
const CHUNK: usize = 1024;

pub(super) struct Interest {
    pub(super) add: Vec<UserId>,
    pub(super) remove: Vec<UserId>,
}

/// How a user's channel is.
enum Channel {
    /// Not yet subscribed.
    New,
    Ready,
    /// Refused, and when it is tried again.
    Refused {
        again: Instant,
        pause: Duration,
    },
}

pub(super) struct Link {
    client: Client,
    server: Arc<Server>,
    interest: mpsc::UnboundedReceiver<Interest>,
    events: mpsc::Sender<Event>,
    closing: watch::Receiver<bool>,
    channels: HashMap<UserId, Channel>,
    sessions: u64,
    is_warned: bool,
    resets: u64,
}

/// Both connections, as long as they last.
pub(super) struct Session {
    number: u64,
    connection: MultiplexedConnection,
    /// For what arrives.
    sink: MultiplexedConnection,
    /// The last fence that has come back; `ENDED` when the connection has.
    fences: watch::Receiver<u64>,
    next_fence: u64,
    /// See [`Ears`].
    is_open: Arc<Mutex<bool>>,
}

impl Session {
    pub(super) fn handle(&self) -> (u64, MultiplexedConnection) {
        (self.number, self.connection.clone())
    }
}

/// The session is over.
struct Over;

impl From<RedisError> for Over {
    fn from(error: RedisError) -> Self {
        tracing::debug!(%error, "the connection to Redis cannot be used");
        Self
    }
}

impl Link {
    pub(super) fn new(
        client: Client,
        server: Arc<Server>,
        interest: mpsc::UnboundedReceiver<Interest>,
        events: mpsc::Sender<Event>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            client,
            server,
            interest,
            events,
            closing,
            channels: HashMap::new(),
            sessions: 0,
            is_warned: false,
            resets: 0,
        }
    }

    /// Connects, and makes sure that the log is the one that is known.
    pub(super) async fn open(&mut self) -> Result<Session, ConnectError> {
        let limit = self.server.settings.timeout;
        match timeout(limit, self.open_without_limit()).await {
            // The client's limit is the same.
            Ok(Err(ConnectError::Connect(error))) if error.is_timeout() => {
                Err(ConnectError::NotInTime)
            }
            Ok(opened) => opened,
            Err(_) => Err(ConnectError::NotInTime),
        }
    }

    async fn open_without_limit(&mut self) -> Result<Session, ConnectError> {
        let limit = self.server.settings.timeout;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limit))
            .set_response_timeout(Some(limit));
        let client = self.client.clone();
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(ConnectError::Connect)?;
        self.inspect(&mut connection).await?;
        if self.server.settings.log.is_some() {
            let looked = self.server.look(&mut connection).await;
            looked.map_err(ConnectError::Connect)?;
        }
        let (heard, fences) = watch::channel(0);
        self.sessions += 1;
        let number = self.sessions;
        let ears = Ears {
            server: Arc::clone(&self.server),
            events: self.events.clone(),
            fences: heard,
            number,
            // Before the first one there was nothing to interrupt.
            is_open: Arc::new(Mutex::new(
                number == 1 || self.server.settings.log.is_some(),
            )),
        };
        let is_open = Arc::clone(&ears.is_open);
        let config = config.set_push_sender(move |info| {
            ears.hear(info);
            Ok::<(), ()>(())
        });
        let sink = client.get_multiplexed_async_connection_with_config(&config);
        let mut sink = sink.await.map_err(ConnectError::Connect)?;
        let subscribed = sink.subscribe(self.server.own_channel()).await;
        subscribed.map_err(ConnectError::Connect)?;
        let mut session = Session {
            number,
            connection,
            sink,
            fences,
            next_fence: 1,
            is_open,
        };
        self.fence(&mut session)
            .await
            .map_err(|_| ConnectError::NotInTime)?;
        Ok(session)
    }

    /// Whether this server leads, can keep a log, and has kept it.
    async fn inspect(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), ConnectError> {
        let info: String = match redis::cmd("INFO").query_async(connection).await {
            Ok(info) => info,
            Err(error) if fault(&error) == Fault::Denied => {
                if !std::mem::replace(&mut self.is_warned, true) {
                    tracing::warn!(
                        "this node may not ask INFO: it does not notice if Redis becomes a replica, restarts from an older copy or drops keys"
                    );
                }
                self.server.set_process(Process::default());
                return Ok(());
            }
            Err(error) => return Err(ConnectError::Connect(error)),
        };
        let field = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        if field("role") == Some("slave") {
            return Err(ConnectError::Replica);
        }
        if self.server.settings.log.is_none() {
            return Ok(());
        }
        let policy = field("maxmemory_policy").unwrap_or("noeviction");
        if field("maxmemory").is_some_and(|max| max != "0") && policy != "noeviction" {
            return Err(ConnectError::Evicts(policy.to_owned()));
        }
        let process = Process {
            run: field("run_id").unwrap_or_default().to_owned(),
            evicted: field("evicted_keys")
                .and_then(|keys| keys.parse().ok())
                .unwrap_or(0),
        };
        let before = self.server.set_process(process.clone());
        if before.run == process.run && before.evicted < process.evicted {
            tracing::error!("Redis has dropped keys, perhaps of the log: the log begins anew");
        }
        Ok(())
    }

    pub(super) async fn run(mut self, mut session: Session) {
        let mut closing = self.closing.clone();
        let mut is_first = true;
        let work = async {
            loop {
                if self.serve(&mut session, is_first).await.is_none() {
                    return;
                }
                is_first = false;
                self.server.set_connection(None);
                // Its subscriptions may go on for a while.
                *lock(&session.is_open) = self.server.settings.log.is_some();
                if self.events.send(Event::Interrupted).await.is_err() {
                    return;
                }
                let mut pause = PAUSES[0];
                session = loop {
                    match self.open().await {
                        Ok(session) => break session,
                        Err(error) => tracing::debug!(%error, "Redis cannot be used yet"),
                    }
                    if self.pause(pause).await.is_none() {
                        return;
                    }
                    pause = (pause * 2).min(PAUSES[1]);
                };
            }
        };
        tokio::select! {
            () = work => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.server.set_connection(None);
    }

    /// Waits before it connects again. Meanwhile the broadcaster goes on telling whose events it needs, which must not pile up.
    async fn pause(&mut self, pause: Duration) -> Option<()> {
        let end = Instant::now() + pause;
        while let Ok(interest) = timeout_at(end, self.interest.recv()).await {
            self.note(interest?);
        }
        Some(())
    }

    /// Until the session is over; `None` when nobody listens any more.
    async fn serve(&mut self, session: &mut Session, is_first: bool) -> Option<()> {
        self.tell_reset().await?;
        self.server.set_connection(Some(session.handle()));
        // Whoever was ready before need not be told again, only whoever was not.
        while let Ok(interest) = self.interest.try_recv() {
            self.note(interest);
        }
        let users: Vec<UserId> = self.channels.keys().cloned().collect();
        let Ok((ready, unheard)) = self.subscribe(session, &users).await else {
            return Some(());
        };
        if !is_first {
            let place = self.events.reserve().await.ok()?;
            let mut is_open = lock(&session.is_open);
            place.send(Event::Restored { maybe_lost: true });
            *is_open = true;
        }
        self.tell(ready, unheard).await?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let server = Arc::clone(&self.server);
        loop {
            let passed = tokio::select! {
                interest = self.interest.recv() => self.change(session, interest?).await,
                () = server.trouble.notified() => self.check(session).await,
                _ = ticks.tick() => self.tick(session).await,
                changed = session.fences.changed() => match changed {
                    Ok(()) if *session.fences.borrow_and_update() != ENDED => Ok(Some(())),
                    // The connection has ended, whether its driver has told so or not.
                    _ => Err(Over),
                },
            };
            match passed {
                Ok(Some(())) => {}
                Ok(None) => return None,
                Err(Over) => return Some(()),
            }
            self.tell_reset().await?;
        }
    }

    async fn check(&mut self, session: &mut Session) -> Result<Option<()>, Over> {
        if self.server.is_broken(session.number) {
            return Err(Over);
        }
        if self.server.is_slow.swap(false, Ordering::AcqRel) {
            let slow = Event::Changed { cause: Cause::Slow };
            if self.events.send(slow).await.is_err() {
                return Ok(None);
            }
        }
        if self.server.settings.log.is_some() {
            self.server.look(&mut session.connection).await?;
        }
        Ok(Some(()))
    }

    async fn tick(&mut self, session: &mut Session) -> Result<Option<()>, Over> {
        self.inspect(&mut session.connection)
            .await
            .map_err(|error| {
                tracing::warn!(%error, "the node leaves this Redis server");
                Over
            })?;
        if self.check(session).await?.is_none() {
            return Ok(None);
        }
        self.fence(session).await?;
        let now = Instant::now();
        let is_due =
            |channel: &Channel| matches!(channel, Channel::Refused { again, .. } if *again <= now);
        let due = self.channels.iter().filter(|(_, channel)| is_due(channel));
        let due: Vec<UserId> = due.map(|(user, _)| user.clone()).collect();
        if due.is_empty() {
            return Ok(Some(()));
        }
        let (ready, unheard) = self.subscribe(session, &due).await?;
        Ok(self.tell(ready, unheard).await)
    }

    fn note(&mut self, interest: Interest) {
        for user in interest.remove {
            self.channels.remove(&user);
        }
        for user in interest.add {
            self.channels.insert(user, Channel::New);
        }
    }

    async fn change(
        &mut self,
        session: &mut Session,
        interest: Interest,
    ) -> Result<Option<()>, Over> {
        let (mut add, remove) = (interest.add.clone(), interest.remove.clone());
        self.note(interest);
        add.retain(|user| self.channels.contains_key(user));
        for some in remove.chunks(CHUNK) {
            let ended = some
                .iter()
                .filter(|user| !self.channels.contains_key(*user))
                .map(|user| {
                    let (mut sink, channel) = (session.sink.clone(), self.server.channel(user));
                    async move { sink.unsubscribe(channel).await }
                });
            let ended = timeout(self.server.settings.timeout, join_all(ended)).await;
            ended
                .map_err(|_| Over)?
                .into_iter()
                .collect::<Result<(), _>>()?;
        }
        if add.is_empty() {
            return Ok(Some(()));
        }
        let (ready, unheard) = self.subscribe(session, &add).await?;
        Ok(self.tell(ready, unheard).await)
    }

    /// Subscribes to users' channels. Which are ready that were not, and which are refused, and why.
    async fn subscribe(
        &mut self,
        session: &mut Session,
        users: &[UserId],
    ) -> Result<(Vec<UserId>, Vec<(UserId, RedisError)>), Over> {
        let (mut ready, mut unheard) = (Vec::new(), Vec::new());
        for some in users.chunks(CHUNK) {
            // One command each: each has an answer of its own.
            let asked = some.iter().map(|user| {
                let (mut sink, channel) = (session.sink.clone(), self.server.channel(user));
                async move { sink.subscribe(channel).await }
            });
            let answers = timeout(self.server.settings.timeout, join_all(asked)).await;
            for (user, answer) in some.iter().zip(answers.map_err(|_| Over)?) {
                match answer {
                    Ok(()) => ready.push(user.clone()),
                    Err(error) if fault(&error) == Fault::Gone => return Err(error.into()),
                    Err(error) => unheard.push((user.clone(), error)),
                }
            }
        }
        // What is published over the one connection comes over the other: both are to the same server.
        self.fence(session).await?;
        ready.retain(|user| {
            let before = self.channels.insert(user.clone(), Channel::Ready);
            !matches!(before, Some(Channel::Ready))
        });
        for (user, _) in &unheard {
            let pause = match self.channels.get(user) {
                Some(Channel::Refused { pause, .. }) => (*pause * 2).min(REFUSALS[1]),
                _ => REFUSALS[0],
            };
            let again = Instant::now() + pause;
            self.channels
                .insert(user.clone(), Channel::Refused { again, pause });
        }
        Ok((ready, unheard))
    }

    /// Sends this node something, and waits until it is back.
    async fn fence(&self, session: &mut Session) -> Result<(), Over> {
        let number = session.next_fence;
        session.next_fence += 1;
        let mut publish = redis::cmd("PUBLISH");
        publish
            .arg(self.server.own_channel())
            .arg(Heard::fence(number));
        publish.query_async::<()>(&mut session.connection).await?;
        let back = session.fences.wait_for(|back| *back >= number);
        match timeout(self.server.settings.timeout, back).await {
            Ok(Ok(back)) if *back != ENDED => Ok(()),
            _ => Err(Over),
        }
    }

    async fn tell(&self, ready: Vec<UserId>, unheard: Vec<(UserId, RedisError)>) -> Option<()> {
        if !ready.is_empty() {
            self.events.send(Event::Ready(ready)).await.ok()?;
        }
        let Some((_, error)) = unheard.first() else {
            return Some(());
        };
        let event = Event::Unheard {
            cause: match fault(error) {
                Fault::Denied => Cause::Denied,
                _ => Cause::Other,
            },
            detail: error.to_string(),
            users: unheard.into_iter().map(|(user, _)| user).collect(),
        };
        self.events.send(event).await.ok()
    }

    async fn tell_reset(&mut self) -> Option<()> {
        let (resets, horizon) = {
            let known = self.server.known();
            (known.resets, known.horizon())
        };
        if std::mem::replace(&mut self.resets, resets) == resets {
            return Some(());
        }
        self.events.send(Event::Reset(horizon)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[tokio::test(start_paused = true)]
    async fn interest_does_not_pile_up_while_there_is_no_server() {
        let client = Client::open("redis://127.0.0.1:1").unwrap();
        let server = Arc::new(Server::new(Settings::new("test"), 0));
        let (interest, told) = mpsc::unbounded_channel();
        let (events, _events) = mpsc::channel(1);
        let (_closing, closing) = watch::channel(false);
        let mut link = Link::new(client, server, told, events, closing);
        let (ann, bob) = (UserId::from("ann"), UserId::from("bob"));
        for (add, remove) in [(&ann, &bob), (&bob, &ann)] {
            let (add, remove) = (vec![add.clone()], vec![remove.clone()]);
            interest.send(Interest { add, remove }).ok().unwrap();
        }
        assert!(link.pause(PAUSES[1]).await.is_some());
        assert!(link.interest.is_empty());
        assert_eq!(link.channels.keys().collect::<Vec<_>>(), [&bob]);
        drop(interest);
        assert!(link.pause(PAUSES[1]).await.is_none(), "the node is dropped");
    }
}
