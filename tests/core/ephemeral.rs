//! Ephemeral events: sent to the streams that are open, in their place among the others, and never kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tidings::backplane::Level;
use tidings::sse::SseBody;
use tidings::{
    BroadcastError, Data, EncodeError, EndReason, EventId, Gap, GapReason, GenericBroadcaster,
    History, KeepAlive, LagPolicy, LastEventId, Subscription, Text, ToSse,
};
use tidings_testkit::backplane::InProcess;
use tokio::time::timeout;

type Hub = GenericBroadcaster<Text>;

fn hubs() -> Vec<(&'static str, Hub)> {
    let build = |builder: tidings::Builder<Text>| {
        let small = builder.ring_capacity(4).connections_per_user(None);
        small.build().expect("valid settings")
    };
    let history = || Hub::builder().history(History::new(100));
    let coalescing =
        |builder: tidings::Builder<Text>| builder.lag_policy(LagPolicy::Coalesce).coalesce_keys(2);
    vec![
        ("plain", build(Hub::builder())),
        ("history", build(history())),
        ("coalescing", build(coalescing(Hub::builder()))),
        ("both", build(coalescing(history()))),
    ]
}

fn with_history(events: usize) -> Hub {
    let builder = Hub::builder().ring_capacity(4);
    let builder = builder.history(History::new(events));
    builder.build().expect("valid settings")
}

fn join(hub: &Hub) -> Subscription {
    hub.register("ann").expect("no cap is reached")
}

fn send(hub: &Hub, text: &str) -> usize {
    hub.broadcast("ann", &Text::new(text)).expect("text")
}

fn pass(hub: &Hub, text: &str) -> usize {
    hub.broadcast_ephemeral("ann", &Text::new(text))
        .expect("text")
}

/// What a stream has ready, gaps as their numbers, and its end.
fn ready(stream: &mut Subscription) -> Vec<String> {
    let mut ready = Vec::new();
    while let Some(item) = stream.next().now_or_never() {
        ready.push(match item {
            Some(Ok(frame)) => frame.data(),
            Some(Err(Gap { missed, .. })) => format!("{missed:?} missed"),
            None => {
                ready.push("end".to_owned());
                break;
            }
        });
    }
    ready
}

#[test]
fn an_ephemeral_event_comes_in_its_place_and_has_no_id() {
    for (kind, hub) in hubs() {
        let (mut one, mut two) = (join(&hub), join(&hub));
        send(&hub, "a");
        let event = Text::new("typing").id(EventId::from(17));
        let reached = hub.broadcast_ephemeral("ann", &event).expect("text");
        assert_eq!(reached, 2, "{kind}");
        send(&hub, "b");
        pass(&hub, "c");
        pass(&hub, "d");
        assert_eq!(ready(&mut one), ["a", "typing", "b", "c", "d"], "{kind}");
        assert_eq!(
            two.next().now_or_never().flatten().unwrap().unwrap().data(),
            "a"
        );
        let frame = two.next().now_or_never().flatten().unwrap().unwrap();
        assert_eq!((&*frame.data(), frame.id()), ("typing", None), "{kind}");
        assert_eq!(ready(&mut two), ["b", "c", "d"], "{kind}");
    }
}

#[test]
fn nothing_is_kept_of_an_ephemeral_event() {
    let hub = with_history(100);
    let mut tab = join(&hub);
    send(&hub, "a");
    let before = (hub.position("ann"), hub.stats().history_bytes);
    pass(&hub, "typing");
    assert_eq!((hub.position("ann"), hub.stats().history_bytes), before);
    let mut page = hub.resume_from_start("ann").expect("no cap is reached");
    assert_eq!(ready(&mut page), ["a"]);
    assert_eq!(ready(&mut tab), ["a", "typing"]);
    let last = LastEventId::new(&before.0.expect("a position"));
    let mut back = hub.resume("ann", &last).expect("no cap is reached");
    send(&hub, "b");
    assert_eq!(ready(&mut back), ["b"]);
}

