//! Does every event arrive once, and in order, whatever fails?
//!
//! Two and then three nodes over a real NATS server, 1,000 users with clients that move between the nodes, 100,000 events.
//! Meanwhile the server is killed with SIGKILL and restarted, networks are cut for moments and one for ten seconds, and a node
//! dies. At both levels: replayable, every client gets every event once and in order, without a gap; at most once, every
//! missing event was reported as a gap. A violation ends the program with what the client got, and the seed.
//!
//!     cargo run --release -p tidings-soak --bin backplane_faults

#[path = "../../../../tests/support/cluster.rs"]
mod cluster;
#[path = "../../../../tests/support/nats.rs"]
mod nats;
#[path = "../../../../tests/support/nats_cluster.rs"]
mod nats_cluster;
#[path = "../../../../tests/support/networked.rs"]
mod networked;
#[path = "../../../../benches/support/mod.rs"]
mod support;
#[path = "../../../../tests/support/three.rs"]
#[allow(dead_code, reason = "`networked` uses a part of it")]
mod three;

use std::time::{Duration, Instant};

use tidings::backplane::Level;
use tidings_nats::{Interest, Log, Settings};

use cluster::{Cluster, Plan};
use nats::Server;
use networked::Networked;
use support::{Mode, option};

fn main() {
    let mode = Mode::of_program();
    let seed = option("seed", 1) as u64;
    for level in [Level::Replayable, Level::AtMostOnce] {
        for nodes in [2, 3] {
            let plan = Plan {
                seed: seed + nodes as u64,
                nodes,
                users: mode.pick(1_000, 20),
                clients: mode.pick(1_500, 30),
                steps: mode.pick(1_500, 60),
                history: 5_000,
                queue: 1_000_000,
                // One does, halfway: all clients of a node take their time to come back.
                crashes: false,
                unsent: false,
                replaces: false,
                denies: false,
                pauses: true,
                promotes: false,
                burst: mode.pick(180, 20),
                longest: Duration::from_millis(400),
                long_cut: mode.pick(Duration::from_secs(10), Duration::from_millis(100)),
                settle: Duration::from_secs(3),
            };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            let begin = Instant::now();
            runtime.block_on(async {
                let settings = Settings::new("faults")
                    .interest(Interest::Buckets)
                    .timeout(Duration::from_secs(2));
                let settings = match level {
                    Level::Replayable => {
                        settings.replayable(Log::new("FAULTS").max_per_user(1_000_000))
                    }
                    _ => settings,
                };
                let engine = Networked::new(Server::start(), settings);
                let mut cluster = Cluster::new(plan, engine).await;
                cluster.run().await;
                println!(
                    "{level:?}, {nodes} nodes: {} events, {} deliveries, {} faults, {} gaps, no violation, {:.0} s",
                    cluster.events,
                    cluster.deliveries,
                    cluster.faults,
                    cluster.gaps,
                    begin.elapsed().as_secs_f64(),
                );
            });
            runtime.shutdown_background();
        }
    }
}
