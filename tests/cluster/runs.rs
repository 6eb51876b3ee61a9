//! Runs over several nodes: from the beginning on any of them, and complete on all.

use std::time::Duration;

use http_body_util::BodyExt;
use tidings::backplane::Level;
use tidings::sse::SseBody;
use tidings::{
    BroadcastError, EndReason, GapReason, GenericBroadcaster, History, HoldError, LastEventId,
    RelayError, Subscription, Text,
};
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;

type Hub = GenericBroadcaster<Text>;

const RUN: &str = "run:1";

fn hub(node: InProcessNode) -> Hub {
    GenericBroadcaster::builder()
        .backplane(node)
        .build()
        .expect("valid settings")
}

async fn send(hub: &Hub, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let event = Text::new(number.to_string());
        hub.broadcast_confirmed(RUN, &event).await.expect("sent");
    }
}

/// What a stream says until it ends or says nothing for a while: its events, gaps as text, and whether it has ended.
async fn read(stream: &mut Subscription) -> (Vec<String>, bool, LastEventId) {
    let mut said = Vec::new();
    let mut last = LastEventId::none();
    loop {
        match timeout(Duration::from_secs(5), stream.next()).await {
            Err(_) => return (said, false, last),
            Ok(None) => return (said, true, last),
            Ok(Some(Ok(frame))) => {
                if let Some((_, id)) = frame.fields().find(|(name, _)| *name == "id") {
                    last = LastEventId::new(id);
                }
                said.push(frame.data());
            }
            Ok(Some(Err(gap))) => said.push(format!("{} {:?}", gap.reason.as_str(), gap.missed)),
        }
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn from_start(hub: &Hub) -> Subscription {
    hub.resume_from_start(RUN).expect("no cap is reached")
}

/// Until every node has what was published.
async fn settle() {
    sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_from_the_start_begins_with_the_log_on_every_node() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    // The log is not this run's alone.
    let other = Text::new("of somebody else");
    a.broadcast_confirmed("bob", &other).await.expect("sent");
    let _run = a.hold(RUN).expect("there is room");
    send(&a, 0..300).await;
    for (hub, sent) in [(&a, 300), (&b, 301)] {
        let mut page = from_start(hub);
        let cursor = page.cursor().expect("there is a log");
        let mut again = hub.resume(RUN, &LastEventId::new(&cursor)).expect("room");
        assert_eq!(read(&mut page).await.0, numbers(0..sent));
        assert_eq!(read(&mut again).await.0, numbers(0..sent));
        drop(again);
        send(&b, sent..sent + 1).await;
        assert_eq!(read(&mut page).await.0, numbers(sent..sent + 1));
        drop(page);
        let mut page = from_start(hub);
        assert_eq!(read(&mut page).await.0, numbers(0..sent + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_beginning_of_the_log_is_reported_first() {
    let engine = InProcess::keeping(Level::Replayable, 3);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let _run = a.hold(RUN).expect("there is room");
    send(&a, 0..5).await;
    let (said, ended, _) = read(&mut from_start(&b)).await;
    assert_eq!(said, ["evicted Some(2)", "2", "3", "4"]);
    assert!(!ended);
    // This node has what the log has not, from the beginning of both.
    assert_eq!(read(&mut from_start(&a)).await.0, numbers(0..5));
}

#[tokio::test(start_paused = true)]
async fn completion_ends_streams_on_all_nodes_after_the_last_event() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let build = |node: InProcessNode| -> Hub {
            let built = GenericBroadcaster::builder()
                .history(History::new(100))
                .backplane(node);
            built.build().expect("valid settings")
        };
        let (a, b) = (build(engine.node()), build(engine.node()));
        let mut here = a.register_when_ready(RUN).await.expect("room");
        let mut there = b.register_when_ready(RUN).await.expect("room");
        send(&a, 0..10).await;
        assert_eq!(a.complete(RUN), Ok(1));
        settle().await;
        for (hub, stream) in [(&a, &mut here), (&b, &mut there)] {
            assert!(hub.is_complete(RUN), "{level:?}");
            let (said, ended, last) = read(stream).await;
            assert_eq!((said, ended), (numbers(0..10), true), "{level:?}");
            assert_eq!(stream.end_reason(), Some(EndReason::Completed));
            let late = hub.broadcast(RUN, &Text::new("late"));
            assert!(matches!(late, Err(BroadcastError::Complete)), "{late:?}");
            assert_eq!(hub.complete(RUN), Ok(0));
            let mut late = hub.resume(RUN, &last).expect("room");
            assert!(late.is_exhausted());
            assert!(read(&mut late).await.1);
            let (said, ended, _) = read(&mut hub.register(RUN).expect("room")).await;
            assert_eq!((said, ended), (numbers(0..10), true), "{level:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_had_the_channel_finds_the_end_in_the_log() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    send(&a, 0..300).await;
    // Nobody is connected, and nobody holds it.
    assert_eq!(a.complete(RUN), Ok(0));
    settle().await;
    assert!(!a.is_complete(RUN) && !b.is_complete(RUN));
    for hub in [&a, &b] {
        let mut page = from_start(hub);
        let (said, ended, last) = read(&mut page).await;
        assert_eq!((said, ended), (numbers(0..300), true));
        assert_eq!(page.end_reason(), Some(EndReason::Completed));
        drop(page);
        // Now the node knows it, and what the last event was.
        assert!(hub.is_complete(RUN));
        let mut page = hub.resume(RUN, &last).expect("room");
        assert!(page.is_exhausted());
        assert!(read(&mut page).await.1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_everything_learns_of_the_end_on_a_node_that_never_had_the_channel() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut page = a.register_when_ready(RUN).await.expect("room");
    send(&a, 0..3).await;
    let (_, _, last) = read(&mut page).await;
    drop(page);
    a.complete(RUN).expect("published");
    settle().await;
    let mut page = b.resume(RUN, &last).expect("room");
    assert!(!page.is_exhausted(), "the log is not read yet");
    assert_eq!(read(&mut page).await, (vec![], true, LastEventId::none()));
    drop(page);
    assert!(b.resume(RUN, &last).expect("room").is_exhausted());
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_complete_channel_is_before_the_end_of_the_log() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let _run = a.hold(RUN).expect("there is room");
    send(&a, 0..3).await;
    a.complete(RUN).expect("published");
    // What comes behind the end has a place as well, and so has what others get.
    let other = Text::new("of somebody else");
    b.broadcast_confirmed("bob", &other).await.expect("sent");
    send(&b, 3..5).await;
    settle().await;
    // This node finds the end in the log, which goes on behind it.
    let mut page = from_start(&b);
    assert!(read(&mut page).await.1);
    drop(page);
    for (name, complete) in [("is told", &a), ("reads", &b)] {
        assert!(complete.is_complete(RUN));
        let position = complete.position(RUN).expect("there is a log");
        let unknown = LastEventId::new("0123456789abcdef-7");
        let mut page = complete.resume(RUN, &unknown).expect("room");
        let cursor = page.cursor();
        let gap = page.next().await.expect("a gap").expect_err("a gap");
        let ids = [Some(position), cursor, gap.id()];
        for id in ids.into_iter().flatten() {
            let last = LastEventId::new(&id);
            assert!(complete.resume(RUN, &last).expect("room").is_exhausted());
            let elsewhere = hub(engine.node());
            let mut page = elsewhere.resume(RUN, &last).expect("room");
            let (said, ended, _) = read(&mut page).await;
            assert_eq!((said, ended), (vec![], true), "{name}: {id:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_found_no_room_reaches_the_others_when_it_is_repeated() {
    let engine = InProcess::new(Level::AtMostOnce);
    let a: Hub = GenericBroadcaster::builder()
        .history(History::new(100))
        .backplane(engine.node())
        .backplane_queue(1, 1 << 20)
        .build()
        .expect("valid settings");
    let b: Hub = GenericBroadcaster::builder()
        .history(History::new(100))
        .backplane(engine.node())
        .build()
        .expect("valid settings");
    let mut there = b.register_when_ready(RUN).await.expect("room");
    // The task that publishes has no time in between.
    a.broadcast(RUN, &Text::new("0")).expect("room for one");
    let refused = a.complete(RUN).expect_err("no room");
    assert_eq!(refused, HoldError::NotRelayed(RelayError::QueueFull));
    settle().await;
    assert!(a.is_complete(RUN) && !b.is_complete(RUN));
    assert_eq!(a.complete(RUN), Ok(0));
    let (said, ended, _) = read(&mut there).await;
    assert_eq!((said[0].as_str(), ended), ("0", true), "{said:?}");
    assert!(b.is_complete(RUN));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_after_a_gap_does_not_return_to_skipped_events() {
    let engine = InProcess::new(Level::AtMostOnce);
    let build = |queue| -> Hub {
        let built = GenericBroadcaster::builder()
            .history(History::new(100))
            .backplane(engine.node())
            .backplane_queue(queue, 1 << 20);
        built.build().expect("valid settings")
    };
    let (a, b) = (build(1), build(100));
    let there = b.register_when_ready(RUN).await.expect("room");
    let body = SseBody::new(there).filter_map(|_| None);
    a.broadcast(RUN, &Text::new("0")).expect("room for one");
    a.complete(RUN).expect_err("no room");
    settle().await;
    a.complete(RUN).expect("room for one");
    let body = timeout(Duration::from_secs(5), body.collect()).await;
    let body = body.expect("it ends").expect("it cannot fail").to_bytes();
    let body = String::from_utf8(body.to_vec()).expect("UTF-8");
    let end = body.rsplit("event: gap").next().expect("a gap");
    assert!(
        body.contains("event: gap") && !end.contains("id: "),
        "{body}"
    );
}

#[tokio::test(start_paused = true)]
async fn events_published_after_the_end_reach_nobody() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut here = a.register_when_ready(RUN).await.expect("room");
    send(&a, 0..3).await;
    a.complete(RUN).expect("published");
    // This node does not know yet.
    send(&b, 3..5).await;
    settle().await;
    let (said, ended, _) = read(&mut here).await;
    assert_eq!((said, ended), (numbers(0..3), true));
    for hub in [&a, &b] {
        let (said, ended, _) = read(&mut from_start(hub)).await;
        assert_eq!((said, ended), (numbers(0..3), true));
    }
    // Nor is it looked for.
    sleep(Duration::from_secs(120)).await;
    let stats = a.stats().backplane.expect("there is one");
    assert_eq!(stats.holes, 0);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_does_not_arrive_is_found() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut there = b.register_when_ready(RUN).await.expect("room");
    send(&a, 0..3).await;
    engine.lose_sends(1);
    a.complete(RUN).expect("published");
    for number in 0..3 {
        let event = timeout(Duration::from_secs(5), there.next()).await;
        let event = event
            .expect("it comes")
            .expect("it goes on")
            .expect("no gap");
        assert_eq!(event.data(), number.to_string());
    }
    let end = timeout(Duration::from_secs(120), there.next()).await;
    assert!(end.expect("it comes").is_none());
    assert!(b.is_complete(RUN));
    assert_eq!(b.stats().backplane.expect("there is one").holes, 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_one_stream_reads_in_the_log_ends_the_others_after_the_last_event() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    send(&a, 0..1).await;
    let mut there = b.register_when_ready(RUN).await.expect("room");
    send(&a, 1..2).await;
    let first = there.next().await.expect("it goes on").expect("no gap");
    assert_eq!(first.data(), "1");
    engine.lose_sends(3);
    send(&a, 2..4).await;
    a.complete(RUN).expect("published");
    sleep(Duration::from_millis(10)).await;
    // This stream reads further than its channel is.
    let (said, ended, _) = read(&mut from_start(&b)).await;
    assert_eq!((said, ended), (numbers(0..4), true));
    let (said, ended, last) = read(&mut there).await;
    assert_eq!((said, ended), (vec!["2".into(), "3".into()], true));
    assert_eq!(there.end_reason(), Some(EndReason::Completed));
    assert!(b.resume(RUN, &last).expect("room").is_exhausted());
}

#[tokio::test(start_paused = true)]
async fn an_old_client_does_not_end_a_name_that_is_used_again() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut page = a.register_when_ready(RUN).await.expect("room");
    send(&a, 0..3).await;
    let (_, _, old) = read(&mut page).await;
    a.complete(RUN).expect("published");
    settle().await;
    drop(page);
    a.forget(RUN);
    let mut page = b.register_when_ready(RUN).await.expect("room");
    send(&a, 3..5).await;
    assert_eq!(read(&mut page).await.0, numbers(3..5));
    assert_eq!(
        read(&mut b.resume(RUN, &old).expect("room")).await,
        (vec![], true, LastEventId::none())
    );
    assert!(!b.is_complete(RUN));
    send(&a, 5..6).await;
    assert_eq!(read(&mut page).await.0, numbers(5..6));
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_does_not_go_to_other_nodes_is_an_error() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let _run = a.hold(RUN).expect("there is room");
    a.shutdown(Duration::ZERO).await;
    let refused = a.complete(RUN).expect_err("it is closed");
    assert_eq!(refused, HoldError::NotRelayed(RelayError::Closed));
    assert!(!a.is_complete(RUN));
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_that_is_bridged_the_end_waits_for_the_log() {
    let engine = InProcess::new(Level::Replayable);
    let a: Hub = GenericBroadcaster::builder()
        .backplane(engine.node())
        .local_after(Duration::from_secs(1))
        .build()
        .expect("valid settings");
    let mut here = a.register_when_ready(RUN).await.expect("room");
    send(&a, 0..1).await;
    engine.stop();
    a.broadcast(RUN, &Text::new("1")).expect("it waits");
    a.complete(RUN).expect("it waits");
    let (said, ended, _) = read(&mut here).await;
    assert_eq!(
        (said, ended),
        (vec!["0".into(), "backplane None".into(), "1".into()], false)
    );
    engine.start();
    let (said, ended, _) = read(&mut here).await;
    assert!(ended, "{said:?}");
    assert!(
        said.iter()
            .all(|said| said.starts_with(GapReason::Backplane.as_str())),
        "{said:?}"
    );
}

#[cfg(feature = "serve")]
#[tokio::test]
async fn over_nats_a_run_is_followed_from_the_start_to_the_end_on_every_node() {
    use async_nats::ConnectOptions;
    use tidings_nats::{Log, Nats, Settings, Storage};

    use crate::support::nats::Server;

    let server = Server::start();
    let node = async || -> Hub {
        let log = Log::new("TEST").storage(Storage::Memory).max_per_user(100);
        let settings = Settings::new("test").buckets(16).replayable(log);
        let node = Nats::connect(&server.url(), ConnectOptions::new(), settings).await;
        let built = GenericBroadcaster::builder().backplane(node.expect("it connects"));
        built.build().expect("valid settings")
    };
    let (a, b) = (node().await, node().await);
    let other = Text::new("of somebody else");
    a.broadcast_confirmed("bob", &other).await.expect("sent");
    let held = a.hold(RUN).expect("there is room");
    send(&a, 0..20).await;
    let mut there = from_start(&b);
    for number in 0..20 {
        let event = timeout(Duration::from_secs(30), there.next()).await;
        let event = event.expect("it comes").expect("it goes on");
        assert_eq!(event.expect("no gap").data(), number.to_string());
    }
    send(&a, 20..30).await;
    a.complete(RUN).expect("published");
    drop(held);
    let (said, ended, last) = read(&mut there).await;
    assert_eq!((said, ended), (numbers(20..30), true));
    assert!(b.is_complete(RUN));
    drop(there);
    // Which never had the channel.
    let c = node().await;
    for hub in [&b, &c] {
        let mut page = from_start(hub);
        let (said, ended, _) = read(&mut page).await;
        assert_eq!((said, ended), (numbers(0..30), true));
        drop(page);
        assert!(hub.resume(RUN, &last).expect("room").is_exhausted());
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_client_does_not_end_a_name_that_is_held_again() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let mut page = a.register_when_ready(RUN).await.expect("room");
    send(&a, 0..3).await;
    let (_, _, old) = read(&mut page).await;
    a.complete(RUN).expect("published");
    settle().await;
    drop(page);
    a.forget(RUN);
    // Whoever holds it has sent nothing yet.
    let hold = a.hold(RUN).expect("room");
    let ended = (vec![], true, LastEventId::none());
    assert_eq!(read(&mut a.resume(RUN, &old).expect("room")).await, ended);
    assert!(!a.is_complete(RUN));
    let mut page = a.register_when_ready(RUN).await.expect("room");
    send(&a, 3..4).await;
    assert_eq!(read(&mut page).await.0, numbers(3..4));
    drop(hold);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_one_stream_reads_in_the_log_ends_one_that_has_had_nothing() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    send(&a, 0..3).await;
    a.complete(RUN).expect("published");
    settle().await;
    let mut idle = b.register_when_ready(RUN).await.expect("room");
    assert_eq!(read(&mut idle).await, (vec![], false, LastEventId::none()));
    assert_eq!(read(&mut from_start(&b)).await.0, numbers(0..3));
    assert_eq!(read(&mut idle).await, (vec![], true, LastEventId::none()));
    assert_eq!(idle.end_reason(), Some(EndReason::Completed));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_comes_too_early_waits_for_what_is_before_it() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    send(&a, 0..1).await;
    let mut there = b.register_when_ready(RUN).await.expect("room");
    send(&a, 1..2).await;
    engine.lose_sends(1);
    send(&a, 2..3).await;
    a.complete(RUN).expect("published");
    let (said, ended, _) = read(&mut there).await;
    assert_eq!((said, ended), (numbers(1..3), true));
}
