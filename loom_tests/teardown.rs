//! Two calls end the streams of one user at the same time, or one call does while something else happens to that user. Each
//! connection is removed and counted once, its stream has one end reason, and nothing is left behind.

use loom::thread;
use tokio::time::Instant;

use super::ending::impatient_hub;
use super::replay::after;
use super::support::*;
use crate::end::EndReason;
use crate::subscription::Subscription;

/// Runs both calls at the same time, and returns the results of both.
fn cross<A: 'static, B>(
    hub: &Hub,
    one: impl FnOnce(&Hub) -> A + 'static,
    other: impl FnOnce(&Hub) -> B,
) -> (A, B) {
    let first = {
        let hub = hub.clone();
        thread::spawn(move || one(&hub))
    };
    let second = other(hub);
    (first.join().unwrap(), second)
}

/// Reads a stream to its end. While another call ends it, it may have to be polled again.
pub(super) fn read_to_end(stream: &mut Subscription<u32>) -> Vec<u32> {
    let mut events = Vec::new();
    while let Some(item) = wait(stream) {
        events.push(item.expect("nothing is lost"));
    }
    events
}

/// The stream yields these events, then ends for one of these reasons, which is also the one that is counted. Without the
/// stream, nothing is left.
#[track_caller]
fn assert_over(hub: &Hub, mut stream: Subscription<u32>, events: &[u32], reasons: &[EndReason]) {
    let read = read(&mut stream);
    assert_eq!((read.events.as_slice(), read.ended), (events, true));
    let reason = stream.end_reason().expect("a stream ends for a reason");
    assert!(reasons.contains(&reason), "{reason}");
    drop(stream);
    let ended = hub.counters().totals().ended;
    assert_eq!((ended.get(reason), ended.total()), (1, 1), "{reason}");
    assert_forgotten(hub);
}

/// The drain replaces the ring and turns members into leaving connections, `forget` closes the channel, and both then give
/// end reasons: is the connection counted by one of them, and the channel closed for good?
///
/// Fails: a_closed_channel_is_drained.
#[test]
fn drain_meets_forget() {
    model(90, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let (drained, forgotten) = cross(&hub, |hub| hub.drain("u"), |hub| hub.forget("u"));
        assert_eq!(drained + forgotten, 1);
        assert_eq!((hub.users.len(), hub.total()), (0, 1));
        let reasons = [EndReason::Drained, EndReason::Forgotten];
        assert_over(&hub, one, &[1], &reasons);
    });
}

/// `disconnect` goes through the connections twice, to cut and to remove them, while the drain turns members into leaving
/// connections. A history lingers, so the channel stays open meanwhile: does `disconnect` find each connection, whichever it is?
///
/// Fails: leaving_connections_are_read_before_the_members.
#[test]
fn drain_meets_disconnect() {
    model(300, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let (drained, disconnected) = cross(&hub, |hub| hub.drain("u"), |hub| hub.disconnect("u"));
        assert!(drained <= 1);
        assert_eq!((disconnected, hub.total(), count(&hub, "u")), (1, 0, 0));
        let reasons = [EndReason::Drained, EndReason::Disconnected];
        assert_over(&hub, one, &[], &reasons);
    });
}

/// `unregister` looks up a member and removes it after the drain may have turned it into a leaving connection: is its place
/// given back once, and by then?
///
/// Fails: detach_without_looking.
#[test]
fn drain_meets_unregister() {
    model(300, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let (drained, unregistered) =
            cross(&hub, |hub| hub.drain("u"), |hub| unregister(hub, "u", "a"));
        assert!(drained == 1 || unregistered, "one of them found it");
        assert_eq!(hub.total(), 1 - usize::from(unregistered));
        let events: &[u32] = if unregistered { &[] } else { &[1] };
        let reasons = [EndReason::Drained, EndReason::Unregistered];
        assert_over(&hub, one, events, &reasons);
    });
}

/// A drain and a shutdown ask the same stream to finish, and it reads in between: does it read what was broadcast before, and
/// end for one of the two reasons?
///
/// Fails: a_request_to_finish_adds_its_reason.
#[test]
fn drain_meets_finish() {
    model(350, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let (drained, (events, reason)) = cross(
            &hub,
            |hub| hub.drain("u"),
            |hub| {
                finish_all(hub);
                (read_to_end(&mut one), one.end_reason())
            },
        );
        assert_eq!((drained, events), (1, vec![1]));
        let reason = reason.expect("a stream ends for a reason");
        assert!([EndReason::Drained, EndReason::Shutdown].contains(&reason));
        assert_over(&hub, one, &[], &[reason]);
    });
}

/// A sweep compares a stalled connection with its channel while the drain turns it into a leaving one: is it removed, whichever
/// it is?
///
/// Fails: a_drained_connection_is_never_behind.
#[test]
fn drain_meets_sweep() {
    model(250, || {
        let hub = impatient_hub();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let sweep = |hub: &Hub| hub.sweep(Instant::now());
        let (drained, swept) = cross(&hub, |hub| hub.drain("u"), sweep);
        assert!(drained <= 1);
        assert_eq!((swept, hub.total(), hub.users.len()), (1, 0, 0));
        assert_over(&hub, one, &[], &[EndReason::Drained, EndReason::Behind]);
    });
}

/// Two calls close the channel: does one of them count the connection?
///
/// Fails: everybody_closes.
#[test]
fn forget_meets_forget() {
    model(40, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let (here, there) = cross(&hub, |hub| hub.forget("u"), |hub| hub.forget("u"));
        assert_eq!((here + there, hub.users.len(), hub.total()), (1, 0, 1));
        assert_over(&hub, one, &[1], &[EndReason::Forgotten]);
    });
}

