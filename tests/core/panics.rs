//! Code of the service that panics where it is called from here: an event in each of its methods, what restores attachments on
//! another node, and a view. Only the broadcast or the stream that called it fails; nothing is poisoned, and no event of
//! the others is lost or comes twice. How an event fails to encode is in `delivery.rs`.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http_body::Body;
use tidings::backplane::Level;
use tidings::sse::{Chunks, View};
use tidings::{
    Attachment, Builder, Data, EncodeError, EventId, Frame, Gap, GenericBroadcaster, History,
    KeepAlive, LagPolicy, LastEventId, Meta, SseBody, Subscription, ToSse, TraceParent,
};
use tidings_testkit::backplane::InProcess;
use tokio::time::timeout;
use tokio_stream::StreamExt;

/// A method of [`ToSse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Event,
    Id,
    Retry,
    Comment,
    Data,
    Meta,
}

const METHODS: [Method; 6] = [
    Method::Event,
    Method::Id,
    Method::Retry,
    Method::Comment,
    Method::Data,
    Method::Meta,
];

/// A number, and a method that panics.
struct Bad {
    number: u64,
    panics: Option<Method>,
    has_panicked: Cell<bool>,
}

impl Bad {
    fn new(number: u64, panics: Option<Method>) -> Self {
        Self {
            number,
            panics,
            has_panicked: Cell::new(false),
        }
    }

    fn good(number: u64) -> Self {
        Self::new(number, None)
    }

    fn called(&self, method: Method) {
        if self.panics == Some(method) {
            self.has_panicked.set(true);
            panic!("on purpose");
        }
    }
}

impl ToSse for Bad {
    fn event(&self) -> Option<&str> {
        self.called(Method::Event);
        None
    }

    fn id(&self) -> Option<EventId> {
        self.called(Method::Id);
        None
    }

    fn retry(&self) -> Option<Duration> {
        self.called(Method::Retry);
        None
    }

    fn comment(&self) -> Option<&str> {
        self.called(Method::Comment);
        None
    }

    fn meta(&self) -> Meta<'_> {
        self.called(Method::Meta);
        let mut meta = Meta::default();
        meta.key = Some("the only key");
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text("half of it\n");
        self.called(Method::Data);
        data.json(&self.number)
    }
}

type Hub = GenericBroadcaster<Bad>;

fn join(hub: &Hub, user: &str) -> Subscription {
    hub.register(user).expect("no cap is reached")
}

fn number_of(frame: &Frame) -> u64 {
    let data = frame.data();
    let number = data.strip_prefix("half of it\n").expect("the whole");
    number.parse().expect("a number")
}

/// The numbers that the stream has ready. A gap is a failure.
fn ready(stream: &mut Subscription) -> Vec<u64> {
    let next = || stream.next().now_or_never().flatten();
    std::iter::from_fn(next)
        .map(|item| number_of(&item.expect("nothing is lost")))
        .collect()
}

/// Broadcasts, catching a panic: how many it reached, or `None`.
fn broadcast(hub: &Hub, user: &str, event: &Bad) -> Option<usize> {
    let call = || hub.broadcast(user, event).expect("it is no failure");
    let reached = catch_unwind(AssertUnwindSafe(call));
    assert_eq!(reached.is_err(), event.has_panicked.get());
    reached.ok()
}

/// Every kind of broadcaster that has one process.
fn hubs() -> Vec<(&'static str, Hub)> {
    let build = |builder: Builder<Bad>| builder.build().expect("valid settings");
    let history = || Hub::builder().history(History::new(100));
    vec![
        ("plain", build(Hub::builder())),
        ("history", build(history())),
        (
            "coalescing",
            build(Hub::builder().lag_policy(LagPolicy::Coalesce)),
        ),
        (
            "coalescing with a history",
            build(history().lag_policy(LagPolicy::Coalesce)),
        ),
        ("with keys", build(Hub::builder().coalesce_keys(4))),
    ]
}

#[test]
fn an_event_that_panics_anywhere_fails_only_its_own_broadcast() {
    for (kind, hub) in hubs() {
        let mut streams = ["ann", "ann", "bob"].map(|user| join(&hub, user));
        let mut sent = Vec::new();
        for (number, method) in (0..).zip(METHODS) {
            let bad = Bad::new(1000, Some(method));
            let reached = broadcast(&hub, "ann", &bad);
            if reached.is_some() {
                // With a history ids are its own.
                assert!(method == Method::Id, "{kind}: {method:?} is not asked");
                sent.push(1000);
            }
            assert_eq!(broadcast(&hub, "ann", &Bad::good(number)), Some(2));
            sent.push(number);
        }
        let [ann, other, bob] = &mut streams;
        assert_eq!(ready(ann), sent, "{kind}");
        assert_eq!(ready(other), sent, "{kind}");
        assert_eq!(broadcast(&hub, "bob", &Bad::good(7)), Some(1));
        assert_eq!(ready(bob), [7], "{kind}");
        let stats = hub.stats();
        assert_eq!(stats.encoded, sent.len() as u64 + 1, "{kind}");
        drop(streams);
        assert_eq!(hub.total_connections(), 0, "{kind}");
    }
}

