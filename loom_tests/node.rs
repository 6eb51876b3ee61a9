//! A node among others, as the models need it: its channel, the engine between the nodes, and a client that comes back.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::resumption::Resumption;
use super::stretch::{Entry, Stretch};
use crate::backplane::Missing;
use crate::channel::{Accepted, Label, Missed, Origin, Resume, Upstream, Welcome};
use crate::gap::Gap;
use crate::loom_tests::support::{poll_all, remembering, tab};
use crate::position::{Place, Position};
use crate::registry::{Limits, Registry};
use crate::subscription::{ResumeFilter, Subscription, Verdict};
use crate::sync::Mutex;

pub(in crate::loom_tests) type Hub = Arc<Registry<Event>>;

pub(in crate::loom_tests) const EPOCH: u64 = 7;
/// What is no event but tells of a gap.
pub(in crate::loom_tests) const NOTICE: u32 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::loom_tests) struct Event {
    pub(in crate::loom_tests) number: u32,
    pub(in crate::loom_tests) id: Position,
}

pub(in crate::loom_tests) fn place(offset: u64) -> Position {
    Position {
        epoch: EPOCH,
        offset,
    }
}

/// Where the engine's log is, for channels that are opened.
pub(in crate::loom_tests) type Horizon = Arc<Mutex<Position>>;

/// A node whose engine's log may be replaced.
pub(in crate::loom_tests) fn hub_at(limits: Limits) -> (Hub, Horizon) {
    let horizon = Horizon::new(Mutex::new(place(0)));
    let upstream = Upstream::new({
        let horizon = horizon.clone();
        move || horizon.with(|at| *at)
    });
    (Arc::new(Registry::new(limits, Some(upstream))), horizon)
}

pub(in crate::loom_tests) fn hub_with(limits: Limits) -> Hub {
    Arc::new(Registry::new(limits, Some(Upstream::new(|| place(0)))))
}

pub(in crate::loom_tests) fn hub() -> Hub {
    hub_with(Limits {
        capacity: 4,
        ..remembering(8)
    })
}

pub(in crate::loom_tests) fn open(hub: &Hub, id: &str, from: Resume) -> Subscription<Event> {
    Subscription::open(hub, "u".into(), tab(id), from, |_| None).expect("there is room")
}

/// Takes what the engine sends, which comes behind `previous`.
pub(in crate::loom_tests) fn take(hub: &Hub, offset: u64, previous: u64, number: u32) -> Accepted {
    take_at(hub, place(offset), previous, number)
}

pub(in crate::loom_tests) fn take_at(
    hub: &Hub,
    position: Position,
    previous: u64,
    number: u32,
) -> Accepted {
    let origin = Origin::Upstream(Place { position, previous });
    let make = |id: Option<Position>| event(number, id);
    hub.with("u", |channel| {
        channel.append(origin, Label::event(1, None), make)
    })
    .expect("the channel is there")
}

fn event(number: u32, id: Option<Position>) -> Event {
    // What is shown ahead of the log has none.
    let id = id.unwrap_or(place(0));
    Event { number, id }
}

/// Shows an event that the engine's log has not returned.
pub(in crate::loom_tests) fn show(hub: &Hub, number: u32) {
    let origin = Origin::Ahead {
        notice: event(NOTICE, None),
        weight: 1,
    };
    hub.with("u", |channel| {
        channel.append(origin, Label::event(1, None), |id| event(number, id))
    });
}

fn note(hub: &Hub, origin: Origin<Event>) {
    hub.with("u", |channel| {
        channel.append(origin, Label::notice(1), |id| event(NOTICE, id))
    });
}

/// Sends what says that everything up to there is missing.
pub(in crate::loom_tests) fn skip(hub: &Hub, until: u64) {
    note(hub, Origin::Upstream(Place::up_to(place(until))));
}

/// Goes over to the engine's log that there is.
pub(in crate::loom_tests) fn follow(hub: &Hub) {
    note(hub, Origin::Reset);
}

