//! One event for many users over several nodes: what each level means for it.

use std::time::Duration;

use tidings::backplane::Level;
use tidings::{
    BroadcastError, Frame, Gap, GapReason, GenericBroadcaster, History, LastEventId, RelayError,
    Subscription, Text,
};
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::time::timeout;
use tokio_stream::StreamExt;

type Hub = GenericBroadcaster<Text>;

const LEVELS: [Level; 2] = [Level::AtMostOnce, Level::Replayable];

fn hub(node: InProcessNode) -> Hub {
    GenericBroadcaster::builder()
        .backplane(node)
        .build()
        .expect("valid settings")
}

fn text(text: &str) -> Text {
    Text::new(text)
}

async fn item(stream: &mut Subscription) -> Result<std::sync::Arc<Frame>, Gap> {
    timeout(Duration::from_secs(60), stream.next())
        .await
        .expect("something comes")
        .expect("the stream goes on")
}

/// All that comes without waiting for more than a while.
async fn rest(stream: &mut Subscription) -> Vec<String> {
    let mut got = Vec::new();
    while let Ok(next) = timeout(Duration::from_secs(5), stream.next()).await {
        got.push(next.expect("it goes on").expect("no gap").data());
    }
    got
}

fn id(frame: &Frame) -> LastEventId {
    let id = frame.fields().find(|(name, _)| *name == "id");
    LastEventId::new(id.expect("it has an id").1)
}

#[tokio::test(start_paused = true)]
async fn an_event_for_many_reaches_their_streams_on_all_nodes_once() {
    for level in LEVELS {
        let engine = InProcess::new(level);
        let (a, b) = (hub(engine.node()), hub(engine.node()));
        let mut ann_a = a.register_when_ready("ann").await.expect("room");
        let mut ann_b = b.register_when_ready("ann").await.expect("room");
        let mut bob_b = b.register_when_ready("bob").await.expect("room");
        let mut cid_a = a.register_when_ready("cid").await.expect("room");
        for n in 0..3 {
            a.broadcast("ann", &text(&format!("one {n}")))
                .expect("sent");
            let reach = a.broadcast_many(["ann", "bob", "nobody"], &text(&format!("many {n}")));
            let reach = reach.expect("sent");
            assert_eq!((reach.users, reach.streams), (1, 1), "what is here");
        }
        let ann = ["one 0", "many 0", "one 1", "many 1", "one 2", "many 2"];
        assert_eq!(rest(&mut ann_a).await, ann);
        assert_eq!(rest(&mut ann_b).await, ann);
        assert_eq!(rest(&mut bob_b).await, ["many 0", "many 1", "many 2"]);
        assert!(rest(&mut cid_a).await.is_empty());
    }
}

/// Each node knows its own users. Theirs are the streams on all nodes; users of other nodes are not known.
#[tokio::test(start_paused = true)]
async fn an_event_for_all_is_for_the_users_of_this_node_wherever_their_streams_are() {
    for level in LEVELS {
        let engine = InProcess::new(level);
        let (a, b) = (hub(engine.node()), hub(engine.node()));
        let mut ann_a = a.register_when_ready("ann").await.expect("room");
        let mut ann_b = b.register_when_ready("ann").await.expect("room");
        let mut bob_b = b.register_when_ready("bob").await.expect("room");
        let reach = a.broadcast_all(&text("all")).expect("sent");
        assert_eq!((reach.users, reach.away, reach.streams), (1, 0, 1));
        assert_eq!(rest(&mut ann_a).await, ["all"]);
        assert_eq!(rest(&mut ann_b).await, ["all"]);
        assert!(rest(&mut bob_b).await.is_empty(), "A does not know Bob");
        // What is for everybody names everybody.
        a.broadcast_many(["ann", "bob"], &text("everybody"))
            .expect("sent");
        for tab in [&mut ann_a, &mut ann_b, &mut bob_b] {
            assert_eq!(rest(tab).await, ["everybody"]);
        }
    }
}

/// The log of each user has it, also of one whom no node knows any more.
#[tokio::test(start_paused = true)]
async fn replayable_a_user_who_is_nowhere_gets_it_on_any_node() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let publisher = hub(engine.node());
    let mut tabs = Vec::new();
    let mut seen = Vec::new();
    for user in ["ann", "bob"] {
        let mut tab = a.register_when_ready(user).await.expect("room");
        publisher.broadcast(user, &text("0")).expect("sent");
        seen.push(id(&item(&mut tab).await.expect("an event")));
        tabs.push(tab);
    }
    let bob = tabs.pop();
    drop(bob);
    let reach = publisher.broadcast_many(["ann", "bob"], &text("1"));
    assert_eq!(reach.expect("sent").users, 0, "it knows neither");
    publisher.broadcast("bob", &text("2")).expect("sent");
    let ann = item(&mut tabs[0]).await.expect("an event");
    assert_eq!(ann.data(), "1");
    let mut bob = b.resume("bob", &seen[1]).expect("room");
    assert_eq!(rest(&mut bob).await, ["1", "2"]);
    // The same event has the same id on all nodes.
    let mut again = b.resume("ann", &seen[0]).expect("room");
    let there = item(&mut again).await.expect("an event");
    assert_eq!(there.as_bytes(), ann.as_bytes());
}

