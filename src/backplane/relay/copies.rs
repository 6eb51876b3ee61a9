//! The channels of this node: what a [`Reader`](super::reader::Reader) sees of them, and what is done in each of them.

use std::sync::Arc;

use bytes::Bytes;

use super::Relay;
use super::signals::{Copies, LogCopy};
use crate::backplane::{Envelope, Head, Place, What};
use crate::channel::{Accepted, Channel, Label, Origin, Standing};
use crate::frame::{Draft, Frame};
use crate::gap::{Gap, GapReason};
use crate::id::UserId;
use crate::metrics::{Sample, fanned_out};
use crate::position::Position;
use crate::registry::Registry;

pub(super) type Users = Registry<Arc<Frame>>;

/// Users between two moments at which others may run.
const BREATH: usize = 256;

/// The channels, as a reader sees them.
pub(super) struct Copied<'a> {
    pub(super) relay: &'a Relay,
    pub(super) registry: &'a Users,
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
        let relay = self.relay;
        self.registry
            .with(user, |channel| f(&mut Copy { relay, channel }))
    }
}

struct Copy<'a> {
    relay: &'a Relay,
    channel: &'a Channel<Arc<Frame>>,
}

impl LogCopy<Envelope> for Copy<'_> {
    fn place(&self) -> Option<Position> {
        self.channel.place()
    }

    fn compare(&mut self, head: Head) -> Standing {
        self.channel.compare(head.newest, head.through)
    }

    fn find_end(&mut self, end: Place) -> Standing {
        self.channel.roster().find_end(end)
    }

    fn append(&mut self, envelope: Envelope, place: Place) -> Accepted {
        self.relay.take(self.channel, envelope, place)
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

pub(super) fn users_of(registry: &Users) -> Vec<UserId> {
    let rosters = registry.users.rosters();
    rosters.iter().map(|roster| roster.user().clone()).collect()
}

pub(super) async fn for_everyone(registry: &Users, each: impl Fn(&UserId)) {
    for users in users_of(registry).chunks(BREATH) {
        users.iter().for_each(&each);
        tokio::task::yield_now().await;
    }
}

impl Relay {
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
    pub(super) fn append(
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
}

/// No event of the user comes any more.
fn complete(channel: &Channel<Arc<Frame>>, origin: Origin<Arc<Frame>>) -> Accepted {
    let place = match origin {
        Origin::Upstream(place) => Some(place),
        Origin::Here => None,
        // It is not shown before the log has it.
        Origin::Ahead { .. } | Origin::Reset => return Accepted::Duplicate,
    };
    channel.roster().complete(place)
}

/// Tells all streams of a user that events of other nodes are missing.
pub(super) fn note(
    channel: &Channel<Arc<Frame>>,
    origin: Origin<Arc<Frame>>,
    missed: Option<u64>,
) -> Accepted {
    channel.append(origin, Label::notice(Frame::NOTICE_WEIGHT), |id| {
        Arc::new(Frame::notice(Gap::new(GapReason::Backplane, missed).at(id)))
    })
}
