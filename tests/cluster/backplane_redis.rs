//! The backplane over Redis, with a server of its own for each test.
//!
//! The seeds of random faults are fixed, and few. `TIDINGS_SEEDS=0..200 cargo test --test cluster backplane_redis` runs others.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tidings::UserId;
use tidings::backplane::{Backplane, Cause, Event, Level, Message, Position, Published};
use tidings_redis::{ConnectError, Log, Redis, Settings};
use tidings_testkit::backplane;
use tokio::time::{sleep, timeout};

use crate::support::cluster::Plan;
use crate::support::networked::{KEPT, Networked};
use crate::support::redis::{ALWAYS, Server, url};
use crate::support::seeds::{Totals, run_each, seeds, two_threads};

mod databases;
mod dropped;
mod older;

/// Nothing that has to happen takes so long.
const BOUND: Duration = Duration::from_secs(30);

fn once() -> Settings {
    Settings::new("test")
}

fn kept() -> Settings {
    once().replayable(Log::new().max_per_user(KEPT))
}

/// Of a server with [`ALWAYS`].
fn kept_in_files() -> Settings {
    once().replayable(Log::new().max_per_user(KEPT).durable())
}

fn nodes(settings: Settings, options: &'static [&'static str]) -> Networked<Settings> {
    Networked::new(Server::start(options), settings)
}

/// The conformance suite.
macro_rules! conforms {
    ($name:ident, $settings:expr, $options:expr) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn does_what_every_backplane_does() {
                backplane::every_level(&nodes($settings, $options)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn reports_failures() {
                backplane::failures(&nodes($settings, $options)).await;
            }
        }
    };
}