/// Counts how often it is encoded.
struct Counted<'a>(&'a AtomicUsize);

impl ToSse for Counted<'_> {
    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        data.json(&0)
    }
}

#[test]
fn for_a_user_without_a_stream_nothing_is_encoded_and_no_channel_is_opened() {
    let encoded = AtomicUsize::new(0);
    let kept = History::new(100).keep_for_unconnected();
    let builder = GenericBroadcaster::<Counted<'_>>::builder();
    let hub = builder.history(kept).build().expect("valid settings");
    let event = Counted(&encoded);
    let pass = || {
        hub.broadcast_ephemeral("ann", &event)
            .expect("it can be encoded")
    };
    assert_eq!(pass(), 0);
    assert_eq!((hub.stats().away, hub.stats().users), (0, 0));
    drop(hub.register("ann").expect("no cap is reached"));
    assert_eq!(pass(), 0, "somebody who is away");
    assert_eq!(encoded.load(Ordering::Relaxed), 0);
    assert_eq!((hub.stats().broadcasts, hub.stats().encoded), (2, 0));
    let tabs = [(); 3].map(|()| hub.register("ann").expect("no cap is reached"));
    assert_eq!(pass(), 3);
    assert_eq!(encoded.load(Ordering::Relaxed), 1);
    drop(tabs);
}

#[test]
fn one_ephemeral_event_for_many_users_is_encoded_once() {
    let encoded = AtomicUsize::new(0);
    let hub = GenericBroadcaster::<Counted<'_>>::new();
    let tabs = ["ann", "ann", "bob"].map(|user| hub.register(user).expect("no cap is reached"));
    let room = ["ann", "bob", "cid"];
    let reach = hub.broadcast_many_ephemeral(room, &Counted(&encoded));
    let reach = reach.expect("it can be encoded");
    assert_eq!((reach.users, reach.streams, reach.away), (2, 3, 0));
    assert_eq!(encoded.load(Ordering::Relaxed), 1);
    let stats = hub.stats();
    assert_eq!(
        (stats.broadcasts, stats.encoded, stats.deliveries),
        (1, 1, 3)
    );
    drop(tabs);
}

#[test]
fn an_ephemeral_event_that_cannot_be_encoded_reaches_nobody() {
    let hub = Hub::new();
    let mut tab = join(&hub);
    let event = Text::new("x").event("two\nlines");
    let one = hub.broadcast_ephemeral("ann", &event);
    assert!(matches!(one, Err(BroadcastError::Encode(_))));
    let many = hub.broadcast_many_ephemeral(["ann"], &event);
    assert!(matches!(many, Err(BroadcastError::Encode(_))));
    assert_eq!(hub.stats().failed, 2);
    assert!(ready(&mut tab).is_empty());
}

#[test]
fn a_complete_channel_refuses_ephemeral_events_and_its_streams_end() {
    let hub = with_history(100);
    let mut tab = join(&hub);
    send(&hub, "a");
    pass(&hub, "typing");
    hub.complete("ann").expect("there is room");
    let refused = || hub.broadcast_ephemeral("ann", &Text::new("typing"));
    assert!(matches!(refused(), Err(BroadcastError::Complete)));
    let many = hub.broadcast_many_ephemeral(["ann"], &Text::new("typing"));
    assert_eq!(many.expect("text").users, 0);
    assert_eq!(ready(&mut tab), ["a", "end"]);
    assert_eq!(tab.end_reason(), Some(EndReason::Completed));
    drop(tab);
    assert!(
        matches!(refused(), Err(BroadcastError::Complete)),
        "nobody is there"
    );
}

/// Ephemeral events between two polls of a stream that is to end do not keep it.
#[test]
fn a_stream_that_is_drained_ends_although_ephemeral_events_come() {
    for (kind, hub) in hubs() {
        let mut tab = join(&hub);
        send(&hub, "a");
        send(&hub, "b");
        pass(&hub, "c");
        hub.drain_user("ann");
        let mut got = Vec::new();
        for _ in 0..3 {
            pass(&hub, "typing");
            let next = tab.next().now_or_never().expect("it is ready");
            got.push(next.map(|item| item.expect("no gap").data()));
        }
        assert_eq!(got, [Some("a".into()), Some("b".into()), None], "{kind}");
    }
}

