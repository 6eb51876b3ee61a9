//! Presence says who comes and who leaves: a reload is no departure, and what is said last is true.

use std::pin::pin;
use std::thread;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tidings::{
    GenericBroadcaster, History, LastEventId, Presence, PresenceStream, RegisterError, Text,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, advance, sleep, timeout};

type Hub = GenericBroadcaster<Text>;

const GRACE: Duration = Duration::from_secs(5);

fn came(user: &str) -> Presence {
    Presence::Came(user.into())
}

fn left(user: &str) -> Presence {
    Presence::Left(user.into())
}

/// All that the stream has to say at this moment.
#[track_caller]
fn now(presence: &mut PresenceStream) -> Vec<Presence> {
    let mut said = Vec::new();
    while let Some(item) = presence.next().now_or_never() {
        said.push(item.expect("it has not ended"));
    }
    said
}

/// All that it says until it ends.
async fn rest(presence: PresenceStream) -> Vec<Presence> {
    timeout(Duration::from_secs(60), presence.collect())
        .await
        .expect("it ends")
}

#[tokio::test(start_paused = true)]
async fn a_user_comes_with_the_first_connection_and_leaves_with_the_last() {
    let hub = Hub::new();
    let mut presence = hub.presence(GRACE);
    let one = hub.register("ann").unwrap();
    assert_eq!(now(&mut presence), [came("ann")]);
    let two = hub.register("ann").unwrap();
    drop(one);
    advance(GRACE * 2).await;
    assert_eq!(now(&mut presence), []);
    drop(two);
    let begin = Instant::now();
    assert_eq!(presence.next().await, Some(left("ann")));
    // A timer is exact to the millisecond.
    let took = begin.elapsed();
    assert!(
        took >= GRACE && took <= GRACE + Duration::from_millis(1),
        "{took:?}"
    );
    sleep(GRACE * 2).await;
    assert_eq!(now(&mut presence), [], "once");
}

