//! Runs: channels that begin and end, such as an agent's answer, and that clients follow from the beginning.

use super::GenericBroadcaster;
use crate::backplane::Level;
use crate::error::{HoldError, RegisterError};
use crate::id::{LastEventId, UserId};
use crate::subscription::{Hold, Subscription};

impl<E: ?Sized> GenericBroadcaster<E> {
    /// Opens a connection of `user` that begins with the oldest event still kept, then continues with live events, with
    /// nothing lost or repeated between the two. Needs a [history](super::Builder::history).
    ///
    /// For a page that is loaded in the middle of a run, and has nothing. What the history has dropped of the beginning is
    /// reported first, as a [`Gap`](crate::Gap) of the reason `evicted`. For a user who has no channel the stream waits for
    /// live events: whether there is such a run, the service must know.
    ///
    /// For a client that may name an event, [`resume`](Self::resume) with
    /// [`LastEventId::or_from_start`](crate::LastEventId::or_from_start) does both.
    ///
    /// With a [backplane](super::Builder::backplane) that is [`Replayable`](Level::Replayable), the beginning is that of the
    /// engine's log. If the engine cannot tell whether it has dropped some of the user's events, the stream begins with a gap
    /// without a number.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, History, Text};
    /// use tokio_stream::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub: GenericBroadcaster<Text> =
    ///     GenericBroadcaster::builder().history(History::new(1000)).build()?;
    /// let run = hub.hold("run:123")?;
    /// hub.broadcast("run:123", &Text::new("Once upon"))?;
    ///
    /// let mut page = hub.resume_from_start("run:123")?;
    /// hub.broadcast("run:123", &Text::new("a time"))?;
    /// assert_eq!(page.next().await.unwrap()?.data(), "Once upon");
    /// assert_eq!(page.next().await.unwrap()?.data(), "a time");
    /// # drop(run);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn resume_from_start(
        &self,
        user: impl Into<UserId>,
    ) -> Result<Subscription, RegisterError> {
        self.resume(user, &LastEventId::none().or_from_start())
    }

    /// Keeps a user's history until the [`Hold`] is dropped, whether or not the user is connected: for as long as a run
    /// lasts, so that clients that connect later get its events.
    ///
    /// What is broadcast from now on is kept, also before the first connection. A hold is not a connection and does not count
    /// towards the caps, and [`Stats::users`](crate::Stats::users) does not count its channel. It costs what a connected user
    /// costs, and takes one of the places of [`History::away_users`](crate::History::away_users). [`forget`](Self::forget)
    /// and a [`shutdown`](Self::shutdown) close the channel nevertheless; [`disconnect_user`](Self::disconnect_user) does
    /// not.
    ///
    /// After the hold is dropped, a [sweep](super::Builder::sweep_every) gives its place back once the history has lingered.
    /// Without sweeps, the places of finished runs are never given back, and `hold` fails eventually.
    ///
    /// # Errors
    ///
    /// Without a history, and when there is no room for one more.
    pub fn hold(&self, user: impl Into<UserId>) -> Result<Hold, HoldError> {
        let cap = self
            .registry
            .retention()
            .away_cap()
            .ok_or(HoldError::NoHistory)?;
        let user = user.into();
        let hold = Hold::take(&self.registry, &user).ok_or(HoldError::Full { cap })?;
        if let Some(running) = &self.relay {
            running.0.begin(&user, false);
            // The log may have been replaced while the channel was opened.
            running.0.follow(&self.registry, &user);
        }
        Ok(hold)
    }

    /// Completes a user's channel: it takes no more events. Returns how many streams here end by this. A second call changes
    /// nothing here.
    ///
    /// - Streams yield what was broadcast before, then end with the reason [`Completed`](crate::EndReason::Completed).
    /// - A client that connects later gets what is kept, or the part of it after the event that the client names, and then
    ///   the end. A response that has nothing to send is 204, at which an `EventSource` stops; after any other end it
    ///   reconnects.
    /// - A broadcast fails with [`BroadcastError::Complete`](crate::BroadcastError::Complete).
    ///
    /// The channel and its end are forgotten [some time](crate::History::linger_completed) later, or by
    /// [`forget`](Self::forget). After that the user is like any other without a channel. So give each run a name of its own.
    /// [Sweeps](super::Builder::sweep_every) do the forgetting: without them a complete channel keeps its place of
    /// [`History::away_users`](crate::History::away_users) for ever.
    ///
    /// With a [backplane](super::Builder::backplane) the end goes to other nodes as an event does, and at
    /// [`Level::Replayable`] it comes back to this node as well: the channel is complete when the engine's log returns the
    /// end. Until then a node takes events, which are published and reach no stream. A stream that reads the log finds the
    /// end in it, also on a node that did not have the channel; but a stream there that neither names an event nor begins
    /// [from the start](Self::resume_from_start) waits. At [`Level::AtMostOnce`] the end reaches only nodes that have a
    /// channel of the user by then.
    ///
    /// ```
    /// use tidings::{BroadcastError, GenericBroadcaster, History, Text};
    /// use tokio_stream::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub: GenericBroadcaster<Text> =
    ///     GenericBroadcaster::builder().history(History::new(1000)).build()?;
    /// let run = hub.hold("run:123")?;
    /// hub.broadcast("run:123", &Text::new("The end"))?;
    /// hub.complete("run:123")?;
    /// drop(run);
    ///
    /// let late = hub.broadcast("run:123", &Text::new("and more"));
    /// assert!(matches!(late, Err(BroadcastError::Complete)));
    /// let mut page = hub.resume_from_start("run:123")?;
    /// assert_eq!(page.next().await.unwrap()?.data(), "The end");
    /// assert!(page.next().await.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Without a history. When the user has no channel and there is no room to remember the end. With a backplane, when the
    /// end does not go to other nodes: at [`Level::Replayable`] the channel is then complete nowhere, at
    /// [`Level::AtMostOnce`] on this node alone. After [`QueueFull`](crate::RelayError::QueueFull) call it again: each call
    /// sends the end to the other nodes, also when the channel is complete here.
    pub fn complete(&self, user: &str) -> Result<usize, HoldError> {
        let cap = self
            .registry
            .retention()
            .away_cap()
            .ok_or(HoldError::NoHistory)?;
        let relay = self.relay.as_deref().map(|running| &*running.0);
        let hashed = (self.registry.users.hash(user), user);
        if let Some(relay) = relay.filter(|relay| relay.level() == Level::Replayable) {
            if self.is_complete(user) {
                return Ok(0);
            }
            relay.complete(hashed).map_err(HoldError::NotRelayed)?;
            return Ok(self.connection_count(user));
        }
        let completed = self.registry.complete(user);
        // Earlier events have been handed to the relay by now, and none follows. Also if the channel was complete: an earlier
        // call may have found no room in the queue.
        if let Some(relay) = relay {
            relay.complete(hashed).map_err(HoldError::NotRelayed)?;
        }
        let completed = completed.ok_or(HoldError::Full { cap })?;
        let ended = completed.reached();
        tracing::debug!(user, connections = ended, "completed");
        Ok(ended)
    }

    /// Whether a user's channel is [complete](Self::complete), as far as this node knows.
    #[must_use]
    pub fn is_complete(&self, user: &str) -> bool {
        let is_complete = self.registry.with(user, |it| it.roster().is_complete());
        is_complete.unwrap_or(false)
    }
}
