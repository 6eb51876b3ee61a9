//! Nodes over a real NATS server that is killed and restarted, and over networks that are cut: nothing is lost in silence,
//! and nothing comes twice.
//!
//! The seeds are fixed, and few. `TIDINGS_SEEDS=0..200 cargo test --features nats --test backplane_nats_faults` runs others.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_trait::async_trait;
use tidings::backplane::nats::{Interest, Log, Nats, Settings};
use tidings::backplane::{Backplane, Level};

use cluster::{Cluster, Engine, Plan};
use nats::{Network, Server};

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/nats.rs"]
mod nats;

struct Real {
    server: Server,
    level: Level,
    interest: Interest,
    networks: Vec<Network>,
}

impl Real {
    fn start(level: Level, interest: Interest) -> Self {
        Self {
            server: Server::start(),
            level,
            interest,
            networks: Vec::new(),
        }
    }
}

#[async_trait]
impl Engine for Real {
    fn level(&self) -> Level {
        self.level
    }

    async fn node(&mut self) -> Arc<dyn Backplane> {
        let network = Network::to(self.server.address()).await;
        let options = ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .ping_interval(Duration::from_secs(1));
        let settings = Settings::new("faults")
            .interest(self.interest)
            .timeout(Duration::from_secs(2));
        let settings = match self.level {
            Level::Replayable => settings.replayable(Log::new("FAULTS").max_per_user(1_000_000)),
            _ => settings,
        };
        let nats = Nats::connect(network.url(), options, settings).await;
        self.networks.push(network);
        Arc::new(nats.expect("the server is there"))
    }

    async fn stop(&mut self) {
        self.server.kill();
    }

    async fn start(&mut self) {
        self.server.restart();
    }

    async fn cut(&mut self, node: usize) {
        self.networks[node].cut();
    }

    async fn mend(&mut self, node: usize) {
        self.networks[node].mend();
    }

    /// The network does that, when it is cut.
    fn lose_acknowledgements(&mut self, _: usize) {}
}

fn seeds() -> Range<u64> {
    let Ok(seeds) = std::env::var("TIDINGS_SEEDS") else {
        return 0..2;
    };
    let (from, to) = seeds.split_once("..").expect("TIDINGS_SEEDS=FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn run(level: Level, plan: impl Fn(u64) -> Plan) {
    let (mut events, mut deliveries, mut faults, mut gaps) = (0, 0, 0, 0);
    for seed in seeds() {
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let interest = match seed % 2 {
                0 => Interest::PerUser,
                _ => Interest::Buckets,
            };
            let engine = Real::start(level, interest);
            let mut cluster = Cluster::new(plan(seed), engine).await;
            cluster.run().await;
            events += cluster.events;
            deliveries += cluster.deliveries;
            faults += cluster.faults;
            gaps += cluster.gaps;
        });
        runtime.shutdown_background();
    }
    println!("{events} events, {deliveries} deliveries, {faults} faults, {gaps} gaps");
    assert!(events > 0 && deliveries > events && faults > 0);
}

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        nodes: 2 + (seed % 2) as usize,
        users: 3,
        clients: 12,
        steps: 300,
        history: 0,
        queue: 100_000,
        crashes: true,
        longest: Duration::from_millis(400),
        settle: Duration::from_secs(2),
    }
}

#[test]
fn replayable_delivers_everything_once() {
    run(Level::Replayable, plan);
}

#[test]
fn at_most_once_tells_what_is_missing() {
    run(Level::AtMostOnce, |seed| Plan {
        history: 5_000,
        ..plan(seed)
    });
}
