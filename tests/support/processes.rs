//! Nodes of the example `cluster`, each a process of its own, over an engine of several servers; publishers, and readers that go
//! from node to node; and faults of all of them. In the end each reader is held to what it must have got.
//!
//! A node reaches each server through a [`Network`] of its own, which can be cut or lead to another server.
//!
//! Without `TIDINGS_SEEDS=FROM..TO`, one short run.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::decoder::Decoder;
use super::example;
use super::nats::Network;
use super::received::{self, Checked, Got, Logs, Standard};
use super::seeds::{seeds, two_threads};
use super::three::{signal, until};

pub(crate) const NODES: usize = 3;
pub(crate) const USERS: usize = 3;
pub(crate) const READERS: usize = 9;
/// How many faults follow each other in a run with a seed of its own.
const FAULTS: usize = 5;
/// A run with fewer events shows nothing.
const ENOUGH: usize = 51;
/// How long everything may take to arrive when all is whole again. The slow look at the tail has found it by then.
const SETTLE: Duration = Duration::from_secs(90);

/// Servers, and what goes wrong with them.
pub(crate) trait Engine: Sized {
    /// The kinds of faults are the numbers below this.
    const FAULTS: u32;
    /// Those of the short run.
    const SHORT: &'static [u32];

    /// Held by a run. All servers and nodes at a time would only wait for each other.
    fn turn() -> &'static Mutex<()>;

    /// For nodes with these arguments.
    async fn start(args: &[&str]) -> Self;

    /// For logs. A run that fails leaves it.
    fn folder(&self) -> &Path;

    /// Where nodes reach it.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// For a node that reaches it at these addresses instead.
    fn url(addresses: &[SocketAddr]) -> String;

    /// One fault, from its beginning to its end.
    async fn fault(run: &mut Run<Self>, kind: u32);

    /// Waits until the loss of one server is no loss.
    async fn whole(run: &Run<Self>);

    /// What each user's readers are held to, when nothing is published any more.
    async fn standard(run: &Run<Self>, got: &[Vec<Got>], confirmed: &[HashSet<String>])
    -> Standard;
}

/// Where the nodes are. A node that is gone has no URL.
type Urls = watch::Receiver<[Option<String>; NODES]>;

pub(crate) struct Run<E> {
    pub(crate) engine: E,
    pub(crate) nodes: [Option<Node>; NODES],
    urls: watch::Sender<[Option<String>; NODES]>,
    pub(crate) args: &'static [&'static str],
    pub(crate) rng: fastrand::Rng,
    /// Permissions were withdrawn, so streams are told that they may lack something.
    pub(crate) may_lack: bool,
}

/// What was published to each user.
#[derive(Default)]
struct Published {
    confirmed: Mutex<[HashSet<String>; USERS]>,
    /// How many were not confirmed, and may be lost or not.
    unconfirmed: Mutex<[usize; USERS]>,
}

impl Published {
    fn confirmed(&self) -> MutexGuard<'_, [HashSet<String>; USERS]> {
        self.confirmed.lock().expect("nobody panics")
    }
}

