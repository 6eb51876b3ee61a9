//! Streams of one user, to which one task writes.
//!
//! A [shard](Shard) writes events to its members' sockets, past their bodies. So there must be no layer between body and
//! socket that compresses, maps, limits or times what passes through it. Two signs together rule out nearly all such layers.
//! The body gives a size hint that no other body gives, and such a layer does not pass it on. And the bytes that arrive here
//! are the very ones that the body has handed out, at the same address, each before the next, those of an event among them. A
//! layer that passes on both cannot be detected.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http_body::Body;
use tokio::task::unconstrained;

use super::app::{AppBody, Io};
use super::pass::Pass;
use super::rewind::Rewind;
use super::stream::Stream;
use crate::channel::Bell;
use crate::frame::Frame;
use crate::sse::SseBody;
use crate::subscription::{Attendant, Member, Shard, StreamHandle};
use crate::sync::lock;

type AnyLane = dyn Member<Pass> + Send + Sync;
type Members = Shard<AnyLane>;

/// The shards of each ring.
#[derive(Default)]
pub(super) struct Attendants(Mutex<HashMap<usize, Vec<Arc<Members>>>>);

impl Attendants {
    /// Lets an attendant write to a stream, if no layer shows between its body and its socket.
    pub(super) fn admit<I: Io, B: AppBody>(
        self: &Arc<Self>,
        stream: Stream<I, B>,
        handle: StreamHandle,
    ) -> Driven<I, B> {
        let may_be_direct = stream.most() == Some(SseBody::MOST);
        // Asked last: from then on, only the attendant wakes the stream for an event.
        let Some(bell) = may_be_direct.then(|| handle.attend()).flatten() else {
            return Driven::alone(stream);
        };
        let mut driven = Driven::alone(stream.attended(handle));
        driven.place = Some(self.join(bell, Arc::clone(&driven.lane) as Arc<AnyLane>));
        driven
    }

    fn join(
        self: &Arc<Self>,
        bell: Bell<Arc<Frame>>,
        member: Arc<AnyLane>,
    ) -> (Arc<Members>, usize) {
        let ring = bell.ring();
        let (shard, place) = {
            let mut rings = lock(&self.0);
            let shards = rings.entry(ring).or_default();
            for shard in shards.iter() {
                if let Some(place) = shard.join(&member) {
                    return (Arc::clone(shard), place);
                }
            }
            let shard = Arc::new(Members::new());
            let place = shard.join(&member).expect("it is new");
            shards.push(Arc::clone(&shard));
            (shard, place)
        };
        let mut attendant = Attendant::new(Arc::clone(&shard), bell);
        let attendants = Arc::clone(self);
        tokio::spawn(async move {
            // By reference: its bell keeps the ring's number until the shard is forgotten.
            unconstrained(&mut attendant).await;
            attendants.tidy(ring);
        });
        (shard, place)
    }

    /// Forgets the shards of a ring that are closed.
    fn tidy(&self, ring: usize) {
        let mut rings = lock(&self.0);
        if let Some(shards) = rings.get_mut(&ring) {
            shards.retain(|shard| !shard.is_closed());
            if shards.is_empty() {
                rings.remove(&ring);
            }
        }
        // Without this the map would keep the room that it had at its largest.
        if rings.len() < rings.capacity() / 8 {
            let room = 2 * rings.len();
            rings.shrink_to(room);
        }
    }
}

impl fmt::Debug for Attendants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attendants").finish_non_exhaustive()
    }
}

/// A stream, as its own task drives it, and its place in a shard, which it leaves when it ends.
pub(super) struct Driven<I, B: Body> {
    lane: Arc<Lane<I, B>>,
    place: Option<(Arc<Members>, usize)>,
}

impl<I, B: Body> Driven<I, B> {
    /// Without an attendant.
    pub(super) fn alone(stream: Stream<I, B>) -> Self {
        Self {
            lane: Arc::new(Lane(Mutex::new(Some(stream)))),
            place: None,
        }
    }

    pub(super) fn close_at_end(&mut self) {
        if let Some(stream) = &mut *lock(&self.lane.0) {
            stream.close_at_end();
        }
    }

    /// The connection, for the next request.
    pub(super) fn into_io(self) -> Option<Rewind<I>> {
        let stream = lock(&self.lane.0).take();
        Some(stream?.into_io())
    }
}

impl<I: Io, B: AppBody> Future for Driven<I, B> {
    type Output = io::Result<bool>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *lock(&self.lane.0) {
            Some(stream) => Pin::new(stream).poll(cx),
            None => Poll::Ready(Ok(false)),
        }
    }
}

impl<I, B: Body> Drop for Driven<I, B> {
    fn drop(&mut self) {
        if let Some((shard, place)) = &self.place {
            shard.leave(*place);
        }
        // The attendant may still have the lane.
        let stream = lock(&self.lane.0).take();
        drop(stream);
    }
}

/// A stream that two tasks use, its own and that of its shard; `None` once it has ended. A body that panicked under the lock
/// has ended the stream's own task, and dropping that takes out what is left.
struct Lane<I, B: Body>(Mutex<Option<Stream<I, B>>>);

impl<I: Io, B: AppBody> Member<Pass> for Lane<I, B> {
    fn attend(&self, pass: &mut Pass) -> bool {
        match self.0.lock().as_deref_mut() {
            Ok(Some(stream)) => stream.attend(pass),
            // It has ended, or a panic under the lock may have lost an event: nothing may be written after that.
            Ok(None) | Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::Waker;

    use bytes::Bytes;
    use futures_core::Stream as _;
    use http_body::Frame as Chunk;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::broadcaster::GenericBroadcaster;
    use crate::event::Text;
    use crate::serve::handover::Handed;
    use crate::subscription::{Exchange, Subscription};

    /// Panics when it has taken an event.
    struct Panics(Subscription, Arc<Exchange>);

    impl Body for Panics {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Chunk<Bytes>, Infallible>>> {
            let polled = Pin::new(&mut self.0).poll_next(cx);
            assert!(polled.is_pending(), "on purpose");
            self.1.hand_out(None, true);
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn nothing_is_written_over_an_event_that_a_panic_has_lost() {
        let hub = GenericBroadcaster::<Text>::builder()
            .build()
            .expect("valid");
        let send = |text| hub.broadcast("ann", &Text::new(text)).expect("text");
        let subscription = hub.register("ann").expect("there is room");
        let handle = subscription.guard().stream_handle();
        let _bell = handle.attend().expect("it is open");
        let (mut client, io) = duplex(100);
        let handed = Handed {
            body: Panics(subscription, Arc::clone(handle.exchange())),
            is_reusable: true,
        };
        let stream = Stream::new(Rewind::new(io), handed).attended(handle);
        let mut driven = Driven::alone(stream);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut driven).poll(&mut cx).is_pending());

        send("one");
        assert!(!driven.lane.attend(&mut Pass::default()));
        send("lost");
        let panicked = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut driven).poll(&mut cx)));
        assert!(panicked.is_err());
        send("two");
        assert!(!driven.lane.attend(&mut Pass::default()));

        drop(driven);
        let mut written = String::new();
        client.read_to_string(&mut written).await.expect("text");
        assert_eq!(written, "B\r\ndata: one\n\n\r\n");
    }
}
