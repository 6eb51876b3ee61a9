//! Several nodes, one engine: what is broadcast on one arrives at the streams of all, and clients move between them.

use std::time::Duration;

use tidings::backplane::Level;
use tidings::{
    BroadcastError, GapReason, GenericBroadcaster, History, LastEventId, RelayError, Subscription,
    Text,
};
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use crate::support::streams::{data, id, is_silent, item, text};

type Hub = GenericBroadcaster<Text>;

fn hub(node: InProcessNode) -> Hub {
    GenericBroadcaster::builder()
        .backplane(node)
        .build()
        .expect("valid settings")
}

#[tokio::test(start_paused = true)]
async fn an_event_reaches_the_streams_of_all_nodes_once() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let (a, b) = (hub(engine.node()), hub(engine.node()));
        let mut here = a.register_when_ready("ann").await.expect("room");
        let mut there = b.register_when_ready("ann").await.expect("room");
        let mut other = b.register_when_ready("bob").await.expect("room");
        for n in 0..3 {
            assert_eq!(a.broadcast("ann", &text(&n.to_string())).expect("sent"), 1);
        }
        b.broadcast("ann", &text("back")).expect("sent");
        let mut got = Vec::new();
        for _ in 0..4 {
            got.push(data(&mut here).await);
        }
        assert_eq!(got.iter().filter(|text| *text == "back").count(), 1);
        got.retain(|text| text != "back");
        assert_eq!(got, ["0", "1", "2"]);
        let mut got = Vec::new();
        for _ in 0..4 {
            got.push(data(&mut there).await);
        }
        got.retain(|text| text != "back");
        assert_eq!(got, ["0", "1", "2"]);
        assert!(is_silent(&mut here).await && is_silent(&mut there).await);
        assert!(is_silent(&mut other).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_resumes_on_any_node() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut tab = a.register_when_ready("ann").await.expect("room");
    a.broadcast("ann", &text("1")).expect("sent");
    let seen = id(&item(&mut tab).await.expect("an event"));
    drop(tab);
    a.broadcast("ann", &text("2")).expect("sent");
    let mut tab = b.resume("ann", &seen).expect("room");
    a.broadcast_confirmed("ann", &text("3"))
        .await
        .expect("sent");
    assert_eq!(data(&mut tab).await, "2");
    let three = item(&mut tab).await.expect("an event");
    assert_eq!(three.data(), "3");
    drop(tab);
    b.broadcast("ann", &text("4")).expect("sent");
    let mut tab = a.resume("ann", &id(&three)).expect("room");
    assert_eq!(data(&mut tab).await, "4");
    assert!(is_silent(&mut tab).await);
}

/// All that comes without waiting for more than a while.
async fn rest(stream: &mut Subscription) -> Vec<String> {
    let mut got = Vec::new();
    while let Ok(next) = timeout(Duration::from_secs(5), stream.next()).await {
        got.push(next.expect("it goes on").expect("no gap").data());
    }
    got
}

/// Simultaneous broadcasts on two nodes get one order, whichever it is, and ids in the same order.
#[tokio::test(start_paused = true)]
async fn every_node_shows_the_order_of_the_log() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b, c) = (hub(engine.node()), hub(engine.node()), hub(engine.node()));
    let mut tabs = Vec::new();
    for hub in [&a, &b, &c] {
        tabs.push(hub.register_when_ready("ann").await.expect("room"));
    }
    for n in 0..20 {
        a.broadcast("ann", &text(&format!("a{n}"))).expect("sent");
        b.broadcast("ann", &text(&format!("b{n}"))).expect("sent");
        if n % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut shown: Vec<Vec<(String, LastEventId)>> = Vec::new();
    for tab in &mut tabs {
        let mut got = Vec::new();
        for _ in 0..40 {
            let frame = item(tab).await.expect("an event");
            got.push((frame.data(), id(&frame)));
        }
        shown.push(got);
    }
    assert_eq!(shown[0], shown[1]);
    assert_eq!(shown[0], shown[2]);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_an_epoch_and_an_offset_on_every_node() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut here = a.register_when_ready("ann").await.expect("room");
    let mut there = b.register_when_ready("ann").await.expect("room");
    a.broadcast("ann", &text("1")).expect("sent");
    for tab in [&mut here, &mut there] {
        let frame = item(tab).await.expect("an event");
        let (_, id) = frame.fields().find(|(name, _)| *name == "id").expect("one");
        let (epoch, offset) = id.split_once('-').expect("two parts");
        assert_eq!((epoch.len(), offset), (16, "1"), "{id}");
    }
}

