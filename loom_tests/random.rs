//! Four threads and whole lives, over thousands of random schedules.

use std::collections::HashMap;
use std::task::Poll;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use tokio::time::Instant;

use super::node::{self, Engine, Event};
use super::support::*;
use crate::channel::Resume;
use crate::gap::{Gap, GapReason};
use crate::id::LastEventId;
use crate::position::Position;
use crate::registry::Limits;
use crate::subscription::Subscription;
use crate::sync::Mutex;

mod lives;

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
                hub.drain(user);
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

/// One publishes twelve numbers while two clients are cut and come back, each behind the last event it saw, and a third
/// thread sweeps. The history keeps four, the ring one. What each client saw and what its gaps announced is all there was,
/// in order; after the history was forgotten it is told so, and the numbers go on.
#[test]
fn clients_come_back_while_events_are_published_and_histories_forgotten() {
    check(|| {
        let hub = hub_with(Limits {
            capacity: 1,
            ..remembering(4)
        });
        let clients: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|id| {
                let hub = hub.clone();
                thread::spawn(move || {
                    let mut client = Account::default();
                    for _ in 0..5 {
                        client.come(&hub, id);
                    }
                    client
                })
            })
            .collect();
        let sweeper = {
            let hub = hub.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    hub.sweep(Instant::now() + Duration::from_secs(60));
                }
            })
        };
        for number in 1..=12 {
            publish(&hub, "u", number);
        }
        sweeper.join().unwrap();
        for client in clients {
            client.join().unwrap().come(&hub, "c");
        }
        assert_eq!(hub.retention().away(), usize::from(hub.users.len() == 1));
        hub.sweep(Instant::now() + Duration::from_secs(60));
        assert_empty(&hub);
        assert_eq!(hub.retention().away(), 0);
        assert_eq!(hub.retention().kept_for_away(), 0);
    });
}

/// What a client knows: its place in the history, as from ids, and the number that comes next.
#[derive(Default)]
struct Account {
    place: Option<Position>,
    /// `None` where nobody can know.
    next: Option<u32>,
}

impl Account {
    /// Where a stream is to go on.
    fn from(&self) -> Resume {
        self.place.map_or(Resume::Fresh, Resume::After)
    }

    /// A stream begins.
    fn begin(&mut self, stream: &Subscription<u32>) {
        if let Some(cursor) = stream.cursor() {
            self.place = LastEventId::new(&cursor).position();
        }
    }

    /// What it sees comes next, and what it misses is told.
    fn take(&mut self, item: Result<u32, Gap>) {
        match item {
            Ok(number) => {
                if let Some(next) = self.next {
                    assert_eq!(number, next, "lost in silence, doubled, or out of order");
                }
                self.next = Some(number + 1);
                self.place.as_mut().expect("it has a place").offset += 1;
            }
            Err(gap) => {
                let missed = gap.missed.and_then(|missed| u32::try_from(missed).ok());
                assert_eq!(missed.is_none(), gap.reason == GapReason::Epoch);
                self.next = self.next.zip(missed).map(|(next, missed)| next + missed);
                self.place = gap.position;
            }
        }
    }

    /// Opens a stream behind its place, reads what is there, and is cut.
    fn come(&mut self, hub: &Hub, id: &str) {
        let mut stream = resume(hub, "u", id, self.from());
        self.begin(&stream);
        loop {
            match poll_once(&mut stream) {
                Poll::Ready(Some(item)) => self.take(item),
                Poll::Ready(None) => panic!("nobody ends it"),
                Poll::Pending => return,
            }
        }
    }
}

/// The engine's log has three events before the node knows of the user, and gets nine more; a client is cut and comes back behind
/// the last id it saw, again and again, and another one comes from another node. A ring of two is healed from the history. The
/// one that stays sees all that comes, and the others see everything, in one order, once.
///
/// Fails: the_seam_is_closed_where_the_client_is, the_receiver_is_taken_before_the_backlog_is_cut.
#[test]
fn a_node_among_others() {
    check(|| {
        let (hub, horizon) = node::hub_at(remembering(32));
        let engine = Engine::new(Mutex::new(vec![1, 2, 3]));
        horizon.with(|at| *at = node::place(3));
        let mut stays = node::open(&hub, "stays", Resume::Fresh);
        let driver = {
            let (hub, engine) = (hub.clone(), engine.clone());
            thread::spawn(move || {
                for number in 4..=12 {
                    node::append(&hub, &engine, number);
                }
            })
        };
        let returns = {
            let (hub, engine) = (hub.clone(), engine.clone());
            thread::spawn(move || {
                let mut got = Vec::new();
                for _ in 0..4 {
                    come_back(&hub, &engine, &mut got);
                }
                got
            })
        };
        let mut over = node::come_back(&hub, &engine, "over", 0);
        let mut crossed = node::numbers(&node::read(&mut over));
        driver.join().unwrap();
        let all: Vec<u32> = (1..=12).collect();
        assert_eq!(node::numbers(&node::read(&mut stays)), all[3..]);
        let mut got = returns.join().unwrap();
        come_back(&hub, &engine, &mut got);
        assert_eq!(node::numbers(&got), all);
        crossed.extend(node::numbers(&node::read(&mut over)));
        assert_eq!(crossed, all);
        drop((stays, over));
        node::assert_forgotten(&hub);
    });
}

/// Opens a stream behind its last event, reads what is there, and is cut.
fn come_back(hub: &node::Hub, engine: &Engine, got: &mut Vec<Event>) {
    let from = got.last().map_or(0, |event| event.id.offset);
    let mut stream = node::come_back(hub, engine, "returns", from);
    got.extend(node::read(&mut stream));
}
