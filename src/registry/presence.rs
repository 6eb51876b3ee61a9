//! Which users are here, for streams that report which users come and leave.
//!
//! A user is here while an open channel has a member that is the user's own: no observer, and none that was drained. Threads
//! that change this may overtake each other, so they do not report changes: they mark the user, and the reader of the marks
//! looks up the state.
//!
//! 1. A mark is set after the change is visible, and removed before the reader looks: the reader sees every change, or finds
//!    a mark later.
//! 2. A watch enters the list of watches, then raises the flag beside the count of connections, then looks at all users. A
//!    thread that changes the membership does so before a read-modify-write of that count. If this comes before the flag, the
//!    walk sees the change; if it comes after, the thread sees the flag, and finds the watch in the list.
//! 3. Wakers run outside all locks.

use std::collections::HashSet;
use std::mem;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use super::Registry;
use crate::id::UserId;
use crate::sync::{KeyedHasher, Mutex, contain};

/// The watches of a registry.
pub(super) struct Watches(Mutex<List>);

struct List {
    /// In one `Arc`, so that it is cloned under the lock and read outside.
    watches: Arc<[Arc<Marks>]>,
    is_over: bool,
}

impl Watches {
    pub(super) fn new() -> Self {
        Self(Mutex::new(List {
            watches: Arc::new([]),
            is_over: false,
        }))
    }

    /// Marks a user whose membership has changed.
    fn mark(&self, user: &UserId) {
        let watches = self.0.with(|list| list.watches.clone());
        for marks in &*watches {
            marks.change(|marked| {
                marked.users.insert(user.clone());
            });
        }
    }

    /// Ends all watches, later ones included.
    pub(super) fn end(&self) {
        let watches = self.0.with(|list| {
            list.is_over = true;
            list.watches.clone()
        });
        for marks in &*watches {
            marks.change(|marked| marked.is_over = true);
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.end();
    }
}

/// The users that one watch has to look at.
struct Marks(Mutex<Marked>);

#[derive(Default)]
struct Marked {
    users: HashSet<UserId, KeyedHasher>,
    /// Wakes the task that waits for a mark.
    waker: Option<Waker>,
    is_over: bool,
}

impl Marks {
    fn new() -> Self {
        Self(Mutex::new(Marked::default()))
    }

    fn change(&self, change: impl FnOnce(&mut Marked)) {
        let waker = self.0.with(|marked| {
            change(marked);
            marked.waker.take()
        });
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
    }

    /// Removes all marks, as soon as there are any; `None` once the watch is over.
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<HashSet<UserId, KeyedHasher>>> {
        // Cloned before the lock, and the waker that it replaces is dropped after: both run code of the service.
        let mut waker = Some(cx.waker().clone());
        self.0.with(|marked| {
            if marked.is_over {
                return Poll::Ready(None);
            }
            if marked.users.is_empty() {
                mem::swap(&mut marked.waker, &mut waker);
                return Poll::Pending;
            }
            Poll::Ready(Some(mem::take(&mut marked.users)))
        })
    }
}

/// Names the users who may have come or left, beginning with those who are here.
pub(crate) struct Watch<T: Clone + Send + 'static> {
    /// Weak: without broadcaster and connections no user can come.
    registry: Weak<Registry<T>>,
    marks: Arc<Marks>,
    /// Users to look up, whose marks are removed already.
    next: Vec<UserId>,
}

impl<T: Clone + Send + 'static> Watch<T> {
    /// The next user who may have come or left, and whether the user is here now; `None` once the watch is over.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(UserId, bool)>> {
        loop {
            if let Some(user) = self.next.pop() {
                let is_here = self.is_here(&user);
                return Poll::Ready(Some((user, is_here)));
            }
            match ready!(self.marks.poll_take(cx)) {
                Some(users) => self.next.extend(users),
                None => return Poll::Ready(None),
            }
        }
    }

    pub(crate) fn is_here(&self, user: &UserId) -> bool {
        let registry = self.registry.upgrade();
        registry.is_some_and(|registry| {
            let is_here = registry.with(user, |channel| channel.roster().is_occupied());
            is_here == Some(true)
        })
    }
}

impl<T: Clone + Send + 'static> Drop for Watch<T> {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.change_watches(|watches| {
                watches.retain(|marks| !Arc::ptr_eq(marks, &self.marks));
            });
        }
    }
}

impl<T: Clone + Send + 'static> Registry<T> {
    /// Watches which users come and leave.
    pub(crate) fn watch(self: &Arc<Self>) -> Watch<T> {
        let marks = Arc::new(Marks::new());
        let is_over = self.change_watches(|watches| watches.push(marks.clone()));
        if is_over {
            marks.change(|marked| marked.is_over = true);
        }
        // Only now (invariant 2).
        let rosters = self.users.rosters();
        let here = rosters.iter().filter(|roster| roster.is_occupied());
        Watch {
            next: here.map(|roster| roster.user().clone()).collect(),
            registry: Arc::downgrade(self),
            marks,
        }
    }

    /// Changes the list, and returns whether watches are over, so that none may begin.
    fn change_watches(&self, change: impl FnOnce(&mut Vec<Arc<Marks>>)) -> bool {
        self.watches.0.with(|list| {
            let mut watches = list.watches.to_vec();
            change(&mut watches);
            list.watches = watches.into();
            // Under the lock, so that the flag agrees with the list.
            self.admission.set_watched(!list.watches.is_empty());
            list.is_over
        })
    }

    /// Marks a user whose members have changed. The caller has done a read-modify-write of the count of connections since.
    pub(super) fn mark(&self, user: &UserId) {
        if self.admission.is_watched() {
            self.watches.mark(user);
        }
    }

    /// The same for a caller that has not: does one first.
    pub(super) fn meet_and_mark(&self, user: &UserId) {
        self.admission.meet();
        self.mark(user);
    }
}
