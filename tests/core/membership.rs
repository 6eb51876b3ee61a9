//! A plain drop removes a connection, exactly once, on every path; the last one removes the user.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, Stream, StreamExt};
use tidings::{ConnectionId, GenericBroadcaster, Subscription, Text, UserId};

type Hub = GenericBroadcaster<Text>;

fn send(hub: &Hub, user: &str, text: &str) -> usize {
    let reached = hub.broadcast(user, &Text::new(text.to_owned()));
    reached.expect("text can be encoded")
}

/// What the stream has ready: `None` if it waits, `Some(None)` if it has ended.
fn ready(stream: &mut Subscription) -> Option<Option<String>> {
    let item = stream.next().now_or_never()?;
    Some(item.map(|item| item.expect("no lag").data()))
}

#[track_caller]
fn assert_nobody(hub: &Hub) {
    assert_eq!(hub.total_connections(), 0);
    assert_eq!(hub.connection_count("ann"), 0);
    assert_eq!(hub.connected_users(), [] as [UserId; 0]);
    assert_eq!(hub.connection_info(), []);
    let stats = hub.stats();
    assert_eq!((stats.users, stats.connections), (0, 0));
    assert_eq!(send(hub, "ann", "is anybody there?"), 0);
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll(stream: &mut Subscription, woken: &Arc<Woken>) -> Poll<Option<String>> {
    let waker = Waker::from(woken.clone());
    let polled = Pin::new(stream).poll_next(&mut Context::from_waker(&waker));
    polled.map(|item| item.map(|item| item.expect("no lag").data()))
}

#[test]
fn last_drop_removes_the_user() {
    let hub = Hub::new();
    let a = hub.register("ann").expect("no cap is reached");
    let b = hub.register("ann").expect("no cap is reached");
    assert_eq!(hub.connection_count("ann"), 2);
    drop(a);
    assert_eq!(hub.connection_count("ann"), 1);
    assert_eq!(hub.connected_users(), [UserId::from("ann")]);
    drop(b);
    assert_nobody(&hub);
}

#[test]
fn it_leaves_when_dropped_outside_a_runtime() {
    let hub = Hub::new();
    let stream = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(async {
            let mut stream = hub.register("ann").expect("no cap is reached");
            assert!(stream.next().now_or_never().is_none());
            stream
        });
    // The runtime it waited in is gone.
    thread::spawn(move || drop(stream))
        .join()
        .expect("no panic");
    assert_nobody(&hub);
}

#[test]
fn it_leaves_when_its_task_is_aborted_or_its_runtime_shut_down() {
    let hub = Hub::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let wait = |mut stream: Subscription| async move { while stream.next().await.is_some() {} };
    let aborted = runtime.spawn(wait(hub.register("ann").expect("no cap is reached")));
    let left = runtime.spawn(wait(hub.register("ann").expect("no cap is reached")));
    runtime.block_on(tokio::task::yield_now());
    aborted.abort();
    let end = runtime.block_on(aborted);
    assert!(end.expect_err("it was aborted").is_cancelled());
    assert_eq!(hub.connection_count("ann"), 1);
    drop((runtime, left));
    assert_nobody(&hub);
}

#[test]
fn it_leaves_during_a_panic() {
    let hub = Hub::new();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _a = hub.register("ann").expect("no cap is reached");
        let _b = hub.register("ann").expect("no cap is reached");
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    assert_nobody(&hub);
}

#[test]
fn it_leaves_inside_another_drop() {
    struct Owner(Hub, Option<Subscription>);
    impl Drop for Owner {
        fn drop(&mut self) {
            assert_eq!(self.0.connection_count("ann"), 1);
            self.1.take();
            assert_eq!(self.0.connection_count("ann"), 0);
            self.1 = self.0.register("ann").ok();
            assert_eq!(self.0.connection_count("ann"), 1);
        }
    }
    let hub = Hub::new();
    drop(Owner(hub.clone(), hub.register("ann").ok()));
    assert_nobody(&hub);
}

#[test]
fn it_leaves_in_a_thread_local_destructor() {
    thread_local! {
        static HELD: RefCell<Vec<(Hub, Subscription)>> = const { RefCell::new(Vec::new()) };
    }
    for touched_before in [false, true] {
        let hub = Hub::new();
        let inside = hub.clone();
        // Locals are destroyed in an order that depends on which was used first: ours, or those of the libraries.
        thread::spawn(move || {
            if touched_before {
                HELD.with_borrow_mut(Vec::clear);
            }
            for user in ["ann", "ann", "bob"] {
                let stream = inside.register(user).expect("no cap is reached");
                HELD.with_borrow_mut(|held| held.push((inside.clone(), stream)));
            }
            assert_eq!(inside.total_connections(), 3);
        })
        .join()
        .expect("no panic");
        assert_nobody(&hub);
    }
}

#[test]
fn a_thread_local_destructor_may_register_and_broadcast() {
    struct Last(Hub, Subscription);
    impl Drop for Last {
        fn drop(&mut self) {
            let mut late = self.0.register("ann").expect("no cap is reached");
            assert_eq!(send(&self.0, "ann", "late"), 2);
            assert_eq!(ready(&mut late), Some(Some("late".to_owned())));
            assert_eq!(ready(&mut self.1), Some(Some("late".to_owned())));
            assert_eq!(self.0.connection_info_of("ann").len(), 2);
            DONE.fetch_add(1, Ordering::SeqCst);
        }
    }
    static DONE: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HELD: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let hub = Hub::new();
    let inside = hub.clone();
    thread::spawn(move || {
        let stream = inside.register("ann").expect("no cap is reached");
        HELD.set(Some(Last(inside, stream)));
    })
    .join()
    .expect("no panic");
    assert_eq!(DONE.load(Ordering::SeqCst), 1, "the destructor panicked");
    assert_nobody(&hub);
}

#[test]
fn swapped_subscriptions_leave_each_for_itself() {
    let (here, there) = (Hub::new(), Hub::new());
    let mut a = here.register_as("ann", "a").expect("no cap is reached");
    let mut b = there.register_as("bob", "b").expect("no cap is reached");
    mem::swap(&mut a, &mut b);
    assert_eq!(a.guard().user().as_str(), "bob");
    drop(a);
    assert_nobody(&there);
    assert_eq!(here.connection_count("ann"), 1);
    assert_eq!(send(&here, "ann", "hello"), 1);
    assert_eq!(ready(&mut b), Some(Some("hello".to_owned())));
    drop(b);
    assert_nobody(&here);
}

#[test]
fn a_dropped_hub_leaves_its_streams_whole() {
    let hub = Hub::new();
    let mut stream = hub.register("ann").expect("no cap is reached");
    send(&hub, "ann", "before");
    let clone = hub.clone();
    drop(hub);
    send(&clone, "ann", "after");
    drop(clone);
    assert_eq!(ready(&mut stream), Some(Some("before".to_owned())));
    assert_eq!(ready(&mut stream), Some(Some("after".to_owned())));
    drop(stream);
}

#[test]
fn unregister_removes_the_connection_it_names() {
    let hub = Hub::new();
    let mut a = hub.register_as("ann", "a").expect("no cap is reached");
    let mut b = hub.register_as("ann", "b").expect("no cap is reached");
    let id = ConnectionId::from("a");
    assert!(!hub.unregister("bob", &id), "it is ann's");
    assert!(!hub.unregister("ann", &ConnectionId::from("c")));
    assert_eq!(hub.connection_count("ann"), 2);
    send(&hub, "ann", "unread");

    assert!(hub.unregister("ann", &id));
    assert_eq!(hub.connection_count("ann"), 1);
    assert_eq!(hub.total_connections(), 1);
    assert!(!hub.unregister("ann", &id), "it is out already");
    assert_eq!(
        send(&hub, "ann", "later"),
        1,
        "an ended stream counts as reached"
    );
    assert_eq!(ready(&mut a), Some(None), "it ends at once");
    assert_eq!(ready(&mut a), Some(None), "and stays ended");
    assert_eq!(ready(&mut b), Some(Some("unread".to_owned())));
    assert_eq!(ready(&mut b), Some(Some("later".to_owned())));

    // The drop that follows does not count a second time.
    drop(a);
    assert_eq!(
        (hub.connection_count("ann"), hub.total_connections()),
        (1, 1)
    );
    assert!(hub.unregister("ann", &ConnectionId::from("b")));
    assert_nobody(&hub);
    drop(b);
    assert_nobody(&hub);
}

#[test]
fn unregister_wakes_and_ends_a_stream_that_waits() {
    let hub = Hub::new();
    let woken = Arc::new(Woken::default());
    let mut stream = hub.register_as("ann", "a").expect("no cap is reached");
    let mut other = hub.register_as("ann", "b").expect("no cap is reached");
    let undisturbed = Arc::new(Woken::default());
    assert_eq!(poll(&mut stream, &woken), Poll::Pending);
    assert_eq!(poll(&mut other, &undisturbed), Poll::Pending);
    assert_eq!(woken.times(), 0);
    assert!(hub.unregister("ann", &ConnectionId::from("a")));
    assert!(woken.times() > 0, "nobody woke the stream");
    assert_eq!(poll(&mut stream, &woken), Poll::Ready(None));
    assert_eq!(undisturbed.times(), 0);
    assert_eq!(poll(&mut other, &undisturbed), Poll::Pending);
}

#[test]
fn a_task_that_waits_ends_when_unregistered_from_another_thread() {
    let hub = Hub::new();
    let mut stream = hub.register_as("ann", "a").expect("no cap is reached");
    let waiting = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let next = runtime.expect("a runtime").block_on(stream.next());
        assert!(next.is_none());
    });
    while !hub.unregister("ann", &ConnectionId::from("a")) {}
    waiting.join().expect("no panic");
    assert_nobody(&hub);
}

