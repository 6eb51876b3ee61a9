//! Engines between nodes: what was asked for is done, in part or not at all, and can be asked for again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidings::UserId;
use tidings::backplane::{
    Backplane, BackplaneError, Event, Fetched, Head, Level, Message, Position, Published,
};
use tidings_testkit::backplane::{self as kit, Cluster, Faults};
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::time::{Instant, sleep};
use tokio_stream::{Stream, StreamExt};

use super::{Cut, at_every_await};

/// How long an engine takes for everything: longer than anybody here looks away.
pub(crate) const ANSWER: Duration = Duration::from_millis(120);

/// A node whose engine takes its time, before and after it does something.
pub(crate) struct Slow(pub(crate) InProcessNode);

impl Slow {
    async fn take_time<T>(answer: impl Future<Output = T>) -> T {
        sleep(ANSWER / 2).await;
        let answer = answer.await;
        sleep(ANSWER / 2).await;
        answer
    }
}

#[async_trait]
impl Backplane for Slow {
    fn level(&self) -> Level {
        self.0.level()
    }

    fn horizon(&self) -> Option<Position> {
        self.0.horizon()
    }

    fn max_body(&self) -> usize {
        self.0.max_body()
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, BackplaneError> {
        Self::take_time(self.0.publish(messages)).await
    }

    async fn set_interest(&self, add: &[UserId], remove: &[UserId]) -> Result<(), BackplaneError> {
        Self::take_time(self.0.set_interest(add, remove)).await
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        self.0.events()
    }

    async fn fetch(
        &self,
        user: &UserId,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError> {
        Self::take_time(self.0.fetch(user, after, limit)).await
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, BackplaneError> {
        Self::take_time(self.0.heads(users)).await
    }

    async fn close(&self, deadline: Instant) {
        Self::take_time(self.0.close(deadline)).await;
    }
}

/// One behind a shared pointer, as those are that a broadcaster and a test have in common.
fn slow() -> Arc<dyn Backplane> {
    Arc::new(Slow(InProcess::new(Level::Replayable).node()))
}

/// The message of this number of a user, of whom there is one to a scenario.
fn message(user: &UserId, number: u8) -> Message {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    Message {
        user: user.clone(),
        id: u128::from(hasher.finish()) << 8 | u128::from(number),
        body: Bytes::from(number.to_string()),
    }
}

/// Before the first message.
fn beginning(node: &Arc<dyn Backplane>) -> Position {
    Position {
        offset: 0,
        ..node.horizon().expect("there is a log")
    }
}

/// The bodies that the engine has of a user.
async fn logged(node: &Arc<dyn Backplane>, user: &UserId) -> Vec<Bytes> {
    let fetched = node.fetch(user, beginning(node), 100).await;
    let fetched = fetched.expect("an answer");
    fetched.messages.into_iter().map(|(_, body)| body).collect()
}

/// All of these for nodes of an engine behind a socket.
pub(crate) async fn everything_twice(node: impl AsyncFn() -> Arc<dyn Backplane>) {
    let number = AtomicU32::new(0);
    // A user of its own for each: the log stays.
    let next = || UserId::from(format!("user {}", number.fetch_add(1, Ordering::Relaxed)));
    let asked = node().await;
    at_every_await(1, async |cut| publish_twice(&asked, &next(), cut).await).await;
    at_every_await(1, async |cut| ask_twice(&asked, &next(), cut).await).await;
    let mut events = asked.events();
    at_every_await(0, async |cut| {
        interest_twice(&asked, &mut events, &next(), cut).await
    })
    .await;
    at_every_await(1, async |cut| {
        let node = node().await;
        let mut events = node.events();
        close_twice(&node, &mut events, cut).await
    })
    .await;
}

/// What is published again after it was given up is in the log once.
pub(crate) async fn publish_twice(node: &Arc<dyn Backplane>, user: &UserId, cut: Cut) -> bool {
    let messages = [message(user, 1)];
    let given_up = cut.run(node.publish(&messages)).await.is_none();
    node.publish(&messages).await.expect("it is up");
    node.publish(&[message(user, 2)]).await.expect("it is up");
    assert_eq!(logged(node, user).await, ["1", "2"]);
    !given_up
}

/// Interest that is asked for again is there, and so is the one that is taken out.
pub(crate) async fn interest_twice(
    node: &Arc<dyn Backplane>,
    events: &mut (impl Stream<Item = Event> + Unpin),
    user: &UserId,
    cut: Cut,
) -> bool {
    let first = cut.run(node.set_interest(from_ref(user), &[])).await;
    node.set_interest(from_ref(user), &[])
        .await
        .expect("it is open");
    loop {
        match events.next().await.expect("it goes on") {
            Event::Ready(users) if users.contains(user) => break,
            // Those that were asked for before are answered as well.
            other => assert!(matches!(other, Event::Ready(_)), "{other:?}"),
        }
    }
    node.publish(&[message(user, 3)]).await.expect("it is up");
    loop {
        match events.next().await.expect("it goes on") {
            Event::Message(received) => {
                assert_eq!((&received.user, &*received.body), (user, &b"3"[..]));
                return first.is_some();
            }
            other => assert!(matches!(other, Event::Ready(_)), "{other:?}"),
        }
    }
}

/// A question that was given up changes nothing.
pub(crate) async fn ask_twice(node: &Arc<dyn Backplane>, user: &UserId, cut: Cut) -> bool {
    node.publish(&[message(user, 4)]).await.expect("it is up");
    let heads = node.heads(from_ref(user)).await.expect("an answer");
    let fetched = cut.run(node.fetch(user, beginning(node), 1)).await;
    let asked = cut.run(node.heads(from_ref(user))).await;
    assert_eq!(logged(node, user).await, ["4"]);
    let now = node.heads(from_ref(user)).await.expect("an answer");
    assert_eq!(now[0].newest, heads[0].newest);
    fetched.is_some() && asked.is_some()
}

/// A close that was given up is taken up by the next one: the events end, and every call fails.
pub(crate) async fn close_twice(
    node: &Arc<dyn Backplane>,
    events: &mut (impl Stream<Item = Event> + Unpin),
    cut: Cut,
) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    let closed = cut.run(node.close(deadline)).await.is_some();
    node.close(deadline).await;
    assert!(Instant::now() < deadline, "long before");
    while events.next().await.is_some() {}
    let refused = node.publish(&[message(&"ann".into(), 5)]).await;
    assert!(refused.is_err_and(|error| error.is_closed()));
    closed
}

#[tokio::test(start_paused = true)]
async fn publications_are_asked_for_again() {
    at_every_await(3, async |cut| {
        publish_twice(&slow(), &"ann".into(), cut).await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn interest_is_asked_for_again() {
    at_every_await(2, async |cut| {
        let node = slow();
        let mut events = node.events();
        interest_twice(&node, &mut events, &"ann".into(), cut).await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn questions_are_asked_again() {
    at_every_await(3, async |cut| ask_twice(&slow(), &"ann".into(), cut).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_is_asked_for_again() {
    at_every_await(2, async |cut| {
        let node = slow();
        let mut events = node.events();
        close_twice(&node, &mut events, cut).await
    })
    .await;
}

/// A cluster whose nodes and faults take a turn of the runtime each.
struct Waiting(
    InProcess,
    std::sync::Mutex<Vec<(Arc<dyn Backplane>, InProcessNode)>>,
);

impl Waiting {
    fn new(level: Level) -> Self {
        Self(InProcess::new(level), std::sync::Mutex::default())
    }

    fn inner(&self, node: &Arc<dyn Backplane>) -> InProcessNode {
        let nodes = self.1.lock().expect("no panic");
        let of = nodes.iter().find(|(shared, _)| Arc::ptr_eq(shared, node));
        of.expect("one of these").1.clone()
    }

    /// What a test that was given up may have left.
    fn repair(&self) {
        self.0.start();
        for (_, node) in &*self.1.lock().expect("no panic") {
            self.0.mend(node);
        }
    }
}

#[async_trait]
impl Cluster for Waiting {
    async fn node(&self) -> Arc<dyn Backplane> {
        tokio::task::yield_now().await;
        let node = self.0.node();
        let shared: Arc<dyn Backplane> = Arc::new(node.clone());
        let mut nodes = self.1.lock().expect("no panic");
        nodes.push((shared.clone(), node));
        shared
    }
}

#[async_trait]
impl Faults for Waiting {
    async fn stop(&self) {
        tokio::task::yield_now().await;
        self.0.stop();
    }

    async fn start(&self) {
        tokio::task::yield_now().await;
        self.0.start();
    }

    async fn cut(&self, node: &Arc<dyn Backplane>) {
        tokio::task::yield_now().await;
        self.0.cut(&self.inner(node));
    }

    async fn mend(&self, node: &Arc<dyn Backplane>) {
        tokio::task::yield_now().await;
        self.0.mend(&self.inner(node));
    }
}

#[tokio::test(start_paused = true)]
async fn the_tests_of_a_backplane_can_be_run_again() {
    at_every_await(50, async |cut| {
        let cluster = Waiting::new(Level::Replayable);
        let given_up = cut.run(kit::every_level(&cluster)).await.is_none();
        if given_up {
            kit::a_message_reaches_the_interested_nodes(&cluster).await;
        }
        !given_up
    })
    .await;
    at_every_await(50, async |cut| {
        let cluster = Waiting::new(Level::Replayable);
        let given_up = cut.run(kit::replayable(&cluster)).await.is_none();
        kit::places_are_a_chain(&cluster).await;
        !given_up
    })
    .await;
    for level in [Level::AtMostOnce, Level::Replayable] {
        at_every_await(15, async |cut| {
            let cluster = Waiting::new(level);
            let given_up = cut.run(kit::failures(&cluster)).await.is_none();
            cluster.repair();
            kit::a_message_reaches_the_interested_nodes(&cluster).await;
            !given_up
        })
        .await;
    }
}
