//! Nodes over a real NATS server that is killed and restarted, and over networks that are cut: nothing is lost in silence,
//! and nothing comes twice.
//!
//! The seeds are fixed, and few. `TIDINGS_SEEDS=0..200 cargo test --test cluster backplane_nats_faults` runs others.

use std::time::Duration;

use tidings::backplane::Level;
use tidings_nats::Interest;

use crate::support::cluster::Plan;
use crate::support::nats_cluster::Real;
use crate::support::seeds::{run_each, seeds};

fn run(level: Level, plan: impl Fn(u64) -> Plan) {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let engine = |seed| {
        let interest = match seed % 2 {
            0 => Interest::PerUser,
            _ => Interest::Buckets,
        };
        Real::start(level, interest)
    };
    let seen = run_each(seeds().unwrap_or(0..2), runtime, engine, plan);
    assert!(seen.events > 0 && seen.deliveries > seen.events && seen.faults > 0);
}

fn plan(seed: u64) -> Plan {
    Plan {
        clients: 12,
        steps: 300,
        longest: Duration::from_millis(400),
        settle: Duration::from_secs(2),
        ..Plan::new(seed)
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
