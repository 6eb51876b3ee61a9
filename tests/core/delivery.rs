//! An event arrives once, in order, at every stream of the user, or is reported as lag; and it is encoded once.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use allocation_counter::measure;
use futures_util::{FutureExt, StreamExt};
use tidings::{
    BroadcastError, Broadcaster, ConnectionId, Data, EncodeError, GapReason, GenericBroadcaster,
    RegisterError, Subscription, Text, ToSse, UserId,
};

type Hub = GenericBroadcaster<Text>;

fn hub_of_capacity(capacity: usize) -> Hub {
    Hub::builder()
        .ring_capacity(capacity)
        .connections_per_user(None)
        .build()
        .expect("valid settings")
}

fn text(number: impl ToString) -> Text {
    Text::new(number.to_string())
}

fn send(hub: &Hub, user: &str, number: impl ToString) -> usize {
    let reached = hub.broadcast(user, &text(number));
    reached.expect("text can be encoded")
}

/// What the stream has ready, an error being how many events it lost: `None` if it waits.
fn ready(stream: &mut Subscription) -> Option<Result<u64, u64>> {
    let item = stream.next().now_or_never()?;
    let item = item.expect("the stream has not ended");
    let item = item.map(|frame| frame.data().parse().expect("a number"));
    Some(item.map_err(|gap| gap.missed.expect("lag is counted")))
}

