//! Ephemeral events: for open streams only, and not kept.

use std::sync::Arc;

use super::GenericBroadcaster;
use super::many::Reach;
use super::publish::Sent;
use crate::channel::{Accepted, Channel};
use crate::error::{BroadcastError, EncodeError};
use crate::event::ToSse;
use crate::frame::{Draft, Frame};

impl<E: ?Sized> GenericBroadcaster<E> {
    /// Sends an event to the streams that a user has open on this node, and does not keep it: for example that somebody
    /// is typing, or that a cursor has moved. Returns the number of these streams. For a user without a stream nothing
    /// is encoded, no channel is opened, and the result is 0.
    ///
    /// Such an event has no id, not even [one of its own](ToSse::id), and leaves everything that concerns ids as it is: the
    /// [history](crate::History), the user's [`position`](Self::position), the id that the client resumes with.
    ///
    /// Each stream gets it at most once, after the events that were broadcast before this call and before those
    /// broadcast after it has returned. A stream that is replaying or has lagged first yields the events before it.
    ///
    /// # Lag
    ///
    /// Ephemeral events take no place in the ring or the history: they cause no lag and no gap, and a
    /// [sweep](Self::sweep) does not count a stream as behind that lacks only such events. Each stream queues as many
    /// of them as the [ring](super::Builder::ring_capacity) holds; beyond that it silently loses the oldest, and
    /// nothing counts them, since only the newest matter. They are also lost when the connection ends, and a stream
    /// that is [drained](Self::drain_user) or whose channel is complete yields no more of them: its end waits for
    /// events that are kept, not for these.
    ///
    /// # Several nodes
    ///
    /// Streams on other nodes do not get it, whatever the [backplane](super::Builder::backplane) promises. At
    /// [`Level::Replayable`](crate::backplane::Level::Replayable) a normal event is still on its way through the engine
    /// when its broadcast has returned: an ephemeral event sent then overtakes it. A client that resumes from the
    /// engine's log may get an ephemeral event after later events that it found there.
    ///
    /// # Cost
    ///
    /// Each open stream is given the event and woken separately. For a user with few streams that costs as much as a
    /// broadcast. For one with thousands it costs more, since the server writes a normal event to many streams
    /// together.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, History, Text};
    /// use tokio_stream::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub: GenericBroadcaster<Text> =
    ///     GenericBroadcaster::builder().history(History::new(100)).build()?;
    /// let mut page = hub.register("ann")?;
    /// let before = hub.position("ann");
    ///
    /// let reached = hub.broadcast_ephemeral("ann", &Text::new("bob").event("typing"))?;
    /// assert_eq!((reached, hub.position("ann")), (1, before));
    /// hub.broadcast("ann", &Text::new("hello"))?;
    ///
    /// let typing = page.next().await.unwrap()?;
    /// assert_eq!((typing.event(), typing.id()), (Some("typing"), None));
    /// assert_eq!(page.next().await.unwrap()?.data(), "hello");
    /// // A client that reconnects gets what is kept.
    /// let mut other = hub.resume_from_start("ann")?;
    /// assert_eq!(other.next().await.unwrap()?.data(), "hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the event cannot be encoded; then no stream got any part of it. Also when the user's channel is
    /// [complete](Self::complete).
    ///
    /// # Panics
    ///
    /// When the event's [`ToSse`] panics; nothing else is harmed by it.
    pub fn broadcast_ephemeral(&self, user: &str, event: &E) -> Result<usize, BroadcastError>
    where
        E: ToSse,
    {
        self.registry.counters().broadcasts.add(1);
        let mut encoded = None;
        let pass = |channel: &Channel<_>| self.pass(channel, event, &mut encoded);
        let sent = self.registry.with(user, pass);
        self.count(Some(user), sent.unwrap_or(Ok(None)))
    }

    /// Sends an event to the streams that these users have open on this node, to each user as
    /// [`broadcast_ephemeral`](Self::broadcast_ephemeral) does. The event is encoded once. Returns its reach; nobody is
    /// [`away`](Reach::away) for such an event, and a user whose channel is [complete](Self::complete) does not get it.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, Text};
    ///
    /// let hub = GenericBroadcaster::<Text>::new();
    /// let tabs = (hub.register("ann")?, hub.register("ann")?);
    /// let reach = hub.broadcast_many_ephemeral(["ann", "bob"], &Text::new("cid").event("typing"))?;
    /// assert_eq!((reach.users, reach.streams, reach.away), (1, 2, 0));
    /// # drop(tabs);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the event cannot be encoded; then no stream got any part of it.
    ///
    /// # Panics
    ///
    /// When the event's [`ToSse`] panics, before anything was sent, or the iterator does.
    pub fn broadcast_many_ephemeral<U: AsRef<str>>(
        &self,
        users: impl IntoIterator<Item = U>,
        event: &E,
    ) -> Result<Reach, BroadcastError>
    where
        E: ToSse,
    {
        self.registry.counters().broadcasts.add(1);
        let mut encoded = None;
        let mut reach = Reach::default();
        let sent: Result<(), EncodeError> = users.into_iter().try_for_each(|user| {
            let pass = |channel: &Channel<_>| self.pass(channel, event, &mut encoded);
            let sent = self.registry.with(user.as_ref(), pass);
            let reached = sent.transpose()?.flatten().map_or(0, |sent| sent.reached);
            reach.users += usize::from(reached > 0);
            reach.streams += reached;
            Ok(())
        });
        let sent = sent.map(|()| encoded.map(|frame| Sent::new(&frame, reach.streams)));
        self.count(None, sent)?;
        Ok(reach)
    }

    /// Sends an event to the streams of a channel. Encodes it if there are any; `None` if it is not encoded then.
    fn pass<T: ToSse + ?Sized>(
        &self,
        channel: &Channel<Arc<Frame>>,
        event: &T,
        encoded: &mut Option<Arc<Frame>>,
    ) -> Result<Option<Sent>, EncodeError> {
        // With a slot for an id, so that the event's own is not written, and without an id in it.
        let accepted = channel.roster().pass(self.registry.ring(), || {
            if encoded.is_none() {
                let (mut draft, _) = Draft::encode(event, true)?;
                *encoded = Some(Arc::new(draft.finish(None)));
            }
            Ok(encoded.clone().expect("it was encoded just now"))
        });
        accepted.map(|accepted| match accepted {
            Accepted::Complete => Some(Sent::late()),
            accepted => {
                let frame = encoded.as_ref()?;
                Some(Sent::new(frame, accepted.reached()))
            }
        })
    }
}