/// Who is away from this node and has a history here is one of its users.
#[tokio::test(start_paused = true)]
async fn a_user_who_is_away_counts_and_gets_the_event_later() {
    for level in LEVELS {
        let engine = InProcess::new(level);
        let a: Hub = GenericBroadcaster::builder()
            .backplane(engine.node())
            .history(History::new(10))
            .build()
            .expect("valid settings");
        let bob = a.register_when_ready("bob").await.expect("room");
        let seen = LastEventId::new(&bob.cursor().expect("a history"));
        drop(bob);
        let reach = a.broadcast_all(&text("1")).expect("sent");
        assert_eq!((reach.users, reach.away, reach.streams), (1, 1, 0));
        let reach = a.broadcast_many(["bob"], &text("2")).expect("sent");
        assert_eq!((reach.users, reach.away, reach.streams), (1, 1, 0));
        let mut bob = a.resume("bob", &seen).expect("room");
        assert_eq!(rest(&mut bob).await, ["1", "2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_without_room_is_an_error_and_reported_to_its_users() {
    for level in LEVELS {
        let engine = InProcess::new(level);
        let a: Hub = GenericBroadcaster::builder()
            .backplane(engine.node())
            .backplane_queue(1, 1 << 20)
            .build()
            .expect("valid settings");
        let b = hub(engine.node());
        let users: Vec<String> = (0..40).map(|user| format!("user-{user}")).collect();
        let mut tabs = Vec::new();
        for user in &users {
            tabs.push(b.register_when_ready(user.as_str()).await.expect("room"));
        }
        let error = a.broadcast_many(&users, &text("1")).expect_err("no room");
        let BroadcastError::NotRelayed { reached, reason } = error else {
            panic!("{error}");
        };
        assert_eq!((reached, reason), (0, RelayError::QueueFull));
        let mut told = 0;
        for tab in &mut tabs {
            match item(tab).await {
                Ok(frame) => assert_eq!(frame.data(), "1"),
                Err(gap) => {
                    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, Some(1)));
                    told += 1;
                }
            }
        }
        // Eight parts of the queue have room for one each.
        assert!((32..40).contains(&told), "{told}");
        let refused = a.stats().backplane.expect("there is one").refused;
        assert_eq!(refused, told);
    }
}

/// Without a connection, and on a node that does not know the user.
#[tokio::test(start_paused = true)]
async fn replayable_a_position_is_one_on_every_node() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut tab = a.register_when_ready("ann").await.expect("room");
    a.broadcast("ann", &text("seen")).expect("sent");
    assert_eq!(item(&mut tab).await.expect("an event").data(), "seen");
    for hub in [&a, &b] {
        let position = hub.position("ann").expect("the log has places");
        a.broadcast("ann", &text("next")).expect("sent");
        assert_eq!(item(&mut tab).await.expect("an event").data(), "next");
        for node in [&a, &b] {
            let from = LastEventId::from(position.clone());
            let mut stream = node.resume("ann", &from).expect("room");
            assert_eq!(rest(&mut stream).await, ["next"]);
        }
    }
    let engine = InProcess::new(Level::AtMostOnce);
    assert_eq!(hub(engine.node()).position("ann"), None);
}

/// A node that was cut off reads it from the log, or tells.
#[tokio::test(start_paused = true)]
async fn a_cut_is_reported_to_each_of_many_without_a_log_and_healed_with_one() {
    for level in LEVELS {
        let engine = InProcess::new(level);
        let a = hub(engine.node());
        let cut = engine.node();
        let b = hub(cut.clone());
        let mut tabs = Vec::new();
        for user in ["ann", "bob"] {
            tabs.push(b.register_when_ready(user).await.expect("room"));
        }
        engine.cut(&cut);
        a.broadcast_many(["ann", "bob"], &text("1")).expect("sent");
        a.broadcast_confirmed("ann", &text("2"))
            .await
            .expect("sent");
        engine.mend(&cut);
        for (n, tab) in tabs.iter_mut().enumerate() {
            if level == Level::AtMostOnce {
                let gap = item(tab).await.expect_err("a gap");
                assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
            } else {
                let expected = [vec!["1", "2"], vec!["1"]];
                assert_eq!(rest(tab).await, expected[n]);
            }
        }
    }
}
