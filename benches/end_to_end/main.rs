//! What does it cost a server to bring events to its clients, all of it, and what would others need for the same?
//!
//! Real connections over loopback to a server in a process of its own, which has one core, and whose clients have another.
//! The publisher is inside the server. Each event carries its number and the time; each connection must get every event of
//! its user once and in order, or the program fails. Servers take turns, and each round starts a new process.
//!
//! - `bare send loop`: the same bytes to each socket with a blocking `send`, nothing else. The limit, not a server.
//! - `tidings, serve`: a handler that returns a `Subscription`, under `tidings::serve::serve`.
//! - `tidings, axum::serve`: the same on `tidings::serve::listener` under `axum::serve`.
//! - `RwLock map, Sse`: the baseline of `benches/support` with axum's `Sse`, a clone of the `Event` per connection.
//! - `broadcast by hand, Sse`: a `RwLock<HashMap<_, broadcast::Sender<Event>>>`, `BroadcastStream` and `Sse`.
//! - `nginx, nchan`: if it is installed (`apt install nginx libnginx-mod-nchan`). Its publisher posts, from outside.
//!
//! Work: W1, one user with 1,000 streams, 200 B, one event in flight: the next is published when the last stream has the one
//! before. W1b, the same with 32 in flight. W2, 5,000 users with two streams each, 64 events in flight for all of them. W3,
//! 10,000 connections of 5,000 users: memory (RSS) while they are idle, and ten seconds after 20 events of 1 KB for everyone.
//! Medians of five rounds, of W3 three; `x` is the median of each round's ratio to the bare loop in that round.
//!
//!     cargo bench --bench end_to_end
//!     cargo bench --bench end_to_end -- --quick    # three rounds, of W3 two
//!     cargo bench --bench end_to_end -- --only 1   # one server, by its place above from 0 on
//!     cargo bench --bench end_to_end -- --load 2   # one load: W1, W1b, W2, W3, from 0 on

mod bare;
mod design;
mod generator;
mod hubs;
mod load;
mod nchan;
mod publish;
mod response;
mod stamped;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::env;
use std::process::ExitCode;

use design::Design;
use load::{Idle, Traffic};
use nchan::Nchan;
use support::process::part;
use support::{Mode, kernel, option};

/// Of everybody's listener: more than clients that open at once.
pub(crate) const BACKLOG: u32 = 4096;

fn designs(mode: Mode) -> Vec<Design> {
    let only = option("only", usize::MAX);
    let mut designs = Design::ALL.to_vec();
    if mode == Mode::Try {
        designs.retain(|&design| design != Design::Nchan);
    } else if !Nchan::is_installed() {
        println!("nginx with nchan is not installed and left out");
        designs.retain(|&design| design != Design::Nchan);
    }
    match designs.get(only) {
        Some(&design) => vec![design],
        None => designs,
    }
}

fn main() -> ExitCode {
    if let Some(args) = part() {
        return match Design::be(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let mode = Mode::of_args();
    if mode == Mode::List {
        return ExitCode::SUCCESS;
    }
    let idle = Idle::of(mode);
    // Both sides of a connection count in one process only, and nchan has files of its own.
    kernel::allow_files(idle.users * idle.each + 100);
    match design::can_pin() {
        true => println!("the server on core 0, its clients on core 1"),
        false => println!("without `taskset` and two cores: nobody is bound to a core"),
    }
    design::move_to_core(1);
    let is_quick = env::args().any(|arg| arg == "--quick");
    let rounds = mode.pick(if is_quick { 3 } else { 5 }, 1);
    let designs = designs(mode);
    let mut faults = Vec::new();
    let is_wanted = |load| [load, usize::MAX].contains(&option("load", usize::MAX));
    for (load, traffic) in Traffic::all(mode).iter().enumerate() {
        if is_wanted(load) {
            let measure = |design| traffic.measure(design);
            let samples = table::rounds(&designs, rounds, &mut faults, measure);
            table::traffic(traffic, &designs, &samples);
        }
    }
    if is_wanted(3) {
        // They take longer, and memory varies less than time.
        let rounds = rounds.div_ceil(2);
        let samples = table::rounds(&designs, rounds, &mut faults, |design| idle.measure(design));
        table::idle(&idle, &designs, &samples);
    }
    for fault in &faults {
        println!("missed: {fault}");
    }
    match faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