#[test]
fn an_event_that_panics_takes_no_place_in_a_history() {
    for (kind, hub) in hubs()
        .into_iter()
        .filter(|(kind, _)| kind.contains("history"))
    {
        let mut stream = join(&hub, "ann");
        let seen = LastEventId::new(&stream.cursor().expect("there is a history"));
        let mut sent = Vec::new();
        for (number, method) in (0..).zip(METHODS) {
            if broadcast(&hub, "ann", &Bad::new(1000, Some(method))).is_some() {
                sent.push(1000);
            }
            broadcast(&hub, "ann", &Bad::good(number));
            sent.push(number);
        }
        let offsets: Vec<u64> = std::iter::from_fn(|| stream.next().now_or_never().flatten())
            .map(|item| {
                let frame = item.expect("nothing is lost");
                let id = frame.fields().find(|(name, _)| *name == "id");
                let (_, offset) = id.expect("an id").1.split_once('-').expect("two parts");
                offset.parse().expect("a number")
            })
            .collect();
        assert_eq!(offsets, (1..=sent.len() as u64).collect::<Vec<_>>());
        drop(stream);
        // Also while the user is away.
        for method in METHODS {
            if broadcast(&hub, "ann", &Bad::new(1000, Some(method))).is_some() {
                sent.push(1000);
            }
        }
        let mut back = hub.resume("ann", &seen).expect("no cap is reached");
        assert_eq!(ready(&mut back), sent, "{kind}");
    }
}

#[test]
fn a_lag_key_that_panics_leaves_what_stands_for_the_lost() {
    let hub = Hub::builder()
        .ring_capacity(2)
        .lag_policy(LagPolicy::Coalesce)
        .build()
        .expect("valid settings");
    let (mut slow, mut prompt) = (join(&hub, "ann"), join(&hub, "ann"));
    for number in 0..10 {
        assert_eq!(broadcast(&hub, "ann", &Bad::good(number)), Some(2));
        let bad = Bad::new(1000, Some(Method::Meta));
        assert_eq!(broadcast(&hub, "ann", &bad), None);
        assert_eq!(ready(&mut prompt), [number]);
    }
    // It has lost eight, for which the ninth stands: had one of the others come in without its key, there were a gap.
    assert_eq!(ready(&mut slow), [8, 9]);
}

#[test]
fn the_event_of_a_traced_broadcast_may_panic_too() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let parent: TraceParent = parent.parse().expect("it is one");
    let hub = Hub::new();
    let mut stream = join(&hub, "ann");
    for method in METHODS {
        let bad = Bad::new(1000, Some(method));
        let call = || hub.broadcast_traced("ann", &bad, parent).is_ok();
        let has_panicked = catch_unwind(AssertUnwindSafe(call)).is_err();
        assert_eq!(has_panicked, bad.has_panicked.get());
        assert!(has_panicked, "{method:?}");
        ready(&mut stream);
        broadcast(&hub, "ann", &Bad::good(1));
        assert_eq!(ready(&mut stream), [1]);
    }
}

/// `Cell` is not `Sync`, and a publisher's task needs no more than `Send`.
#[tokio::test]
async fn a_publisher_continues_after_an_event_that_panics() {
    let hub = Hub::new();
    let mut stream = join(&hub, "ann");
    let publisher = hub.publisher(100).expect("there is a runtime");
    for (number, method) in (0..).zip(METHODS) {
        let bad = Bad::new(1000, Some(method));
        publisher.publish("ann", bad).await.expect("it runs");
        let good = Bad::good(number);
        publisher.publish("ann", good).await.expect("it runs");
    }
    assert!(publisher.flush().await);
    assert_eq!(ready(&mut stream), (0..6).collect::<Vec<_>>());
}

/// The next number, on paused time, which goes on by itself when nobody has anything to do.
async fn next(stream: &mut Subscription) -> u64 {
    let item = timeout(Duration::from_secs(60), stream.next()).await;
    let item = item.expect("something comes").expect("it goes on");
    number_of(&item.expect("nothing is lost"))
}