/// `disconnect` cuts and removes the last connection, so that the history is to linger, while `forget` closes the channel and
/// gives back the room of the history: is the history forgotten?
///
/// Fails: a_closed_channel_lingers.
#[test]
fn forget_meets_disconnect() {
    model(500, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let (forgotten, ended) = cross(&hub, |hub| hub.forget("u"), |hub| hub.disconnect("u"));
        assert!(forgotten + ended >= 1);
        assert_eq!((hub.users.len(), hub.total()), (0, 1 - ended));
        assert_eq!(hub.retention().away(), 0, "nothing is kept of the user");
        let events: &[u32] = if ended == 1 { &[] } else { &[1] };
        let reasons = [EndReason::Forgotten, EndReason::Disconnected];
        assert_over(&hub, one, events, &reasons);
    });
}

/// The same where the last stream is dropped.
///
/// Fails: a_closed_channel_lingers.
#[test]
fn forget_meets_the_last_drop() {
    model(400, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let (forgotten, ()) = cross(&hub, |hub| hub.forget("u"), |_| drop(one));
        assert!(forgotten <= 1);
        assert_empty(&hub);
        let retention = hub.retention();
        assert_eq!((retention.away(), retention.kept_for_away()), (0, 0));
        assert_eq!(hub.counters().totals().ended.total(), 1);
    });
}

/// A stream is cut when it is asked to finish: does the server learn that it was cut, and is there one reason?
///
/// Fails: store_instead_of_exchange_in_finish.
#[test]
fn unregister_meets_finish() {
    model(100, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let handle = one.guard().stream_handle();
        let (unregistered, ()) = cross(&hub, |hub| unregister(hub, "u", "a"), finish_all);
        assert!(unregistered && handle.is_over(Instant::now()));
        assert_empty(&hub);
        let reasons = [EndReason::Unregistered, EndReason::Shutdown];
        assert_over(&hub, one, &[], &reasons);
    });
}

/// An event is broadcast when a stream is asked to finish, which then reads to its end: does a client that comes back from
/// there get the event if the stream did not yield it, and only then? The registry stays open, so that the client can come back to
/// it.
#[test]
fn broadcast_meets_finish() {
    model(20, || {
        let hub = hub_with(remembering(8));
        let mut one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let (reached, before) = cross(
            &hub,
            |hub| publish(hub, "u", 2),
            |hub| {
                let members = hub.with("u", |channel| channel.roster().members());
                let members = members.into_iter().flatten();
                members.for_each(|member| member.finish(EndReason::Shutdown));
                read(&mut one)
            },
        );
        assert!(before.ended && reached <= 1);
        assert_eq!(before.events.first(), Some(&1), "broadcast before");
        let mut back = resume(&hub, "u", "b", after(&one, before.events.len() as u64));
        assert_eq!([before.events, read(&mut back).events].concat(), [1, 2]);
        drop((one, back));
        assert_forgotten(&hub);
    });
}

/// An event is broadcast while the last connection is cut and removed, and the history begins to linger: is the event kept for a
/// client that comes back, although nobody may have been reached?
///
/// Fails: a_disconnect_ends_the_history.
#[test]
fn broadcast_meets_disconnect() {
    model(40, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        let from = after(&one, 0);
        let publish = |hub: &Hub| publish(hub, "u", 1);
        let (reached, ended) = cross(&hub, publish, |hub| hub.disconnect("u"));
        assert!(reached <= 1);
        assert_eq!((ended, hub.total(), count(&hub, "u")), (1, 0, 0));
        assert_eq!(hub.retention().away(), 1);
        assert_eq!(hub.retention().kept_for_away(), 1, "its one event");
        let mut back = resume(&hub, "u", "b", from);
        let got = read(&mut back);
        assert_eq!((got.events, got.gaps.len()), (vec![1], 0));
        drop(back);
        assert_eq!(hub.counters().totals().ended.get(EndReason::Dropped), 1);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// A sweep and `disconnect` remove the same connection: does one of them count it?
///
/// Fails: each_sweep_counts_what_it_ends.
#[test]
fn disconnect_meets_sweep() {
    model(600, || {
        let hub = impatient_hub();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let sweep = |hub: &Hub| hub.sweep(Instant::now());
        let (disconnected, swept) = cross(&hub, |hub| hub.disconnect("u"), sweep);
        assert_eq!(disconnected + swept, 1);
        assert_empty(&hub);
        let reasons = [EndReason::Disconnected, EndReason::Behind];
        assert_over(&hub, one, &[], &reasons);
    });
}

/// Two sweeps, one of them called by hand, remove the same connection: does one of them count it?
///
/// Fails: each_sweep_counts_what_it_ends.
#[test]
fn sweep_meets_sweep() {
    model(250, || {
        let hub = impatient_hub();
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        let sweep = |hub: &Hub| hub.sweep(Instant::now());
        let (here, there) = cross(&hub, sweep, sweep);
        assert_eq!(here + there, 1);
        assert_empty(&hub);
        assert_over(&hub, one, &[], &[EndReason::Behind]);
    });
}

/// Two sweeps find that a history has lingered long enough: is its room given back once?
#[test]
fn sweep_meets_sweep_of_a_history() {
    model(50, || {
        let hub = hub_with(remembering(8));
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        drop(one);
        cross(&hub, sweep, sweep);
        assert_empty(&hub);
        let retention = hub.retention();
        assert_eq!((retention.away(), retention.kept_for_away()), (0, 0));
    });
}
