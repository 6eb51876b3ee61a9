//! Ephemeral events: sent to the open streams, and not kept.
//!
//! They bypass the ring. In the ring they would overwrite events that count, and without a log a stream that lags could not
//! tell how many of each kind it has lost. Each connection queues the ephemeral events that its stream has not read, as many
//! as a ring holds, each with the number of channel events that were sent before it.
//!
//! 1. A stream yields an ephemeral event after the channel events that were sent before it and before those sent after it. A
//!    channel event gets its number before it is sent. So before event n the stream yields queued
//!    events sent after fewer than n channel events; when the ring is empty, those queued before it
//!    looked there.
//! 2. No stream sleeps while an ephemeral event is queued. The sender queues it, touches the phase, and takes the stream's
//!    waker from the reader. The stream lets go of the reader, touches the phase, and looks into its queue. See
//!    `Connection::look_again` for why one of the two finds the other.
//! 3. A connection that has ended or finishes queues nothing. The call that brings this about sets the phase, then empties the
//!    queue; the sender queues an event, then looks at the phase.
//! 4. A finishing stream yields no ephemeral events, so that its end does not wait for them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::connection::{Item, Reader};
use super::{Accepted, Connection, Roster};
use crate::sync::{AtomicBool, Mutex, contain, has_turn};

/// The ephemeral events that one stream has not read.
pub(super) struct Ephemerals<T> {
    /// Whether there is any: stored under the lock, and loaded without it. Relaxed: a stream that must see an event is ordered
    /// after its sender by the phase (invariant 2), or by the ring's lock if it has read a later channel event.
    is_any: AtomicBool,
    /// `None` while there is none, since most streams get few.
    queue: Mutex<Option<Box<Queue<T>>>>,
}

struct Queue<T> {
    events: VecDeque<Queued<T>>,
    /// The next ticket.
    tickets: u64,
}

struct Queued<T> {
    event: T,
    /// How many channel events were sent before it.
    after: u64,
    /// Its number in this queue.
    ticket: u64,
}

impl<T> Ephemerals<T> {
    pub(super) fn new() -> Self {
        Self {
            is_any: AtomicBool::new(false),
            queue: Mutex::new(None),
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// Queues one. Returns the oldest if there are as many already.
    fn push(&self, event: T, after: u64, most: u64) -> Option<T> {
        self.queue.with(|queue| {
            let queue = queue.get_or_insert_with(|| {
                self.is_any.store(true, Ordering::Relaxed);
                Box::new(Queue {
                    events: VecDeque::new(),
                    tickets: 0,
                })
            });
            let is_full = queue.events.len() as u64 >= most;
            let oldest = is_full.then(|| queue.events.pop_front()).flatten();
            queue.events.push_back(Queued {
                event,
                after,
                ticket: queue.tickets,
            });
            queue.tickets += 1;
            oldest.map(|queued| queued.event)
        })
    }

    /// The ticket of the first.
    fn first(&self) -> Option<u64> {
        if !self.is_any() {
            return None;
        }
        self.queue
            .with(|queue| Some(queue.as_ref()?.events.front()?.ticket))
    }

    /// Takes out the first, if it is wanted.
    fn take_if(&self, is_wanted: impl FnOnce(&Queued<T>) -> bool) -> Option<T> {
        if !self.is_any() {
            return None;
        }
        self.queue.with(|slot| {
            let queue = slot.as_mut()?;
            queue.events.front().filter(|first| is_wanted(first))?;
            let queued = queue.events.pop_front()?;
            if queue.events.is_empty() {
                *slot = None;
                self.is_any.store(false, Ordering::Relaxed);
            }
            Some(queued.event)
        })
    }

    /// Drops all. A stream that finishes yields none, and one that has ended nothing.
    pub(super) fn clear(&self) {
        if !self.is_any() {
            return;
        }
        let queue = self.queue.with(|queue| {
            self.is_any.store(false, Ordering::Relaxed);
            queue.take()
        });
        for queued in queue.into_iter().flat_map(|queue| queue.events) {
            contain(|| drop(queued));
        }
    }
}

/// What a stream yields next.
pub(super) enum Next<T> {
    /// From the ring or the log, or their end.
    Numbered(Item<T>),
    Ephemeral(T),
}

impl<T: Clone + Send + 'static> Reader<T> {
    /// The number of the last channel event that was read.
    pub(super) fn number(&self) -> u64 {
        match (&self.replay, &self.feed) {
            (Some(replay), _) => replay.number(),
            (None, Some(feed)) => feed.number(),
            (None, None) => 0,
        }
    }

    /// The next item, or an ephemeral event if that comes first.
    pub(super) fn poll_beside(
        &mut self,
        cx: &mut Context<'_>,
        ephemerals: &Ephemerals<T>,
    ) -> Poll<Next<T>> {
        let first = ephemerals.first();
        let polled = self.poll_item(cx);
        let event = match &polled {
            Poll::Ready(Some(Ok(_))) => {
                let number = self.number();
                ephemerals.take_if(|queued| queued.after < number)
            }
            // A gap has no number: queued events come before the next event.
            Poll::Ready(_) => None,
            // Empty, unless the coop budget is used up. An ephemeral event that was queued only after the look may follow a
            // channel event that was also sent after it.
            Poll::Pending if has_turn() => {
                ephemerals.take_if(|queued| Some(queued.ticket) == first)
            }
            Poll::Pending => None,
        };
        let Some(event) = event else {
            return polled.map(Next::Numbered);
        };
        if let Poll::Ready(item) = polled {
            self.left = Some(Box::new(item));
        }
        Poll::Ready(Next::Ephemeral(event))
    }
}

impl<T: Clone + Send + 'static> Connection<T> {
    /// Queues an ephemeral event that was sent after so many channel events. `false` if the stream does not read yet, or is to
    /// end.
    fn pass(&self, event: T, after: u64, most: u64) -> bool {
        // Until it reads, `install` must find the cell free.
        if !self.has_begun() || self.phase.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let oldest = self.ephemerals.push(event, after, most);
        contain(|| drop(oldest));
        if self.look_again() != 0 {
            // The call that finishes the stream may have emptied the queue before we filled it.
            self.ephemerals.clear();
            return false;
        }
        self.wake();
        true
    }

    pub(crate) fn has_ephemerals(&self) -> bool {
        self.ephemerals.is_any()
    }

    /// Wakes the stream, as an event would.
    pub(crate) fn wake(&self) {
        let waker = self.reader.try_with(|reader| reader.waker.take());
        self.look_again();
        if let Some(waker) = waker.flatten() {
            contain(|| waker.wake());
        }
    }
}

impl<T: Clone + Send + 'static> Roster<T> {
    /// Sends an ephemeral event to the open streams, of which each queues `most` at most. Calls `make` only if there is a stream
    /// and the channel is not complete. Once `complete` has returned, no stream yields the event.
    pub(crate) fn pass<E>(
        &self,
        most: u64,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Accepted, E> {
        if self.is_complete() {
            return Ok(Accepted::Complete);
        }
        if self.len() == 0 {
            return Ok(Accepted::Delivered(0));
        }
        let event = make()?;
        let after = self.head();
        let mut reached = 0;
        self.for_each(|connection, _| {
            reached += usize::from(connection.pass(event.clone(), after, most));
        });
        Ok(Accepted::Delivered(reached))
    }
}
