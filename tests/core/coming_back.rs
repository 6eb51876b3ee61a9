//! A client that was cut off, refused or ended can reconnect: at a time that it is given, not together with all others, and
//! with an id that continues its stream.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http_body_util::BodyExt;
use tidings::sse::Cursor;
use tidings::{
    Frame, Gap, GenericBroadcaster, History, KeepAlive, LagPolicy, LastEventId, RegisterError,
    SseBody, Subscription, Text,
};
use tidings_testkit::{Decoder, Item, Message};
use tokio::time::Instant;

type Hub = GenericBroadcaster<Text>;

fn hub(history: Option<History>, policy: LagPolicy) -> Hub {
    let hub = Hub::builder().history(history).lag_policy(policy);
    hub.ring_capacity(2).build().expect("valid settings")
}

fn send(hub: &Hub, data: impl ToString) {
    let sent = hub.broadcast("ann", &Text::new(data.to_string()));
    sent.expect("text can be encoded");
}

fn join(hub: &Hub) -> Subscription {
    hub.register("ann").expect("no cap is reached")
}

fn quiet(stream: Subscription) -> SseBody {
    SseBody::new(stream).keep_alive(&KeepAlive::off())
}

/// What the body has ready, and whether it has ended.
fn read(body: &mut SseBody) -> (String, bool) {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().now_or_never() {
        let Some(frame) = frame else {
            return (String::from_utf8(text).expect("UTF-8"), true);
        };
        text.extend(frame.expect("no error").into_data().expect("data"));
    }
    (String::from_utf8(text).expect("UTF-8"), false)
}

// How long to wait

const LONGEST: u64 = i32::MAX as u64;

fn retry_of(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("retry: "));
    line.expect("a retry").parse().expect("a number")
}

