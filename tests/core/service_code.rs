//! Code of the service that runs inside a call of ours, the drop of an attachment and whatever an executor does in a wake, runs
//! under no lock: it may use the broadcaster it was called from, and may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures_core::Stream;
use futures_util::FutureExt;
use tidings::backplane::{Backplane, Event, Level};
use tidings::{
    Attachment, Builder, Data, EncodeError, Frame, Gap, GenericBroadcaster, History, LagPolicy,
    LastEventId, Meta, Subscription, Text, ToSse,
};
use tidings_testkit::backplane::InProcess;
use tokio::time::timeout;
use tokio_stream::StreamExt;

/// A number, and what is to be done when the last one lets go of it.
struct Numbered {
    number: u64,
    key: Option<String>,
    attachment: Option<Attachment>,
}

impl ToSse for Numbered {
    fn meta(&self) -> Meta<'_> {
        let mut meta = Meta::default();
        meta.key = self.key.as_deref();
        meta.attachment = self.attachment.clone();
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.json(&self.number)
    }
}

/// Calls a function when it is dropped.
struct OnDrop(Box<dyn Fn() + Send + Sync>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        (self.0)();
    }
}

type Hub = GenericBroadcaster<Numbered>;

fn numbered(number: u64) -> Numbered {
    Numbered {
        number,
        key: Some(format!("key {}", number % 3)),
        attachment: None,
    }
}

fn with_drop(number: u64, drop: impl Fn() + Send + Sync + 'static) -> Numbered {
    Numbered {
        attachment: Some(Arc::new(OnDrop(Box::new(drop)))),
        ..numbered(number)
    }
}

fn send(hub: &Hub, event: Numbered) -> usize {
    hub.broadcast("ann", &event).expect("a number is JSON")
}

fn join(hub: &Hub) -> Subscription {
    hub.register("ann").expect("no cap is reached")
}

fn number_of(item: Result<Arc<Frame>, Gap>) -> Option<u64> {
    Some(item.ok()?.data().parse().expect("a number"))
}

/// The numbers that the stream has ready, and `None` for each gap.
fn ready(stream: &mut Subscription) -> Vec<Option<u64>> {
    let next = || stream.next().now_or_never().flatten();
    std::iter::from_fn(next).map(number_of).collect()
}

/// Every kind of broadcaster that has one process, each small enough to drop something at every event.
fn hubs() -> Vec<(&'static str, Hub)> {
    let build =
        |builder: Builder<Numbered>| builder.ring_capacity(2).build().expect("valid settings");
    let history = || Hub::builder().history(History::new(2));
    let coalescing = |builder: Builder<Numbered>| builder.lag_policy(LagPolicy::Coalesce);
    vec![
        ("plain", build(Hub::builder())),
        ("history", build(history())),
        (
            "coalescing",
            build(coalescing(Hub::builder()).coalesce_keys(2)),
        ),
        ("both", build(coalescing(history()).coalesce_keys(2))),
    ]
}

/// Runs `f` in a thread of its own, and fails if it does not come back.
#[track_caller]
fn comes_back(what: &str, f: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let runner = thread::spawn(move || {
        f();
        done.send(()).expect("it is waited for");
    });
    match is_done.recv_timeout(Duration::from_secs(20)) {
        Ok(()) => {}
        Err(mpsc::RecvTimeoutError::Disconnected) => match runner.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it has said that it is done"),
        },
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: it waits for itself"),
    }
}

