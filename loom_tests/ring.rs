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
/// Fails: streams_are_woken_under_the_lock, an_event_is_waited_for_without_another_look.
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

type Shared = Arc<Registry<Arc<u32>>>;

fn open(hub: &Shared, id: &str) -> Subscription<Arc<u32>> {
    Subscription::open(hub, "u".into(), id.into(), Resume::Fresh, |_| None).expect("there is room")
}

/// One reads and another leaves while something is broadcast: is it let go of as soon as nobody has yet to read it, and
/// does a stream that came in between get what is sent after it came?
///
/// Fails: a_stream_that_leaves_keeps_what_it_has_not_read.
#[test]
fn a_stream_that_leaves_meets_one_that_reads() {
    model(9, || {
        let hub: Shared = Arc::new(Registry::new(limits(), None));
        let (mut one, two) = (open(&hub, "a"), open(&hub, "b"));
        let events = [Arc::new(1), Arc::new(2)];
        let send = |event: &Arc<u32>| {
            let sent = hub.with("u", |channel| channel.publish(1, None, |_| event.clone()));
            sent.expect("somebody is in")
        };
        assert_eq!(send(&events[0]), 2);
        let leaver = thread::spawn(move || drop(two));
        assert!((1..=2).contains(&send(&events[1])));
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
        assert_eq!((hub.user_count(), hub.total()), (0, 0));
    });
}
