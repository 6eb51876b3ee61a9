//! One event for many users: encoded once, and sent the same way as an event for a single user.

use std::sync::Arc;

use serde::Serialize;

use super::GenericBroadcaster;
use super::publish::{Sent, hand_over};
use crate::backplane::Outbound;
use crate::channel::{Channel, Label};
use crate::error::{BroadcastError, EncodeError, RelayError};
use crate::event::{Meta, ToSse};
use crate::frame::{Draft, Frame};
use crate::metrics::{Sample, fanned_out};
use crate::sync::SHARDS;

/// What an event reached on this node that was broadcast to [many users](GenericBroadcaster::broadcast_many).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Reach {
    /// Users whose streams it was sent to, or whose history keeps it.
    pub users: usize,
    /// Of these, users without a stream, whose [history](crate::History) keeps it.
    pub away: usize,
    /// Streams that it was sent to or, at [`Level::Replayable`](crate::backplane::Level::Replayable), will be sent to.
    pub streams: usize,
}

impl<E: ?Sized> GenericBroadcaster<E> {
    /// Sends an event to these users, to each as [`broadcast`](Self::broadcast) does, and returns what it reached.
    ///
    /// The event is encoded once for all of them; with a [history](super::Builder::history) the id of each user is written in
    /// front of a copy. Users who have no stream and whose history is kept get it when they come back, and are counted as
    /// [`away`](Reach::away). A user whose channel is [complete](Self::complete) does not get it and is not counted. A user who is
    /// named twice gets it twice. A room is a set of users that your service keeps; its members at the time of the call get the
    /// event.
    ///
    /// The call sends to one user after the other, and has sent to all when it returns. Events that other threads broadcast
    /// meanwhile come before it for one user and after it for another. For 200 B of JSON a user costs 2,500 instructions, and
    /// 6,700 in a loop of broadcasts (callgrind, `cargo bench --bench many`, half with and half without a history). The calling
    /// thread does nothing else meanwhile; for thousands of users see
    /// [`Publisher::publish_many`](super::Publisher::publish_many).
    ///
    /// With a [backplane](super::Builder::backplane) each user's event goes to other nodes, as a message of its own:
    ///
    /// - [`AtMostOnce`](crate::backplane::Level::AtMostOnce): to the streams that the user has here, then to those on other
    ///   nodes. If an event is lost on the way, its user's streams get a gap.
    /// - [`Replayable`](crate::backplane::Level::Replayable): into the log of each user, also of those whom no node knows: they
    ///   get it on whichever node they resume.
    ///
    /// The [queue](super::Builder::backplane_queue) needs room for as many events as there are users.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, History, LastEventId, Text};
    ///
    /// let hub: GenericBroadcaster<Text> =
    ///     GenericBroadcaster::builder().history(History::new(100)).build()?;
    /// let ann = hub.register("ann")?;
    /// drop(hub.register("bob")?);
    ///
    /// let room = ["ann", "bob", "cid"];
    /// let reach = hub.broadcast_many(room, &Text::new("hello"))?;
    /// // Bob gets it when he comes back. Nobody has heard of Cid.
    /// assert_eq!((reach.users, reach.away, reach.streams), (2, 1, 1));
    /// # drop(ann);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the event cannot be encoded; then no stream got any part of it. With a backplane, also
    /// when at least one user's event does not go to other nodes; all others were sent. The error
    /// has the first failure's reason and the number of streams here that got the event.
    ///
    /// # Panics
    ///
    /// When the event's [`ToSse`] panics, before anything was sent, or the iterator does.
    pub fn broadcast_many<U: AsRef<str>>(
        &self,
        users: impl IntoIterator<Item = U>,
        event: &E,
    ) -> Result<Reach, BroadcastError>
    where
        E: ToSse,
    {
        let mut many = Many::default();
        let mut users = users.into_iter();
        let sent = users.try_for_each(|user| many.send_to_user(self, user.as_ref(), event));
        many.count(self, sent)
    }

