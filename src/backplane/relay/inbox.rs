//! The task that puts what comes from the engine into the channels.

use std::pin::Pin;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::Relay;
use super::arrivals::{Follows, Said, follows};
use super::reads::{Asked, Reads, for_everyone};
use super::signals::{Copies, Input, LogCopy};
use crate::backplane::{Envelope, Event, Head, Level, Place, Received, What};
use crate::channel::{Accepted, Channel, Label, Origin, Standing};
use crate::frame::{Draft, Frame};
use crate::gap::{Gap, GapReason};
use crate::id::UserId;
use crate::metrics::{Sample, fanned_out};
use crate::position::Position;
use crate::registry::Registry;

pub(super) type Users = Registry<Arc<Frame>>;

/// Runs until the backplane is closed, or nobody is there any more.
pub(super) async fn run(
    relay: Arc<Relay>,
    registry: Weak<Users>,
    mut events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    requests: mpsc::UnboundedReceiver<Asked>,
) {
    let mut reads = Reads::new(relay.clone(), requests);
    loop {
        let (event, done) = tokio::select! {
            event = events.next() => (event, None),
            done = reads.next() => (None, Some(done)),
        };
        let Some(registry) = registry.upgrade() else {
            return;
        };
        match (event, done) {
            (Some(Event::Message(received)), _) => {
                relay.receive(&registry, &mut reads, received).await;
            }
            (Some(event), _) => relay.note(&registry, &mut reads, event).await,
            (None, Some(done)) => reads.handle(&registry, done).await,
            (None, None) => return,
        }
    }
}

/// The channels, as the [`Reader`](super::reader::Reader) sees them.
pub(super) struct Copied<'a> {
    pub(super) relay: &'a Relay,
    pub(super) registry: &'a Users,
    /// What is appended was read from the log.
    pub(super) is_read: bool,
}

impl Copies<UserId, Envelope> for Copied<'_> {
    fn users(&self) -> Vec<UserId> {
        users_of(self.registry)
    }

    fn with<R>(
        &mut self,
        user: &UserId,
        f: impl FnOnce(&mut dyn LogCopy<Envelope>) -> R,
    ) -> Option<R> {
        let Self { relay, is_read, .. } = *self;
        self.registry.with(user, |channel| {
            f(&mut Copy {
                relay,
                channel,
                is_read,
            })
        })
    }
}

struct Copy<'a> {
    relay: &'a Relay,
    channel: &'a Channel<Arc<Frame>>,
    is_read: bool,
}

impl LogCopy<Envelope> for Copy<'_> {
    fn place(&self) -> Option<Position> {
        self.channel.place()
    }

    fn compare(&mut self, head: Head) -> Standing {
        self.channel.compare(head.newest, head.through)
    }

    fn append(&mut self, envelope: Envelope, place: Place) -> Accepted {
        let accepted = self.relay.take(self.channel, envelope, place);
        if self.is_read && matches!(accepted, Accepted::Delivered(_)) {
            self.relay.counters.fetched.add(1);
        }
        accepted
    }

    fn tell_missing(&mut self, missed: Option<u64>, place: Place) {
        note(self.channel, Origin::Upstream(place), missed);
    }

    fn catch_up(&mut self, place: Position) {
        self.channel.catch_up(place);
    }

    fn follow(&mut self) {
        note(self.channel, Origin::Reset, None);
    }
}

impl Relay {
    async fn receive(&self, registry: &Users, reads: &mut Reads, received: Received) {
        let Received { user, body, place } = received;
        let Some(envelope) = Envelope::parse(body) else {
            self.counters.foreign.add(1);
            tracing::debug!(user = user.as_str(), "no node of ours has sent this");
            return;
        };
        self.counters.received.add(1);
        match (self.level, place) {
            (Level::AtMostOnce, _) if envelope.node == self.node => self.counters.echoes.add(1),
            (Level::AtMostOnce, _) => {
                let append = |channel: &_| {
                    self.append(channel, envelope.what, Origin::Here, |draft| draft);
                };
                if registry.with(&user, append).is_none() {
                    self.counters.unwanted.add(1);
                }
            }
            (Level::Replayable, None) => self.counters.foreign.add(1),
            (Level::Replayable, Some(place)) => {
                let message = Input::Message(user, place, envelope);
                reads.handle(registry, message).await;
            }
        }
    }

    /// Appends what the log has at this place, if it is its turn.
    fn take(&self, channel: &Channel<Arc<Frame>>, envelope: Envelope, place: Place) -> Accepted {
        let shown = self.shown(&envelope);
        let sample = match &envelope.what {
            What::Event { .. } => Sample::take(self.name),
            What::Lost(_) | What::Complete => None,
        };
        let is_sampled = sample.is_some();
        let accepted = self.append(channel, envelope.what, Origin::Upstream(place), |draft| {
            draft.with_sample(sample).with_shown(shown)
        });
        match accepted {
            Accepted::Delivered(reached) if is_sampled => fanned_out(self.name, reached),
            Accepted::Duplicate => self.counters.again.add(1),
            _ => {}
        }
        accepted
    }

