//! Nodes over a real NATS server that is killed and restarted, and over networks that are cut: nothing is lost in silence,
//! and nothing comes twice.
//!
//! The seeds are fixed, and few. `TIDINGS_SEEDS=0..200 cargo test --test cluster backplane_nats_faults` runs others.

use std::ops::Range;
use std::time::Duration;

use tidings::backplane::Level;
use tidings_nats::Interest;

use crate::support::cluster::{Cluster, Plan};
use crate::support::nats_cluster::Real;

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
        unsent: false,
        replaces: false,
        denies: false,
        burst: 5,
        long_cut: Duration::ZERO,
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
