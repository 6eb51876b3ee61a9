//! Three NATS servers that keep three copies of the log, three nodes that are processes of their own, and readers that go
//! from node to node, under faults of each of them: nothing is lost in silence, nothing comes twice, and at `Replayable`
//! everybody sees the log's order. If the servers themselves lose what they have confirmed, which NATS 2.9 does after some of
//! these faults, that is told.
//!
//! One short run for each level. `TIDINGS_SEEDS=0..200 cargo test --all-features --test cluster three_servers -- --nocapture` runs
//! random faults, and `NATS_SERVER=/path/to/nats-server` names another server than Debian's.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::decoder::Decoder;
use crate::support::received::{
    self, Checked, Got, check_log, check_publishers, check_told, name_in,
};
use crate::support::seeds::seeds;
use crate::support::three::{self, Denied, Node, Servers};

const NODES: usize = 3;
const USERS: usize = 3;
const READERS: usize = 9;
/// How many faults follow each other in a run with a seed of its own.
const FAULTS: usize = 5;
/// The faults of the short run: the leader is killed, a node, and a node loses its connection.
const SHORT: [u32; 3] = [0, 2, 5];
/// How long everything may take to arrive when all is whole again. The slow look at the tail has found it by then.
const SETTLE: Duration = Duration::from_secs(90);

/// Where the nodes are. A node that is gone has no URL.
type Urls = watch::Receiver<[Option<String>; NODES]>;

struct Run {
    servers: Servers,
    nodes: [Option<Node>; NODES],
    urls: watch::Sender<[Option<String>; NODES]>,
    args: &'static [&'static str],
    rng: fastrand::Rng,
    /// Permissions were withdrawn, so streams are told that they may lack something.
    may_lack: bool,
}

/// What was published to each user.
#[derive(Default)]
struct Published {
    confirmed: Mutex<[HashSet<String>; USERS]>,
}

