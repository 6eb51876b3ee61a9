//! An engine inside one process: for tests, and to see what several nodes do without several machines.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use tidings::UserId;
use tidings::backplane::{
    Backplane, BackplaneError, Cause, Event, Fetched, Head, Level, Message, Missing, Place,
    Position, Published, Received,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

mod faults;

/// An engine in memory, with methods that cause the faults of a real one.
///
/// Each [`node`](Self::node) is a backplane; give each to a broadcaster. Cloning it costs a reference count. It is for tests:
/// what it keeps for nodes that do not read is not bounded.
///
/// ```
/// use tidings::backplane::Level;
/// use tidings::{GenericBroadcaster, Text};
/// use tidings_testkit::backplane::InProcess;
/// use tokio_stream::StreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = InProcess::new(Level::Replayable);
/// let here: GenericBroadcaster<Text> = GenericBroadcaster::builder().backplane(engine.node()).build()?;
/// let there: GenericBroadcaster<Text> = GenericBroadcaster::builder().backplane(engine.node()).build()?;
///
/// let mut tab = there.register_when_ready("ann").await?;
/// here.broadcast("ann", &Text::new("hello"))?;
/// assert_eq!(tab.next().await.unwrap()?.data(), "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct InProcess(Arc<Shared>);

struct Shared {
    level: Level,
    per_user: usize,
    state: Mutex<State>,
}

struct State {
    epoch: u64,
    is_up: bool,
    /// Of the last message.
    position: u64,
    logs: HashMap<UserId, Log>,
    /// What was published, to recognize it when it is published again.
    ids: HashMap<u128, u64>,
    nodes: Vec<Node>,
    /// How many of the next publications are accepted without their nodes learning of it.
    unacknowledged: usize,
    /// How many of the next messages are appended and sent to no node.
    unsent: usize,
    /// Users whose messages are refused, and whether for good.
    refused: HashMap<UserId, bool>,
    /// Everything up to here was dropped for its age, and the engine does not know what it was.
    expired: u64,
}

#[derive(Default)]
struct Log {
    kept: VecDeque<(u64, Bytes)>,
    dropped: Vec<u64>,
}

impl Log {
    fn newest(&self) -> u64 {
        let kept = self.kept.back().map(|(offset, _)| *offset);
        kept.or(self.dropped.last().copied()).unwrap_or(0)
    }
}

struct Node {
    events: mpsc::UnboundedSender<Event>,
    interest: HashSet<UserId>,
    /// Added while the engine could not be reached.
    unready: Vec<UserId>,
    is_cut: bool,
    is_denied: bool,
    is_closed: bool,
}

impl InProcess {
    /// A running engine, with logs of 10,000 messages per user if it keeps any.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Self::keeping(level, 10_000)
    }

    /// A running engine that keeps this many messages of each user.
    #[must_use]
    pub fn keeping(level: Level, per_user: usize) -> Self {
        Self(Arc::new(Shared {
            level,
            per_user,
            state: Mutex::new(State {
                epoch: new_epoch(),
                is_up: true,
                position: 0,
                logs: HashMap::new(),
                ids: HashMap::new(),
                nodes: Vec::new(),
                unacknowledged: 0,
                unsent: 0,
                refused: HashMap::new(),
                expired: 0,
            }),
        }))
    }

    /// One more node.
    #[must_use]
    pub fn node(&self) -> InProcessNode {
        let (events, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        state.nodes.push(Node {
            events,
            interest: HashSet::new(),
            unready: Vec::new(),
            is_cut: false,
            is_denied: false,
            is_closed: false,
        });
        InProcessNode {
            engine: self.clone(),
            index: state.nodes.len() - 1,
            receiver: Arc::new(Mutex::new(Some(receiver))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked under this lock has failed already.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No two logs have the same one.
fn new_epoch() -> u64 {
    // Each `RandomState` has keys of its own.
    RandomState::new().hash_one(0).max(1)
}

impl State {
    /// Where the log ends.
    fn end(&self) -> Position {
        self.at(self.position)
    }

    fn at(&self, offset: u64) -> Position {
        Position {
            epoch: self.epoch,
            offset,
        }
    }

    fn reach(&self, index: usize) -> Result<(), BackplaneError> {
        if self.nodes[index].is_closed {
            return Err(BackplaneError::closed());
        }
        if !self.is_up || self.nodes[index].is_cut {
            return Err(BackplaneError::unavailable());
        }
        Ok(())
    }

    /// Appends a message unless the log has it. Returns its place, and whether it is new.
    fn append(&mut self, message: &Message, per_user: usize) -> (Place, bool) {
        if let Some(offset) = self.ids.get(&message.id) {
            let position = self.at(*offset);
            let previous = 0;
            return (Place { position, previous }, false);
        }
        self.position += 1;
        self.ids.insert(message.id, self.position);
        let log = self.logs.entry(message.user.clone()).or_default();
        let previous = log.newest();
        log.kept.push_back((self.position, message.body.clone()));
        if log.kept.len() > per_user {
            let dropped = log.kept.pop_front().map(|(position, _)| position);
            log.dropped.extend(dropped);
        }
        let position = self.end();
        (Place { position, previous }, true)
    }
}

impl Node {
    fn restore(&mut self) {
        self.tell(Event::Restored { maybe_lost: true });
        self.tell_ready();
    }

    fn tell_unheard(&self) {
        if !self.unready.is_empty() {
            self.tell(Event::Unheard {
                users: self.unready.clone(),
                cause: Cause::Denied,
                detail: "the permission was withdrawn".into(),
            });
        }
    }

    fn tell_ready(&mut self) {
        if self.is_denied {
            return self.tell_unheard();
        }
        if !self.unready.is_empty() {
            let ready = std::mem::take(&mut self.unready);
            self.tell(Event::Ready(ready));
        }
    }

    fn tell(&self, event: Event) {
        // A node that was dropped does not listen any more.
        drop(self.events.send(event));
    }
}

/// One node of an [`InProcess`] engine. A clone is the same node, for calling its methods while a broadcaster has it.
#[derive(Clone)]
pub struct InProcessNode {
    engine: InProcess,
    index: usize,
    receiver: Arc<Mutex<Option<mpsc::UnboundedReceiver<Event>>>>,
}

impl InProcessNode {
    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &InProcess {
        &self.engine
    }

    /// Hands this node a message as if it had come from the engine.
    pub fn inject(&self, received: Received) {
        self.engine.state().nodes[self.index].tell(Event::Message(received));
    }
}

#[async_trait]
impl Backplane for InProcessNode {
    fn level(&self) -> Level {
        self.engine.0.level
    }

    fn horizon(&self) -> Option<Position> {
        (self.level() == Level::Replayable).then(|| self.engine.state().end())
    }

    fn max_body(&self) -> usize {
        1 << 20
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, BackplaneError> {
        // An engine is never as fast as a call.
        tokio::task::yield_now().await;
        let mut state = self.engine.state();
        state.reach(self.index)?;
        let mut published = Vec::with_capacity(messages.len());
        for message in messages {
            let refused = match state.nodes[self.index].is_denied {
                true => Some(true),
                false => state.refused.get(&message.user).copied(),
            };
            if let Some(permanent) = refused {
                published.push(Published::Refused {
                    permanent,
                    reason: BackplaneError::other("it is refused"),
                });
                continue;
            }
            let (place, is_new) = match self.engine.0.level {
                Level::Replayable => {
                    let (place, is_new) = state.append(message, self.engine.0.per_user);
                    (Some(place), is_new)
                }
                _ => (None, true),
            };
            published.push(Published::Accepted(place.map(|place| place.position)));
            let is_sent = is_new && state.unsent == 0;
            if is_new {
                state.unsent = state.unsent.saturating_sub(1);
            }
            let hears = |node: &&Node| !node.is_cut && !node.is_denied && is_sent;
            let nodes = state.nodes.iter().filter(hears);
            for node in nodes.filter(|node| node.interest.contains(&message.user)) {
                node.tell(Event::Message(Received {
                    user: message.user.clone(),
                    body: message.body.clone(),
                    place,
                }));
            }
        }
        if state.unacknowledged > 0 {
            state.unacknowledged -= 1;
            return Err(BackplaneError::other("the acknowledgement is lost"));
        }
        Ok(published)
    }

    async fn set_interest(&self, add: &[UserId], remove: &[UserId]) -> Result<(), BackplaneError> {
        let mut state = self.engine.state();
        let is_reachable = state.is_up && !state.nodes[self.index].is_cut;
        let node = &mut state.nodes[self.index];
        if node.is_closed {
            return Err(BackplaneError::closed());
        }
        for user in remove {
            node.interest.remove(user);
        }
        node.interest.extend(add.iter().cloned());
        node.unready.extend(add.iter().cloned());
        if is_reachable {
            node.tell_ready();
        }
        Ok(())
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        let receiver = self
            .receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Box::pin(UnboundedReceiverStream::new(
            receiver.expect("the events are asked for once"),
        ))
    }

    async fn fetch(
        &self,
        user: &UserId,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError> {
        tokio::task::yield_now().await;
        let state = self.engine.state();
        state.reach(self.index)?;
        let nothing = Log::default();
        let log = state.logs.get(user).unwrap_or(&nothing);
        let head = state.at(log.newest());
        if after.epoch != state.epoch {
            return Ok(Fetched {
                messages: Vec::new(),
                through: after,
                head,
                missing: Missing::Unknown,
            });
        }
        let missing = log.dropped.iter().filter(|at| **at > after.offset).count() as u64;
        let behind = log.kept.iter().filter(|(at, _)| *at > after.offset);
        let mut messages: Vec<_> = behind
            .map(|(at, body)| (state.at(*at), body.clone()))
            .collect();
        let has_more = messages.len() > limit;
        messages.truncate(limit);
        let last = messages.last().map(|(at, _)| *at).filter(|_| has_more);
        Ok(Fetched {
            messages,
            through: last.unwrap_or(state.at(state.position.max(after.offset))),
            head,
            missing: match missing {
                _ if after.offset < state.expired => Missing::Unknown,
                0 => Missing::Nothing,
                missing => Missing::Messages(missing),
            },
        })
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, BackplaneError> {
        tokio::task::yield_now().await;
        let state = self.engine.state();
        state.reach(self.index)?;
        let newest = |user| state.logs.get(user).map_or(0, Log::newest);
        let head = |user| Head {
            newest: state.at(newest(user)),
            through: state.position,
        };
        Ok(users.iter().map(head).collect())
    }

    async fn close(&self, _: Instant) {
        let mut state = self.engine.state();
        let node = &mut state.nodes[self.index];
        node.is_closed = true;
        node.interest.clear();
        // This drops the last sender, which ends the stream.
        node.events = mpsc::unbounded_channel().0;
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess")
            .field("level", &self.0.level)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InProcessNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessNode")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