    /// Under which number streams here may have it already.
    pub(super) fn shown(&self, envelope: &Envelope) -> Option<u64> {
        envelope.shown.filter(|_| envelope.node == self.node)
    }

    /// Shows streams here an event before the log has it.
    pub(super) fn show(&self, channel: &Channel<Arc<Frame>>, body: Bytes, number: u64) {
        let origin = Origin::Ahead {
            notice: Arc::new(Frame::notice(Gap::new(GapReason::Backplane, None))),
            weight: Frame::NOTICE_WEIGHT,
        };
        if let Some(envelope) = Envelope::parse(body) {
            self.append(channel, envelope.what, origin, |draft| {
                draft.with_shown(Some(number))
            });
        }
    }

    /// Appends what a node has published, with what `finish` adds to an event.
    fn append(
        &self,
        channel: &Channel<Arc<Frame>>,
        what: What,
        origin: Origin<Arc<Frame>>,
        finish: impl FnOnce(Draft) -> Draft,
    ) -> Accepted {
        let (key, relay_data, draft) = match what {
            What::Event {
                key,
                relay_data,
                draft,
            } => (key, relay_data, draft),
            What::Lost(count) => return note(channel, origin, count),
            What::Complete => return complete(channel, origin),
        };
        let mut draft = finish(self.attach(draft.with_slot(channel.has_ids()), relay_data));
        let label = Label::event(draft.weight(), key.as_deref());
        channel.append(origin, label, |id| Arc::new(draft.finish(id)))
    }

    /// If the log is not the one that the user's channel is in, the channel goes over to it, and its streams are told.
    pub(crate) fn follow(&self, registry: &Users, user: &str) {
        registry.with(user, |channel| note(channel, Origin::Reset, None));
    }

    async fn note(&self, registry: &Users, reads: &mut Reads, event: Event) {
        match event {
            Event::Message(_) => {}
            Event::Foreign => self.counters.foreign.add(1),
            Event::Interrupted => {
                self.set_connected(false);
                tracing::warn!("the backplane is interrupted");
            }
            Event::Ready(users) => {
                let noted = Said::Ready(self.interests.note_ready(users));
                self.follow_up(registry, reads, noted).await;
            }
            Event::Unheard {
                users,
                cause,
                detail,
            } => {
                let users = match users.is_empty() {
                    true => users_of(registry),
                    false => users,
                };
                self.warn_unheard(users.len(), cause, &detail);
                let noted = Said::Unheard(self.interests.note_unheard(users));
                self.follow_up(registry, reads, noted).await;
            }
            Event::Lost { users, detail } => self.note_lost(users, &detail),
            Event::Behind(users) => reads.handle(registry, Input::Behind(users)).await,
            Event::Restored { maybe_lost } => {
                self.set_connected(true);
                tracing::info!(maybe_lost, "the backplane is restored");
                if maybe_lost || self.level == Level::Replayable {
                    self.follow_up(registry, reads, Said::MayLack).await;
                }
            }
            Event::Changed { cause } => {
                tracing::info!(cause = cause.as_str(), "messages may not have arrived");
                self.follow_up(registry, reads, Said::MayLack).await;
            }
            Event::Reset(_) => {
                tracing::warn!("the backplane's log is another one");
                reads.handle(registry, Input::Reset).await;
            }
        }
    }

    async fn follow_up(&self, registry: &Users, reads: &mut Reads, said: Said<UserId>) {
        let tell = |user: &UserId| {
            registry.with(user, |channel| note(channel, Origin::Here, None));
        };
        match follows(self.level == Level::Replayable, said) {
            Follows::Compare(users) => reads.handle(registry, Input::Behind(users)).await,
            Follows::CompareAll => reads.handle(registry, Input::Changed).await,
            Follows::Tell(users) => users.iter().for_each(tell),
            Follows::TellAll => for_everyone(registry, tell).await,
        }
    }
}

pub(super) fn users_of(registry: &Users) -> Vec<UserId> {
    let rosters = registry.rosters();
    rosters.iter().map(|roster| roster.user().clone()).collect()
}

/// No event of the user comes any more.
fn complete(channel: &Channel<Arc<Frame>>, origin: Origin<Arc<Frame>>) -> Accepted {
    let place = match origin {
        Origin::Upstream(place) => Some(place),
        Origin::Here => None,
        // It is not shown before the log has it.
        Origin::Ahead { .. } | Origin::Reset => return Accepted::Duplicate,
    };
    // A place that was read from the log does not say what is before it.
    let last = place.map(|place| place.previous).filter(|last| *last > 0);
    channel.roster().complete(place, last)
}

/// Tells all streams of a user that events of other nodes are missing.
fn note(
    channel: &Channel<Arc<Frame>>,
    origin: Origin<Arc<Frame>>,
    missed: Option<u64>,
) -> Accepted {
    channel.append(origin, Label::notice(Frame::NOTICE_WEIGHT), |id| {
        Arc::new(Frame::notice(Gap::new(GapReason::Backplane, missed).at(id)))
    })
}
