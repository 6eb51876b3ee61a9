//! With NATS between two nodes, how long is an event on its way to a stream, on the node that broadcasts and on the other one?
//! How long do ten thousand clients wait that come back at once to a node which does not know them?
//!
//! Once with one server, once with a cluster of three of which each keeps the log, both on this machine, which the nodes and
//! the clients share. `NATS_SERVER` names another program than the `nats-server` in the path. `--scene delivery` and
//! `--scene return` run one of the two parts.

mod support;

#[path = "support/nodes.rs"]
mod nodes;

#[path = "../tests/support/nats.rs"]
mod nats;
#[allow(dead_code, reason = "the servers have no faults here")]
#[path = "../tests/support/three.rs"]
mod three;

use std::process::Command;

use async_nats::ConnectOptions;
use tidings::backplane::Level;
use tidings_nats::{Interest, Log, Nats, Settings};

use nodes::Hub;
use support::{Mode, quantile, word};

/// The servers, one or three.
enum Engine {
    One(nats::Server),
    Three(three::Servers),
}

impl Engine {
    async fn start(servers: usize) -> Self {
        match servers {
            1 => Self::One(nats::Server::start()),
            _ => Self::Three(three::Servers::start().await),
        }
    }

    async fn node(&self, level: Level) -> Hub {
        let (urls, replicas) = match self {
            Self::One(server) => (server.url(), 1),
            Self::Three(servers) => {
                let url = |server| format!("nats://node:n@{}", servers.address(server));
                ([0, 1, 2].map(url).join(","), 3)
            }
        };
        let settings = Settings::new("cluster").interest(Interest::Buckets);
        let settings = match level {
            Level::Replayable => settings.replayable(Log::new(three::STREAM).replicas(replicas)),
            _ => settings,
        };
        let options = ConnectOptions::new().ignore_discovered_servers();
        let nats = Nats::connect(&urls, options, settings).await;
        let hub = Hub::builder().backplane(nats.expect("the servers are there"));
        hub.build().expect("valid settings")
    }
}

/// With so many milliseconds between events.
async fn delivery(servers: usize, level: Level, pause: u64, mode: Mode) {
    let engine = Engine::start(servers).await;
    let nodes = [engine.node(level).await, engine.node(level).await];
    let name = match level {
        Level::Replayable => "replayable",
        _ => "at most once",
    };
    print!("{servers:7}  {name:13} {:8}", 1000 / pause);
    for taken in &mut nodes::delivery(nodes, pause, 20, mode).await {
        print!(
            "  {:8.2} {:8.2}",
            quantile(taken, 0.5),
            quantile(taken, 0.99)
        );
    }
    println!();
}

async fn returns(servers: usize, mode: Mode) {
    let engine = Engine::start(servers).await;
    print!("{servers:7}  ");
    nodes::returns(async || engine.node(Level::Replayable).await, mode).await;
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let program = std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
    let version = Command::new(&program).arg("--version").output();
    let version = version.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    print!("{}", String::from_utf8_lossy(&version.stdout));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let scene = word("scene");
    let is_wanted = |name: &str| scene.as_deref().is_none_or(|scene| scene == name);
    if is_wanted("delivery") {
        println!("\nmilliseconds from broadcast to stream, events of 200 B to 100 users");
        println!("{:31}  {:>17}  {:>17}", "", "own node", "other node");
        println!("servers  level         a second       p50      p99       p50      p99");
        for servers in [1, 3] {
            for level in [Level::AtMostOnce, Level::Replayable] {
                // The task that publishes sleeps between events only if they are rare.
                for pause in [20, 2] {
                    runtime.block_on(delivery(servers, level, pause, mode));
                }
            }
        }
    }
    if is_wanted("return") {
        println!(
            "\nclients that come back at once to another node: seconds until they have what they missed"
        );
        println!("servers  clients  missed      p50     p99    last   gaps  lacking");
        for servers in [1, 3] {
            runtime.block_on(returns(servers, mode));
        }
    }
    runtime.shutdown_background();
}
