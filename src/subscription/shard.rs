//! One task that attends to the streams of a user.
//!
//! If an event woke every stream of its user, each would be scheduled, polled and written by itself. A thousand streams would
//! repeat the same work a thousand times, and some would wait so long to be polled that the ring would have overwritten what
//! they were woken for. So a user's streams are members of shards (not those of the registry). A shard's task, the
//! attendant, is woken once for an event and goes through the members: it writes to those whose next bytes are plain, and
//! wakes the others. A member's own task does everything else: it begins and ends the stream, notices that its client
//! disconnects, waits for a full socket, and sends keep-alives.
//!
//! 1. Before the attendant goes through the members, in a *pass*, it asks to be woken for the next event. An event during a
//!    pass makes it begin another pass after this one, so a member need not be given more than what was there when the pass
//!    began.
//! 2. A member that a pass does not serve polls by itself later: the attendant wakes it, or its socket does.
//! 3. Members have places, which do not change. A pass may miss a member that joins during it; that member polls by itself
//!    after it has joined.
//! 4. A closed shard takes no member. A shard closes only when it is empty, under the lock that members join under.
//! 5. Between two yields the attendant looks at no more than [`TURN`] places, and a shard has no more than [`MOST`], so that
//!    several workers share a user with thousands of streams.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::channel::Bell;
use crate::sync::{Mutex, TURN, contain};

/// The most members that a shard has.
pub(crate) const MOST: usize = 256;

/// A stream, as its attendant sees it.
pub(crate) trait Member<P> {
    /// Reads and writes the events there are, if these are plain. If not, the stream does so by itself. `pass` is what the
    /// members of a pass share. `true` if there may be more than the member was willing to write at once: another pass
    /// follows.
    fn attend(&self, pass: &mut P) -> bool;
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

    /// Adds a member, and returns its place. `None` if the shard is full or closed.
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

    /// Frees the place.
    pub(crate) fn leave(&self, place: usize) {
        let (member, task) = self.0.with(|state| {
            let member = state.places[place].take();
            state.free.push(place);
            let is_empty = state.free.len() == state.places.len();
            (member, is_empty.then(|| state.task.take()).flatten())
        });
        // Outside the lock: the drop may end the stream, and the wake runs the executor's code.
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
        // The last member leaves before this, and the shard closes; or after it, and `leave` finds the task to wake. One that
        // joins before this keeps the shard open; one that comes after a close is refused (invariant 4).
        let replaced = self.0.with(|state| {
            state.is_closed = state.free.len() == state.places.len();
            state.task.replace(task)
        });
        drop(replaced);
        self.is_closed()
    }

    /// Collects the members at the next places. Returns the place after them, if there are more.
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

/// The task of a shard. It ends when the shard is closed. It must run without tokio's coop budget.
pub(crate) struct Attendant<T, M: ?Sized, P> {
    shard: Arc<Shard<M>>,
    bell: Bell<T>,
    /// Of a pass that goes on in another turn; most are over in one, and an idle attendant shall be small.
    pass: Option<Box<P>>,
    /// The next place to look at, in a pass.
    next: Option<usize>,
    /// An event has come during this pass, or a member has more to write: another pass follows.
    again: bool,
    members: Vec<Arc<M>>,
}

impl<T, M: ?Sized, P: Default> Attendant<T, M, P> {
    pub(crate) fn new(shard: Arc<Shard<M>>, bell: Bell<T>) -> Self {
        Self {
            shard,
            bell,
            pass: None,
            next: None,
            again: false,
            members: Vec::new(),
        }
    }

    fn number(&self) -> usize {
        Arc::as_ptr(&self.shard).addr()
    }
}

impl<T, M: Member<P> + ?Sized, P: Default> Future for Attendant<T, M, P> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // First, so that no event is missed: one that is sent after this wakes the task again. `true` if one was sent since the
        // bell was last asked; the members' ring has it before this looks at them (invariant 1).
        if this.bell.wait(this.number(), cx.waker()) {
            match this.next {
                Some(_) => this.again = true,
                None => this.next = Some(0),
            }
        }
        if let Some(next) = this.next {
            // A member that takes one of these places after this is not in this pass (invariant 3). One that leaves after this
            // may be attended to once more.
            let mut pass = this.pass.take().map_or_else(P::default, |pass| *pass);
            this.next = this.shard.collect(next, &mut this.members);
            for member in this.members.drain(..) {
                contain(|| this.again |= member.attend(&mut pass));
            }
            if this.next.is_some() {
                this.pass = Some(Box::new(pass));
            } else {
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
