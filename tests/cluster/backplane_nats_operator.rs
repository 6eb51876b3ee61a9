//! What an operator does to a NATS server while nodes use it: permissions, limits, edits of the stream, another copy of the
//! log. Nothing of it is silent, and nothing of it stops what it does not concern.

use std::pin::Pin;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt};
use tidings::UserId;
use tidings::backplane::{Backplane, Cause, Event, Level, Message, Position, Published};
use tidings_nats::{ConnectError, Connection, Interest, Log, Nats, Settings};
use tokio::time::{Instant, sleep, timeout};

use crate::support::nats::Server;

/// Nothing that has to happen takes so long.
const BOUND: Duration = Duration::from_secs(30);

fn once() -> Settings {
    Settings::new("test")
        .buckets(16)
        .timeout(Duration::from_secs(2))
}

fn kept() -> Settings {
    once().replayable(Log::new("TEST"))
}

fn options() -> ConnectOptions {
    ConnectOptions::new()
        .ignore_discovered_servers()
        .reconnect_delay_callback(|_| Duration::from_millis(50))
}

/// Two users of the server: a node, which may do so much, and an admin.
fn users(node: &str) -> String {
    format!(
        "accounts {{ APP: {{ jetstream: enabled, users: [ \
         {{ user: admin, password: a }}, {{ user: node, password: n{node} }} ] }} }}\n"
    )
}

const DENY_SUBSCRIBE: &str = ", permissions: { subscribe: { deny: \"test.live.16.>\" } }";
const DENY_PUBLISH: &str = ", permissions: { publish: { deny: \"test.log.>\" } }";
const DENY_LIVE: &str = ", permissions: { publish: { deny: \"test.live.>\" } }";

struct Scene {
    node: Nats,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    server: Server,
}

impl Scene {
    async fn new(settings: Settings, node: &str) -> Self {
        Self::over(Server::configured(&users(node)), settings).await
    }

    async fn over(server: Server, settings: Settings) -> Self {
        let url = format!("nats://node:n@{}", server.address());
        let node = Nats::connect(&url, options(), settings).await;
        let node = node.expect("it connects");
        Self {
            events: node.events(),
            node,
            server,
        }
    }

    async fn admin(&self) -> Client {
        let options = ConnectOptions::with_user_and_password("admin".into(), "a".into());
        options
            .connect(self.server.url())
            .await
            .expect("an admin may connect")
    }

    async fn stream(&self) -> stream::Config {
        let js = jetstream::new(self.admin().await);
        let stream = js.get_stream("TEST").await.expect("there is a log");
        stream.cached_info().config.clone()
    }

    async fn edit(&self, change: impl FnOnce(&mut stream::Config)) {
        let js = jetstream::new(self.admin().await);
        let mut config = self.stream().await;
        change(&mut config);
        js.update_stream(config)
            .await
            .expect("an operator may edit it");
    }

    /// The next event of interest.
    async fn next(&mut self, mut is_it: impl FnMut(&Event) -> bool) -> Event {
        let mut seen = Vec::new();
        let found = timeout(BOUND, async {
            loop {
                let event = self.events.next().await.expect("the node is open");
                if is_it(&event) {
                    return event;
                }
                seen.push(event);
            }
        });
        match found.await {
            Ok(event) => event,
            Err(_) => panic!("it did not happen; this did: {seen:?}"),
        }
    }

    async fn join(&self, users: &[UserId]) {
        self.node
            .set_interest(users, &[])
            .await
            .expect("it is open");
    }

    async fn unheard(&mut self, user: &UserId, cause: Cause) {
        let is_it = |event: &Event| matches!(event, Event::Unheard { users, cause: of, .. } if users.contains(user) && *of == cause);
        self.next(is_it).await;
    }

    async fn ready(&mut self, user: &UserId) {
        self.next(|event| matches!(event, Event::Ready(users) if users.contains(user)))
            .await;
    }

