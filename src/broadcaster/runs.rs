//! Runs: channels that begin and end, such as what an agent says, and that clients follow from the beginning.

use super::GenericBroadcaster;
use crate::backplane::Level;
use crate::error::{HoldError, RegisterError};
use crate::id::{LastEventId, UserId};
use crate::subscription::{Hold, Subscription};

impl<E: ?Sized> GenericBroadcaster<E> {
    /// Opens a connection of `user` that begins with the oldest event that is kept, and goes on with what comes, without a gap
    /// and with nothing twice. Needs a [history](super::Builder::history).
    ///
    /// For a page that is loaded in the middle of a run, and has nothing. What the history has dropped of the beginning is told
    /// first, as a [`Gap`](crate::Gap) of the reason `evicted`. A user who has no channel has no beginning either: the stream
    /// waits for what comes. Whether there is such a run is for the service to know.
    ///
    /// For a client that may name an event, [`resume`](Self::resume) with
    /// [`LastEventId::or_from_start`](crate::LastEventId::or_from_start) does both.
    ///
    /// With a [backplane](super::Builder::backplane) that is [`Replayable`](Level::Replayable), the beginning is that of the
    /// engine's log. An engine that cannot tell whether it has dropped something of this user is believed to have: the gap then
    /// has no number.
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

    /// Keeps a user's history until the [`Hold`] is dropped, whether or not somebody is connected: for as long as a run lasts
    /// whose events are to be there for those who come later.
    ///
    /// What is broadcast from now on is kept, also before the first connection. A hold is no connection, takes no place of
    /// the caps, and its channel is no user in [`Stats::users`](crate::Stats::users). It costs what a connected user costs, and
    /// takes one of the places of [`History::away_users`](crate::History::away_users). [`forget`](Self::forget) and a
    /// [`shutdown`](Self::shutdown) close the channel nevertheless; [`disconnect_user`](Self::disconnect_user) does not.
    ///
    /// After the hold is dropped, a [sweep](super::Builder::sweep_every) gives its place back once the history has lingered.
    /// Without sweeps, places of runs that are over are never given back, and `hold` fails in the end.
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
            running.0.begin(&user);
            // The log may have been replaced while the channel was opened.
            running.0.follow(&self.registry, &user);
        }
        Ok(hold)
    }

    /// Says that no event of a user comes any more. Returns how many streams here end by it. A second call
    /// changes nothing here.
    ///
    /// - Streams yield what was broadcast before, and end, with the reason [`Completed`](crate::EndReason::Completed).
    /// - Whoever connects later gets what is kept, or of that what comes after the event that it names, and then the end. A
    ///   response that has nothing to send is 204, at which an `EventSource` stops; after any other end it reconnects.
    /// - A broadcast is an error, [`BroadcastError::Complete`](crate::BroadcastError::Complete).
    ///
    /// All of this is forgotten, and the channel with it, [some time](crate::History::linger_completed) later, or by
    /// [`forget`](Self::forget). After that the user is like any other who is not there. So give each run a name of its own.
    /// [Sweeps](super::Builder::sweep_every) do the forgetting: without them a complete channel keeps its place of
    /// [`History::away_users`](crate::History::away_users) for ever.
    ///
    /// With a [backplane](super::Builder::backplane) other nodes learn it as they learn of events, and so does this one at
    /// [`Level::Replayable`]: the channel is complete when the engine's log has said so. Until then a node takes events, which are
    /// published and reach nobody. Whoever reads the log finds the end in it, also on a node that did not have the channel; but a
    /// stream there that neither names an event nor begins [from the start](Self::resume_from_start) waits. At
    /// [`Level::AtMostOnce`] nodes learn it that have a channel of the user by then.
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
    /// Without a history. When nobody is connected and there is no room to remember it. With a backplane, when it does not go to
    /// other nodes: at [`Level::Replayable`] the channel is then complete nowhere, at [`Level::AtMostOnce`] on this node alone.
    /// After [`QueueFull`](crate::RelayError::QueueFull) call it again: each call tells the other nodes, also when the channel is
    /// complete here.
    pub fn complete(&self, user: &str) -> Result<usize, HoldError> {
        let cap = self
            .registry
            .retention()
            .away_cap()
            .ok_or(HoldError::NoHistory)?;
        let relay = self.relay.as_deref().map(|running| &*running.0);
        let hashed = (self.registry.hash(user), user);
        if let Some(relay) = relay.filter(|relay| relay.level() == Level::Replayable) {
            if self.is_complete(user) {
                return Ok(0);
            }
            relay.complete(hashed).map_err(HoldError::NotRelayed)?;
            return Ok(self.connection_count(user));
        }
        let completed = self.registry.complete(user);
        // Events that came before have been handed over by now, and none comes behind. Also if the channel was complete: an
        // earlier call may have found no room in the queue.
        if let Some(relay) = relay {
            relay.complete(hashed).map_err(HoldError::NotRelayed)?;
        }
        let completed = completed.ok_or(HoldError::Full { cap })?;
        let ended = completed.reached();
        tracing::debug!(user, connections = ended, "complete");
        Ok(ended)
    }

    /// Whether a user's channel is [complete](Self::complete), as far as this node knows.
    #[must_use]
    pub fn is_complete(&self, user: &str) -> bool {
        let is_complete = self.registry.with(user, |it| it.roster().is_complete());
        is_complete.unwrap_or(false)
    }
}
