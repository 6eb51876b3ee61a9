//! `channel/shared.rs` and `channel/log.rs`: several nodes have a user's history in common.
//!
//! What the engine between the nodes sends is taken by one task. The models let two do it where the log's lock shall be
//! enough, and stand for the engine and for the gate of a stream themselves.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use loom::thread;

use super::node::*;
use super::support::{limits, model, poll_all, remembering, wait};
use crate::channel::{Head, History, Resume, Taken, Welcome};
use crate::gap::{Gap, GapReason};
use crate::registry::Limits;
use crate::subscription::{Gate, Pass, Subscription};
use crate::sync::Mutex;

/// Does a stream that comes back behind each of the events get exactly those that come after it?
fn assert_resumes(hub: &Hub, events: &[Event]) {
    for (index, event) in events.iter().enumerate() {
        let mut back = open(hub, "back", Resume::After(event.id));
        assert_eq!(read(&mut back), events[index + 1..], "behind {event:?}");
    }
}

/// Something is broadcast here while the engine sends something: do those who are there and those who come back see one
/// order, and is each id one behind which a stream goes on exactly there?
///
/// Fails: the_own_count_is_raised_outside_the_lock.
#[test]
fn a_broadcast_meets_the_engine() {
    model(8, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        publish(&hub, 1);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, 2))
        };
        assert_eq!(take(&hub, 1, 0, 3, None), Taken::Sent(1));
        sender.join().unwrap();
        publish(&hub, 4);
        let live = read(&mut one);
        assert!([[1, 2, 3, 4], [1, 3, 2, 4]].contains(&numbers(&live)[..].try_into().unwrap()));
        assert_resumes(&hub, &live);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// And one that comes back in the midst of it, behind an event of this channel: does it get each of them, once?
///
/// Fails: the_receiver_is_taken_before_the_backlog_is_cut, the_receiver_is_taken_after_the_backlog_is_cut.
#[test]
fn a_resume_meets_a_broadcast_and_the_engine() {
    model(115, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        publish(&hub, 1);
        let first = read(&mut one)[0];
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, 2))
        };
        let driver = {
            let hub = hub.clone();
            thread::spawn(move || take(&hub, 1, 0, 3, None))
        };
        let mut back = open(&hub, "b", Resume::After(first.id));
        let mut got = read(&mut back);
        sender.join().unwrap();
        driver.join().unwrap();
        got.extend(read(&mut back));
        assert_eq!(got.len(), 2);
        assert_eq!(got, read(&mut one), "one order, the same ids");
        drop((one, back));
        assert_forgotten(&hub);
    });
}

/// A client comes from another node while something is broadcast here and what was before is confirmed by the engine. It
/// gets each of them: from the engine what that has, from the channel what is not known to be there. What is known to be
/// there the channel does not send again, and what both have is known by its channel and its count.
///
/// Fails: an_echo_is_not_confirmed, what_waits_is_taken_for_confirmed, an_echo_is_appended_again.
#[test]
fn a_client_from_another_node_meets_a_broadcast_and_an_echo() {
    model(150, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        publish(&hub, 1);
        publish(&hub, 2);
        let own = read(&mut one);
        // The first is in the engine, and has come back.
        let engine = Engine::new(Mutex::new(vec![Event {
            position: 1,
            ..own[0]
        }]));
        assert_eq!(take(&hub, 1, 0, 1, Some(1)), Taken::Echo);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, 3))
        };
        let driver = {
            let (hub, engine, second) = (hub.clone(), engine.clone(), own[1]);
            thread::spawn(move || {
                let second = Event {
                    position: 2,
                    ..second
                };
                engine.with(|log| log.push(second));
                assert_eq!(take(&hub, 2, 1, 2, Some(2)), Taken::Echo);
            })
        };
        let raw = Arc::default();
        let mut back = come_over(&hub, &engine, &raw);
        let mut got = numbers(&read(&mut back));
        sender.join().unwrap();
        driver.join().unwrap();
        got.extend(numbers(&read(&mut back)));
        assert_eq!(got, [1, 2, 3], "each of them, once");
        let raw = raw.lock().unwrap().clone();
        assert!(
            raw == [2, 3] || raw == [3],
            "not what is confirmed: {raw:?}"
        );
        assert_eq!(numbers(&read(&mut one)), [3], "an echo is not sent again");
        drop((one, back));
        assert_forgotten(&hub);
    });
}

