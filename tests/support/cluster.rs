//! A cluster under random faults: nodes, an engine between them, and clients that move. At the end, each client must
//! have got everything once and in order, or a report of what is missing.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::FutureExt;
use tidings::backplane::{Backplane, Level};
use tidings::{
    BackplaneStats, BroadcastError, GapReason, GenericBroadcaster, History, LastEventId,
    Subscription, Text,
};
use tokio::time::{Instant, sleep};
use tokio_stream::Stream;

pub(crate) type Hub = GenericBroadcaster<Text>;

/// All nodes reach an engine that is whole again, and publish what waits, within this.
const BOUND: Duration = Duration::from_secs(120);

/// An engine whose faults a test can call for.
#[async_trait]
pub(crate) trait Engine: Send {
    fn level(&self) -> Level;
    /// One more node; its number is that of those before it.
    async fn node(&mut self) -> Arc<dyn Backplane>;
    /// As by `kill -9`.
    async fn stop(&mut self);
    /// With what it had kept.
    async fn start(&mut self);
    async fn cut(&mut self, node: usize);
    async fn mend(&mut self, node: usize);
    fn lose_acknowledgements(&mut self, count: usize);

    /// The next message is in the log, and sent to nobody.
    fn lose_send(&mut self) {}

    /// The engine comes back with a log that lacks so many of the last messages.
    fn replace(&mut self, _lacks: usize) {}

    /// A node may neither publish nor hear, or it may again.
    fn set_denied(&mut self, _node: usize, _is_denied: bool) {}

    /// The engine answers nobody for so long.
    async fn pause(&mut self, _time: Duration) {}

    /// That time is over.
    async fn resume(&mut self) {}

    /// A replica has what there is. From now on it follows, or is left behind.
    async fn replicate(&mut self, _follows: bool) {}

    /// That replica takes the engine's place.
    async fn promote(&mut self) {}
}

/// How a run is to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) users: usize,
    pub(crate) clients: usize,
    pub(crate) steps: usize,
    /// Events of each user that nodes keep, at `AtMostOnce`.
    pub(crate) history: usize,
    /// Events that may wait in each node.
    pub(crate) queue: usize,
    /// Whether nodes die.
    pub(crate) crashes: bool,
    /// Whether messages are appended to the log and not sent.
    pub(crate) unsent: bool,
    /// Whether the log is replaced by an older copy, or an empty one.
    pub(crate) replaces: bool,
    /// Whether nodes lose their permissions.
    pub(crate) denies: bool,
    /// Whether the engine hangs, for longer than nodes wait for it too.
    pub(crate) pauses: bool,
    /// Whether a replica takes the place of the engine.
    pub(crate) promotes: bool,
    /// The most events of one step.
    pub(crate) burst: usize,
    /// The longest that anything lasts.
    pub(crate) longest: Duration,
    /// How long a node is cut off halfway; another one dies then.
    pub(crate) long_cut: Duration,
    /// How long it takes until nothing happens any more.
    pub(crate) settle: Duration,
}

impl Plan {
    /// For two or three nodes, with no faults but outages and nodes that die.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            nodes: 2 + (seed % 2) as usize,
            users: 3,
            clients: 9,
            steps: 400,
            history: 0,
            queue: 100_000,
            crashes: true,
            unsent: false,
            replaces: false,
            denies: false,
            pauses: false,
            promotes: false,
            burst: 5,
            long_cut: Duration::ZERO,
            longest: Duration::from_secs(2),
            settle: Duration::from_secs(60),
        }
    }

    /// For an engine behind sockets, in real time, which hangs as well.
    pub(crate) fn over_sockets(seed: u64) -> Self {
        Self {
            clients: 12,
            steps: 300,
            longest: Duration::from_millis(400),
            settle: Duration::from_secs(2),
            pauses: true,
            ..Self::new(seed)
        }
    }
}

/// What one client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Got {
    /// The event of this number of this publisher.
    Event(usize, u64),
    Gap(GapReason, Option<u64>),
    /// The client was away, and nobody could have kept anything for it.
    Anew,
}