/// Whatever lets go of an event last: a broadcast that takes its place in the ring, in the history or under its key, a
/// stream that leaves, a sweep, the end of a history.
#[test]
fn an_attachment_may_broadcast_when_it_is_dropped() {
    for (kind, hub) in hubs() {
        comes_back(kind, move || {
            let answers = Arc::new(AtomicU64::new(0));
            let answer = || {
                let (hub, answers) = (hub.clone(), answers.clone());
                move || {
                    answers.fetch_add(1, Ordering::Relaxed);
                    send(&hub, numbered(1000));
                }
            };
            let (stale, mut prompt) = (join(&hub), join(&hub));
            for number in 0..20 {
                send(&hub, with_drop(number, answer()));
                ready(&mut prompt);
            }
            let unread = join(&hub);
            send(&hub, with_drop(20, answer()));
            drop((stale, unread));
            drop(prompt);
            send(&hub, with_drop(21, answer()));
            hub.sweep();
            hub.forget("ann");
            assert_eq!(hub.total_connections(), 0);
            let sent = if kind.contains("history") || kind == "both" {
                22
            } else {
                21
            };
            // What was sent while nobody was in and nothing kept was dropped by its own broadcast.
            assert!(
                answers.load(Ordering::Relaxed) >= sent,
                "{kind}: all are dropped"
            );
        });
    }
}

#[test]
fn an_attachment_of_a_message_that_comes_twice_may_register_when_it_is_dropped() {
    static HUB: OnceLock<GenericBroadcaster<Text>> = OnceLock::new();
    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    comes_back("the attachment of a message that comes twice", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let engine = InProcess::new(Level::Replayable);
            let (node, other) = (engine.node(), engine.node());
            let mut seen = other.events();
            let interest = other.set_interest(&["ann".into()], &[]).await;
            interest.expect("the engine is there");
            let hub = GenericBroadcaster::<Text>::builder()
                .history(History::new(100))
                .backplane(node.clone())
                .attachments(|_, _| {
                    Some(Arc::new(OnDrop(Box::new(|| {
                        drop(HUB.get().map(|hub| hub.register("ann")));
                        DROPPED.fetch_add(1, Ordering::Relaxed);
                    }))))
                })
                .build()
                .expect("valid settings");
            let mut stream = hub.register_when_ready("ann").await.expect("room");
            HUB.get_or_init(|| hub.clone());

            hub.broadcast("ann", &Text::new("one")).expect("sent");
            let message = loop {
                if let Event::Message(message) = seen.next().await.expect("the engine is there") {
                    break message;
                }
            };
            assert_eq!(text_of(stream.next().await), "one");
            let before = DROPPED.load(Ordering::Relaxed);
            node.inject(message);
            hub.broadcast("ann", &Text::new("two")).expect("sent");
            assert_eq!(text_of(stream.next().await), "two", "once each");
            assert!(DROPPED.load(Ordering::Relaxed) > before);
        });
    });
}

fn text_of(item: Option<Result<Arc<Frame>, Gap>>) -> String {
    let frame = item.expect("the stream goes on").expect("no gap");
    frame.data()
}

#[test]
fn an_attachment_whose_drop_panics_moves_no_event() {
    for (kind, hub) in hubs() {
        let mut prompt = join(&hub);
        let cursor = prompt.cursor();
        let mut slow = join(&hub);
        let panics = Arc::new(AtomicBool::new(true));
        for number in 0..20 {
            let panics = panics.clone();
            let event = with_drop(number, move || {
                assert!(!panics.load(Ordering::Relaxed), "on purpose");
            });
            let sent = catch_unwind(AssertUnwindSafe(|| send(&hub, event)));
            assert_eq!(sent.ok(), Some(2), "{kind}: it was sent, and says so");
            let got = catch_unwind(AssertUnwindSafe(|| ready(&mut prompt)));
            assert_eq!(got.ok(), Some(vec![Some(number)]), "{kind}");
        }
        // From now on it is this test that drops them.
        panics.store(false, Ordering::Relaxed);
        let left: Vec<_> = ready(&mut slow).into_iter().flatten().collect();
        assert_eq!(left[left.len() - 2..], [18, 19], "{kind}");
        assert!(left.is_sorted(), "{kind}: {left:?}");
        if let Some(cursor) = cursor {
            let seen = LastEventId::new(&cursor);
            let mut back = hub.resume("ann", &seen).expect("no cap is reached");
            let left: Vec<_> = ready(&mut back).into_iter().flatten().collect();
            assert_eq!(left[left.len() - 2..], [18, 19], "{kind}");
        }
        drop((prompt, slow));
        assert_eq!(hub.total_connections(), 0, "{kind}");
        hub.forget("ann");
        assert_eq!(hub.stats().history_bytes, 0, "{kind}");
    }
}

