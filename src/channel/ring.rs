//! One user's ring: tokio's broadcast channel, of which each stream reads a `BroadcastStream`.
//!
//! tokio drops events under its locks: those that it overwrites, that the last stream has read, or that a stream leaves
//! unread. And it wakes inside `send`, which the channel's log is locked around. An attachment that broadcasts in its `drop` would wait
//! for itself there, and so would a task that its executor runs inside the wake. So what tokio has is not the event but a
//! [`Parcel`], and not the task's waker but one of ours, which wakes a [`Seat`].
//!
//! 1. No code of the service runs under a lock. When tokio drops a parcel or wakes a seat, the event or the task's waker is
//!    only moved to what is [`Deferred`]. It is dropped or woken when the locks were released.
//! 2. Nothing is deferred for long: whoever has called tokio [releases](Deferred::release) what that has deferred. It finds its
//!    own, unless another who releases has taken that, and is about to drop and wake it.
//! 3. Nobody sleeps through an event. A task's waker is in the seat before tokio is asked for an event, and is taken out only
//!    to be woken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use crate::sync::{Leaf, Receiver, Sender, contain, wait_for_turn};

/// How many are taken out for one turn of the lock.
const BATCH: usize = 8;

/// How long a queue is at first, so that a stream which reads an event allocates nothing, and how long it stays once it is
/// empty.
const FIRST: usize = 4;
const SPARE: usize = 64;

/// The sending side. The feeds end when it is dropped, once they have read what it has sent.
pub(crate) struct Ring<T> {
    // Dropped before what that defers is released.
    sender: Sender<Parcel<T>>,
    deferred: Release<T>,
}

impl<T: Clone + Send + 'static> Ring<T> {
    /// With room for so many events, rounded up to a power of two.
    pub(super) fn new(capacity: usize) -> Self {
        let sender = Sender::new(capacity);
        let deferred = Release(Arc::new(Deferred {
            queue: sender.leaf(VecDeque::with_capacity(FIRST)),
            is_any: AtomicBool::new(false),
            attendants: sender.leaf(Vec::new()),
            is_attended: AtomicBool::new(false),
        }));
        Self { sender, deferred }
    }

    /// Gives the event to every feed there is, and says how many these are; [`release`](Self::release) follows. Without any, also
    /// returns the event: it is to be dropped where no lock is held.
    pub(super) fn push(&self, event: T) -> (usize, Option<T>) {
        let parcel = Parcel {
            event: Some(event),
            home: self.deferred.0.clone(),
        };
        match self.sender.send(parcel) {
            Ok(reached) => {
                // After it is there: an attendant that comes in between is woken for nothing.
                self.deferred.0.wake_attendants();
                (reached, None)
            }
            Err(mut parcel) => (0, parcel.event.take()),
        }
    }

    /// Wakes the feeds that wait for what was pushed, and drops what that has overwritten. Called where no lock is held.
    pub(super) fn release(&self) {
        self.deferred.0.release();
    }

    pub(super) fn subscribe(&self) -> Feed<T> {
        let seat = Arc::new(Seat {
            waker: self.sender.leaf(None),
            deferred: self.deferred.0.clone(),
        });
        Feed {
            receiver: self.sender.subscribe(),
            waker: Waker::from(seat.clone()),
            seat: Leave(seat),
            is_attended: false,
        }
    }

    /// How many feeds there are.
    #[cfg(test)]
    #[allow(dead_code, reason = "for deliberate faults")]
    pub(super) fn feeds(&self) -> usize {
        self.sender.receiver_count()
    }
}

/// An event as tokio has it.
struct Parcel<T> {
    /// Taken out by whoever gets it.
    event: Option<T>,
    home: Arc<Deferred<T>>,
}

/// What a feed gets. tokio clones it under its lock: an event must be as cheap as an `Arc`.
impl<T: Clone> Clone for Parcel<T> {
    fn clone(&self) -> Self {
        Self {
            event: self.event.clone(),
            home: self.home.clone(),
        }
    }
}

impl<T> Drop for Parcel<T> {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.home.push(Owed::Drop(event));
        }
    }
}

/// What is to be done with the service's own, once no lock is held.
pub(super) struct Deferred<T> {
    queue: Leaf<VecDeque<Owed<T>>>,
    /// Whether there is anything. Relaxed: it is asked by whoever may have put it there, who has seen what it did itself.
    is_any: AtomicBool,
    /// The tasks that read for feeds which do not wait by themselves. Each is here until an event comes.
    attendants: Leaf<Vec<(usize, Waker)>>,
    /// Whether there is one. Relaxed, and asked after an event was sent: an attendant sets it before it looks into the feeds. If it
    /// misses the event there, tokio's lock has put its look before the sending, and what it set is seen.
    is_attended: AtomicBool,
}

enum Owed<T> {
    Drop(T),
    Wake(Waker),
}

impl<T> Deferred<T> {
    /// Called under tokio's locks.
    fn push(&self, owed: Owed<T>) {
        self.queue.with_inside(|queue| {
            queue.push_back(owed);
            self.is_any.store(true, Ordering::Relaxed);
        });
    }

    /// Called under the log's lock.
    fn wake_attendants(&self) {
        if !self.is_attended.load(Ordering::Relaxed) {
            return;
        }
        let woken = self.attendants.with_inside(|attendants| {
            self.is_attended.store(false, Ordering::Relaxed);
            std::mem::take(attendants)
        });
        for (_, waker) in woken {
            self.push(Owed::Wake(waker));
        }
    }

