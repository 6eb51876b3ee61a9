//! What `docs/capacity.md` says of memory, counted at the allocator.

use tidings::{GenericBroadcaster, History, Subscription, Text};

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
    for capacity in [16, 60, 64, 256, 1024] {
        let hub: Hub = GenericBroadcaster::builder()
            .capacity(capacity)
            .build()
            .expect("valid settings");
        let mut streams: Vec<Subscription> = Vec::new();
        let register = |n| hub.register(user(n)).expect("no cap is reached");
        let first = heap_of_each(&mut streams, register);
        assert_about(first, 800 + 32 * capacity.next_power_of_two());
        let second = heap_of_each(&mut streams, register);
        assert_about(second, 300);
    }
}

#[test]
fn a_history_costs_no_more_than_its_events_and_no_more_than_its_bytes() {
    for (size, events, bytes) in [(200, 100, 1 << 20), (1000, 100, 20_000)] {
        let kept = History::new(events).bytes(bytes);
        let hub: Hub = GenericBroadcaster::builder()
            .capacity(16)
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