/// Ends a connection when dropped: in the middle of a poll, if a waker that the poll replaces holds it.
struct EndsInDrop(Hub);

impl Wake for EndsInDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for EndsInDrop {
    fn drop(&mut self) {
        self.0.unregister("ann", &ConnectionId::from("a"));
    }
}

#[test]
fn a_connection_can_be_ended_from_within_its_own_poll() {
    let hub = Hub::new();
    let mut ended = hub.register_as("ann", "a").expect("no cap is reached");
    let waker = Waker::from(Arc::new(EndsInDrop(hub.clone())));
    let first = Pin::new(&mut ended).poll_next(&mut Context::from_waker(&waker));
    assert!(first.is_pending());
    drop(waker);
    assert_eq!(hub.connection_count("ann"), 1);

    let woken = Arc::new(Woken::default());
    let second = poll(&mut ended, &woken);
    assert_eq!(hub.connection_count("ann"), 0);
    if second.is_pending() {
        assert!(woken.times() > 0, "it ended and will never be told");
    }
    assert_eq!(poll(&mut ended, &woken), Poll::Ready(None));
    drop(ended);
    assert_nobody(&hub);
}

#[test]
fn an_ended_stream_that_is_kept_is_not_sent_to() {
    let hub = Hub::new();
    let id = ConnectionId::from("a");
    let mut other = hub.register_as("ann", "b").expect("no cap is reached");
    for _ in 0..2_000 {
        let mut stream = hub.register_as("ann", "a").expect("the last round is over");
        let polling = Barrier::new(2);
        // It is polled while it is ended, and kept although it has ended.
        let kept = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                polling.wait();
                while ready(&mut stream) != Some(None) {}
                stream
            });
            polling.wait();
            assert!(hub.unregister("ann", &id));
            reader.join().expect("no panic")
        });
        assert_eq!(
            send(&hub, "ann", "x"),
            1,
            "an ended stream counts as reached"
        );
        assert_eq!(ready(&mut other), Some(Some("x".to_owned())));
        drop(kept);
    }
}