    /// Drops and wakes what there is. Called where no lock is held.
    pub(super) fn release(&self) {
        while self.is_any.load(Ordering::Relaxed) {
            let mut batch = [const { None }; BATCH];
            self.queue.with(|queue| {
                let len = queue.len().min(BATCH);
                for (place, owed) in batch.iter_mut().zip(queue.drain(..len)) {
                    *place = Some(owed);
                }
                if queue.is_empty() {
                    self.is_any.store(false, Ordering::Relaxed);
                    queue.shrink_to(SPARE);
                }
            });
            for owed in batch.into_iter().flatten() {
                contain(|| match owed {
                    Owed::Drop(event) => drop(event),
                    Owed::Wake(waker) => waker.wake(),
                });
            }
        }
    }
}

/// Releases when it is dropped.
struct Release<T>(Arc<Deferred<T>>);

impl<T> Drop for Release<T> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Where the task of one stream waits.
struct Seat<T> {
    waker: Leaf<Option<Waker>>,
    deferred: Arc<Deferred<T>>,
}

impl<T> Seat<T> {
    /// Puts the task's waker there.
    fn take_place(&self, waker: &Waker) {
        let is_there =
            |there: &mut Option<Waker>| there.as_ref().is_some_and(|it| it.will_wake(waker));
        if self.waker.with(is_there) {
            return;
        }
        // What clones and drops a waker is the executor's.
        let waker = waker.clone();
        let replaced = self.waker.with_inside(|there| there.replace(waker));
        drop(replaced);
    }
}

impl<T: Send + 'static> Wake for Seat<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(waker) = self.waker.with_inside(Option::take) {
            self.deferred.push(Owed::Wake(waker));
        }
    }
}

/// The receiving side of one stream.
pub(super) struct Feed<T> {
    // Dropped before the seat is left, where what that defers is released.
    receiver: Receiver<Parcel<T>>,
    /// Wakes the seat.
    waker: Waker,
    seat: Leave<T>,
    /// A task is woken for it, see [`Bell`].
    is_attended: bool,
}

impl<T: Clone + Send + 'static> Feed<T> {
    /// From now on an [attendant](Bell) is woken for it.
    #[cfg(feature = "serve")]
    pub(super) fn attend(&mut self) -> Bell<T> {
        self.is_attended = true;
        Bell(self.seat.0.deferred.clone())
    }

    /// The next event; `Err(n)` when `n` were overwritten before they could be read; `None` once the sender is gone
    /// and everything it sent has been read. What it [owes](Self::owes) is to be released then.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, u64>>> {
        // When its turn is over, the task itself is woken. tokio would wake the seat, and nobody would release that.
        ready!(wait_for_turn(cx));
        let polled = if self.is_attended {
            self.receiver.try_next(cx)
        } else {
            self.seat.0.take_place(cx.waker());
            self.receiver
                .poll_next(&mut Context::from_waker(&self.waker))
        };
        polled.map(|next| {
            next.map(|item| item.map(|mut parcel| parcel.event.take().expect("it has just come")))
        })
    }

    /// What is to be released where no lock is held, if there is anything.
    pub(super) fn owes(&self) -> Option<Arc<Deferred<T>>> {
        let deferred = &self.seat.0.deferred;
        let is_any = deferred.is_any.load(Ordering::Relaxed);
        is_any.then(|| deferred.clone())
    }
}

/// Leaves the seat when it is dropped, and releases.
struct Leave<T>(Arc<Seat<T>>);

impl<T> Drop for Leave<T> {
    fn drop(&mut self) {
        let waker = self.0.waker.with(Option::take);
        contain(|| drop(waker));
        self.0.deferred.release();
    }
}

/// Wakes those who read for streams that do not wait by themselves.
///
/// A stream that waits is in a list of tokio's and is woken by itself: for a thousand streams that is a thousand entries and
/// wakes for each event. So one task can attend to many streams: it has itself woken for the next event, then looks into
/// their feeds. What came before is in the feeds, and what comes after wakes it.
#[cfg(feature = "serve")]
pub(crate) struct Bell<T>(Arc<Deferred<T>>);

#[cfg(feature = "serve")]
#[allow(dead_code, reason = "for the server, which loom leaves out")]
impl<T> Bell<T> {
    /// Which ring it belongs to. While there is a bell of it, no other ring has this number.
    pub(crate) fn ring(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Has this attendant woken for the next event. `false` if that is so already.
    pub(crate) fn wait(&self, attendant: usize, waker: &Waker) -> bool {
        // What clones and drops a waker is the executor's.
        let mut new = Some((attendant, waker.clone()));
        let is_new = self.0.attendants.with(|attendants| {
            let is_there = attendants.iter().any(|(there, _)| *there == attendant);
            if !is_there {
                attendants.extend(new.take());
                self.0.is_attended.store(true, Ordering::Relaxed);
            }
            !is_there
        });
        drop(new);
        is_new
    }

    /// The attendant is not woken any more.
    pub(crate) fn leave(&self, attendant: usize) {
        let left = self.0.attendants.with(|attendants| {
            let at = attendants
                .iter()
                .position(|(there, _)| *there == attendant)?;
            Some(attendants.swap_remove(at))
        });
        drop(left);
    }
}
