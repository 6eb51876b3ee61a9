//! The task that keeps one node's subscriptions, and tells what happens.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use async_nats::header::{NATS_LAST_SEQUENCE, NATS_SEQUENCE, NATS_STREAM};
use async_nats::{Client, Message};
use tokio::sync::{mpsc, watch};
use tokio::task::unconstrained;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::fence::{Connection, Fence};
use super::interest::{Interest, Owner, Source, Waiting};
use super::known::Mark;
use super::live::Live;
use super::log::{Log, Look};
use super::peers::Peers;
use super::signals::Signals;
use tidings::UserId;
use tidings::backplane::{BackplaneError, Cause, Event, Place, Position, Received};

/// So many subscriptions are made before anything else gets its turn.
pub(super) const AT_ONCE: usize = 256;

/// How long a failed question to the server is not asked again, and how soon a signal that got lost is made up for.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// How often the log is looked at: it moves on by what other nodes publish, and somebody may have deleted it.
const LOOK: Duration = Duration::from_secs(1);

/// What the adapter tells the task.
#[derive(Debug)]
pub(super) enum Command {
    Interest {
        add: Vec<UserId>,
        remove: Vec<UserId>,
    },
    /// The log seems to be another one.
    Look,
}

/// The node is closed, or nobody listens any more.
pub(super) struct Ended;

/// Everything that the task has.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) fence: Arc<Fence>,
    pub(super) peers: Arc<Peers>,
    pub(super) log: Option<Arc<Log>>,
    pub(super) live: Arc<Live>,
    pub(super) interest: Interest,
    /// What comes back to this node names it.
    pub(super) probe: String,
    /// Whether the connection is this node's own, and ends with it.
    pub(super) is_own: bool,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) signals: Arc<Signals>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) closing: watch::Receiver<bool>,
    /// The connection on which everything is known to be in order.
    pub(super) verified: Arc<VerifiedConnection>,
    pub(super) state: State,
}

/// The number of the connection that was verified last. Other tasks read it.
#[derive(Debug)]
pub(super) struct VerifiedConnection(AtomicU64);

impl VerifiedConnection {
    pub(super) fn new(connection: Connection) -> Self {
        Self(AtomicU64::new(connection.number()))
    }

    fn set(&self, connection: Connection) {
        // Release pairs with `is`: a task that finds the connection verified also sees the log's new head.
        self.0.store(connection.number(), Ordering::Release);
    }

    pub(super) fn is(&self, connection: Connection) -> bool {
        self.0.load(Ordering::Acquire) == connection.number()
    }
}

/// What is not done yet.
#[derive(Debug)]
pub(super) struct State {
    /// Users to subscribe to.
    to_add: VecDeque<UserId>,
    /// Subscribed to; the server may not have heard of it.
    added: Waiting,
    /// Behind these a barrier is on its way. Who is taken out meanwhile, and comes again, waits for the next one.
    passing: Waiting,
    /// The barrier has passed, and nothing has come through the subscription yet.
    pub(super) silent: Waiting,
    /// Subscriptions through which something is to come back, since when, oldest first.
    pub(super) probed: VecDeque<(Instant, Source)>,
    /// Subscriptions to be verified, and when that began.
    pub(super) unverified: VecDeque<Source>,
    pub(super) round: Instant,
    /// Subscriptions that bring nothing: when they are made anew, and how long it is until the next time.
    pub(super) deaf: HashMap<Source, (Instant, Duration)>,
    /// Whether it was told that the log is none of ours.
    contradicted: bool,
    /// A message that came over a connection that is not in order yet.
    held: Option<(Source, Message)>,
    /// Whether it was told that the server cannot be reached.
    interrupted: bool,
    /// Whether a message was dropped.
    slow: bool,
    /// Whether the log has to be looked at.
    look: bool,
    /// When it was looked at last.
    looked: Instant,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            to_add: VecDeque::new(),
            added: Waiting::new(),
            passing: Waiting::new(),
            silent: Waiting::new(),
            probed: VecDeque::new(),
            unverified: VecDeque::new(),
            round: Instant::now(),
            deaf: HashMap::new(),
            contradicted: false,
            held: None,
            interrupted: false,
            slow: false,
            look: false,
            looked: Instant::now(),
        }
    }
}

type Barrier = Pin<Box<dyn Future<Output = Result<(), BackplaneError>> + Send>>;

impl Link {
    /// Runs until the node is closed.
    pub(super) async fn run(mut self) {
        let mut closing = self.closing.clone();
        tokio::select! {
            Err(Ended) = self.turns() => {}
            // Also when the other side is gone.
            _ = closing.wait_for(|closing| *closing) => {}
        }
        if self.is_own {
            // Otherwise it would be there until the last handle of the client has gone.
            let _ = self.client.drain().await;
        }
    }