/// Browsers take 2³¹ milliseconds for one.
#[tokio::test(start_paused = true)]
async fn no_retry_is_longer_than_a_browser_can_count() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    for asked in [25 * DAY, 40 * DAY, 20_000 * DAY, Duration::MAX] {
        let event = Text::new("x".to_owned()).retry(asked);
        let frame = Frame::encode(&event).expect("it can be encoded");
        let text = String::from_utf8_lossy(frame.as_bytes());
        assert_eq!(retry_of(&text), LONGEST, "{asked:?}");

        let hub = hub(None, LagPolicy::Gap);
        let (text, _) = read(&mut quiet(join(&hub)).retry(asked));
        assert_eq!(retry_of(&text), LONGEST, "{asked:?}");
    }
    // What is random is added before.
    let hub = hub(None, LagPolicy::Gap);
    for _ in 0..50 {
        let (text, _) = read(&mut quiet(join(&hub)).retry(24 * DAY));
        let retry = retry_of(&text);
        assert!((24 * 24 * 3_600_000..=LONGEST).contains(&retry), "{retry}");
    }
    // A spread of thirty years.
    for _ in 0..20 {
        let hub = self::hub(None, LagPolicy::Gap);
        let mut body = quiet(join(&hub));
        let mut shutdown = Box::pin(hub.shutdown(Duration::MAX));
        assert!(shutdown.as_mut().now_or_never().is_none());
        hub.drain_user("ann");
        let (text, ended) = read(&mut body);
        assert!(ended && retry_of(&text) <= LONGEST, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_at_one_deadline_come_back_at_different_times() {
    let hub = hub(None, LagPolicy::Gap);
    let at = Instant::now() + Duration::from_secs(60);
    let mut bodies: Vec<_> = (0..9).map(|_| quiet(join(&hub).deadline(at))).collect();
    let mut told = quiet(join(&hub).deadline(at)).retry(Duration::from_secs(30));
    assert!(
        bodies
            .iter_mut()
            .all(|body| read(body) == (":\n".to_owned(), false))
    );
    assert!(retry_of(&read(&mut told).0) >= 30_000);
    tokio::time::advance(Duration::from_secs(60)).await;
    let mut retries = Vec::new();
    for body in &mut bodies {
        let (text, ended) = read(body);
        assert!(ended && text.starts_with("retry: "), "{text}");
        retries.push(retry_of(&text));
    }
    retries.sort_unstable();
    assert!(retries[0] >= 1_000 && retries[8] <= 6_000, "{retries:?}");
    assert!(retries[8] - retries[0] > 300, "spread: {retries:?}");
    assert_eq!(
        read(&mut told),
        (String::new(), true),
        "it was told at the beginning"
    );
}

#[cfg(feature = "axum")]
#[test]
fn clients_that_are_refused_together_do_not_come_back_together() {
    use axum::response::IntoResponse;
    use tidings::RefusalForm;

    let form = RefusalForm::Status;
    for refused in [
        RegisterError::UserFull { cap: 1, form },
        RegisterError::TotalFull { cap: 1, form },
        RegisterError::ShuttingDown { form },
    ] {
        let seconds = || -> u64 {
            let response = refused.into_response();
            let value = response.headers()["retry-after"].to_str().expect("ASCII");
            value.parse().expect("seconds")
        };
        let all: std::collections::BTreeSet<u64> = (0..200).map(|_| seconds()).collect();
        assert!(
            all.iter().all(|seconds| (5..=10).contains(seconds)),
            "{all:?}"
        );
        assert!(all.len() > 3, "{all:?}");
    }
}

// After lost events

/// How much of the standard a client knows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Client {
    /// Remembers an id that comes without data, as browsers do.
    Standard,
    /// Remembers ids of events only: the npm package `eventsource` from 3.0 to 5.1.0, the crate `eventsource-client`.
    OfEventsOnly,
}

/// Comes back by itself, with the last id that it has.
struct EventSource {
    client: Client,
    last: String,
    gaps: usize,
    opens: usize,
}

impl EventSource {
    fn new(client: Client, last: &str) -> Self {
        Self {
            client,
            last: last.to_owned(),
            gaps: 0,
            opens: 0,
        }
    }

    /// Opens a stream, with `between` called once it is open, and reads what it has: events, and whether it goes on.
    fn open(
        &mut self,
        hub: &Hub,
        cursor: Option<Cursor>,
        between: impl FnOnce(),
    ) -> (Vec<Message>, bool) {
        self.opens += 1;
        let id = LastEventId::new(&self.last);
        let stream = hub.resume("ann", &id).expect("no cap is reached");
        let mut body = match cursor {
            None => quiet(stream),
            Some(cursor) => quiet(stream).cursor(cursor),
        };
        between();
        let (text, ended) = read(&mut body);
        let mut decoder = Decoder::resuming(&*self.last);
        decoder.push(text.as_bytes());
        let mut events = Vec::new();
        for item in decoder {
            match item {
                Item::Id(id) if self.client == Client::Standard => self.last = id,
                Item::Message(event) => {
                    self.last.clone_from(&event.id);
                    self.gaps += usize::from(event.event == "gap");
                    if event.event == "message" {
                        events.push(event);
                    }
                }
                _ => {}
            }
        }
        (events, !ended)
    }
}

fn history() -> Option<History> {
    Some(History::new(4))
}

const POLICIES: [LagPolicy; 4] = [
    LagPolicy::Gap,
    LagPolicy::Disconnect,
    LagPolicy::Coalesce,
    LagPolicy::End,
];

/// Ids from which nothing goes on, with a history and without, whatever the policy: the second request is served at the
/// latest.
#[test]
fn a_client_with_a_stale_id_has_a_running_stream_at_its_second_request() {
    for policy in POLICIES {
        for history in [None, history()] {
            let hub = hub(history, policy);
            let first = join(&hub);
            let evicted = first.cursor().map_or("7".to_owned(), |id| id.to_string());
            drop(first);
            (0..10).for_each(|number| send(&hub, number));
            for stale in ["another-epoch", "0123456789abcdef-3", &evicted] {
                let mut client = EventSource::new(Client::Standard, stale);
                let (mut events, mut goes_on) = client.open(&hub, None, || {});
                if !goes_on {
                    assert_eq!((policy, events.len()), (LagPolicy::End, 0));
                    (events, goes_on) = client.open(&hub, None, || send(&hub, "new"));
                } else {
                    let (more, _) = client.open(&hub, None, || send(&hub, "new"));
                    events.extend(more);
                }
                let case = format!("{policy:?}, {history:?}, {stale}, {events:?}");
                assert!(goes_on, "{case}");
                assert_eq!(events.last().expect(&case).data, "new", "{case}");
            }
        }
    }
}

/// What the history has behind the gap comes with the next request; nothing else is lost while the client is away.
#[test]
fn after_an_end_for_lost_events_the_client_continues_after_the_gap() {
    let hub = hub(history(), LagPolicy::End);
    let stale = join(&hub).cursor().expect("a history").to_string();
    (0..10).for_each(|number| send(&hub, number));
    let mut client = EventSource::new(Client::Standard, &stale);
    assert_eq!(client.open(&hub, None, || {}).0.len(), 0);
    let (events, goes_on) = client.open(&hub, None, || {});
    let data: Vec<_> = events.iter().map(|event| &*event.data).collect();
    assert_eq!((data, goes_on), (vec!["6", "7", "8", "9"], true));
    // From here on it is a client like any other: a gap that comes later ends its stream once more.
    (10..20).for_each(|number| send(&hub, number));
    let (events, goes_on) = client.open(&hub, None, || {});
    assert_eq!((events.len(), goes_on), (0, false));
    assert!(client.open(&hub, None, || {}).1);
}

/// A history that is turned over while the client waits to come back, again and again.
#[test]
fn a_client_comes_back_to_a_running_stream_however_fast_events_are_dropped() {
    let hub = hub(history(), LagPolicy::End);
    let stale = join(&hub).cursor().expect("a history").to_string();
    let mut client = EventSource::new(Client::Standard, &stale);
    let flood = || (0..100).for_each(|number| send(&hub, number));
    flood();
    assert!(!client.open(&hub, None, || {}).1);
    flood();
    let (events, goes_on) = client.open(&hub, None, || {});
    assert_eq!((events.len(), goes_on, client.gaps), (4, true, 0));
    let gaps = hub.stats().gaps;
    assert_eq!(gaps.evicted, 2, "both are counted: {gaps:?}");
}

/// What is lost once the stream is open is no part of the gap that ended the one before it.
#[test]
fn what_a_stream_loses_before_its_first_event_is_a_gap_of_its_own() {
    for policy in POLICIES {
        for history in [None, history()] {
            for is_read_before in [false, true] {
                let case = format!("{policy:?}, {history:?}, {is_read_before}");
                let hub = hub(history, policy);
                let mut client = EventSource::new(Client::Standard, "~");
                let (events, goes_on) = client.open(&hub, None, || {});
                assert_eq!((events.len(), goes_on), (0, true), "{case}");

                let mut stream = hub
                    .resume("ann", &LastEventId::new("~"))
                    .expect("no cap is reached");
                if is_read_before {
                    assert!(stream.next().now_or_never().is_none(), "{case}");
                }
                (0..10).for_each(|number| send(&hub, number));
                let first = stream.next().now_or_never().expect(&case);
                let lost = if history.is_some() { 6 } else { 8 };
                match policy {
                    LagPolicy::End => {
                        assert!(first.is_none(), "{case}: {first:?}");
                        let id = stream.restart_id();
                        assert_eq!(id.is_some(), history.is_some(), "{case}");
                    }
                    _ => {
                        let gap = first.expect(&case).expect_err(&case);
                        assert_eq!(gap.missed, Some(lost), "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_stream_that_lags_without_a_history_ends_without_an_id() {
    let hub = hub(None, LagPolicy::End);
    let mut body = quiet(join(&hub));
    (0..10).for_each(|number| send(&hub, number));
    assert_eq!(read(&mut body), (String::new(), true));
}

#[test]
fn clients_that_ignore_a_block_without_data_get_the_id_as_an_event() {
    for policy in POLICIES {
        let hub = hub(history(), policy);
        let stale = join(&hub).cursor().expect("a history").to_string();
        (0..10).for_each(|number| send(&hub, number));
        let mut client = EventSource::new(Client::OfEventsOnly, &stale);
        let opens = (0..3).map(|_| client.open(&hub, Some(Cursor::Event), || {}));
        let seen: Vec<_> = opens.flat_map(|(events, _)| events).collect();
        let data: Vec<_> = seen.iter().map(|event| &*event.data).collect();
        assert_eq!(data, ["6", "7", "8", "9"], "{policy:?}");
    }
}

/// Also the subscription itself says it, for those who write its events in their own way.
#[test]
fn a_stream_knows_the_id_for_the_next_request_once_it_has_ended() {
    let hub = hub(history(), LagPolicy::End);
    let mut stream = join(&hub);
    (0..10).for_each(|number| send(&hub, number));
    assert_eq!(stream.restart_id(), None);
    assert_eq!(stream.next().now_or_never(), Some(None));
    let id = stream.restart_id().expect("it has ended");
    let mut again = hub.resume("ann", &LastEventId::new(&id)).expect("no cap");
    let frame = again.next().now_or_never().flatten().expect("ready");
    assert_eq!(frame.expect("no gap").data(), "6");
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axums_own_stream_ends_with_the_id_too() {
    use axum::response::{IntoResponse, Sse};

    let hub = hub(history(), LagPolicy::End);
    let stale = LastEventId::new(&join(&hub).cursor().expect("a history"));
    (0..10).for_each(|number| send(&hub, number));
    let stream = hub.resume("ann", &stale).expect("no cap");
    let response = Sse::new(stream.into_axum_events()).into_response();
    let text = response.into_body().collect().await.expect("no error");
    let mut decoder = Decoder::new();
    decoder.push(&text.to_bytes());
    let Some(Item::Id(id)) = decoder.next() else {
        panic!("no id");
    };
    let stream = hub.resume("ann", &LastEventId::new(&id)).expect("no cap");
    assert_eq!(
        stream
            .take(4)
            .filter(|item| std::future::ready(item.is_ok()))
            .count()
            .await,
        4
    );
}

// A view

struct Strict;

impl tidings::sse::View for Strict {
    fn show(
        &mut self,
        frame: &Frame,
        chunks: &mut tidings::sse::Chunks,
    ) -> std::ops::ControlFlow<()> {
        chunks.push(frame.to_bytes());
        std::ops::ControlFlow::Continue(())
    }

    fn gap(&mut self, _: &Gap, chunks: &mut tidings::sse::Chunks) -> std::ops::ControlFlow<()> {
        chunks.push("data: lost\n\n");
        std::ops::ControlFlow::Break(())
    }

    fn end(&mut self, chunks: &mut tidings::sse::Chunks) {
        chunks.push("data: cut off\n\n");
    }
}

#[test]
fn a_views_last_event_has_the_id() {
    let hub = hub(history(), LagPolicy::End);
    let mut body = quiet(join(&hub)).view(Strict);
    (0..10).for_each(|number| send(&hub, number));
    let (text, ended) = read(&mut body);
    let (id, rest) = text.split_once('\n').expect("a line");
    assert!(id.starts_with("id: ") && ended, "{text}");
    assert_eq!(rest, "data: cut off\n\n");
    // Whatever else ends it, there is no id: the client has one that is good.
    let mut body = quiet(join(&hub)).view(Strict);
    hub.drain_user("ann");
    assert_eq!(read(&mut body), ("data: cut off\n\n".to_owned(), true));
}

/// A view that ends the stream at a gap is as strict as `LagPolicy::End`, whatever the policy.
#[test]
fn a_client_of_a_view_that_ends_at_a_gap_has_a_running_stream_at_its_second_request() {
    for policy in POLICIES {
        let hub = hub(history(), policy);
        let flood = || (0..100).for_each(|number| send(&hub, number));
        let stale = join(&hub).cursor().expect("a history").to_string();
        let mut last = stale;
        let mut open = || {
            flood();
            let id = LastEventId::new(&last);
            let stream = hub.resume("ann", &id).expect("no cap is reached");
            let (text, ended) = read(&mut quiet(stream).view(Strict));
            let mut decoder = Decoder::resuming(&*last);
            decoder.push(text.as_bytes());
            let events = decoder.filter_map(|item| match item {
                Item::Message(event) => Some(event),
                _ => None,
            });
            let events: Vec<_> = events.collect();
            last.clone_from(&events.last().expect("an event").id);
            (events.len(), ended)
        };
        assert_eq!(open(), (1, true), "{policy:?}");
        assert_eq!(open(), (4, false), "{policy:?}");
    }
}

// The cursor

#[test]
fn a_cursor_can_be_an_event_whose_data_has_the_id() {
    let hub = hub(history(), LagPolicy::Gap);
    let stream = join(&hub);
    let id = stream.cursor().expect("a history").to_string();
    let (text, _) = read(&mut quiet(stream).cursor(Cursor::Event));
    assert_eq!(
        text,
        format!("id: {id}\nevent: cursor\ndata: {{\"id\":\"{id}\"}}\n\n")
    );

    // Cut off before its first event, such a client loses nothing.
    let mut client = EventSource::new(Client::OfEventsOnly, "");
    assert_eq!(client.open(&hub, Some(Cursor::Event), || {}).0.len(), 0);
    send(&hub, "while it was away");
    let (events, _) = client.open(&hub, Some(Cursor::Event), || {});
    assert_eq!(events[0].data, "while it was away");
}

// Taking over

#[test]
fn a_newcomer_takes_the_place_of_its_ghost() {
    let hub = Hub::builder().history(history()).connections_per_user(2);
    let hub = hub.total_connections(2).build().expect("valid settings");
    let mut ghost = hub.register_as("ann", "tab").expect("no cap");
    let seen = LastEventId::new(&ghost.cursor().expect("a history"));
    let mut other = hub.register_as("ann", "other").expect("no cap");
    let refused = hub.resume_as("ann", "tab", &seen).map(drop);
    assert!(refused.is_err());
    send(&hub, "unread");

    let mut tab = hub
        .take_over("ann", "tab", &seen)
        .expect("its ghost's place");
    assert_eq!(ghost.next().now_or_never(), Some(None), "it has ended");
    let next = |stream: &mut Subscription| {
        let frame = stream.next().now_or_never().flatten().expect("ready");
        frame.expect("no gap").data()
    };
    assert_eq!(
        (next(&mut tab), next(&mut other)),
        ("unread".to_owned(), "unread".to_owned())
    );
    drop(ghost);
    assert_eq!(
        (hub.connection_count("ann"), hub.total_connections()),
        (2, 2)
    );
    // Somebody else's connection of the same name stays, and where there is no ghost it is a registration.
    drop(other);
    let _bob = hub
        .take_over("bob", "tab", &LastEventId::none())
        .expect("a place");
    assert_eq!(
        (hub.connection_count("ann"), hub.connection_count("bob")),
        (1, 1)
    );
}

#[test]
fn of_many_take_overs_of_one_id_one_stays() {
    let hub = hub(history(), LagPolicy::Gap);
    let barrier = Arc::new(std::sync::Barrier::new(4));
    let newcomers: Vec<_> = (0..4)
        .map(|_| {
            let (hub, barrier) = (hub.clone(), barrier.clone());
            std::thread::spawn(move || {
                barrier.wait();
                let take = || hub.take_over("ann", "tab", &LastEventId::none());
                let mut stream = take().expect("no cap");
                for _ in 0..200 {
                    stream = take().expect("no cap");
                }
                stream
            })
        })
        .collect();
    let streams: Vec<_> = newcomers
        .into_iter()
        .map(|newcomer| newcomer.join().expect("no panic"))
        .collect();
    assert_eq!(
        (hub.connection_count("ann"), hub.total_connections()),
        (1, 1)
    );
    send(&hub, "x");
    let alive = streams
        .into_iter()
        .filter_map(|mut stream| stream.next().now_or_never());
    assert_eq!(alive.flatten().count(), 1);
    assert_eq!(hub.total_connections(), 0);
}
