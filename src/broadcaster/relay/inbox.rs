//! The task that puts what comes from other nodes into the channels.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::StreamExt;

use super::Relay;
use super::repair::{Done, Repairs};
use crate::backplane::{Envelope, Event, Level, Place, Received, What};
use crate::channel::{Channel, Head, Incoming, Taken};
use crate::frame::{Draft, Frame, Ids};
use crate::gap::GapReason;
use crate::id::UserId;
use crate::registry::Registry;

/// How often the engine is asked where it is: what a stream may begin with that was broadcast before it was opened.
const ASK: Duration = Duration::from_secs(1);
/// Users between two moments at which others may run.
const BREATH: usize = 256;

pub(super) type Users = Registry<Arc<Frame>>;

/// Runs until the events end, or the broadcaster is gone.
pub(super) async fn run(
    relay: Arc<Relay>,
    registry: Weak<Users>,
    mut events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let mut repairs = Repairs::new(relay.clone());
    let mut asks = interval(ASK);
    asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let happened = tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(event) => Happened::Event(event),
            },
            done = repairs.next() => Happened::Done(done),
            _ = asks.tick(), if relay.level == Level::Replayable => Happened::Tick,
            _ = stop.changed() => return,
        };
        let Some(registry) = registry.upgrade() else {
            return;
        };
        match happened {
            Happened::Tick => relay.ask_horizon(&registry),
            Happened::Done(done) => repairs.finish(&registry, done),
            Happened::Event(Event::Message(received)) => {
                relay.receive(&registry, &mut repairs, received);
            }
            Happened::Event(event) => relay.note(&registry, &mut repairs, event).await,
        }
    }
}

enum Happened {
    Event(Event),
    Done(Done),
    Tick,
}

impl Relay {
    fn receive(&self, registry: &Users, repairs: &mut Repairs, received: Received) {
        let Received { user, body, place } = received;
        let Some(envelope) = Envelope::parse(body) else {
            self.counters.foreign.add(1);
            tracing::debug!(user = user.as_str(), "no node of ours has sent this");
            return;
        };
        self.counters.received.add(1);
        let Some(upstream) = registry.retention().upstream() else {
            if envelope.node == self.node {
                self.counters.echoes.add(1);
            } else {
                let sent = registry.with(&user, |channel| self.deliver(channel, envelope));
                self.count_unwanted(sent.is_none());
            }
            return;
        };
        let Some(place) = place else {
            self.counters.foreign.add(1);
            return;
        };
        if place.position.epoch != upstream.epoch() {
            return;
        }
        upstream.advance(Head {
            epoch: place.position.epoch,
            position: place.position.offset,
        });
        let taken = registry.with(&user, |channel| self.take(channel, envelope, place));
        self.count_unwanted(taken.is_none());
        if let Some(Taken::Early(_)) = taken {
            self.counters.holes.add(1);
            repairs.repair(registry, &user);
        }
    }

    /// Learns from the backplane where the log is.
    fn ask_horizon(&self, registry: &Users) {
        if let (Some(upstream), Some(horizon)) =
            (registry.retention().upstream(), self.backplane.horizon())
        {
            upstream.advance(Head {
                epoch: horizon.epoch,
                position: horizon.offset,
            });
        }
    }

    fn count_unwanted(&self, is_unwanted: bool) {
        if is_unwanted {
            self.counters.unwanted.add(1);
        }
    }

    /// Sends to the streams here what another node has sent.
    fn deliver(&self, channel: &Channel<Arc<Frame>>, envelope: Envelope) {
        match envelope.what {
            What::Event { key, note, draft } => {
                let draft = self.prepare(channel, draft, note);
                let size = draft.len();
                channel.publish(size, key.as_deref(), |id| Arc::new(draft.finish(id)));
            }
            What::Lost(count) => tell(channel, count),
        }
    }