impl Run {
    async fn new(seed: u64, args: &'static [&'static str]) -> Self {
        let mut run = Self {
            servers: Servers::start().await,
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

    async fn start_node(&mut self, node: usize) {
        let started = Node::start(&self.servers, self.args).await;
        let url = started.url.clone();
        self.nodes[node] = Some(started);
        self.urls.send_modify(|urls| urls[node] = Some(url));
    }

    async fn kill_node(&mut self, node: usize) {
        self.urls.send_modify(|urls| urls[node] = None);
        self.nodes[node].take().expect("it runs").kill().await;
    }

    fn node(&self, node: usize) -> &Node {
        self.nodes[node].as_ref().expect("it runs")
    }

    fn is_replayable(&self) -> bool {
        !self.args.contains(&"--at-most-once")
    }

    async fn pause(&mut self, longest: u64) {
        sleep(Duration::from_millis(self.rng.u64(100..longest))).await;
    }

    /// One fault, from its beginning to its end.
    async fn fault(&mut self, kind: u32) {
        let node = self.rng.usize(..NODES);
        let server = match self.is_replayable() && self.rng.bool() {
            true => self.servers.leading().await,
            false => self.rng.usize(..3),
        };
        println!("  fault {kind}, server {server}, node {node}");
        match kind {
            0 | 1 => {
                self.servers.kill(server);
                self.pause(3_000).await;
                self.servers.run(server);
            }
            2 => {
                self.kill_node(node).await;
                self.pause(1_000).await;
                self.start_node(node).await;
            }
            3 => {
                self.servers.signal(server, "STOP");
                self.pause(15_000).await;
                self.servers.signal(server, "CONT");
            }
            4 => {
                self.node(node).signal("STOP");
                self.pause(5_000).await;
                self.node(node).signal("CONT");
            }
            5 => {
                self.node(node).networks.iter().for_each(|way| way.cut());
                self.pause(3_000).await;
                self.node(node).networks.iter().for_each(|way| way.mend());
            }
            6 => {
                self.node(node).networks[server].cut();
                self.pause(1_000).await;
                self.node(node).networks[server].mend();
            }
            7 if self.is_replayable() => {
                self.whole().await;
                let longer = Duration::from_secs(self.rng.u64(3_600..7_200));
                self.servers
                    .edit(|config| {
                        config.max_age = longer;
                        config.duplicate_window = Duration::from_secs(100);
                        config.max_messages_per_subject = 900_000;
                    })
                    .await;
                self.servers.edit(|config| config.num_replicas = 1).await;
                self.pause(1_000).await;
                self.servers.edit(|config| config.num_replicas = 3).await;
            }
            8 => {
                self.may_lack = true;
                let denied = match self.rng.bool() {
                    true => Denied::Publish,
                    false => Denied::Subscribe,
                };
                self.servers.deny(denied);
                self.pause(3_000).await;
                self.servers.deny(Denied::Nothing);
            }
            9 => {
                self.whole().await;
                self.servers.kill(server);
                self.servers.lose_disk(server);
                self.pause(1_000).await;
                self.servers.run(server);
                self.whole().await;
            }
            _ => {
                for one in 0..3 {
                    self.servers.terminate(one);
                    self.pause(500).await;
                    self.servers.run(one);
                    self.whole().await;
                    self.kill_node(one).await;
                    self.start_node(one).await;
                }
            }
        }
        self.pause(1_500).await;
    }

    /// Waits until the loss of one server is no loss.
    async fn whole(&self) {
        if self.is_replayable() {
            self.servers.caught_up().await;
        }
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
            published.confirmed.lock().expect("nobody panics")[user].insert(name);
        } else {
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
                    _ => Got::Event(event.data.clone()),
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

async fn run(seed: u64, args: &'static [&'static str]) -> (usize, Checked) {
    let mut run = Run::new(seed, args).await;
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
    three::until("all readers have a stream", async || {
        let is_there = |got: &Arc<Mutex<Vec<Got>>>| !got.lock().expect("nobody panics").is_empty();
        got.iter().all(is_there).then_some(())
    })
    .await;
    let mut publishers = JoinSet::new();
    for number in 0..NODES {
        let (urls, published) = (run.urls.subscribe(), published.clone());
        publishers.spawn(publish(number, urls, published, publishing.clone()));
    }
    let faults = match seeds() {
        Some(_) => (0..FAULTS).map(|_| run.rng.u32(..11)).collect(),
        None => SHORT.to_vec(),
    };
    for kind in faults {
        run.fault(kind).await;
    }
    run.whole().await;
    stop_publishing.send_replace(true);
    while let Some(ended) = publishers.join_next().await {
        ended.expect("a publisher does not panic");
    }

    let confirmed = published.confirmed.lock().expect("nobody panics").clone();
    let log = match run.is_replayable() {
        true => run.servers.log().await,
        false => Vec::new(),
    };
    let mut logs: [Vec<String>; USERS] = Default::default();
    for name in log.iter().filter_map(|message| name_in(message)) {
        let user = confirmed.iter().position(|names| names.contains(&name));
        // One that was not confirmed is known by those of its user who got it.
        let user = user.or_else(|| {
            (0..READERS)
                .find(|reader| {
                    let got = got[*reader].lock().expect("nobody panics");
                    got.contains(&Got::Event(name.clone()))
                })
                .map(|reader| reader % USERS)
        });
        if let Some(user) = user {
            logs[user].push(name);
        }
    }
    let in_log: HashSet<&String> = logs.iter().flatten().collect();
    let all_confirmed = confirmed.iter().flatten();
    let lost = all_confirmed.filter(|name| !in_log.contains(name)).count();
    // The nodes must have noticed, and say so in the stream.
    let is_lost = run.is_replayable() && lost > 0 && {
        let description = run.servers.info().await.config.description;
        description.is_some_and(|text| text.contains("tidings-epoch="))
    };
    if is_lost {
        println!("  the servers lost {lost} events, which the nodes noticed");
    }
    let check = |reader: usize| {
        let got = got[reader].lock().expect("nobody panics").clone();
        let user = reader % USERS;
        match run.is_replayable() {
            true if is_lost => check_told(&got, &confirmed[user]),
            true => check_log(&got, &logs[user], &confirmed[user]),
            false => check_publishers(&got, &confirmed[user]),
        }
    };
    // Until all is well, or long enough for the slowest way to find out.
    let deadline = Instant::now() + SETTLE;
    while (0..READERS).any(|reader| check(reader).is_err()) && Instant::now() < deadline {
        sleep(Duration::from_millis(500)).await;
    }
    stop_reading.send_replace(true);
    while let Some(ended) = readers.join_next().await {
        ended.expect("a reader does not panic");
    }
    let mut total = Checked::default();
    for reader in 0..READERS {
        let checked = check(reader).unwrap_or_else(|violation| {
            let got = got[reader].lock().expect("nobody panics");
            panic!(
                "seed {seed}, reader {reader}: {violation}\n{:?}\n{}",
                received::around(&got, &violation),
                run.servers.folder().display()
            )
        });
        total.deliveries += checked.deliveries;
        total.gaps += checked.gaps;
        total.idle_gaps += checked.idle_gaps;
    }
    let gaps: Vec<String> = got
        .iter()
        .flat_map(|got| got.lock().expect("nobody panics").clone())
        .filter_map(|got| match got {
            Got::Gap(gap) => Some(gap),
            _ => None,
        })
        .collect();
    if !gaps.is_empty() {
        println!("  gaps: {gaps:?}");
    }
    if run.is_replayable() && !run.may_lack {
        assert_eq!(
            total.idle_gaps, 0,
            "seed {seed}: gaps where nothing is missing"
        );
    }
    (confirmed.iter().map(HashSet::len).sum(), total)
}

fn run_all(args: &'static [&'static str]) {
    // Six servers and six nodes at a time would only wait for each other.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for seed in seeds().unwrap_or(0..1) {
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (events, checked) = runtime.block_on(run(seed, args));
        let Checked {
            deliveries,
            gaps,
            idle_gaps,
        } = checked;
        println!(
            "  {events} events confirmed, {deliveries} deliveries, {gaps} gaps, {idle_gaps} with nothing missing"
        );
        assert!(
            events > 50 && deliveries > events,
            "a run without events shows nothing"
        );
        runtime.shutdown_background();
    }
}

#[test]
fn replayable_over_three_servers_delivers_everything_once_and_in_one_order() {
    run_all(&["--replicas", "3", "--per-user", "1000000"]);
}

#[test]
fn at_most_once_over_three_servers_tells_what_is_missing() {
    run_all(&["--at-most-once"]);
}