#[test]
fn drain_user_ends_streams_after_what_was_broadcast_before() {
    let hub = Hub::new();
    let woken = Arc::new(Woken::default());
    let mut waits = hub.register("ann").expect("no cap is reached");
    let mut reads = hub.register("ann").expect("no cap is reached");
    let mut bob = hub.register("bob").expect("no cap is reached");
    send(&hub, "ann", "one");
    assert_eq!(
        poll(&mut waits, &woken),
        Poll::Ready(Some("one".to_owned()))
    );
    send(&hub, "ann", "two");
    assert_eq!(
        poll(&mut waits, &woken),
        Poll::Ready(Some("two".to_owned()))
    );
    assert_eq!(poll(&mut waits, &woken), Poll::Pending);

    assert_eq!(hub.drain_user("ann"), 2);
    assert_eq!(hub.drain_user("ann"), 0, "there is nobody left to drain");
    assert!(woken.times() > 0, "nobody woke the stream");
    assert_eq!(send(&hub, "ann", "three"), 0);
    assert_eq!(poll(&mut waits, &woken), Poll::Ready(None));
    for expected in [Some("one"), Some("two"), None, None] {
        assert_eq!(ready(&mut reads), Some(expected.map(str::to_owned)));
    }
    assert_eq!(hub.connected_users(), [UserId::from("bob")]);
    assert_eq!(hub.connection_count("ann"), 0);
    assert_eq!(hub.total_connections(), 3, "counted until they are dropped");
    drop((waits, reads));
    assert_eq!(hub.total_connections(), 1);
    assert_eq!(ready(&mut bob), None, "another user was disturbed");
}

