//! With `local_after`, streams get their own node's events without the engine once it has been away for a while. They get a gap
//! before and after, and no connection gets an event twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings::backplane::{Backplane, BackplaneError, Level, Message, Published};
use tidings::{Frame, GapReason, GenericBroadcaster, History, LastEventId, Subscription, Text};
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;

use crate::support::wrapped::{Answers, Wrapped};

type Hub = GenericBroadcaster<Text>;

const AFTER: Duration = Duration::from_secs(10);
/// A second less, and one more.
const SHORT: Duration = Duration::from_secs(9);
const LONG: Duration = Duration::from_secs(11);

fn hub(node: impl Backplane) -> Hub {
    GenericBroadcaster::builder()
        .backplane(node)
        .local_after(AFTER)
        // Kept for those who come back.
        .history(History::new(10_000))
        .connections_per_user(None)
        .build()
        .expect("valid settings")
}

fn say(hub: &Hub, text: &str) {
    hub.broadcast("ann", &Text::new(text)).expect("kept");
}

fn id(frame: &Frame) -> Option<LastEventId> {
    let id = frame.fields().find(|(name, _)| *name == "id");
    id.map(|(_, id)| LastEventId::new(id))
}

/// What a stream yields without waiting for long: events, with a `+` those that have an id, and gaps.
async fn rest(stream: &mut Subscription) -> Vec<String> {
    let mut got = Vec::new();
    while let Ok(next) = timeout(Duration::from_millis(900), stream.next()).await {
        got.push(match next.expect("the stream goes on") {
            Ok(frame) if id(&frame).is_some() => format!("{}+", frame.data()),
            Ok(frame) => frame.data(),
            Err(gap) => {
                assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
                "gap".into()
            }
        });
    }
    got
}

async fn tab(hub: &Hub) -> Subscription {
    hub.register_when_ready("ann").await.expect("room")
}