#[test]
fn a_stream_that_falls_behind_loses_the_oldest_ephemeral_events_without_a_report() {
    for (kind, hub) in hubs() {
        let mut tab = join(&hub);
        send(&hub, "a");
        (0..10).for_each(|number| assert_eq!(pass(&hub, &number.to_string()), 1));
        send(&hub, "b");
        let got = ready(&mut tab);
        assert_eq!(got, ["a", "6", "7", "8", "9", "b"], "{kind}");
        let stats = hub.stats();
        assert_eq!(
            (stats.lagged, stats.healed, stats.gaps.lagged),
            (0, 0, 0),
            "{kind}"
        );
        assert_eq!(tab.guard().lagged(), 0, "{kind}");
        hub.forget("ann");
    }
}

#[test]
fn a_gap_does_not_count_ephemeral_events() {
    let hub = Hub::builder()
        .ring_capacity(2)
        .build()
        .expect("valid settings");
    let mut tab = join(&hub);
    for number in 1..=5 {
        send(&hub, &number.to_string());
        pass(&hub, &format!("after {number}"));
    }
    let got = ready(&mut tab);
    assert_eq!(got, ["Some(3) missed", "4", "after 4", "5", "after 5"]);
}

#[test]
fn an_ephemeral_event_stays_in_its_place_where_the_history_heals_a_lag() {
    let hub = with_history(100);
    let mut tab = join(&hub);
    let mut sent = Vec::new();
    for number in 1..=50 {
        sent.push(number.to_string());
        send(&hub, &number.to_string());
        if [3, 17, 49].contains(&number) {
            sent.push(format!("after {number}"));
            pass(&hub, &format!("after {number}"));
        }
    }
    assert_eq!(ready(&mut tab), sent);
    assert!(hub.stats().healed > 40);
}

/// The newest of each key stand for what was lost; an ephemeral event is behind those that were sent before it.
#[test]
fn an_ephemeral_event_stays_in_its_place_where_events_are_coalesced() {
    let builder = Hub::builder().ring_capacity(2).coalesce_keys(10);
    let builder = builder.lag_policy(LagPolicy::Coalesce);
    let hub = builder.build().expect("valid settings");
    let mut tab = join(&hub);
    let keyed = |key: &str, text: &str| {
        let event = Text::new(text).key(key);
        hub.broadcast("ann", &event).expect("text");
    };
    ["1", "2", "3"].iter().for_each(|text| keyed("a", text));
    pass(&hub, "after 3");
    ["4", "5", "6"].iter().for_each(|text| keyed("b", text));
    pass(&hub, "after 6");
    ["7", "8"].iter().for_each(|text| keyed("c", text));
    assert_eq!(ready(&mut tab), ["3", "after 3", "6", "after 6", "7", "8"]);
}

fn quiet(stream: Subscription) -> SseBody {
    SseBody::new(stream).keep_alive(&KeepAlive::off())
}

