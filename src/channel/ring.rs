//! One user's ring: the events that some of the user's streams have yet to read, and the wakers of those that wait.
//!
//! A queue of at most `capacity` events under one short lock. tokio's `broadcast` has the same behaviour, but drops events
//! under its locks and wakes inside `send`: a tag that broadcasts in its `drop` would wait for itself there, and so would a
//! task that its executor runs inside the wake, where the channel's log is locked around `send`.
//!
//! 1. An event stays until each stream that was subscribed when it was pushed has read it or left, or until `capacity` newer
//!    ones have come. So the numbers of streams that have yet to read the events never fall from the oldest to the newest,
//!    and events leave at the front only.
//! 2. No code of the service runs under the lock. Events and wakers are only moved there: an event is dropped, and a waker
//!    is made, called and dropped after the lock was released.
//! 3. Nobody sleeps through an event. A stream leaves its waker in the locked step that found nothing to read, so an event
//!    is pushed before that step, and the stream reads it, or after it, and [`Ring::wake`] finds the waker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use super::discarded::Discarded;
use crate::sync::{Mutex, contain, take_turn};

/// How many streams are woken for one turn of the lock, and how many are looked at.
const BATCH: usize = 8;
const LOOK: usize = 64;

/// The sending side. The feeds end when it is dropped, once they have read what it has sent.
pub(crate) struct Ring<T>(Arc<Mutex<Shared<T>>>);

struct Shared<T> {
    events: VecDeque<Slot<T>>,
    capacity: usize,
    /// How many events were pushed: the position of the next one.
    next: u64,
    is_closed: bool,
    /// Each feed has a seat, and leaves its waker there while it waits.
    seats: Vec<Option<Waker>>,
    /// Seats that no feed has.
    free: Vec<usize>,
    /// Seats with a waker.
    waiting: usize,
}

struct Slot<T> {
    event: T,
    /// How many feeds have yet to read it; never zero.
    unread: usize,
}

impl<T: Clone + Send + 'static> Ring<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            events: VecDeque::new(),
            capacity,
            next: 0,
            is_closed: false,
            seats: Vec::new(),
            free: Vec::new(),
            waiting: 0,
        })))
    }

    /// Gives the event to every feed there is, and says how many these are; [`wake`](Self::wake) follows. Also returns an
    /// event that is in the ring no longer, or never was: it is to be dropped where no lock is held.
    pub(super) fn push(&self, event: T) -> (usize, Option<T>) {
        self.0.with(|shared| {
            let unread = shared.seats.len() - shared.free.len();
            if unread == 0 {
                return (0, Some(event));
            }
            let mut overwritten = None;
            if shared.events.len() == shared.capacity {
                overwritten = shared.events.pop_front().map(|slot| slot.event);
            }
            shared.events.push_back(Slot { event, unread });
            shared.next += 1;
            (unread, overwritten)
        })
    }

    pub(super) fn subscribe(&self) -> Feed<T> {
        let (next, seat) = self.0.with(|shared| {
            let seat = shared.free.pop().unwrap_or_else(|| {
                shared.seats.push(None);
                shared.seats.len() - 1
            });
            (shared.next, seat)
        });
        Feed {
            shared: self.0.clone(),
            next,
            seat,
        }
    }

    /// How many feeds there are.
    #[cfg(test)]
    #[allow(dead_code, reason = "for deliberate faults")]
    pub(super) fn feeds(&self) -> usize {
        self.0.with(|shared| shared.seats.len() - shared.free.len())
    }
}

impl<T> Ring<T> {
    /// Wakes every feed that waited when this was called. Called where no lock is held.
    pub(super) fn wake(&self) {
        let mut seat = 0;
        loop {
            let mut batch = [const { None }; BATCH];
            let is_last = self
                .0
                .with(|shared| shared.take_wakers(&mut seat, &mut batch));
            for waker in batch.iter_mut().map_while(Option::take) {
                contain(|| waker.wake());
            }
            if is_last {
                return;
            }
        }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        self.0.with(|shared| shared.is_closed = true);
        self.wake();
    }
}

