//! One task that attends to many streams of a user.
//!
//! An event wakes every stream of its user, and each is scheduled, polled and written by itself. For a thousand streams most of
//! that is the same a thousand times, and some of them wait so long for their turn that the ring has overwritten what they were
//! woken for. So the streams of a user with many are members of a shard, whose task is woken once for an event and goes through
//! them. It writes to those whose next bytes are plain, and wakes the others. A member stays a task of its own, which does
//! everything else: it begins and ends, notices its client's end, waits for a socket that is full, and keeps itself alive.
//!
//! 1. Before the task goes through the members, in a *pass*, it has itself woken for the next event. What comes during a pass
//!    makes it begin another behind it, so a member need not be given more than what was there when the pass began.
//! 2. A member that it goes by looks by itself later: it is woken, or waits for its socket.
//! 3. Members have places, which do not change. One that comes while the task goes through is not looked at, but looks
//!    itself, after it is there.
//! 4. Who is closed takes no member. A shard closes when it is empty, under the lock that members come in by.
//! 5. Between two yields it looks at no more than [`TURN`] places, and it has no more than [`MOST`], so that several
//!    workers share a user with thousands.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::channel::Bell;
use crate::sync::{Mutex, TURN, contain};

/// How many members a shard has at the most.
pub(crate) const MOST: usize = 256;

/// A stream, for the task that attends to it.
pub(crate) trait Member<P> {
    /// Reads and writes what there is, if that is plain. If not, the stream does so by itself. `pass` is what the members have
    /// in common that are gone through now.
    fn attend(&self, pass: &mut P);
}

/// The members, shared by them and the task.
pub(crate) struct Shard<M: ?Sized>(Mutex<State<M>>);

struct State<M: ?Sized> {
    places: Vec<Option<Arc<M>>>,
    free: Vec<usize>,
    is_closed: bool,
    /// Woken when the last member has left.
    task: Option<Waker>,
}

impl<M: ?Sized> Shard<M> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            places: Vec::new(),
            free: Vec::new(),
            is_closed: false,
            task: None,
        }))
    }

    /// Takes a member, and says at which place. `None` if the shard is full or closed.
    pub(crate) fn join(&self, member: &Arc<M>) -> Option<usize> {
        self.0.with(|state| {
            if state.is_closed {
                return None;
            }
            let place = match state.free.pop() {
                Some(place) => place,
                None if state.places.len() < MOST => {
                    state.places.push(None);
                    state.places.len() - 1
                }
                None => return None,
            };
            state.places[place] = Some(Arc::clone(member));
            Some(place)
        })
    }

    /// Gives the place back.
    pub(crate) fn leave(&self, place: usize) {
        let (member, task) = self.0.with(|state| {
            let member = state.places[place].take();
            state.free.push(place);
            let is_empty = state.free.len() == state.places.len();
            (member, is_empty.then(|| state.task.take()).flatten())
        });
        drop(member);
        if let Some(task) = task {
            task.wake();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.with(|state| state.is_closed)
    }

    /// Closes the shard if it is empty. If not, the task is woken when it is.
    fn close(&self, task: &Waker) -> bool {
        let task = task.clone();
        let replaced = self.0.with(|state| {
            state.is_closed = state.free.len() == state.places.len();
            state.task.replace(task)
        });
        drop(replaced);
        self.is_closed()
    }

    /// Takes the members at the next places. Returns the place behind them, if there are more.
    fn collect(&self, next: usize, members: &mut Vec<Arc<M>>) -> Option<usize> {
        self.0.with(|state| {
            let end = state.places.len().min(next + TURN);
            if let Some(places) = state.places.get(next..end) {
                members.extend(places.iter().flatten().cloned());
            }
            (end < state.places.len()).then_some(end)
        })
    }
}

/// The task of a shard. It ends when the shard is closed. It must not be made to wait by tokio's budget.
pub(crate) struct Attendant<T, M: ?Sized, P> {
    shard: Arc<Shard<M>>,
    bell: Bell<T>,
    pass: P,
    /// The next place to look at, in a pass.
    next: Option<usize>,
    /// An event has come during this pass: another follows.
    again: bool,
    members: Vec<Arc<M>>,
}

impl<T, M: ?Sized, P: Default> Attendant<T, M, P> {
    pub(crate) fn new(shard: Arc<Shard<M>>, bell: Bell<T>) -> Self {
        Self {
            shard,
            bell,
            pass: P::default(),
            next: None,
            again: false,
            members: Vec::new(),
        }
    }

    fn number(&self) -> usize {
        Arc::as_ptr(&self.shard).addr()
    }
}

impl<T, M: Member<P> + ?Sized, P: Default + Unpin> Future for Attendant<T, M, P> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.bell.wait(this.number(), cx.waker()) {
            match this.next {
                Some(_) => this.again = true,
                None => this.next = Some(0),
            }
        }
        if let Some(next) = this.next {
            this.next = this.shard.collect(next, &mut this.members);
            for member in this.members.drain(..) {
                contain(|| member.attend(&mut this.pass));
            }
            if this.next.is_none() {
                // What was written is not kept for the next event.
                this.pass = P::default();
                this.next = mem::take(&mut this.again).then_some(0);
            }
        }
        if this.next.is_some() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match this.shard.close(cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl<T, M: ?Sized, P> Drop for Attendant<T, M, P> {
    fn drop(&mut self) {
        self.bell.leave(Arc::as_ptr(&self.shard).addr());
    }
}