/// The body up to where it waits.
fn text(body: &mut SseBody) -> String {
    let mut text = String::new();
    while let Some(Some(chunk)) = body.frame().now_or_never() {
        let chunk = chunk.expect("it cannot fail").into_data().expect("data");
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    text
}

#[test]
fn the_id_that_a_client_has_stays_that_of_the_last_event() {
    let hub = with_history(100);
    let stream = join(&hub);
    let mut body = quiet(stream).filter_map(|frame| (frame.data() != "b").then_some(frame));
    assert!(text(&mut body).starts_with("id: "), "the cursor");
    send(&hub, "a");
    pass(&hub, "typing");
    let position = hub.position("ann").expect("there is a history");
    assert_eq!(
        text(&mut body),
        format!("id: {position}\ndata: a\n\ndata: typing\n\n")
    );
    send(&hub, "b");
    pass(&hub, "typing");
    assert_eq!(text(&mut body), "data: typing\n\n", "b is left out");
    let last = hub.position("ann").expect("there is a history");
    hub.complete("ann").expect("there is room");
    assert_eq!(
        text(&mut body),
        format!("id: {last}\n\n"),
        "so that it does not come back"
    );
}

#[test]
fn streams_of_other_nodes_get_neither_it_nor_a_report() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let engine = InProcess::new(level);
            let node = || {
                let builder = Hub::builder().history(History::new(100));
                let builder = builder.backplane(engine.node());
                builder.build().expect("valid settings")
            };
            let (here, there) = (node(), node());
            let mut own = here.register_when_ready("ann").await.expect("room");
            let mut other = there.register_when_ready("ann").await.expect("room");
            let position = here.position("ann");
            assert_eq!(pass(&here, "typing"), 1, "{level:?}");
            assert_eq!(here.position("ann"), position);
            let next = async |stream: &mut Subscription| {
                let next = timeout(Duration::from_secs(20), stream.next()).await;
                let next = next.expect("it comes").expect("it goes on");
                next.expect("nothing is lost").data()
            };
            assert_eq!(next(&mut own).await, "typing");
            here.broadcast_confirmed("ann", &Text::new("a"))
                .await
                .expect("sent");
            assert_eq!(next(&mut own).await, "a");
            assert_eq!(next(&mut other).await, "a");
            assert!(ready(&mut own).is_empty() && ready(&mut other).is_empty());
        });
    }
}

/// What may happen to a user's events and streams.
#[derive(Debug, Clone)]
enum Step {
    Publish(usize),
    Pass(usize),
    /// One of the clients reads so many items.
    Read(usize, usize),
    Cut(usize),
    Come(usize),
    Drain,
    Complete,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..8usize).prop_map(Step::Publish),
        6 => (1..8usize).prop_map(Step::Pass),
        6 => (0..3usize, 1..12usize).prop_map(|(client, most)| Step::Read(client, most)),
        2 => (0..3usize).prop_map(Step::Cut),
        4 => (0..3usize).prop_map(Step::Come),
        1 => Just(Step::Drain),
    ]
}

/// Everything that was sent has a number; those that are kept have another of their own.
#[derive(Default)]
struct Sent {
    all: u64,
    kept: u64,
    is_complete: bool,
}

#[derive(Default)]
struct Client {
    stream: Option<Subscription>,
    last: LastEventId,
    /// Of the kept: the number that comes next.
    next: u64,
    /// Of all: the last that this stream had.
    had: Option<u64>,
    /// The ephemeral events that this stream has yet to yield.
    due: Vec<u64>,
    is_ending: bool,
}

impl Client {
    fn come(&mut self, hub: &Hub, sent: &Sent) {
        if self.stream.is_some() {
            return;
        }
        let stream = hub.resume("ann", &self.last).expect("no cap is reached");
        if self.last.is_none() {
            self.next = if sent.is_complete { 0 } else { sent.kept };
        }
        // Without a history there is none.
        if let Some(cursor) = stream.cursor() {
            self.last = LastEventId::new(&cursor);
        }
        *self = Self {
            stream: Some(stream),
            last: self.last,
            next: self.next,
            had: None,
            due: Vec::new(),
            is_ending: sent.is_complete,
        };
    }

