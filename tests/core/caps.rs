//! A cap is never exceeded; it refuses the newcomer and does nothing to those inside.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use futures_util::{FutureExt, StreamExt};
use tidings::{
    Builder, ConfigError, ConnectionId, GenericBroadcaster, RefusalForm, RegisterError,
    Subscription, Text,
};

type Hub = GenericBroadcaster<Text>;

fn user_full(cap: usize) -> RegisterError {
    let form = RefusalForm::Status;
    RegisterError::UserFull { cap, form }
}

fn total_full(cap: usize) -> RegisterError {
    let form = RefusalForm::Status;
    RegisterError::TotalFull { cap, form }
}

const THREADS: usize = 64;
const ROUNDS: usize = 60;

/// Lets 64 threads call `register` at one moment, and keeps what each was told.
fn at_once(
    register: impl Fn(usize) -> Result<Subscription, RegisterError> + Sync,
) -> Vec<Result<Subscription, RegisterError>> {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (start, register) = (&start, &register);
                scope.spawn(move || {
                    start.wait();
                    register(number)
                })
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect()
    })
}

fn sort(told: Vec<Result<Subscription, RegisterError>>) -> (Vec<Subscription>, Vec<RegisterError>) {
    let (mut inside, mut refused) = (Vec::new(), Vec::new());
    for told in told {
        match told {
            Ok(stream) => inside.push(stream),
            Err(error) => refused.push(error),
        }
    }
    (inside, refused)
}

/// Each stream is still in, gets one event, and only that.
fn assert_undisturbed(streams: &mut [Subscription], hub: &Hub, user: &str) {
    let reached = hub.broadcast(user, &Text::new("still here?"));
    assert_eq!(reached.expect("text can be encoded"), streams.len());
    for stream in streams {
        let item = stream.next().now_or_never().expect("the event is there");
        let frame = item.expect("the stream has not ended").expect("no lag");
        assert_eq!(frame.data(), "still here?");
        assert!(
            stream.next().now_or_never().is_none(),
            "another event, or the end"
        );
    }
}

#[test]
fn a_full_user_admits_exactly_the_cap() {
    let hub = Hub::new();
    for round in 1..=ROUNDS {
        let (mut inside, refused) = sort(at_once(|_| hub.register("ann")));
        assert_eq!(inside.len(), 10);
        assert_eq!(refused, vec![user_full(10); THREADS - 10]);
        assert_eq!(hub.connection_count("ann"), 10);
        assert_eq!(hub.total_connections(), 10);
        assert_eq!(hub.connection_info().len(), 10);
        assert_undisturbed(&mut inside, &hub, "ann");

        // After one leaves, one more gets in, whoever it is.
        drop(inside.pop());
        let (mut next, refused) = sort(at_once(|_| hub.register("ann")));
        assert_eq!((next.len(), refused.len()), (1, THREADS - 1));
        inside.append(&mut next);
        assert_undisturbed(&mut inside, &hub, "ann");

        drop(inside);
        assert_eq!(hub.total_connections(), 0);
        let stats = hub.stats();
        assert_eq!((stats.users, stats.connections), (0, 0));
        assert_eq!(stats.registered, 11 * round as u64);
        assert_eq!(stats.refused, (2 * THREADS as u64 - 11) * round as u64);
    }
}

#[test]
fn a_full_service_admits_exactly_the_cap() {
    let hub: Hub = GenericBroadcaster::builder()
        .total_connections(10)
        .build()
        .expect("valid settings");
    for round in 1..=ROUNDS {
        // One user each, so that they meet nowhere but at the cap.
        let (inside, refused) = sort(at_once(|number| hub.register(number.to_string())));
        assert_eq!(inside.len(), 10);
        assert_eq!(refused, vec![total_full(10); THREADS - 10]);
        assert_eq!(hub.total_connections(), 10);
        assert_eq!(hub.connected_users().len(), 10, "a refused user was left");
        let mut late = Vec::new();
        for mut stream in inside {
            let user = stream.guard().user().clone();
            assert_undisturbed(std::slice::from_mut(&mut stream), &hub, &user);
            drop(stream);
            let (mut next, refused) = sort(vec![hub.register("late"), hub.register("later")]);
            assert_eq!((next.len(), refused.len()), (1, 1));
            late.append(&mut next);
        }
        drop(late);
        let stats = hub.stats();
        assert_eq!((stats.users, stats.connections), (0, 0));
        assert_eq!(stats.registered, 20 * round as u64);
    }
}

#[test]
fn a_service_that_is_full_of_one_user_is_full_for_others() {
    let hub: Hub = GenericBroadcaster::builder()
        .total_connections(2)
        .connections_per_user(None)
        .build()
        .expect("valid settings");
    let _a = hub.register("ann").expect("the first");
    let b = hub.register("ann").expect("the second");
    let refused = hub.register("bob").expect_err("both places are taken");
    assert_eq!(refused, total_full(2));
    drop(b);
    assert!(hub.register("bob").is_ok());
}