conforms!(once_only, once(), &[]);
conforms!(in_files, kept_in_files(), ALWAYS);
conforms!(in_memory, kept(), &[]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_a_log() {
    backplane::replayable(&nodes(kept(), &[])).await;
}

type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

async fn node(server: &Server, settings: Settings) -> (Redis, Events) {
    let node = Redis::connect(url(server.address()), settings).await;
    let node = node.expect("it connects");
    let events = node.events();
    (node, events)
}

async fn until(events: &mut Events, awaited: &str, is_it: impl Fn(&Event) -> bool) -> Event {
    let found = async {
        loop {
            let event = events.next().await.expect("the events go on");
            if is_it(&event) {
                return event;
            }
        }
    };
    let found = timeout(BOUND, found).await;
    found.unwrap_or_else(|_| panic!("{awaited}: not within {BOUND:?}"))
}

fn message(number: u128) -> Message {
    Message {
        user: UserId::from("ann"),
        id: number,
        body: Bytes::from(number.to_string()),
    }
}

async fn publish(node: &Redis, number: u128) -> Published {
    let published = node.publish(&[message(number)]).await;
    published.expect("there is a connection").remove(0)
}

fn is_reset(event: &Event) -> bool {
    matches!(event, Event::Reset(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_flushed_is_another_one() {
    let server = Server::start(&[]);
    let (one, mut events) = node(&server, kept()).await;
    assert!(matches!(publish(&one, 1).await, Published::Accepted(_)));
    let before = one.horizon().unwrap();
    server.command(&["FLUSHALL"]).await;
    let reset = until(&mut events, "it is told", is_reset).await;
    let now = one.horizon().unwrap();
    assert_eq!(reset, Event::Reset(now));
    assert_ne!(now.epoch, before.epoch);
    assert_eq!(now.offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_that_lagged_has_another_log() {
    for grows in [0, 10] {
        let primary = Server::start(&[]);
        let (one, mut events) = node(&primary, kept()).await;
        assert!(matches!(publish(&one, 1).await, Published::Accepted(_)));
        let before = one.horizon().unwrap();
        // A copy as it is now, which is then cut off and made the primary, at an address that nodes follow.
        let replica = primary.replica().await;
        replica.command(&["REPLICAOF", "NO", "ONE"]).await;
        for number in 2..5 {
            assert!(matches!(
                publish(&one, number).await,
                Published::Accepted(_)
            ));
        }
        // A node that knew less lets the copy grow past what the other one knows.
        let (other, _) = node(&replica, kept()).await;
        for number in 100..100 + grows {
            assert!(matches!(
                publish(&other, number).await,
                Published::Accepted(_)
            ));
        }
        let port = primary.address().port().to_string();
        drop(primary);
        // It listens where the old one did.
        replica.command(&["CONFIG", "SET", "port", &port]).await;
        until(&mut events, "it is told", is_reset).await;
        assert_ne!(
            one.horizon().unwrap().epoch,
            before.epoch,
            "grown by {grows}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_for_a_while() {
    let server = Server::start(&[]);
    let (one, _events) = node(&server, kept()).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = publish(&one, 1).await;
    assert!(
        matches!(
            refused,
            Published::Refused {
                permanent: false,
                ..
            }
        ),
        "{refused:?}"
    );
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let accepted = publish(&one, 1).await;
    assert!(
        matches!(accepted, Published::Accepted(Some(_))),
        "{accepted:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_whose_output_buffer_is_full_is_told_and_connects_again() {
    for settings in [once(), kept()] {
        let server = Server::start(&[]);
        let (one, _ones) = node(&server, settings.clone()).await;
        let (other, mut events) = node(&server, settings).await;
        let ann = UserId::from("ann");
        let interest = other.set_interest(std::slice::from_ref(&ann), &[]);
        interest.await.unwrap();
        until(&mut events, "ann is ready", |event| {
            *event == Event::Ready(vec![ann.clone()])
        })
        .await;
        let limit = async |limit| {
            let words = ["CONFIG", "SET", "client-output-buffer-limit", limit];
            server.command(&words).await;
        };
        limit("pubsub 1024 0 0").await;
        let long = Message {
            body: Bytes::from(vec![b'x'; 100_000]),
            ..message(1)
        };
        let published = one.publish(std::slice::from_ref(&long)).await.unwrap();
        assert!(matches!(published[0], Published::Accepted(_)));
        let is_interrupted = |event: &Event| *event == Event::Interrupted;
        until(&mut events, "it is disconnected", is_interrupted).await;
        limit("pubsub 32mb 8mb 60").await;
        let may_lack = |event: &Event| *event == Event::Restored { maybe_lost: true };
        until(&mut events, "it is told", may_lack).await;
        assert!(matches!(publish(&one, 2).await, Published::Accepted(_)));
        until(
            &mut events,
            "the next one",
            |event| matches!(event, Event::Message(received) if received.body == "2"),
        )
        .await;
        if let Some(end) = other.horizon() {
            let start = Position { offset: 0, ..end };
            let fetched = other.fetch(&ann, start, 100).await.unwrap();
            let bodies: Vec<_> = fetched.messages.iter().map(|(_, body)| body).collect();
            assert_eq!(bodies, [&long.body, &Bytes::from("2")], "nothing is lost");
        }
    }
}

/// So that a gap stands before what comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_once_nothing_arrives_between_an_interruption_and_its_end() {
    let server = Server::start(&[]);
    let (one, _ones) = node(&server, once()).await;
    let (other, mut events) = node(&server, once()).await;
    // It takes a while to subscribe to all of them again.
    let mut users: Vec<UserId> = (0..5_000).map(|n| format!("user{n}").into()).collect();
    users[0] = UserId::from("ann");
    other.set_interest(&users, &[]).await.unwrap();
    let mut left = users.len();
    while left > 0 {
        let ready = |event: &Event| matches!(event, Event::Ready(_));
        let Event::Ready(ready) = until(&mut events, "all are ready", ready).await else {
            unreachable!()
        };
        left -= ready.len();
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    let publishing = tokio::spawn(async move {
        let mut number = 0;
        while !ends.load(Ordering::Relaxed) {
            number += 1;
            let some = users.iter().step_by(25).cloned();
            let to = |user| Message {
                user,
                ..message(number)
            };
            let messages: Vec<Message> = some.map(to).collect();
            let _ = one.publish(&messages).await;
            sleep(Duration::from_millis(1)).await;
        }
    });
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let is_interrupted = |event: &Event| *event == Event::Interrupted;
    until(&mut events, "it is interrupted", is_interrupted).await;
    // On a busy machine it may take more than one attempt.
    let is_other = |event: &Event| *event != Event::Interrupted;
    let next = until(&mut events, "the next event", is_other).await;
    assert_eq!(next, Event::Restored { maybe_lost: true });
    let is_message = |event: &Event| matches!(event, Event::Message(_));
    until(&mut events, "messages arrive again", is_message).await;
    is_over.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drops_keys_gets_no_log() {
    let server = Server::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let refused = Redis::connect(url(server.address()), kept()).await;
    assert!(matches!(refused, Err(ConnectError::Evicts(policy)) if policy == "allkeys-lru"));
    Redis::connect(url(server.address()), once())
        .await
        .expect("there is nothing to drop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_becomes_a_replica_is_left_until_it_leads_again() {
    for settings in [once(), kept()] {
        let server = Server::start(&[]);
        let (one, mut events) = node(&server, settings.clone()).await;
        // Of nobody: it keeps what it has.
        server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
        until(&mut events, "it is left", |event| {
            *event == Event::Interrupted
        })
        .await;
        assert!(one.publish(&[message(1)]).await.is_err());
        let refused = Redis::connect(url(server.address()), settings).await;
        assert!(matches!(refused, Err(ConnectError::Replica)));
        server.command(&["REPLICAOF", "NO", "ONE"]).await;
        let is_restored = |event: &Event| matches!(event, Event::Restored { .. });
        until(&mut events, "it is used again", is_restored).await;
        assert!(matches!(publish(&one, 1).await, Published::Accepted(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_primary_publishes_after_its_demotion_is_not_accepted() {
    let server = Server::start(&[]);
    let (one, _events) = node(&server, once()).await;
    // Nodes that have left it already do not hear this.
    server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let published = one.publish(&[message(1)]).await;
    let is_accepted = matches!(published.as_deref(), Ok([Published::Accepted(_)]));
    assert!(!is_accepted, "{published:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_of_one_call_keep_their_order() {
    let server = Server::start(&[]);
    let settings = once().max_body(3);
    let (one, _ones) = node(&server, settings.clone()).await;
    let (other, mut events) = node(&server, settings).await;
    let ann = UserId::from("ann");
    let interest = other.set_interest(std::slice::from_ref(&ann), &[]);
    interest.await.unwrap();
    until(&mut events, "ann is ready", |event| {
        *event == Event::Ready(vec![ann.clone()])
    })
    .await;
    // Tasks on two threads have to meet in a bad moment for messages to overtake each other.
    for _ in 0..30 {
        // The first one is too long, and each has an answer of its own.
        let numbers = std::iter::once(1_000).chain(1..=300);
        let messages: Vec<Message> = numbers.map(message).collect();
        let published = one.publish(&messages).await.expect("it is connected");
        assert_eq!(published.len(), messages.len());
        let is_accepted = |published: &Published| matches!(published, Published::Accepted(None));
        assert!(!is_accepted(&published[0]) && published[1..].iter().all(is_accepted));
        let mut heard = Vec::new();
        while heard.len() < 300 {
            let event = until(&mut events, "the next one", |event| {
                matches!(event, Event::Message(_))
            });
            let Event::Message(received) = event.await else {
                unreachable!()
            };
            heard.push(received.body);
        }
        assert!(messages[1..].iter().map(|message| &message.body).eq(&heard));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_reported() {
    for settings in [once(), kept()] {
        let server = Server::start(&[]);
        // To Bob only, and to the node's own channel.
        let rules = [
            "ACL",
            "SETUSER",
            "default",
            "resetchannels",
            "&{test}:u:bob",
            "&{test}:n:*",
        ];
        server.command(&rules).await;
        let (one, mut events) = node(&server, settings).await;
        let (ann, bob) = (UserId::from("ann"), UserId::from("bob"));
        one.set_interest(&[ann.clone(), bob.clone()], &[])
            .await
            .unwrap();
        until(&mut events, "bob is ready", |event| {
            *event == Event::Ready(vec![bob.clone()])
        })
        .await;
        let unheard = until(&mut events, "ann is not", |event| {
            matches!(event, Event::Unheard { .. })
        });
        let Event::Unheard { users, cause, .. } = unheard.await else {
            unreachable!()
        };
        assert_eq!((users, cause), (vec![ann.clone()], Cause::Denied));
        let refused = publish(&one, 1).await;
        assert!(
            matches!(
                refused,
                Published::Refused {
                    permanent: true,
                    ..
                }
            ),
            "{refused:?}"
        );
        server
            .command(&["ACL", "SETUSER", "default", "allchannels"])
            .await;
        until(&mut events, "ann is ready", |event| {
            *event == Event::Ready(vec![ann.clone()])
        })
        .await;
        assert!(matches!(publish(&one, 2).await, Published::Accepted(_)));
    }
}

fn run(level: Level, options: &'static [&'static str], plan: impl Fn(u64) -> Plan) -> Totals {
    let settings = || Settings::new("faults").timeout(Duration::from_secs(1));
    let log = || Log::new().max_per_user(1_000_000);
    let settings = || match level {
        Level::Replayable if options == ALWAYS => settings().replayable(log().durable()),
        Level::Replayable => settings().replayable(log()),
        _ => settings(),
    };
    let engine = |_| nodes(settings(), options);
    run_each(seeds().unwrap_or(0..2), two_threads, engine, plan)
}

#[test]
fn replayable_delivers_everything_once() {
    let seen = run(Level::Replayable, ALWAYS, Plan::over_sockets);
    seen.assert_busy(1.0);
}

#[test]
fn a_log_in_memory_reports_missing_events() {
    let seen = run(Level::Replayable, &[], |seed| Plan {
        replaces: true,
        promotes: true,
        ..Plan::over_sockets(seed)
    });
    // Each restart ends the log. Whatever clients had not read of it is a gap.
    seen.assert_busy(0.25);
}

#[test]
fn at_most_once_reports_missing_events() {
    let seen = run(Level::AtMostOnce, &[], |seed| Plan {
        history: 5_000,
        promotes: true,
        ..Plan::over_sockets(seed)
    });
    seen.assert_busy(1.0);
}
