//! `channel/shared.rs` and `channel/log.rs`: the history is the log of an engine between nodes.
//!
//! What the engine sends is taken by one task. The models let two do it where the channel's lock shall be enough, and stand
//! for the engine and for the filter of a stream themselves.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use loom::thread;

use super::node::*;
use super::support::{finish_all, limits, model, poll, poll_all, remembering, tab};
use crate::channel::{Accepted, History, Missed, Resume, Welcome};
use crate::gap::{Gap, GapReason};
use crate::id::LastEventId;
use crate::position::Position;
use crate::registry::Limits;
use crate::subscription::{ResumeFilter, Subscription, Verdict};
use crate::sync::Mutex;

/// Does a stream that comes back behind each of the events get exactly those that come after it?
fn assert_resumes(hub: &Hub, events: &[Event]) {
    for (index, event) in events.iter().enumerate() {
        let mut back = open(hub, "back", Resume::After(event.id));
        assert_eq!(read(&mut back), events[index + 1..], "behind {event:?}");
    }
}

/// A stream comes back behind an event that the history has, while the engine sends the next: does it get each of them, once?
///
/// Fails: the_receiver_is_taken_before_the_backlog_is_cut, the_receiver_is_taken_after_the_backlog_is_cut.
#[test]
fn a_resume_meets_the_engine() {
    model(10, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        take(&hub, 1, 0, 1);
        take(&hub, 2, 1, 2);
        let first = read(&mut one)[0];
        let driver = {
            let hub = hub.clone();
            thread::spawn(move || take(&hub, 3, 2, 3))
        };
        let mut back = open(&hub, "b", Resume::After(first.id));
        let mut got = read(&mut back);
        driver.join().unwrap();
        got.extend(read(&mut back));
        assert_eq!(numbers(&got), [2, 3]);
        assert_eq!(got[1..], read(&mut one), "the same ids");
        drop((one, back));
        assert_forgotten(&hub);
    });
}

/// A client comes back from before the history, and reads the engine's log, while the engine appends and sends: does it get
/// each event once, in order, at the seam between the log and the channel?
///
/// Fails: the_seam_is_closed_where_the_client_is, the_log_is_read_up_to_the_history.
#[test]
fn a_return_meets_the_engine() {
    model(10, || {
        let hub = hub_with(Limits {
            capacity: 4,
            ..remembering(1)
        });
        let engine = Engine::new(Mutex::new(Vec::new()));
        let keeper = open(&hub, "a", Resume::Fresh);
        append(&hub, &engine, 1);
        append(&hub, &engine, 2);
        let driver = {
            let (hub, engine) = (hub.clone(), engine.clone());
            thread::spawn(move || append(&hub, &engine, 3))
        };
        let mut back = come_back(&hub, &engine, "b", 0);
        let mut got = read(&mut back);
        driver.join().unwrap();
        got.extend(read(&mut back));
        assert_eq!(numbers(&got), [1, 2, 3]);
        assert_eq!(back.place(), Some(place(3)));
        drop((keeper, back));
        assert_forgotten(&hub);
    });
}

/// A stream to which nothing comes asks where it is, while the engine sends: does a client that comes back with that get
/// what the stream has not yielded?
///
/// Fails: a_place_is_beyond_what_was_yielded.
#[test]
fn a_place_meets_what_comes() {
    model(5, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        let driver = {
            let hub = hub.clone();
            thread::spawn(move || take(&hub, 1, 0, 1))
        };
        let before = read(&mut one);
        let at = one.place();
        driver.join().unwrap();
        let then = read(&mut one);
        assert_eq!(numbers(&[before, then.clone()].concat()), [1]);
        assert_eq!(one.place(), Some(place(1)));
        if let Some(at) = at {
            let mut back = open(&hub, "b", Resume::After(at));
            assert_eq!(read(&mut back), then, "behind {at:?}");
        }
        drop(one);
        assert_forgotten(&hub);
    });
}