#[tokio::test(start_paused = true)]
async fn an_event_that_panics_does_not_go_to_other_nodes_and_the_next_one_does() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let node = || {
            let builder = Hub::builder().backplane(engine.node());
            builder.build().expect("valid settings")
        };
        let (one, other) = (node(), node());
        let mut here = one.register_when_ready("ann").await.expect("room");
        let mut there = other.register_when_ready("ann").await.expect("room");
        let mut absent = other.register_when_ready("bob").await.expect("room");
        for (number, method) in (0..).zip(METHODS) {
            for user in ["ann", "bob"] {
                let is_sent = broadcast(&one, user, &Bad::new(1000, Some(method))).is_some();
                let unasked = method == Method::Id && level == Level::Replayable;
                assert!(!is_sent || unasked, "{method:?} is not asked");
                broadcast(&one, user, &Bad::good(number));
            }
            for stream in [&mut here, &mut there, &mut absent] {
                while next(stream).await == 1000 {}
            }
        }
        for stream in [&mut here, &mut there, &mut absent] {
            assert!(ready(stream).is_empty());
        }
    }
}

/// Panics for odd numbers.
fn attachment_of(data: &str, _: Option<&str>) -> Option<Attachment> {
    let number = data.strip_prefix("half of it\n").expect("the whole");
    let number: u64 = number.parse().expect("a number");
    assert_eq!(number % 2, 0, "on purpose");
    Some(Arc::new(number))
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_attachment_cannot_be_restored_has_none_and_the_next_one_has_its() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let node = || {
            let builder = Hub::builder()
                .backplane(engine.node())
                .attachments(attachment_of);
            builder.build().expect("valid settings")
        };
        let (one, other) = (node(), node());
        let mut here = one.register_when_ready("ann").await.expect("room");
        let seen = here.cursor().map(|cursor| LastEventId::new(&cursor));
        let mut there = other.register_when_ready("ann").await.expect("room");
        let mut sent = Vec::new();
        for number in 0..4 {
            let event = Bad::good(number);
            let sending = one.broadcast_confirmed("ann", &event);
            sending.await.expect("the engine is there");
            sent.push((number, (number % 2 == 0).then_some(number)));
            assert_eq!(next(&mut here).await, number);
        }
        let mut streams = vec![there];
        // A client that comes to another node reads them from the engine.
        let third = node();
        if let Some(seen) = seen {
            streams.push(third.resume("ann", &seen).expect("room"));
        }
        for stream in &mut streams {
            let mut got = Vec::new();
            while got.len() < sent.len() {
                let item = timeout(Duration::from_secs(60), stream.next()).await;
                let item = item.expect("it comes").expect("it goes on");
                let frame = item.expect("nothing is lost");
                got.push((number_of(&frame), frame.attachment::<u64>().copied()));
            }
            assert_eq!(got, sent);
        }
        there = streams.swap_remove(0);
        assert!(ready(&mut there).is_empty());
    }
}

/// Panics where it is told to.
struct BadView(&'static str);

impl BadView {
    fn called(&self, method: &str) {
        assert_ne!(self.0, method, "on purpose");
    }
}

impl View for BadView {
    fn begin(&mut self, _: &mut Chunks) -> ControlFlow<()> {
        self.called("begin");
        ControlFlow::Continue(())
    }

    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        chunks.push(frame.to_bytes());
        self.called("show");
        ControlFlow::Continue(())
    }

    fn gap(&mut self, _: &Gap, _: &mut Chunks) -> ControlFlow<()> {
        self.called("gap");
        ControlFlow::Continue(())
    }

    fn end(&mut self, _: &mut Chunks) {
        self.called("end");
    }
}

#[test]
fn a_view_that_panics_takes_its_own_stream_along_and_no_other() {
    for method in ["begin", "show", "gap", "end"] {
        let hub = Hub::builder()
            .ring_capacity(2)
            .build()
            .expect("valid settings");
        let stream = join(&hub, "ann");
        let body = SseBody::new(stream).keep_alive(&KeepAlive::off());
        let mut body = body.view(BadView(method));
        let mut other = join(&hub, "ann");
        for number in 0..4 {
            broadcast(&hub, "ann", &Bad::good(number));
            assert_eq!(ready(&mut other), [number]);
        }
        hub.unregister("ann", other.guard().connection_id());
        hub.drain_user("ann");
        let mut other = join(&hub, "ann");
        let read = AssertUnwindSafe(|| {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            while let std::task::Poll::Ready(Some(_)) =
                std::pin::Pin::new(&mut body).poll_frame(&mut cx)
            {}
        });
        assert!(catch_unwind(read).is_err(), "{method} was not called");
        drop(body);
        assert_eq!(hub.total_connections(), 1);
        broadcast(&hub, "ann", &Bad::good(9));
        assert_eq!(ready(&mut other), [9]);
    }
}
