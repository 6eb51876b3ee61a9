//! `channel/ephemeral.rs`: events that are not kept, among those that are. Ephemeral events are the numbers from 11 on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use super::support::*;
use crate::channel::{Accepted, Resume};
use crate::end::EndReason;
use crate::id::{ConnectionId, LastEventId};
use crate::position::Position;
use crate::registry::{Limits, Registry};
use crate::subscription::Subscription;

/// Calls `send` in another thread, and says what the stream yields meanwhile and then.
fn read_beside(
    hub: &Hub,
    stream: &mut Subscription<u32>,
    send: impl FnOnce(&Hub) + Send + 'static,
) -> Read {
    let sender = {
        let hub = hub.clone();
        thread::spawn(move || send(&hub))
    };
    let before = read(stream);
    sender.join().unwrap();
    let then = read(stream);
    Read {
        events: [before.events, then.events].concat(),
        missed: before.missed + then.missed,
        gaps: [before.gaps, then.gaps].concat(),
        ended: then.ended,
    }
}

/// Does a stream that reads meanwhile yield each event in its place?
///
/// Fails: an_ephemeral_event_comes_before_older_events, an_ephemeral_event_comes_after_later_events,
/// what_came_after_the_look_is_taken.
#[test]
fn broadcast_meets_ephemeral() {
    model(20, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let got = read_beside(&hub, &mut one, |hub| {
            publish(hub, "u", 1);
            assert_eq!(pass(hub, 11), Accepted::Delivered(1));
            publish(hub, "u", 2);
        });
        assert_eq!((got.events, got.missed), (vec![1, 11, 2], 0));
        drop(one);
        assert_empty(&hub);
    });
}

/// The same for events that the ring has lost and the history has.
///
/// Fails: an_ephemeral_event_comes_after_what_is_healed.
#[test]
fn a_lag_over_both_is_healed_in_order() {
    model(20, || {
        let hub = hub_with(Limits {
            capacity: 1,
            ..remembering(8)
        });
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let got = read_beside(&hub, &mut one, |hub| {
            pass(hub, 11);
            publish(hub, "u", 2);
            publish(hub, "u", 3);
        });
        assert_eq!((got.events, got.missed), (vec![1, 11, 2, 3], 0));
        drop(one);
        assert_forgotten(&hub);
    });
}

/// Without a history, the gap counts what came through the ring, and nothing else.
///
/// Fails: a_number_is_counted_by_the_stream.
#[test]
fn a_lag_over_both_counts_events_alone() {
    model(20, || {
        let hub = hub_with(Limits {
            capacity: 1,
            ..limits()
        });
        let mut one = register(&hub, "u", "a");
        let got = read_beside(&hub, &mut one, |hub| {
            publish(hub, "u", 1);
            pass(hub, 11);
            publish(hub, "u", 2);
            publish(hub, "u", 3);
        });
        let at = got.events.iter().position(|event| *event == 11);
        let (before, after) = got.events.split_at(at.expect("there is room for it"));
        assert!(before.is_empty() || before == [1], "{:?}", got.events);
        assert!(after == [11, 3] || after == [11, 2, 3], "{:?}", got.events);
        assert_eq!(got.events.len() as u64 - 1 + got.missed, 3);
        drop(one);
        assert_empty(&hub);
    });
}

/// A stream begins while both are sent: an ephemeral event is never in front of one that was sent before it.
///
/// Fails: a_stream_is_woken_before_it_reads, an_ephemeral_event_comes_before_older_events.
#[test]
fn register_meets_ephemeral() {
    model(20, || {
        let hub = hub();
        let keeper = register(&hub, "u", "keeper");
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                publish(&hub, "u", 1);
                pass(&hub, 11);
            })
        };
        let mut one = register(&hub, "u", "a");
        sender.join().unwrap();
        let got = read(&mut one);
        assert!(got.events.is_sorted() && got.events.len() <= 2);
        assert_eq!(publish(&hub, "u", 2), 2);
        assert_eq!(pass(&hub, 12), Accepted::Delivered(2));
        assert_eq!(read(&mut one).events, [2, 12]);
        drop((keeper, one));
        assert_empty(&hub);
    });
}

