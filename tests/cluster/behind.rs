//! Streams that lack more than their node keeps read it from the log: nodes without a history of their own, whose rings hold 64
//! events.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use tidings::backplane::{Backplane, BackplaneError, Fetched, Level, Position};
use tidings::sse::SseBody;
use tidings::{
    EndReason, GapReason, GenericBroadcaster, History, LagPolicy, LastEventId, Subscription, Text,
    UserId,
};
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;

use crate::support::streams::{data, id, is_silent, item, text};
use crate::support::wrapped::{Answers, Wrapped};

type Hub = GenericBroadcaster<Text>;

fn hub(node: impl Backplane) -> Hub {
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
}

/// The stream has lost so many events, and so have all of them.
fn has_lost(hub: &Hub, stream: &Subscription, lost: u64) {
    let counted = (stream.guard().lagged(), hub.stats().lagged);
    assert_eq!(counted, (lost, lost));
}

/// An engine whose log cannot be read.
struct Unread;

#[async_trait]
impl Answers for Unread {
    async fn fetch(
        &self,
        _: &InProcessNode,
        _: &UserId,
        _: Position,
        _: usize,
    ) -> Result<Fetched, BackplaneError> {
        Err(BackplaneError::other("it cannot be read"))
    }
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
    has_lost(&b, &tabs[0], 0);
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
    has_lost(&hub, &fresh, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_log_has_is_sent_in_few_pieces() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    say(&a, 0..100).await;
    let mut body = SseBody::new(b.resume_from_start("ann").expect("room"));
    let (mut pieces, mut events) = (0, 0);
    while let Ok(Some(piece)) = timeout(Duration::from_secs(5), body.frame()).await {
        let piece = piece.expect("it cannot fail").into_data().expect("data");
        pieces += 1;
        events += String::from_utf8_lossy(&piece).matches("data: ").count();
    }
    assert_eq!(events, 100);
    assert!(pieces < 10, "{pieces} pieces");
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
    assert_eq!((gap.reason, gap.missed), (GapReason::Lagged, Some(199)));
    gets(&mut tab, 200..300).await;
    has_lost(&hub, &tab, 199);
}

#[tokio::test(start_paused = true)]
async fn a_policy_decides_on_what_the_log_has_dropped() {
    for policy in [LagPolicy::Disconnect, LagPolicy::End] {
        let engine = InProcess::keeping(Level::Replayable, 100);
        let hub = hub(engine.node());
        let mut tab = hub.register_when_ready("ann").await.expect("room");
        tab = tab.lag_policy(policy);
        say(&hub, 0..1).await;
        gets(&mut tab, 0..1).await;
        say(&hub, 1..300).await;
        let id = match policy {
            LagPolicy::Disconnect => {
                let gap = item(&mut tab).await.expect_err("the log has dropped some");
                gap.id()
            }
            _ => None,
        };
        assert!(tab.next().await.is_none());
        assert_eq!(tab.end_reason(), Some(EndReason::Gap));
        has_lost(&hub, &tab, 199);
        // It goes on with what is kept.
        let id = id.or(tab.restart_id()).expect("there is a log");
        drop(tab);
        let back = hub.resume("ann", &LastEventId::new(&id)).expect("room");
        gets(&mut back.lag_policy(policy), 200..300).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_drained_yields_what_its_node_has() {
    let engine = InProcess::new(Level::Replayable);
    let hub = hub(engine.node());
    let mut tab = hub.register_when_ready("ann").await.expect("room");
    say(&hub, 0..300).await;
    hub.drain_user("ann");
    let gap = item(&mut tab).await.expect_err("it does not wait");
    assert_eq!((gap.reason, gap.missed), (GapReason::Lagged, Some(236)));
    has_lost(&hub, &tab, 236);
    for number in 236..300 {
        assert_eq!(data(&mut tab).await, number.to_string());
    }
    assert!(tab.next().await.is_none());
    assert_eq!(tab.end_reason(), Some(EndReason::Drained));
}

#[tokio::test(start_paused = true)]
async fn a_stream_gets_events_although_the_log_cannot_be_read() {
    let engine = InProcess::new(Level::Replayable);
    let hub = hub(Wrapped {
        node: engine.node(),
        answers: Unread,
    });
    let mut tab = hub.register_when_ready("ann").await.expect("room");
    say(&hub, 0..65).await;
    let says = async {
        for number in 65..565 {
            say(&hub, number..number + 1).await;
            sleep(Duration::from_millis(200)).await;
        }
    };
    let began = Instant::now();
    let (mut events, mut gaps) = (0, Vec::new());
    let reads = async {
        while let Ok(Some(item)) = timeout(Duration::from_secs(60), tab.next()).await {
            match item {
                Ok(_) => events += 1,
                Err(gap) => gaps.push((began.elapsed().as_secs(), gap.reason, gap.missed)),
            }
        }
    };
    tokio::join!(says, reads);
    // It has waited once.
    assert!(events > 300, "{events} {gaps:?}");
    let lost = gaps.iter().map(|(_, _, missed)| missed.expect("known"));
    assert_eq!(lost.sum::<u64>() + events, 565, "{gaps:?}");
    has_lost(&hub, &tab, 565 - events);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_a_gap_has_no_notices() {
    let engine = InProcess::new(Level::AtMostOnce);
    let node = engine.node();
    let built = GenericBroadcaster::builder().ring_capacity(4);
    let b: Hub = built.backplane(node.clone()).build().expect("valid");
    let cut = async || {
        engine.cut(&node);
        sleep(Duration::from_secs(5)).await;
        engine.mend(&node);
        sleep(Duration::from_secs(5)).await;
    };
    let mut tab = b.register_when_ready("ann").await.expect("room");
    let gaps = async |tab: &mut Subscription| {
        let mut gaps = Vec::new();
        while let Ok(Some(item)) = timeout(Duration::from_secs(5), tab.next()).await {
            gaps.extend(item.err().map(|gap| (gap.reason, gap.missed)));
        }
        gaps
    };
    let broadcast = |count: u32| {
        for number in 0..count {
            b.broadcast("ann", &text(&number.to_string()))
                .expect("sent");
        }
    };
    broadcast(5);
    cut().await;
    let lagged = (GapReason::Lagged, None);
    assert_eq!(gaps(&mut tab).await, [lagged, (GapReason::Backplane, None)]);
    // Nothing but this notice is lost.
    cut().await;
    broadcast(4);
    assert_eq!(gaps(&mut tab).await, [lagged]);
    // Nor is any notice now.
    broadcast(5);
    assert_eq!(gaps(&mut tab).await, [(GapReason::Lagged, Some(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_is_replayed_is_not_one_more() {
    let engine = InProcess::new(Level::AtMostOnce);
    let node = engine.node();
    let built = GenericBroadcaster::builder()
        .ring_capacity(4)
        .history(History::new(4));
    let b: Hub = built.backplane(node.clone()).build().expect("valid");
    let cut = async || {
        engine.cut(&node);
        sleep(Duration::from_secs(5)).await;
        engine.mend(&node);
        sleep(Duration::from_secs(5)).await;
    };
    let mut tab = b.register_when_ready("ann").await.expect("room");
    b.broadcast("ann", &text("first")).expect("sent");
    let first = id(&item(&mut tab).await.expect("an event"));
    cut().await;
    let mut back = b.resume("ann", &first).expect("room");
    let gap = item(&mut back).await.expect_err("a gap");
    assert_eq!(gap.reason, GapReason::Backplane);
    cut().await;
    for number in 0..8 {
        b.broadcast("ann", &text(&number.to_string()))
            .expect("sent");
    }
    // A notice and four events are lost.
    let gap = item(&mut back).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Lagged, None));
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
    assert_eq!((gap.reason, gap.missed), (GapReason::Lagged, Some(236)));
    has_lost(&b, &tab, 236);
    let rest = item(&mut tab).await.expect("what the node has");
    assert_eq!(rest.data(), (600 - 64).to_string());
}

/// It has read far into the log by then.
#[tokio::test(start_paused = true)]
async fn what_an_engine_that_goes_away_has_not_returned_is_a_gap() {
    let engine = InProcess::new(Level::Replayable);
    let node = engine.node();
    let (a, b) = (hub(engine.node()), hub(node.clone()));
    let tab = b.register_when_ready("ann").await.expect("room");
    let mut tab = tab.lag_policy(LagPolicy::End);
    say(&a, 0..700).await;
    sleep(Duration::from_secs(1)).await;
    for number in 0..100 {
        assert_eq!(data(&mut tab).await, number.to_string());
    }
    engine.cut(&node);
    let mut number = 100;
    while let Some(event) = tab.next().await {
        assert_eq!(event.expect("an event").data(), number.to_string());
        number += 1;
    }
    assert!(number < 700 - 64);
    assert_eq!(tab.end_reason(), Some(EndReason::Gap));
    assert!(tab.guard().lagged() > 0);
    // It goes on with what the node has.
    let id = LastEventId::new(&tab.restart_id().expect("there is a log"));
    gets(&mut b.resume("ann", &id).expect("room"), 636..700).await;
}