/// The events that a stream has without waiting.
pub(in crate::loom_tests) fn read(stream: &mut Subscription<Event>) -> Vec<Event> {
    let (items, _) = poll_all(stream);
    let events = items.into_iter();
    events.map(|item| item.expect("nothing is lost")).collect()
}

pub(in crate::loom_tests) fn numbers(events: &[Event]) -> Vec<u32> {
    events.iter().map(|event| event.number).collect()
}

/// Nobody is connected and nobody is remembered: nothing may be left behind.
pub(in crate::loom_tests) fn assert_forgotten(hub: &Hub) {
    hub.sweep(Instant::now() + Duration::from_secs(60));
    assert_eq!((hub.users.len(), hub.total()), (0, 0));
    let retention = hub.retention();
    assert_eq!((retention.away(), retention.kept_for_away()), (0, 0));
}

/// The engine's log: the numbers of its events, which have the offsets from 1 on.
pub(in crate::loom_tests) type Engine = Arc<Mutex<Vec<u32>>>;

/// Appends to the engine's log, and takes that here.
pub(in crate::loom_tests) fn append(hub: &Hub, engine: &Engine, number: u32) {
    let offset = engine.with(|log| {
        log.push(number);
        log.len() as u64
    });
    assert!(matches!(
        take(hub, offset, offset - 1, number),
        Accepted::Delivered(_)
    ));
}

impl Entry for Event {
    fn is_end(&self) -> bool {
        false
    }
}

/// A client that is behind the history: it gets what the engine's log has, as the relay's [`Resumption`] says, and then what its
/// channel sends.
struct Returning {
    engine: Engine,
    resumption: Resumption<Event>,
}

impl Returning {
    /// The log returns one event at a time.
    fn read(&self, after: Position) -> Stretch<Event> {
        let (next, end) = self.engine.with(|log| {
            let next = log.get(after.offset as usize).copied();
            (next, log.len() as u64)
        });
        let number = next.expect("the log has what its channel had");
        let id = place(after.offset + 1);
        Stretch {
            after,
            messages: vec![(id, Event { number, id })],
            through: id,
            head: place(end),
            missing: Missing::Nothing,
        }
    }
}

impl fmt::Debug for Returning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.resumption.fmt(f)
    }
}

impl ResumeFilter<Event> for Returning {
    fn poll_before(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Event, Gap>>> {
        loop {
            if let Some(next) = self.resumption.next() {
                return Poll::Ready(Some(Ok(next.expect("nothing is missing"))));
            }
            let Some(after) = self.resumption.asks() else {
                return Poll::Ready(None);
            };
            let stretch = self.read(after);
            self.resumption.answer(Some(Arc::new(stretch)));
        }
    }

    fn lose(&mut self, missed: &Missed, _: u64) -> Option<Gap> {
        let resumption = &mut self.resumption;
        let has = |until| !resumption.lacks(until) || resumption.read_until(until, None);
        (!missed.in_log.is_some_and(has)).then_some(missed.gap)
    }

    fn place(&self, channel: Position) -> Option<Position> {
        self.resumption.place(channel)
    }

    fn pass(&mut self, event: Event) -> Verdict<Event> {
        match self.resumption.pass(event.id) {
            true => Verdict::Event(event),
            false => Verdict::Nothing,
        }
    }
}

/// A client comes back that has everything up to there.
pub(in crate::loom_tests) fn come_back(
    hub: &Hub,
    engine: &Engine,
    id: &str,
    from: u64,
) -> Subscription<Event> {
    let filter = |welcome: &Welcome| -> Option<Box<dyn ResumeFilter<Event>>> {
        let (_, joined) = welcome.log.expect("it comes back to a log");
        let (engine, resumption) = (engine.clone(), Resumption::new(place(from), joined));
        Some(Box::new(Returning { engine, resumption }))
    };
    let from = Resume::After(place(from));
    let opened = Subscription::open(hub, "u".into(), tab(id), from, filter);
    opened.expect("there is room")
}
