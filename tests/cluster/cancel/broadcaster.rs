//! Broadcasters and publishers: nothing is left half done, and the next call works.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tidings::backplane::Level;
use tidings::{
    Broadcaster, ConnectionId, Data, EncodeError, GenericBroadcaster, LastEventId, RegisterError,
    Subscription, Text, ToSse, UserId,
};
use tidings_console::Console;
use tidings_testkit::SseRequest;
use tidings_testkit::backplane::InProcess;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;

use super::backplane::Slow;
use super::{Cut, at_every_await};

type Hub = GenericBroadcaster<Text>;

fn text(text: &str) -> Text {
    Text::new(text)
}

/// The data of everything that comes, until nothing has come for a minute of paused time or the stream ends.
async fn all(stream: &mut Subscription) -> Vec<String> {
    let mut got = Vec::new();
    while let Ok(Some(item)) = timeout(Duration::from_secs(60), stream.next()).await {
        got.push(item.expect("nothing is lost").data());
    }
    got
}

/// Two nodes, the first with room for one connection and an engine that takes its time.
fn nodes(level: Level) -> (Hub, Hub) {
    let engine = InProcess::new(level);
    let here = Hub::builder()
        .total_connections(1)
        .connections_per_user(1)
        .backplane(Slow(engine.node()))
        .build();
    let there = Hub::builder().backplane(engine.node()).build();
    (
        here.expect("valid settings"),
        there.expect("valid settings"),
    )
}

/// What has come of a registration that may have been given up: nothing is left of it and the place is free, or it is one.
async fn look_after(here: &Hub, there: &Hub, opened: Option<Subscription>) -> bool {
    let is_in = opened.is_some();
    let registered = usize::from(is_in);
    assert_eq!(here.total_connections(), registered);
    assert_eq!(here.connection_count("ann"), registered);
    let stats = here.stats();
    assert_eq!((stats.registered, stats.refused), (registered as u64, 0));
    let mut stream = match opened {
        Some(stream) => stream,
        None => {
            sleep(Duration::from_secs(60)).await;
            let users = here.stats().backplane.expect("there is one").users;
            assert_eq!(users, 0, "nobody is of interest");
            let again = here.register_when_ready("ann").await;
            again.expect("there is room")
        }
    };
    there.broadcast("ann", &text("hello")).expect("sent");
    assert_eq!(all(&mut stream).await, ["hello"]);
    is_in
}

#[tokio::test(start_paused = true)]
async fn a_registration_leaves_nothing() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        at_every_await(2, async |cut| {
            let (here, there) = nodes(level);
            let opened = cut.run(here.register_when_ready("ann")).await;
            look_after(&here, &there, opened.map(|opened| opened.expect("room"))).await
        })
        .await;
        at_every_await(2, async |cut| {
            let (here, there) = nodes(level);
            let none = LastEventId::none();
            let opened = cut.run(here.resume_when_ready("ann", &none)).await;
            look_after(&here, &there, opened.map(|opened| opened.expect("room"))).await
        })
        .await;
        at_every_await(2, async |cut| {
            let (here, there) = nodes(level);
            let (ann, tab) = (UserId::from("ann"), ConnectionId::from("tab"));
            let behind_dyn: &dyn Broadcaster<Event = Text> = &here;
            let opened = cut.run(behind_dyn.register(&ann, tab)).await;
            look_after(&here, &there, opened.map(|opened| opened.expect("room"))).await
        })
        .await;
    }
}

