//! `channel/log.rs`: the engine's log is replaced while a channel of the old one is resumed from, deserted, completed or closed.
//! The reset empties the history, goes over to the new log and sends a notice, in one step under the channel's lock.

use std::time::Duration;

use loom::thread;
use tokio::time::Instant;

use super::node::*;
use super::shared::NEW;
use super::support::{model, poll_all, remembering, tab};
use crate::channel::{Accepted, Label, Origin, Resume, Welcome};
use crate::end::EndReason;
use crate::gap::{Gap, GapReason};
use crate::position::Position;
use crate::registry::Limits;
use crate::subscription::{ResumeFilter, Subscription};

fn hub_of_a_log() -> (Hub, Horizon) {
    hub_at(Limits {
        capacity: 4,
        ..remembering(8)
    })
}

/// Replaces the engine's log by one that begins here. `None` if the user has no channel.
fn reset(hub: &Hub, horizon: &Horizon, begins: Position) -> Option<Accepted> {
    horizon.with(|at| *at = begins);
    hub.with("u", |channel| {
        channel.append(Origin::Reset, Label::notice(1), |id| Event {
            number: NOTICE,
            id: id.expect("a reset has a place"),
        })
    })
}

fn spawn_reset(hub: &Hub, horizon: &Horizon) -> thread::JoinHandle<Option<Accepted>> {
    let (hub, horizon) = (hub.clone(), horizon.clone());
    thread::spawn(move || reset(&hub, &horizon, NEW))
}

fn assert_unkept(hub: &Hub) {
    let retention = hub.retention();
    assert_eq!((retention.away(), retention.kept_for_away()), (0, 0));
}

/// The client comes back from another history: it is told, and gets nothing of that.
fn is_foreign(items: &[Result<Event, Gap>]) -> bool {
    matches!(items, [Err(gap)] if gap.reason == GapReason::Epoch)
}

/// A client comes back behind an event of the old log while that is replaced: does it get what it lacks, or is it told?
///
/// Fails: a_reset_takes_two_steps.
#[test]
fn resume_meets_reset() {
    model(80, || {
        let (hub, horizon) = hub_of_a_log();
        let keeper = open(&hub, "a", Resume::Fresh);
        take(&hub, 1, 0, 1);
        take(&hub, 2, 1, 2);
        let driver = spawn_reset(&hub, &horizon);
        let filter = |welcome: &Welcome| -> Option<Box<dyn ResumeFilter<Event>>> {
            if let Some((from, joined)) = welcome.log {
                assert_eq!(from, joined, "the history has what it lacks");
            }
            None
        };
        let mut back =
            Subscription::open(&hub, "u".into(), tab("b"), Resume::After(place(1)), filter)
                .expect("there is room");
        let (mut items, _) = poll_all(&mut back);
        driver.join().unwrap();
        items.extend(poll_all(&mut back).0);
        let is_told = match items[..] {
            [Ok(event), Ok(notice)] => (event.number, notice.number) == (2, NOTICE),
            [Err(gap), Ok(notice)] => {
                (gap.reason, gap.missed, notice.number) == (GapReason::Evicted, Some(1), NOTICE)
            }
            _ => is_foreign(&items),
        };
        assert!(is_told, "{items:?}");
        drop((keeper, back));
        assert_forgotten(&hub);
    });
}

/// The channel is closed while its history is emptied and the notice sent: does the stream yield the notice exactly if the reset
/// counted it, and end?
///
/// Fails: a_forgotten_stream_ends_before_it_has_read.
#[test]
fn reset_meets_forget() {
    model(40, || {
        let (hub, horizon) = hub_of_a_log();
        let mut one = open(&hub, "a", Resume::Fresh);
        take(&hub, 1, 0, 1);
        let driver = spawn_reset(&hub, &horizon);
        assert_eq!(hub.forget("u"), 1);
        let is_sent = driver.join().unwrap() == Some(Accepted::Delivered(1));
        let (items, ended) = poll_all(&mut one);
        let events: Vec<Event> = items.into_iter().map(Result::unwrap).collect();
        let expected = if is_sent { &[1, NOTICE][..] } else { &[1] };
        assert_eq!((numbers(&events), ended), (expected.to_vec(), true));
        assert_eq!(one.end_reason(), Some(EndReason::Forgotten));
        assert_eq!((hub.users.len(), hub.total()), (0, 1));
        assert_unkept(&hub);
        drop(one);
        assert_forgotten(&hub);
    });
}