/// Without an engine there is no order, so nobody gets anything; then everybody gets everything.
#[tokio::test(start_paused = true)]
async fn while_the_engine_is_down_events_wait() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut here = a.register_when_ready("ann").await.expect("room");
    let mut there = b.register_when_ready("ann").await.expect("room");
    engine.stop();
    for n in 0..3 {
        assert_eq!(a.broadcast("ann", &text(&n.to_string())).expect("kept"), 1);
    }
    assert!(is_silent(&mut here).await && is_silent(&mut there).await);
    assert_eq!(a.stats().backplane.expect("there is one").queued, 3);
    engine.start();
    for tab in [&mut here, &mut there] {
        assert_eq!(rest(tab).await, ["0", "1", "2"]);
    }
    assert_eq!(a.stats().backplane.expect("there is one").queued, 0);
}

/// Its client goes on, on another node, with what the engine did not have yet.
#[tokio::test(start_paused = true)]
async fn a_client_that_moves_gets_each_event_once() {
    let engine = InProcess::new(Level::Replayable);
    let hubs: Vec<Hub> = (0..3).map(|_| hub(engine.node())).collect();
    let tab = hubs[0].register_when_ready("ann").await.expect("room");
    let mut last = LastEventId::new(&tab.cursor().expect("there is a log"));
    drop(tab);
    let mut got = Vec::new();
    for round in 0..30 {
        let here = &hubs[round % 3];
        here.broadcast("ann", &text(&round.to_string()))
            .expect("kept");
        let mut tab = here.resume("ann", &last).expect("room");
        // Now and then it leaves before the event has come, and gets it elsewhere.
        let wait = Duration::from_millis(round as u64 % 2);
        while let Ok(next) = timeout(wait, tab.next()).await {
            let frame = next.expect("it goes on").expect("no gap");
            last = id(&frame);
            got.push(frame.data());
        }
    }
    let mut tab = hubs[0].resume("ann", &last).expect("room");
    got.extend(rest(&mut tab).await);
    // In the order of the log, which nodes reach at the same time.
    got.sort_by_key(|text| text.parse::<u32>().expect("a number"));
    let all: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    assert_eq!(got, all);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_reported_without_a_log_and_healed_with_one() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let a = hub(engine.node());
        let cut = engine.node();
        let b = hub(cut.clone());
        let mut tab = b.register_when_ready("ann").await.expect("room");
        engine.cut(&cut);
        a.broadcast_confirmed("ann", &text("1"))
            .await
            .expect("sent");
        engine.mend(&cut);
        if level == Level::AtMostOnce {
            let gap = item(&mut tab).await.expect_err("a gap");
            assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
        } else {
            assert_eq!(data(&mut tab).await, "1");
        }
        a.broadcast("ann", &text("2")).expect("sent");
        assert_eq!(data(&mut tab).await, "2");
        assert!(is_silent(&mut tab).await);
    }
}