    /// A message that is published arrives.
    async fn arrives(&mut self, user: &UserId) {
        if self.node.level() == Level::Replayable {
            // NATS 2.9 loses what a stream listens to when it reads permissions again, until it is restarted.
            self.server.restart();
            self.next(|event| matches!(event, Event::Restored { .. }))
                .await;
        }
        self.publish(&[message(user, 1, 1)]).await;
        self.next(is_message).await;
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Published> {
        let published = timeout(BOUND, self.node.publish(messages)).await;
        published.expect("in time").expect("the engine is there")
    }

    async fn position(&self, message: &Message) -> Position {
        match &self.publish(from_ref(message)).await[..] {
            [Published::Accepted(Some(position))] => *position,
            other => panic!("{other:?}"),
        }
    }
}

fn message(user: &UserId, id: u128, size: usize) -> Message {
    Message {
        user: user.clone(),
        id,
        body: vec![b'x'; size].into(),
    }
}

fn is_refused(published: &Published) -> bool {
    matches!(
        published,
        Published::Refused {
            permanent: true,
            ..
        }
    )
}

fn is_message(event: &Event) -> bool {
    matches!(event, Event::Message(_))
}

#[tokio::test]
async fn a_subscription_that_is_denied_is_unheard_until_it_is_allowed() {
    for settings in [once(), once().interest(Interest::Buckets), kept()] {
        let mut scene = Scene::new(settings, DENY_SUBSCRIBE).await;
        let ann = UserId::from("ann");
        scene.join(from_ref(&ann)).await;
        scene.unheard(&ann, Cause::Denied).await;
        scene.server.reconfigure(&users(""));
        scene.ready(&ann).await;
        scene.arrives(&ann).await;
    }
}

#[tokio::test]
async fn a_permission_that_is_withdrawn_is_noticed_and_its_return_as_well() {
    for settings in [once(), once().interest(Interest::Buckets), kept()] {
        let mut scene = Scene::new(settings, "").await;
        let ann = UserId::from("ann");
        scene.join(from_ref(&ann)).await;
        scene.ready(&ann).await;
        scene.server.reconfigure(&users(DENY_SUBSCRIBE));
        scene.unheard(&ann, Cause::Denied).await;
        scene.server.reconfigure(&users(""));
        scene.ready(&ann).await;
        scene.arrives(&ann).await;
    }
}

#[tokio::test]
async fn subscriptions_beyond_the_servers_limit_are_unheard() {
    let config = format!("max_subscriptions: 12\n{}", users(""));
    let mut scene = Scene::over(Server::configured(&config), once()).await;
    let many: Vec<UserId> = (0..20)
        .map(|user| UserId::from(format!("user {user}")))
        .collect();
    scene.join(&many).await;
    let (mut ready, mut unheard) = (0, 0);
    while ready + unheard < many.len() {
        match scene
            .next(|event| matches!(event, Event::Ready(_) | Event::Unheard { .. }))
            .await
        {
            Event::Ready(users) => ready += users.len(),
            Event::Unheard { users, .. } => unheard += users.len(),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        ready > 0 && unheard > 0,
        "{ready} are ready, {unheard} are not heard"
    );
}

#[tokio::test]
async fn what_may_not_be_published_is_refused_for_good_and_soon() {
    let scene = Scene::new(kept(), DENY_PUBLISH).await;
    let began = Instant::now();
    let published = scene.publish(&[message(&"ann".into(), 1, 1)]).await;
    assert!(
        matches!(
            published[..],
            [Published::Refused {
                permanent: true,
                ..
            }]
        ),
        "{published:?}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "before the time-out"
    );
}

/// Nothing confirms a message there, so it is its refusal that has to be heard, of the first one as well.
#[tokio::test]
async fn what_may_not_be_published_is_refused_at_most_once_as_well() {
    let ann = UserId::from("ann");
    let long = UserId::from("x".repeat(300));
    for denied in ["test.live.16.>", "test.live.16.*.ann"] {
        let denied = format!(", permissions: {{ publish: {{ deny: \"{denied}\" }} }}");
        let may_others = denied.contains("ann");
        let mut scene = Scene::new(once(), &denied).await;
        scene.join(from_ref(&long)).await;
        for id in 0..3 {
            let published = scene
                .publish(&[message(&ann, id, 1), message(&long, id, 1)])
                .await;
            assert!(is_refused(&published[0]), "{published:?}");
            assert_ne!(is_refused(&published[1]), may_others, "{published:?}");
        }
        scene.server.reconfigure(&users(""));
        let allowed = async {
            while is_refused(&scene.publish(&[message(&ann, 4, 1)]).await[0]) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(BOUND, allowed).await.expect("in time");
        if may_others {
            scene.next(is_message).await;
        }
    }
}

/// The client has no room for so many refusals, and drops some of them.
#[tokio::test]
async fn of_a_batch_with_too_many_refusals_nothing_is_accepted() {
    let scene = Scene::new(once(), DENY_LIVE).await;
    let users = (0..512).map(|user| UserId::from(format!("{user}")));
    let messages: Vec<Message> = users.map(|user| message(&user, 1, 1)).collect();
    let published = scene.publish(&messages).await;
    assert_eq!(published.len(), 512);
    for outcome in published {
        let is_open = matches!(outcome, Published::Unknown(_));
        assert!(is_open || is_refused(&outcome), "{outcome:?}");
    }
}

#[tokio::test]
async fn one_message_that_is_too_large_fails_alone() {
    let scene = Scene::new(kept(), "").await;
    scene.edit(|config| config.max_message_size = 10_000).await;
    let messages = ["ann", "bob", "cid"].map(UserId::from);
    let sizes = [1, 20_000, 1];
    let messages: Vec<Message> = messages
        .iter()
        .zip(sizes)
        .enumerate()
        .map(|(id, (user, size))| message(user, id as u128, size))
        .collect();
    let published = scene.publish(&messages).await;
    assert!(
        matches!(
            published[..],
            [
                Published::Accepted(Some(_)),
                Published::Refused {
                    permanent: true,
                    ..
                },
                Published::Accepted(Some(_))
            ]
        ),
        "{published:?}"
    );
}

#[tokio::test]
async fn one_message_beyond_the_servers_limit_fails_alone() {
    for settings in [kept(), once()] {
        let scene = Scene::new(settings, "").await;
        // Beyond what the client takes, and beyond what the adapter takes.
        for (first_id, more) in [(0, 2048), (3, 1)] {
            let large = scene.node.max_body() + more;
            let messages = [("ann", 1), ("bob", large), ("cid", 1)].into_iter();
            let messages = messages.zip(first_id..);
            let messages: Vec<Message> = messages
                .map(|((user, size), id)| message(&user.into(), id, size))
                .collect();
            let published = scene.publish(&messages).await;
            assert!(
                matches!(
                    published[..],
                    [
                        Published::Accepted(_),
                        Published::Refused {
                            permanent: true,
                            ..
                        },
                        Published::Accepted(_)
                    ]
                ),
                "{published:?}"
            );
        }
    }
}

/// It closes a connection that has more to read.
#[tokio::test]
async fn reads_of_long_logs_stay_within_what_the_server_holds_for_a_connection() {
    let server = Server::configured("max_pending: 2MB");
    let mut scene = Scene::over(server, kept()).await;
    let mut logs = Vec::new();
    for number in 0..16 {
        let user = UserId::from(format!("user-{number}"));
        let id = |count: u128| number * 200 + count;
        let first = scene.position(&message(&user, id(0), 1)).await;
        for from in (1..=150).step_by(25) {
            let messages = (from..from + 25).map(|count| message(&user, id(count), 8 << 10));
            let published = scene.publish(&messages.collect::<Vec<_>>()).await;
            let mut all = published.iter();
            assert!(all.all(|it| matches!(it, Published::Accepted(Some(_)))));
        }
        logs.push((user, first));
    }
    let read_all = async |user: &UserId, mut after: Position| {
        let mut count = 0;
        loop {
            let read = scene.node.fetch(user, after, 256).await;
            let messages = read.expect("the server is there").messages;
            count += messages.len();
            match messages.last() {
                Some((last, _)) => after = *last,
                None => return count,
            }
        }
    };
    let reads = logs.iter().map(|(user, first)| read_all(user, *first));
    let counts = join_all(reads).await;
    assert_eq!(counts, [150; 16]);
    scene.join(&[logs[0].0.clone()]).await;
    let event = scene.next(|event| !is_message(event)).await;
    assert!(matches!(event, Event::Ready(_)), "{event:?}");
}

#[tokio::test]
async fn edits_of_the_stream_hold_and_nodes_go_on() {
    let mut scene = Scene::new(kept(), "").await;
    let ann = UserId::from("ann");
    scene.join(from_ref(&ann)).await;
    scene.ready(&ann).await;
    scene
        .edit(|config| {
            config.max_age = Duration::from_secs(7_200);
            config.max_messages_per_subject = 2;
            config.duplicate_window = Duration::from_secs(10);
        })
        .await;
    // As after a cut: the stream is looked at again.
    scene.server.restart();
    scene
        .next(|event| matches!(event, Event::Restored { .. }))
        .await;
    for id in 0..4 {
        scene.position(&message(&ann, id, 1)).await;
        scene.next(is_message).await;
    }
    let url = format!("nats://node:n@{}", scene.server.address());
    let other = Nats::connect(&url, options(), kept()).await;
    let other = other.expect("a node that starts takes it as it is");
    for node in [&scene.node, &other] {
        assert_eq!(node.duplicate_window(), Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_stream_that_is_no_longer_a_log_is_reported() {
    let mut scene = Scene::new(kept(), "").await;
    scene
        .edit(|config| config.subjects.push("other.>".into()))
        .await;
    let event = scene
        .next(|event| matches!(event, Event::Unheard { .. }))
        .await;
    let Event::Unheard { users, detail, .. } = event else {
        panic!("{event:?}");
    };
    assert!(
        users.is_empty() && detail.contains("subjects"),
        "{users:?} {detail}"
    );
}

#[tokio::test]
async fn a_log_that_comes_back_shorter_is_another_log_on_every_node() {
    let mut scene = Scene::new(kept(), "").await;
    let ann = UserId::from("ann");
    let first = scene.position(&message(&ann, 1, 1)).await;
    scene.server.copy_log();
    scene.server.restart();
    scene
        .next(|event| matches!(event, Event::Restored { .. }))
        .await;
    scene.position(&message(&ann, 2, 1)).await;
    scene.position(&message(&ann, 3, 1)).await;
    scene.server.lose_log_since_copy();
    scene.server.restart();
    let reset = scene.next(|event| matches!(event, Event::Reset(_))).await;
    let Event::Reset(end) = reset else {
        panic!("{reset:?}");
    };
    assert_ne!(end.epoch, first.epoch);
    assert_eq!(end.offset, first.offset);
    let url = format!("nats://node:n@{}", scene.server.address());
    let other = Nats::connect(&url, options(), kept())
        .await
        .expect("it connects");
    assert_eq!(other.horizon().expect("there is a log").epoch, end.epoch);
    let again = scene.position(&message(&ann, 4, 1)).await;
    assert_eq!((again.epoch, again.offset), (end.epoch, end.offset + 1));
}

#[tokio::test]
async fn nodes_of_different_levels_are_refused() {
    let scene = Scene::new(kept(), "").await;
    let url = format!("nats://node:n@{}", scene.server.address());
    for settings in [once(), Settings::new("test").buckets(4)] {
        let other = Nats::connect(&url, options(), settings).await;
        assert!(
            matches!(other, Err(ConnectError::Disagreement)),
            "{other:?}"
        );
    }
    let other = Nats::connect(&url, options(), Settings::new("other").buckets(4)).await;
    other.expect("another scope is nothing to it");
}

#[tokio::test]
async fn one_of_several_servers_is_enough() {
    let server = Server::start();
    let urls = format!("nats://127.0.0.1:1, {}", server.url());
    Nats::connect(&urls, options(), once())
        .await
        .expect("the second is there");
    let wrong = Nats::connect("nats://a,http://b:x", options(), once()).await;
    assert!(matches!(wrong, Err(ConnectError::Servers(_))), "{wrong:?}");
}

#[tokio::test]
async fn a_node_waits_for_a_server_when_it_is_asked_to() {
    let mut server = Server::start();
    let url = server.url();
    server.kill();
    let refused = Nats::connect(&url, options(), kept()).await;
    assert!(
        matches!(refused, Err(ConnectError::Connect(_))),
        "{refused:?}"
    );
    let short = kept().wait_for_server(Duration::from_millis(100));
    let late = Nats::connect(&url, options(), short).await;
    assert!(matches!(late, Err(ConnectError::NotInTime)), "{late:?}");
    let waiting = tokio::spawn(async move {
        let patient = kept().wait_for_server(Duration::MAX);
        Nats::connect(&url, options(), patient).await
    });
    server.restart();
    let node = timeout(BOUND, waiting).await.expect("in time");
    node.expect("it does not panic")
        .expect("the server is there now");
}

#[tokio::test]
async fn several_broadcasters_share_a_connection_and_the_application_gets_its_events() {
    let server = Server::start();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let on_event = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let connection = Connection::open_with_events(&server.url(), options(), on_event).await;
    let connection = connection.expect("the server is there");
    let chat = Nats::over(&connection, Settings::new("chat"))
        .await
        .expect("it connects");
    let news = Nats::over(&connection, Settings::new("news"))
        .await
        .expect("it connects");
    let ann = UserId::from("ann");
    let mut events = news.events();
    chat.close(Instant::now() + BOUND).await;
    news.set_interest(from_ref(&ann), &[])
        .await
        .expect("it is open");
    let ready = timeout(BOUND, events.next()).await.expect("in time");
    assert_eq!(ready, Some(Event::Ready(vec![ann])));
    assert!(heard.load(Ordering::Relaxed) > 0);
    assert_eq!(
        connection
            .client()
            .statistics()
            .connects
            .load(Ordering::Relaxed),
        1
    );
}
