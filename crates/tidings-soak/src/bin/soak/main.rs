//! Do all promises hold while everything happens at the same time, for as long as you like?
//!
//! Thousands of clients of two servers, each in a process of its own, connect, read immediately, slowly or not at all,
//! withhold HTTP/2 windows, leave in every way and come back with ids that are the last, old, of another user or none.
//! Publishers in the servers broadcast, now and then more at once than rings and histories hold. Streams have deadlines and
//! all lag policies; users are drained, disconnected and forgotten, connections unregistered. The second server, in which two
//! broadcasters are nodes of a cluster, is drained or killed and started again; the first one stays. Drills do one thing at a
//! time to users of their own and know the exact outcome: more clients at once than the caps allow, none of which reads, and
//! so on.
//!
//! Every event names its user and its number; every stream is checked (`checker.rs`): events in order, each once, whole, in
//! the exact format, of no other user, none missing without a gap of the right number. Refusals are checked against the
//! connections there can have been. Each cycle ends in a pause: every client must have everything and a heartbeat, then all
//! leave, and on the first server descriptors, tasks, users, connections and histories must be exactly what they were before
//! the first client, and memory nearly so.
//!
//! A violation is printed with the seed, the client and what came last, and makes the program fail. The seed decides what
//! each client does; the machine decides when.
//!
//!     cargo run --release -p tidings-soak --bin soak -- --minutes 30 --seed 7
//!
//! `--cycle` says after how many seconds there is a pause, `--clients` how many there are of the first server.

mod chaos;
mod checker;
mod client;
mod drills;
mod event;
mod hubs;
mod report;
mod resources;
mod server;
mod site;
mod sse;
#[path = "../../../../../benches/support/mod.rs"]
mod support;
mod tab;
mod wire;
mod world;

use std::alloc::System;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use client::Client;
use drills::Drills;
use resources::Resources;
use server::Settings;
use support::{Mode, kernel, option, process};
use wire::PATIENCE;
use world::{Phase, World};

/// Counts what is in use, which says more of a server than the memory that the allocator has from the system.
#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How much happens.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// In all.
    time: Duration,
    /// Until the next pause.
    cycle: Duration,
    /// Of each server.
    clients: [usize; 2],
    users: usize,
    rate: u64,
    /// Milliseconds between restarts, from and to.
    restarts: (u64, u64),
}

/// Users for drills, each of which has its own.
const DRILLS: usize = 8;

/// What all pauses together may take, beside the cycles.
const TOO_LONG: Duration = Duration::from_secs(900);

impl Scale {
    fn of(mode: Mode) -> Self {
        let full = Self {
            time: Duration::from_secs(60 * option("minutes", 30) as u64),
            cycle: Duration::from_secs(option("cycle", 20) as u64),
            clients: [option("clients", 1500), option("clients", 1400) / 2],
            users: 60,
            rate: 80,
            restarts: (2_000, 10_000),
        };
        let tiny = Self {
            time: Duration::from_secs(24),
            cycle: Duration::from_secs(4),
            clients: [150, 80],
            users: 10,
            rate: 60,
            restarts: (1_000, 2_500),
        };
        mode.pick(full, tiny)
    }
}

async fn run(seed: u64, scale: Scale) -> bool {
    let mut rng = Rng::with_seed(seed);
    let servers = [false, true].map(|has_nodes| Settings {
        seed: rng.u64(..),
        users: scale.users,
        drills: DRILLS,
        rate: scale.rate,
        has_nodes,
    });
    let world = Arc::new(World::new(seed, servers));
    tokio::spawn(world.clone().watch_lateness());
    let watched = world.clone();
    thread::spawn(move || end_after(scale.time + TOO_LONG, &watched));
    let mut resources = Resources::of(&world.servers[0]);
    let start = Instant::now();
    while start.elapsed() < scale.time {
        let number = world.cycle.fetch_add(1, Ordering::Relaxed) + 1;
        cycle(&world, scale, &mut rng, &mut resources).await;
        if world.violations() > 0 {
            println!("after cycle {number}: {} violations", world.violations());
            break;
        }
    }
    resources.check_memory(&world);
    report::print(&world, &resources, start.elapsed());
    world.violations() == 0
}

/// Ends it all if a server does not answer any more.
fn end_after(time: Duration, world: &World) {
    thread::sleep(time);
    world.violation(
        "driver",
        &format!("has not come to its end after {time:?}"),
        "",
    );
    for server in &world.servers {
        support::process::kill(server.pid());
    }
    std::process::exit(1);
}

/// From the first client to the last.
async fn cycle(world: &Arc<World>, scale: Scale, rng: &mut Rng, resources: &mut Resources) {
    let (phase, phases) = watch::channel(Phase::Run);
    let (over, is_over) = watch::channel(false);
    for server in &world.servers {
        server.ask("go");
    }
    let mut clients = JoinSet::new();
    for (at, count) in scale.clients.into_iter().enumerate() {
        for number in 0..count {
            let client = Client::new(world, at, number, phases.clone(), rng.fork());
            clients.spawn(client.run());
        }
    }
    let mut others = JoinSet::new();
    for number in 0..DRILLS {
        let drills = Drills::new(world, number, rng.fork());
        others.spawn(drills.run(is_over.clone()));
    }
    for at in 0..world.servers.len() {
        others.spawn(chaos::order(world.clone(), at, is_over.clone(), rng.fork()));
    }
    let restarts = chaos::restart(world.clone(), scale.restarts, is_over.clone(), rng.fork());
    others.spawn(restarts);
    let watching = tokio::spawn(Resources::watch(world.clone(), is_over.clone()));

    sleep(scale.cycle).await;
    over.send_replace(true);
    join(world, "drills and orders", &mut others).await;
    let most = watching.await.expect("it asks the server, which is there");

    let heads = [0, 1].map(|at| {
        let server = &world.servers[at];
        server.ask("pause");
        server.heads()
    });
    phase.send_replace(Phase::Settle(heads));
    join(world, "clients", &mut clients).await;
    // While the last are still on their way out, and not only when nobody is there: that is the harder moment.
    world.servers[0].ask("forget-all");
    for at in [0, 1] {
        let server = &world.servers[at];
        tokio::task::block_in_place(|| chaos::collect_faults(world, at, &mut server.process()));
        server.count_events(world);
    }
    resources.settle(world, most).await;
}

/// Waits for all of them, which do not wait for anything for longer than [`PATIENCE`].
async fn join(world: &World, what: &str, tasks: &mut JoinSet<()>) {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                world.violation(what, &format!("one has panicked: {error}"), "");
            }
        }
    };
    if timeout(4 * PATIENCE, all).await.is_err() {
        let what = format!("some of the {what} do not end");
        world.violation("driver", &what, "");
        tasks.shutdown().await;
    }
}

fn main() -> ExitCode {
    if let Some(args) = process::part() {
        let settings = Settings::of_args(&args).expect("the driver knows the parts");
        return match server::be(settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let mode = Mode::of_program();
    let mut own = Rng::new();
    let seed = option("seed", own.u32(..) as usize) as u64;
    println!("seed {seed}");
    let scale = Scale::of(mode);
    kernel::allow_files(2 * scale.clients.iter().sum::<usize>() + 1000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started");
    match runtime.block_on(run(seed, scale)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