    /// Sends an event to every user of this node: to all who have a stream here, and to those who are away and whose history
    /// is kept here. Returns what it reached. Each user gets it as from [`broadcast_many`](Self::broadcast_many).
    ///
    /// A stream that was registered before the call gets the event; one that is registered meanwhile may. No stream gets it
    /// twice. It costs less than `broadcast_many`, since no user is looked up, and takes as long as all users take together.
    /// [`Publisher::publish_all`](super::Publisher::publish_all) does it in parts and lets other tasks run in between.
    ///
    /// # Several nodes
    ///
    /// Each node knows its own users and no others. With a [backplane](super::Builder::backplane) the event reaches the users of
    /// this node, on whichever nodes their streams are, and none of those who are on other nodes alone. If every node makes the
    /// call, a user who has streams on two gets the event twice. If the event is for all users, call `broadcast_many` on one
    /// node with the service's own table of users. That reaches them on all nodes and, at
    /// [`Replayable`](crate::backplane::Level::Replayable), also those who are on none.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, Text};
    ///
    /// let hub = GenericBroadcaster::<Text>::new();
    /// let tabs = (hub.register("ann")?, hub.register("ann")?, hub.register("bob")?);
    /// let reach = hub.broadcast_all(&Text::new("back at noon"))?;
    /// assert_eq!((reach.users, reach.streams), (2, 3));
    /// # drop(tabs);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`broadcast_many`](Self::broadcast_many).
    ///
    /// # Panics
    ///
    /// When the event's [`ToSse`] panics; nothing was sent then.
    pub fn broadcast_all(&self, event: &E) -> Result<Reach, BroadcastError>
    where
        E: ToSse,
    {
        let mut many = Many::default();
        let sent = (0..SHARDS).try_for_each(|shard| many.send_to_shard(self, shard, event));
        many.count(self, sent)
    }
}

/// An event that is being sent to many users. Encoded for the first user who gets it.
#[derive(Default)]
pub(super) struct Many<'e> {
    encoded: Option<Encoded<'e>>,
    reach: Reach,
    bytes: usize,
    /// Why the event of the first user that failed does not go to other nodes.
    refused: Option<RelayError>,
}

/// Holds no reference to the event itself, which may not be `Sync`.
struct Encoded<'e> {
    meta: Meta<'e>,
    /// With a slot, where the histories of users give ids.
    draft: Option<Draft>,
    /// Without an id: for all users who have no history, and for other nodes.
    frame: Arc<Frame>,
    weight: usize,
    is_sampled: bool,
}

impl<'e> Encoded<'e> {
    fn new<E: ?Sized, T: ToSse + ?Sized>(
        hub: &GenericBroadcaster<E>,
        event: &'e T,
    ) -> Result<Self, EncodeError> {
        let is_in_log = hub.is_in_log();
        let has_ids = !is_in_log && hub.registry.retention().gives_ids();
        // Each user's id is written into a copy.
        let (draft, meta) = Draft::encode(event, has_ids)?;
        let sample = match is_in_log {
            true => None,
            false => Sample::take(hub.name),
        };
        let is_sampled = sample.is_some();
        let draft = draft.with_sample(sample);
        let weight = draft.weight();
        let (draft, mut plain) = match has_ids {
            true => (Some(draft.copy()), draft),
            false => (None, draft),
        };
        Ok(Self {
            meta,
            draft,
            frame: Arc::new(plain.finish(None)),
            weight,
            is_sampled,
        })
    }
}

