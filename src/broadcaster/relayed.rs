//! What a broadcaster does differently among others.

use std::cell::Cell;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::GenericBroadcaster;
use super::generic::FRAME_OVERHEAD;
use super::relay::{Confirm, Crossing, Relay, Running, Settings};
use crate::backplane::{Backplane, Outbound};
use crate::channel::{Channel, Welcome};
use crate::error::{BroadcastError, ConfigError, RegisterError, RelayError};
use crate::event::ToSse;
use crate::frame::{Draft, Frame, Ids};
use crate::id::{ConnectionId, LastEventId, UserId};
use crate::metrics::{Sample, fanned_out};
use crate::subscription::{Gate, Subscription};

impl<E: ?Sized> GenericBroadcaster<E> {
    pub(super) fn join(
        &mut self,
        backplane: Arc<dyn Backplane>,
        settings: &Settings,
    ) -> Result<(), ConfigError> {
        let runtime = Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        let relay = Relay::start(backplane, settings, &self.registry, runtime);
        self.relay = Some(Arc::new(Running(relay)));
        Ok(())
    }

    /// What stands in front of a stream, if there are other nodes. Says that the user is wanted before the stream is there.
    pub(super) fn gate(
        &self,
        user: &UserId,
        from: &LastEventId,
    ) -> impl FnOnce(&Welcome) -> Option<Box<dyn Gate<Arc<Frame>>>> {
        let relay = self.relay.as_ref().map(|running| running.0.clone());
        if let Some(relay) = &relay {
            relay.begin(user);
        }
        let (user, from) = (user.clone(), *from);
        move |welcome| {
            let crossing = Crossing::new(relay?, user, &from, welcome);
            Some(Box::new(crossing))
        }
    }

    /// [Registers](Self::register) once the user's events arrive from other nodes: what is broadcast anywhere after this
    /// returned reaches the subscription, or is told to it.
    ///
    /// [`register`](Self::register) does not wait. At [`Level::AtMostOnce`](crate::backplane::Level::AtMostOnce) a stream
    /// that it opens as the user's first on this node is told of a gap a moment later, since an event of another node may
    /// have come too early for it; at [`Level::Replayable`](crate::backplane::Level::Replayable) it gets such an event, and
    /// perhaps one from up to a second before. Without a [backplane](super::Builder::backplane), and while its engine cannot
    /// be reached, this is the same as `register`.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing was registered.
    pub async fn register_when_ready(
        &self,
        user: impl Into<UserId>,
    ) -> Result<Subscription, RegisterError> {
        self.resume_when_ready(user, &LastEventId::none()).await
    }

    /// [Resumes](Self::resume) once the user's events arrive from other nodes; see
    /// [`register_when_ready`](Self::register_when_ready).
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing was registered.
    pub async fn resume_when_ready(
        &self,
        user: impl Into<UserId>,
        last_event_id: &LastEventId,
    ) -> Result<Subscription, RegisterError> {
        self.open_when_ready(user.into(), ConnectionId::generate(), last_event_id)
            .await
    }

    pub(super) async fn open_when_ready(
        &self,
        user: UserId,
        connection: ConnectionId,
        from: &LastEventId,
    ) -> Result<Subscription, RegisterError> {
        let Some(running) = &self.relay else {
            return self.open(user, connection, from);
        };
        let open = || self.open(user.clone(), connection, from);
        running.0.when_ready(&user, open).await
    }

    /// Sends an event to the streams here, and hands it over for those of other nodes.
    pub(super) fn broadcast_to_all<T: ToSse + ?Sized>(
        &self,
        relay: &Relay,
        user: &str,
        event: &T,
        confirm: Option<Confirm>,
    ) -> Result<usize, BroadcastError> {
        let key = event.key();
        let confirm = Cell::new(confirm);
        let note = event.note();
        let push = |hash: u64, frame: &Frame, is_deferred: bool| {
            let event = Outbound {
                first: frame.first(),
                key,
                note: note.as_deref(),
                frame,
            };
            relay.push((hash, user), &event, is_deferred, confirm.take())
        };
        let send_here = |channel: &Channel<Arc<Frame>>| {
            let draft = Draft::encode(event, channel.id_prefix().map(Ids::of))?;
            let size = draft.len() + FRAME_OVERHEAD;
            let sample = Sample::take(self.name);
            let is_sampled = sample.is_some();
            let draft = draft.with_sample(sample);
            let mut bytes = 0;
            let mut pushed = Ok(());
            // Pushed where its place is decided, so that the engine gets a user's events in the order of their places.
            let reached = channel.publish(size, key, |id| {
                let frame = Arc::new(draft.finish(id).routed(id.and_then(|id| id.own), 0));
                bytes = frame.as_bytes().len();
                pushed = push(channel.roster().hash(), &frame, false);
                frame
            });
            if is_sampled {
                fanned_out(self.name, reached);
            }
            Ok((reached, bytes, pushed))
        };
        let sent = match relay.defers(user, &self.registry) {
            true => None,
            false => self.registry.with_or_keep(user, send_here),
        };
        let sent = sent.unwrap_or_else(|| {
            let frame = Draft::encode(event, None)?.finish(None);
            let hash = self.registry.hash(user);
            let bytes = frame.as_bytes().len();
            Ok((0, bytes, push(hash, &frame, relay.sends_back())))
        });
        let (sent, pushed) = match sent {
            Ok((reached, bytes, pushed)) => (Ok(Some((reached, bytes))), pushed),
            Err(error) => (Err(error), Ok(())),
        };
        let reached = self.count_broadcast(user, sent)?.unwrap_or(0);
        match pushed {
            Ok(()) => Ok(reached),
            Err(reason) => Err(BroadcastError::NotRelayed { reached, reason }),
        }
    }
}

impl<E: ToSse + ?Sized> GenericBroadcaster<E> {
    /// [Broadcasts](Self::broadcast), and waits until the backplane's engine has accepted the event: it is then on its way
    /// to the streams of all nodes, and at [`Level::Replayable`](crate::backplane::Level::Replayable) in the engine's log.
    /// Says how many streams here it was sent to. Without a [backplane](super::Builder::backplane) there is nothing to wait
    /// for.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), and when the engine has not confirmed the event: other nodes may then have got
    /// it. While the engine cannot be reached, this waits.
    ///
    /// # Cancel safety
    ///
    /// The event is sent with the first poll. When the future is dropped afterwards, it is on its way nevertheless.
    pub async fn broadcast_confirmed(
        &self,
        user: &str,
        event: &E,
    ) -> Result<usize, BroadcastError> {
        let Some(running) = &self.relay else {
            return self.broadcast(user, event);
        };
        self.registry.counters().broadcasts.add(1);
        let (confirm, confirmed) = oneshot::channel();
        let reached = self.broadcast_to_all(&running.0, user, event, Some(confirm))?;
        match confirmed.await {
            Ok(()) => Ok(reached),
            Err(_) => Err(BroadcastError::NotRelayed {
                reached,
                reason: RelayError::Unconfirmed,
            }),
        }
    }
}