#[tokio::test(start_paused = true)]
async fn nothing_is_seen_of_a_short_outage() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let mut here = tab(&a).await;
    for round in 0..3 {
        engine.stop();
        say(&a, &format!("{round}"));
        assert!(rest(&mut here).await.is_empty());
        sleep(SHORT - Duration::from_secs(1)).await;
        assert!(rest(&mut here).await.is_empty());
        engine.start();
        assert_eq!(rest(&mut here).await, [format!("{round}+")]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_outage_is_none() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let mut here = tab(&a).await;
    engine.stop();
    sleep(LONG).await;
    say(&a, "1");
    sleep(SHORT - Duration::from_secs(1)).await;
    assert!(rest(&mut here).await.is_empty(), "it has waited for less");
    engine.start();
    assert_eq!(rest(&mut here).await, ["1+"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_reported_bridged_and_reported_again() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let (mut here, mut there) = (tab(&a).await, tab(&b).await);
    say(&a, "0");
    assert_eq!(rest(&mut here).await, ["0+"]);
    assert_eq!(rest(&mut there).await, ["0+"]);
    engine.stop();
    say(&a, "a1");
    sleep(SHORT).await;
    say(&b, "b1");
    assert!(rest(&mut here).await.is_empty());
    sleep(Duration::from_secs(1)).await;
    // The second has not waited for as long, but the engine has been away for as long.
    say(&a, "a2");
    assert_eq!(rest(&mut here).await, ["gap", "a1", "a2"]);
    say(&a, "a3");
    assert_eq!(
        rest(&mut here).await,
        ["a3"],
        "immediately, and no other gap"
    );
    assert!(
        rest(&mut there).await.is_empty(),
        "its node has not waited so long"
    );
    engine.start();
    assert_eq!(rest(&mut here).await, ["gap", "b1+"]);
    let got = rest(&mut there).await;
    let of_a = got.iter().filter(|text| text.starts_with('a'));
    let of_a: Vec<&str> = of_a.map(String::as_str).collect();
    assert_eq!(
        (got.len(), of_a),
        (4, vec!["a1+", "a2+", "a3+"]),
        "the log's order, without a gap"
    );
    say(&a, "a4");
    say(&b, "b2");
    let (mut one, other) = (rest(&mut here).await, rest(&mut there).await);
    assert_eq!(one, other);
    one.sort();
    assert_eq!(one, ["a4+", "b2+"]);
}

#[tokio::test(start_paused = true)]
async fn by_default_events_wait_for_however_long() {
    let engine = InProcess::new(Level::Replayable);
    let a: Hub = GenericBroadcaster::builder()
        .backplane(engine.node())
        .build()
        .expect("valid settings");
    let mut here = tab(&a).await;
    engine.stop();
    say(&a, "1");
    sleep(Duration::from_secs(3600)).await;
    assert!(rest(&mut here).await.is_empty());
    engine.start();
    assert_eq!(rest(&mut here).await, ["1+"]);
}

#[tokio::test(start_paused = true)]
async fn both_nodes_go_on_and_come_back_to_one_order() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let (mut here, mut there) = (tab(&a).await, tab(&b).await);
    engine.stop();
    say(&a, "a1");
    say(&b, "b1");
    sleep(LONG).await;
    say(&a, "a2");
    say(&b, "b2");
    assert_eq!(rest(&mut here).await, ["gap", "a1", "a2"]);
    assert_eq!(rest(&mut there).await, ["gap", "b1", "b2"]);
    engine.start();
    assert_eq!(rest(&mut here).await, ["gap", "b1+", "b2+"]);
    assert_eq!(rest(&mut there).await, ["gap", "a1+", "a2+"]);
}

/// Whatever its client has seen of it then, it is not told twice on one connection, and not silently lost.
#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_during_an_outage_gets_what_was_shown() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut here = tab(&a).await;
    say(&a, "0");
    let zero = here.next().await.expect("open").expect("an event");
    say(&a, "1");
    let one = here.next().await.expect("open").expect("an event");
    engine.stop();
    say(&a, "2");
    sleep(LONG).await;
    say(&a, "3");
    assert_eq!(rest(&mut here).await, ["gap", "2", "3"]);
    drop(here);
    let mut last = a.resume("ann", &id(&one).expect("an id")).expect("room");
    assert_eq!(rest(&mut last).await, ["gap", "2", "3"]);
    let mut before = a.resume("ann", &id(&zero).expect("an id")).expect("room");
    assert_eq!(rest(&mut before).await, ["1+", "gap", "2", "3"]);
    let mut fresh = a.register("ann").expect("room");
    say(&a, "4");
    for tab in [&mut last, &mut before, &mut fresh] {
        assert_eq!(rest(tab).await, ["4"]);
    }
    engine.start();
    for tab in [&mut last, &mut before] {
        assert_eq!(rest(tab).await, ["gap"]);
    }
    // The log returns what was broadcast before this one was there.
    assert_eq!(rest(&mut fresh).await, ["gap", "2+", "3+"]);
    say(&b, "5");
    for tab in [&mut last, &mut before, &mut fresh] {
        assert_eq!(rest(tab).await, ["5+"]);
    }
    // And with the old id, on either node: everything once.
    for hub in [&a, &b] {
        let mut tab = hub.resume("ann", &id(&one).expect("an id")).expect("room");
        let mut got = rest(&mut tab).await;
        got.retain(|text| text != "gap");
        let got: Vec<_> = got.iter().map(|text| text.trim_end_matches('+')).collect();
        assert_eq!(got, ["2", "3", "4", "5"]);
    }
}

/// The log may have it, in the form of an event that nobody was shown.
#[tokio::test(start_paused = true)]
async fn an_event_whose_acknowledgement_was_lost_waits_for_the_log() {
    let engine = InProcess::new(Level::Replayable);
    let node = engine.node();
    let a = hub(node.clone());
    let mut here = tab(&a).await;
    engine.lose_acknowledgements(1);
    // Nor does it arrive.
    engine.lose_sends(1);
    say(&a, "1");
    tokio::task::yield_now().await;
    while node.horizon().expect("a log").offset == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    engine.stop();
    say(&a, "2");
    sleep(LONG).await;
    assert_eq!(rest(&mut here).await, ["gap", "2"]);
    engine.start();
    assert_eq!(rest(&mut here).await, ["gap", "1+"]);
}

/// An engine that can be reached, and does not answer.
struct Silent {
    speaks: Arc<Semaphore>,
}

#[async_trait]
impl Answers for Silent {
    async fn publish(
        &self,
        node: &InProcessNode,
        messages: &[Message],
    ) -> Result<Vec<Published>, BackplaneError> {
        drop(self.speaks.acquire().await);
        node.publish(messages).await
    }
}

/// Its log has no leader, or no quorum.
#[tokio::test(start_paused = true)]
async fn an_engine_that_refuses_everything_for_now_is_away_as_well() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let mut here = tab(&a).await;
    engine.refuse("ann", Some(false));
    say(&a, "1");
    sleep(SHORT).await;
    assert!(rest(&mut here).await.is_empty());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(rest(&mut here).await, ["gap", "1"]);
    engine.refuse("ann", None);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(rest(&mut here).await, ["gap"]);
    say(&a, "2");
    assert_eq!(rest(&mut here).await, ["2+"]);
}