    /// The same where the engine keeps the history, if it is its turn.
    pub(super) fn take(
        &self,
        channel: &Channel<Arc<Frame>>,
        envelope: Envelope,
        place: Place,
    ) -> Taken {
        let Envelope { first, what, .. } = envelope;
        let incoming = Incoming {
            position: place.position.offset,
            previous: place.previous,
        };
        let echo = first.filter(|first| channel.is_known_by(first.channel));
        let echo = echo.map(|first| first.count);
        let taken = match what {
            What::Event { key, note, draft } => {
                let draft = self.prepare(channel, draft, note);
                let sized = (draft.len(), key.as_deref());
                channel.take(false, incoming, echo, sized, |id| {
                    Arc::new(draft.finish(id).routed(first, incoming.position))
                })
            }
            What::Lost(count) => channel.take(true, incoming, echo, (1, None), |id| {
                let notice = Frame::notice(GapReason::Backplane, count, id);
                Arc::new(notice.routed(first, incoming.position))
            }),
        };
        match taken {
            Taken::Echo => self.counters.echoes.add(1),
            Taken::Again => self.counters.again.add(1),
            Taken::Sent(_) | Taken::Early(_) => {}
        }
        taken
    }

    fn prepare(&self, channel: &Channel<Arc<Frame>>, draft: Draft, note: Option<String>) -> Draft {
        let tag = self.tag(&draft, note.as_deref());
        draft
            .with_ids(channel.id_prefix().map(Ids::of))
            .with_tag(tag)
    }

    async fn note(&self, registry: &Users, repairs: &mut Repairs, event: Event) {
        match event {
            Event::Message(_) => {}
            Event::Foreign => self.counters.foreign.add(1),
            Event::Interrupted => {
                self.set_connected(false);
                tracing::warn!("the backplane is interrupted");
            }
            Event::Ready(users) => {
                let noted = self.interests.note_ready(users);
                if self.level == Level::Replayable {
                    repairs.look(noted.into_iter().map(|(user, _)| user).collect());
                    return;
                }
                for (user, _) in noted.into_iter().filter(|(_, had_early)| *had_early) {
                    registry.with(&user, |channel| tell(channel, None));
                }
            }
            Event::Unheard {
                users,
                cause,
                detail,
            } => {
                tracing::warn!(
                    users = users.len(),
                    cause = cause.as_str(),
                    detail,
                    "messages do not arrive"
                );
                if self.level == Level::AtMostOnce {
                    for user in users {
                        registry.with(&user, |channel| tell(channel, None));
                    }
                }
            }
            Event::Behind(users) => repairs.look(users),
            Event::Restored { .. } | Event::Changed { .. } => {
                let maybe_lost = match event {
                    Event::Restored { maybe_lost } => maybe_lost,
                    _ => true,
                };
                self.set_connected(true);
                tracing::info!(maybe_lost, "the backplane is restored");
                if maybe_lost && self.level == Level::AtMostOnce {
                    self.tell_everyone(registry, |channel| tell(channel, None))
                        .await;
                } else {
                    let users = registry.rosters();
                    let users = users.iter().map(|roster| roster.user().clone());
                    repairs.look(users.collect());
                }
            }
            Event::Reset(head) => {
                let head = Head {
                    epoch: head.epoch,
                    position: head.offset,
                };
                tracing::warn!("the backplane's log is another one");
                if let Some(upstream) = registry.retention().upstream() {
                    upstream.reset(head);
                }
                self.tell_everyone(registry, |channel| {
                    channel.reset(head, |id| {
                        Arc::new(Frame::notice(GapReason::Backplane, None, id))
                    });
                })
                .await;
            }
        }
    }

    async fn tell_everyone(&self, registry: &Users, tell: impl Fn(&Channel<Arc<Frame>>)) {
        let users: Vec<UserId> = registry
            .rosters()
            .iter()
            .map(|roster| roster.user().clone())
            .collect();
        for users in users.chunks(BREATH) {
            for user in users {
                registry.with(user, &tell);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Tells all streams of a user that events of other nodes are missing.
pub(super) fn tell(channel: &Channel<Arc<Frame>>, missed: Option<u64>) {
    channel.note(1, |id| {
        Arc::new(Frame::notice(GapReason::Backplane, missed, id))
    });
}
