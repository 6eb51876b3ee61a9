//! The backplane over NATS, with a server of its own for each test.

use std::future::Future;
use std::pin::Pin;
use std::slice::from_ref;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::HeaderMap;
use async_nats::connection::State;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tidings::UserId;
use tidings::backplane::{
    Backplane, Cause, Event, Fetched, Message, Missing, Position, Published, Received,
};
use tidings_nats::{ConnectError, Connection, Interest, Log, Nats, Settings, Storage};
use tidings_testkit::backplane;
use tokio::time::{sleep, timeout};

use crate::support::nats::{Network, Server};
use crate::support::networked::{KEPT, Networked};

/// Nothing that has to happen takes so long.
const BOUND: Duration = Duration::from_secs(30);

fn options() -> ConnectOptions {
    ConnectOptions::new().ignore_discovered_servers()
}

fn log(storage: Storage) -> Log {
    Log::new("TEST").storage(storage).max_per_user(KEPT)
}

fn once() -> Settings {
    Settings::new("test").buckets(16)
}

fn nodes(settings: Settings) -> Networked<Settings> {
    Networked::new(Server::start(), settings)
}

/// The conformance suite, at a level and with an interest.
macro_rules! conforms {
    ($name:ident, $settings:expr) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn does_what_every_backplane_does() {
                backplane::every_level(&nodes($settings)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn reports_failures() {
                backplane::failures(&nodes($settings)).await;
            }
        }
    };
}