/// The last stream leaves, so that its history takes room, while that is emptied: does it take the room of what is left?
///
/// Fails: the_size_of_a_history_is_read_before_the_lock.
#[test]
fn reset_meets_the_last_drop() {
    model(30, || {
        let (hub, horizon) = hub_of_a_log();
        let one = open(&hub, "a", Resume::Fresh);
        take(&hub, 1, 0, 1);
        take(&hub, 2, 1, 2);
        let driver = spawn_reset(&hub, &horizon);
        drop(one);
        driver.join().unwrap();
        let retention = hub.retention();
        let kept = (retention.away(), retention.kept_for_away());
        assert_eq!(kept, (1, 1), "the notice");
        let mut back = open(&hub, "b", Resume::After(place(2)));
        assert!(is_foreign(&poll_all(&mut back).0));
        assert_unkept(&hub);
        drop(back);
        assert_forgotten(&hub);
    });
}

/// A sweep closes the channel of a user who is away, and gives back its room, while its history is emptied: is nothing kept, and
/// does the next channel begin in the new log?
///
/// Fails: a_closed_log_keeps_its_room.
#[test]
fn reset_meets_sweep() {
    model(30, || {
        let (hub, horizon) = hub_of_a_log();
        let one = open(&hub, "a", Resume::Fresh);
        take(&hub, 1, 0, 1);
        drop(one);
        let driver = spawn_reset(&hub, &horizon);
        hub.sweep(Instant::now() + Duration::from_secs(60));
        driver.join().unwrap();
        assert_eq!((hub.users.len(), hub.total()), (0, 0));
        assert_unkept(&hub);
        let mut next = open(&hub, "b", Resume::Fresh);
        let at = hub.with("u", |channel| channel.place()).flatten();
        assert_eq!((at, read(&mut next).len()), (Some(NEW), 0));
        drop(next);
        assert_forgotten(&hub);
    });
}

/// The channel is completed while its log is replaced. If the reset was first, the stream is told and the old ids are foreign; if
/// not, the reset is refused and what is kept stays. In either case every stream ends as complete.
///
/// Fails: a_complete_channel_is_emptied.
#[test]
fn reset_meets_complete() {
    model(6, || {
        let (hub, horizon) = hub_of_a_log();
        let mut one = open(&hub, "a", Resume::Fresh);
        take(&hub, 1, 0, 1);
        let driver = spawn_reset(&hub, &horizon);
        assert_eq!(hub.complete("u"), Some(Accepted::Delivered(1)));
        let is_reset = driver.join().unwrap() == Some(Accepted::Delivered(1));
        let (items, ended) = poll_all(&mut one);
        let events: Vec<Event> = items.into_iter().map(Result::unwrap).collect();
        let expected = if is_reset { &[1, NOTICE][..] } else { &[1] };
        assert_eq!((numbers(&events), ended), (expected.to_vec(), true));
        assert_eq!(one.end_reason(), Some(EndReason::Completed));
        let next = Position {
            epoch: 9,
            offset: 0,
        };
        let again = reset(&hub, &horizon, next);
        assert_eq!(again, Some(Accepted::Complete), "it keeps what it has");
        let mut late = open(&hub, "b", Resume::After(place(1)));
        let (items, ended) = poll_all(&mut late);
        assert_eq!((is_foreign(&items), ended), (is_reset, true));
        assert!(is_reset || items.is_empty(), "it lacks nothing");
        assert_eq!(late.end_reason(), Some(EndReason::Completed));
        drop((one, late));
        assert_forgotten(&hub);
    });
}