/// An event whose frame has the only reference to its attachment.
struct Sole;

fn panics_in_drop() -> Attachment {
    Arc::new(OnDrop(Box::new(|| panic!("on purpose"))))
}

impl ToSse for Sole {
    fn meta(&self) -> Meta<'_> {
        let mut meta = Meta::default();
        meta.attachment = Some(panics_in_drop());
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text("sole");
        Ok(())
    }
}

/// Nothing keeps its frame: the broadcast itself drops it.
#[tokio::test]
async fn an_attachment_whose_drop_panics_fails_no_broadcast() {
    for level in [None, Some(Level::AtMostOnce), Some(Level::Replayable)] {
        let mut builder = GenericBroadcaster::<Sole>::builder();
        if let Some(level) = level {
            builder = builder.backplane(InProcess::new(level).node());
        }
        let hub = builder.build().expect("valid settings");
        let _there = hub.register("ann").expect("no cap is reached");
        for user in ["ann", "bob"] {
            let sent = catch_unwind(AssertUnwindSafe(|| hub.broadcast(user, &Sole)));
            let reached = sent.expect("it does not panic").expect("it is sent");
            assert_eq!(reached, usize::from(user == "ann"), "{level:?}");
        }
        let encoded = if level.is_some() { 2 } else { 1 };
        assert_eq!(hub.stats().encoded, encoded, "{level:?}: it is counted");
    }
}

/// Neither what arrives twice, nor what comes between, nor what nobody here wants.
#[tokio::test]
async fn an_attachment_whose_drop_panics_does_not_end_what_arrives() {
    let engine = InProcess::new(Level::Replayable);
    let (node, other) = (engine.node(), engine.node());
    let mut seen = other.events();
    let interest = other.set_interest(&["ann".into()], &[]).await;
    interest.expect("the engine is there");
    let hub = GenericBroadcaster::<Text>::builder()
        .history(History::new(1))
        .ring_capacity(1)
        .backplane(node.clone())
        .attachments(|_, _| Some(panics_in_drop()))
        .build()
        .expect("valid settings");
    let mut stream = hub.register_when_ready("ann").await.expect("room");
    for text in ["one", "two", "three"] {
        hub.broadcast("ann", &Text::new(text)).expect("sent");
        let message = loop {
            if let Event::Message(message) = seen.next().await.expect("the engine is there") {
                break message;
            }
        };
        let next = timeout(Duration::from_secs(20), stream.next()).await;
        assert_eq!(text_of(next.expect("it goes on")), text);
        node.inject(message);
    }
    let first = LastEventId::new(&format!(
        "{:016x}-0",
        node.horizon().expect("there is a log").epoch
    ));
    // What its client has missed is read from the log, for nobody.
    drop(hub.resume("ann", &first).expect("room"));
    let mut back = hub.resume("ann", &first).expect("room");
    for text in ["one", "two", "three"] {
        let next = timeout(Duration::from_secs(20), back.next()).await;
        assert_eq!(text_of(next.expect("it is read")), text);
    }
}

/// A stream that leaves with events it has not read lets go of them, and leaves whatever they do.
#[test]
fn a_stream_leaves_whatever_the_drop_of_its_events_does() {
    for (kind, hub) in hubs() {
        let stream = join(&hub);
        for number in 0..2 {
            send(&hub, with_drop(number, || panic!("on purpose")));
        }
        let left = catch_unwind(AssertUnwindSafe(|| drop(stream)));
        assert!(left.is_ok(), "{kind}");
        assert_eq!(hub.total_connections(), 0, "{kind}");
        hub.forget("ann");
        assert!(hub.connected_users().is_empty(), "{kind}");
    }
}

/// What an executor does with a task that is woken: it runs it, there and then.
struct RunInside {
    hub: Hub,
    stream: Mutex<Option<Pin<Box<Subscription>>>>,
    got: Mutex<Vec<Option<u64>>>,
    wakes: AtomicUsize,
}