/// A stream begins, and an echo comes for what it was sent: the ids go on, and the place behind the echo is one as well.
///
/// Fails: an_echo_is_appended_again, a_mark_is_compared_by_position_alone.
#[test]
fn an_echo_meets_a_broadcast() {
    model(6, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        publish(&hub, 1);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, 2))
        };
        assert_eq!(take(&hub, 1, 0, 1, Some(1)), Taken::Echo);
        sender.join().unwrap();
        assert_eq!(take(&hub, 2, 1, 3, None), Taken::Sent(1));
        let live = read(&mut one);
        assert_eq!(numbers(&live), [1, 2, 3]);
        assert_resumes(&hub, &live);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// The engine's events come while its log is read for what was missing. Each is sent once, in the engine's order.
///
/// Fails: what_is_early_is_taken, what_was_taken_is_taken_again, the_engine_is_caught_up_with_backwards.
#[test]
fn a_repair_meets_what_comes() {
    model(36, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        // The first one was lost on its way.
        assert_eq!(take(&hub, 2, 1, 2, None), Taken::Early(0));
        let driver = {
            let hub = hub.clone();
            thread::spawn(move || {
                let taken = take(&hub, 2, 1, 2, None);
                assert!(matches!(
                    taken,
                    Taken::Early(0) | Taken::Sent(1) | Taken::Again
                ));
                let taken = take(&hub, 3, 2, 3, None);
                assert!(matches!(taken, Taken::Early(0 | 1) | Taken::Sent(1)));
                taken
            })
        };
        // As the log is read from where the channel is: what comes before each of them is here.
        assert_eq!(take(&hub, 1, 0, 1, None), Taken::Sent(1));
        take(&hub, 2, 0, 2, None);
        hub.with("u", |channel| channel.catch_up(2));
        let early = matches!(driver.join().unwrap(), Taken::Early(_));
        let again = take(&hub, 3, 0, 3, None);
        assert_eq!(again, if early { Taken::Sent(1) } else { Taken::Again });
        let live = read(&mut one);
        assert_eq!(numbers(&live), [1, 2, 3]);
        assert_eq!(hub.with("u", |channel| channel.remote()), Some(3));
        assert_resumes(&hub, &live);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// The engine's log is another one while something is broadcast: the notice stands between the ids of the old one and those
/// of the new, and no stream comes back with an old one as if nothing had happened.
///
/// Fails: the_epoch_changes_before_the_notice.
#[test]
fn a_reset_meets_a_broadcast() {
    model(8, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        publish(&hub, 1);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, 2))
        };
        let head = Head {
            epoch: EPOCH + 1,
            position: 5,
        };
        hub.with("u", |channel| channel.reset(head, notice));
        sender.join().unwrap();
        publish(&hub, 3);
        let live = read(&mut one);
        assert_eq!(live.len(), 4, "{live:?}");
        let cut = live.iter().position(|event| event.number == NOTICE);
        let (old, new) = live.split_at(cut.expect("it is told"));
        assert!(old.iter().all(|event| event.id.epoch == EPOCH), "{live:?}");
        assert!(
            new.iter().all(|event| event.id.epoch == head.epoch),
            "{live:?}"
        );
        for event in old {
            let mut back = open(&hub, "back", Resume::After(event.id));
            let (items, _) = poll_all(&mut back);
            let gap = items[0].expect_err("the history is another one");
            assert_eq!((gap.reason, items.len()), (GapReason::Epoch, 1));
        }
        assert_resumes(&hub, &new[1..]);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// Knows of a gap's number only if no notice is among what is lost.
#[derive(Debug)]
struct Counting(u64);

impl Gate<Event> for Counting {
    fn poll_before(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Event, Gap>>> {
        Poll::Ready(None)
    }

    fn widen(&mut self, gap: Gap, notices: u64) -> Gap {
        let known = notices <= self.0;
        self.0 = self.0.max(notices);
        Gap {
            missed: gap.missed.filter(|_| known),
            ..gap
        }
    }

    fn pass(&mut self, event: Event) -> Pass<Event> {
        self.0 += u64::from(event.number == NOTICE);
        Pass::Event(event)
    }
}

/// A ring of one and a history of one: who does not read at once loses what was before.
fn forgetful() -> Hub {
    hub_with(Limits {
        capacity: 1,
        ..remembering(1)
    })
}

fn open_counting(hub: &Hub) -> Subscription<Event> {
    let gate = |welcome: &Welcome| -> Option<Box<dyn Gate<Event>>> {
        Some(Box::new(Counting(welcome.notices)))
    };
    Subscription::open(hub, "u".into(), "b".into(), Resume::Fresh, gate).expect("there is room")
}

/// What a stream got and how many it was told that it has lost; `None` if it was told that nobody knows.
fn account(items: &[Result<Event, Gap>]) -> (Vec<u32>, Option<u64>) {
    let events = items.iter().filter_map(|item| item.ok());
    let events: Vec<_> = events.map(|event| event.number).collect();
    let gaps = items.iter().filter_map(|item| item.err());
    (events, gaps.map(|gap| gap.missed).sum())
}

/// Something that tells of a gap is lost by a stream that lags: nobody can know how much is missing, and so it is told.
///
/// Fails: a_notice_is_counted_after_it_is_sent.
#[test]
fn a_notice_meets_lag() {
    model(38, || {
        let hub = forgetful();
        let mut one = open_counting(&hub);
        publish(&hub, 1);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || note(&hub))
        };
        publish(&hub, 2);
        let (mut items, _) = poll_all(&mut one);
        sender.join().unwrap();
        items.extend(poll_all(&mut one).0);
        let (events, missed) = account(&items);
        if let Some(missed) = missed {
            assert!(events.contains(&NOTICE), "told, or unknown: {items:?}");
            assert_eq!(events.len() as u64 + missed, 3, "{items:?}");
        }
        drop(one);
        assert_forgotten(&hub);
    });
}