/// A client that came back after a gap knows of that gap, and not of those that come later.
#[tokio::test(start_paused = true)]
async fn a_cut_is_told_to_a_stream_that_came_back_after_a_gap_and_has_been_idle() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::keeping(level, 0);
        let a = hub(engine.node());
        let cut = engine.node();
        let b = hub(cut.clone());
        // The engine sends the user's events before the client is back.
        drop(b.register_when_ready("ann").await.expect("room"));
        let told = LastEventId::new("~");
        let mut tab = b.resume("ann", &told).expect("room");
        assert!(is_silent(&mut tab).await);
        engine.cut(&cut);
        a.broadcast_confirmed("ann", &text("1"))
            .await
            .expect("sent");
        engine.mend(&cut);
        let gap = item(&mut tab).await.expect_err("a gap");
        assert_eq!(gap.reason, GapReason::Backplane, "{level:?}");
        a.broadcast("ann", &text("2")).expect("sent");
        assert_eq!(data(&mut tab).await, "2");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_without_room_is_refused_counted_and_reported_to_other_nodes() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let a: Hub = GenericBroadcaster::builder()
            .backplane(engine.node())
            .backplane_queue(1, 1 << 20)
            .build()
            .expect("valid settings");
        let b = hub(engine.node());
        let mut here = a.register_when_ready("ann").await.expect("room");
        let mut there = b.register_when_ready("ann").await.expect("room");
        // The task that publishes has no time in between.
        a.broadcast("ann", &text("1")).expect("room for one");
        for n in ["2", "3"] {
            let error = a.broadcast("ann", &text(n)).expect_err("no room");
            let BroadcastError::NotRelayed { reached, reason } = error else {
                panic!("{error}");
            };
            assert_eq!(reason, RelayError::QueueFull);
            assert_eq!(reached, usize::from(level == Level::AtMostOnce));
        }
        if level == Level::AtMostOnce {
            for n in ["1", "2", "3"] {
                assert_eq!(data(&mut here).await, n, "local delivery goes on");
            }
        } else {
            assert_eq!(data(&mut here).await, "1");
            let gap = item(&mut here).await.expect_err("a gap");
            assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, Some(2)));
        }
        assert_eq!(data(&mut there).await, "1");
        let gap = item(&mut there).await.expect_err("a gap");
        assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, Some(2)));
        a.broadcast("ann", &text("4")).expect("room again");
        assert_eq!(data(&mut here).await, "4");
        assert_eq!(data(&mut there).await, "4");
        let stats = a.stats().backplane.expect("there is a backplane");
        assert_eq!(stats.refused, 2);
    }
}

/// However many events find no room, and however long the engine is down: their number is kept, and nothing of each.
#[tokio::test(start_paused = true)]
async fn what_finds_no_room_in_a_long_outage_is_reported_once() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let a: Hub = GenericBroadcaster::builder()
            .backplane(engine.node())
            .backplane_queue(1, 1 << 20)
            .build()
            .expect("valid settings");
        let b = hub(engine.node());
        let mut there = b.register_when_ready("ann").await.expect("room");
        engine.stop();
        a.broadcast("ann", &text("1")).expect("room for one");
        for n in 2..=50 {
            let error = a.broadcast("ann", &text(&n.to_string()));
            assert!(matches!(error, Err(BroadcastError::NotRelayed { .. })));
            // The task that publishes takes in what was refused.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        engine.start();
        let mut gaps = Vec::new();
        while let Ok(Some(item)) = timeout(Duration::from_secs(60), there.next()).await {
            gaps.extend(item.err().map(|gap| gap.missed));
        }
        // Nobody knows what the streams missed at most once while the engine was down.
        let unknown = (level == Level::AtMostOnce).then_some(None);
        let expected: Vec<_> = unknown.into_iter().chain([Some(49)]).collect();
        assert_eq!(gaps, expected, "{level:?}");
        let stats = a.stats().backplane.expect("there is a backplane");
        assert_eq!((stats.refused, stats.published), (49, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_too_large_is_refused_and_reported_to_other_nodes() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut there = b.register_when_ready("ann").await.expect("room");
    let large = "x".repeat(2 << 20);
    a.broadcast("ann", &text("before")).expect("sent");
    let error = a.broadcast("ann", &text(&large)).expect_err("too large");
    // It is lost alone, and in its place, however closely the next one follows.
    a.broadcast("ann", &text("after")).expect("sent");
    assert!(matches!(
        error,
        BroadcastError::NotRelayed {
            reached: 0,
            reason: RelayError::TooLarge { .. }
        }
    ));
    assert_eq!(data(&mut there).await, "before");
    let gap = item(&mut there).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, Some(1)));
    assert_eq!(data(&mut there).await, "after");
}