#[test]
fn a_registration_after_a_drain_is_not_affected_by_it() {
    let hub = Hub::new();
    let mut old = hub.register_as("ann", "tab").expect("no cap is reached");
    send(&hub, "ann", "old");
    assert_eq!(hub.drain_user("ann"), 1);
    let mut new = hub.register_as("ann", "tab").expect("the id is free again");
    assert_eq!(send(&hub, "ann", "new"), 1);
    assert_eq!(ready(&mut old), Some(Some("old".to_owned())));
    assert_eq!(ready(&mut old), Some(None));
    assert_eq!(ready(&mut new), Some(Some("new".to_owned())));

    // The old one leaves: it must not take its namesake or the user along.
    drop(old);
    assert_eq!(
        (hub.connection_count("ann"), hub.total_connections()),
        (1, 1)
    );
    assert_eq!(send(&hub, "ann", "newer"), 1);
    assert_eq!(ready(&mut new), Some(Some("newer".to_owned())));
    drop(new);
    assert_nobody(&hub);
}

#[test]
fn it_leaves_after_unregister_and_evict_in_any_order() {
    let hub = Hub::new();
    let id = ConnectionId::from("tab");
    let stream = hub.register_as("ann", "tab").expect("no cap is reached");
    assert!(hub.unregister("ann", &id));
    assert_eq!(hub.drain_user("ann"), 0);
    assert_nobody(&hub);
    drop(stream);
    assert_nobody(&hub);

    let stream = hub.register_as("ann", "tab").expect("no cap is reached");
    assert_eq!(hub.drain_user("ann"), 1);
    assert!(
        !hub.unregister("ann", &id),
        "a drained connection is not found"
    );
    assert_eq!(hub.total_connections(), 1);
    drop(stream);
    assert_nobody(&hub);
}

#[test]
fn a_late_drop_does_not_take_a_namesake_along() {
    let hub = Hub::new();
    // It keeps the channel, so that both namesakes stand in the same one.
    let keeper = hub.register("ann").expect("no cap is reached");
    let old = hub.register_as("ann", "tab").expect("no cap is reached");
    assert!(hub.unregister("ann", &ConnectionId::from("tab")));
    let mut new = hub.register_as("ann", "tab").expect("the id is free again");
    drop(old);
    assert_eq!(hub.connection_count("ann"), 2);
    assert_eq!(hub.total_connections(), 2);
    assert_eq!(send(&hub, "ann", "hello"), 2);
    assert_eq!(ready(&mut new), Some(Some("hello".to_owned())));
    drop((keeper, new));
    assert_nobody(&hub);
}

