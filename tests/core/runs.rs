//! Runs: a stream begins with the oldest event that is kept, a channel can be complete, and a history is kept without a connection.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;
use tidings::{
    BroadcastError, EndReason, GapReason, GenericBroadcaster, History, HoldError, LastEventId,
    Subscription, Text,
};
use tokio::time::{Instant, advance};

type Hub = GenericBroadcaster<Text>;

const RUN: &str = "run:1";

fn hub(history: History) -> Hub {
    GenericBroadcaster::builder()
        .ring_capacity(4)
        .connections_per_user(None)
        .history(history)
        .build()
        .expect("valid settings")
}

fn send(hub: &Hub, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let sent = hub.broadcast(RUN, &Text::new(number.to_string()));
        sent.expect("it can be encoded");
    }
}

fn from_start(hub: &Hub) -> Subscription {
    hub.resume_from_start(RUN).expect("no cap is reached")
}

/// What a stream has ready: events as numbers, gaps, and whether it has ended.
#[derive(Debug, Default, PartialEq)]
struct Had {
    numbers: Vec<u64>,
    gaps: Vec<(GapReason, Option<u64>)>,
    ended: bool,
    last: LastEventId,
}

fn read(stream: &mut Subscription) -> Had {
    let mut had = Had::default();
    while let Some(item) = stream.next().now_or_never() {
        match item {
            None => {
                had.ended = true;
                break;
            }
            Some(Ok(frame)) => {
                had.numbers.push(frame.data().parse().expect("a number"));
                had.last = LastEventId::new(frame.fields().next().expect("an id").1);
            }
            Some(Err(gap)) => {
                had.gaps.push((gap.reason, gap.missed));
                had.last = LastEventId::new(&gap.id().expect("there is a history"));
            }
        }
    }
    had
}

#[test]
fn a_stream_from_the_start_has_what_is_kept_and_goes_on_live() {
    let hub = hub(History::new(100));
    let _run = hub.hold(RUN).expect("there is room");
    send(&hub, 0..10);
    let mut page = from_start(&hub);
    send(&hub, 10..12);
    let had = read(&mut page);
    assert!(had.numbers.iter().copied().eq(0..12), "{had:?}");
    assert_eq!((had.gaps, had.ended), (vec![], false));
    send(&hub, 12..13);
    assert_eq!(read(&mut page).numbers, [12]);
}

#[test]
fn a_missing_beginning_is_reported_first() {
    let hub = hub(History::new(3));
    let _run = hub.hold(RUN).expect("there is room");
    send(&hub, 0..5);
    let had = read(&mut from_start(&hub));
    assert_eq!(had.gaps, [(GapReason::Evicted, Some(2))]);
    assert_eq!(had.numbers, [2, 3, 4]);
}

#[test]
fn without_a_history_lost_events_cannot_be_counted() {
    let hub = Hub::new();
    let _tab = hub.register(RUN).expect("no cap is reached");
    let gap = |page: &mut Subscription| page.next().now_or_never();
    assert!(gap(&mut from_start(&hub)).is_none(), "nothing is gone");
    send(&hub, 0..1);
    let told = gap(&mut from_start(&hub))
        .expect("it is ready")
        .expect("it goes on");
    let told = told.expect_err("it is gone");
    assert_eq!((told.reason, told.missed), (GapReason::Evicted, None));
    assert_eq!(hub.hold(RUN).expect_err("refused"), HoldError::NoHistory);
    assert_eq!(
        hub.complete(RUN).expect_err("refused"),
        HoldError::NoHistory
    );
}

#[test]
fn a_client_without_an_id_can_begin_at_the_start_and_one_with_an_id_goes_on() {
    let hub = hub(History::new(100));
    let _run = hub.hold(RUN).expect("there is room");
    send(&hub, 0..3);
    let none = LastEventId::none();
    let mut page = hub.resume(RUN, &none).expect("no cap is reached");
    assert_eq!(read(&mut page), Had::default(), "it begins with what comes");
    let mut page = hub
        .resume(RUN, &none.or_from_start())
        .expect("no cap is reached");
    let had = read(&mut page);
    assert_eq!(had.numbers, [0, 1, 2]);
    send(&hub, 3..5);
    let seen = had.last.or_from_start();
    assert_eq!(seen, LastEventId::new(&page_id(&mut page)).or_from_start());
    let mut page = hub
        .resume(RUN, &had.last.or_from_start())
        .expect("no cap is reached");
    assert_eq!(read(&mut page).numbers, [3, 4]);
}

