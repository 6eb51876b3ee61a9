//! A client that gets no event for a long time: the keep-alive carries the current position of the history, so that the client
//! can reconnect with a useful id and gets a gap only if it lacks something.

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::BodyExt;
use tidings::backplane::Level;
use tidings::sse::{Chunks, Cursor, View};
use tidings::{
    Frame, GenericBroadcaster, HEARTBEAT_INTERVAL, History, KeepAlive, LagPolicy, LastEventId,
    SseBody, Subscription, Text, standard_keep_alive,
};
use tidings_testkit::backplane::InProcess;
use tidings_testkit::{Decoder, Item};
use tokio::time::{Instant, advance, sleep};

type Hub = GenericBroadcaster<Text>;

fn alone(history: History) -> Hub {
    let hub = Hub::builder().history(history).ring_capacity(2);
    hub.build().expect("valid settings")
}

fn node(engine: &InProcess) -> Hub {
    let hub = Hub::builder().backplane(engine.node());
    hub.build().expect("valid settings")
}

fn send(hub: &Hub, user: &str, data: impl ToString) {
    let sent = hub.broadcast(user, &Text::new(data.to_string()));
    sent.expect("text can be encoded");
}

fn join(hub: &Hub) -> Subscription {
    hub.register("ann").expect("no cap is reached")
}

fn resume(hub: &Hub, id: &str) -> Subscription {
    let id = LastEventId::new(id);
    hub.resume("ann", &id).expect("no cap is reached")
}

async fn chunk(body: &mut SseBody) -> String {
    let frame = body.frame().await.expect("it goes on").expect("no error");
    let bytes = frame.into_data().expect("data");
    String::from_utf8(bytes.into()).expect("UTF-8")
}

/// What is written into the next silence.
async fn beat(body: &mut SseBody) -> String {
    let start = Instant::now();
    let chunk = chunk(body).await;
    assert_eq!(start.elapsed(), HEARTBEAT_INTERVAL, "{chunk:?}");
    chunk
}

/// The beginning of a stream that begins with its id, and the epoch of that.
async fn opened(body: &mut SseBody) -> String {
    let first = chunk(body).await;
    let id = first.strip_prefix("id: ").expect("an id");
    id.split_once('-').expect("an epoch").0.to_owned()
}

/// What a client has after these bytes: its last id, as a browser has it, the events and the gaps.
fn client(bytes: &str, last: &str) -> (String, Vec<String>, Vec<String>) {
    let mut decoder = Decoder::resuming(last);
    decoder.push(bytes.as_bytes());
    let (mut last, mut events, mut gaps) = (last.to_owned(), Vec::new(), Vec::new());
    for item in decoder {
        match item {
            Item::Id(id) => last = id,
            Item::Message(message) => {
                last.clone_from(&message.id);
                match &*message.event {
                    "gap" => gaps.push(message.data),
                    _ => events.push(message.data),
                }
            }
            _ => {}
        }
    }
    (last, events, gaps)
}

/// All that a client gets that comes back with this id, until nothing comes for a while.
async fn comes_back(hub: &Hub, id: &str) -> (Vec<String>, Vec<String>) {
    let mut body = SseBody::new(resume(hub, id)).keep_alive(&KeepAlive::off());
    let mut bytes = String::new();
    for _ in 0..10 {
        while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
            let data = frame.into_data().expect("data");
            bytes.push_str(std::str::from_utf8(&data).expect("UTF-8"));
        }
        sleep(Duration::from_millis(200)).await;
    }
    let (_, events, gaps) = client(&bytes, id);
    (events, gaps)
}

// What is written

#[tokio::test(start_paused = true)]
async fn a_silence_brings_the_place_that_the_log_has_moved_on_to_once() {
    let engine = InProcess::new(Level::Replayable);
    let hub = node(&engine);
    let mut body = SseBody::new(join(&hub));
    let epoch = opened(&mut body).await;
    assert_eq!(beat(&mut body).await, ":\n", "it is where it was");
    for number in 0..3 {
        send(&hub, "bob", number);
    }
    assert_eq!(beat(&mut body).await, format!("id: {epoch}-3\n\n"));
    assert_eq!(beat(&mut body).await, ":\n", "the client has that id");
    send(&hub, "ann", "x");
    let event = format!("id: {epoch}-4\ndata: x\n\n");
    assert_eq!(chunk(&mut body).await, event);
    assert_eq!(beat(&mut body).await, ":\n", "the event had it");
    send(&hub, "bob", "y");
    assert_eq!(beat(&mut body).await, format!("id: {epoch}-5\n\n"));
    assert_eq!(beat(&mut body).await, ":\n");
}

