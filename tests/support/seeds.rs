//! Runs under random faults, each from its seed.

use std::env;
use std::ops::Range;

use tokio::runtime::{Builder, Runtime};

use super::cluster::{Cluster, Engine, Plan};

/// Those of `TIDINGS_SEEDS=FROM..TO`, if it is set.
pub(crate) fn seeds() -> Option<Range<u64>> {
    let seeds = env::var("TIDINGS_SEEDS").ok()?;
    let (from, to) = seeds.split_once("..").expect("TIDINGS_SEEDS=FROM..TO");
    Some(from.parse().expect("a number")..to.parse().expect("a number"))
}

/// What was seen in all runs.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    runs: u64,
    events: u64,
    deliveries: u64,
    faults: u64,
    gaps: u64,
}

impl Totals {
    /// Checks that the runs were no empty ones: there were faults, and of each event so many deliveries. That is the mean of several runs;
    /// in one by itself, nodes and readers may be away for most of the time.
    pub(crate) fn assert_busy(&self, deliveries: f64) {
        let least = match self.runs {
            ..2 => 1,
            _ => (deliveries * self.events as f64) as u64,
        };
        let is_busy = self.events > 0 && self.faults > 0 && self.deliveries >= least;
        assert!(is_busy, "at least {least} deliveries: {self:?}");
    }
}

/// For engines behind sockets.
pub(crate) fn two_threads() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Runs a cluster for each seed, with a runtime and an engine of its own.
pub(crate) fn run_each<E: Engine>(
    seeds: Range<u64>,
    runtime: impl Fn() -> Runtime,
    engine: impl Fn(u64) -> E,
    plan: impl Fn(u64) -> Plan,
) -> Totals {
    let mut totals = Totals::default();
    for seed in seeds {
        // Known also when the run does not end.
        println!("seed {seed}");
        let runtime = runtime();
        runtime.block_on(async {
            let mut cluster = Cluster::new(plan(seed), engine(seed)).await;
            cluster.run().await;
            totals.runs += 1;
            totals.events += cluster.events;
            totals.deliveries += cluster.deliveries;
            totals.faults += cluster.faults;
            totals.gaps += cluster.gaps;
        });
        runtime.shutdown_background();
    }
    println!("{totals:?}");
    totals
}
