//! The way of an event: to the streams here, to other nodes, or to both.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::GenericBroadcaster;
use crate::backplane::relay::{Confirm, Relay};
use crate::backplane::{Level, Outbound};
use crate::channel::{Accepted, Channel, Label, Origin};
use crate::error::{BroadcastError, EncodeError, RelayError, with_causes};
use crate::event::{Meta, ToSse};
use crate::frame::{Draft, Frame};
use crate::metrics::{Sample, fanned_out};
use crate::position::Position;
use crate::trace::TraceParent;

// The bound on `E` stands at each method: where it does not hold, the compiler then says what `ToSse` is.
impl<E: ?Sized> GenericBroadcaster<E> {
    /// Sends an event to all streams of a user and returns how many there are. For a user who has neither a stream nor a
    /// [history](super::Builder::history), nothing is encoded or allocated, and the result is 0.
    ///
    /// The event is encoded once. A stream that is reached yields the event, or, should it fall behind the ring, counts
    /// it in a [`Gap`](crate::Gap).
    ///
    /// With a [backplane](super::Builder::backplane) it goes to other nodes as well, after this has returned: the result is
    /// how many streams here it was sent to, or is for. [`broadcast_confirmed`](Self::broadcast_confirmed) waits for the
    /// engine.
    ///
    /// # Errors
    ///
    /// When the event cannot be encoded; then no stream got any part of it. When the user's channel is
    /// [complete](Self::complete). With a backplane also when the event does not go to other nodes; the error says how many
    /// streams here got it nevertheless.
    ///
    /// # Panics
    ///
    /// When the event's [`ToSse`] panics; nothing else is affected.
    pub fn broadcast(&self, user: &str, event: &E) -> Result<usize, BroadcastError>
    where
        E: ToSse,
    {
        self.publish(user, event, None, None)
    }

    /// [Broadcasts](Self::broadcast) an event together with the trace that it is published in: see [`TraceParent`]. It
    /// replaces one that the event has [itself](crate::Meta::trace_parent).
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    ///
    /// # Panics
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn broadcast_traced(
        &self,
        user: &str,
        event: &E,
        parent: TraceParent,
    ) -> Result<usize, BroadcastError>
    where
        E: ToSse,
    {
        self.publish(user, event, Some(parent), None)
    }

    /// [Broadcasts](Self::broadcast), and waits until the backplane's engine has accepted the event: it is then on its way
    /// to the streams of all nodes, and at [`Level::Replayable`](crate::backplane::Level::Replayable) in the engine's log.
    /// Returns how many streams here it was sent to. Without a [backplane](super::Builder::backplane) there is nothing to
    /// wait for.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), and when the engine has not confirmed the event: other nodes may then have got
    /// it. While the engine cannot be reached, this waits. At [`Level::AtMostOnce`](crate::backplane::Level::AtMostOnce) an
    /// engine may report too late that it refuses an event; other nodes then [learn that it is
    /// lost](crate::backplane::Event::Lost).
    ///
    /// # Cancel safety
    ///
    /// The event is sent with the first poll. When the future is dropped afterwards, it is on its way nevertheless.
    pub async fn broadcast_confirmed(&self, user: &str, event: &E) -> Result<usize, BroadcastError>
    where
        E: ToSse,
    {
        if self.relay.is_none() {
            return self.broadcast(user, event);
        }
        let (confirm, confirmed) = oneshot::channel();
        let reached = self.publish(user, event, None, Some(confirm))?;
        match confirmed.await.unwrap_or(Err(RelayError::Unconfirmed)) {
            Ok(()) => Ok(reached),
            Err(reason) => Err(BroadcastError::NotRelayed { reached, reason }),
        }
    }

    /// Sends an event, or what stands for it, such as JSON that was made from it elsewhere. `parent` replaces the event's own
    /// trace.
    ///
    /// It is encoded once, outside every lock. At [`Level::AtMostOnce`] the relay takes it beside the user's channel, at
    /// [`Level::Replayable`] in place of it: the engine's log decides the order, and returns the event to this node as well.
    pub(crate) fn publish<T: ToSse + ?Sized>(
        &self,
        user: &str,
        event: &T,
        parent: Option<TraceParent>,
        confirm: Option<Confirm>,
    ) -> Result<usize, BroadcastError> {
        self.registry.counters().broadcasts.add(1);
        let relay = self.relay();
        // For a closure that by its type may be called again, and is not.
        let confirm = Cell::new(confirm);
        let here = match self.is_in_log() {
            true => None,
            false => self.registry.with_or_keep(user, |channel| {
                let (draft, meta) = Draft::encode(event, channel.has_ids())?;
                let label = Label::event(draft.weight(), meta.key);
                let sample = Sample::take(self.name);
                let is_sampled = sample.is_some();
                let mut draft = draft.with_trace(parent).with_sample(sample);
                let make = |id| Arc::new(draft.finish(id));
                let sent = self.append(channel, label, &meta, confirm.take(), make);
                if is_sampled {
                    fanned_out(self.name, sent.reached);
                }
                Ok(sent)
            }),
        };
        let sent = match (here, relay) {
            (Some(sent), _) => sent.map(Some),
            // No stream or history here takes it.
            (None, None) => Ok(None),
            (None, Some(relay)) => Draft::encode(event, false).map(|(draft, meta)| {
                let frame = draft.with_trace(parent).finish(None);
                let streams = match self.is_in_log() {
                    true => self.registry.with_or_keep(user, |it| it.roster().len()),
                    false => None,
                };
                if self.is_in_log() && self.is_complete(user) {
                    return Some(Sent::late());
                }
                let outbound = Outbound::new(&meta, &frame);
                let hashed = (self.registry.users.hash(user), user);
                Some(hand_over(relay, hashed, &outbound, confirm.take(), streams))
            }),
        };
        self.count(Some(user), sent)
    }

