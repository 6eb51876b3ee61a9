//! What a broadcaster does differently among others.

use std::cell::Cell;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::GenericBroadcaster;
use crate::backplane::relay::{Confirm, Relay, Returning, Running, Settings};
use crate::backplane::{Backplane, Level, Outbound};
use crate::channel::{Channel, Label, Origin, Welcome};
use crate::error::{BroadcastError, ConfigError, EncodeError, RegisterError, RelayError};
use crate::event::{Meta, ToSse};
use crate::frame::{Draft, Frame};
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
        let relay = Relay::start(self.name, backplane, settings, &self.registry, runtime);
        self.relay = Some(Arc::new(Running(relay)));
        Ok(())
    }

    /// What stands in front of a stream that has just been let in, if there are other nodes.
    pub(super) fn gate(
        &self,
        user: &UserId,
        from: &LastEventId,
    ) -> impl FnOnce(&Welcome) -> Option<Box<dyn Gate<Arc<Frame>>>> {
        let relay = self.relay.as_ref().map(|running| running.0.clone());
        let (user, from) = (user.clone(), from.position());
        let registry = self.registry.clone();
        move |welcome| {
            let relay = relay?;
            relay.begin(&user);
            // The log may have been replaced while the channel was opened.
            relay.follow(&registry, &user);
            Some(Box::new(Returning::new(relay, user, from, welcome)))
        }
    }

    /// [Registers](Self::register) once the user's events arrive from other nodes: what is broadcast anywhere after this
    /// returned reaches the subscription, or is told to it.
    ///
    /// [`register`](Self::register) does not wait. At [`Level::AtMostOnce`](crate::backplane::Level::AtMostOnce) a stream
    /// that it opens as the user's first on this node gets a gap a moment later, since an event of another node may have
    /// come too early for it; at [`Level::Replayable`](crate::backplane::Level::Replayable) it gets such an event, and
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
        let opened = running.0.when_ready(&user, open).await;
        if opened.is_err() {
            running.0.withdraw(&user, &self.registry);
        }
        opened
    }

    /// Hands an event over to be published. At most once, the streams here get it first.
    pub(super) fn broadcast_to_all<T: ToSse + ?Sized>(
        &self,
        relay: &Relay,
        user: &str,
        event: &T,
        confirm: Option<Confirm>,
    ) -> Result<usize, BroadcastError> {
        let (sent, pushed) = match relay.level() {
            Level::AtMostOnce => self.send_and_push(relay, user, event, confirm),
            Level::Replayable => self.push(relay, user, event, confirm),
        }
        .map_or_else(
            |error| (Err(error), Ok(())),
            |(sent, pushed)| (Ok(Some(sent)), pushed),
        );
        let reached = self.count_broadcast(user, sent)?.unwrap_or(0);
        match pushed {
            Ok(()) => Ok(reached),
            Err(reason) => Err(BroadcastError::NotRelayed { reached, reason }),
        }
    }

    /// To the engine alone, which says when it is the event's turn. How many streams it is for, and how long it is.
    fn push<T: ToSse + ?Sized>(
        &self,
        relay: &Relay,
        user: &str,
        event: &T,
        confirm: Option<Confirm>,
    ) -> Result<Pushed, EncodeError> {
        let (draft, meta) = Draft::encode(event, None)?;
        let frame = draft.finish(None);
        let streams = |channel: &Channel<Arc<Frame>>| channel.roster().len();
        let there = self.registry.with_or_keep(user, streams);
        if there == Some(0) {
            // What is kept for a user who has no stream comes from the engine as well.
            relay.begin(&user.into());
        }
        let hash = self.registry.hash(user);
        let pushed = relay.push((hash, user), &outbound(&meta, &frame), confirm);
        let reached = there.filter(|_| pushed.is_ok()).unwrap_or(0);
        Ok(((reached, frame.as_bytes().len()), pushed))
    }

    fn send_and_push<T: ToSse + ?Sized>(
        &self,
        relay: &Relay,
        user: &str,
        event: &T,
        confirm: Option<Confirm>,
    ) -> Result<Pushed, EncodeError> {
        let confirm = Cell::new(confirm);
        let push = |hash: u64, meta: &Meta<'_>, frame: &Frame| {
            relay.push((hash, user), &outbound(meta, frame), confirm.take())
        };
        let send_here = |channel: &Channel<Arc<Frame>>| {
            let (draft, meta) = Draft::encode(event, channel.id_epoch())?;
            let label = Label::event(draft.weight(), meta.key);
            let sample = Sample::take(self.name);
            let is_sampled = sample.is_some();
            let draft = draft.with_sample(sample);
            let mut bytes = 0;
            let mut pushed = Ok(());
            // Pushed where its place is decided, so that the engine gets a user's events in the order of their places.
            let accepted = channel.append(Origin::Here, label, |id| {
                let frame = Arc::new(draft.finish(id));
                bytes = frame.as_bytes().len();
                pushed = push(channel.roster().hash(), &meta, &frame);
                frame
            });
            let reached = accepted.reached();
            if is_sampled {
                fanned_out(self.name, reached);
            }
            Ok(((reached, bytes), pushed))
        };
        let sent = self.registry.with_or_keep(user, send_here);
        sent.unwrap_or_else(|| {
            let (draft, meta) = Draft::encode(event, None)?;
            let frame = draft.finish(None);
            let bytes = frame.as_bytes().len();
            Ok(((0, bytes), push(self.registry.hash(user), &meta, &frame)))
        })
    }
}

/// How many streams an event went to and its bytes, and whether it goes to other nodes.
type Pushed = ((usize, usize), Result<(), RelayError>);

fn outbound<'a>(meta: &'a Meta<'_>, frame: &'a Frame) -> Outbound<'a> {
    Outbound {
        key: meta.key,
        relay_data: meta.relay_data.as_deref(),
        frame,
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
    /// it. While the engine cannot be reached, this waits. At [`Level::AtMostOnce`](crate::backplane::Level::AtMostOnce) an
    /// engine may say too late that it refuses an event; it is [told to other nodes](crate::backplane::Event::Lost) then.
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
        match confirmed.await.unwrap_or(Err(RelayError::Unconfirmed)) {
            Ok(()) => Ok(reached),
            Err(reason) => Err(BroadcastError::NotRelayed { reached, reason }),
        }
    }
}
