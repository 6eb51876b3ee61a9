//! Nodes over a real NATS server that is killed, restarted and stopped for a while, and over networks that are cut: nothing is lost
//! in silence, and nothing comes twice.
//!
//! The seeds are fixed, and few. `TIDINGS_SEEDS=0..200 cargo test --test cluster backplane_nats_faults` runs others.

use std::time::Duration;

use tidings::backplane::Level;
use tidings_nats::{Interest, Log, Settings};

use crate::support::cluster::Plan;
use crate::support::nats::Server;
use crate::support::networked::Networked;
use crate::support::seeds::{run_each, seeds, two_threads};

fn run(level: Level, plan: impl Fn(u64) -> Plan) {
    let engine = |seed| {
        let settings = Settings::new("faults").timeout(Duration::from_secs(2));
        let settings = settings.interest(match seed % 2 {
            0 => Interest::PerUser,
            _ => Interest::Buckets,
        });
        let settings = match level {
            Level::Replayable => settings.replayable(Log::new("FAULTS").max_per_user(1_000_000)),
            _ => settings,
        };
        Networked::new(Server::start(), settings)
    };
    let seen = run_each(seeds().unwrap_or(0..2), two_threads, engine, plan);
    seen.assert_busy(1.0);
}

#[test]
fn replayable_delivers_everything_once() {
    run(Level::Replayable, Plan::over_sockets);
}

#[test]
fn at_most_once_reports_missing_events() {
    run(Level::AtMostOnce, |seed| Plan {
        history: 5_000,
        ..Plan::over_sockets(seed)
    });
}