impl<E: Engine> Run<E> {
    async fn new(seed: u64, args: &'static [&'static str]) -> Self {
        let mut run = Self {
            engine: E::start(args).await,
            nodes: [None, None, None],
            urls: watch::channel([None, None, None]).0,
            args,
            rng: fastrand::Rng::with_seed(seed),
            may_lack: false,
        };
        for node in 0..NODES {
            run.start_node(node).await;
        }
        run
    }

    pub(crate) async fn start_node(&mut self, node: usize) {
        let started = Node::start(&self.engine, self.args).await;
        let url = started.url.clone();
        self.nodes[node] = Some(started);
        self.urls.send_modify(|urls| urls[node] = Some(url));
    }

    pub(crate) async fn kill_node(&mut self, node: usize) {
        self.urls.send_modify(|urls| urls[node] = None);
        self.nodes[node].take().expect("it runs").kill().await;
    }

    pub(crate) fn node(&self, node: usize) -> &Node {
        self.nodes[node].as_ref().expect("it runs")
    }

    pub(crate) fn is_replayable(&self) -> bool {
        !self.args.contains(&"--at-most-once")
    }

    pub(crate) async fn pause(&mut self, longest: u64) {
        sleep(Duration::from_millis(self.rng.u64(100..longest))).await;
    }

    /// A node dies, and another takes its place.
    pub(crate) async fn replace_node(&mut self, node: usize) {
        self.kill_node(node).await;
        self.pause(1_000).await;
        self.start_node(node).await;
    }

    pub(crate) async fn stop_node(&mut self, node: usize) {
        self.node(node).signal("STOP");
        self.pause(5_000).await;
        self.node(node).signal("CONT");
    }

    pub(crate) async fn cut_node(&mut self, node: usize) {
        self.node(node).cut();
        self.pause(3_000).await;
        self.node(node).mend();
    }
}

/// A node's process, and its way to each server.
pub(crate) struct Node {
    child: tokio::process::Child,
    url: String,
    pub(crate) networks: Vec<Network>,
}

impl Node {
    /// One that ends while it starts is started again, as a supervisor does.
    async fn start<E: Engine>(engine: &E, args: &[&str]) -> Self {
        for _ in 0..10 {
            // Built before the time begins.
            let program = example::example("cluster");
            let started = Self::try_start(engine, program, args);
            let started = timeout(Duration::from_secs(60), started).await;
            if let Some(node) = started.expect("a node starts within a minute") {
                return node;
            }
            sleep(Duration::from_millis(200)).await;
        }
        panic!("a node does not start: {}", engine.folder().display());
    }