/// Does a stream that comes back get all that is kept, once, and in front of what was sent after it?
///
/// Fails: a_stream_is_woken_before_it_reads, an_ephemeral_event_comes_before_older_events.
#[test]
fn resume_meets_ephemeral() {
    model(20, || {
        let hub = hub_with(remembering(8));
        let keeper = register(&hub, "u", "keeper");
        let cursor = keeper.cursor().expect("there is a history");
        let epoch = LastEventId::new(&cursor).position().expect("an id").epoch;
        publish(&hub, "u", 1);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                publish(&hub, "u", 2);
                pass(&hub, 11);
            })
        };
        let after = Resume::After(Position { epoch, offset: 0 });
        let mut back = resume(&hub, "u", "b", after);
        let before = read(&mut back);
        sender.join().unwrap();
        let events = [before.events, read(&mut back).events].concat();
        assert!(events == [1, 2, 11] || events == [1, 2], "{events:?}");
        drop((keeper, back));
        assert_forgotten(&hub);
    });
}

/// Is a stream that waits woken?
///
/// Fails: an_ephemeral_event_does_not_wake, the_queue_is_not_looked_at_after_a_poll.
#[test]
fn ephemeral_meets_a_reading_stream() {
    model(20, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let reader = thread::spawn(move || assert_eq!(wait(&mut one), Some(Ok(11))));
        pass(&hub, 11);
        reader.join().unwrap();
        assert_empty(&hub);
    });
}

/// Whether a task was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Lets a stream wait.
fn asleep(stream: &mut Subscription<u32>) -> Arc<Flag> {
    let flag: Arc<Flag> = Arc::default();
    let waker = Waker::from(flag.clone());
    assert!(poll(stream, &mut Context::from_waker(&waker)).is_pending());
    flag
}

/// Two send at the same time to a stream that waits: is it woken, and does it yield both?
///
/// Fails: an_ephemeral_event_does_not_wake.
#[test]
fn ephemeral_meets_ephemeral() {
    model(20, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let woken = asleep(&mut one);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || pass(&hub, 11))
        };
        pass(&hub, 12);
        assert_eq!(sender.join().unwrap(), Accepted::Delivered(1));
        assert!(woken.0.load(Ordering::SeqCst));
        let mut events = read(&mut one).events;
        events.sort_unstable();
        assert_eq!(events, [11, 12]);
        drop(one);
        assert_empty(&hub);
    });
}

/// Is one refused once the channel is complete, and does the stream end whatever comes?
///
/// Fails: a_complete_channel_passes_events, a_stream_that_finishes_yields_ephemeral_events.
#[test]
fn complete_meets_ephemeral() {
    model(20, || {
        let hub = hub_with(remembering(8));
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                pass(&hub, 11);
                pass(&hub, 12)
            })
        };
        hub.complete("u").expect("there is room");
        let mut events = read(&mut one).events;
        sender.join().unwrap();
        let then = read(&mut one);
        events.extend(then.events);
        assert!(then.ended, "nothing that is kept comes any more");
        assert_eq!(events, [1]);
        assert_eq!(one.end_reason(), Some(EndReason::Completed));
        assert_eq!(pass(&hub, 13), Accepted::Complete);
        drop(one);
        hub.forget("u");
        assert_empty(&hub);
    });
}

/// A stream that waits is drained while something is sent to it: is it woken, and does it end?
///
/// Fails: finish_does_not_wake, a_stream_that_finishes_yields_ephemeral_events.
#[test]
fn drain_meets_ephemeral() {
    model(20, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let woken = asleep(&mut one);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                hub.with("u", |channel| pass_on(channel, 11));
            })
        };
        hub.drain("u");
        sender.join().unwrap();
        assert!(woken.0.load(Ordering::SeqCst));
        let got = read(&mut one);
        assert!(got.ended && got.events.is_empty());
        drop(one);
        assert_empty(&hub);
    });
}

