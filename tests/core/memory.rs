//! What `docs/capacity.md` says of memory, counted at the allocator.

use futures_util::{FutureExt, StreamExt};
use tidings::{GenericBroadcaster, History, LagPolicy, Subscription, Text};

/// Enough that the map's own nodes are shared by many.
const USERS: usize = 5000;

type Hub = GenericBroadcaster<Text>;

fn user(n: usize) -> String {
    format!("user-{n:07}")
}

/// The heap of each, while all are kept.
fn heap_of_each<T>(kept: &mut Vec<T>, make: impl Fn(usize) -> T) -> usize {
    kept.reserve_exact(USERS);
    let made = allocation_counter::measure(|| kept.extend((0..USERS).map(make)));
    usize::try_from(made.bytes_current).expect("nothing was given back") / USERS
}

#[track_caller]
fn assert_about(found: usize, said: usize) {
    assert!(
        found.abs_diff(said) * 10 < said,
        "{found} bytes, not {said}"
    );
}

#[test]
fn a_user_costs_the_ring_and_each_further_connection_the_same() {
    for capacity in [1, 16, 60, 64, 256, 1024] {
        let hub: Hub = GenericBroadcaster::builder()
            .ring_capacity(capacity)
            .build()
            .expect("valid settings");
        let mut streams: Vec<Subscription> = Vec::new();
        let register = |n| {
            let mut stream = hub.register(user(n)).expect("no cap is reached");
            // It waits for an event, as streams do.
            assert!(stream.next().now_or_never().is_none());
            stream
        };
        let first = heap_of_each(&mut streams, register);
        assert_about(first, 1260 + 48 * capacity.next_power_of_two());
        let second = heap_of_each(&mut streams, register);
        assert_about(second, 450);
    }
}

#[test]
fn a_history_costs_no_more_than_its_events_and_no_more_than_its_bytes() {
    for (size, events, bytes) in [(200, 100, 1 << 20), (1000, 100, 20_000)] {
        let kept = History::new(events).bytes(bytes);
        let hub: Hub = GenericBroadcaster::builder()
            .ring_capacity(16)
            .history(kept)
            .build()
            .expect("valid settings");
        let _stream = hub.register("ann").expect("no cap is reached");
        let text = Text::new("x".repeat(size));
        let broadcast = || hub.broadcast("ann", &text).expect("text");
        // What the fields around the data take, ids included, is part of an event.
        let of_event = size + 40 + 192;
        let said = bytes.min(events * of_event);
        let made = allocation_counter::measure(|| {
            for _ in 0..3 * events {
                broadcast();
            }
        });
        let found = usize::try_from(made.bytes_current).expect("more than before");
        // The ring may keep what the history has let go.
        let of_ring = 16 * of_event;
        assert!(found <= said + of_ring, "{found} bytes, more than {said}");
        assert!(found > said / 2, "{found} bytes, far less than {said}");
    }
}

/// Of each key the newest event stays, as long as there is room for it beside what is newer.
#[test]
fn what_is_kept_under_keys_costs_no_more_than_the_bytes_of_the_history() {
    const LIMIT: usize = 1 << 20;
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(16)
        .lag_policy(LagPolicy::Coalesce)
        .coalesce_keys(100_000)
        .history(History::new(100).bytes(LIMIT))
        .build()
        .expect("valid settings");
    for (keys, size) in [(1_000, 20_000), (20_000, 10)] {
        let _stream = hub.register("ann").expect("no cap is reached");
        let made = allocation_counter::measure(|| {
            for number in 0..keys {
                let event = Text::new("x".repeat(size)).key(format!("key {number}"));
                hub.broadcast("ann", &event).expect("text");
            }
        });
        let found = usize::try_from(made.bytes_current).expect("more than before");
        // The ring may keep what the history has let go.
        let of_ring = 16 * (size + 300);
        assert!(found <= LIMIT + of_ring, "{found} bytes of heap");
        assert!(found > LIMIT / 2, "{found} bytes of heap, far less");
        let kept = hub.stats().history_bytes;
        assert!((LIMIT / 2..=LIMIT).contains(&kept), "{kept} bytes kept");
        hub.forget("ann");
    }
}

/// Users who are away cost no more than the room for them, under whatever keys their events are kept.
#[test]
fn events_kept_under_keys_of_away_users_cost_no_more_than_their_room() {
    const LIMIT: usize = 1 << 20;
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(1)
        .lag_policy(LagPolicy::Coalesce)
        .coalesce_keys(10_000)
        .history(History::new(1).away_bytes(LIMIT))
        .build()
        .expect("valid settings");
    let broadcast = |user: &str, number: usize| {
        let event = Text::new("x".repeat(1000)).key(format!("key {number}"));
        hub.broadcast(user, &event).expect("text");
    };
    let made = allocation_counter::measure(|| {
        for n in 0..5 {
            let user = user(n);
            let stream = hub.register(user.clone()).expect("no cap is reached");
            (0..500).for_each(|number| broadcast(&user, number));
            drop(stream);
            (500..1000).for_each(|number| broadcast(&user, number));
            assert!(hub.stats().away_bytes <= LIMIT);
        }
    });
    let found = usize::try_from(made.bytes_current).expect("more than before");
    assert!(found <= LIMIT + 5 * 4000, "{found} bytes of heap");
    let stats = hub.stats();
    assert_eq!(stats.away_bytes, stats.history_bytes);
    assert!(stats.away_bytes > LIMIT / 2);
    for n in 0..5 {
        hub.forget(&user(n));
    }
    assert_eq!((hub.stats().away_bytes, hub.stats().history_bytes), (0, 0));
}