/// The id before the first event that is not read yet.
fn page_id(page: &mut Subscription) -> String {
    let next = page
        .next()
        .now_or_never()
        .flatten()
        .expect("an event")
        .expect("no gap");
    let id = next.fields().next().expect("an id").1;
    let (epoch, offset) = id.split_once('-').expect("a position");
    format!("{epoch}-{}", offset.parse::<u64>().expect("a number") - 1)
}

#[test]
fn a_stream_from_the_start_that_is_cut_before_its_first_event_comes_back_to_the_start() {
    let hub = hub(History::new(100));
    let _run = hub.hold(RUN).expect("there is room");
    send(&hub, 0..3);
    let cursor = from_start(&hub).cursor().expect("there is a history");
    let mut page = hub
        .resume(RUN, &LastEventId::new(&cursor))
        .expect("no cap is reached");
    assert_eq!(read(&mut page).numbers, [0, 1, 2]);
}

#[test]
fn completion_ends_streams_after_the_last_event() {
    let hub = hub(History::new(100));
    let mut fast = hub.register(RUN).expect("no cap is reached");
    let mut slow = hub.register(RUN).expect("no cap is reached");
    send(&hub, 0..2);
    assert_eq!(read(&mut fast).numbers, [0, 1]);
    // More than the ring holds: the slow one reads them from the history.
    send(&hub, 2..20);
    assert!(!hub.is_complete(RUN));
    assert_eq!(hub.complete(RUN), Ok(2));
    assert!(hub.is_complete(RUN));
    for (stream, from) in [(&mut fast, 2), (&mut slow, 0)] {
        assert!(!stream.is_exhausted());
        let had = read(stream);
        assert!(had.numbers.iter().copied().eq(from..20), "{had:?}");
        assert_eq!((had.gaps, had.ended), (vec![], true));
        assert_eq!(stream.end_reason(), Some(EndReason::Completed));
    }
    drop((fast, slow));
    assert_eq!(hub.stats().ended.get(EndReason::Completed), 2);
}

#[test]
fn a_complete_channel_takes_nothing_and_gives_what_it_has() {
    let hub = hub(History::new(100));
    let run = hub.hold(RUN).expect("there is room");
    send(&hub, 0..3);
    assert_eq!(hub.complete(RUN), Ok(0));
    drop(run);
    let late = hub.broadcast(RUN, &Text::new("3"));
    let late = late.expect_err("it is refused");
    assert!(matches!(late, BroadcastError::Complete), "{late:?}");
    assert_eq!(
        late.to_string(),
        "the channel is complete and takes no event"
    );
    assert_eq!(hub.complete(RUN), Ok(0), "once more");

    let all = Had {
        numbers: vec![0, 1, 2],
        ended: true,
        ..Had::default()
    };
    let mut page = from_start(&hub);
    assert!(!page.is_exhausted());
    let had = read(&mut page);
    let last = had.last;
    assert_eq!(had, Had { last, ..all });
    // Nothing comes any more, so that what is kept is all there is to begin with.
    let mut page = hub.register(RUN).expect("no cap is reached");
    assert_eq!(read(&mut page).numbers, [0, 1, 2]);
    let mut page = hub.resume(RUN, &last).expect("no cap is reached");
    assert!(page.is_exhausted());
    assert!(read(&mut page).ended);
    let elsewhere = LastEventId::new("0123456789abcdef-7");
    let mut page = hub.resume(RUN, &elsewhere).expect("no cap is reached");
    assert!(!page.is_exhausted());
    let had = read(&mut page);
    assert_eq!(had.gaps, [(GapReason::Epoch, None)]);
    assert!(had.ended);
}

#[test]
fn an_event_for_many_goes_to_those_whose_channels_are_not_complete() {
    let hub = hub(History::new(100));
    let tabs = [RUN, "ann"].map(|user| hub.register(user).expect("no cap is reached"));
    hub.complete(RUN).expect("there is room");
    let reach = hub.broadcast_many([RUN, "ann"], &Text::new("1"));
    let reach = reach.expect("it can be encoded");
    assert_eq!((reach.users, reach.away, reach.streams), (1, 0, 1));
    let reach = hub
        .broadcast_all(&Text::new("2"))
        .expect("it can be encoded");
    assert_eq!((reach.users, reach.away, reach.streams), (1, 0, 1));
    let [mut run, mut ann] = tabs;
    assert_eq!(read(&mut run).numbers, [0; 0]);
    assert_eq!(read(&mut ann).numbers, [1, 2]);
}