#[tokio::test(start_paused = true)]
async fn events_that_the_engine_dropped_are_reported_with_their_number() {
    let engine = InProcess::keeping(Level::Replayable, 3);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let publisher = hub(engine.node());
    let mut tab = a.register_when_ready("ann").await.expect("room");
    publisher.broadcast("ann", &text("0")).expect("sent");
    let seen = id(&item(&mut tab).await.expect("an event"));
    drop(tab);
    for n in 1..=5 {
        publisher
            .broadcast_confirmed("ann", &text(&n.to_string()))
            .await
            .expect("sent");
    }
    let mut tab = b.resume("ann", &seen).expect("room");
    let gap = item(&mut tab).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Evicted, Some(2)));
    for n in 3..=5 {
        assert_eq!(data(&mut tab).await, n.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_the_engine_dropped_are_reported_once() {
    let engine = InProcess::keeping(Level::Replayable, 0);
    let a = hub(engine.node());
    let cut = engine.node();
    let b = hub(cut.clone());
    let mut tab = b.register_when_ready("ann").await.expect("room");
    engine.cut(&cut);
    for n in 1..=3 {
        a.broadcast_confirmed("ann", &text(&n.to_string()))
            .await
            .expect("sent");
    }
    engine.mend(&cut);
    let gap = item(&mut tab).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, Some(3)));
    engine.cut(&cut);
    engine.mend(&cut);
    assert!(is_silent(&mut tab).await, "it is the same gap");
    a.broadcast("ann", &text("4")).expect("sent");
    assert_eq!(data(&mut tab).await, "4");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_log_is_reported_to_every_stream() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut tab = a.register_when_ready("ann").await.expect("room");
    b.broadcast_confirmed("ann", &text("1"))
        .await
        .expect("sent");
    let old = id(&item(&mut tab).await.expect("an event"));
    engine.start_empty();
    let gap = item(&mut tab).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
    b.broadcast("ann", &text("2")).expect("sent");
    assert_eq!(data(&mut tab).await, "2");
    let mut late = b.resume("ann", &old).expect("room");
    let gap = item(&mut late).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Epoch, None));
}

/// A publication whose acknowledgement is lost was made nevertheless.
#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_makes_nothing_twice() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let (a, b) = (hub(engine.node()), hub(engine.node()));
        let mut there = b.register_when_ready("ann").await.expect("room");
        engine.lose_acknowledgements(1);
        let confirmed = a.broadcast_confirmed("ann", &text("1")).await;
        assert_eq!(data(&mut there).await, "1");
        match level {
            Level::Replayable => assert_eq!(confirmed.expect("published again"), 0),
            _ => {
                assert!(matches!(
                    confirmed,
                    Err(BroadcastError::NotRelayed {
                        reason: RelayError::Unconfirmed,
                        ..
                    })
                ));
                let gap = item(&mut there).await.expect_err("a gap");
                assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
            }
        }
        assert!(is_silent(&mut there).await);
    }
}

/// A stream that a call without waiting opens as the first of its user, where nothing is kept.
#[tokio::test(start_paused = true)]
async fn a_stream_that_began_too_early_gets_a_gap() {
    let engine = InProcess::new(Level::AtMostOnce);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut early = a.register("ann").expect("room");
    let gap = item(&mut early).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
    let mut second = a.register("ann").expect("room");
    b.broadcast("ann", &text("1")).expect("sent");
    assert_eq!(data(&mut early).await, "1");
    assert_eq!(data(&mut second).await, "1");
}

/// What its client has by then is the id that the stream begins with.
#[tokio::test(start_paused = true)]
async fn a_first_stream_that_is_cut_before_its_first_event_loses_nothing() {
    let engine = InProcess::new(Level::Replayable);
    let hub: Hub = GenericBroadcaster::builder()
        .backplane(engine.node())
        .history(History::new(10).keep_for_unconnected())
        .build()
        .expect("valid settings");
    for n in 0..3 {
        hub.broadcast_confirmed("ann", &text(&n.to_string()))
            .await
            .expect("the engine is there");
    }
    let first = hub.register("ann").expect("room");
    let cursor = LastEventId::new(&first.cursor().expect("there is a history"));
    drop(first);
    let mut back = hub.resume("ann", &cursor).expect("room");
    for n in 0..3 {
        assert_eq!(data(&mut back).await, n.to_string());
    }
    assert!(is_silent(&mut back).await);
}