/// A connection is ended while something is sent to it: it keeps nothing, neither that nor what it has not read.
///
/// Fails: the_end_keeps_the_queue, a_sender_does_not_look_again.
#[test]
fn unregister_meets_ephemeral() {
    model(20, || {
        assert_keeps_nothing(|hub, _| {
            assert!(hub.unregister("u", &ConnectionId::from("a")));
        });
    });
}

/// The same for a stream that ends by itself, at a gap or its deadline.
///
/// Fails: a_stream_that_ends_empties_its_queue_too_early.
#[test]
fn end_meets_ephemeral() {
    model(20, || {
        assert_keeps_nothing(|_, stream| stream.end(EndReason::Gap));
    });
}

fn assert_keeps_nothing(end: impl FnOnce(&Arc<Registry<Arc<u32>>>, &Subscription<Arc<u32>>)) {
    let hub: Arc<Registry<Arc<u32>>> = Arc::new(Registry::new(limits(), None));
    let open = |id: &str| {
        Subscription::open(&hub, "u".into(), tab(id), Resume::Fresh, |_| None)
            .expect("there is room")
    };
    let (one, mut keeper) = (open("a"), open("keeper"));
    let events = [Arc::new(1), Arc::new(11)];
    hub.with("u", |channel| append(channel, events[0].clone()));
    assert!(matches!(poll_once(&mut keeper), Poll::Ready(Some(Ok(_)))));
    let sender = {
        let (hub, event) = (hub.clone(), events[1].clone());
        thread::spawn(move || {
            hub.with("u", |channel| pass_on(channel, event));
        })
    };
    end(&hub, &one);
    sender.join().unwrap();
    assert_eq!(poll_all(&mut keeper).0.len(), 1);
    for event in &events {
        assert_eq!(Arc::strong_count(event), 1, "nobody has yet to read it");
    }
    drop((one, keeper));
    assert_eq!((hub.users.len(), hub.total()), (0, 0));
}

/// A stream is asked to finish while something is sent to it, and nobody reads it: it keeps neither that nor what was queued.
///
/// Fails: a_request_to_finish_keeps_the_queue, a_sender_to_a_stream_that_finishes_keeps_its_event.
#[test]
fn drain_meets_ephemeral_of_nobody() {
    model(10, || {
        let hub: Arc<Registry<Arc<u32>>> = Arc::new(Registry::new(limits(), None));
        let one = Subscription::open(&hub, "u".into(), tab("a"), Resume::Fresh, |_| None)
            .expect("there is room");
        let events = [Arc::new(11), Arc::new(12)];
        hub.with("u", |channel| pass_on(channel, events[0].clone()));
        let sender = {
            let (hub, event) = (hub.clone(), events[1].clone());
            thread::spawn(move || {
                hub.with("u", |channel| pass_on(channel, event));
            })
        };
        hub.drain("u");
        sender.join().unwrap();
        for event in &events {
            assert_eq!(Arc::strong_count(event), 1, "nobody will read it");
        }
        drop(one);
        assert_eq!((hub.users.len(), hub.total()), (0, 0));
    });
}

/// Does a stream find out between its polls where it is, although somebody is about to wake it? And is it woken, although it
/// may have been in the reader's cell just then?
///
/// Fails: a_stream_gives_up_on_its_reader, a_look_at_the_place_keeps_a_wake.
#[test]
fn a_place_meets_ephemeral() {
    model(10, || {
        let hub = hub_with(remembering(8));
        let mut one = register(&hub, "u", "a");
        let woken = asleep(&mut one);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || pass(&hub, 11))
        };
        assert!(one.place().is_some());
        sender.join().unwrap();
        assert!(woken.0.load(Ordering::SeqCst));
        assert_eq!(read(&mut one).events, [11]);
        drop(one);
        assert_forgotten(&hub);
    });
}
