//! A node with its outbox, its inbox and repairs, among others.

use std::collections::VecDeque;
use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::super::node::{self, Engine, Event};
use super::super::support::remembering;
use super::{check, come_back};
use crate::channel::{Resume, Taken};
use crate::id::Position;
use crate::sync::Mutex;

use outbox::Outbox;

#[path = "../../src/broadcaster/relay/outbox.rs"]
mod outbox;

/// What the engine has sent and the node has not taken yet: an event, and which one of the user is before it.
type Wire = Arc<Mutex<VecDeque<(Event, u64)>>>;

const OWN: u32 = 3;
const FOREIGN: u32 = 3;

/// The engine appends an event and sends it.
fn append(engine: &Engine, wire: &Wire, event: Event) {
    engine.with(|log| {
        let position = log.len() as u64 + 1;
        let event = Event { position, ..event };
        log.push(event);
        wire.with(|wire| wire.push_back((event, position - 1)));
    });
}

/// The channel takes an event, which is its own if it has sent it first.
fn take(hub: &node::Hub, event: Event, previous: u64) -> Taken {
    let echo = event.first.map(|first| first.count);
    node::take(hub, event.position, previous, event.number, echo)
}

/// Reads from the engine's log what the channel lacks.
fn repair(hub: &node::Hub, engine: &Engine) {
    let after = hub.with("u", |channel| channel.remote());
    let after = after.expect("the channel is there");
    let log = engine.with(|log| log.clone());
    // Others may run while the answer is on its way.
    thread::yield_now();
    for event in log.iter().filter(|event| event.position > after) {
        // What comes before it is here: the log was read from where the channel is.
        take(hub, *event, 0);
    }
    hub.with("u", |channel| channel.catch_up(log.len() as u64));
}

/// Two broadcast while the task publishes what waits and goes to sleep in between, another node publishes, some of what the
/// engine sends is lost on its way and read from its log, and clients come back and come over from the other node. Each gets
/// everything once, and all those who are with the node see one order.
///
/// Fails: an_echo_is_appended_again, the_receiver_is_taken_before_the_backlog_is_cut, lag_is_not_healed.
#[test]
fn a_node_loses_some_of_what_the_engine_sends() {
    check(|| {
        let hub = node::hub_with(remembering(32));
        let mut stays = node::open(&hub, "stays", Resume::Fresh);
        let outbox = Arc::new(Outbox::new(64, 1 << 20));
        let (engine, wire) = (
            Engine::new(Mutex::new(Vec::new())),
            Wire::new(Mutex::new(VecDeque::new())),
        );
        let publishers: Vec<_> = (1..=2)
            .map(|publisher| {
                let (hub, outbox) = (hub.clone(), outbox.clone());
                thread::spawn(move || {
                    for number in 1..=OWN {
                        let push = |event: Event| {
                            let body = event.number.to_be_bytes();
                            let write = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&body);
                            let pushed = outbox.push((0, "u"), event.first, false, None, 4, write);
                            pushed.expect("there is room");
                        };
                        node::publish_to(&hub, publisher * 1_000 + number, push);
                    }
                })
            })
            .collect();
        let task = {
            let (outbox, engine, wire) = (outbox.clone(), engine.clone(), wire.clone());
            thread::spawn(move || {
                let mut published = 0;
                while published < 2 * OWN {
                    let haul = outbox.take();
                    if haul.events.is_empty() {
                        block_on(outbox.wait());
                    }
                    for event in haul.events {
                        let number = (&event.body[..]).try_into().expect("four bytes");
                        append(
                            &engine,
                            &wire,
                            foreign(u32::from_be_bytes(number), event.first),
                        );
                        published += 1;
                    }
                }
            })
        };
        let other = {
            let (engine, wire) = (engine.clone(), wire.clone());
            thread::spawn(move || {
                for number in 1..=FOREIGN {
                    append(&engine, &wire, foreign(3_000 + number, None));
                }
            })
        };
        let inbox = {
            let (hub, engine, wire) = (hub.clone(), engine.clone(), wire.clone());
            thread::spawn(move || {
                for _ in 0..2 * OWN + FOREIGN {
                    let Some((event, previous)) = wire.with(|wire| wire.pop_front()) else {
                        thread::yield_now();
                        continue;
                    };
                    let is_lost = thread_rng().gen_range(0..4) == 0;
                    if !is_lost && matches!(take(&hub, event, previous), Taken::Early(_)) {
                        repair(&hub, &engine);
                    }
                }
            })
        };
        let returns = {
            let hub = hub.clone();
            thread::spawn(move || {
                let (mut place, mut got) = (None, Vec::new());
                for _ in 0..3 {
                    come_back(&hub, &mut place, &mut got);
                }
                (place, got)
            })
        };
        let mut over = node::come_over(&hub, &engine, &Arc::default());
        let mut crossed = node::numbers(&node::read(&mut over));
        for thread in publishers.into_iter().chain([task, other, inbox]) {
            thread.join().unwrap();
        }
        // The engine is asked where it is.
        repair(&hub, &engine);

        let all = node::read(&mut stays);
        assert_eq!(all.len() as u32, 2 * OWN + FOREIGN, "each of them, once");
        let (mut place, mut got) = returns.join().unwrap();
        come_back(&hub, &mut place, &mut got);
        assert!(all.ends_with(&got), "{got:?} is no end of {all:?}");
        crossed.extend(node::numbers(&node::read(&mut over)));
        for (publisher, count) in [(1, OWN), (2, OWN), (3, FOREIGN)] {
            let its = crossed.iter().filter(|number| *number / 1_000 == publisher);
            let its: Vec<_> = its.map(|number| number % 1_000).collect();
            assert_eq!(its, (1..=count).collect::<Vec<_>>(), "in order, each once");
        }
        drop((stays, over));
        node::assert_forgotten(&hub);
    });
}

/// An event as the engine is given it.
fn foreign(number: u32, first: Option<crate::id::Seen>) -> Event {
    let id = Position {
        epoch: node::EPOCH,
        offset: 0,
        own: None,
        settled: false,
    };
    Event {
        number,
        id,
        first,
        position: 0,
    }
}