/// More than its ring and its history hold, all of which came after the place that the client had.
#[tokio::test(start_paused = true)]
async fn a_stream_that_lags_over_events_already_shown_gets_a_gap() {
    let engine = InProcess::new(Level::Replayable);
    let a: Hub = GenericBroadcaster::builder()
        .backplane(engine.node())
        .local_after(AFTER)
        .build()
        .expect("valid settings");
    let mut first = tab(&a).await;
    say(&a, "0");
    let zero = id(&first.next().await.expect("open").expect("an event")).expect("an id");
    let mut fresh = a.register("ann").expect("room");
    let mut back = a.resume("ann", &zero).expect("room");
    engine.stop();
    say(&a, "1");
    sleep(LONG).await;
    for stream in [&mut fresh, &mut back] {
        assert_eq!(rest(stream).await, ["gap", "1"]);
    }
    // Nobody reads meanwhile.
    for number in 2..200 {
        say(&a, &number.to_string());
    }
    sleep(Duration::from_secs(1)).await;
    for stream in [&mut fresh, &mut back] {
        let gap = stream.next().await.expect("open").expect_err("a gap");
        assert_eq!(gap.reason, GapReason::Lagged);
        let missed = gap.missed.expect("it is known");
        let left: Vec<_> = (missed + 2..200).map(|number| number.to_string()).collect();
        assert_eq!(rest(stream).await, left);
    }
    engine.start();
    // It has had what the log returns, or was told.
    let got = tokio::join!(rest(&mut fresh), rest(&mut back));
    assert_eq!(got, (vec!["gap".into()], vec!["gap".into()]));
    say(&a, "end");
    for stream in [&mut fresh, &mut back] {
        assert_eq!(rest(stream).await, ["end+"]);
    }
}

