//! Streams that lack more than their node keeps read it from the log: nodes without a history of their own, whose rings hold 64
//! events.

use std::time::Duration;

use tidings::backplane::Level;
use tidings::{GapReason, GenericBroadcaster, LagPolicy, Subscription, Text};
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::time::sleep;

use crate::support::streams::{data, id, is_silent, item, text};

type Hub = GenericBroadcaster<Text>;

fn hub(node: InProcessNode) -> Hub {
    GenericBroadcaster::builder()
        .backplane(node)
        .build()
        .expect("valid settings")
}

/// Broadcasts events with these numbers, each confirmed.
async fn say(hub: &Hub, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let text = text(&number.to_string());
        hub.broadcast_confirmed("ann", &text).await.expect("kept");
    }
}

/// The stream gets exactly these.
async fn gets(stream: &mut Subscription, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(data(stream).await, number.to_string());
    }
    assert!(is_silent(stream).await);
    assert_eq!(stream.guard().lagged(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_node_missed_reaches_its_streams_however_much_it_is() {
    let engine = InProcess::new(Level::Replayable);
    let node = engine.node();
    let (a, b) = (hub(engine.node()), hub(node.clone()));
    let mut tabs = Vec::new();
    for _ in 0..3 {
        tabs.push(b.register_when_ready("ann").await.expect("room"));
    }
    say(&a, 0..10).await;
    engine.cut(&node);
    say(&a, 10..700).await;
    engine.mend(&node);
    for tab in &mut tabs {
        gets(tab, 0..700).await;
    }
    say(&a, 700..701).await;
    gets(&mut tabs[0], 700..701).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lags_reads_the_log() {
    let engine = InProcess::new(Level::Replayable);
    let hub = hub(engine.node());
    let mut fresh = hub.register_when_ready("ann").await.expect("room");
    say(&hub, 0..1).await;
    let zero = id(&item(&mut fresh).await.expect("an event"));
    // With any policy: nothing is lost.
    let back = |policy| {
        let stream = hub.resume("ann", &zero).expect("room");
        stream.lag_policy(policy)
    };
    let mut back = [LagPolicy::Gap, LagPolicy::End, LagPolicy::Disconnect].map(back);
    // Nobody reads meanwhile.
    say(&hub, 1..300).await;
    gets(&mut fresh, 1..300).await;
    for stream in &mut back {
        gets(stream, 1..300).await;
    }
    // And again, from where they are now.
    say(&hub, 300..600).await;
    gets(&mut fresh, 300..600).await;
    for stream in &mut back {
        gets(stream, 300..600).await;
    }
    assert_eq!(hub.stats().lagged, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_log_has_dropped_as_well_is_a_gap() {
    let engine = InProcess::keeping(Level::Replayable, 100);
    let hub = hub(engine.node());
    let mut tab = hub.register_when_ready("ann").await.expect("room");
    say(&hub, 0..1).await;
    gets(&mut tab, 0..1).await;
    say(&hub, 1..300).await;
    let gap = item(&mut tab).await.expect_err("the log has dropped some");
    assert_eq!((gap.reason, gap.missed), (GapReason::Evicted, Some(199)));
    gets(&mut tab, 200..300).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lags_while_the_engine_is_away_waits_for_it() {
    let engine = InProcess::new(Level::Replayable);
    let node = engine.node();
    let (a, b) = (hub(engine.node()), hub(node.clone()));
    let mut tab = b.register_when_ready("ann").await.expect("room");
    say(&a, 0..300).await;
    sleep(Duration::from_secs(1)).await;
    engine.cut(&node);
    assert!(is_silent(&mut tab).await);
    engine.mend(&node);
    gets(&mut tab, 0..300).await;
    // And not for ever.
    say(&a, 300..600).await;
    sleep(Duration::from_secs(1)).await;
    engine.cut(&node);
    let gap = item(&mut tab).await.expect_err("it has not answered");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
    let rest = item(&mut tab).await.expect("what the node has");
    assert_eq!(rest.data(), (600 - 64).to_string());
}
