//! A node with its outbox, its inbox and repairs, among others.

use std::collections::VecDeque;
use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::super::node::{self, Engine};
use super::super::support::remembering;
use super::{check, come_back};
use crate::channel::{Accepted, Resume};
use crate::sync::Mutex;

use outbox::Outbox;

#[path = "../../src/backplane/relay/outbox.rs"]
mod outbox;

/// What the engine has sent and the node has not taken yet: offsets and numbers.
type Wire = Arc<Mutex<VecDeque<(u64, u32)>>>;

const OWN: u32 = 3;
const FOREIGN: u32 = 3;

/// The engine appends an event and sends it.
fn append(engine: &Engine, wire: &Wire, number: u32) {
    engine.with(|log| {
        log.push(number);
        wire.with(|wire| wire.push_back((log.len() as u64, number)));
    });
}

/// Reads from the engine's log what the channel lacks.
fn repair(hub: &node::Hub, engine: &Engine) {
    let after = hub.with("u", |channel| channel.place()).flatten();
    let after = after.expect("the channel is there, and in the log").offset;
    let log = engine.with(|log| log.clone());
    // Others may run while the answer is on its way.
    thread::yield_now();
    for (offset, number) in (1..).zip(&log).skip(after as usize) {
        node::take(hub, offset, offset - 1, *number);
    }
    let end = node::place(log.len() as u64);
    hub.with("u", |channel| channel.catch_up(end));
}

/// Two broadcast while the task publishes what waits and goes to sleep in between, another node publishes, some of what the
/// engine sends is lost on its way and read from its log, and clients come back and come over from another node. Each gets
/// everything once, in the order of the log.
///
/// Fails: what_the_log_returned_is_sent_again, the_receiver_is_taken_before_the_backlog_is_cut.
#[test]
fn a_node_loses_some_of_what_the_engine_sends() {
    check(|| {
        let hub = node::hub_with(remembering(32));
        let mut stays = node::open(&hub, "stays", Resume::Fresh);
        // Room for a hundred events of one user, who has half of a shard.
        let outbox = Arc::new(Outbox::new(8 * 200, 1 << 20));
        let engine = Engine::new(Mutex::new(Vec::new()));
        let wire = Wire::new(Mutex::new(VecDeque::new()));
        let publishers: Vec<_> = (1..=2)
            .map(|publisher| {
                let outbox = outbox.clone();
                thread::spawn(move || {
                    for number in 1..=OWN {
                        let body = u32::to_be_bytes(publisher * 1_000 + number);
                        let write = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&body);
                        let pushed = outbox.push((0, "u"), None, body.len(), write);
                        pushed.expect("there is room");
                    }
                })
            })
            .collect();
        let task = {
            let (outbox, engine, wire) = (outbox.clone(), engine.clone(), wire.clone());
            thread::spawn(move || {
                let mut published = 0;
                while published < 2 * OWN {
                    let drained = outbox.drain();
                    assert!(drained.lost.is_empty(), "there is room");
                    if drained.events.is_empty() {
                        block_on(outbox.wait());
                    }
                    for (_, event) in drained.events {
                        let number = (&event.body[..]).try_into().expect("four bytes");
                        append(&engine, &wire, u32::from_be_bytes(number));
                        outbox.give_back(event.place);
                        published += 1;
                    }
                }
                assert_eq!(outbox.len(), 0, "all room is given back");
            })
        };
        let other = {
            let (engine, wire) = (engine.clone(), wire.clone());
            thread::spawn(move || {
                for number in 1..=FOREIGN {
                    append(&engine, &wire, 3_000 + number);
                }
            })
        };
        let inbox = {
            let (hub, engine, wire) = (hub.clone(), engine.clone(), wire.clone());
            thread::spawn(move || {
                for _ in 0..2 * OWN + FOREIGN {
                    let Some((offset, number)) = wire.with(|wire| wire.pop_front()) else {
                        thread::yield_now();
                        continue;
                    };
                    let is_lost = thread_rng().gen_range(0..4) == 0;
                    if !is_lost
                        && node::take(&hub, offset, offset - 1, number) == Accepted::OutOfOrder
                    {
                        repair(&hub, &engine);
                    }
                }
            })
        };
        let returns = {
            let (hub, engine) = (hub.clone(), engine.clone());
            thread::spawn(move || {
                let mut got = Vec::new();
                for _ in 0..3 {
                    come_back(&hub, &engine, &mut got);
                }
                got
            })
        };
        let mut over = node::come_back(&hub, &engine, "over", 0);
        let mut crossed = node::numbers(&node::read(&mut over));
        for thread in publishers.into_iter().chain([task, other, inbox]) {
            thread.join().unwrap();
        }
        // The engine is asked where it is.
        repair(&hub, &engine);

        let log = engine.with(|log| log.clone());
        assert_eq!(log.len() as u32, 2 * OWN + FOREIGN);
        for (publisher, count) in [(1, OWN), (2, OWN), (3, FOREIGN)] {
            let its = log.iter().filter(|number| *number / 1_000 == publisher);
            let its: Vec<_> = its.map(|number| number % 1_000).collect();
            assert_eq!(its, (1..=count).collect::<Vec<_>>(), "in order, each once");
        }
        assert_eq!(node::numbers(&node::read(&mut stays)), log);
        let mut got = returns.join().unwrap();
        come_back(&hub, &engine, &mut got);
        assert_eq!(node::numbers(&got), log);
        crossed.extend(node::numbers(&node::read(&mut over)));
        assert_eq!(crossed, log);
        drop((stays, over));
        node::assert_forgotten(&hub);
    });
}
