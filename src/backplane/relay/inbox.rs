//! The task that puts what comes from the engine into the channels.

use std::pin::Pin;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::Relay;
use super::reads::Reads;
use super::stretch::Request;
use crate::backplane::{Cause, Envelope, Event, Level, Place, Received, What};
use crate::channel::{Accepted, Channel, Label, Origin};
use crate::frame::{Draft, Frame};
use crate::gap::{Gap, GapReason};
use crate::id::UserId;
use crate::metrics::{Sample, fanned_out};
use crate::position::Position;
use crate::registry::Registry;

/// Users between two moments at which others may run.
const BREATH: usize = 256;

pub(super) type Users = Registry<Arc<Frame>>;

/// Runs until the backplane is closed, or nobody is there any more.
pub(super) async fn run(
    relay: Arc<Relay>,
    registry: Weak<Users>,
    mut events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    requests: mpsc::UnboundedReceiver<Request>,
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
            (Some(Event::Message(received)), _) => relay.receive(&registry, &mut reads, received),
            (Some(event), _) => relay.note(&registry, &mut reads, event).await,
            (None, Some(done)) => reads.finish(&registry, done),
            (None, None) => return,
        }
    }
}

impl Relay {
    fn receive(&self, registry: &Users, reads: &mut Reads, received: Received) {
        let Received { user, body, place } = received;
        let Some(envelope) = Envelope::parse(body) else {
            self.counters.foreign.add(1);
            tracing::debug!(user = user.as_str(), "no node of ours has sent this");
            return;
        };
        self.counters.received.add(1);
        let found = match (self.level, place) {
            (Level::AtMostOnce, _) if envelope.node == self.node => {
                self.counters.echoes.add(1);
                return;
            }
            (Level::AtMostOnce, _) => {
                let append = |channel: &_| {
                    self.append(channel, envelope.what, Origin::Here, |draft| draft);
                };
                registry.with(&user, append).is_some()
            }
            (Level::Replayable, None) => {
                self.counters.foreign.add(1);
                return;
            }
            (Level::Replayable, Some(place)) => {
                let taken = registry.with(&user, |channel| self.take(channel, envelope, place));
                match taken {
                    Some(Accepted::OutOfOrder) => {
                        self.counters.holes.add(1);
                        reads.repair(registry, &user, place.position);
                    }
                    Some(Accepted::Elsewhere) => {
                        // Behind that place there may be this message.
                        self.follow(registry, &user);
                        reads.compare(vec![user]);
                    }
                    Some(Accepted::Delivered(_) | Accepted::Duplicate | Accepted::Complete)
                    | None => {}
                }
                taken.is_some()
            }
        };
        if !found {
            self.counters.unwanted.add(1);
        }
    }

    /// Appends what the log has at this place, if it is its turn.
    pub(super) fn take(
        &self,
        channel: &Channel<Arc<Frame>>,
        envelope: Envelope,
        place: Place,
    ) -> Accepted {
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
                let noted = self.interests.note_ready(users);
                if self.level == Level::Replayable {
                    reads.compare(noted.into_iter().map(|(user, _)| user).collect());
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
            } => self.unheard(registry, users, cause, detail).await,
            Event::Lost { users, detail } => self.note_lost(users, &detail),
            Event::Behind(users) => reads.compare(users),
            Event::Restored { maybe_lost } => {
                self.set_connected(true);
                tracing::info!(maybe_lost, "the backplane is restored");
                self.may_have_lost(registry, reads, maybe_lost).await;
            }
            Event::Changed { cause } => {
                tracing::info!(cause = cause.as_str(), "messages may not have arrived");
                self.may_have_lost(registry, reads, true).await;
            }
            Event::Reset(_) => {
                tracing::warn!("the backplane's log is another one");
                self.for_everyone(registry, |user| self.follow(registry, user))
                    .await;
                reads.compare_all(registry);
            }
        }
    }

    async fn may_have_lost(&self, registry: &Users, reads: &mut Reads, maybe_lost: bool) {
        match self.level {
            Level::AtMostOnce if maybe_lost => {
                self.for_everyone(registry, |user| {
                    registry.with(user, |channel| tell(channel, None));
                })
                .await;
            }
            Level::AtMostOnce => {}
            Level::Replayable => reads.compare_all(registry),
        }
    }

    /// Streams that do not hear of events are told where nothing else could tell them. At [`Level::Replayable`] the log
    /// has what they miss, and they get it from there, only later.
    async fn unheard(&self, registry: &Users, users: Vec<UserId>, cause: Cause, detail: String) {
        let users = match users.is_empty() {
            true => users_of(registry),
            false => users,
        };
        self.warn_unheard(users.len(), cause, &detail);
        self.interests.note_unheard(&users);
        if self.level == Level::AtMostOnce {
            for user in &users {
                registry.with(user, |channel| tell(channel, None));
            }
        }
    }

    async fn for_everyone(&self, registry: &Users, each: impl Fn(&UserId)) {
        for users in users_of(registry).chunks(BREATH) {
            users.iter().for_each(&each);
            tokio::task::yield_now().await;
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
fn tell(channel: &Channel<Arc<Frame>>, missed: Option<u64>) {
    note(channel, Origin::Here, missed);
}

/// Tells them that the log lacks what should come next, up to this place.
pub(super) fn tell_missing(channel: &Channel<Arc<Frame>>, missed: Option<u64>, until: Position) {
    note(channel, Origin::Upstream(Place::up_to(until)), missed);
}

fn note(
    channel: &Channel<Arc<Frame>>,
    origin: Origin<Arc<Frame>>,
    missed: Option<u64>,
) -> Accepted {
    channel.append(origin, Label::notice(Frame::NOTICE_WEIGHT), |id| {
        Arc::new(Frame::notice(Gap::new(GapReason::Backplane, missed).at(id)))
    })
}