impl RunInside {
    fn run(self: &Arc<Self>) {
        let waker = Waker::from(self.clone());
        // Not while it runs already: an executor would run it again later.
        let Ok(mut stream) = self.stream.try_lock() else {
            return;
        };
        let Some(running) = &mut *stream else {
            return;
        };
        while let Poll::Ready(item) = running.as_mut().poll_next(&mut Context::from_waker(&waker)) {
            let Some(item) = item else {
                *stream = None;
                return;
            };
            let number = number_of(item);
            self.got.lock().expect("nobody panics").push(number);
            // It answers, and sees who is there.
            if number.is_some_and(|number| number < 100) {
                send(&self.hub, numbered(100));
            }
            drop(join(&self.hub));
        }
    }
}

impl Wake for RunInside {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.run();
    }
}

#[test]
fn a_task_may_run_inside_its_wake() {
    for (kind, hub) in hubs() {
        comes_back(kind, move || {
            let task = Arc::new(RunInside {
                stream: Mutex::new(Some(Box::pin(join(&hub)))),
                hub: hub.clone(),
                got: Mutex::default(),
                wakes: AtomicUsize::new(0),
            });
            task.run();
            for number in 0..10 {
                // What it has sent itself in this run comes with it or with the next.
                assert_eq!(send(&hub, numbered(number)), 1);
                task.run();
            }
            assert!(task.wakes.load(Ordering::Relaxed) >= 10);
            let got = task.got.lock().expect("nobody panics").clone();
            let sent: Vec<_> = got
                .iter()
                .copied()
                .filter(|got| *got != Some(100))
                .collect();
            assert_eq!(sent, (0..10).map(Some).collect::<Vec<_>>(), "{kind}");
            assert_eq!(got.len(), 20, "{kind}");
            assert_eq!(hub.drain_user("ann"), 1);
            assert!(
                task.stream.lock().expect("nobody panics").is_none(),
                "{kind}: it ends"
            );
            assert_eq!(hub.total_connections(), 0);
        });
    }
}

/// A waker that calls the broadcaster in everything that is done with it.
struct Meddling(Hub);

impl Wake for Meddling {
    fn wake(self: Arc<Self>) {
        self.0.disconnect_user("bob");
        send(&self.0, numbered(200));
    }
}

impl Drop for Meddling {
    fn drop(&mut self) {
        self.0.disconnect_user("bob");
        send(&self.0, numbered(201));
    }
}

#[test]
fn a_waker_may_use_the_broadcaster_when_it_is_woken_and_dropped() {
    for (kind, hub) in hubs() {
        comes_back(kind, move || {
            let mut stream = Box::pin(join(&hub));
            for number in 0..10 {
                let waker = Waker::from(Arc::new(Meddling(hub.clone())));
                let mut cx = Context::from_waker(&waker);
                while stream.as_mut().poll_next(&mut cx).is_ready() {}
                if number % 2 == 0 {
                    send(&hub, numbered(number));
                }
            }
            drop(stream);
            assert_eq!(hub.total_connections(), 0);
        });
    }
}

struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The one to blame is whoever made the waker, and neither who broadcasts nor who else waits.
#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    for (kind, hub) in hubs() {
        let panicking = Waker::from(Arc::new(Panicking));
        let counting = Arc::new(Counting(AtomicUsize::new(0)));
        let waker = Waker::from(counting.clone());
        let mut streams: Vec<_> = (0..7).map(|_| Box::pin(join(&hub))).collect();
        for (index, stream) in streams.iter_mut().enumerate() {
            let waker = if index % 2 == 0 { &panicking } else { &waker };
            let polled = stream.as_mut().poll_next(&mut Context::from_waker(waker));
            assert!(polled.is_pending());
        }
        let sent = catch_unwind(AssertUnwindSafe(|| send(&hub, numbered(1))));
        assert_eq!(sent.ok(), Some(7), "{kind}");
        assert_eq!(counting.0.load(Ordering::Relaxed), 3, "{kind}");
    }
}