/// Everything.
struct Whole;

impl View for Whole {
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        chunks.push(frame.to_bytes());
        ControlFlow::Continue(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_place_comes_in_the_form_of_the_cursor_and_not_at_all_where_there_is_none() {
    const BEAT: &str = "event: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n";
    const BLOCK: &str = "id: ID\n\n";
    const EVENT: &str = "id: ID\nevent: cursor\ndata: {\"id\":\"ID\"}\n\n";
    const BEAT_WITH_ID: &str = "id: ID\nevent: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n";
    let engine = InProcess::new(Level::Replayable);
    let hub = node(&engine);
    let body = || SseBody::new(join(&hub));
    let interval = KeepAlive::comment().interval(HEARTBEAT_INTERVAL);
    let strict = || join(&hub).lag_policy(LagPolicy::End);
    let strict = || SseBody::new(strict()).keep_alive(&interval);
    let beating = || body().keep_alive(&standard_keep_alive());
    let epoch = opened(&mut body()).await;
    let cases = [
        ("by default", body(), BLOCK, ":\n"),
        ("as an event", body().cursor(Cursor::Event), EVENT, ":\n"),
        ("off", body().cursor(false), ":\n", ":\n"),
        ("beating", beating(), BEAT_WITH_ID, BEAT),
        ("both", beating().cursor(Cursor::Event), BEAT_WITH_ID, BEAT),
        ("beat", beating().cursor(false), BEAT, BEAT),
        ("strict", strict(), ":\n", ":\n"),
        ("asked", strict().cursor(true), BLOCK, ":\n"),
        ("a view", body().view(Whole), ":\n", ":\n"),
        ("asked of it", body().view(Whole).cursor(true), BLOCK, ":\n"),
    ];
    for (case, mut body, first, then) in cases {
        chunk(&mut body).await;
        send(&hub, "bob", case);
        let first = first.replace("ID", &format!("{epoch}-{}", end(&hub).await));
        assert_eq!(beat(&mut body).await, first, "{case}");
        assert_eq!(beat(&mut body).await, then, "{case}");
    }
}

/// How many events there are in the log.
async fn end(hub: &Hub) -> String {
    let event = Text::new("end".to_owned());
    let sent = hub.broadcast_confirmed("carl", &event).await;
    sent.expect("the engine is there");
    let cursor = hub.register("dora").expect("no cap is reached").cursor();
    let cursor = cursor.expect("there is a log").to_string();
    cursor.split_once('-').expect("an offset").1.to_owned()
}

/// A history of one node has no events but the user's, and each brings its id.
#[tokio::test(start_paused = true)]
async fn without_other_nodes_a_keep_alive_has_no_id() {
    for policy in [LagPolicy::Gap, LagPolicy::Coalesce] {
        let hub = alone(History::new(4));
        let mut fresh = SseBody::new(join(&hub).lag_policy(policy));
        let epoch = opened(&mut fresh).await;
        assert_eq!(beat(&mut fresh).await, ":\n");
        send(&hub, "ann", 1);
        assert_eq!(
            chunk(&mut fresh).await,
            format!("id: {epoch}-1\ndata: 1\n\n")
        );
        assert_eq!(beat(&mut fresh).await, ":\n");
        // Behind a gap, and back where it was.
        (2..20).for_each(|number| send(&hub, "ann", number));
        assert!(chunk(&mut fresh).await.starts_with("id: "));
        assert_eq!(beat(&mut fresh).await, ":\n");
        let mut back = SseBody::new(resume(&hub, &format!("{epoch}-19")));
        assert_eq!(chunk(&mut back).await, ":\n");
        assert_eq!(beat(&mut back).await, ":\n");
        // Nobody knows that id.
        let mut lost = SseBody::new(resume(&hub, "7"));
        assert!(
            chunk(&mut lost)
                .await
                .starts_with(&format!("id: {epoch}-19\nevent: gap\n"))
        );
        assert_eq!(beat(&mut lost).await, ":\n");
    }
    let hub: Hub = Hub::new();
    let mut body = SseBody::new(join(&hub));
    assert_eq!(chunk(&mut body).await, ":\n");
    send(&hub, "ann", 1);
    assert_eq!(chunk(&mut body).await, "data: 1\n\n");
    assert_eq!(beat(&mut body).await, ":\n");
}

/// The mark says that its client knows of a gap. That is over once the client has come back.
#[tokio::test(start_paused = true)]
async fn a_silence_takes_the_mark_of_a_gap_off_an_id() {
    let hub = alone(History::new(4));
    let mut first = SseBody::new(join(&hub));
    let epoch = opened(&mut first).await;
    let mut body = SseBody::new(resume(&hub, &format!("{epoch}-0~")));
    assert_eq!(chunk(&mut body).await, ":\n");
    assert_eq!(beat(&mut body).await, format!("id: {epoch}-0\n\n"));
    assert_eq!(beat(&mut body).await, ":\n");
}

/// Nothing.
struct Hidden;

impl View for Hidden {
    fn show(&mut self, _: &Frame, _: &mut Chunks) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_shown_nothing_resumes_after_the_hidden_events() {
    let hub = alone(History::new(2));
    let mut body = SseBody::new(join(&hub)).view(Hidden).cursor(true);
    let epoch = opened(&mut body).await;
    for number in 1..10 {
        send(&hub, "ann", number);
        assert!(body.frame().now_or_never().is_none());
    }
    let given = beat(&mut body).await;
    assert_eq!(given, format!("id: {epoch}-9\n\n"));
    assert_eq!(beat(&mut body).await, ":\n");
    let (last, ..) = client(&given, "");
    assert_eq!(comes_back(&hub, &last).await, (vec![], vec![]));
    let (_, gaps) = comes_back(&hub, &format!("{epoch}-0")).await;
    assert_eq!(gaps, [r#"{"reason":"evicted","missed":7}"#]);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_from_the_log_leaves_the_stream_where_the_log_was_read_up_to() {
    let engine = InProcess::new(Level::Replayable);
    let (here, there) = (node(&engine), node(&engine));
    let mut body = SseBody::new(join(&here));
    let epoch = opened(&mut body).await;
    (1..=3).for_each(|number| send(&here, "ann", number));
    sleep(Duration::from_secs(1)).await;
    send(&here, "bob", 4);
    sleep(Duration::from_secs(1)).await;
    let mut body = SseBody::new(resume(&there, &format!("{epoch}-1")));
    let mut bytes = String::new();
    while !bytes.contains("data: 3") {
        bytes.push_str(&chunk(&mut body).await);
    }
    let expected = format!(":\nid: {epoch}-2\ndata: 2\n\nid: {epoch}-3\ndata: 3\n\n");
    assert_eq!(bytes, expected);
    assert_eq!(beat(&mut body).await, format!("id: {epoch}-4\n\n"));
    assert_eq!(beat(&mut body).await, ":\n");
}

// Coming back

/// Positions of one node are counted for each user, so nothing is behind the newest, kept or not.
#[tokio::test(start_paused = true)]
async fn after_the_newest_event_nothing_is_missing_although_it_was_too_old_to_be_kept() {
    let age = Duration::from_secs(60);
    let hub = alone(History::new(8).age(age));
    let mut body = SseBody::new(join(&hub));
    let epoch = opened(&mut body).await;
    send(&hub, "ann", 1);
    send(&hub, "ann", 2);
    chunk(&mut body).await;
    advance(2 * age).await;
    hub.sweep();
    assert_eq!(hub.stats().history_bytes, 0, "nothing is kept");
    assert_eq!(
        comes_back(&hub, &format!("{epoch}-2")).await,
        (vec![], vec![])
    );
    let (_, gaps) = comes_back(&hub, &format!("{epoch}-1")).await;
    assert_eq!(gaps, [r#"{"reason":"evicted","missed":1}"#]);
}

/// The newest event of a user who was quiet for longer than the engine keeps anything, while other users were not.
#[tokio::test(start_paused = true)]
async fn a_quiet_client_moves_on_with_the_log_and_comes_back_to_any_node_without_a_gap() {
    let engine = InProcess::new(Level::Replayable);
    let (here, there) = (node(&engine), node(&engine));
    let mut body = SseBody::new(join(&here));
    opened(&mut body).await;
    send(&here, "ann", "x");
    let (old, ..) = client(&chunk(&mut body).await, "");
    (0..3).for_each(|number| send(&here, "bob", number));
    let (new, ..) = client(&beat(&mut body).await, &old);
    engine.expire();
    send(&here, "bob", "now");
    sleep(Duration::from_millis(10)).await;

    // This node has the user's channel, and knows that nothing has come.
    assert_eq!(comes_back(&here, &old).await, (vec![], vec![]));
    assert_eq!(comes_back(&there, &new).await, (vec![], vec![]));
    // Nothing in the log tells another node what was behind the old id.
    let (_, gaps) = comes_back(&there, &old).await;
    assert_eq!(gaps, [r#"{"reason":"evicted","missed":null}"#]);

    // What does come is not missed for it.
    drop(body);
    send(&here, "ann", "y");
    sleep(Duration::from_millis(10)).await;
    let third = node(&engine);
    assert_eq!(
        comes_back(&third, &new).await,
        (vec!["y".to_owned()], vec![])
    );
}

/// Where nobody else has anything in the log, it ends at the user's event.
#[tokio::test(start_paused = true)]
async fn after_the_newest_event_of_the_log_nothing_is_missing() {
    let engine = InProcess::new(Level::Replayable);
    let (here, there) = (node(&engine), node(&engine));
    let mut body = SseBody::new(join(&here));
    opened(&mut body).await;
    send(&here, "ann", "x");
    let (id, ..) = client(&chunk(&mut body).await, "");
    engine.expire();
    assert_eq!(comes_back(&there, &id).await, (vec![], vec![]));
    assert_eq!(comes_back(&here, &id).await, (vec![], vec![]));
}

// Over NATS

mod over_nats {
    use async_nats::ConnectOptions;
    use async_nats::jetstream;
    use tidings_nats::{Log, Nats, Settings};
    use tokio::time::timeout;

    use super::*;
    use crate::support::nats::Server;

    const BOUND: Duration = Duration::from_secs(60);
    const AGE: Duration = Duration::from_secs(1);

    async fn node(server: &Server) -> Hub {
        let log = Log::new("QUIET").max_age(AGE).duplicate_window(AGE);
        let settings = Settings::new("quiet").replayable(log);
        let options = ConnectOptions::new().ignore_discovered_servers();
        let nats = Nats::connect(&server.url(), options, settings).await;
        let hub = Hub::builder().backplane(nats.expect("it connects"));
        hub.build().expect("valid settings")
    }

    async fn confirmed(hub: &Hub, user: &str, data: &str) {
        let event = Text::new(data.to_owned());
        let sent = hub.broadcast_confirmed(user, &event).await;
        sent.expect("the server takes it");
    }

    /// Reads until the client has an id behind this one.
    async fn moves_on(body: &mut SseBody, last: &str) -> String {
        let reading = async {
            loop {
                let (id, ..) = client(&chunk(body).await, last);
                if id != last {
                    return id;
                }
            }
        };
        timeout(BOUND, reading).await.expect("it moves on")
    }

    #[tokio::test]
    async fn a_client_that_was_quiet_for_longer_than_the_log_keeps_anything_has_no_gap() {
        let server = Server::start();
        let here = self::node(&server).await;
        let beats = KeepAlive::comment().interval(Duration::from_millis(50));
        let stream = here.register_when_ready("ann").await;
        let body = SseBody::new(stream.expect("no cap is reached"));
        let mut body = body.keep_alive(&beats);
        opened(&mut body).await;
        confirmed(&here, "ann", "x").await;
        let old = moves_on(&mut body, "").await;
        confirmed(&here, "bob", "y").await;
        let new = moves_on(&mut body, &old).await;
        assert_ne!(old, new);

        let context = jetstream::new(async_nats::connect(server.url()).await.expect("connects"));
        let stream = context.get_stream("QUIET").await.expect("there is a log");
        let emptied = async {
            while stream.get_info().await.expect("an answer").state.messages > 0 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(BOUND, emptied).await.expect("all is too old");
        // What comes now stays until the end of the test.
        let mut config = stream.cached_info().config.clone();
        config.max_age = Duration::from_secs(3600);
        let updated = context.update_stream(config).await;
        updated.expect("a stream's age may be changed");
        let there = self::node(&server).await;
        confirmed(&there, "bob", "z").await;
        assert_eq!(comes_back(&there, &new).await, (vec![], vec![]));
        // What the log cannot say.
        let (_, gaps) = comes_back(&there, &old).await;
        assert_eq!(gaps, [r#"{"reason":"evicted","missed":null}"#]);
    }
}
