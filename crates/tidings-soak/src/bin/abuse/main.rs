//! What does a client that abuses the service see, and what does it cost the server?
//!
//! One row for each case: floods of headers, ids of events that are too long, requests that come byte by byte, a storm of
//! connections over the cap, users whose ids look alike, many publishers on one user, one user with ten thousand streams,
//! and too little memory. A server whose memory or time is measured is a process of its own. The time on a CPU is that of
//! all its threads; memory is RSS, and "back" is how much more it is a moment afterwards than before, most of which the
//! allocator keeps for later.
//!
//! Where a bound is broken, the program says so and fails.
//!
//!     cargo run --release -p tidings-soak --bin abuse
//!     cargo run --release -p tidings-soak --bin abuse -- --only storm
//!
//! The storm tries 10,000 connections a second. Two cores can make and answer as many only when they have nothing else to
//! do; the row has the rate that was reached.

#[path = "../../../../../benches/support/mod.rs"]
mod support;

mod crowds;
mod ids;
mod report;
mod requests;
mod scarce;
mod server;
mod slow;
mod storm;

use std::process::ExitCode;

use report::Report;
use support::process::part;
use support::{Mode, kernel, word};
use tokio::runtime::Builder;

/// A group of cases.
type Group = fn(&mut Report, Mode);

const GROUPS: [(&str, Group); 6] = [
    ("requests", requests::run),
    ("slow", slow::run),
    ("storm", storm::run),
    ("ids", ids::run),
    ("crowds", crowds::run),
    ("scarce", scarce::run),
];

fn main() -> ExitCode {
    let mode = Mode::of_program();
    if let Some(args) = part() {
        let (name, args) = args.split_first().expect("a part has a name");
        match &**name {
            "server" => server::be(args),
            "storm" => storm::be(args),
            "ids" => ids::be(args),
            "scarce" => scarce::be(args),
            other => panic!("there is no part {other:?}"),
        }
        return ExitCode::SUCCESS;
    }
    kernel::allow_files(mode.pick(12_000, 1_000));
    let only = word("only");
    let mut report = Report::default();
    for (name, run) in GROUPS {
        if only.as_deref().is_none_or(|only| only == name) {
            run(&mut report, mode);
        }
    }
    report.end()
}

/// Runs what clients do, on one thread: the server has more to do.
fn block_on<F: Future>(clients: F) -> F::Output {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread can be started")
        .block_on(clients)
}
