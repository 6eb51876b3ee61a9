//! One user's ring: a tokio broadcast channel, which each stream reads through a `BroadcastStream`.
//!
//! tokio drops events under its own locks: events that it overwrites, that the last stream has read, or that a stream leaves
//! unread. It also wakes tasks inside `send`, which the channel calls under its log's lock. Both run code of the service: an
//! event's attachment that broadcasts in its `drop` would wait for a lock that its own thread holds, and so would a task that
//! its executor runs inside the wake. So tokio is given a [`Parcel`] instead of the event, and instead of the task's waker
//! one of ours, which wakes a [`Seat`].
//!
//! 1. No code of the service runs under a lock. When tokio drops a parcel or wakes a seat, the event or the task's waker only
//!    moves to [`Deferred`]. It is dropped or woken after the locks are released.
//! 2. Nothing stays deferred for long: each caller of tokio then [releases](Deferred::release) what its call has deferred. If
//!    it finds an entry missing, another thread that releases has taken it and is about to drop or wake it.
//! 3. No stream sleeps through an event. Its task's waker is in the seat before the stream asks tokio for an event, and is
//!    taken out only to be woken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use crate::sync::{Leaf, Receiver, Sender, contain, wait_for_turn};

/// How many deferred entries are taken out each time the queue is locked.
const BATCH: usize = 8;

/// The capacity of a new queue, so that a stream that reads an event allocates nothing, and the capacity that an emptied
/// queue keeps at most.
const FIRST: usize = 4;
const SPARE: usize = 64;

/// The sending side. Once it is dropped, each feed ends after the events that were sent.
pub(crate) struct Ring<T> {
    // Dropped first: `deferred` then releases what this drop has deferred.
    sender: Sender<Parcel<T>>,
    deferred: Release<T>,
}

impl<T: Clone + Send + 'static> Ring<T> {
    /// A ring for this many events, rounded up to a power of two.
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

    /// Sends the event of this number to every feed and returns how many there are; the caller then calls [`release`](Self::release). If
    /// there is none, also returns the event, to be dropped where no lock is held.
    pub(super) fn push(&self, event: T, number: u64) -> (usize, Option<T>) {
        let parcel = Parcel {
            event: Some(event),
            number,
            home: self.deferred.0.clone(),
        };
        match self.sender.send(parcel) {
            Ok(reached) => {
                // Only after the send, so that an attendant that is woken finds the event. An attendant that asks in between
                // is woken for nothing.
                self.deferred.0.wake_attendants();
                (reached, None)
            }
            Err(mut parcel) => (0, parcel.event.take()),
        }
    }

    /// Wakes the feeds that wait for what was pushed, and drops the events it has overwritten. Called where no lock is held.
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
            number: 0,
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

/// What tokio's channel holds in place of an event.
struct Parcel<T> {
    /// Taken out by the feed that receives it.
    event: Option<T>,
    /// The event's number in the channel.
    number: u64,
    home: Arc<Deferred<T>>,
}

