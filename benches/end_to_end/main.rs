//! What does it cost a server to bring events to its clients, all of it, and what would others need for the same?
//!
//! Real connections over loopback to a server in a process of its own, which has one core, and whose clients have another.
//! The publisher is inside the server. Each event carries its number and the time; each connection must get every event of
//! its user once and in order, or the program fails. Servers take turns, and each round starts a new process.
//!
//! - `bare send loop`: the same bytes to each socket with a blocking `send`, nothing else. The limit, not a server.
//! - `bare reactor`: one thread that learns from `epoll` which sockets are ready, and joins what it can send at once. A limit
//!   too, with one thread in all loads.
//! - `bare tokio tasks`: a task for each connection, tokio's broadcast and a write, without HTTP. A limit too.
//! - `tidings, serve`: a handler that returns a `Subscription`, under `tidings::serve::serve`.
//! - `tidings, axum::serve`: the same on `tidings::serve::listener` under `axum::serve`.
//! - `RwLock map, Sse`: the baseline of `benches/support` with axum's `Sse`, a clone of the `Event` per connection.
//! - `RwLock map, bounded, Sse`: the same with `mpsc(1024)` for each connection, which loses what it has no room for.
//! - `broadcast by hand, Sse`: a `RwLock<HashMap<_, broadcast::Sender<Event>>>`, `BroadcastStream` and `Sse`.
//! - `nginx, nchan`: if it is installed (`apt install nginx libnginx-mod-nchan`). Its publisher posts, from outside.
//!
//! Work:
//!
//! - W1, one user with 1,000 streams, 200 B, one event in flight: the next is published when the last stream has the one
//!   before. W1-5000, W1-10000: the same with so many streams.
//! - W1b, the same with 32 in flight. W1b-100B, W1b-1KB, W1b-16KB (8 in flight): other sizes.
//! - W2, 5,000 users with two streams each, 64 events in flight for all of them.
//! - W1-2w, W1b-2w, W2-2w: the same with two threads on both cores, one of which belongs to the clients as well.
//! - W3, 10,000 connections of 5,000 users, W3-15000 of 7,500: memory (RSS) while they are idle, and ten seconds after 20
//!   events of 1 KB for everyone; the time until all are there, a thousand at once, and until nothing is left of them.
//!   at-once: all of them connect at once.
//! - W4, 500 users with two streams each, 1,000 events a second, and 1,000 other connections a second that come, stay for
//!   50 ms and go: p99 with them and without. The limits cannot.
//! - W5, 200 streams of one user, 20 of which are not read, 4 KB at 400 a second for ten seconds: what the memory of the
//!   server and that of all sockets grow by. The limits cannot.
//! - lag: one user with 1,000 streams, 128 events in flight, twice what every ring holds: what part of the events did not
//!   arrive, and what part of them streams were told of. Of ours, both must be equal. The bare loop cannot lag.
//! - growth: the cost of an event as one thing grows tenfold and all others stay, of `tidings, serve` alone.
//!
//! Medians of five rounds, of W3 and what is derived from others three; `x` is the median of each round's ratio to the bare
//! loop in that round, with W4 of the latency with others to that without.
//!
//!     cargo bench --bench end_to_end
//!     cargo bench --bench end_to_end -- --quick             # three rounds, of the others one
//!     cargo bench --bench end_to_end -- --only 1            # one server, by its place above from 0 on
//!     cargo bench --bench end_to_end -- --load W1,W3,W4     # these loads
//!     cargo bench --bench end_to_end -- --plot medians.svg  # a bar chart as well, of W1, W1b, W2 and W3

mod bare;
mod churn;
mod design;
mod generator;
mod growth;
mod hubs;
mod idle;
mod lag;
mod load;
mod nchan;
mod plot;
mod publish;
mod reactor;
mod response;
mod slow;
mod stamped;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod tasks;

use std::env;
use std::path::Path;
use std::process::ExitCode;

use churn::Churn;
use design::Design;
use idle::Idle;
use lag::Lag;
use load::Traffic;
use nchan::Nchan;
use plot::Plot;
use slow::Slow;
use support::process::part;
use support::{Mode, kernel, option, word};

/// Of everybody's listener: more than clients that open at once.
pub(crate) const BACKLOG: u32 = 4096;

/// Slots of everybody's ring.
pub(crate) const RING: usize = 64;

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
    // Both sides of a connection count in one process only, and nchan has files of its own.
    let most = Idle::all(mode).map(|idle| idle.users * idle.each);
    kernel::allow_files(most.into_iter().max().unwrap_or(0) + 100);
    match design::can_pin() {
        true => println!("the server on core 0, its clients on core 1"),
        false => println!("without `taskset` and two cores: nobody is bound to a core"),
    }
    design::move_to_core(1);
    let is_quick = env::args().any(|arg| arg == "--quick");
    let rounds = mode.pick(if is_quick { [3, 1] } else { [5, 3] }, [1, 1]);
    let designs = designs(mode);
    // Those that notice clients come and go.
    let servers: Vec<_> = designs
        .iter()
        .copied()
        .filter(|design| design.cleans_up())
        .collect();
    let mut faults = Vec::new();
    let mut plot = Plot::new();
    let loads = word("load");
    let is_wanted = |load: &str| {
        let all = loads.as_deref();
        all.is_none_or(|loads| loads.split(',').any(|wanted| wanted == load))
    };
    for traffic in Traffic::all(mode) {
        if is_wanted(traffic.name) {
            let rounds = rounds[usize::from(!traffic.is_main)];
            let measure = |design| traffic.measure(design);
            let samples = table::rounds(&designs, rounds, &mut faults, measure);
            table::traffic(&traffic, &designs, &samples);
            if traffic.is_main {
                plot.cpu(traffic.name, |design| {
                    let place = designs.iter().position(|&other| other == design);
                    place.map_or(f64::NAN, |n| table::ratio(&samples, n, |sample| sample.cpu))
                });
            }
        }
    }
    for idle in Idle::all(mode) {
        if is_wanted(idle.name) {
            let measure = |design| idle.measure(design);
            let samples = table::rounds(&designs, rounds[1], &mut faults, measure);
            table::idle(&idle, &designs, &samples);
            if idle.name == "W3" {
                plot.memory(idle.name, |design| {
                    let place = designs.iter().position(|&other| other == design);
                    place.map_or(f64::NAN, |n| {
                        table::middle(&samples, n, |memory| memory.idle)
                    })
                });
            }
        }
    }
    if is_wanted("W4") {
        let churn = Churn::of(mode);
        let measure = |design| churn.measure(design);
        let samples = table::rounds(&servers, rounds[0], &mut faults, measure);
        table::churn(&churn, &servers, &samples);
    }
    if is_wanted("W5") {
        let slow = Slow::of(mode);
        let measure = |design| slow.measure(design);
        let samples = table::rounds(&servers, rounds[1], &mut faults, measure);
        table::slow(&slow, &servers, &samples);
    }
    if is_wanted("lag") {
        let lag = Lag::of(mode);
        let measure = |design| lag.measure(design);
        let samples = table::rounds(&servers, rounds[1], &mut faults, measure);
        table::lag(&lag, &servers, &samples);
    }
    if is_wanted("growth") {
        if let Err(error) = growth::table(mode, rounds[1]) {
            faults.push(format!("growth: {error}"));
        }
    }
    if let Some(path) = word("plot") {
        match plot.write(Path::new(&path)) {
            Ok(()) => println!("\n{path} is the chart of it"),
            Err(error) => faults.push(format!("{path}: {error}")),
        }
    }
    for fault in &faults {
        println!("missed: {fault}");
    }
    match faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