#[test]
fn a_cap_holds_while_connections_come_and_go() {
    const USER_CAP: usize = 3;
    const TOTAL_CAP: usize = 5;
    let hub: Hub = GenericBroadcaster::builder()
        .connections_per_user(USER_CAP)
        .total_connections(TOTAL_CAP)
        .build()
        .expect("valid settings");
    let admitted = AtomicUsize::new(0);
    let inside = [const { AtomicUsize::new(0) }; 2];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|number| {
                let (hub, admitted, inside) = (&hub, &admitted, &inside);
                scope.spawn(move || {
                    let user = number % 2;
                    for _ in 0..3_000 {
                        if let Ok(stream) = hub.register(["ann", "bob"][user]) {
                            // Counted after it was let in and until before it leaves: never more than are inside.
                            let now = inside[user].fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= USER_CAP, "{now} connections of one user");
                            admitted.fetch_add(1, Ordering::Relaxed);
                            inside[user].fetch_sub(1, Ordering::SeqCst);
                            drop(stream);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(hub.connection_count("ann") <= USER_CAP);
                assert!(hub.total_connections() <= TOTAL_CAP);
            }
        });
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "a worker panicked");
    });
    let stats = hub.stats();
    assert_eq!((stats.users, stats.connections), (0, 0));
    let admitted = admitted.load(Ordering::Relaxed) as u64;
    assert!(admitted > 0);
    assert_eq!(stats.registered, admitted);
    assert_eq!(stats.registered + stats.refused, 8 * 3_000);
}

#[test]
fn no_cap_is_no_cap() {
    let hub: Hub = GenericBroadcaster::builder()
        .connections_per_user(None)
        .total_connections(None)
        .build()
        .expect("valid settings");
    let streams: Vec<_> = (0..500).map(|_| hub.register("ann")).collect();
    assert!(streams.iter().all(Result::is_ok));
    assert_eq!(hub.connection_count("ann"), 500);
}

#[test]
fn a_cap_of_one_lets_one_in() {
    let hub: Hub = GenericBroadcaster::builder()
        .connections_per_user(1)
        .build()
        .expect("valid settings");
    let only = hub.register("ann").expect("the first");
    let refused = hub.register("ann").expect_err("one is in");
    assert_eq!(refused, user_full(1));
    assert!(hub.register("bob").is_ok(), "another user is not concerned");
    drop(only);
    assert!(hub.register("ann").is_ok());
}

#[test]
fn an_id_in_use_refuses_its_namesake_only() {
    let hub = Hub::new();
    let mut first = hub.register_as("ann", "tab").expect("the id is new");
    let refused = hub.register_as("ann", "tab").expect_err("the id is in use");
    assert_eq!(refused, RegisterError::ConnectionIdInUse);
    assert_eq!(hub.connection_count("ann"), 1);
    assert_eq!(hub.total_connections(), 1);
    assert_undisturbed(std::slice::from_mut(&mut first), &hub, "ann");

    let other = hub
        .register_as("bob", "tab")
        .expect("an id is a user's own");
    assert!(hub.unregister("bob", &ConnectionId::from("tab")));
    drop(other);
    assert_undisturbed(std::slice::from_mut(&mut first), &hub, "ann");

    // The id is free as soon as its connection has left, in whichever way.
    drop(first);
    let second = hub.register_as("ann", "tab").expect("the first has left");
    assert!(hub.unregister("ann", &ConnectionId::from("tab")));
    let mut third = hub.register_as("ann", "tab").expect("the second was ended");
    drop(second);
    assert_eq!(
        hub.connection_count("ann"),
        1,
        "the second took the third along"
    );
    assert_undisturbed(std::slice::from_mut(&mut third), &hub, "ann");
    assert_eq!(hub.stats().refused, 1);
}

#[test]
fn of_many_registrations_of_one_id_one_succeeds() {
    let hub = Hub::new();
    for _ in 0..ROUNDS {
        let (inside, refused) = sort(at_once(|_| hub.register_as("ann", "tab")));
        assert_eq!(inside.len(), 1);
        assert_eq!(refused, vec![RegisterError::ConnectionIdInUse; THREADS - 1]);
        assert_eq!(hub.total_connections(), 1);
    }
    assert_eq!(hub.total_connections(), 0);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let build = |change: fn(Builder<Text>) -> Builder<Text>| change(Hub::builder()).build().err();
    let max = Builder::<Text>::MAX_RING_CAPACITY;
    assert_eq!(
        build(|b| b.ring_capacity(0)),
        Some(ConfigError::RingCapacity { capacity: 0, max })
    );
    assert_eq!(
        build(|b| b.ring_capacity(Builder::<Text>::MAX_RING_CAPACITY + 1)),
        Some(ConfigError::RingCapacity {
            capacity: max + 1,
            max
        })
    );
    assert!(build(|b| b.ring_capacity(usize::MAX)).is_some());
    assert_eq!(
        build(|b| b.connections_per_user(0)),
        Some(ConfigError::ZeroCap)
    );
    assert_eq!(
        build(|b| b.total_connections(0)),
        Some(ConfigError::ZeroCap)
    );
    assert_eq!(
        build(|b| b
            .ring_capacity(1)
            .connections_per_user(1)
            .total_connections(1)),
        None
    );
    assert_eq!(
        build(|b| b.ring_capacity(Builder::<Text>::MAX_RING_CAPACITY)),
        None
    );
}