    async fn turns(&mut self) -> Result<std::convert::Infallible, Ended> {
        let mut barrier: Option<Barrier> = None;
        let mut tick = interval(RETRY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !self.verified.is(self.fence.connection()) {
                self.interrupt().await?;
                if self.fence.is_connected() {
                    self.restore().await?;
                }
            } else if let Some((source, message)) = self.state.held.take() {
                self.deliver(source, message).await?;
                continue;
            }
            let in_order = !self.state.interrupted;
            if in_order && barrier.is_none() && !self.state.added.is_empty() {
                self.state.passing = mem::take(&mut self.state.added);
                barrier = Some(self.barrier());
            }
            let passed = async {
                match &mut barrier {
                    Some(barrier) => barrier.await,
                    None => std::future::pending().await,
                }
            };
            // Nothing is taken from the subscriptions while a message of a new connection is held back.
            let takes = self.state.held.is_none();
            tokio::select! {
                () = self.events.closed() => return Err(Ended),
                command = self.commands.recv() => self.obey(command.ok_or(Ended)?),
                () = self.signals.changed.notified() => self.hear().await?,
                result = passed => {
                    barrier = None;
                    self.ready(result).await?;
                }
                (source, message) = poll_fn(|cx| self.interest.feeds.poll_next(cx)
                    .map(|(source, message)| (source.clone(), message))), if takes =>
                {
                    self.state.held = Some((source, message));
                }
                () = std::future::ready(()), if in_order && !self.state.to_add.is_empty() => {
                    self.subscribe().await?;
                }
                _ = tick.tick() => {
                    self.state.look |= self.log.is_some() && self.state.looked.elapsed() >= LOOK;
                    if !self.state.interrupted && mem::take(&mut self.state.look) {
                        self.look().await?;
                    }
                    if !self.state.interrupted && mem::take(&mut self.state.slow) {
                        self.tell(Event::Changed { cause: Cause::Slow }).await?;
                    }
                    if !self.state.interrupted {
                        self.verify().await?;
                    }
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Interest { add, remove } => {
                for user in &remove {
                    self.interest.remove(user);
                    self.state.added.remove(user);
                    self.state.passing.remove(user);
                    self.state.silent.remove(user);
                }
                if !remove.is_empty() && !self.state.to_add.is_empty() {
                    let gone: Waiting = remove.into_iter().collect();
                    self.state.to_add.retain(|user| !gone.contains(user));
                }
                self.state.to_add.extend(add);
            }
            Command::Look => self.state.look = true,
        }
    }

    async fn hear(&mut self) -> Result<(), Ended> {
        self.state.slow |= self.signals.take_slow();
        self.hear_refused().await?;
        if self.log.is_none() {
            let users = self.live.take_lost();
            if !users.is_empty() {
                let detail = "this node may not publish to these users".to_owned();
                self.tell(Event::Lost { users, detail }).await?;
            }
        }
        if !self.fence.is_connected() {
            self.interrupt().await?;
        }
        Ok(())
    }

    async fn subscribe(&mut self) -> Result<(), Ended> {
        for _ in 0..AT_ONCE {
            let Some(user) = self.state.to_add.pop_front() else {
                break;
            };
            let added = timeout(RETRY, self.interest.add(&self.client, user.clone())).await;
            match added {
                Ok(Ok(source)) => {
                    self.state.added.insert(user);
                    if let Some(source) = source {
                        self.send_probe(source).await?;
                    }
                }
                Ok(Err(_)) => return Err(Ended),
                // The client takes no commands while it is not connected.
                Err(_) => {
                    self.state.to_add.push_front(user);
                    break;
                }
            }
        }
        Ok(())
    }

    /// What shows that the servers have heard of all subscriptions so far.
    fn barrier(&self) -> Barrier {
        let (fence, peers, log) = (self.fence.clone(), self.peers.clone(), self.log.clone());
        let connection = fence.connection();
        let is_cluster = self.client.server_info().cluster.is_some();
        Box::pin(async move {
            fence.pass(connection).await?;
            match log {
                Some(log) => log.barrier().await?,
                None if is_cluster => peers.meet().await,
                None => {}
            }
            Ok(())
        })
    }

    async fn ready(&mut self, passed: Result<(), BackplaneError>) -> Result<(), Ended> {
        let users = mem::take(&mut self.state.passing);
        // On a new connection the barrier says nothing; there will be another one.
        let in_order = self.verified.is(self.fence.connection()) && !self.state.interrupted;
        if passed.is_ok() && in_order {
            let is_heard = |user: &UserId| self.interest.is_heard(user);
            let (heard, silent): (Vec<_>, Vec<_>) = users.into_iter().partition(is_heard);
            self.state.silent.extend(silent);
            if heard.is_empty() {
                return Ok(());
            }
            return self.tell(Event::Ready(heard)).await;
        }
        self.state.added.extend(users);
        if passed.is_err() {
            self.state.look |= self.log.is_some();
            self.pause().await;
        }
        Ok(())
    }

    async fn interrupt(&mut self) -> Result<(), Ended> {
        if !mem::replace(&mut self.state.interrupted, true) {
            // What is acknowledged from now on may be another log's.
            if let Some(log) = &self.log {
                log.question();
            }
            self.tell(Event::Interrupted).await?;
        }
        Ok(())
    }

    /// Waits until everything is in order again, as far as it can be on this connection, and tells so.
    async fn restore(&mut self) -> Result<(), Ended> {
        let connection = self.fence.connection();
        let mut restored = self.fence.pass(connection).await;
        if restored.is_ok() {
            // It may have to be made again, or be the same only by name.
            if let Some(log) = &self.log {
                log.question();
            }
            restored = self.refresh().await?;
        }
        if restored.is_ok() {
            restored = self.barrier().await;
        }
        if restored.is_err() || self.fence.connection() != connection {
            self.pause().await;
            return Ok(());
        }
        if self.log.is_none() {
            self.discard().await;
        }
        // What may be subscribed to can be another on this server, or in its new configuration.
        self.state.probed.clear();
        self.state.unverified = self.interest.sources();
        self.verified.set(connection);
        self.state.interrupted = false;
        self.tell(Event::Restored { maybe_lost: true }).await
    }

    /// Drops the messages that have arrived and were not passed on. The gap that is reported now covers them: delivered after
    /// it, they would look as if nothing were missing behind them.
    async fn discard(&mut self) {
        self.state.held = None;
        let feeds = &mut self.interest.feeds;
        let discard = async {
            let mut cx = Context::from_waker(Waker::noop());
            while feeds.poll_next(&mut cx).is_ready() {}
        };
        // Without coop budget, subscriptions would seem to be empty.
        unconstrained(discard).await;
    }

    /// Looks whether the log is the same still.
    async fn look(&mut self) -> Result<(), Ended> {
        if self.refresh().await?.is_err() {
            self.state.look = true;
            self.pause().await;
        }
        Ok(())
    }

    async fn refresh(&mut self) -> Result<Result<(), BackplaneError>, Ended> {
        let Some(log) = &self.log else {
            return Ok(Ok(()));
        };
        self.state.looked = Instant::now();
        let look = log.look().await;
        let is_ours = !matches!(look, Ok(Look::Contradiction(_)));
        let was_ours = !mem::replace(&mut self.state.contradicted, !is_ours);
        match look {
            Ok(Look::Same) => {}
            Ok(Look::Changed(cause)) => self.tell(Event::Changed { cause }).await?,
            Ok(Look::Behind) => self.state.look = true,
            Ok(Look::OtherLog(end)) => {
                self.interest.reset();
                self.tell(Event::Reset(end)).await?;
            }
            Ok(Look::Contradiction(detail)) => {
                if was_ours {
                    tracing::error!(detail = detail.as_str(), "the log cannot be used");
                    let (users, cause) = (Vec::new(), Cause::Other);
                    self.tell(Event::Unheard {
                        users,
                        cause,
                        detail,
                    })
                    .await?;
                }
                return Ok(Err(BackplaneError::unavailable()));
            }
            Err(error) => return Ok(Err(error)),
        }
        Ok(Ok(()))
    }

    async fn deliver(&mut self, source: Source, message: Message) -> Result<(), Ended> {
        if let Some(reply) = &message.reply {
            return match **reply == *self.probe {
                true => self.hear_probe(&source).await,
                // Another node's.
                false => Ok(()),
            };
        }
        let user = match self.interest.owner(&source, &message) {
            Owner::User(user) => user,
            Owner::Elsewhere => return Ok(()),
            Owner::Nobody => return self.tell(Event::Foreign).await,
        };
        let mut place = None;
        if let Some(log) = &self.log {
            place = place_of(&message, log.name(), log.horizon().epoch);
            let Some(place) = place else {
                return self.tell(Event::Foreign).await;
            };
            log.advance(place.position, || Mark::of(message.headers.as_ref()));
            let is_newer = self.interest.advance(&user, place.position.offset);
            // Not for each, since anybody may write anything to a subject.
            if !is_newer && self.state.looked.elapsed() >= RETRY {
                log.question();
                self.state.look |= self.refresh().await?.is_err();
            }
        }
        let body = message.payload;
        let received = Received { user, body, place };
        self.tell(Event::Message(received)).await
    }

    /// Waits a little, so that a server that does not answer is not asked all the time.
    async fn pause(&self) {
        sleep(RETRY).await;
    }

    pub(super) async fn tell(&self, event: Event) -> Result<(), Ended> {
        self.events.send(event).await.map_err(|_| Ended)
    }
}

/// What the stream says of a message that it sends on.
fn place_of(message: &Message, stream: &str, epoch: u64) -> Option<Place> {
    let headers = message.headers.as_ref()?;
    // By their constants: async-nats does not find by a text what it read as a name that it knows.
    let number = |name| headers.get(name)?.as_str().parse::<u64>().ok();
    if headers.get(NATS_STREAM)?.as_str() != stream {
        return None;
    }
    let offset = number(NATS_SEQUENCE)?;
    let place = Place {
        position: Position { epoch, offset },
        previous: number(NATS_LAST_SEQUENCE)?,
    };
    (place.previous < offset).then_some(place)
}
