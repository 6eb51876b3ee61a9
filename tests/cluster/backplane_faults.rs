//! Random faults between nodes in one process: nothing is lost in silence, and nothing comes twice.
//!
//! The seeds are fixed. `TIDINGS_SEEDS=1000..2000 cargo test --test cluster backplane_faults` runs others.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tidings::backplane::{Backplane, Level};
use tidings_testkit::backplane::{InProcess, InProcessNode};

use crate::support::cluster::{Engine, Plan};
use crate::support::seeds::{run_each, seeds};

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

/// Few enough for programs that are not optimised; `scripts/test optimised` runs more.
const SEEDS: Range<u64> = 0..50;

fn run(level: Level, plan: impl Fn(u64) -> Plan) {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    };
    let engine = |_| Local {
        engine: InProcess::new(level),
        level,
        nodes: Vec::new(),
    };
    let seen = run_each(seeds().unwrap_or(SEEDS), runtime, engine, plan);
    seen.assert_busy(0.5);
}

#[test]
fn replayable_delivers_everything_once() {
    run(Level::Replayable, Plan::new);
}

#[test]
fn replayable_reports_events_that_found_no_room() {
    run(Level::Replayable, |seed| Plan {
        queue: 24,
        ..Plan::new(seed)
    });
}

/// The last message of a user too: nothing comes behind it.
#[test]
fn replayable_delivers_what_is_in_the_log_and_was_not_sent() {
    run(Level::Replayable, |seed| Plan {
        unsent: true,
        ..Plan::new(seed)
    });
}

#[test]
fn replayable_reports_a_replaced_log() {
    run(Level::Replayable, |seed| Plan {
        replaces: true,
        unsent: true,
        ..Plan::new(seed)
    });
}

#[test]
fn replayable_reports_refused_events() {
    run(Level::Replayable, |seed| Plan {
        denies: true,
        ..Plan::new(seed)
    });
}

#[test]
fn at_most_once_reports_missing_events() {
    run(Level::AtMostOnce, Plan::new);
}

#[test]
fn at_most_once_reports_missing_events_to_clients_that_resume() {
    run(Level::AtMostOnce, |seed| Plan {
        history: 5_000,
        ..Plan::new(seed)
    });
}
