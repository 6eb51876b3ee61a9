//! Many subscriptions as one stream.
//!
//! Each has a waker of its own, which notes that this one has something, so that a poll looks at those alone: there may be a
//! hundred thousand.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use async_nats::{Message, Subscriber};
use futures_core::Stream;

/// Which one of them.
pub(super) type Key = u64;

/// The subscriptions, each with what it is for.
pub(super) struct Feeds<T> {
    all: HashMap<Key, Feed<T>>,
    ready: Arc<Ready>,
    next: Key,
}

struct Feed<T> {
    subscriber: Subscriber,
    what_for: T,
    slot: Arc<Slot>,
}

/// Those that may have something.
#[derive(Default)]
struct Ready(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    keys: VecDeque<Key>,
    reader: Option<Waker>,
}

/// The waker of one subscription.
struct Slot {
    key: Key,
    /// Whether the key is in the queue already.
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Ready {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        // Nothing panics inside.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Slot {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // AcqRel pairs with the swap in `poll_next`: whoever finds the key queued is read after what it was woken for.
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let reader = {
            let mut queue = self.ready.lock();
            queue.keys.push_back(self.key);
            queue.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> Feeds<T> {
    pub(super) fn new() -> Self {
        Self {
            all: HashMap::new(),
            ready: Arc::default(),
            next: 0,
        }
    }

    pub(super) fn insert(&mut self, subscriber: Subscriber, what_for: T) -> Key {
        let key = self.next;
        self.next += 1;
        let slot = Arc::new(Slot {
            key,
            queued: AtomicBool::new(false),
            ready: Arc::clone(&self.ready),
        });
        // It is to be polled once, to learn of its waker.
        slot.wake_by_ref();
        let feed = Feed {
            subscriber,
            what_for,
            slot,
        };
        self.all.insert(key, feed);
        key
    }

    /// Ends one. What it has received and nobody has taken is gone.
    pub(super) fn remove(&mut self, key: Key) {
        self.all.remove(&key);
    }

    /// The next message of any of them. None of them is passed over for ever.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(&T, Message)> {
        loop {
            let key = {
                let mut queue = self.ready.lock();
                match queue.keys.pop_front() {
                    Some(key) => key,
                    None => {
                        queue.reader = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                }
            };
            let Some(feed) = self.all.get_mut(&key) else {
                continue;
            };
            // Before the poll: a wake-up from now on is another one.
            feed.slot.queued.swap(false, Ordering::AcqRel);
            let waker = Waker::from(Arc::clone(&feed.slot));
            let polled = Pin::new(&mut feed.subscriber).poll_next(&mut Context::from_waker(&waker));
            match polled {
                Poll::Ready(Some(message)) => {
                    // There may be more; the others come first.
                    feed.slot.wake_by_ref();
                    let feed = self.all.get(&key).expect("it is there still");
                    return Poll::Ready((&feed.what_for, message));
                }
                // The client has ended.
                Poll::Ready(None) => {
                    self.all.remove(&key);
                }
                Poll::Pending => {}
            }
        }
    }
}

impl<T> fmt::Debug for Feeds<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feeds")
            .field("len", &self.all.len())
            .finish_non_exhaustive()
    }
}
