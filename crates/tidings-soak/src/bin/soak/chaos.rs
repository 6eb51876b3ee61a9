//! What is done to the servers: connections ended and histories forgotten by order, and processes ended, kindly or not.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::select;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::hubs;
use crate::server::{DRAIN, LAST};
use crate::support::process::Process;
use crate::world::{Server, World, heads};

/// What a process may take longer for its end than it promises, on a machine that is busy with other things.
const ALLOWANCE: Duration = Duration::from_secs(30);

/// Waits, unless it is over before.
async fn rest(over: &mut watch::Receiver<bool>, time: Duration) -> bool {
    select! {
        _ = over.wait_for(|is_over| *is_over) => false,
        () = sleep(time) => true,
    }
}

/// Gives orders to a server until it is over.
pub(crate) async fn order(
    world: Arc<World>,
    at: usize,
    mut over: watch::Receiver<bool>,
    mut rng: Rng,
) {
    let server = &world.servers[at];
    let names = hubs::ALL.map(|hub| hub.name);
    while rest(&mut over, Duration::from_millis(rng.u64(20..200))).await {
        let path = format!(
            "{}/{}",
            names[rng.usize(0..names.len())],
            rng.usize(0..server.users())
        );
        let Some(user) = server.user(&path) else {
            continue;
        };
        let (order, count) = match rng.u8(0..10) {
            0..3 => ("drain", "order: drain a user"),
            3..6 => ("disconnect", "order: disconnect a user"),
            6..9 => ("unregister", "order: unregister a connection"),
            _ => ("forget", "order: forget a user"),
        };
        // Before and after, so that clients know whatever comes first, the end or the answer.
        let turn = || {
            user.ended.turn();
            if order == "forget" {
                user.forgotten.turn();
            }
        };
        turn();
        let ended = server.ask_number(&format!("{order} {path}"));
        turn();
        world.count(count, 1);
        world.count("streams ended by order", ended);
    }
}

/// Ends and starts the second server until it is over.
pub(crate) async fn restart(
    world: Arc<World>,
    pause: (u64, u64),
    mut over: watch::Receiver<bool>,
    mut rng: Rng,
) {
    while rest(&mut over, Duration::from_millis(rng.u64(pause.0..pause.1))).await {
        let choice = rng.u8(0..3);
        block_in_place(|| {
            let server = &world.servers[1];
            let mut process = server.process();
            collect_faults(&world, 1, &mut process);
            server.count_events_of(&world, &mut process);
            match choice {
                0 => kill(&world, server, &mut process),
                choice => drain(&world, server, &mut process, choice == 1),
            }
            server.set_farewell(None);
            server.start_again(&mut process);
            process.ask("go");
            server.life.turn();
            world.count("restarts", 1);
        });
    }
}

fn kill(world: &World, server: &Server, process: &mut Process) {
    server.life.turn();
    world.count("servers killed", 1);
    process.kill();
}

fn drain(world: &World, server: &Server, process: &mut Process, is_quiet: bool) {
    if is_quiet {
        process.ask("pause");
        server.set_farewell(Some(heads(&process.ask("heads"))));
    }
    server.life.turn();
    let start = Instant::now();
    process.terminate();
    // The server gives those that it aborts another second.
    let promised = DRAIN + LAST + Duration::from_secs(1);
    match process.exit(promised + ALLOWANCE) {
        None => {
            let what = format!("has not exited after {:?}", start.elapsed());
            world.violation("server 1, drained", &what, "");
        }
        Some((status, _)) if !status.success() => {
            let what = format!("exited with {status}");
            world.violation("server 1, drained", &what, "");
        }
        Some(_) => {}
    }
    world.count(
        if is_quiet {
            "servers drained in a pause"
        } else {
            "servers drained in full flow"
        },
        1,
    );
    // For clients to see how their streams have ended.
    thread::sleep(Duration::from_millis(300));
}

/// What the server itself has found.
pub(crate) fn collect_faults(world: &World, at: usize, process: &mut Process) {
    let faults = process.ask("faults");
    if !faults.is_empty() {
        world.violation(&format!("server {at}"), &faults, "");
    }
}