    /// Reads, and checks what comes against what must come.
    fn read(&mut self, most: usize) {
        for _ in 0..most {
            let Some(stream) = &mut self.stream else {
                return;
            };
            let Some(item) = stream.next().now_or_never() else {
                assert!(self.due.is_empty(), "{:?} are missing", self.due);
                assert!(!self.is_ending, "it does not end");
                return;
            };
            match item {
                None => {
                    assert!(self.is_ending, "it ends for no reason");
                    self.stream = None;
                }
                Some(Ok(frame)) => {
                    let data = frame.data();
                    let (all, kept) = data.split_once(' ').expect("two numbers");
                    let all: u64 = all.parse().expect("a number");
                    assert!(self.had < Some(all), "{all} after {:?}", self.had);
                    self.had = Some(all);
                    if frame.event() == Some("ephemeral") {
                        assert_eq!(frame.id(), None);
                        assert_eq!(self.due.first(), Some(&all), "once, in order");
                        self.due.remove(0);
                        continue;
                    }
                    let kept: u64 = kept.parse().expect("a number");
                    assert_eq!(kept, self.next, "lost in silence, doubled, or out of order");
                    assert!(self.due.first().is_none_or(|due| *due > all), "it is late");
                    self.next += 1;
                    self.last = frame.id().map_or(self.last, LastEventId::new);
                }
                Some(Err(gap)) => {
                    let missed = gap.missed.expect("it is known");
                    assert!(missed > 0 && gap.reason != GapReason::Epoch);
                    self.next += missed;
                    self.last = gap.id().map_or(self.last, |id| LastEventId::new(&id));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Kept events come once and in order or are told. Ephemeral events come to the streams that are open, the newest that a
    /// stream has not read, once and in their place. Streams end behind the last kept event.
    #[test]
    fn each_in_its_place(
        steps in prop::collection::vec(step(), 1..100),
        complete_at in 0..150usize,
        capacity in 0..4u32,
        events in prop_oneof![Just(None), (1..30usize).prop_map(Some)],
    ) {
        let capacity = 1 << capacity;
        let mut builder = Hub::builder().ring_capacity(capacity);
        if let Some(events) = events {
            builder = builder.history(History::new(events));
        }
        let hub = builder.build().expect("valid settings");
        // With a history, the channel and its epoch stay.
        let _hold = events.map(|_| hub.hold("ann").expect("there is room"));
        let mut clients: [Client; 3] = Default::default();
        let mut sent = Sent::default();
        for (at, step) in steps.into_iter().enumerate() {
            let step = if at == complete_at && events.is_some() { Step::Complete } else { step };
            match step {
                Step::Publish(count) => for _ in 0..count {
                    let event = Text::new(format!("{} {}", sent.all, sent.kept));
                    match hub.broadcast("ann", &event) {
                        Ok(_) => sent.kept += 1,
                        Err(error) => {
                            assert!(sent.is_complete && matches!(error, BroadcastError::Complete));
                        }
                    }
                    sent.all += 1;
                },
                Step::Pass(count) => for _ in 0..count {
                    let event = Text::new(format!("{} -", sent.all)).event("ephemeral");
                    match hub.broadcast_ephemeral("ann", &event) {
                        Ok(reached) => {
                            let mut open: Vec<_> = clients.iter_mut()
                                .filter(|client| client.stream.is_some() && !client.is_ending)
                                .collect();
                            assert_eq!(reached, open.len());
                            for client in &mut open {
                                client.due.push(sent.all);
                                let lost = client.due.len().saturating_sub(capacity);
                                client.due.drain(..lost);
                            }
                        }
                        Err(error) => {
                            assert!(sent.is_complete && matches!(error, BroadcastError::Complete));
                        }
                    }
                    sent.all += 1;
                },
                Step::Read(client, most) => clients[client].read(most),
                Step::Cut(client) => clients[client].stream = None,
                Step::Come(client) => clients[client].come(&hub, &sent),
                Step::Drain | Step::Complete => {
                    if matches!(step, Step::Drain) {
                        hub.drain_user("ann");
                    } else {
                        hub.complete("ann").expect("there is room");
                        sent.is_complete = true;
                    }
                    for client in &mut clients {
                        client.is_ending = true;
                        client.due.clear();
                    }
                }
            }
        }
        for client in &mut clients {
            for _ in 0..2 {
                client.come(&hub, &sent);
                client.read(usize::MAX);
            }
            assert_eq!(client.next, sent.kept, "the end was lost in silence");
        }
    }
}
