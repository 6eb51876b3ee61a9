//! `channel/ring.rs`: what the models of the others do not ask of it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use super::support::*;
use crate::channel::Resume;
use crate::registry::{Limits, Registry};
use crate::subscription::Subscription;

thread_local! {
    /// loom's threads are all on one. A waker must be `Send`, which no stand-in is.
    static HUB: RefCell<Option<Hub>> = const { RefCell::new(None) };
}

/// Broadcasts when it is woken, as a task does that its executor runs there and then.
struct Answers(AtomicUsize);

impl Wake for Answers {
    fn wake(self: Arc<Self>) {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            let hub = HUB.with_borrow(Option::clone).expect("it is set");
            publish(&hub, "u", 3);
        }
    }
}

/// A task runs inside its wake, and broadcasts to the user whose log has just been used, while another broadcast goes on:
/// do all see one order?
///
/// Fails: streams_are_woken_under_the_lock, a_seat_wakes_the_task_itself.
#[test]
fn a_task_that_runs_inside_its_wake_meets_a_broadcast() {
    model(20, || {
        let hub = hub_with(Limits {
            capacity: 4,
            ..remembering(8)
        });
        let mut one = register(&hub, "u", "a");
        let mut two = register(&hub, "u", "b");
        HUB.set(Some(hub.clone()));
        let answers = Arc::new(Answers(AtomicUsize::new(0)));
        let waker = Waker::from(answers.clone());
        assert!(poll(&mut one, &mut Context::from_waker(&waker)).is_pending());
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 1))
        };
        publish(&hub, "u", 2);
        sender.join().unwrap();
        assert_eq!(answers.0.load(Ordering::Relaxed), 1, "it waits once");
        let seen = read(&mut one).events;
        assert_eq!(seen.len(), 3);
        assert_eq!(read(&mut two).events, seen);
        drop((HUB.take(), one, two));
    });
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A stream is polled when its user is drained, and never again: is its task woken if it waits, and its waker let go of, although
/// the ring that has it ends?
///
/// Fails: a_ring_ends_without_a_release.
#[test]
fn drain_meets_a_poll() {
    model(120, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let task = Arc::<Woken>::default();
        let poller = {
            let waker = Waker::from(task.clone());
            thread::spawn(move || {
                let polled = poll(&mut one, &mut Context::from_waker(&waker));
                (one, polled)
            })
        };
        assert_eq!(hub.drain("u"), 1);
        let (one, polled) = poller.join().unwrap();
        match polled {
            Poll::Pending => assert!(task.0.load(Ordering::Relaxed) > 0, "it is woken"),
            Poll::Ready(item) => assert_eq!(item, None),
        }
        assert_eq!(Arc::strong_count(&task), 1, "nothing keeps its waker");
        drop(one);
        assert_empty(&hub);
    });
}

type Shared<T> = Arc<Registry<Arc<T>>>;

fn open<T: Send + Sync + 'static>(hub: &Shared<T>, id: &str) -> Subscription<Arc<T>> {
    Subscription::open(hub, "u".into(), tab(id), Resume::Fresh, |_| None).expect("there is room")
}

fn send<T: Send + Sync + 'static>(hub: &Shared<T>, event: &Arc<T>) -> usize {
    let sent = hub.with("u", |channel| append(channel, event.clone()));
    sent.expect("somebody is in")
}

/// One reads and another leaves while something is broadcast: is it let go of as soon as nobody has yet to read it, and
/// does a stream that came in between get what is sent after it came?
///
/// Fails: a_stream_that_leaves_keeps_what_it_has_not_read, a_stream_keeps_what_it_was_the_last_to_read.
#[test]
fn a_stream_that_leaves_meets_one_that_reads() {
    model(9, || {
        let hub: Shared<u32> = Arc::new(Registry::new(limits(), None));
        let (mut one, two) = (open(&hub, "a"), open(&hub, "b"));
        let events = [Arc::new(1), Arc::new(2)];
        assert_eq!(send(&hub, &events[0]), 2);
        let leaver = thread::spawn(move || drop(two));
        assert!((1..=2).contains(&send(&hub, &events[1])));
        for event in &events {
            let Poll::Ready(Some(Ok(got))) = poll_once(&mut one) else {
                panic!("both are there");
            };
            assert!(Arc::ptr_eq(&got, event));
        }
        leaver.join().unwrap();
        for event in &events {
            assert_eq!(Arc::strong_count(event), 1, "nobody has yet to read it");
        }
        drop(one);
        assert_eq!((hub.users.len(), hub.total()), (0, 0));
    });
}

thread_local! {
    static TAGGED: RefCell<Option<Shared<Tagged>>> = const { RefCell::new(None) };
}

/// How many were dropped, and may have broadcast then.
struct Tagged(Option<Arc<AtomicUsize>>);

impl Drop for Tagged {
    fn drop(&mut self) {
        let Some(dropped) = self.0.take() else {
            return;
        };
        dropped.fetch_add(1, Ordering::Relaxed);
        let hub = TAGGED.with_borrow(Option::clone);
        if let Some(hub) = hub {
            hub.with("u", |channel| append(channel, Arc::new(Tagged(None))));
        }
    }
}

/// Events broadcast when they are dropped, because others take their place, or the last to read them does or leaves: does that
/// happen under no lock?
///
/// Fails: an_event_is_dropped_under_the_lock.
#[test]
fn an_event_that_broadcasts_when_it_is_dropped_meets_a_stream_that_leaves() {
    model(20, || {
        let ring_of_one = Limits {
            capacity: 1,
            ..limits()
        };
        let hub: Shared<Tagged> = Arc::new(Registry::new(ring_of_one, None));
        let (mut one, two) = (open(&hub, "a"), open(&hub, "b"));
        TAGGED.set(Some(hub.clone()));
        let dropped = Arc::new(AtomicUsize::new(0));
        let tagged = || Arc::new(Tagged(Some(dropped.clone())));
        send(&hub, &tagged());
        let leaver = thread::spawn(move || drop(two));
        send(&hub, &tagged());
        leaver.join().unwrap();
        let (items, has_ended) = poll_all(&mut one);
        assert!(!has_ended && !items.is_empty());
        drop(items);
        assert_eq!(dropped.load(Ordering::Relaxed), 2, "both are let go of");
        drop((TAGGED.take(), one));
        assert_eq!((hub.users.len(), hub.total()), (0, 0));
    });
}