fn all_ready(stream: &mut Subscription) -> Vec<Result<u64, u64>> {
    std::iter::from_fn(|| ready(stream)).collect()
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

#[test]
fn every_stream_of_the_user_gets_every_event_in_order() {
    let hub = Hub::new();
    let mut streams: Vec<_> = (0..10)
        .map(|_| hub.register("ann").expect("no cap is reached"))
        .collect();
    let mut bob = hub.register("bob").expect("no cap is reached");
    for number in 0..50 {
        assert_eq!(send(&hub, "ann", number), 10);
    }
    let sent: Vec<_> = (0..50).map(Ok).collect();
    for stream in &mut streams {
        assert_eq!(all_ready(stream), sent);
    }
    assert_eq!(ready(&mut bob), None);
    let stats = hub.stats();
    assert_eq!((stats.broadcasts, stats.encoded), (50, 50));
    assert_eq!((stats.deliveries, stats.lagged, stats.failed), (500, 0, 0));
}

#[test]
fn a_stream_gets_what_is_broadcast_after_it_was_registered_and_nothing_before() {
    let hub = Hub::new();
    let mut first = hub.register("ann").expect("no cap is reached");
    send(&hub, "ann", 1);
    let mut second = hub.register("ann").expect("no cap is reached");
    send(&hub, "ann", 2);
    assert_eq!(all_ready(&mut first), [Ok(1), Ok(2)]);
    assert_eq!(all_ready(&mut second), [Ok(2)]);
}

/// Follows one stream: that it goes on where it was, and that what it misses is told.
struct Follower {
    stream: Subscription,
    /// Events from this one on were broadcast after `register` had returned.
    promised: u64,
    /// The event that has to come next; unknown before the first.
    next: Option<u64>,
    /// Lag that was told before the first event.
    missed_first: u64,
    missed: u64,
}

impl Follower {
    fn new(hub: &Hub, begun: &AtomicU64) -> Self {
        let stream = hub.register("ann").expect("no cap");
        Self {
            stream,
            promised: begun.load(Ordering::SeqCst),
            next: None,
            missed_first: 0,
            missed: 0,
        }
    }

    /// Takes one item; `false` if there is none.
    fn step(&mut self) -> bool {
        match (ready(&mut self.stream), self.next) {
            (None, _) => return false,
            (Some(Err(missed)), next) => {
                assert!(missed > 0, "a lag of nothing");
                self.missed += missed;
                match next {
                    Some(next) => self.next = Some(next + missed),
                    None => self.missed_first += missed,
                }
            }
            (Some(Ok(number)), Some(next)) => {
                assert_eq!(number, next, "lost, doubled or out of order");
                self.next = Some(next + 1);
            }
            (Some(Ok(number)), None) => {
                let first = number - self.missed_first;
                assert!(
                    first <= self.promised,
                    "began with {first}, although {} was broadcast after it was registered",
                    self.promised
                );
                self.next = Some(number + 1);
            }
        }
        true
    }
}

#[test]
fn an_event_broadcast_after_register_returned_arrives_or_is_reported_as_lag() {
    const EVENTS: u64 = 30_000;
    // Small enough that readers lag now and then.
    let hub = hub_of_capacity(16);
    let begun = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let told = AtomicU64::new(0);
    let followed = AtomicUsize::new(0);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let (hub, begun, done, told, followed) = (&hub, &begun, &done, &told, &followed);
                scope.spawn(move || {
                    let mut over = false;
                    while !over {
                        let mut follower = Follower::new(hub, begun);
                        followed.fetch_add(1, Ordering::Relaxed);
                        for step in 0.. {
                            // After the last event, each must have got everything to the end.
                            over = done.load(Ordering::SeqCst);
                            let got = follower.step();
                            if over && !got {
                                assert!(follower.next.is_none_or(|next| next == EVENTS));
                                let none = follower.next.is_none();
                                assert!(!none || follower.promised == EVENTS);
                                break;
                            }
                            if !over && step > 40 * (reader + 1) {
                                break;
                            }
                            if !got {
                                thread::yield_now();
                            }
                        }
                        assert_eq!(follower.stream.guard().lagged(), follower.missed);
                        told.fetch_add(follower.missed, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for number in 0..EVENTS {
            // Counted before it is broadcast: who reads `number` or less has its promise from before.
            assert_eq!(begun.fetch_add(1, Ordering::SeqCst), number);
            send(&hub, "ann", number);
            if number % 8 == 0 {
                thread::yield_now();
            }
        }
        done.store(true, Ordering::SeqCst);
        let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        assert!(results.iter().all(Result::is_ok), "a reader panicked");
    });
    assert!(followed.load(Ordering::Relaxed) > 8, "nobody came and went");
    assert_eq!(hub.stats().lagged, told.load(Ordering::Relaxed));
    assert_eq!(hub.stats().broadcasts, EVENTS);
    assert_eq!(hub.total_connections(), 0);
}

#[test]
fn a_stream_that_is_registered_while_the_last_one_leaves_is_reached() {
    // Each is now the first, now the last of the user, while another is just leaving or just coming.
    let hub = hub_of_capacity(64);
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let hub = &hub;
            scope.spawn(move || {
                for round in 0..4_000 {
                    let mut stream = hub.register("ann").expect("no cap");
                    assert!(hub.connection_count("ann") >= 1);
                    let own = thread * 4_000 + round;
                    assert!(send(hub, "ann", own) >= 1, "registered, and not reached");
                    let mut items = std::iter::from_fn(|| ready(&mut stream));
                    assert!(items.any(|item| item == Ok(own) || item.is_err()));
                }
            });
        }
    });
    assert_eq!((hub.total_connections(), hub.stats().users), (0, 0));
}

#[test]
fn streams_agree_on_the_order_of_what_several_threads_broadcast() {
    const THREADS: u64 = 4;
    const EACH: u64 = 1_000;
    let hub = hub_of_capacity((THREADS * EACH) as usize);
    let mut streams: Vec<_> = (0..3)
        .map(|_| hub.register("ann").expect("no cap"))
        .collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let hub = &hub;
            scope.spawn(move || {
                for number in 0..EACH {
                    send(hub, "ann", thread * EACH + number);
                }
            });
        }
    });
    let first = all_ready(&mut streams[0]);
    assert_eq!(first.len() as u64, THREADS * EACH);
    for thread in 0..THREADS {
        let of_thread = |item: &&Result<u64, u64>| item.is_ok_and(|n| n / EACH == thread);
        let its: Vec<_> = first.iter().filter(of_thread).copied().collect();
        let sent: Vec<_> = (thread * EACH..(thread + 1) * EACH).map(Ok).collect();
        assert_eq!(its, sent);
    }
    assert_eq!(all_ready(&mut streams[1]), first);
    assert_eq!(all_ready(&mut streams[2]), first);
}