    async fn try_start<E: Engine>(engine: &E, program: Command, args: &[&str]) -> Option<Self> {
        let mut networks = Vec::new();
        for server in engine.addresses() {
            networks.push(Network::to(server).await);
        }
        let addresses: Vec<SocketAddr> = networks.iter().map(|way| way.address).collect();
        let path = engine.folder().join("nodes.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(path);
        let mut log = log.expect("the folder is there");
        writeln!(log, "a node starts").expect("there is room");
        let mut child = tokio::process::Command::from(program)
            .args(["--engine", &E::url(&addresses), "--node", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = lines.next_line().await.expect("UTF-8")?;
        let url = line.strip_prefix("listens on ").expect("a URL").to_owned();
        Some(Self {
            child,
            url,
            networks,
        })
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id().expect("it runs"), name);
    }

    pub(crate) fn cut(&self) {
        self.networks.iter().for_each(Network::cut);
    }

    pub(crate) fn mend(&self) {
        self.networks.iter().for_each(Network::mend);
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("a child can be killed");
    }
}

/// Publishes one event after another, and goes to another node when its node does not take one. Whoever publishes has a new
/// name on each node, since nobody can say what became of an event that a node did not confirm.
async fn publish(
    number: usize,
    mut urls: Urls,
    published: Arc<Published>,
    mut stop: watch::Receiver<bool>,
) {
    let http = client();
    let mut rng = fastrand::Rng::with_seed(number as u64);
    let (mut life, mut count) = (0, 0);
    let mut node = number % NODES;
    while !*stop.borrow() {
        let user = rng.usize(..USERS);
        let url = urls.borrow_and_update()[node].clone();
        count += 1;
        let name = format!("<{number}.{life} {count}>");
        let is_confirmed = match url {
            None => false,
            Some(url) => {
                let post = http
                    .post(format!("{url}/events/user{user}"))
                    .body(name.clone());
                let answer = timeout(Duration::from_secs(20), post.send()).await;
                matches!(answer, Ok(Ok(answer)) if answer.status().is_success())
            }
        };
        if is_confirmed {
            published.confirmed()[user].insert(name);
        } else {
            published.unconfirmed.lock().expect("nobody panics")[user] += 1;
            (life, count) = (life + 1, 0);
            node = rng.usize(..NODES);
        }
        tokio::select! {
            () = sleep(Duration::from_millis(rng.u64(5..30))) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Reads a user's stream for as long as it is told to, and opens it again on some node whenever it ends, or when it likes.
async fn read(
    number: usize,
    urls: Urls,
    got: Arc<Mutex<Vec<Got>>>,
    mut stop: watch::Receiver<bool>,
) {
    let http = client();
    let mut rng = fastrand::Rng::with_seed(1_000 + number as u64);
    let mut last = String::new();
    while !*stop.borrow() {
        let node = rng.usize(..NODES);
        let Some(url) = urls.borrow()[node].clone() else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut request = http.get(format!("{url}/events/user{}", number % USERS));
        if !last.is_empty() {
            request = request.header("last-event-id", &last);
        }
        let hops = Duration::from_millis(rng.u64(500..20_000));
        let until = Instant::now() + hops;
        let opened = tokio::time::timeout_at(until, request.send()).await;
        let Ok(Ok(mut response)) = opened else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        assert!(response.status().is_success(), "{response:?}");
        got.lock().expect("nobody panics").push(Got::Opened);
        let mut decoder = Decoder::default();
        loop {
            let chunk = tokio::select! {
                chunk = tokio::time::timeout_at(until, response.chunk()) => chunk,
                _ = stop.changed() => return,
            };
            let Ok(Ok(Some(bytes))) = chunk else { break };
            decoder.push(&bytes);
            for event in decoder.take() {
                let item = match event.event.as_str() {
                    "gap" => Got::Gap(event.data.clone()),
                    _ => Got::Event(event.data.clone(), event.id.clone()),
                };
                got.lock().expect("nobody panics").push(item);
            }
            let id = decoder.reconnects_with();
            if !id.is_empty() {
                last = id.to_owned();
            }
        }
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(2))
        .build()
        .expect("a client")
}

/// What each reader has got so far.
fn snapshot(got: &[Arc<Mutex<Vec<Got>>>]) -> Vec<Vec<Got>> {
    let copy = |got: &Arc<Mutex<Vec<Got>>>| got.lock().expect("nobody panics").clone();
    got.iter().map(copy).collect()
}

async fn run<E: Engine>(seed: u64, args: &'static [&'static str]) -> (usize, Checked) {
    let mut run = Run::<E>::new(seed, args).await;
    let (stop_publishing, publishing) = watch::channel(false);
    let (stop_reading, reading) = watch::channel(false);
    let published = Arc::<Published>::default();
    let got: Vec<Arc<Mutex<Vec<Got>>>> = (0..READERS).map(|_| Arc::default()).collect();
    let mut readers = JoinSet::new();
    for (number, got) in got.iter().enumerate() {
        readers.spawn(read(
            number,
            run.urls.subscribe(),
            got.clone(),
            reading.clone(),
        ));
    }
    // Everybody is there before the first event, so that everybody must get all.
    until("all readers have a stream", async || {
        let all = snapshot(&got);
        all.iter().all(|got| !got.is_empty()).then_some(())
    })
    .await;
    let mut publishers = JoinSet::new();
    for number in 0..NODES {
        let (urls, published) = (run.urls.subscribe(), published.clone());
        publishers.spawn(publish(number, urls, published, publishing.clone()));
    }
    let faults = match seeds() {
        Some(_) => (0..FAULTS).map(|_| run.rng.u32(..E::FAULTS)).collect(),
        None => E::SHORT.to_vec(),
    };
    for kind in faults {
        E::fault(&mut run, kind).await;
        run.pause(1_500).await;
    }
    E::whole(&run).await;
    // Now that nothing is wrong any more, events arrive again, and not only gaps.
    let before = published.confirmed().clone();
    until("every reader gets a new event", async || {
        let confirmed = published.confirmed().clone();
        let is_new = |user: usize, name: &String| {
            confirmed[user].contains(name) && !before[user].contains(name)
        };
        let has_new = |(reader, got): (usize, &Vec<Got>)| {
            let mut names = got.iter().rev().filter_map(Got::name);
            names.any(|name| is_new(reader % USERS, name))
        };
        // On a busy machine the faults may have been over before much was published.
        let is_enough = confirmed.iter().map(HashSet::len).sum::<usize>() >= ENOUGH;
        let all = snapshot(&got);
        (is_enough && all.iter().enumerate().all(has_new)).then_some(())
    })
    .await;
    stop_publishing.send_replace(true);
    while let Some(ended) = publishers.join_next().await {
        ended.expect("a publisher does not panic");
    }

    let confirmed = published.confirmed().clone();
    // Until all is well, or long enough for the slowest way to find out.
    let deadline = Instant::now() + SETTLE;
    let (standard, checked) = loop {
        let standard = E::standard(&run, &snapshot(&got), &confirmed).await;
        let all = snapshot(&got);
        let check = |(reader, got): (usize, &Vec<Got>)| {
            let user = reader % USERS;
            standard.check(got, user, &confirmed[user])
        };
        let checked: Vec<_> = all.iter().enumerate().map(check).collect();
        if checked.iter().all(Result::is_ok) || Instant::now() > deadline {
            break (standard, checked);
        }
        sleep(Duration::from_millis(500)).await;
    };
    stop_reading.send_replace(true);
    while let Some(ended) = readers.join_next().await {
        ended.expect("a reader does not panic");
    }
    let got = snapshot(&got);
    if checked.iter().any(Result::is_err) {
        let path = run.engine.folder().join("readers.txt");
        fs::write(path, format!("{got:#?}")).expect("the folder is there");
    }
    let unconfirmed = *published.unconfirmed.lock().expect("nobody panics");
    let mut total = Checked::default();
    for (reader, checked) in checked.into_iter().enumerate() {
        let checked = checked.and_then(|checked| {
            let allowed = match &standard {
                _ if run.may_lack => usize::MAX,
                Standard::Log(_) => 0,
                // What was on its way to a log that was lost counts as lost, and is told.
                Standard::Logs(_) => unconfirmed[reader % USERS],
                Standard::Told | Standard::Publishers => usize::MAX,
            };
            match checked.idle_gaps <= allowed {
                true => Ok(checked),
                false => Err(format!(
                    "{} gaps where nothing is missing",
                    checked.idle_gaps
                )),
            }
        });
        let checked = checked.unwrap_or_else(|violation| {
            panic!(
                "seed {seed}, reader {reader}: {violation}\n{:?}\n{}",
                received::around(&got[reader], &violation),
                run.engine.folder().display()
            )
        });
        total.deliveries += checked.deliveries;
        total.gaps += checked.gaps;
        total.idle_gaps += checked.idle_gaps;
    }
    let is_gap = |got: &&Got| matches!(got, Got::Gap(_));
    let gaps: Vec<&Got> = got.iter().flatten().filter(is_gap).collect();
    if !gaps.is_empty() {
        println!("  gaps: {gaps:?}");
    }
    if let Standard::Logs(logs) = &standard {
        let counts: Vec<usize> = logs.iter().map(Logs::count).collect();
        println!("  logs of each user: {counts:?}");
    }
    (confirmed.iter().map(HashSet::len).sum(), total)
}

/// One run after the other.
pub(crate) fn run_all<E: Engine>(args: &'static [&'static str]) {
    let _turn = E::turn().lock().unwrap_or_else(PoisonError::into_inner);
    for seed in seeds().unwrap_or(0..1) {
        println!("seed {seed}");
        let begun = Instant::now();
        let runtime = two_threads();
        let (events, checked) = runtime.block_on(run::<E>(seed, args));
        let Checked {
            deliveries,
            gaps,
            idle_gaps,
        } = checked;
        println!(
            "  {events} events confirmed, {deliveries} deliveries, {gaps} gaps, {idle_gaps} with nothing missing, {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        assert!(deliveries > events, "readers share what is published");
        runtime.shutdown_background();
    }
}