impl<T> Shared<T> {
    /// Takes some wakers from `seat` on, and says whether these were the last.
    fn take_wakers(&mut self, seat: &mut usize, batch: &mut [Option<Waker>; BATCH]) -> bool {
        let mut taken = 0;
        let end = self.seats.len().min(*seat + LOOK);
        while self.waiting > 0 && *seat < end && taken < BATCH {
            if let Some(waker) = self.seats[*seat].take() {
                self.waiting -= 1;
                batch[taken] = Some(waker);
                taken += 1;
            }
            *seat += 1;
        }
        self.waiting == 0 || *seat == self.seats.len()
    }

    /// The position of the oldest event.
    fn first(&self) -> u64 {
        self.next - self.events.len() as u64
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        for slot in self.events.drain(..) {
            contain(|| drop(slot.event));
        }
    }
}

/// The receiving side of one stream.
pub(super) struct Feed<T> {
    shared: Arc<Mutex<Shared<T>>>,
    /// The position of the event that it reads next.
    next: u64,
    seat: usize,
}

/// What a feed finds.
enum Found<T> {
    Event(T),
    /// So many were overwritten before it read them.
    Lost(u64),
    End,
    /// Nothing, and its waker is in its seat. With what was in there before.
    Nothing(Option<Waker>),
    /// Nothing, and it has yet to bring a waker.
    NoWaker,
}

impl<T: Clone + Send + 'static> Feed<T> {
    /// The next event; `Err(n)` when `n` were overwritten before they could be read; `None` once the sender is gone
    /// and everything it sent has been read.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, u64>>> {
        // A stream that always has an event must let others run as well.
        let turn = ready!(take_turn(cx));
        let mut fresh = None;
        loop {
            let found = match self.look(cx.waker(), &mut fresh) {
                Found::Event(event) => Some(Ok(event)),
                Found::Lost(missed) => Some(Err(missed)),
                Found::End => None,
                Found::Nothing(replaced) => {
                    drop(replaced);
                    return Poll::Pending;
                }
                Found::NoWaker => {
                    fresh = Some(cx.waker().clone());
                    continue;
                }
            };
            turn.made_progress();
            return Poll::Ready(found);
        }
    }

    /// Reads, or leaves `fresh` in its seat (invariant 3).
    fn look(&mut self, waker: &Waker, fresh: &mut Option<Waker>) -> Found<T> {
        self.shared.with(|shared| {
            let first = shared.first();
            if self.next < first {
                let missed = first - self.next;
                self.next = first;
                return Found::Lost(missed);
            }
            if self.next < shared.next {
                // In memory, so it fits.
                let index = (self.next - first) as usize;
                self.next += 1;
                let slot = &mut shared.events[index];
                slot.unread -= 1;
                if slot.unread > 0 {
                    return Found::Event(slot.event.clone());
                }
                let slot = shared.events.pop_front();
                return Found::Event(slot.expect("the last to read it reads the oldest").event);
            }
            if shared.is_closed {
                return Found::End;
            }
            let seat = &mut shared.seats[self.seat];
            if seat.as_ref().is_some_and(|there| there.will_wake(waker)) {
                return Found::Nothing(None);
            }
            let Some(fresh) = fresh.take() else {
                return Found::NoWaker;
            };
            let replaced = seat.replace(fresh);
            shared.waiting += usize::from(replaced.is_none());
            Found::Nothing(replaced)
        })
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        let mut discarded = Discarded::new();
        let waker = self.shared.with(|shared| {
            let read = self.next.saturating_sub(shared.first()) as usize;
            for slot in shared.events.range_mut(read..) {
                slot.unread -= 1;
            }
            while shared.events.front().is_some_and(|slot| slot.unread == 0) {
                discarded.extend(shared.events.pop_front().map(|slot| slot.event));
            }
            shared.free.push(self.seat);
            let waker = shared.seats[self.seat].take();
            shared.waiting -= usize::from(waker.is_some());
            waker
        });
        contain(|| drop(waker));
    }
}