/// They are ready with their first poll: not polled, they have done nothing.
#[tokio::test]
async fn what_does_not_wait_is_done_or_not_begun() {
    for cut in [Cut(0), Cut(1)] {
        let is_done = !cut.is_at_once();
        let hub = Hub::new();
        let behind_dyn: &dyn Broadcaster<Event = Text> = &hub;
        let (ann, tab) = (UserId::from("ann"), ConnectionId::from("tab"));
        let opened = cut.run(behind_dyn.register(&ann, tab.clone())).await;
        assert_eq!(
            (opened.is_some(), hub.total_connections()),
            (is_done, usize::from(is_done))
        );
        drop(opened);
        let mut stream = hub.register_as("ann", tab.clone()).expect("room");
        let hello = text("hello");
        let reached = cut.run(behind_dyn.broadcast(&ann, &hello)).await;
        assert_eq!(
            reached.map(|reached| reached.expect("sent")),
            is_done.then_some(1)
        );
        let users = [ann.clone()];
        let to_many = cut.run(behind_dyn.broadcast_many(&users, &hello)).await;
        let to_all = cut.run(behind_dyn.broadcast_all(&hello)).await;
        for reach in [to_many, to_all] {
            let streams = reach.map(|reach| reach.expect("sent").streams);
            assert_eq!(streams, is_done.then_some(1));
        }
        assert_eq!(hub.stats().broadcasts, if is_done { 3 } else { 0 });
        let one = is_done.then_some(1);
        assert_eq!(cut.run(behind_dyn.connection_count(&ann)).await, one);
        assert_eq!(cut.run(behind_dyn.total_connections()).await, one);
        let ended = cut.run(behind_dyn.unregister(&ann, &tab)).await;
        assert_eq!(
            (ended, hub.total_connections()),
            (is_done.then_some(true), usize::from(!is_done))
        );
        hub.drain_user("ann");
        let got = all(&mut stream).await;
        // An unregistered stream ends at once.
        assert!(got.is_empty(), "{got:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_on_its_way_with_the_first_poll() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        at_every_await(1, async |cut| {
            let (here, there) = nodes(level);
            let mut own = here.register_when_ready("ann").await.expect("room");
            let mut remote = there.register_when_ready("ann").await.expect("room");
            let first = text("first");
            let confirmed = cut.run(here.broadcast_confirmed("ann", &first)).await;
            let next = here.broadcast_confirmed("ann", &text("next")).await;
            assert_eq!(next.expect("it is up"), 1);
            let sent = match cut.is_at_once() {
                true => vec!["next"],
                false => vec!["first", "next"],
            };
            assert_eq!(all(&mut own).await, sent);
            assert_eq!(all(&mut remote).await, sent);
            let stats = here.stats();
            assert_eq!(stats.broadcasts, sent.len() as u64);
            assert_eq!(stats.backplane.expect("there is one").queued, 0);
            confirmed.is_some_and(|reached| reached.expect("it is up") == 1)
        })
        .await;
    }
}

/// Some read, and one does not. Whoever takes a shutdown up again ends all, and publishes what there was.
#[tokio::test(start_paused = true)]
async fn a_shutdown_is_taken_up_again() {
    const OVER: Duration = Duration::from_secs(1);
    at_every_await(20, async |cut| {
        let engine = InProcess::new(Level::Replayable);
        let here = Hub::builder().backplane(Slow(engine.node())).build();
        let there = Hub::builder().backplane(engine.node()).build();
        let (here, there) = (here.expect("valid"), there.expect("valid"));
        let mut remote = there.register_when_ready("ann").await.expect("room");
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let mut stream = here.register("ann").expect("room");
                tokio::spawn(async move { all(&mut stream).await })
            })
            .collect();
        let stalled = here.register("bob").expect("room");
        let published = ["0", "1", "2", "3", "4"];
        for number in published {
            here.broadcast("ann", &text(number)).expect("sent");
        }
        here.broadcast("bob", &text("unread")).expect("sent");

        let first = cut.run(here.shutdown(OVER)).await;
        if cut.is_at_once() {
            drop(here.register("cid").expect("nothing has begun"));
        } else {
            let refused = here.register("cid").expect_err("it has begun");
            assert!(
                matches!(refused, RegisterError::ShuttingDown { .. }),
                "{refused:?}"
            );
        }
        let cut_off = here.shutdown(OVER).await;
        // The one that does not read; whoever gives up has perhaps cut it already.
        assert!(first.map_or(cut_off <= 1, |first| first + cut_off == 1));
        assert_eq!(here.total_connections(), 0);
        for reader in readers {
            // What the engine has not returned by then, a client gets where it comes back.
            let got = reader.await.expect("no panic");
            assert!(published.map(str::to_owned).starts_with(&got), "{got:?}");
        }
        assert_eq!(all(&mut remote).await, published);
        assert!(here.broadcast("ann", &text("late")).is_err());
        drop(stalled);
        first.is_some()
    })
    .await;
}