/// The engine's events come while its log is read for what was missing. Each is sent once, in the engine's order.
///
/// Fails: what_is_early_is_taken, what_was_taken_is_taken_again, the_engine_is_caught_up_with_backwards.
#[test]
fn a_repair_meets_what_comes() {
    model(30, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        // The first one was lost on its way.
        assert_eq!(take(&hub, 2, 1, 2), Accepted::OutOfOrder);
        let driver = {
            let hub = hub.clone();
            thread::spawn(move || {
                take(&hub, 2, 1, 2);
                let taken = take(&hub, 3, 2, 3);
                assert!(matches!(
                    taken,
                    Accepted::OutOfOrder | Accepted::Delivered(1)
                ));
                taken
            })
        };
        // As the log is read from where the channel is: what comes before each of them is here.
        assert_eq!(take(&hub, 1, 0, 1), Accepted::Delivered(1));
        take(&hub, 2, 0, 2);
        hub.with("u", |channel| channel.catch_up(place(2)));
        let is_early = driver.join().unwrap() == Accepted::OutOfOrder;
        let again = take(&hub, 3, 0, 3);
        let expected = if is_early {
            Accepted::Delivered(1)
        } else {
            Accepted::Duplicate
        };
        assert_eq!(again, expected);
        let live = read(&mut one);
        assert_eq!(numbers(&live), [1, 2, 3]);
        let at = hub.with("u", |channel| channel.place()).flatten();
        assert_eq!(at, Some(place(3)));
        assert_resumes(&hub, &live);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// The engine comes back while events are shown without it: a notice stands between what the log has and what it has not, on
/// either side, and a stream that comes in between gets what it lacks.
///
/// Fails: the_log_goes_on_without_a_notice, what_is_shown_is_behind_the_clients_that_are_there.
#[test]
fn what_is_shown_meets_the_engine() {
    model(200, || {
        let hub = hub();
        let mut stays = open(&hub, "stays", Resume::Fresh);
        take(&hub, 1, 0, 1);
        let engine = {
            let hub = hub.clone();
            thread::spawn(move || take(&hub, 2, 1, 2))
        };
        show(&hub, 50);
        let mut back = open(&hub, "back", Resume::After(place(1)));
        engine.join().unwrap();
        take(&hub, 3, 2, 3);
        let got = numbers(&read(&mut stays));
        let notice = NOTICE;
        let before = [1, notice, 50, notice, 2, 3];
        let behind = [1, 2, notice, 50, notice, 3];
        assert!(got == before || got == behind, "{got:?}");
        assert_eq!(numbers(&read(&mut back)), got[1..], "from its id on");
        drop((stays, back));
        assert_forgotten(&hub);
    });
}

/// The end of the user's log is compared while the engine sends: a channel that lacks something does not move on.
///
/// Fails: a_channel_that_is_behind_moves_on.
#[test]
fn a_comparison_meets_what_comes() {
    model(5, || {
        let hub = hub();
        let mut one = open(&hub, "a", Resume::Fresh);
        let driver = {
            let hub = hub.clone();
            thread::spawn(move || {
                take(&hub, 1, 0, 1);
            })
        };
        // Asked when the log had both of them.
        hub.with("u", |channel| channel.compare(place(2), 4));
        driver.join().unwrap();
        assert_eq!(take(&hub, 2, 1, 2), Accepted::Delivered(1));
        hub.with("u", |channel| channel.compare(place(2), 4));
        let live = read(&mut one);
        assert_eq!(numbers(&live), [1, 2]);
        drop(one);
        assert_forgotten(&hub);
    });
}

pub(super) const NEW: Position = Position {
    epoch: EPOCH + 1,
    offset: 5,
};

/// The engine's log is replaced while an event of the old one comes: the notice stands between the ids of the old one and those
/// of the new, and no stream comes back with an old one as if nothing had happened.
///
/// Fails: what_is_of_another_log_is_taken.
#[test]
fn a_new_log_meets_an_event() {
    model(5, || {
        let (hub, horizon) = hub_at(Limits {
            capacity: 4,
            ..remembering(8)
        });
        let mut one = open(&hub, "a", Resume::Fresh);
        take(&hub, 1, 0, 1);
        let driver = {
            let hub = hub.clone();
            thread::spawn(move || take(&hub, 2, 1, 2))
        };
        horizon.with(|at| *at = NEW);
        follow(&hub);
        let second = driver.join().unwrap();
        assert!(matches!(
            second,
            Accepted::Delivered(1) | Accepted::Elsewhere
        ));
        assert_eq!(
            take_at(&hub, Position { offset: 6, ..NEW }, 5, 3),
            Accepted::Delivered(1)
        );
        let live = read(&mut one);
        let cut = live.iter().position(|event| event.number == NOTICE);
        let (old, new) = live.split_at(cut.expect("it is told"));
        assert_eq!(old.len(), if second == Accepted::Elsewhere { 1 } else { 2 });
        assert!(old.iter().all(|event| event.id.epoch == EPOCH), "{live:?}");
        assert!(
            new.iter().all(|event| event.id.epoch == NEW.epoch),
            "{live:?}"
        );
        assert_eq!(numbers(new), [NOTICE, 3]);
        for event in old {
            let mut back = open(&hub, "back", Resume::After(event.id));
            let (items, _) = poll_all(&mut back);
            let gap = items[0].expect_err("the history is another one");
            assert_eq!((gap.reason, items.len()), (GapReason::Epoch, 1));
        }
        assert_resumes(&hub, new);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// A channel is opened while the log is replaced: whoever of the two comes second sees the other, and no channel stays in the
/// old log.
///
/// Fails: the_horizon_is_asked_before_the_lock.
#[test]
fn a_new_log_meets_a_channel_that_opens() {
    model(20, || {
        let (hub, horizon) = hub_at(limits_of_one());
        let opener = {
            let hub = hub.clone();
            thread::spawn(move || {
                let opened = open(&hub, "a", Resume::Fresh);
                // As each stream's filter does.
                follow(&hub);
                opened
            })
        };
        horizon.with(|at| *at = NEW);
        for roster in hub.users.rosters() {
            assert_eq!(&**roster.user(), "u");
            follow(&hub);
        }
        let mut one = opener.join().unwrap();
        let at = hub.with("u", |channel| channel.place()).flatten();
        assert_eq!(at, Some(NEW));
        let cursor = LastEventId::new(&one.cursor().expect("there is a log"));
        let began = cursor.position().expect("it is an id");
        let told: Vec<u32> = numbers(&read(&mut one));
        match began == NEW {
            true => assert!(told.is_empty(), "it began there: {told:?}"),
            false => assert_eq!(told, [NOTICE], "it began in the old one"),
        }
        drop(one);
        assert_forgotten(&hub);
    });
}

fn limits_of_one() -> Limits {
    Limits {
        capacity: 2,
        ..remembering(2)
    }
}

/// Knows of a gap's number only if no notice is among what is lost.
#[derive(Debug)]
struct Counting {
    seen: u64,
    notices: u64,
}

impl ResumeFilter<Event> for Counting {
    fn poll_before(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Event, Gap>>> {
        Poll::Ready(None)
    }

    fn lose(&mut self, missed: &Missed, notices: u64) -> Option<Gap> {
        let known = notices <= self.notices;
        self.notices = self.notices.max(notices);
        Some(Gap {
            missed: missed.gap.missed.filter(|_| known),
            ..missed.gap
        })
    }

    fn place(&self, channel: Position) -> Option<Position> {
        Some(channel)
    }

    fn pass(&mut self, event: Event) -> Verdict<Event> {
        self.seen += u64::from(event.number == NOTICE);
        self.notices = self.notices.max(self.seen);
        Verdict::Event(event)
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
    let filter = |welcome: &Welcome| -> Option<Box<dyn ResumeFilter<Event>>> {
        Some(Box::new(Counting {
            seen: welcome.notices,
            notices: welcome.notices,
        }))
    };
    Subscription::open(hub, "u".into(), tab("b"), Resume::Fresh, filter).expect("there is room")
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
    model(10, || {
        let hub = forgetful();
        let mut one = open_counting(&hub);
        take(&hub, 1, 0, 1);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || skip(&hub, 2))
        };
        take(&hub, 3, 1, 2);
        let (mut items, _) = poll_all(&mut one);
        sender.join().unwrap();
        items.extend(poll_all(&mut one).0);
        let (events, missed) = account(&items);
        // It is not needed where the event behind it was first.
        let sent = hub.with("u", |channel| channel.roster().head());
        if let Some(missed) = missed {
            let is_told = events.contains(&NOTICE) || sent == Some(2);
            assert!(is_told, "told, or unknown: {items:?}");
            assert_eq!(Some(events.len() as u64 + missed), sent, "{items:?}");
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
    model(20, || {
        let hub = forgetful();
        let keeper = open(&hub, "a", Resume::Fresh);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || skip(&hub, 1))
        };
        let mut one = open_counting(&hub);
        sender.join().unwrap();
        take(&hub, 2, 1, 1);
        take(&hub, 3, 2, 2);
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

impl ResumeFilter<Event> for Unanswered {
    fn poll_before(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Event, Gap>>> {
        Poll::Pending
    }

    fn lose(&mut self, missed: &Missed, _: u64) -> Option<Gap> {
        Some(missed.gap)
    }

    fn place(&self, _: Position) -> Option<Position> {
        None
    }

    fn pass(&mut self, event: Event) -> Verdict<Event> {
        Verdict::Event(event)
    }
}

/// Opens a stream whose filter has nothing yet, ends it by `end` while a task waits for it, and looks what is left.
fn assert_ends(linger: Duration, end: fn(&Hub)) {
    let hub = hub_with(Limits {
        history: Some(History::new(8).linger(linger)),
        ..limits()
    });
    let filter =
        |_: &Welcome| -> Option<Box<dyn ResumeFilter<Event>>> { Some(Box::new(Unanswered)) };
    let opened = Subscription::open(&hub, "u".into(), tab("a"), Resume::Fresh, filter);
    let mut one = opened.expect("there is room");
    let waiter = thread::spawn(move || {
        loom::future::block_on(poll_fn(|cx| {
            let polled = poll(&mut one, cx);
            assert!(matches!(polled, Poll::Pending | Poll::Ready(None)));
            // It may have found the reader's cell taken, and polls again until the other thread goes on.
            thread::yield_now();
            polled
        }));
        one
    });
    end(&hub);
    let one = waiter.join().unwrap();
    let sent = hub.with("u", |_| take(&hub, 9, 0, 1));
    assert!(
        sent.is_none_or(|sent| sent.reached() == 0),
        "it holds no feed"
    );
    drop(one);
    assert_forgotten(&hub);
}

const LINGER: Duration = Duration::from_millis(1);

/// A client is not there yet, for its filter waits for the engine: is it woken when it is cut?
///
/// Fails: a_filters_task_is_not_kept, the_phase_is_asked_before_the_task_is_kept.
#[test]
fn unregister_meets_a_filter_that_waits() {
    model(40, || {
        assert_ends(LINGER, |hub| {
            hub.unregister("u", &"a".into());
        });
    });
}

/// And when it is asked to finish, although there is something that it has not read?
///
/// Fails: a_filters_task_is_not_kept, the_phase_is_asked_before_the_task_is_kept.
#[test]
fn drain_meets_a_filter_that_waits() {
    model(60, || {
        assert_ends(LINGER, |hub| {
            skip(hub, 1);
            hub.drain("u");
        });
    });
}

/// And when a shutdown asks it to finish, and its ring goes on?
///
/// Fails: a_filters_task_is_not_kept, the_phase_is_asked_before_the_task_is_kept, whoever_asks_to_finish_does_not_look_again.
#[test]
fn finish_meets_a_filter_that_waits() {
    model(60, || {
        assert_ends(LINGER, finish_all);
    });
}

/// And when its channel is complete, which does not end it, and it is cut then?
///
/// Fails: a_filters_task_is_not_woken_after_it_found_the_cell_taken.
#[test]
fn complete_and_unregister_meet_a_filter_that_waits() {
    model(60, || {
        assert_ends(LINGER, |hub| {
            hub.complete("u");
            hub.unregister("u", &"a".into());
        });
    });
}

/// And when its channel is closed? It does not read from it, so nothing else tells it.
///
/// Fails: a_closed_channel_is_told_to_its_ring_alone.
#[test]
fn the_close_of_a_channel_meets_a_filter_that_waits() {
    model(60, || {
        assert_ends(Duration::ZERO, |hub| {
            hub.forget("u");
        });
    });
}

/// And at the end of a shutdown?
///
/// Fails: a_filters_task_is_not_kept, the_phase_is_asked_before_the_task_is_kept.
#[test]
fn shutdown_meets_a_filter_that_waits() {
    model(110, || {
        assert_ends(LINGER, |hub| {
            hub.close(Duration::ZERO);
            hub.disconnect_all();
        });
    });
}