#[test]
fn all_ways_to_leave_in_parallel_leave_once() {
    // Three threads race for one connection: its drop, unregister, and a drain. It is given back once, and a bystander
    // of the same user is not lost unless drained.
    let hub = Hub::new();
    let id = ConnectionId::from("tab");
    for _ in 0..2_000 {
        let stream = hub
            .register_as("ann", "tab")
            .expect("the last round is over");
        let other = hub
            .register_as("bob", "tab")
            .expect("the last round is over");
        thread::scope(|scope| {
            scope.spawn(|| drop(stream));
            scope.spawn(|| hub.unregister("ann", &id));
            hub.drain_user("ann");
        });
        assert_eq!(hub.total_connections(), 1);
        assert_eq!(hub.stats().users, 1);
        drop(other);
        assert_nobody(&hub);
    }
}

#[test]
fn the_ten_thousandth_connection_works_like_the_first() {
    const MANY: usize = 10_000;
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(4)
        .connections_per_user(None)
        .build()
        .expect("valid settings");
    // Half of them are one user's, the others a user each.
    let mut streams = Vec::new();
    for number in 0..MANY / 2 {
        streams.push(hub.register("ann").expect("no cap"));
        streams.push(hub.register(number.to_string()).expect("no cap"));
        assert_eq!(hub.total_connections(), streams.len());
    }
    assert_eq!(hub.connection_count("ann"), MANY / 2);
    assert_eq!(hub.connection_info_of("ann").len(), MANY / 2);
    assert_eq!(hub.stats().users, MANY / 2 + 1);
    let users: BTreeSet<UserId> = hub.connected_users().into_iter().collect();
    assert_eq!(users.len(), MANY / 2 + 1);
    let listed = hub.connection_info();
    let ids: BTreeSet<_> = listed.iter().map(|info| &info.connection).collect();
    assert_eq!((listed.len(), ids.len()), (MANY, MANY));

    assert_eq!(send(&hub, "ann", "all"), MANY / 2);
    assert_eq!(send(&hub, &(MANY / 2 - 1).to_string(), "last"), 1);
    let mut got = [0, 0, 0];
    for stream in &mut streams {
        match ready(stream) {
            Some(Some(data)) if data == "all" && &**stream.guard().user() == "ann" => got[0] += 1,
            Some(Some(data)) if data == "last" => got[1] += 1,
            None => got[2] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, [MANY / 2, 1, MANY / 2 - 1]);
    drop(streams);
    assert_nobody(&hub);
}

#[test]
fn connection_info_lists_connections_and_their_state() {
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(2)
        .build()
        .expect("valid settings");
    assert_eq!(hub.connection_info_of("ann"), []);
    let before = Instant::now();
    let mut slow = hub.register_as("ann", "b-slow").expect("no cap is reached");
    let mut prompt = hub
        .register_as("ann", "a-prompt")
        .expect("no cap is reached");
    let _bob = hub.register_as("bob", "c").expect("no cap is reached");
    for text in ["1", "2", "3", "4", "5"] {
        send(&hub, "ann", text);
        assert_eq!(ready(&mut prompt), Some(Some(text.to_owned())));
    }
    let lag = slow.next().now_or_never().flatten().expect("an item");
    assert_eq!(
        lag.expect_err("five events in a ring of two").missed,
        Some(3)
    );

    let infos = hub.connection_info_of("ann");
    let oldest = before.elapsed();
    let told: Vec<_> = infos
        .iter()
        .map(|info| (info.user.as_str(), info.connection.as_str(), info.lagged))
        .collect();
    assert_eq!(told, [("ann", "a-prompt", 0), ("ann", "b-slow", 3)]);
    assert!(infos.iter().all(|info| info.age <= oldest));
    assert!(infos[0].age <= infos[1].age, "the slow one came first");
    while hub.connection_info_of("ann")[1].age == infos[1].age {}
    assert!(hub.connection_info_of("ann")[1].age > Duration::ZERO);

    let mut all: Vec<_> = hub
        .connection_info()
        .into_iter()
        .map(|info| info.connection.as_str().to_owned())
        .collect();
    all.sort();
    assert_eq!(all, ["a-prompt", "b-slow", "c"]);
    assert_eq!(slow.guard().lagged(), 3);
    assert_eq!(prompt.guard().connection_id().as_str(), "a-prompt");
}
