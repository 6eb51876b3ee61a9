//! Does what the [`Reader`] orders: asks the engine for the ends of users' logs, reads from them, waits, and answers streams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::Relay;
use super::calls::guarded;
use super::copies::{Copied, Users, for_everyone};
use super::reader::Reader;
use super::signals::{Counted, Input, Order, Purpose};
use super::stretch::{Stretch, Ticket};
use crate::backplane::{BackplaneError, Envelope, Fetched, Level, Position, What};
use crate::frame::Frame;
use crate::gap::{Gap, GapReason};
use crate::id::UserId;

/// Messages in one read.
const CHUNK: usize = 256;
/// How often some of the users are compared with the log.
const TICK: Duration = Duration::from_secs(1);

/// Nothing if the log is another one, or has not answered for too long.
type Answer = oneshot::Sender<Option<Arc<Stretch<Item>>>>;

impl<T> Ticket for oneshot::Sender<T> {
    fn is_closed(&self) -> bool {
        oneshot::Sender::is_closed(self)
    }
}

/// What a stream gets.
#[derive(Clone)]
pub(super) enum Item {
    Event(Arc<Frame>),
    Gap(Gap),
    /// Nothing comes behind it.
    End,
}

/// Something has happened.
pub(super) type Happened = Input<UserId, Envelope, Answer, Item>;

pub(super) struct Reads {
    relay: Arc<Relay>,
    reader: Reader<UserId, Answer, Item>,
    incoming: mpsc::UnboundedReceiver<Happened>,
    ticks: Interval,
    tasks: JoinSet<Happened>,
}

impl Reads {
    pub(super) fn new(relay: Arc<Relay>, incoming: mpsc::UnboundedReceiver<Happened>) -> Self {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            reader: Reader::new(Duration::ZERO, relay.patience),
            relay,
            incoming,
            ticks,
            tasks: JoinSet::new(),
        }
    }

    /// What happens next. May be dropped without losing anything.
    pub(super) async fn next(&mut self) -> Happened {
        let has_log = self.relay.level == Level::Replayable;
        tokio::select! {
            // None of them panics: what may is guarded inside.
            Some(Ok(happened)) = self.tasks.join_next() => happened,
            Some(asked) = self.incoming.recv() => asked,
            _ = self.ticks.tick(), if has_log => Input::Tick,
            else => std::future::pending().await,
        }
    }

    /// Takes in what has happened, and does what follows from it.
    pub(super) async fn handle(&mut self, registry: &Users, input: Happened) {
        let mut copies = Copied {
            relay: &self.relay,
            registry,
        };
        let now = self.relay.begun.elapsed();
        let orders = self.reader.handle(now, input, &mut copies);
        for order in orders {
            match order {
                Order::Compare(users) => self.compare(users),
                Order::Read(user, purpose, after) => self.read(user, purpose, after),
                // The client may have gone.
                Order::Answer(stream, stretch) => drop(stream.send(stretch)),
                Order::Follow => {
                    let follow = |user: &UserId| self.relay.follow(registry, user);
                    for_everyone(registry, follow).await;
                }
                Order::Delay(pause, delayed) => {
                    self.tasks.spawn(async move {
                        sleep(pause).await;
                        Input::Due(delayed)
                    });
                }
                Order::Count(Counted::Hole) => self.relay.counters.holes.add(1),
                Order::Count(Counted::Unwanted) => self.relay.counters.unwanted.add(1),
            }
        }
    }

    fn compare(&mut self, users: Vec<UserId>) {
        let backplane = self.relay.backplane.clone();
        self.tasks.spawn(async move {
            let heads = guarded(|| backplane.heads(&users)).await;
            Input::Heads(users, heads.ok())
        });
    }

    fn read(&mut self, user: UserId, purpose: Purpose, after: Position) {
        let relay = self.relay.clone();
        self.tasks.spawn(async move {
            // What panics in opening messages is a fault of ours or of the service's, and a failed read as well.
            match purpose {
                Purpose::Repair => {
                    let read = || relay.read(&user, after, |relay, _, body| relay.parse(body));
                    let part = guarded(read).await;
                    Input::Repaired(user, after, part.ok())
                }
                Purpose::Resume => {
                    let part = guarded(|| relay.read(&user, after, Relay::open)).await;
                    Input::Resumed(user, after, part.ok())
                }
            }
        });
    }
}

impl Relay {
    async fn read<M>(
        &self,
        user: &UserId,
        after: Position,
        open: impl Fn(&Self, Position, Bytes) -> Option<M>,
    ) -> Result<Stretch<M>, BackplaneError> {
        let Fetched {
            messages,
            through,
            head,
            missing,
        } = self.backplane.fetch(user, after, CHUNK).await?;
        let messages = messages.into_iter();
        let open = |(position, body)| Some((position, open(self, position, body)?));
        let messages: Vec<_> = messages.filter_map(open).collect();
        self.counters.fetched.add(messages.len() as u64);
        Ok(Stretch {
            after,
            messages,
            through,
            head,
            missing,
        })
    }

    fn parse(&self, body: Bytes) -> Option<Envelope> {
        let envelope = Envelope::parse(body);
        if envelope.is_none() {
            self.counters.foreign.add(1);
        }
        envelope
    }

    /// What a message of the log is for streams that read it there.
    fn open(&self, position: Position, body: Bytes) -> Option<Item> {
        // What is none of ours was counted when it came.
        let envelope = Envelope::parse(body)?;
        let shown = self.shown(&envelope);
        Some(match envelope.what {
            What::Lost(missed) => {
                Item::Gap(Gap::new(GapReason::Backplane, missed).at(Some(position)))
            }
            What::Complete => Item::End,
            What::Event {
                relay_data, draft, ..
            } => {
                let draft = self.attach(draft.with_slot(true), relay_data);
                Item::Event(Arc::new(draft.with_shown(shown).finish(Some(position))))
            }
        })
    }
}