/// The one that it was given may be in its log; those behind that one are not.
#[tokio::test(start_paused = true)]
async fn an_engine_that_is_silent_is_away_as_well() {
    let engine = InProcess::new(Level::Replayable);
    let speaks = Arc::new(Semaphore::new(0));
    let a = hub(Wrapped {
        node: engine.node(),
        answers: Silent {
            speaks: speaks.clone(),
        },
    });
    let mut here = tab(&a).await;
    say(&a, "1");
    sleep(Duration::from_secs(1)).await;
    say(&a, "2");
    sleep(SHORT - Duration::from_secs(1)).await;
    assert!(rest(&mut here).await.is_empty());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rest(&mut here).await, ["gap", "2"]);
    say(&a, "3");
    assert_eq!(rest(&mut here).await, ["3"]);
    speaks.add_permits(1);
    assert_eq!(rest(&mut here).await, ["gap", "1+"]);
    say(&a, "4");
    assert_eq!(rest(&mut here).await, ["4+"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_shown_has_no_id_of_its_own() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let mut here = tab(&a).await;
    engine.stop();
    let event = Text::new("1").id(tidings::EventId::from(7)).event("turn");
    a.broadcast("ann", &event).expect("kept");
    sleep(LONG).await;
    here.next().await.expect("open").expect_err("a gap");
    let frame = here.next().await.expect("open").expect("an event");
    assert_eq!(frame.as_bytes(), b"event: turn\ndata: 1\n\n");
}

/// Outages of all lengths, events on two nodes, clients that stay and clients that come and go.
#[tokio::test(start_paused = true)]
async fn no_connection_gets_an_event_twice_or_misses_one_in_silence() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let engine = InProcess::new(Level::Replayable);
        let nodes = [engine.node(), engine.node()];
        let hubs = nodes.each_ref().map(|node| hub(node.clone()));
        let mut tabs = Vec::new();
        for hub in &hubs {
            tabs.push((tab(hub).await, Vec::new(), 0, None));
        }
        let (mut count, mut is_up) = (0, true);
        for _ in 0..60 {
            match rng.u32(..10) {
                0..4 => {
                    for _ in 0..rng.usize(1..4) {
                        let at = rng.usize(..2);
                        say(&hubs[at], &format!("{at} {count}"));
                        count += 1;
                    }
                }
                4..6 => {
                    is_up = !is_up;
                    match is_up {
                        true => engine.start(),
                        false => engine.stop(),
                    }
                }
                6 => {
                    let at = rng.usize(..2);
                    engine.cut(&nodes[at]);
                    sleep(Duration::from_millis(rng.u64(..25_000))).await;
                    engine.mend(&nodes[at]);
                }
                7 => {
                    let from = rng.usize(..tabs.len());
                    let last: Option<LastEventId> = tabs[from].3;
                    if let Some(last) = last {
                        let hub = &hubs[rng.usize(..2)];
                        let back = hub.resume("ann", &last).expect("room");
                        // It has what the other had, and need not get it again.
                        let had = tabs[from].1.clone();
                        let told = tabs[from].2;
                        tabs.push((
                            back,
                            had.into_iter().chain(["back".into()]).collect(),
                            told,
                            Some(last),
                        ));
                    }
                }
                8 if is_up => engine.lose_acknowledgements(1),
                _ => sleep(Duration::from_millis(rng.u64(..25_000))).await,
            }
            for (stream, got, gaps, last) in &mut tabs {
                while let Ok(Some(item)) = timeout(Duration::ZERO, stream.next()).await {
                    match item {
                        Ok(frame) => {
                            *last = id(&frame).or(last.take());
                            got.push(frame.data());
                        }
                        Err(_) => *gaps += 1,
                    }
                }
            }
        }
        engine.start();
        sleep(Duration::from_secs(60)).await;
        for (number, (stream, got, gaps, _)) in tabs.iter_mut().enumerate() {
            while let Ok(Some(item)) = timeout(Duration::from_secs(1), stream.next()).await {
                match item {
                    Ok(frame) => got.push(frame.data()),
                    Err(_) => *gaps += 1,
                }
            }
            let own = got
                .iter()
                .rposition(|text| text == "back")
                .map_or(0, |at| at + 1);
            let unique: HashSet<_> = got[own..].iter().collect();
            assert_eq!(
                unique.len(),
                got.len() - own,
                "seed {seed}, tab {number}: {got:?}"
            );
            let all: HashSet<_> = got.iter().filter(|text| *text != "back").collect();
            assert_eq!(
                all.len(),
                count,
                "seed {seed}, tab {number}, {gaps} gaps: {got:?}"
            );
        }
    }
}
