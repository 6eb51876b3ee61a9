//! Random faults between nodes in one process: nothing is lost in silence, and nothing comes twice.
//!
//! The seeds are fixed. `TIDINGS_SEEDS=1000..2000 cargo test --test cluster backplane_faults` runs others.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings::backplane::{Backplane, InProcess, InProcessNode, Level};

use crate::support::cluster::{Cluster, Engine, Plan};

struct Local {
    engine: InProcess,
    level: Level,
    nodes: Vec<InProcessNode>,
}

#[async_trait]
impl Engine for Local {
    fn level(&self) -> Level {
        self.level
    }

    async fn node(&mut self) -> Arc<dyn Backplane> {
        let node = self.engine.node();
        self.nodes.push(node.clone());
        Arc::new(node)
    }

    async fn stop(&mut self) {
        self.engine.stop();
    }

    async fn start(&mut self) {
        self.engine.start();
    }

    async fn cut(&mut self, node: usize) {
        self.engine.cut(&self.nodes[node]);
    }

    async fn mend(&mut self, node: usize) {
        self.engine.mend(&self.nodes[node]);
    }

    fn lose_acknowledgements(&mut self, count: usize) {
        self.engine.lose_acknowledgements(count);
    }

    fn lose_send(&mut self) {
        self.engine.lose_sends(1);
    }

    fn replace(&mut self, lacks: usize) {
        self.engine.start_without(lacks);
    }

    fn set_denied(&mut self, node: usize, is_denied: bool) {
        match is_denied {
            true => self.engine.deny(&self.nodes[node]),
            false => self.engine.allow(&self.nodes[node]),
        }
    }
}

fn seeds() -> Range<u64> {
    let Ok(seeds) = std::env::var("TIDINGS_SEEDS") else {
        return 0..200;
    };
    let (from, to) = seeds.split_once("..").expect("TIDINGS_SEEDS=FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn run(level: Level, plan: impl Fn(u64) -> Plan) {
    let (mut events, mut deliveries, mut faults, mut gaps) = (0, 0, 0, 0);
    for seed in seeds() {
        // Known also when the run does not end.
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let engine = Local {
                engine: InProcess::new(level),
                level,
                nodes: Vec::new(),
            };
            let mut cluster = Cluster::new(plan(seed), engine).await;
            cluster.run().await;
            events += cluster.events;
            deliveries += cluster.deliveries;
            faults += cluster.faults;
            gaps += cluster.gaps;
        });
    }
    println!("{events} events, {deliveries} deliveries, {faults} faults, {gaps} gaps");
    assert!(events > 0 && 2 * deliveries > events && faults > 0);
}

fn plan(seed: u64) -> Plan {
    Plan {
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
        burst: 5,
        long_cut: Duration::ZERO,
        longest: Duration::from_secs(2),
        settle: Duration::from_secs(60),
    }
}

#[test]
fn replayable_delivers_everything_once() {
    run(Level::Replayable, plan);
}

#[test]
fn replayable_tells_what_found_no_room() {
    run(Level::Replayable, |seed| Plan {
        queue: 24,
        ..plan(seed)
    });
}

/// The last message of a user too: nothing comes behind it.
#[test]
fn replayable_delivers_what_is_in_the_log_and_was_not_sent() {
    run(Level::Replayable, |seed| Plan {
        unsent: true,
        ..plan(seed)
    });
}

#[test]
fn replayable_tells_when_the_log_is_another_one() {
    run(Level::Replayable, |seed| Plan {
        replaces: true,
        unsent: true,
        ..plan(seed)
    });
}

#[test]
fn replayable_tells_what_was_refused() {
    run(Level::Replayable, |seed| Plan {
        denies: true,
        ..plan(seed)
    });
}

#[test]
fn at_most_once_tells_what_is_missing() {
    run(Level::AtMostOnce, plan);
}

#[test]
fn at_most_once_tells_clients_that_resume() {
    run(Level::AtMostOnce, |seed| Plan {
        history: 5_000,
        ..plan(seed)
    });
}