#[test]
fn a_burst_of_64_does_not_make_a_prompt_reader_lag() {
    let hub = Hub::new();
    let mut stream = hub.register("ann").expect("no cap is reached");
    block_on(async {
        for burst in 0..20 {
            // Nothing is awaited here: the whole burst comes before the reader's turn.
            let numbers = burst * 64..(burst + 1) * 64;
            for number in numbers.clone() {
                send(&hub, "ann", number);
            }
            for number in numbers {
                let item = stream.next().await.expect("the stream has not ended");
                assert_eq!(item.expect("no lag").data(), number.to_string());
            }
        }
    });
    assert_eq!(hub.stats().lagged, 0);

    // One more is one too many: the oldest is lost, and told.
    for number in 0..65 {
        send(&hub, "ann", number);
    }
    let items = all_ready(&mut stream);
    assert_eq!(items[..2], [Err(1), Ok(1)]);
    assert_eq!(items.len(), 65);
}

#[test]
fn lag_is_per_receiver() {
    let hub = hub_of_capacity(4);
    let mut slow = hub.register_as("ann", "slow").expect("no cap");
    let mut prompt = hub.register_as("ann", "prompt").expect("no cap");
    for number in 0..10 {
        send(&hub, "ann", number);
        assert_eq!(ready(&mut prompt), Some(Ok(number)));
    }
    assert_eq!(
        hub.stats().lagged,
        0,
        "counted when the stream learns of it"
    );
    assert_eq!(ready(&mut slow), Some(Err(6)));
    assert_eq!((slow.guard().lagged(), prompt.guard().lagged()), (6, 0));
    let told: Vec<_> = hub.connection_info_of("ann");
    let told: Vec<_> = told.iter().map(|i| (&*i.connection, i.lagged)).collect();
    assert_eq!(told, [("prompt", 0), ("slow", 6)]);
    assert_eq!(hub.stats().lagged, 6);

    // It goes on with the oldest event that is left, and lives.
    assert_eq!(all_ready(&mut slow), [Ok(6), Ok(7), Ok(8), Ok(9)]);
    assert_eq!(send(&hub, "ann", 10), 2);
    assert_eq!(ready(&mut slow), Some(Ok(10)));
    assert_eq!(all_ready(&mut prompt), [Ok(10)]);

    // A second lag adds up, and a connection of another user is not concerned.
    let mut bob = hub.register("bob").expect("no cap");
    for number in 11..20 {
        send(&hub, "ann", number);
    }
    assert_eq!(ready(&mut slow), Some(Err(5)));
    assert_eq!(slow.guard().lagged(), 11);
    assert_eq!(ready(&mut bob), None);
    assert_eq!(bob.guard().lagged(), 0);
    assert_eq!(hub.stats().lagged, 11);
}

#[test]
fn seen_and_missed_add_up_to_what_was_sent() {
    for capacity in [1, 2, 3, 64] {
        let hub = hub_of_capacity(capacity);
        let mut stream = hub.register("ann").expect("no cap");
        let (mut sent, mut seen, mut missed, mut next) = (0, 0, 0, 0);
        for burst in [1, 2, 5, 64, 65, 200, 3, 0, 1] {
            for _ in 0..burst {
                send(&hub, "ann", sent);
                sent += 1;
            }
            for _ in 0..=burst / 2 {
                match ready(&mut stream) {
                    Some(Ok(number)) => {
                        assert_eq!(number, next);
                        (seen, next) = (seen + 1, next + 1);
                    }
                    Some(Err(lag)) => (missed, next) = (missed + lag, next + lag),
                    None => break,
                }
            }
        }
        for item in all_ready(&mut stream) {
            match item {
                Ok(number) => {
                    assert_eq!(number, next);
                    (seen, next) = (seen + 1, next + 1);
                }
                Err(lag) => (missed, next) = (missed + lag, next + lag),
            }
        }
        assert!(missed > 0 && seen > 0);
        assert_eq!(seen + missed, sent);
        assert_eq!(stream.guard().lagged(), missed);
        assert_eq!(hub.stats().lagged, missed);
        assert_eq!(hub.stats().deliveries, sent);
    }
}

