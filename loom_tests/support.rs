//! What the models share.

#[cfg(not(shuttle))]
use std::convert::Infallible;
use std::sync::Arc;
#[cfg(not(shuttle))]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
#[cfg(not(shuttle))]
use tokio::time::Instant;

#[cfg(not(shuttle))]
use crate::channel::Accepted;
use crate::channel::{Channel, Connection, History, Label, Origin, Resume};
use crate::error::{RefusalForm, RegisterError};
use crate::gap::Gap;
use crate::id::ConnectionId;
use crate::registry::{Limits, Patience, Registry};
use crate::subscription::Subscription;
use crate::sync::SHARDS;

pub(super) type Hub = Arc<Registry<u32>>;

#[cfg(not(shuttle))]
/// Runs a model, prints how many iterations it took, and fails when these are fewer than `at_least`.
pub(super) fn model(at_least: usize, check: impl Fn() + Sync + Send + 'static) {
    let iterations = Arc::new(AtomicUsize::new(0));
    let counted = iterations.clone();
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        check();
    });
    let iterations = iterations.load(Ordering::Relaxed);
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {iterations} iterations");
    assert!(
        iterations >= at_least,
        "{iterations} iterations, at least {at_least} were expected"
    );
}

/// No caps, a ring of two, all the patience in the world.
pub(super) fn limits() -> Limits {
    Limits {
        capacity: 2,
        per_user: usize::MAX,
        total: usize::MAX,
        patience: Patience {
            behind: u64::MAX,
            time: Duration::MAX,
        },
        history: None,
        keys: 0,
        when_full: RefusalForm::Status,
        when_shutting_down: RefusalForm::ComeBack,
    }
}

/// The same, with a history of so many events that lingers until it is swept.
pub(super) fn remembering(events: usize) -> Limits {
    Limits {
        history: Some(History::new(events).linger(Duration::from_millis(1))),
        ..limits()
    }
}

pub(super) fn hub() -> Hub {
    hub_with(limits())
}

pub(super) fn hub_with(limits: Limits) -> Hub {
    Arc::new(Registry::new(limits, None))
}

/// A connection that is not registered yet.
pub(super) fn tab<T: Clone + Send + 'static>(id: &str) -> Connection<T> {
    Connection::new(id.into())
}

pub(super) fn try_register(
    hub: &Hub,
    user: &str,
    id: &str,
) -> Result<Subscription<u32>, RegisterError> {
    Subscription::open(hub, user.into(), tab(id), Resume::Fresh, |_| None)
}

pub(super) fn resume(hub: &Hub, user: &str, id: &str, from: Resume) -> Subscription<u32> {
    Subscription::open(hub, user.into(), tab(id), from, |_| None).expect("there is room")
}

pub(super) fn register(hub: &Hub, user: &str, id: &str) -> Subscription<u32> {
    try_register(hub, user, id).expect("there is room and the id is free")
}

/// Closes the registry and asks every member to end, as a shutdown does.
pub(super) fn finish_all<T: Clone + Send + 'static>(hub: &Arc<Registry<T>>) {
    for member in hub.close(Duration::ZERO) {
        member.finish();
    }
}

pub(super) fn unregister(hub: &Hub, user: &str, id: &str) -> bool {
    hub.unregister(user, &ConnectionId::from(id))
}

/// Broadcasts an event on this channel, and says how many streams it has reached.
pub(super) fn append<T: Clone + Send + 'static>(channel: &Channel<T>, event: T) -> usize {
    let mut event = Some(event);
    let accepted = channel.append(Origin::Here, Label::event(1, None), |_| {
        event.take().expect("it is made once")
    });
    accepted.reached()
}

pub(super) fn publish(hub: &Hub, user: &str, event: u32) -> usize {
    hub.with_or_keep(user, |channel| append(channel, event))
        .unwrap_or(0)
}

/// Sends an ephemeral event on this channel; each stream queues two at most.
#[cfg(not(shuttle))]
pub(super) fn pass_on<T: Clone + Send + 'static>(channel: &Channel<T>, event: T) -> Accepted {
    let passed = channel.roster().pass(2, || Ok::<_, Infallible>(event));
    passed.unwrap_or_else(|never| match never {})
}

#[cfg(not(shuttle))]
pub(super) fn pass(hub: &Hub, event: u32) -> Accepted {
    hub.with("u", |channel| pass_on(channel, event))
        .expect("there is a channel")
}

/// Broadcasts an event to all users, and says how many streams it has reached.
pub(super) fn publish_all(hub: &Hub, event: u32) -> usize {
    let mut reached = 0;
    for shard in 0..SHARDS {
        hub.users
            .for_each_of_shard(shard, |channel| reached += append(channel, event));
    }
    reached
}

pub(super) fn count(hub: &Hub, user: &str) -> usize {
    hub.with(user, |channel| channel.roster().len())
        .unwrap_or(0)
}

/// What a stream has to say without waiting.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Read {
    pub(super) events: Vec<u32>,
    pub(super) missed: u64,
    pub(super) gaps: Vec<Gap>,
    pub(super) ended: bool,
}

pub(super) fn read(subscription: &mut Subscription<u32>) -> Read {
    let (items, ended) = poll_all(subscription);
    let mut read = Read {
        ended,
        ..Read::default()
    };
    for item in items {
        match item {
            Ok(event) => read.events.push(event),
            Err(gap) => {
                read.missed += gap.missed.unwrap_or(0);
                read.gaps.push(gap);
            }
        }
    }
    read
}

/// The same as it comes, and whether the stream has ended.
pub(super) fn poll_all<T: Clone + Send + 'static>(
    subscription: &mut Subscription<T>,
) -> (Vec<Result<T, Gap>>, bool) {
    let mut items = Vec::new();
    loop {
        match poll_once(subscription) {
            Poll::Ready(Some(item)) => items.push(item),
            Poll::Ready(None) => return (items, true),
            Poll::Pending => return (items, false),
        }
    }
}

pub(super) fn poll_once<T: Clone + Send + 'static>(
    subscription: &mut Subscription<T>,
) -> Poll<Option<Result<T, Gap>>> {
    poll(subscription, &mut Context::from_waker(Waker::noop()))
}

#[cfg(not(shuttle))]
/// Waits for the next item as a task would.
pub(super) fn wait<T: Clone + Send + 'static>(
    subscription: &mut Subscription<T>,
) -> Option<Result<T, Gap>> {
    loom::future::block_on(std::future::poll_fn(|cx| poll(subscription, cx)))
}

pub(super) fn poll<T: Clone + Send + 'static>(
    subscription: &mut Subscription<T>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<T, Gap>>> {
    std::pin::Pin::new(subscription).poll_next(cx)
}

/// Nobody is connected: nothing may be left behind.
pub(super) fn assert_empty(hub: &Hub) {
    assert_eq!(hub.users.len(), 0, "no user is left in the map");
    assert_eq!(hub.total(), 0, "no place is left taken");
}

/// Later than any linger.
#[cfg(not(shuttle))]
pub(super) fn sweep(hub: &Hub) {
    hub.sweep(Instant::now() + Duration::from_secs(60));
}

/// Nobody is connected and nobody is remembered: nothing may be left behind.
#[cfg(not(shuttle))]
pub(super) fn assert_forgotten(hub: &Hub) {
    sweep(hub);
    assert_empty(hub);
    let retention = hub.retention();
    assert_eq!((retention.away(), retention.kept_for_away()), (0, 0));
}
