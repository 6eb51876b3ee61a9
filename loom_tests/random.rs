//! Four threads and whole lives, over thousands of random schedules.

use std::collections::HashMap;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::support::*;
use crate::registry::Limits;

const SCHEDULES: usize = 5_000;

/// Runs a scenario through random schedules. A failure prints the schedule to replay.
fn check(scenario: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(scenario, SCHEDULES);
}

/// Four threads open, read, end and drop connections of two users, with ids that collide, while each broadcasts. Whoever
/// is in reads its events in order, and what it read and missed is what it was sent since; nothing is left behind.
#[test]
fn everybody_comes_and_goes() {
    check(|| {
        let hub = hub_with(Limits {
            per_user: 3,
            total: 5,
            ..limits()
        });
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let hub = hub.clone();
                thread::spawn(move || live(&hub, thread))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_empty(&hub);
    });
}

fn live(hub: &Hub, thread: u32) {
    let mut open = Vec::new();
    // What each thread sends to one user rises, so each stream must see every sender's events rise.
    let mut sent = 0;
    for _ in 0..6 {
        let user = ["u", "v"][thread_rng().gen_range(0..2)];
        let id = ["a", "b", "c", "d"][thread_rng().gen_range(0..4)];
        match thread_rng().gen_range(0..8) {
            0..3 => open.extend(try_register(hub, user, id).ok()),
            3..6 => {
                sent += 1;
                publish(hub, user, thread * 1_000 + sent);
            }
            6 => {
                unregister(hub, user, id);
            }
            _ => {
                hub.evict(user);
            }
        }
        assert!(hub.total() <= 5, "the total cap holds");
        assert!(count(hub, user) <= 3, "the user's cap holds");
        if open.len() > 1 {
            drop(open.swap_remove(0));
        }
        for subscription in &mut open {
            let mut last = HashMap::new();
            for event in read(subscription).events {
                let before = last.insert(event / 1_000, event);
                assert!(before < Some(event), "in order, once");
            }
        }
    }
}

/// One reader stays while three others come and go and three events are sent by each: the reader gets or misses all nine,
/// and whoever registers in between is reached from then on.
#[test]
fn one_stays_while_others_come_and_go() {
    check(|| {
        let hub = hub_with(Limits {
            capacity: 4,
            ..limits()
        });
        let mut stays = register(&hub, "u", "stays");
        let others: Vec<_> = (0..3)
            .map(|thread| {
                let hub = hub.clone();
                thread::spawn(move || {
                    for number in 1..=3 {
                        let mut own = register(&hub, "u", &format!("{thread}-{number}"));
                        let event = thread * 1_000 + number;
                        assert!(
                            publish(&hub, "u", event) >= 2,
                            "this one and the one that stays"
                        );
                        let read = read(&mut own);
                        assert!(
                            read.events.contains(&event) || read.missed > 0,
                            "got or told"
                        );
                    }
                })
            })
            .collect();
        let (mut got, mut missed) = (0, 0);
        let mut take = || {
            let read = read(&mut stays);
            got += read.events.len() as u64;
            missed += read.missed;
            assert!(!read.ended);
        };
        take();
        take();
        for other in others {
            other.join().unwrap();
        }
        take();
        assert_eq!(got + missed, 9, "got or told");
        assert_eq!((hub.total(), count(&hub, "u")), (1, 1));
        drop(stays);
        assert_empty(&hub);
    });
}

/// Four threads open and drop a connection of one user three times each, so that the channel is closed and replaced again
/// and again: whoever is in is reached, by its own event at the least.
#[test]
fn the_last_one_leaves_while_others_come() {
    check(|| {
        let hub = hub_with(Limits {
            capacity: 4,
            ..limits()
        });
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let hub = hub.clone();
                thread::spawn(move || {
                    for number in 0..3 {
                        let mut own = register(&hub, "u", &format!("{thread}-{number}"));
                        let event = thread * 1_000 + number;
                        assert!(publish(&hub, "u", event) >= 1, "who is in is reached");
                        let read = read(&mut own);
                        assert!(
                            read.events.contains(&event) || read.missed > 0,
                            "got or told"
                        );
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_empty(&hub);
    });
}