#[test]
fn lag_is_not_the_end_for_a_reader_that_waits_again() {
    let hub = hub_of_capacity(1);
    let mut stream = hub.register("ann").expect("no cap");
    send(&hub, "ann", 0);
    send(&hub, "ann", 1);
    block_on(async {
        let lag = stream.next().await.expect("not ended").expect_err("lag");
        assert_eq!((lag.reason, lag.missed), (GapReason::Lagged, Some(1)));
        assert!(stream.next().await.expect("not ended").is_ok());
        let sender = hub.clone();
        let late = tokio::join!(stream.next(), async move { send(&sender, "ann", 2) });
        assert_eq!(late.1, 1);
        assert_eq!(late.0.expect("not ended").expect("no lag").data(), "2");
    });
}

/// Counts how often its data is asked for.
#[derive(Default)]
struct Counted(AtomicUsize);

impl ToSse for Counted {
    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        data.text("counted");
        Ok(())
    }
}

impl Counted {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn an_event_is_encoded_once_for_all_receivers() {
    let hub: GenericBroadcaster<Counted> = GenericBroadcaster::builder()
        .connections_per_user(None)
        .build()
        .expect("valid settings");
    let mut streams: Vec<_> = (0..100)
        .map(|_| hub.register("ann").expect("no cap"))
        .collect();
    let event = Counted::default();
    let reached = hub.broadcast("ann", &event).expect("it can be encoded");
    assert_eq!((reached, event.times()), (100, 1));

    let frames: Vec<_> = streams
        .iter_mut()
        .map(|stream| stream.next().now_or_never().flatten())
        .map(|item| item.expect("an event").expect("no lag"))
        .collect();
    for frame in &frames {
        assert!(Arc::ptr_eq(frame, &frames[0]), "a copy of its own");
    }
    assert_eq!(event.times(), 1, "encoded again when it was read");
    let stats = hub.stats();
    assert_eq!((stats.encoded, stats.deliveries), (1, 100));
}

#[test]
fn an_absent_user_costs_no_encoding_and_no_allocation() {
    let hub = GenericBroadcaster::<Counted>::new();
    let present = hub.register("ann").expect("no cap is reached");
    let event = Counted::default();
    // What this thread and the libraries keep for ever is allocated here.
    assert_eq!(hub.broadcast("bob", &event).expect("nothing is encoded"), 0);

    let mut reached = 0;
    let absent = measure(|| {
        for user in [
            "bob",
            "",
            "a user whose id is longer than any buffer one would put on the stack",
        ] {
            for _ in 0..100 {
                reached += hub.broadcast(user, &event).expect("nothing is encoded");
            }
        }
    });
    assert_eq!((reached, event.times()), (0, 0));
    assert_eq!(absent.count_total, 0, "{absent:?}");
    let there = measure(|| reached = hub.broadcast("ann", &event).expect("it can be encoded"));
    assert_eq!((reached, event.times()), (1, 1));
    assert!(there.count_total > 0, "allocations are not counted");

    // The same after somebody was there and left.
    drop(present);
    let left = measure(|| reached = hub.broadcast("ann", &event).expect("nothing is encoded"));
    assert_eq!((reached, event.times(), left.count_total), (0, 1, 0));
    let stats = hub.stats();
    assert_eq!((stats.broadcasts, stats.encoded, stats.failed), (303, 1, 0));
}

#[test]
fn reading_an_event_allocates_nothing() {
    let hub = Hub::new();
    let mut stream = hub.register("ann").expect("no cap is reached");
    for number in 0..10 {
        send(&hub, "ann", number);
        let mut item = None;
        let read = measure(|| item = stream.next().now_or_never());
        assert!(matches!(item, Some(Some(Ok(_)))));
        assert_eq!(read.count_total, 0, "{read:?}");
    }
}

/// An event that fails or panics as it is told.
enum Trouble {
    None,
    Fails,
    FailsLate,
    Panics,
    PanicsInName,
    BadName,
}

impl ToSse for Trouble {
    fn event(&self) -> Option<&str> {
        match self {
            Self::PanicsInName => panic!("on purpose"),
            Self::BadName => Some("two\nlines"),
            _ => None,
        }
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Fails => Err(EncodeError::other("on purpose")),
            Self::FailsLate => {
                data.text("half of it\n\nand an end");
                Err(EncodeError::other("on purpose"))
            }
            Self::Panics => panic!("on purpose"),
            _ => {
                data.text("7");
                Ok(())
            }
        }
    }
}