/// An event that is counted as long as it lives.
struct Counted(
    usize,
    #[expect(dead_code, reason = "it is counted")] Arc<()>,
);

impl ToSse for Counted {
    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text(&self.0.to_string());
        Ok(())
    }
}

#[tokio::test]
async fn an_event_is_handed_over_or_dropped() {
    for to in ["one", "many", "all"] {
        handed_over_or_dropped(to).await;
    }
}

async fn handed_over_or_dropped(to: &str) {
    at_every_await(1, async |cut| {
        let hub = GenericBroadcaster::<Counted>::new();
        let mut stream = hub.register("ann").expect("room");
        let publisher = hub.publisher(1).expect("a runtime");
        let alive = Arc::new(());
        let event = |number| Counted(number, alive.clone());
        publisher
            .try_publish("ann", event(0))
            .expect("room for one");
        let handed_over = match to {
            "one" => cut.run(publisher.publish("ann", event(1))).await,
            "many" => cut.run(publisher.publish_many(["ann"], event(1))).await,
            _ => cut.run(publisher.publish_all(event(1))).await,
        };
        let handed_over = handed_over.map(|handed_over| handed_over.expect("it runs"));
        publisher.publish("ann", event(2)).await.expect("it runs");
        assert!(publisher.flush().await);
        hub.drain_user("ann");
        let numbers = match handed_over {
            Some(()) => vec!["0", "1", "2"],
            None => vec!["0", "2"],
        };
        assert_eq!(all(&mut stream).await, numbers);
        assert_eq!(Arc::strong_count(&alive), 1, "no event is kept");
        handed_over.is_some()
    })
    .await;
}

#[tokio::test]
async fn a_flush_does_nothing_to_the_events() {
    at_every_await(2, async |cut| {
        let hub = Hub::new();
        let mut stream = hub.register("ann").expect("room");
        let publisher = hub.publisher(1).expect("a runtime");
        publisher.try_publish("ann", text("0")).expect("room");
        let flushed = cut.run(publisher.flush()).await;
        publisher.publish("ann", text("1")).await.expect("it runs");
        assert!(publisher.flush().await);
        hub.drain_user("ann");
        assert_eq!(all(&mut stream).await, ["0", "1"]);
        assert!(flushed.unwrap_or(true));
        flushed.is_some()
    })
    .await;
}

/// Not polled at all, it has not begun.
#[tokio::test]
async fn the_pages_of_a_console_end_all_the_same() {
    at_every_await(0, async |cut| {
        let hub = Hub::new();
        let console = Console::new().broadcaster("chat", &hub);
        let app: Router = console.router();
        let live = || SseRequest::get("/live").header("host", "localhost");
        let open = || live().open(app.clone());
        let (one, two) = tokio::join!(open(), open());
        let mut pages = [one.expect("a stream"), two.expect("a stream")];
        let is_over = cut.run(console.shutdown()).await.is_some();
        if !cut.is_at_once() {
            for page in &mut pages {
                page.collect_to_end().await;
            }
            let mut refused = open().await.expect("what brings it back");
            assert_eq!(refused.next().await.event, "refused");
            refused.expect_end().await;
        }
        is_over
    })
    .await;
}