#[test]
fn a_channel_that_was_never_there_can_be_complete() {
    let hub = hub(History::new(100).away_users(1));
    assert_eq!(hub.complete(RUN), Ok(0));
    assert!(hub.is_complete(RUN));
    let mut page = from_start(&hub);
    assert!(page.is_exhausted());
    assert!(read(&mut page).ended);
    drop(page);
    let refused = hub.complete("run:2").expect_err("there is no room");
    assert_eq!(refused, HoldError::Full { cap: 1 });
    assert!(!hub.is_complete("run:2"));
}

#[tokio::test(start_paused = true)]
async fn a_complete_channel_is_forgotten_some_time_after_its_completion() {
    let history = History::new(100)
        .linger(Duration::from_secs(1000))
        .linger_completed(Duration::from_secs(10));
    let hub = hub(history);
    let tab = hub.register(RUN).expect("no cap is reached");
    send(&hub, 0..3);
    hub.complete(RUN).expect("there is room");
    drop(tab);
    advance(Duration::from_secs(9)).await;
    hub.sweep();
    // Whoever connects does not prolong it.
    assert_eq!(read(&mut from_start(&hub)).numbers, [0, 1, 2]);
    advance(Duration::from_secs(1)).await;
    hub.sweep();
    assert!(!hub.is_complete(RUN));
    let stats = hub.stats();
    assert_eq!((stats.users, stats.away, stats.history_bytes), (0, 0, 0));
    assert_eq!(hub.broadcast(RUN, &Text::new("new")).expect("a new run"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hold_keeps_the_history_as_long_as_it_lives() {
    let hub = hub(History::new(100).linger(Duration::from_secs(10)));
    let run = hub.hold(RUN).expect("there is room");
    assert_eq!(run.user().as_str(), RUN);
    send(&hub, 0..3);
    drop(from_start(&hub));
    advance(Duration::from_secs(100)).await;
    hub.sweep();
    assert_eq!(read(&mut from_start(&hub)).numbers, [0, 1, 2]);
    drop(run);
    advance(Duration::from_secs(9)).await;
    hub.sweep();
    assert_eq!(read(&mut from_start(&hub)).numbers, [0, 1, 2]);
    advance(Duration::from_secs(10)).await;
    hub.sweep();
    assert_eq!(hub.stats().away, 0);
    assert_eq!(read(&mut from_start(&hub)), Had::default());
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_a_user_who_is_away_begins_the_linger_anew() {
    let hub = hub(History::new(100).linger(Duration::from_secs(10)));
    drop(hub.register(RUN).expect("no cap is reached"));
    send(&hub, 0..3);
    advance(Duration::from_secs(9)).await;
    let run = hub.hold(RUN).expect("there is room");
    assert_eq!((hub.stats().away, hub.stats().away_bytes), (1, 0));
    advance(Duration::from_secs(9)).await;
    hub.sweep();
    drop(run);
    hub.sweep();
    assert_eq!(read(&mut from_start(&hub)).numbers, [0, 1, 2]);
}

#[test]
fn a_hold_is_neither_a_connection_nor_a_user() {
    let hub: Hub = GenericBroadcaster::builder()
        .connections_per_user(1)
        .total_connections(1)
        .history(History::new(10).away_users(2))
        .build()
        .expect("valid settings");
    let (one, two) = (
        hub.hold(RUN).expect("room"),
        hub.hold("run:2").expect("room"),
    );
    assert_eq!((hub.total_connections(), hub.connection_count(RUN)), (0, 0));
    assert!(hub.connected_users().is_empty());
    assert_eq!((hub.stats().users, hub.stats().away), (0, 2));
    assert_eq!(
        hub.hold("run:3").expect_err("refused"),
        HoldError::Full { cap: 2 }
    );
    let page = from_start(&hub);
    assert_eq!((hub.stats().users, hub.stats().away), (0, 2));
    drop((one, two));
    assert_eq!((hub.stats().users, hub.stats().away), (1, 1));
    drop(page);
    assert!(hub.hold("run:3").is_err(), "both are away");
    hub.forget(RUN);
    assert!(hub.hold("run:3").is_ok());
}

#[test]
fn a_hold_keeps_a_channel_that_would_not_linger() {
    let hub = hub(History::new(10)
        .linger(Duration::ZERO)
        .linger_completed(Duration::ZERO));
    let run = hub.hold(RUN).expect("room");
    send(&hub, 0..3);
    assert_eq!(read(&mut from_start(&hub)).numbers, [0, 1, 2]);
    assert_eq!(read(&mut from_start(&hub)).numbers, [0, 1, 2]);
    drop(run);
    let stats = hub.stats();
    assert_eq!((stats.users, stats.away, stats.history_bytes), (0, 0, 0));
}

#[test]
fn a_disconnect_leaves_what_is_held() {
    let hub = hub(History::new(10)
        .linger(Duration::ZERO)
        .linger_completed(Duration::ZERO));
    let run = hub.hold(RUN).expect("room");
    send(&hub, 0..3);
    let mut tab = from_start(&hub);
    assert_eq!(hub.disconnect_user(RUN), 1);
    assert!(read(&mut tab).ended);
    drop(tab);
    send(&hub, 3..4);
    let mut page = from_start(&hub);
    assert_eq!(read(&mut page).numbers, [0, 1, 2, 3]);
    drop(run);
    assert_eq!(hub.disconnect_user(RUN), 1);
    drop(page);
    let stats = hub.stats();
    assert_eq!((stats.users, stats.away, stats.history_bytes), (0, 0, 0));
}

#[test]
fn a_disconnect_closes_what_does_not_linger_unless_it_is_complete() {
    let hub = hub(History::new(10)
        .linger(Duration::ZERO)
        .keep_for_unconnected());
    send(&hub, 0..1);
    let away = || hub.stats().away;
    assert_eq!((away(), hub.disconnect_user(RUN), away()), (1, 0, 0));
    send(&hub, 0..1);
    hub.complete(RUN).expect("it is there");
    assert_eq!((away(), hub.disconnect_user(RUN), away()), (1, 0, 1));
}

#[test]
fn the_first_stream_of_a_held_user_begins_with_what_is_kept_for_the_unconnected() {
    let hub = hub(History::new(10).keep_for_unconnected());
    let _run = hub.hold(RUN).expect("room");
    send(&hub, 0..2);
    let mut first = hub.register(RUN).expect("room");
    assert_eq!(read(&mut first).numbers, [0, 1]);
    let mut second = hub.register(RUN).expect("room");
    assert_eq!(read(&mut second), Had::default());
}

#[test]
fn what_is_forgotten_is_forgotten_although_it_is_held_or_complete() {
    let hub = hub(History::new(10));
    let run = hub.hold(RUN).expect("room");
    send(&hub, 0..3);
    hub.complete(RUN).expect("there is room");
    hub.forget(RUN);
    assert!(!hub.is_complete(RUN));
    assert_eq!(read(&mut from_start(&hub)), Had::default());
    drop(run);
    hub.forget(RUN);
    let stats = hub.stats();
    assert_eq!((stats.users, stats.away, stats.history_bytes), (0, 0, 0));
}

/// What may happen to a run and to those who follow it.
#[derive(Debug, Clone)]
enum Step {
    Broadcast(u64),
    /// One item of one of the clients, or all that there is.
    ReadOne(usize),
    ReadAll(usize),
    /// Its connection is cut.
    Cut(usize),
    /// It comes back to where it was, or begins.
    Come(usize),
    /// The page is loaded anew.
    Reload(usize),
    Wait(u64),
    Disconnect,
    Complete,
    Hold,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..3usize;
    prop_oneof![
        8 => (1..8u64).prop_map(Step::Broadcast),
        4 => client.clone().prop_map(Step::ReadOne),
        3 => client.clone().prop_map(Step::ReadAll),
        2 => client.clone().prop_map(Step::Cut),
        3 => client.clone().prop_map(Step::Come),
        3 => client.prop_map(Step::Reload),
        2 => (0..20u64).prop_map(Step::Wait),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Complete),
        1 => Just(Step::Hold),
        1 => Just(Step::Release),
    ]
}

/// What the run is known to be.
struct Run {
    hub: Hub,
    /// When each of its events was broadcast.
    sent: Vec<Instant>,
    events: usize,
    age: Option<Duration>,
    complete: bool,
}

impl Run {
    /// The first event that has to be kept.
    fn first_kept(&self) -> u64 {
        let by_number = self.sent.len().saturating_sub(self.events);
        let is_old = |at: &&Instant| self.age.is_some_and(|age| at.elapsed() > age);
        by_number.max(self.sent.iter().take_while(is_old).count()) as u64
    }
}

#[derive(Default)]
struct Client {
    stream: Option<Subscription>,
    last: LastEventId,
    /// The number that has to come next.
    next: u64,
    /// Its connection was ended before it could read everything.
    is_cut: bool,
    /// It has seen the end.
    is_done: bool,
}

impl Client {
    fn come(&mut self, run: &Run) {
        let stream = run.hub.resume(RUN, &self.last.or_from_start());
        let stream = stream.expect("no cap is reached");
        if let Some(cursor) = stream.cursor() {
            self.last = LastEventId::new(&cursor);
        }
        let has_all = self.next == run.sent.len() as u64;
        assert_eq!(stream.is_exhausted(), run.complete && has_all);
        self.stream = Some(stream);
        self.is_cut = false;
    }

    /// Reads one item; `false` if there is none.
    fn read(&mut self, run: &Run) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        // What the stream had taken out of the history before may be gone from there by now, and is not missing.
        let first_kept = run.first_kept();
        match stream.next().now_or_never() {
            None => {
                assert!(!run.complete, "it does not end");
                assert_eq!(self.next, run.sent.len() as u64, "there is more");
                return false;
            }
            Some(None) => {
                if !self.is_cut {
                    assert_eq!(stream.end_reason(), Some(EndReason::Completed));
                    assert_eq!(self.next, run.sent.len() as u64, "it ends before the end");
                    self.is_done = true;
                }
                self.stream = None;
                return false;
            }
            Some(Some(Ok(frame))) => {
                let number: u64 = frame.data().parse().expect("a number");
                assert_eq!(
                    number, self.next,
                    "lost in silence, doubled, or out of order"
                );
                self.next += 1;
                self.last = LastEventId::new(frame.fields().next().expect("an id").1);
            }
            Some(Some(Err(gap))) => {
                let missed = gap.missed.expect("it can be counted");
                assert!(missed > 0, "a gap of nothing");
                self.next += missed;
                assert!(self.next <= first_kept, "what is kept is not missing");
                self.last = LastEventId::new(&gap.id().expect("there is a history"));
            }
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What is kept comes once and in order, and what is not is told, whatever happens; and a complete run ends for everybody,
    /// behind its last event.
    #[test]
    fn every_kept_event_is_received_once_and_the_rest_is_in_a_gap(
        steps in prop::collection::vec(step(), 1..100),
        capacity in 1..8usize,
        events in 1..30usize,
        age in prop_oneof![Just(None), (5..60u64).prop_map(|s| Some(Duration::from_secs(s)))],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let history = History::new(events)
                .age(age)
                .linger(Duration::from_secs(1_000_000))
                .linger_completed(Duration::from_secs(1_000_000));
            let hub: Hub = GenericBroadcaster::builder()
                .ring_capacity(capacity)
                .connections_per_user(None)
                .patience(u64::MAX, Duration::from_secs(1_000_000))
                .history(history)
                .build()
                .expect("valid settings");
            let mut holds = vec![hub.hold(RUN).expect("there is room")];
            let mut run = Run { hub, sent: Vec::new(), events, age, complete: false };
            let mut clients: [Client; 3] = Default::default();
            for step in steps {
                match step {
                    Step::Broadcast(count) => {
                        for _ in 0..count {
                            let number = Text::new(run.sent.len().to_string());
                            match run.hub.broadcast(RUN, &number) {
                                Ok(_) => {
                                    assert!(!run.complete, "it takes no event any more");
                                    run.sent.push(Instant::now());
                                }
                                Err(BroadcastError::Complete) => assert!(run.complete),
                                Err(other) => panic!("{other}"),
                            }
                        }
                    }
                    Step::ReadOne(client) => {
                        clients[client].read(&run);
                    }
                    Step::ReadAll(client) => while clients[client].read(&run) {},
                    Step::Cut(client) => clients[client].stream = None,
                    Step::Come(client) => clients[client].come(&run),
                    Step::Reload(client) => {
                        clients[client] = Client::default();
                        clients[client].come(&run);
                    }
                    Step::Wait(seconds) => {
                        advance(Duration::from_secs(seconds)).await;
                        run.hub.sweep();
                    }
                    Step::Disconnect => {
                        run.hub.disconnect_user(RUN);
                        clients.iter_mut().for_each(|client| client.is_cut = true);
                    }
                    Step::Complete => {
                        run.hub.complete(RUN).expect("there is room");
                        run.complete = true;
                    }
                    Step::Hold => holds.push(run.hub.hold(RUN).expect("there is room")),
                    Step::Release => drop(holds.pop()),
                }
                assert_eq!(run.hub.is_complete(RUN), run.complete);
            }
            run.hub.complete(RUN).expect("there is room");
            run.complete = true;
            for client in &mut clients {
                client.come(&run);
                while client.read(&run) {}
                assert!(client.is_done && client.next == run.sent.len() as u64);
                client.come(&run);
                assert!(client.stream.as_ref().is_some_and(Subscription::is_exhausted));
            }
            drop((clients, holds));
            advance(Duration::from_secs(2_000_000)).await;
            run.hub.sweep();
            let stats = run.hub.stats();
            assert_eq!((stats.users, stats.away, stats.away_bytes, stats.history_bytes), (0, 0, 0, 0));
        });
    }
}