conforms!(once_per_user, once());
conforms!(once_by_buckets, once().interest(Interest::Buckets));
conforms!(file_per_user, once().replayable(log(Storage::File)));
conforms!(
    memory_by_buckets,
    once()
        .replayable(log(Storage::Memory))
        .interest(Interest::Buckets)
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_files_is_a_log() {
    backplane::replayable(&nodes(once().replayable(log(Storage::File)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_memory_is_a_log() {
    let settings = once().replayable(log(Storage::Memory));
    backplane::replayable(&nodes(settings.interest(Interest::Buckets))).await;
}

/// A node, its events, and a client beside it.
struct Scene {
    node: Nats,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    client: async_nats::Client,
    _server: Server,
}

impl Scene {
    async fn new(settings: Settings, options: ConnectOptions) -> Self {
        let server = Server::start();
        let node = Nats::connect(&server.url(), options, settings).await;
        let node = node.expect("it connects");
        let client = async_nats::connect(server.url()).await;
        Self {
            events: node.events(),
            node,
            client: client.expect("it connects"),
            _server: server,
        }
    }

    async fn event(&mut self) -> Event {
        let event = within("an event", self.events.next()).await;
        event.expect("events go on")
    }

    async fn join(&mut self, users: &[UserId]) {
        self.node.set_interest(users, &[]).await.unwrap();
        assert!(matches!(self.event().await, Event::Ready(ready) if ready.len() == users.len()));
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(BOUND, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

fn message(user: &UserId, id: u128, body: impl Into<Bytes>) -> Message {
    Message {
        user: user.clone(),
        id,
        body: body.into(),
    }
}

fn is_of(event: &Event, text: &str) -> bool {
    matches!(event, Event::Message(Received { body, .. }) if body == text)
}

#[tokio::test]
async fn what_is_no_message_is_foreign_and_harms_nothing() {
    let settings = once().buckets(1).interest(Interest::Buckets);
    let mut scene = Scene::new(settings, options()).await;
    let ann = UserId::from("ann");
    scene.join(from_ref(&ann)).await;
    for subject in ["test.live.1.0.=41", "test.live.1.0.a.b", "test.live.1.0.ü"] {
        scene.client.publish(subject, "x".into()).await.unwrap();
        scene.client.flush().await.unwrap();
        assert_eq!(scene.event().await, Event::Foreign, "{subject}");
    }
    // Somebody who is elsewhere.
    scene
        .client
        .publish("test.live.1.0.bob", "x".into())
        .await
        .unwrap();
    scene
        .client
        .publish("test.live.1.0.ann", "y".into())
        .await
        .unwrap();
    assert!(is_of(&scene.event().await, "y"));
}

#[tokio::test]
async fn a_message_that_is_not_from_the_log_is_foreign() {
    let settings = once().buckets(1).replayable(log(Storage::Memory));
    let mut scene = Scene::new(settings, options()).await;
    let ann = UserId::from("ann");
    scene.join(from_ref(&ann)).await;
    let subject = "test.live.1.0.ann";
    scene
        .client
        .publish(subject, "forged".into())
        .await
        .unwrap();
    assert_eq!(scene.event().await, Event::Foreign);
    for (stream, sequence, last) in [
        ("TEST", "x", "0"),
        ("TEST", "-1", "0"),
        ("TEST", "1", "1"),
        ("TEST", "99999999999999999999", "0"),
        ("OTHER", "1", "0"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Stream", stream);
        headers.insert("Nats-Sequence", sequence);
        headers.insert("Nats-Last-Sequence", last);
        let sent = scene
            .client
            .publish_with_headers(subject, headers, "forged".into());
        sent.await.unwrap();
        assert_eq!(
            scene.event().await,
            Event::Foreign,
            "{stream} {sequence} {last}"
        );
    }
    scene
        .node
        .publish(&[message(&ann, 1, "real")])
        .await
        .unwrap();
    assert!(is_of(&scene.event().await, "real"));
}

#[tokio::test]
async fn a_stream_that_is_another_is_refused() {
    let server = Server::start();
    let url = server.url();
    let connect = |settings| Nats::connect(&url, options(), settings);
    let first = once().replayable(log(Storage::File));
    for what in ["it makes the log", "it finds the log"] {
        let node = connect(first.clone()).await.expect(what);
        node.close(tokio::time::Instant::now() + BOUND).await;
    }
    for (other, what) in [
        (once().replayable(log(Storage::Memory)), "storage"),
        (once().buckets(8).replayable(log(Storage::File)), "subjects"),
        (
            Settings::new("other").replayable(log(Storage::File)),
            "subjects",
        ),
    ] {
        match connect(other).await {
            Err(ConnectError::Contradiction(said)) => assert!(said.contains(what), "{said}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    for settings in [
        Settings::new(""),
        Settings::new("a..b"),
        Settings::new("a.*"),
        Settings::new("a b"),
        Settings::new("$SYS"),
        once().buckets(0),
        once().timeout(Duration::ZERO),
        once().replayable(Log::new("a.b")),
        once().replayable(Log::new("a").max_age(Duration::from_secs(1))),
        once().replayable(Log::new("a").max_per_user(0)),
    ] {
        // Before anybody is connected to.
        let refused = Nats::connect("127.0.0.1:1", options(), settings.clone()).await;
        assert!(
            matches!(refused, Err(ConnectError::Settings(_))),
            "{settings:?}: {refused:?}"
        );
    }
    let nobody = Nats::connect("127.0.0.1:1", options(), once()).await;
    assert!(matches!(nobody, Err(ConnectError::Connect(_))));
}

/// Of a server that answers with several messages, NATS 2.11 or newer.
#[tokio::test]
async fn a_long_resume_takes_few_requests() {
    const MISSED: u128 = 300;
    let server = Server::start();
    let connection = Connection::open(&server.url(), options()).await;
    let connection = connection.expect("it connects");
    let settings = once().replayable(Log::new("TEST").max_per_user(1_000));
    let node = Nats::over(&connection, settings).await;
    let node = node.expect("it connects");
    let ann = UserId::from("ann");
    let mut place = None;
    for id in 0..=MISSED {
        let text = format!("{id}");
        let published = node.publish(&[message(&ann, id, text)]).await;
        match published.expect("it is there").as_slice() {
            [Published::Accepted(Some(position))] => place.get_or_insert(*position),
            other => panic!("{other:?}"),
        };
    }
    let client = connection.client();
    let sent = || client.statistics().out_messages.load(Ordering::Relaxed);
    let before = sent();
    let place = place.expect("something was published");
    let messages = read_all(&node, &ann, place).await;
    let requests = sent() - before;
    let bodies: Vec<Bytes> = messages.into_iter().map(|(_, body)| body).collect();
    let all: Vec<Bytes> = (1..=MISSED).map(|id| format!("{id}").into()).collect();
    assert_eq!(bodies, all);
    match client.is_server_compatible(2, 11, 0) {
        true => assert!(requests <= 30, "{requests} requests"),
        false => assert!(requests as u128 >= MISSED, "one by one"),
    }
}

#[tokio::test]
async fn a_node_that_is_too_slow_reports_a_gap() {
    const MANY: usize = 5000;
    let mut scene = Scene::new(once(), options().subscription_capacity(16)).await;
    let ann = UserId::from("ann");
    scene.join(from_ref(&ann)).await;
    // Nobody reads the events meanwhile: they and the subscription are full.
    let messages: Vec<Message> = (0..MANY as u128).map(|id| message(&ann, id, "x")).collect();
    scene.node.publish(&messages).await.unwrap();
    let mut heard = 0;
    loop {
        match scene.event().await {
            Event::Message(_) => heard += 1,
            Event::Changed { cause: Cause::Slow } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(heard < MANY, "all of {heard} came");
    scene
        .node
        .publish(&[message(&ann, 0, "after")])
        .await
        .unwrap();
    while !is_of(&scene.event().await, "after") {}
}

/// What waited in the node came before what is missing: behind the gap it would hide where that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_once_nothing_from_before_an_interruption_follows_its_gap() {
    const MANY: u128 = 3000;
    let server = Server::start();
    let network = Network::to(server.address()).await;
    let connection = Connection::open(&network.url(), options()).await.unwrap();
    let node = Nats::over(&connection, once()).await.unwrap();
    let other = Nats::connect(&server.url(), options(), once())
        .await
        .unwrap();
    let mut events = node.events();
    let ann = UserId::from("ann");
    node.set_interest(from_ref(&ann), &[]).await.unwrap();
    let mut next = async || within("an event", events.next()).await.unwrap();
    assert!(matches!(next().await, Event::Ready(_)));
    // Nobody reads the events meanwhile: they are full, and the rest waits in the subscription.
    let connects = || {
        connection
            .client()
            .statistics()
            .connects
            .load(Ordering::Relaxed)
    };
    let received = || {
        connection
            .client()
            .statistics()
            .in_messages
            .load(Ordering::Relaxed)
    };
    let before = received();
    let messages: Vec<Message> = (0..MANY).map(|id| message(&ann, id, "old")).collect();
    other.publish(&messages).await.unwrap();
    within(
        "all have come",
        until(|| received() - before >= MANY as u64),
    )
    .await;
    network.cut();
    let is_away = || connection.client().connection_state() != State::Connected;
    within("it is cut off", until(is_away)).await;
    let lost = message(&ann, MANY, "lost");
    other.publish(from_ref(&lost)).await.unwrap();
    network.mend();
    within("it is back", until(|| connects() == 2)).await;
    while !matches!(next().await, Event::Restored { maybe_lost: true }) {}
    let new = message(&ann, MANY + 1, "new");
    other.publish(from_ref(&new)).await.unwrap();
    let event = next().await;
    assert!(is_of(&event, "new"), "{event:?}");
}

async fn until(is_it: impl Fn() -> bool) {
    while !is_it() {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_deleted_log_is_created_again_and_reported() {
    let mut scene = Scene::new(once().replayable(log(Storage::File)), options()).await;
    let ann = UserId::from("ann");
    scene.join(from_ref(&ann)).await;
    scene
        .node
        .publish(&[message(&ann, 1, "old")])
        .await
        .unwrap();
    assert!(is_of(&scene.event().await, "old"));
    let old = scene.node.horizon().unwrap();

    let jetstream = async_nats::jetstream::new(scene.client.clone());
    jetstream.delete_stream("TEST").await.unwrap();
    let refused = scene.node.publish(&[message(&ann, 2, "new")]).await;
    let refused = refused.expect("it says so of each");
    assert!(
        matches!(
            refused[..],
            [Published::Refused {
                permanent: false,
                ..
            }]
        ),
        "{refused:?}"
    );
    let Event::Reset(new) = scene.event().await else {
        panic!("the log is another");
    };
    assert_ne!(new.epoch, old.epoch);
    assert_eq!(scene.node.horizon(), Some(new));
    scene
        .node
        .publish(&[message(&ann, 2, "new")])
        .await
        .unwrap();
    assert!(is_of(&scene.event().await, "new"));
    let now = scene.node.heads(from_ref(&ann)).await.unwrap()[0];
    assert_eq!(now.newest, Position { offset: 1, ..new });
}

#[tokio::test]
async fn ten_thousand_messages_can_be_read() {
    const COUNT: usize = 10_000;
    let many = Log::new("TEST")
        .storage(Storage::Memory)
        .max_per_user(COUNT as u32 + 1);
    let scene = Scene::new(once().replayable(many), options()).await;
    let ann = UserId::from("ann");
    let jetstream = async_nats::jetstream::new(scene.client.clone());
    // As the node does, but with many on the way at once.
    scene.node.publish(&[message(&ann, 0, "0")]).await.unwrap();
    let subject = subject_of(&jetstream).await;
    let mut acks = Vec::new();
    for number in 1..COUNT {
        let sent = jetstream
            .publish(subject.clone(), number.to_string().into())
            .await;
        acks.push(sent.unwrap().into_future());
        if acks.len() == 1000 {
            for ack in acks.drain(..) {
                ack.await.unwrap();
            }
        }
    }
    for ack in acks {
        ack.await.unwrap();
    }
    let after = Position {
        offset: 0,
        ..scene.node.horizon().unwrap()
    };
    let messages = read_all(&scene.node, &ann, after).await;
    let is_all = |messages: &[(Position, Bytes)], from: usize| {
        let bodies = messages.iter().map(|(_, body)| body.clone());
        bodies.eq((from..COUNT).map(|number| Bytes::from(number.to_string())))
    };
    assert!(is_all(&messages, 0));
    let behind = messages[99].0;
    assert!(is_all(&read_all(&scene.node, &ann, behind).await, 100));
}

#[tokio::test]
async fn large_messages_are_read_a_few_at_a_time() {
    let log = Log::new("TEST").storage(Storage::Memory);
    let scene = Scene::new(once().replayable(log), options()).await;
    let ann = UserId::from("ann");
    let large = Bytes::from(vec![b'x'; 100_000]);
    for number in 0..20 {
        let sent = scene
            .node
            .publish(&[message(&ann, number, large.clone())])
            .await;
        sent.expect("it is there");
    }
    let after = Position {
        offset: 0,
        ..scene.node.horizon().unwrap()
    };
    let read = scene.node.fetch(&ann, after, 256).await.unwrap();
    assert!((1..=8).contains(&read.messages.len()), "a bounded size");
    assert_eq!(read_all(&scene.node, &ann, after).await.len(), 20);
}

/// What the log has of a user behind a place, which is everything. A slow server's answers are parts of it.
async fn read_all(node: &Nats, user: &UserId, mut after: Position) -> Vec<(Position, Bytes)> {
    let mut all = Vec::new();
    loop {
        let Fetched {
            messages,
            through,
            head,
            missing,
        } = node.fetch(user, after, 100_000).await.expect("it is there");
        assert_eq!(missing, Missing::Nothing);
        all.extend(messages);
        after = through;
        if through.offset >= head.offset {
            assert_eq!(all.last().map(|(place, _)| *place), Some(head));
            return all;
        }
    }
}

/// The subject of the newest message in the log.
async fn subject_of(jetstream: &async_nats::jetstream::Context) -> String {
    let stream = jetstream.get_stream("TEST").await.unwrap();
    let last = stream.get_last_raw_message_by_subject(">").await.unwrap();
    last.subject.to_string()
}