impl<'e> Many<'e> {
    /// Sends it to one more user.
    pub(super) fn send_to_user<E: ?Sized, T: ToSse + ?Sized>(
        &mut self,
        hub: &GenericBroadcaster<E>,
        user: &str,
        event: &'e T,
    ) -> Result<(), EncodeError> {
        let here = |channel: &Channel<_>| self.send_to_channel(hub, channel, event);
        if let Some(sent) = hub.registry.with_or_keep(user, here) {
            return sent;
        }
        let Some(relay) = hub.relay() else {
            return Ok(());
        };
        let encoded = self.encode(hub, event)?;
        let outbound = Outbound::new(&encoded.meta, &encoded.frame);
        let sent = hand_over(
            relay,
            (hub.registry.users.hash(user), user),
            &outbound,
            None,
            None,
        );
        self.refused = self.refused.or(sent.refused);
        Ok(())
    }

    /// Sends it to all users of a shard.
    pub(super) fn send_to_shard<E: ?Sized, T: ToSse + ?Sized>(
        &mut self,
        hub: &GenericBroadcaster<E>,
        shard: usize,
        event: &'e T,
    ) -> Result<(), EncodeError> {
        let mut sent = Ok(());
        hub.registry.users.for_each_of_shard(shard, |channel| {
            if sent.is_ok() {
                sent = self.send_to_channel(hub, channel, event);
            }
        });
        sent
    }

    fn send_to_channel<E: ?Sized, T: ToSse + ?Sized>(
        &mut self,
        hub: &GenericBroadcaster<E>,
        channel: &Channel<Arc<Frame>>,
        event: &'e T,
    ) -> Result<(), EncodeError> {
        let encoded = self.encode(hub, event)?;
        let Encoded { meta, frame, .. } = encoded;
        let roster = channel.roster();
        let relay = hub.relay().filter(|_| hub.is_in_log());
        let sent = match relay {
            Some(_) if roster.is_complete() => Sent::late(),
            Some(relay) => {
                let user = (roster.hash(), roster.user().as_str());
                let outbound = Outbound::new(meta, frame);
                hand_over(relay, user, &outbound, None, Some(roster.len()))
            }
            None => {
                // Copied here, so that nothing is copied under the user's lock.
                let draft = encoded.draft.as_ref().filter(|_| channel.has_ids());
                let mut own = draft.map(Draft::copy);
                let label = Label::event(encoded.weight, meta.key);
                hub.append(channel, label, meta, None, |id| match &mut own {
                    Some(draft) => Arc::new(draft.finish(id)),
                    None => frame.clone(),
                })
            }
        };
        self.note(channel, &sent);
        Ok(())
    }

    fn encode<E: ?Sized, T: ToSse + ?Sized>(
        &mut self,
        hub: &GenericBroadcaster<E>,
        event: &'e T,
    ) -> Result<&Encoded<'e>, EncodeError> {
        let encoded = match self.encoded.take() {
            Some(encoded) => encoded,
            None => Encoded::new(hub, event)?,
        };
        Ok(self.encoded.insert(encoded))
    }

    fn note(&mut self, channel: &Channel<Arc<Frame>>, sent: &Sent) {
        self.bytes = sent.bytes;
        self.refused = self.refused.or(sent.refused);
        self.reach.streams += sent.reached;
        let is_away = sent.reached == 0;
        // A closed channel belongs to no user.
        if !sent.is_taken || (is_away && channel.roster().is_closed()) {
            return;
        }
        self.reach.users += 1;
        self.reach.away += usize::from(is_away);
    }

    /// Counts the outcome.
    pub(super) fn count<E: ?Sized>(
        self,
        hub: &GenericBroadcaster<E>,
        sent: Result<(), EncodeError>,
    ) -> Result<Reach, BroadcastError> {
        hub.registry.counters().broadcasts.add(1);
        let sent = sent.map(|()| {
            let encoded = self.encoded?;
            if encoded.is_sampled && self.reach.users > 0 {
                fanned_out(hub.name, self.reach.streams);
            }
            Some(Sent {
                bytes: self.bytes.max(encoded.frame.as_bytes().len()),
                refused: self.refused,
                ..Sent::new(&encoded.frame, self.reach.streams)
            })
        });
        hub.count(None, sent)?;
        Ok(self.reach)
    }
}