struct Client {
    user: usize,
    node: usize,
    stream: Option<Subscription>,
    last: Option<String>,
    /// To where nobody knows its id, where the engine keeps nothing.
    has_moved: bool,
    got: Vec<Got>,
    /// What had been published of each publisher when it was first there.
    from: HashMap<usize, u64>,
}

struct Node {
    hub: Option<Hub>,
    /// Where it is in the engine; a node that replaces another is a new one there.
    index: usize,
    is_cut: bool,
    is_denied: bool,
    /// Publishers are told apart by the life of their node.
    publisher: usize,
}

impl Node {
    /// What it does, if it does not reach the engine or has not published everything.
    fn busy(&self) -> Option<BackplaneStats> {
        let stats = self.hub.as_ref()?.stats().backplane?;
        (!stats.connected || stats.queued > 0).then_some(stats)
    }
}

/// What a publisher has done for one user.
#[derive(Default)]
struct Published {
    count: u64,
    /// Confirmed up to here, without a hole, or known to be lost: then nobody has to have it.
    confirmed: Arc<AtomicU64>,
    /// The node lived on: what it had broadcast must arrive.
    died: bool,
}

pub(crate) struct Cluster<E> {
    plan: Plan,
    engine: E,
    rng: fastrand::Rng,
    nodes: Vec<Node>,
    made: usize,
    publishers: usize,
    clients: Vec<Client>,
    published: BTreeMap<(usize, usize), Published>,
    is_up: bool,
    pub(crate) deliveries: u64,
    pub(crate) gaps: u64,
    pub(crate) faults: u64,
    pub(crate) events: u64,
}

impl<E: Engine> Cluster<E> {
    pub(crate) async fn new(plan: Plan, engine: E) -> Self {
        let mut cluster = Self {
            rng: fastrand::Rng::with_seed(plan.seed),
            plan,
            engine,
            nodes: Vec::new(),
            made: 0,
            publishers: 0,
            clients: Vec::new(),
            published: BTreeMap::new(),
            is_up: true,
            deliveries: 0,
            gaps: 0,
            faults: 0,
            events: 0,
        };
        for _ in 0..cluster.plan.nodes {
            let node = cluster.make_node().await;
            cluster.nodes.push(node);
        }
        for number in 0..cluster.plan.clients {
            let user = number % cluster.plan.users;
            let node = cluster.rng.usize(..cluster.plan.nodes);
            cluster.clients.push(Client {
                user,
                node,
                stream: None,
                last: None,
                has_moved: false,
                got: Vec::new(),
                from: HashMap::new(),
            });
            cluster.open(number).await;
        }
        cluster
    }

    async fn make_node(&mut self) -> Node {
        let backplane = self.engine.node().await;
        let builder = GenericBroadcaster::builder()
            .backplane(backplane)
            .backplane_queue(self.plan.queue, 64 << 20)
            // Longer than any outage: whoever waits so long gets everything.
            .backplane_patience(Duration::from_secs(600))
            .ring_capacity(8)
            .connections_per_user(None);
        let keeps = self.engine.level() == Level::Replayable || self.plan.history > 0;
        let history = keeps.then(|| History::new(self.plan.history.max(5_000)));
        let hub = builder.history(history).build().expect("valid settings");
        self.made += 1;
        self.publishers += 1;
        Node {
            hub: Some(hub),
            index: self.made - 1,
            is_cut: false,
            is_denied: false,
            publisher: self.publishers - 1,
        }
    }

    fn user(number: usize) -> String {
        format!("user {number}.*>")
    }

    /// Opens a client's stream on the node that it is with.
    async fn open(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(hub) = &self.nodes[client.node].hub else {
            return;
        };
        let last = client
            .last
            .as_deref()
            .map_or(LastEventId::none(), LastEventId::new);
        let stream = hub.resume_when_ready(Self::user(client.user), &last).await;
        let stream = stream.expect("there is no cap");
        let keeps = self.engine.level() == Level::Replayable;
        if client.last.is_none() || !keeps && client.has_moved {
            client.has_moved = false;
            // It begins, or begins anew, with what is broadcast from now on.
            client.got.push(Got::Anew);
            let published = self.published.iter();
            let of_user = published.filter(|((user, _), _)| *user == client.user);
            client.from = of_user
                .map(|((_, publisher), published)| (*publisher, published.count))
                .collect();
        }
        if let Some(cursor) = stream.cursor() {
            client.last = Some(cursor.to_string());
        }
        client.stream = Some(stream);
    }