    pub(super) fn relay(&self) -> Option<&Relay> {
        self.relay.as_deref().map(|running| &*running.0)
    }

    /// Whether an engine's log decides the places of events.
    pub(super) fn is_in_log(&self) -> bool {
        let relay = self.relay();
        relay.is_some_and(|relay| relay.level() == Level::Replayable)
    }

    /// Appends the frame that `make` makes to a user's channel. The relay takes it in the same step, so that the engine gets
    /// a user's events in the order of their places.
    pub(super) fn append(
        &self,
        channel: &Channel<Arc<Frame>>,
        label: Label<'_>,
        meta: &Meta<'_>,
        mut confirm: Option<Confirm>,
        mut make: impl FnMut(Option<Position>) -> Arc<Frame>,
    ) -> Sent {
        let mut sent = Sent::default();
        let accepted = channel.append(Origin::Here, label, |id| {
            let frame = make(id);
            sent.bytes = frame.as_bytes().len();
            sent.refused = self.relay().and_then(|relay| {
                let roster = channel.roster();
                let user = (roster.hash(), roster.user().as_str());
                relay
                    .push(user, &Outbound::new(meta, &frame), confirm.take())
                    .err()
            });
            frame
        });
        sent.reached = accepted.reached();
        sent.is_taken = matches!(accepted, Accepted::Delivered(_));
        sent.is_late = accepted == Accepted::Complete;
        sent
    }

    /// Counts the outcome of a broadcast, and returns how many streams it has reached. `user` is `None` for several users;
    /// `sent` has `None` if nobody was there to encode the event for.
    pub(super) fn count(
        &self,
        user: Option<&str>,
        sent: Result<Option<Sent>, EncodeError>,
    ) -> Result<usize, BroadcastError> {
        let counters = self.registry.counters();
        let sent = sent.map_err(|error| {
            counters.failed.add(1);
            tracing::warn!(user, error = with_causes(&error), "event not encoded");
            BroadcastError::Encode(error)
        })?;
        let Some(sent) = sent else {
            return Ok(0);
        };
        if sent.is_late {
            return Err(BroadcastError::Complete);
        }
        let reached = sent.reached;
        counters.encoded.add(1);
        counters.encoded_bytes.add(sent.bytes as u64);
        counters.deliveries.add(reached as u64);
        match sent.refused {
            None => Ok(reached),
            Some(reason) => Err(BroadcastError::NotRelayed { reached, reason }),
        }
    }
}

/// Hands an event to the relay alone: the user has no channel here, or the engine's log returns it to this node as well.
/// `streams` is the number of the channel's streams, if there is a channel.
pub(super) fn hand_over(
    relay: &Relay,
    (hash, user): (u64, &str),
    event: &Outbound<'_>,
    confirm: Option<Confirm>,
    streams: Option<usize>,
) -> Sent {
    if streams == Some(0) {
        // The history of a user who has no stream comes from the engine as well.
        relay.begin(&user.into(), false);
    }
    let refused = relay.push((hash, user), event, confirm).err();
    Sent {
        reached: streams.filter(|_| refused.is_none()).unwrap_or(0),
        is_taken: streams.is_some() && refused.is_none(),
        bytes: event.frame.as_bytes().len(),
        refused,
        is_late: false,
    }
}

/// The outcome of a broadcast on this node.
#[derive(Default)]
pub(super) struct Sent {
    /// How many streams here it was sent to, or is for.
    pub(super) reached: usize,
    /// Whether the user's channel here has taken it, or takes it from the log.
    pub(super) is_taken: bool,
    pub(super) bytes: usize,
    /// Why it does not go to other nodes although there are some.
    pub(super) refused: Option<RelayError>,
    /// The user's channel is complete.
    pub(super) is_late: bool,
}

impl Sent {
    /// An event that goes no further than the streams here.
    pub(super) fn new(frame: &Frame, reached: usize) -> Self {
        Self {
            reached,
            bytes: frame.as_bytes().len(),
            ..Self::default()
        }
    }

    /// An event after the end.
    pub(super) fn late() -> Self {
        Self {
            is_late: true,
            ..Self::default()
        }
    }
}