/// tokio clones it for each feed, under its lock: cloning an event must be as cheap as cloning an `Arc`.
impl<T: Clone> Clone for Parcel<T> {
    fn clone(&self) -> Self {
        Self {
            event: self.event.clone(),
            number: self.number,
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

/// Events to drop and wakers to wake once no lock is held.
pub(super) struct Deferred<T> {
    queue: Leaf<VecDeque<Owed<T>>>,
    /// Whether the queue has entries. Relaxed: only a thread that may have pushed asks, and a thread sees its own store.
    is_any: AtomicBool,
    /// The tasks that read for feeds without a waker of their own. Each stays here until the next event.
    attendants: Leaf<Vec<(usize, Waker)>>,
    /// Whether there is one. Relaxed: an attendant sets it before it looks into the feeds, a sender loads it after sending.
    /// If the attendant misses the event, tokio's lock has put its look before the send, so the sender sees what it set.
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

    /// Drops and wakes everything in the queue. Called where no lock is held.
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

/// Holds the waker of the task that waits for one stream.
struct Seat<T> {
    waker: Leaf<Option<Waker>>,
    deferred: Arc<Deferred<T>>,
}

impl<T> Seat<T> {
    /// Stores the task's waker.
    fn take_place(&self, waker: &Waker) {
        let is_there =
            |there: &mut Option<Waker>| there.as_ref().is_some_and(|it| it.will_wake(waker));
        if self.waker.with(is_there) {
            return;
        }
        // Cloning and dropping a waker runs the executor's code: not under a lock.
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
    // Dropped first: `seat` then releases what this drop has deferred.
    receiver: Receiver<Parcel<T>>,
    /// Wakes the seat.
    waker: Waker,
    seat: Leave<T>,
    /// The number of the last event that it has yielded.
    number: u64,
    /// An attendant is woken for it, see [`Bell`].
    is_attended: bool,
}

impl<T: Clone + Send + 'static> Feed<T> {
    /// From now on an [attendant](Bell) is woken for it.
    #[cfg(feature = "serve")]
    pub(super) fn attend(&mut self) -> Bell<T> {
        self.is_attended = true;
        Bell(self.seat.0.deferred.clone())
    }

    /// The next event; `Err(n)` when `n` were overwritten before they could be read; `None` once the sender is dropped and
    /// everything it sent has been read. The caller then releases what this [owes](Self::owes).
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, u64>>> {
        // Without coop budget, the task itself is woken. tokio would wake the seat, and no call would release that wake.
        ready!(wait_for_turn(cx));
        let polled = if self.is_attended {
            self.receiver.try_next(cx)
        } else {
            self.seat.0.take_place(cx.waker());
            self.receiver
                .poll_next(&mut Context::from_waker(&self.waker))
        };
        polled.map(|next| {
            next.map(|item| {
                item.map(|mut parcel| {
                    self.number = parcel.number;
                    parcel.event.take().expect("it has just come")
                })
            })
        })
    }

    /// The number of the last event that it has yielded.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What to release where no lock is held, if there is anything.
    pub(super) fn owes(&self) -> Option<Arc<Deferred<T>>> {
        let deferred = &self.seat.0.deferred;
        let is_any = deferred.is_any.load(Ordering::Relaxed);
        is_any.then(|| deferred.clone())
    }
}

/// On drop, takes the waker out of the seat and releases.
struct Leave<T>(Arc<Seat<T>>);

impl<T> Drop for Leave<T> {
    fn drop(&mut self) {
        let waker = self.0.waker.with(Option::take);
        contain(|| drop(waker));
        self.0.deferred.release();
    }
}

/// Wakes attendants: tasks of which each reads for many streams of a ring.
///
/// Streams that wait on their own cost an entry in tokio's list and a wake each: a thousand of both per event. An attendant
/// instead asks once to be woken for the next event, then looks into the feeds of all its streams. An event sent before that
/// is in the feeds; one sent later wakes the attendant.
#[cfg(feature = "serve")]
pub(crate) struct Bell<T>(Arc<Deferred<T>>);

#[cfg(feature = "serve")]
#[allow(dead_code, reason = "for the server, which loom leaves out")]
impl<T> Bell<T> {
    /// The number of its ring, unique as long as the ring has a bell.
    pub(crate) fn ring(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Asks to wake this attendant for the next event. `false` if it has asked already.
    pub(crate) fn wait(&self, attendant: usize, waker: &Waker) -> bool {
        // Cloning and dropping a waker runs the executor's code: not under a lock.
        let mut new = Some((attendant, waker.clone()));
        let is_new = self.0.attendants.with(|attendants| {
            let is_there = attendants.iter().any(|(there, _)| *there == attendant);
            if !is_there {
                if attendants.is_empty() {
                    // Most rings have one.
                    attendants.reserve_exact(1);
                }
                attendants.extend(new.take());
                self.0.is_attended.store(true, Ordering::Relaxed);
            }
            !is_there
        });
        drop(new);
        is_new
    }

    /// Withdraws what this attendant asked for.
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