/// The same is sent just when the stream is opened: if it came in before, it must not take what it lost then for events.
///
/// Fails: notices_are_read_after_subscribing.
#[test]
fn a_notice_meets_a_newcomer() {
    model(25, || {
        let hub = forgetful();
        let keeper = open(&hub, "a", Resume::Fresh);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || note(&hub))
        };
        let mut one = open_counting(&hub);
        sender.join().unwrap();
        publish(&hub, 1);
        publish(&hub, 2);
        let (items, _) = poll_all(&mut one);
        let (events, missed) = account(&items);
        if let Some(missed) = missed {
            assert!(!events.contains(&NOTICE), "the ring has not kept it");
            assert_eq!(
                events.len() as u64 + missed,
                2,
                "none of these was a notice"
            );
        }
        drop((keeper, one));
        assert_forgotten(&hub);
    });
}

/// Waits for an engine that never answers.
#[derive(Debug)]
struct Unanswered;

impl Gate<Event> for Unanswered {
    fn poll_before(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Event, Gap>>> {
        Poll::Pending
    }

    fn widen(&mut self, gap: Gap, _: u64) -> Gap {
        gap
    }

    fn pass(&mut self, event: Event) -> Pass<Event> {
        Pass::Event(event)
    }
}

/// Opens a stream whose gate has nothing yet, ends it by `end` while a task waits for it, and looks what is left.
fn assert_ends(linger: Duration, end: fn(&Hub)) {
    let hub = hub_with(Limits {
        history: Some(History::new(8).linger(linger)),
        ..limits()
    });
    let gate = |_: &Welcome| -> Option<Box<dyn Gate<Event>>> { Some(Box::new(Unanswered)) };
    let opened = Subscription::open(&hub, "u".into(), "a".into(), Resume::Fresh, gate);
    let mut one = opened.expect("there is room");
    let waiter = thread::spawn(move || {
        assert_eq!(wait(&mut one), None);
        one
    });
    end(&hub);
    let one = waiter.join().unwrap();
    assert_eq!(publish(&hub, 1), 0, "it holds no feed");
    drop(one);
    assert_forgotten(&hub);
}

const LINGER: Duration = Duration::from_millis(1);

/// A client is not there yet, for its gate waits for the engine: is it woken when it is cut?
///
/// Fails: a_gates_task_is_not_kept, the_phase_is_asked_before_the_task_is_kept.
#[test]
fn unregister_meets_a_gate_that_waits() {
    model(40, || {
        assert_ends(LINGER, |hub| {
            hub.unregister("u", &"a".into());
        });
    });
}

/// And when it is asked to finish, although there is something that it has not read?
///
/// Fails: a_gates_task_is_not_kept, the_phase_is_asked_before_the_task_is_kept, whoever_asks_to_finish_does_not_look_again.
#[test]
fn evict_meets_a_gate_that_waits() {
    model(60, || {
        assert_ends(LINGER, |hub| {
            publish(hub, 2);
            hub.evict("u");
        });
    });
}

/// And when its channel is closed? It does not read from it, so nothing else tells it.
///
/// Fails: a_closed_channel_is_told_to_its_ring_alone.
#[test]
fn the_close_of_a_channel_meets_a_gate_that_waits() {
    model(60, || {
        assert_ends(Duration::ZERO, |hub| {
            hub.evict("u");
        });
    });
}

/// And at the end of a shutdown?
///
/// Fails: a_gates_task_is_not_kept, the_phase_is_asked_before_the_task_is_kept.
#[test]
fn shutdown_meets_a_gate_that_waits() {
    model(110, || {
        assert_ends(LINGER, |hub| {
            hub.close(Duration::ZERO);
            hub.disconnect_all();
        });
    });
}
