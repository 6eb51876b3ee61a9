//! A node among others, as the models need it: its channel, the engine between the nodes, and a client from another one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::support::{poll_all, remembering};
use crate::channel::{Head, Incoming, Resume, Taken, Upstream, Welcome};
use crate::gap::Gap;
use crate::id::{Position, Seen};
use crate::registry::{Limits, Registry};
use crate::subscription::{Gate, Pass, Subscription};
use crate::sync::Mutex;

pub(super) type Hub = Arc<Registry<Event>>;

pub(super) const EPOCH: u64 = 7;
/// What is no event but tells of a gap.
pub(super) const NOTICE: u32 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) number: u32,
    pub(super) id: Position,
    /// Which of the events that a channel has sent first it is, if it was not the engine.
    pub(super) first: Option<Seen>,
    /// Its position in the engine's log, if that has sent it here.
    pub(super) position: u64,
}

pub(super) fn hub_with(limits: Limits) -> Hub {
    let head = Head {
        epoch: EPOCH,
        position: 0,
    };
    Arc::new(Registry::new(limits, Some(Upstream::new(head))))
}

pub(super) fn hub() -> Hub {
    hub_with(Limits {
        capacity: 4,
        ..remembering(8)
    })
}

pub(super) fn open(hub: &Hub, id: &str, from: Resume) -> Subscription<Event> {
    Subscription::open(hub, "u".into(), id.into(), from, |_| None).expect("there is room")
}

/// Broadcasts here, to streams first.
pub(super) fn publish(hub: &Hub, number: u32) -> usize {
    publish_to(hub, number, |_| ())
}

/// The same; `push` is called where the event gets its place, as a broadcast pushes into the outbox.
pub(super) fn publish_to(hub: &Hub, number: u32, push: impl FnOnce(Event)) -> usize {
    let make = |id: Option<Position>| {
        let id = id.expect("there are marks");
        let event = Event {
            number,
            id,
            first: id.own,
            position: 0,
        };
        push(event);
        event
    };
    let sent = hub.with("u", |channel| channel.publish(1, None, make));
    sent.unwrap_or(0)
}

/// Takes what the engine sends, which comes behind `previous`. `echo` says which of the channel's own events it is.
pub(super) fn take(
    hub: &Hub,
    position: u64,
    previous: u64,
    number: u32,
    echo: Option<u64>,
) -> Taken {
    let incoming = Incoming { position, previous };
    let make = |id: Option<Position>| Event {
        number,
        id: id.expect("there are marks"),
        first: None,
        position,
    };
    hub.with("u", |channel| {
        channel.take(false, incoming, echo, (1, None), make)
    })
    .expect("the channel is there")
}

/// Sends something that tells of a gap.
pub(super) fn note(hub: &Hub) {
    hub.with("u", |channel| channel.note(1, notice));
}

pub(super) fn notice(id: Option<Position>) -> Event {
    Event {
        number: NOTICE,
        id: id.expect("there are marks"),
        first: None,
        position: 0,
    }
}

/// The events that a stream has without waiting.
pub(super) fn read(stream: &mut Subscription<Event>) -> Vec<Event> {
    let (items, _) = poll_all(stream);
    let events = items.into_iter();
    events.map(|item| item.expect("nothing is lost")).collect()
}

pub(super) fn numbers(events: &[Event]) -> Vec<u32> {
    events.iter().map(|event| event.number).collect()
}

/// Nobody is connected and nobody is remembered: nothing may be left behind.
pub(super) fn assert_forgotten(hub: &Hub) {
    hub.sweep(Instant::now() + Duration::from_secs(60));
    assert_eq!((hub.user_count(), hub.total()), (0, 0));
    let retention = hub.retention();
    assert_eq!((retention.away(), retention.kept_for_away()), (0, 0));
}

/// What the engine has, as far as the models need it: the events behind the beginning, each with its position.
pub(super) type Engine = Arc<Mutex<Vec<Event>>>;

/// A client from another node: it gets what the engine has, and keeps from it what it got there.
#[derive(Debug)]
struct Crossing {
    before: VecDeque<Event>,
    channel: u64,
    /// How many of the channel's events the engine gave it.
    seen: u64,
    through: u64,
    /// The numbers of those that the channel had for it, whether it had them or not.
    raw: Arc<std::sync::Mutex<Vec<u32>>>,
}

impl Gate<Event> for Crossing {
    fn poll_before(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Event, Gap>>> {
        Poll::Ready(self.before.pop_front().map(Ok))
    }

    fn widen(&mut self, gap: Gap, _: u64) -> Gap {
        gap
    }

    fn pass(&mut self, event: Event) -> Pass<Event> {
        self.raw.lock().unwrap().push(event.number);
        let is_read = event.position != 0 && event.position <= self.through;
        let is_own = |first: Seen| first.channel == self.channel && first.count <= self.seen;
        match is_read || event.first.is_some_and(is_own) {
            true => Pass::Nothing,
            false => Pass::Event(event),
        }
    }
}

/// A client comes from another node, where it has seen nothing. `raw` gets the numbers of what the channel has for it.
pub(super) fn come_over(
    hub: &Hub,
    engine: &Engine,
    raw: &Arc<std::sync::Mutex<Vec<u32>>>,
) -> Subscription<Event> {
    let from = Position {
        epoch: EPOCH,
        offset: 0,
        own: None,
        settled: false,
    };
    let gate = |welcome: &Welcome| -> Option<Box<dyn Gate<Event>>> {
        assert!(welcome.asks);
        // Asked once it is in.
        let before = engine.with(|log| log.clone());
        let own = before.iter().filter_map(|event| event.first);
        Some(Box::new(Crossing {
            channel: welcome.channel,
            seen: own.map(|first| first.count).max().unwrap_or(0),
            through: before.len() as u64,
            before: before.into(),
            raw: raw.clone(),
        }))
    };
    let opened = Subscription::open(hub, "u".into(), "over".into(), Resume::After(from), gate);
    opened.expect("there is room")
}