#[test]
fn an_event_that_fails_or_panics_harms_only_its_own_broadcast() {
    let hub = GenericBroadcaster::<Trouble>::new();
    let mut streams: Vec<_> = ["ann", "ann", "bob"]
        .map(|user| hub.register(user).expect("no cap is reached"))
        .into();
    for event in [Trouble::Fails, Trouble::FailsLate, Trouble::BadName] {
        let error = hub.broadcast("ann", &event).expect_err("it fails");
        assert!(matches!(error, BroadcastError::Encode(_)));
    }
    for event in [Trouble::Panics, Trouble::PanicsInName] {
        let call = || hub.broadcast("ann", &event).is_ok();
        let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("it panics");
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    }
    // Nobody is there to be reached: it is not even asked.
    let absent = hub.broadcast("nobody", &Trouble::Panics);
    assert_eq!(absent.expect("nothing is encoded"), 0);

    for stream in &mut streams {
        assert_eq!(ready(stream), None, "part of a failed event");
    }
    assert_eq!(hub.broadcast("ann", &Trouble::None).expect("no trouble"), 2);
    assert_eq!(hub.broadcast("bob", &Trouble::None).expect("no trouble"), 1);
    for stream in &mut streams {
        assert_eq!(all_ready(stream), [Ok(7)]);
    }
    streams.push(hub.register("ann").expect("registering works as before"));
    assert_eq!(hub.connection_count("ann"), 3);
    let stats = hub.stats();
    assert_eq!((stats.broadcasts, stats.encoded, stats.failed), (8, 2, 3));
    assert_eq!(stats.deliveries, 3);
    drop(streams);
    assert_eq!(hub.total_connections(), 0);
}

/// An event that uses its broadcaster while it is encoded.
struct Recursive {
    hub: GenericBroadcaster<Recursive>,
    depth: u64,
}

impl ToSse for Recursive {
    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        if let Some(depth) = self.depth.checked_sub(1) {
            let hub = self.hub.clone();
            let inner = Recursive { hub, depth };
            for user in ["ann", "bob"] {
                let sent = self.hub.broadcast(user, &inner);
                sent.map_err(EncodeError::other)?;
            }
            // Come and go, so that the very entry in the map that this broadcast found is changed under it.
            drop(self.hub.register("ann").map_err(EncodeError::other)?);
            drop(self.hub.register("carol").map_err(EncodeError::other)?);
        }
        data.text(&self.depth.to_string());
        Ok(())
    }
}