#[tokio::test(start_paused = true)]
async fn garbage_is_counted_and_stops_nothing() {
    use tidings::backplane::{Backplane, Place, Position, Received};

    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let node = engine.node();
        let (a, b) = (hub(engine.node()), hub(node.clone()));
        let mut tab = b.register_when_ready("ann").await.expect("room");
        let bodies: [&[u8]; 5] = [b"", b"T", b"T\x01\x00", &[0xff; 40], &[b'T'; 100]];
        for body in bodies {
            node.inject(Received {
                user: "ann".into(),
                body: body.to_vec().into(),
                place: Some(Place {
                    position: Position {
                        epoch: node.horizon().map_or(0, |horizon| horizon.epoch),
                        offset: 7,
                    },
                    previous: 0,
                }),
            });
        }
        a.broadcast("ann", &text("1")).expect("sent");
        assert_eq!(data(&mut tab).await, "1");
        assert!(is_silent(&mut tab).await);
        assert_eq!(b.stats().backplane.expect("there is one").dropped, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_publishes_what_was_broadcast_before() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut there = b.register_when_ready("ann").await.expect("room");
    for n in 0..50 {
        a.broadcast("ann", &text(&n.to_string())).expect("sent");
    }
    a.shutdown(Duration::from_secs(1)).await;
    for n in 0..50 {
        assert_eq!(data(&mut there).await, n.to_string());
    }
    assert!(matches!(
        a.broadcast("ann", &text("late")),
        Err(BroadcastError::NotRelayed {
            reason: RelayError::Closed,
            ..
        })
    ));
}

/// Whoever ends it a second time waits for what the first one waited for.
#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_given_up_or_asked_for_twice_publishes_no_less() {
    const OVER: Duration = Duration::from_secs(10);
    for is_given_up in [true, false] {
        let engine = InProcess::new(Level::Replayable);
        let (a, b) = (hub(engine.node()), hub(engine.node()));
        let mut there = b.register_when_ready("ann").await.expect("room");
        engine.stop();
        a.broadcast("ann", &text("1")).expect("kept");
        let engine_comes_back = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            engine.start();
        };
        let first = a.shutdown(OVER);
        if is_given_up {
            let first = timeout(Duration::from_millis(100), first).await;
            first.expect_err("the engine is away");
            tokio::join!(a.shutdown(OVER), engine_comes_back);
        } else {
            tokio::join!(first, a.shutdown(OVER), engine_comes_back);
        }
        assert_eq!(data(&mut there).await, "1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_forgets_users_who_left() {
    let engine = InProcess::new(Level::AtMostOnce);
    let a = hub(engine.node());
    let tab = a.register_when_ready("ann").await.expect("room");
    let users = || a.stats().backplane.expect("there is one").users;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(users(), 1, "as long as there is a stream");
    drop(tab);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(users(), 0);
}

/// With a history on a node where the engine keeps nothing, clients resume on the node that they were on.
#[tokio::test(start_paused = true)]
async fn histories_of_nodes_have_what_came_from_others() {
    let engine = InProcess::new(Level::AtMostOnce);
    let a = hub(engine.node());
    let b: Hub = GenericBroadcaster::builder()
        .backplane(engine.node())
        .history(History::new(10))
        .build()
        .expect("valid settings");
    let mut tab = b.register_when_ready("ann").await.expect("room");
    a.broadcast("ann", &text("1").id(tidings::EventId::from(7)))
        .expect("sent");
    let one = item(&mut tab).await.expect("an event");
    assert_eq!(one.fields().filter(|(name, _)| *name == "id").count(), 1);
    drop(tab);
    a.broadcast_confirmed("ann", &text("2"))
        .await
        .expect("sent");
    let mut tab = b.resume("ann", &id(&one)).expect("room");
    assert_eq!(data(&mut tab).await, "2");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_for_a_lost_engine_gets_an_error_at_the_end() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    engine.stop();
    let confirmed = tokio::spawn({
        let a = a.clone();
        async move { a.broadcast_confirmed("ann", &text("1")).await }
    });
    let late = tokio::spawn({
        let a = a.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            a.broadcast_confirmed("bob", &text("2")).await
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    a.shutdown(Duration::from_secs(1)).await;
    for waiting in [confirmed, late] {
        let answer = timeout(Duration::from_secs(10), waiting).await;
        let answer = answer.expect("an answer").expect("no panic");
        let unconfirmed = RelayError::Unconfirmed;
        assert!(matches!(
            answer,
            Err(BroadcastError::NotRelayed { reason, .. }) if reason == unconfirmed
        ));
    }
}