#[tokio::test(start_paused = true)]
async fn a_reader_slower_than_arriving_users_learns_who_left() {
    let hub = Hub::new();
    let mut presence = hub.presence(GRACE);
    let ann = hub.register("ann").unwrap();
    assert_eq!(now(&mut presence), [came("ann")]);
    drop(ann);
    assert_eq!(now(&mut presence), []);
    advance(GRACE * 2).await;
    let mut here = Vec::new();
    let mut said = Vec::new();
    for n in 0..20 {
        for part in ["a", "b"] {
            here.push(hub.register(format!("{part}-{n}")).unwrap());
        }
        said.extend(presence.next().now_or_never().flatten());
    }
    assert!(said.contains(&left("ann")), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_within_the_grace_time_is_not_reported() {
    let hub = Hub::new();
    let mut presence = hub.presence(GRACE);
    let mut page = hub.register("ann").unwrap();
    assert_eq!(now(&mut presence), [came("ann")]);
    for _ in 0..10 {
        drop(page);
        assert_eq!(now(&mut presence), []);
        advance(GRACE - Duration::from_millis(2)).await;
        assert_eq!(now(&mut presence), []);
        page = hub.register("ann").unwrap();
        assert_eq!(now(&mut presence), []);
    }
    // The grace time begins anew with each departure.
    drop(page);
    let begin = Instant::now();
    assert_eq!(presence.next().await, Some(left("ann")));
    assert!(begin.elapsed() >= GRACE);
}

/// The timer may fire before the stream has read the mark of a user who came back.
#[tokio::test(start_paused = true)]
async fn a_user_who_is_back_when_the_grace_time_ends_has_not_left() {
    let hub = Hub::new();
    let mut presence = hub.presence(GRACE);
    let page = hub.register("ann").unwrap();
    assert_eq!(now(&mut presence), [came("ann")]);
    drop(page);
    assert_eq!(now(&mut presence), []);
    let page = hub.register("ann").unwrap();
    advance(GRACE * 2).await;
    assert_eq!(now(&mut presence), []);
    drop(page);
    assert_eq!(presence.next().await, Some(left("ann")));
}

#[tokio::test(start_paused = true)]
async fn the_stream_begins_with_those_who_are_here() {
    let hub: Hub = Hub::builder()
        .history(History::new(8))
        .build()
        .expect("valid settings");
    let pages = ["ann", "bob"].map(|user| hub.register(user).unwrap());
    drop(hub.register("cid").unwrap());
    let held = hub.hold("run:1").unwrap();
    hub.broadcast("dan", &Text::new("kept")).unwrap();
    let mut said = now(&mut hub.presence(GRACE));
    said.sort_by_key(|it| format!("{it:?}"));
    assert_eq!(said, [came("ann"), came("bob")], "no history, no hold");
    drop((pages, held));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_nobody() {
    let hub: Hub = Hub::builder()
        .total_connections(1)
        .connections_per_user(1)
        .build()
        .expect("valid settings");
    let mut presence = hub.presence(GRACE);
    let page = hub.register("ann").unwrap();
    assert_eq!(now(&mut presence), [came("ann")]);
    let total = hub.register("bob").unwrap_err();
    assert!(matches!(total, RegisterError::TotalFull { cap: 1, .. }));
    assert_eq!(now(&mut presence), []);
    drop(page);
    drop(hub.register("bob").unwrap());
    assert_eq!(
        rest_of_grace(&mut presence).await,
        [left("ann")],
        "a short visit"
    );
}

/// What it says until all grace times are over.
async fn rest_of_grace(presence: &mut PresenceStream) -> Vec<Presence> {
    let mut said = now(presence);
    advance(GRACE * 2).await;
    said.extend(now(presence));
    said
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_nobody() {
    let hub = Hub::new();
    let mut presence = hub.presence(GRACE);
    let watched = hub.observe("ann", "operator").unwrap();
    assert_eq!(rest_of_grace(&mut presence).await, []);
    let page = hub.register("ann").unwrap();
    assert_eq!(now(&mut presence), [came("ann")]);
    drop(page);
    assert_eq!(rest_of_grace(&mut presence).await, [left("ann")]);
    assert_eq!(
        hub.connection_count("ann"),
        1,
        "the observer is still there"
    );
    let mut late = hub.presence(GRACE);
    assert_eq!(now(&mut late), []);
    drop(watched);
    assert_eq!(rest_of_grace(&mut presence).await, []);
}

/// Whatever ends a connection, the user has left.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_ended_from_outside_is_a_departure() {
    type End = fn(&Hub);
    let ends: [(&str, End); 4] = [
        ("unregister", |hub| {
            assert!(hub.unregister("ann", &"tab".into()));
        }),
        ("disconnect", |hub| {
            assert_eq!(hub.disconnect_user("ann"), 1)
        }),
        ("drain", |hub| assert_eq!(hub.drain_user("ann"), 1)),
        ("forget", |hub| assert_eq!(hub.forget("ann"), 1)),
    ];
    for (name, end) in ends {
        let hub = Hub::new();
        let mut presence = hub.presence(GRACE);
        let page = hub.register_as("ann", "tab").unwrap();
        assert_eq!(now(&mut presence), [came("ann")]);
        end(&hub);
        // The stream is still there, and has not read its end.
        assert_eq!(rest_of_grace(&mut presence).await, [left("ann")], "{name}");
        let again = hub.take_over("ann", "tab", &LastEventId::none()).unwrap();
        assert_eq!(now(&mut presence), [came("ann")], "{name}");
        drop(page);
        assert_eq!(
            rest_of_grace(&mut presence).await,
            [],
            "{name}: another's end"
        );
        drop(again);
        assert_eq!(rest_of_grace(&mut presence).await, [left("ann")], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_grace_time_a_reload_that_is_seen_is_reported() {
    let hub = Hub::new();
    let mut presence = hub.presence(Duration::ZERO);
    for _ in 0..3 {
        let page = hub.register("ann").unwrap();
        assert_eq!(now(&mut presence), [came("ann")]);
        drop(page);
        assert_eq!(now(&mut presence), [left("ann")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_misses_visits_and_not_the_last_state() {
    let hub = Hub::new();
    let mut presence = hub.presence(GRACE);
    let mut pages = Vec::new();
    for n in 0..1000 {
        pages = ["ann", "bob"]
            .map(|user| hub.register(user).unwrap())
            .into();
        if n % 2 == 0 {
            drop(hub.register("cid").unwrap());
        }
    }
    let bob = pages.pop();
    let mut said = now(&mut presence);
    said.sort_by_key(|it| format!("{it:?}"));
    assert_eq!(said, [came("ann"), came("bob")]);
    drop((pages, bob));
    sleep(GRACE * 10).await;
    let cid = hub.register("cid").unwrap();
    let mut said = vec![presence.next().await.unwrap()];
    said.extend(rest_of_grace(&mut presence).await);
    said.sort_by_key(|it| format!("{it:?}"));
    assert_eq!(said, [came("cid"), left("ann"), left("bob")]);
    drop(cid);
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_everybody_has_left_and_the_stream_ends() {
    let hub = Hub::new();
    let mut presence = hub.presence(GRACE * 100);
    let pages = ["ann", "bob"].map(|user| hub.register(user).unwrap());
    assert_eq!(now(&mut presence).len(), 2);
    let waits = tokio::spawn(rest(presence));
    assert_eq!(
        hub.shutdown(Duration::from_secs(1)).await,
        2,
        "nobody reads"
    );
    let mut said = waits.await.unwrap();
    said.sort_by_key(|it| format!("{it:?}"));
    assert_eq!(said, [left("ann"), left("bob")]);
    assert_eq!(rest(hub.presence(GRACE)).await, [], "nobody comes any more");
    drop(pages);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_broadcaster_and_its_last_connection() {
    let hub = Hub::new();
    let page = hub.register("ann").unwrap();
    let mut presence = hub.presence(GRACE);
    assert_eq!(now(&mut presence), [came("ann")]);
    drop(hub);
    assert_eq!(now(&mut presence), []);
    let waits = tokio::spawn(rest(presence));
    drop(page);
    assert_eq!(waits.await.unwrap(), [left("ann")]);
}

#[tokio::test(start_paused = true)]
async fn each_stream_has_its_own_grace_time_and_its_own_end() {
    let hub = Hub::new();
    let (mut short, mut long) = (hub.presence(GRACE), hub.presence(GRACE * 10));
    let page = hub.register("ann").unwrap();
    drop(hub.presence(GRACE));
    assert_eq!(now(&mut short), [came("ann")]);
    assert_eq!(now(&mut long), [came("ann")]);
    drop(page);
    assert_eq!((now(&mut short), now(&mut long)), (vec![], vec![]));
    advance(GRACE * 2).await;
    assert_eq!(now(&mut short), [left("ann")]);
    drop(short);
    let page = hub.register("ann").unwrap();
    assert_eq!(rest_of_grace(&mut long).await, []);
    drop(page);
    assert_eq!(now(&mut long), []);
    advance(GRACE * 11).await;
    assert_eq!(now(&mut long), [left("ann")]);
}

/// The caps hold while somebody watches: the flag beside the count is no connection.
#[test]
fn the_counts_and_caps_are_the_same_while_somebody_watches() {
    let hub: Hub = Hub::builder()
        .total_connections(2)
        .build()
        .expect("valid settings");
    let presence = hub.presence(GRACE);
    assert_eq!(hub.total_connections(), 0);
    let pages = [(); 2].map(|()| hub.register("ann").unwrap());
    assert_eq!(hub.total_connections(), 2);
    assert!(hub.register("ann").is_err());
    drop(presence);
    assert_eq!(hub.total_connections(), 2);
    assert!(hub.register("ann").is_err());
    drop(pages);
    assert_eq!(hub.total_connections(), 0);
}

#[tokio::test]
async fn the_last_report_is_true_whatever_runs_in_parallel() {
    let hub = Hub::new();
    let mut presence = hub.presence(Duration::ZERO);
    let (stop, stopped) = oneshot::channel::<()>();
    let reader = tokio::spawn(async move {
        let mut said = Vec::new();
        let mut stopped = pin!(stopped);
        loop {
            tokio::select! {
                item = presence.next() => said.push(item.expect("it has not ended")),
                _ = &mut stopped => return (presence, said),
            }
        }
    });
    let users = ["ann", "bob", "cid"];
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let hub = hub.clone();
            thread::spawn(move || {
                let mut kept = Vec::new();
                for turn in 0..300 {
                    let user = users[(turn + n) % users.len()];
                    let page = hub.register(user).unwrap();
                    match turn % 7 {
                        0 => _ = hub.drain_user(user),
                        3 => _ = hub.forget(user),
                        _ => {}
                    }
                    if turn % 5 == 0 {
                        kept = vec![page];
                    }
                }
                drop(kept);
            })
        })
        .collect();
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|it| it.join().unwrap()))
        .await
        .unwrap();
    let page = hub.register("ann").unwrap();
    stop.send(()).expect("the reader waits");
    let (mut presence, mut said) = reader.await.unwrap();
    said.extend(now(&mut presence));
    for user in users {
        let mut of_user = said.iter().filter(|it| match it {
            Presence::Came(who) | Presence::Left(who) => &**who == user,
        });
        for (n, it) in of_user.clone().enumerate() {
            assert_eq!(matches!(it, Presence::Came(_)), n % 2 == 0, "{user}");
        }
        let is_here = matches!(of_user.next_back(), Some(Presence::Came(_)));
        assert_eq!(is_here, user == "ann", "{user}");
    }
    drop(page);
}