#[test]
fn an_event_may_broadcast_and_register_while_it_is_encoded() {
    let hub = GenericBroadcaster::<Recursive>::new();
    let mut ann = hub.register("ann").expect("no cap is reached");
    let mut bob = hub.register("bob").expect("no cap is reached");
    let event = Recursive {
        hub: hub.clone(),
        depth: 3,
    };
    assert_eq!(hub.broadcast("ann", &event).expect("it can be encoded"), 1);
    // What is sent from within is sent before what it was sent from.
    let numbers = |items: Vec<Result<u64, u64>>| -> Vec<u64> {
        items.into_iter().map(|n| n.expect("no lag")).collect()
    };
    assert_eq!(numbers(all_ready(&mut ann)), [0, 1, 0, 2, 0, 1, 0, 3]);
    assert_eq!(numbers(all_ready(&mut bob)), [0, 0, 1, 0, 0, 1, 2]);
    assert_eq!(hub.total_connections(), 2);
    assert_eq!(hub.stats().users, 2);
}

#[test]
fn an_event_may_end_the_user_it_is_for() {
    struct Drains(GenericBroadcaster<Drains>);
    impl ToSse for Drains {
        fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
            assert_eq!(self.0.drain_user("ann"), 1);
            data.text("1");
            Ok(())
        }
    }
    let hub = GenericBroadcaster::<Drains>::new();
    let mut ann = hub.register("ann").expect("no cap is reached");
    // An event is sent once it is encoded, which here is after the drain.
    assert_eq!(
        hub.broadcast("ann", &Drains(hub.clone())).expect("encoded"),
        0
    );
    assert!(
        ann.next()
            .now_or_never()
            .expect("it is not waiting")
            .is_none()
    );
}

#[test]
fn the_trait_works_behind_dyn() {
    let hub = Hub::builder()
        .connections_per_user(1)
        .build()
        .expect("valid settings");
    let hub: Arc<dyn Broadcaster<Event = Text>> = Arc::new(hub);
    let (ann, bob) = (UserId::from("ann"), UserId::from("bob"));
    let tab = ConnectionId::from("tab");
    block_on(async {
        let mut stream = hub.register(&ann, tab.clone()).await.expect("no cap");
        let full = hub.register(&ann, ConnectionId::from("other")).await;
        assert!(matches!(full, Err(RegisterError::UserFull { cap: 1, .. })));
        assert_eq!(hub.connection_count(&ann).await, 1);
        assert_eq!(hub.connection_count(&bob).await, 0);
        assert_eq!(hub.total_connections().await, 1);
        assert_eq!(hub.broadcast(&ann, &text(5)).await.expect("encoded"), 1);
        assert_eq!(hub.broadcast(&bob, &text(6)).await.expect("encoded"), 0);
        let bad = text(7).event("two\nlines");
        assert!(hub.broadcast(&ann, &bad).await.is_err());
        assert_eq!(all_ready(&mut stream), [Ok(5)]);
        assert!(!hub.unregister(&bob, &tab).await);
        assert!(hub.unregister(&ann, &tab).await);
        assert!(stream.next().await.is_none());
        assert_eq!(hub.total_connections().await, 0);
    });
    // From another thread, in a task: the futures are Send.
    let task = async move { hub.broadcast(&ann, &text(8)).await.expect("encoded") };
    let reached = thread::spawn(move || block_on(async { tokio::spawn(task).await }));
    assert_eq!(reached.join().expect("no panic").expect("no panic"), 0);
}

#[test]
fn events_may_be_of_several_types_behind_dyn() {
    let hub = GenericBroadcaster::<dyn ToSse + Sync>::new();
    let mut stream = hub.register("ann").expect("no cap is reached");
    for event in [
        &text(1) as &(dyn ToSse + Sync),
        &tidings::JsonEvent::new(2),
        &Trouble::None,
    ] {
        assert_eq!(hub.broadcast("ann", event).expect("encoded"), 1);
    }
    assert_eq!(all_ready(&mut stream), [Ok(1), Ok(2), Ok(7)]);
}