    /// Reads what a client can have without waiting.
    fn read(&mut self, number: usize, at_most: usize) -> usize {
        let client = &mut self.clients[number];
        let mut count = 0;
        while count < at_most {
            let Some(stream) = &mut client.stream else {
                break;
            };
            let polled = Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Pending => break,
                Poll::Ready(None) => client.stream = None,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some((_, id)) = frame.fields().find(|(name, _)| *name == "id") {
                        client.last = Some(id.to_owned());
                    }
                    let data = frame.data();
                    let (publisher, count) = data.split_once(' ').expect("two numbers");
                    let publisher = publisher.parse().expect("a number");
                    let count = count.parse().expect("a number");
                    client.got.push(Got::Event(publisher, count));
                    self.deliveries += 1;
                }
                Poll::Ready(Some(Err(gap))) => {
                    if let Some(id) = gap.id() {
                        client.last = Some(id.to_string());
                    }
                    client.got.push(Got::Gap(gap.reason, gap.missed));
                    self.gaps += 1;
                }
            }
            count += 1;
        }
        count
    }

    fn publish(&mut self) {
        let user = self.rng.usize(..self.plan.users);
        let node = &self.nodes[self.rng.usize(..self.nodes.len())];
        let Some(hub) = node.hub.clone() else {
            return;
        };
        let publisher = node.publisher;
        let published = self.published.entry((user, publisher)).or_default();
        published.count += 1;
        self.events += 1;
        let count = published.count;
        let confirmed = published.confirmed.clone();
        let mut sent = Box::pin(async move {
            let event = Text::new(format!("{publisher} {count}"));
            let sent = hub.broadcast_confirmed(&Self::user(user), &event).await;
            match sent {
                Ok(_) => drop(confirmed.fetch_max(count, Ordering::Relaxed)),
                Err(BroadcastError::NotRelayed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        });
        // Sent now; what is left is to wait for the engine.
        let polled = sent.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if polled.is_pending() {
            tokio::spawn(sent.map(drop));
        }
    }

    async fn step(&mut self) {
        let number = self.rng.usize(..self.clients.len());
        let node = self.rng.usize(..self.nodes.len());
        match self.rng.u32(..100) {
            0..45 => {
                for _ in 0..self.rng.usize(1..=self.plan.burst) {
                    self.publish();
                }
            }
            45..65 => {
                let at_most = self.rng.usize(1..20);
                self.read(number, at_most);
            }
            65..73 => {
                // Cut off, wherever it was, and back, wherever that is.
                self.read(number, 3);
                self.clients[number].stream = None;
                self.clients[number].has_moved |= self.clients[number].node != node;
                self.clients[number].node = node;
                if self.engine.level() == Level::AtMostOnce && self.plan.history == 0 {
                    self.clients[number].last = None;
                }
                self.open(number).await;
            }
            73..90 => {
                let longest = self.plan.longest.as_micros() as u64;
                let shift = self.rng.u32(0..8);
                let micros = self.rng.u64(..longest >> shift);
                sleep(Duration::from_micros(micros)).await;
            }
            90..93 => {
                self.faults += 1;
                let index = self.nodes[node].index;
                if std::mem::replace(&mut self.nodes[node].is_cut, true) {
                    self.nodes[node].is_cut = false;
                    self.engine.mend(index).await;
                } else {
                    self.engine.cut(index).await;
                }
            }
            93..95 => {
                self.faults += 1;
                self.toggle_engine().await;
            }
            95 if self.plan.pauses => {
                self.faults += 1;
                self.pause().await;
            }
            96 if self.plan.promotes => {
                self.faults += 1;
                self.fail_over().await;
            }
            95..97 => self.engine.lose_acknowledgements(1),
            97 if self.plan.unsent => {
                self.faults += 1;
                self.engine.lose_send();
            }
            98 if self.plan.replaces => {
                self.faults += 1;
                let lacks = match self.rng.bool() {
                    true => usize::MAX,
                    false => self.rng.usize(..50),
                };
                self.engine.replace(lacks);
                self.is_up = true;
            }
            98 if self.plan.denies => {
                self.faults += 1;
                let is_denied = !self.nodes[node].is_denied;
                self.nodes[node].is_denied = is_denied;
                self.engine.set_denied(self.nodes[node].index, is_denied);
            }
            _ if self.plan.crashes => {
                self.faults += 1;
                self.crash(node).await;
            }
            _ => {}
        }
    }

    async fn toggle_engine(&mut self) {
        self.is_up = !self.is_up;
        if self.is_up {
            self.engine.start().await;
        } else {
            self.engine.stop().await;
        }
    }

    /// A node is cut off, while everything goes on.
    async fn cut_for_long(&mut self) {
        self.faults += 1;
        let index = self.nodes[0].index;
        self.engine.cut(index).await;
        self.go_on(self.plan.long_cut).await;
        if !std::mem::take(&mut self.nodes[0].is_cut) {
            self.engine.mend(index).await;
        } else {
            self.nodes[0].is_cut = true;
        }
    }

    /// Publishes and reads for so long.
    async fn go_on(&mut self, time: Duration) {
        let pause = Duration::from_millis(20);
        for _ in 0..time.as_millis() / pause.as_millis() {
            sleep(pause).await;
            for _ in 0..self.rng.usize(1..=self.plan.burst) {
                self.publish();
            }
            let number = self.rng.usize(..self.clients.len());
            self.read(number, 20);
        }
    }

    /// The engine hangs, while everything else goes on.
    async fn pause(&mut self) {
        if !self.is_up {
            self.toggle_engine().await;
        }
        let time = self.plan.longest * self.rng.u32(1..=4);
        self.engine.pause(time).await;
        self.go_on(time).await;
        self.engine.resume().await;
    }

    /// A replica takes the place of the engine, and lacks nothing, or what comes in the meantime.
    async fn fail_over(&mut self) {
        if !self.is_up {
            self.toggle_engine().await;
        }
        let follows = self.rng.bool();
        self.engine.replicate(follows).await;
        self.go_on(self.plan.longest / 4).await;
        self.engine.promote().await;
    }

    /// A node dies, and another takes its place.
    async fn crash(&mut self, number: usize) {
        if !self.is_up {
            self.toggle_engine().await;
        }
        let node = &mut self.nodes[number];
        self.engine.cut(node.index).await;
        node.hub = None;
        let publisher = node.publisher;
        for ((_, of), published) in &mut self.published {
            published.died |= *of == publisher;
        }
        for client in &mut self.clients {
            if client.node == number {
                client.stream = None;
                client.has_moved = true;
                if self.engine.level() == Level::AtMostOnce && self.plan.history == 0 {
                    client.last = None;
                }
            }
        }
        self.nodes[number] = self.make_node().await;
        for client in 0..self.clients.len() {
            if self.clients[client].stream.is_none() {
                self.open(client).await;
            }
        }
    }

    /// Runs all steps, then lets everything come to rest, and checks.
    pub(crate) async fn run(&mut self) {
        for step in 0..self.plan.steps {
            if step == self.plan.steps / 2 && !self.plan.long_cut.is_zero() {
                self.cut_for_long().await;
                self.crash(self.nodes.len() - 1).await;
            }
            self.step().await;
        }
        if !self.is_up {
            self.toggle_engine().await;
        }
        for node in &mut self.nodes {
            if std::mem::take(&mut node.is_cut) {
                self.engine.mend(node.index).await;
            }
            if std::mem::take(&mut node.is_denied) {
                self.engine.set_denied(node.index, false);
            }
        }
        let whole = Instant::now();
        let mut quiet = 0;
        while quiet < 10 {
            sleep(self.plan.settle / 10).await;
            quiet += 1;
            if let Some(busy) = self.nodes.iter().find_map(Node::busy) {
                assert!(whole.elapsed() < BOUND, "{busy:?}\n{:#?}", self.plan);
                quiet = 0;
            }
            for number in 0..self.clients.len() {
                if self.clients[number].stream.is_none() {
                    self.open(number).await;
                }
                if self.read(number, usize::MAX) > 0 {
                    quiet = 0;
                }
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            if let Err(violation) = self.check(client).and_then(|()| self.check_order(number)) {
                panic!(
                    "client {number}: {violation}\n{:?}\n{:#?}",
                    client.got, self.plan
                );
            }
        }
    }

    /// Whether a client got its user's events in the order in which those before it got them.
    fn check_order(&self, number: usize) -> Result<(), String> {
        if self.engine.level() == Level::AtMostOnce {
            return Ok(());
        }
        let client = &self.clients[number];
        for (other, before) in self.clients[..number].iter().enumerate() {
            if before.user != client.user {
                continue;
            }
            let ranks: HashMap<Got, usize> = before.got.iter().copied().zip(0..).collect();
            let is_event = |got: &&Got| matches!(got, Got::Event(..));
            let common = client.got.iter().filter(is_event);
            let common = common.filter_map(|got| Some((got, *ranks.get(got)?)));
            let mut last = None;
            for (got, rank) in common {
                if last.is_some_and(|(_, before)| rank < before) {
                    return Err(format!(
                        "{got:?} comes after {last:?}, and for client {other} before it"
                    ));
                }
                last = Some((got, rank));
            }
        }
        Ok(())
    }

    fn check(&self, client: &Client) -> Result<(), String> {
        let is_replayable = self.engine.level() == Level::Replayable;
        let refuses = self.plan.queue < 1_000;
        // Behind its last beginning.
        let begins = client.got.iter().rposition(|got| *got == Got::Anew);
        let got = &client.got[begins.map_or(0, |at| at + 1)..];
        let gaps: Vec<(usize, Option<u64>)> = got
            .iter()
            .enumerate()
            .filter_map(|(at, got)| match got {
                Got::Gap(_, missed) => Some((at, *missed)),
                _ => None,
            })
            .collect();
        let has_all = !refuses && !self.plan.replaces && !self.plan.denies;
        if is_replayable && has_all && !gaps.is_empty() {
            return Err("a gap, although the engine has everything".into());
        }
        let mut missing = 0;
        for ((user, publisher), published) in &self.published {
            if *user != client.user {
                continue;
            }
            let first = client.from.get(publisher).copied().unwrap_or(0);
            let mut last = first;
            let mut at_last = 0;
            let is_told = |from: usize| gaps.iter().any(|(at, _)| *at >= from);
            for (at, got) in got.iter().enumerate() {
                let Got::Event(of, count) = *got else {
                    continue;
                };
                if of != *publisher || count <= first && last == first {
                    continue;
                }
                if count <= last {
                    return Err(format!("{publisher} {count} after {publisher} {last}"));
                }
                if count > last + 1 {
                    missing += count - last - 1;
                    if !is_told(at_last) {
                        return Err(format!("{publisher} {count} follows {last}, and no gap"));
                    }
                }
                (last, at_last) = (count, at);
            }
            let confirmed = published.confirmed.load(Ordering::Relaxed);
            let due = match (published.died, is_replayable) {
                (true, true) => confirmed,
                // Nobody is left who could tell what was on its way.
                (true, false) => last,
                (false, _) => published.count,
            };
            if due > last {
                missing += due - last;
                if !is_told(at_last) {
                    return Err(format!("{publisher} {due} is missing behind {last}"));
                }
            }
        }
        let known: Option<u64> = gaps.iter().map(|(_, missed)| *missed).sum();
        match known {
            Some(announced) if announced < missing => Err(format!(
                "{announced} were said to be missing, and {missing} are"
            )),
            _ => Ok(()),
        }
    }
}

/// Polls a future once.
pub(crate) fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}
