//! How the server ends streams: lag, deadlines, disconnections, sweeps, shutdown.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http_body::Body;
use http_body_util::BodyExt;
use tidings::{
    ConfigError, ConnectionId, EndReason, Frame, Gap, GapReason, GenericBroadcaster, History,
    LagPolicy, RefusalForm, RegisterError, SseBody, Subscription, Text,
};
use tokio::time::{Instant, sleep, timeout};

type Hub = GenericBroadcaster<Text>;

/// How many events the item says were lost to lag.
fn lag(item: Option<Result<Arc<Frame>, Gap>>) -> Option<u64> {
    let gap = item.expect("not ended").expect_err("lag");
    assert_eq!(gap.reason, GapReason::Lagged);
    gap.missed
}

const SHUTTING_DOWN: RegisterError = RegisterError::ShuttingDown {
    form: RefusalForm::ComeBack,
};

const GAP_OF_3: &str = "event: gap\ndata: {\"reason\":\"lagged\",\"missed\":3}\n\n";

fn small_hub(policy: LagPolicy) -> Hub {
    Hub::builder()
        .ring_capacity(2)
        .lag_policy(policy)
        .build()
        .expect("valid settings")
}

fn join(hub: &Hub) -> Subscription {
    hub.register("ann").expect("no cap is reached")
}

fn send(hub: &Hub, data: &str) -> usize {
    let reached = hub.broadcast("ann", &Text::new(data.to_owned()));
    reached.expect("text can be encoded")
}

/// Sends five events, so that a ring of two loses three.
fn send_five(hub: &Hub) {
    for data in ["1", "2", "3", "4", "5"] {
        send(hub, data);
    }
}

/// Everything that the body has to say without waiting, and whether it has ended.
fn read(body: &mut SseBody) -> (String, bool) {
    let mut read = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match std::pin::Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(chunk))) => read.extend(chunk.into_data().expect("data")),
            Poll::Ready(None) => return (String::from_utf8(read).expect("UTF-8"), true),
            Poll::Pending => return (String::from_utf8(read).expect("UTF-8"), false),
        }
    }
}

/// Everything until the end.
async fn read_to_end(body: SseBody) -> String {
    let bytes: Bytes = body.collect().await.expect("no error").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The `retry:` line that a text ends with, in milliseconds, and what stands before it.
fn split_retry(text: &str) -> (&str, u64) {
    let at = text.rfind("retry: ").expect("a retry line");
    let millis = text[at + 7..].strip_suffix('\n').expect("a whole line");
    (&text[..at], millis.parse().expect("a number"))
}

// Lag

#[tokio::test(start_paused = true)]
async fn a_gap_is_reported_and_the_stream_continues() {
    let hub = small_hub(LagPolicy::Gap);
    let mut body = SseBody::new(join(&hub));
    send_five(&hub);
    let (text, ended) = read(&mut body);
    assert_eq!(text, format!("{GAP_OF_3}data: 4\n\ndata: 5\n\n"));
    assert!(!ended);
    send(&hub, "6");
    assert_eq!(read(&mut body).0, "data: 6\n\n");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_disconnects_on_lag_reports_it_first() {
    let hub = small_hub(LagPolicy::Disconnect);
    let mut body = SseBody::new(join(&hub));
    send_five(&hub);
    assert_eq!(read(&mut body), (GAP_OF_3.to_owned(), true));
    assert_eq!(hub.total_connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_strict_stream_ends_on_lag_without_an_event() {
    let hub = small_hub(LagPolicy::End);
    let mut body = SseBody::new(join(&hub));
    send(&hub, "0");
    assert_eq!(read(&mut body).0, "data: 0\n\n");
    send_five(&hub);
    assert_eq!(read(&mut body), (String::new(), true));
    assert_eq!((hub.stats().lagged, hub.total_connections()), (3, 0));
}

#[tokio::test]
async fn a_stream_may_have_a_lag_policy_of_its_own() {
    let hub = small_hub(LagPolicy::End);
    let mut tolerant = join(&hub).lag_policy(LagPolicy::Gap);
    let mut strict = join(&hub);
    send_five(&hub);
    assert_eq!(lag(tolerant.next().await), Some(3));
    assert!(tolerant.next().await.expect("it goes on").is_ok());
    assert_eq!(strict.next().await, None);
}

#[tokio::test]
async fn lag_is_counted_per_connection_per_user_and_in_total() {
    let hub = small_hub(LagPolicy::Gap);
    let (mut one, mut two) = (join(&hub), join(&hub));
    send_five(&hub);
    assert_eq!(lag(one.next().await), Some(3));
    assert_eq!((one.guard().lagged(), two.guard().lagged()), (3, 0));
    assert_eq!((hub.lagged("ann"), hub.stats().lagged), (3, 3));
    assert_eq!(lag(two.next().await), Some(3));
    drop(two);
    assert_eq!((hub.lagged("ann"), hub.stats().lagged), (6, 6));
    assert_eq!(hub.lagged("bob"), 0);
}

// Deadlines

#[tokio::test(start_paused = true)]
async fn an_idle_stream_ends_at_its_deadline() {
    let hub = Hub::new();
    let start = Instant::now();
    let body = SseBody::new(join(&hub).deadline(start + Duration::from_secs(2)));
    let text = read_to_end(body).await;
    let (events, retry) = split_retry(&text);
    assert_eq!(events, ":\n");
    assert!((1_000..=6_000).contains(&retry), "{retry}");
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert_eq!(hub.total_connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_ends_at_its_deadline() {
    let hub = Hub::new();
    let start = Instant::now();
    let mut stream = join(&hub).deadline(start + Duration::from_secs(2));
    let mut got = 0;
    loop {
        send(&hub, "x");
        match stream.next().now_or_never() {
            Some(Some(Ok(_))) => got += 1,
            Some(None) => break,
            other => panic!("{other:?}"),
        }
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert_eq!(got, 200);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_sweep_removes_an_unpolled_stream_past_its_deadline() {
    let hub = Hub::new();
    let start = Instant::now();
    let stalled = join(&hub).deadline(start + Duration::from_secs(2));
    tokio::time::advance(Duration::from_millis(1_999)).await;
    assert_eq!((hub.sweep(), hub.total_connections()), (0, 1));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!((hub.sweep(), hub.total_connections()), (1, 0));
    assert_eq!(send(&hub, "x"), 0, "nothing is kept for it any more");
    drop(stalled);
    assert_eq!(
        (hub.sweep(), hub.stats().ended.get(EndReason::Deadline)),
        (0, 1)
    );
}

// Disconnections

#[tokio::test]
async fn a_disconnected_user_is_removed_immediately_and_may_come_back() {
    let hub = Hub::new();
    let (mut one, two) = (join(&hub), join(&hub));
    let other = hub.register("bob").expect("no cap is reached");
    send(&hub, "unread");
    assert_eq!(hub.disconnect_user("ann"), 2);
    assert_eq!(
        (hub.connection_count("ann"), hub.total_connections()),
        (0, 1)
    );
    assert_eq!(one.next().await, None, "what was not read is dropped");
    let mut back = join(&hub);
    assert_eq!(send(&hub, "again"), 1);
    assert_eq!(
        back.next().await.expect("an event").expect("no lag").data(),
        "again"
    );
    drop((one, two));
    assert_eq!(
        (hub.connection_count("ann"), hub.total_connections()),
        (1, 2)
    );
    assert_eq!(hub.disconnect_user("nobody"), 0);
    drop(other);
}

#[tokio::test]
async fn a_waiting_stream_is_woken_by_a_disconnection() {
    let hub = Hub::new();
    let mut one = hub.register_as("ann", "tab").expect("no cap is reached");
    let waiter = tokio::spawn(async move { one.next().await });
    tokio::task::yield_now().await;
    assert!(hub.unregister("ann", &ConnectionId::from("tab")));
    assert_eq!(waiter.await.expect("no panic"), None);
}

// Sweeps

#[tokio::test(start_paused = true)]
async fn a_sweep_disconnects_a_connection_that_lags_too_far_for_too_long() {
    let hub = Hub::builder()
        .ring_capacity(4)
        .patience(2, Duration::from_secs(10))
        .build()
        .expect("valid settings");
    let stalled = join(&hub);
    let mut prompt = join(&hub);
    for data in ["1", "2", "3"] {
        send(&hub, data);
        prompt.next().await.expect("an event").expect("no lag");
    }
    let behind: Vec<u64> = hub
        .connection_info()
        .iter()
        .map(|info| info.behind)
        .collect();
    assert_eq!((behind.iter().sum::<u64>(), behind.len()), (3, 2));
    assert_eq!(hub.sweep(), 0, "the time begins to run");
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert_eq!(hub.sweep(), 0);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(hub.sweep(), 1);
    assert_eq!(
        (
            hub.connection_count("ann"),
            hub.stats().ended.get(EndReason::Behind)
        ),
        (1, 1)
    );
    assert_eq!(send(&hub, "4"), 1, "only the prompt one is left");
    drop(stalled);
    assert_eq!(hub.total_connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn by_default_a_sweep_disconnects_only_connections_that_lost_events() {
    for capacity in [1_usize, 3, 4, 5, 33, 100] {
        // As `Builder::ring_capacity` says: a ring of three holds four.
        let holds = capacity.next_power_of_two();
        for sent in [0, 1, holds - 1, holds, holds + 1, 2 * holds + 1] {
            let hub = Hub::builder().ring_capacity(capacity).build();
            let hub = hub.expect("valid settings");
            let _stalled = join(&hub);
            let mut late = join(&hub);
            for _ in 0..sent {
                send(&hub, "x");
            }
            let has_lost = late
                .next()
                .now_or_never()
                .flatten()
                .is_some_and(|item| item.is_err());
            assert_eq!(
                has_lost,
                sent > holds,
                "{sent} events in a ring of {capacity}"
            );
            drop(late);
            hub.sweep();
            tokio::time::advance(Duration::from_secs(31)).await;
            assert_eq!(
                hub.sweep(),
                usize::from(has_lost),
                "{sent} events, {capacity}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_catches_up_is_not_swept() {
    let hub = Hub::builder()
        .ring_capacity(4)
        .patience(0, Duration::from_secs(10))
        .build()
        .expect("valid settings");
    let mut slow = join(&hub);
    for _ in 0..5 {
        send(&hub, "x");
        assert_eq!(hub.sweep(), 0);
        tokio::time::advance(Duration::from_secs(9)).await;
        slow.next().await.expect("an event").expect("no lag");
        assert_eq!(hub.sweep(), 0);
        tokio::time::advance(Duration::from_secs(9)).await;
    }
    assert_eq!(hub.total_connections(), 1);
}

#[tokio::test]
async fn a_connection_is_not_behind_by_events_that_it_has_lost() {
    let hub = Hub::builder()
        .ring_capacity(4)
        .patience(4, Duration::ZERO)
        .build()
        .expect("valid settings");
    let mut slow = join(&hub);
    for _ in 0..20 {
        send(&hub, "x");
    }
    assert_eq!(lag(slow.next().await), Some(16));
    assert_eq!(hub.sweep(), 0);
}

#[tokio::test(start_paused = true)]
async fn sweeps_in_the_background_end_with_the_broadcaster() {
    let hub = Hub::builder()
        .ring_capacity(2)
        .patience(0, Duration::from_secs(1))
        .sweep_every(Duration::from_millis(500))
        .build()
        .expect("valid settings");
    let stalled = join(&hub);
    send(&hub, "x");
    sleep(Duration::from_millis(1_600)).await;
    assert_eq!(hub.total_connections(), 0);
    drop((stalled, hub));
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    sleep(Duration::from_secs(1)).await;
    assert_eq!(tasks(), 0);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let builder = Hub::builder;
    assert_eq!(
        builder().sweep_every(Duration::from_secs(1)).build().err(),
        Some(ConfigError::NoRuntime)
    );
    assert_eq!(
        builder().sweep_every(Duration::ZERO).build().err(),
        Some(ConfigError::ZeroInterval)
    );
    assert_eq!(
        builder().connections_per_user(0).build().err(),
        Some(ConfigError::ZeroCap)
    );
    assert!(matches!(
        builder().ring_capacity(0).build().err(),
        Some(ConfigError::RingCapacity { capacity: 0, .. })
    ));
}

// Shutdown

/// A drain would put it in the place of what the service has told its clients, and have all come back at once.
#[tokio::test(start_paused = true)]
async fn only_a_shutdown_tells_clients_when_to_come_back() {
    for history in [None, Some(History::new(10))] {
        let hub = Hub::builder().history(history).build();
        let hub = hub.expect("valid settings");
        let body = SseBody::new(join(&hub)).cursor(false);
        send(&hub, "before");
        assert_eq!(hub.drain_user("ann"), 1);
        let text = read_to_end(body).await;
        assert!(text.ends_with("data: before\n\n"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_every_stream_after_what_was_broadcast_before() {
    let hub = Hub::new();
    let start = Instant::now();
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let body = SseBody::new(join(&hub));
            tokio::spawn(async move { (read_to_end(body).await, Instant::now()) })
        })
        .collect();
    assert_eq!(send(&hub, "before"), 10);
    let over = Duration::from_secs(4);
    assert_eq!(hub.shutdown(over).await, 0, "nobody had to be cut");
    assert!(start.elapsed() <= over * 3 / 4 + Duration::from_millis(10));
    assert_eq!(hub.total_connections(), 0);

    let (mut ends, mut retries) = (Vec::new(), Vec::new());
    for reader in readers {
        let (text, end) = reader.await.expect("no panic");
        let (events, retry) = split_retry(&text);
        assert_eq!(events, "data: before\n\n");
        assert!((1_000..=5_000).contains(&retry), "{retry}");
        ends.push(end - start);
        retries.push(retry);
    }
    ends.sort();
    retries.sort();
    assert!(
        ends[9] - ends[0] > Duration::from_millis(300),
        "spread: {ends:?}"
    );
    assert!(retries[9] - retries[0] > 300, "spread: {retries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_time_is_up_in_a_shutdown_says_when_to_come_back() {
    let hub = Hub::new();
    let at = Instant::now() + Duration::from_millis(1);
    let body = SseBody::new(join(&hub).deadline(at));
    let reader = tokio::spawn(read_to_end(body));
    hub.shutdown(Duration::from_secs(60)).await;
    let text = reader.await.expect("no panic");
    let (events, retry) = split_retry(&text);
    assert_eq!(events, ":\n");
    assert!((1_000..=61_000).contains(&retry), "{retry}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_refuses_new_connections() {
    let hub = Hub::new();
    hub.shutdown(Duration::from_secs(1)).await;
    assert_eq!(hub.register("ann").err(), Some(SHUTTING_DOWN));
    assert_eq!((hub.total_connections(), hub.stats().refused), (0, 1));
    assert_eq!(
        hub.shutdown(Duration::from_secs(1)).await,
        0,
        "twice is as good as once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_cuts_clients_that_do_not_read() {
    let hub = Hub::new();
    let start = Instant::now();
    let mut stalled = join(&hub);
    send(&hub, "unread");
    assert_eq!(hub.shutdown(Duration::from_secs(2)).await, 1);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert_eq!(hub.total_connections(), 0);
    assert_eq!(stalled.next().await, None);
}

/// tokio lets a task that has had its turn hear "not yet" although there is more. That is not where its streams end.
#[tokio::test]
async fn a_stream_that_finishes_does_so_over_several_turns_of_its_task() {
    const EVENTS: usize = 500;
    for history in [None, Some(History::new(EVENTS))] {
        let hub = Hub::builder()
            .ring_capacity(EVENTS)
            .history(history)
            .build();
        let hub = hub.expect("valid settings");
        let stream = join(&hub);
        for _ in 0..EVENTS {
            send(&hub, "event");
        }
        hub.drain_user("ann");
        assert_eq!(stream.count().await, EVENTS);
    }
}

/// A stream that never has to wait for an event is not left for the cut.
#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_streams_in_time_however_much_is_broadcast() {
    for history in [None, Some(History::new(10))] {
        let hub = Hub::builder().ring_capacity(4).history(history).build();
        let hub = hub.expect("valid settings");
        let mut stream = join(&hub);
        let shutdown = {
            let hub = hub.clone();
            tokio::spawn(async move { hub.shutdown(Duration::from_secs(4)).await })
        };
        loop {
            send(&hub, "more");
            match stream.next().now_or_never() {
                Some(Some(Ok(_))) => tokio::time::advance(Duration::from_millis(1)).await,
                Some(None) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(send(&hub, "after"), 0, "it keeps nothing after its end");
        drop(stream);
        assert_eq!(shutdown.await.expect("no panic"), 0, "it had to be cut");
    }
}

/// It waits for its socket, or is kept, for as long as the shutdown lasts.
#[tokio::test(start_paused = true)]
async fn a_stream_that_a_shutdown_has_ended_stays_so() {
    for history in [None, Some(History::new(10))] {
        let hub = Hub::builder().history(history).build();
        let hub = hub.expect("valid settings");
        let mut stream = join(&hub);
        let shutdown = {
            let hub = hub.clone();
            tokio::spawn(async move { hub.shutdown(Duration::from_secs(4)).await })
        };
        assert_eq!(stream.next().await, None);
        assert_eq!(send(&hub, "after"), 0, "it keeps nothing after its end");
        assert_eq!(stream.next().await, None);
        drop(stream);
        assert_eq!(shutdown.await.expect("no panic"), 0, "it had to be cut");
    }
}

/// It has lost most of what was broadcast before, and ends behind the rest.
#[tokio::test(start_paused = true)]
async fn a_stream_that_lags_into_a_shutdown_yields_what_is_left() {
    const EVENTS: usize = 50;
    for history in [None, Some(History::new(10)), Some(History::new(EVENTS))] {
        let hub = Hub::builder().ring_capacity(4).history(history).build();
        let hub = hub.expect("valid settings");
        let mut stream = join(&hub);
        for _ in 0..EVENTS {
            send(&hub, "before");
        }
        let shutdown = {
            let hub = hub.clone();
            tokio::spawn(async move { hub.shutdown(Duration::from_secs(4)).await })
        };
        sleep(Duration::from_millis(3_500)).await;
        let (mut yielded, mut missed) = (0, 0);
        while let Some(item) = stream.next().await {
            match item {
                Ok(event) => {
                    yielded += usize::from(event.data() == "before");
                    send(&hub, "more");
                }
                Err(gap) => missed += gap.missed.expect("a number"),
            }
        }
        assert_eq!(yielded as u64 + missed, EVENTS as u64);
        drop(stream);
        assert_eq!(shutdown.await.expect("no panic"), 0, "it had to be cut");
    }
}

/// Whoever gives up on it after the first poll, as a process does that exits, has ended all of them.
#[tokio::test]
async fn a_shutdown_that_has_no_time_waits_for_nothing() {
    let hub = Hub::new();
    let streams = [(); 3].map(|()| join(&hub));
    let shutdown = hub.shutdown(Duration::ZERO).now_or_never();
    assert_eq!(shutdown, Some(3));
    for mut stream in streams {
        assert_eq!(stream.next().now_or_never(), Some(None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_given_up_can_be_taken_up_again() {
    let hub = Hub::new();
    let stalled = join(&hub);
    let first = timeout(
        Duration::from_secs(1),
        hub.shutdown(Duration::from_secs(60)),
    );
    assert!(first.await.is_err());
    assert_eq!(hub.register("bob").err(), Some(SHUTTING_DOWN));
    assert_eq!(hub.shutdown(Duration::ZERO).await, 1);
    drop(stalled);
}

// Reasons

/// That the stream has ended for this reason, which is counted, and the only one.
#[track_caller]
fn assert_ended(hub: &Hub, stream: &Subscription, reason: EndReason) {
    assert_eq!(stream.end_reason(), Some(reason));
    let ended = hub.stats().ended;
    assert_eq!((ended.get(reason), ended.total()), (1, 1), "{ended:?}");
}

#[tokio::test]
async fn a_stream_that_is_ended_immediately_names_the_reason() {
    type End = fn(&Hub) -> bool;
    let unregister: End = |hub| hub.unregister("ann", &ConnectionId::from("tab"));
    let disconnect: End = |hub| hub.disconnect_user("ann") == 1;
    for (end, reason) in [
        (unregister, EndReason::Unregistered),
        (disconnect, EndReason::Disconnected),
    ] {
        let hub = Hub::new();
        let mut stream = hub.register_as("ann", "tab").expect("no cap is reached");
        assert_eq!(stream.end_reason(), None);
        assert!(end(&hub));
        assert_ended(&hub, &stream, reason);
        assert_eq!(stream.next().await, None);
        assert_ended(&hub, &stream, reason);
        drop(stream);
        assert_eq!(hub.stats().ended.total(), 1);
    }
}

#[tokio::test]
async fn a_stream_that_finishes_says_by_what_and_is_counted_when_it_leaves() {
    let drain: fn(&Hub) -> usize = |hub| hub.drain_user("ann");
    let forget: fn(&Hub) -> usize = |hub| hub.forget("ann");
    for history in [None, Some(History::new(10))] {
        for (end, reason) in [(drain, EndReason::Drained), (forget, EndReason::Forgotten)] {
            let hub = Hub::builder().history(history).build();
            let hub = hub.expect("valid settings");
            let mut stream = join(&hub);
            send(&hub, "before");
            assert_eq!(end(&hub), 1);
            assert_eq!(stream.end_reason(), Some(reason), "it is known already");
            assert!(stream.next().await.expect("an event").is_ok());
            assert_eq!(stream.next().await, None);
            assert_eq!(stream.end_reason(), Some(reason));
            assert_eq!(hub.stats().ended.total(), 0, "it has not left");
            drop(stream);
            let ended = hub.stats().ended;
            assert_eq!((ended.get(reason), ended.total()), (1, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_a_sweep_ends_says_which_limit_it_passed() {
    let hub = || Hub::builder().patience(0, Duration::ZERO).build();
    let second = Duration::from_secs(1);

    let behind = hub().expect("valid settings");
    let stalled = join(&behind);
    send(&behind, "unread");
    assert_eq!(behind.sweep(), 1);
    assert_ended(&behind, &stalled, EndReason::Behind);

    let overdue = hub().expect("valid settings");
    let stalled = join(&overdue).deadline(Instant::now() + second);
    tokio::time::advance(second).await;
    assert_eq!(overdue.sweep(), 1);
    assert_ended(&overdue, &stalled, EndReason::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_stream_past_its_deadline_says_so_although_it_was_not_polled_any_more() {
    let second = Duration::from_secs(1);
    let (hub, polled) = (Hub::new(), Hub::new());
    let mut ending = join(&polled).deadline(Instant::now() + second);
    drop(join(&hub).deadline(Instant::now() + second));
    assert_eq!(
        hub.stats().ended.get(EndReason::Dropped),
        1,
        "before the deadline"
    );
    let stalled = join(&hub).deadline(Instant::now() + second);
    assert_eq!(ending.next().await, None);
    assert_eq!(ending.end_reason(), Some(EndReason::Deadline));
    drop((stalled, ending));
    assert_eq!(hub.stats().ended.get(EndReason::Deadline), 1);
    assert_eq!(polled.stats().ended.get(EndReason::Deadline), 1);
}

#[tokio::test]
async fn a_stream_that_its_lag_policy_ends_says_so() {
    for policy in [LagPolicy::Disconnect, LagPolicy::End] {
        let hub = small_hub(policy);
        let mut stream = join(&hub);
        send_five(&hub);
        while stream.next().await.is_some() {}
        assert_eq!(stream.end_reason(), Some(EndReason::Gap));
        drop(stream);
        assert_eq!(hub.stats().ended.get(EndReason::Gap), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_the_reason_of_those_that_end_and_of_those_that_are_cut() {
    let hub = Hub::new();
    let (mut reading, stalled) = (join(&hub), join(&hub));
    send(&hub, "unread");
    let reader = tokio::spawn(async move {
        while reading.next().await.is_some() {}
        reading.end_reason()
    });
    assert_eq!(hub.shutdown(Duration::from_secs(2)).await, 1);
    assert_eq!(reader.await.expect("no panic"), Some(EndReason::Shutdown));
    assert_eq!(stalled.end_reason(), Some(EndReason::Shutdown));
    let ended = hub.stats().ended;
    assert_eq!((ended.get(EndReason::Shutdown), ended.total()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn the_first_reason_counts() {
    let hub = Hub::new();
    let stream = join(&hub);
    hub.drain_user("ann");
    assert_eq!(hub.disconnect_user("ann"), 1);
    hub.shutdown(Duration::ZERO).await;
    assert_ended(&hub, &stream, EndReason::Drained);
    drop(stream);
    assert_eq!(hub.stats().ended.total(), 1);
}

#[cfg(feature = "serve")]
mod over_http {
    use std::ops::ControlFlow;

    use axum::{Router, extract::State, routing::get};
    use tidings::metrics::Ends;
    use tidings::serve::{bind, serve};
    use tidings::sse::{Chunks, SseResponse, View};
    use tidings_testkit::SseRequest;

    use super::*;

    /// Shows one event.
    struct One;

    impl View for One {
        fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
            chunks.push(frame.to_bytes());
            ControlFlow::Break(())
        }
    }

    async fn stream(State(hub): State<Hub>) -> Result<Subscription, RegisterError> {
        hub.register("ann")
    }

    async fn view(State(hub): State<Hub>) -> Result<SseResponse, RegisterError> {
        Ok(SseResponse::new(hub.register("ann")?).view(One))
    }

    async fn left(hub: &Hub) -> Ends {
        let deadline = Instant::now() + Duration::from_secs(20);
        while hub.stats().ended.total() == 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
        let ended = hub.stats().ended;
        assert_eq!((ended.total(), hub.total_connections()), (1, 0));
        ended
    }

    #[tokio::test]
    async fn a_client_that_goes_drops_its_stream_and_a_view_completes_it() {
        for path in ["/stream", "/view"] {
            let hub = Hub::new();
            let app = Router::new()
                .route("/stream", get(stream))
                .route("/view", get(view))
                .with_state(hub.clone());
            let listener = bind("127.0.0.1:0").await.expect("a port");
            let addr = listener.local_addr().expect("an address");
            let server = tokio::spawn(serve(listener, app).into_future());
            let mut client = SseRequest::get(path).connect(addr).await.expect("a stream");
            send(&hub, "hello");
            assert_eq!(&*client.next().await.data, "hello");
            if path == "/view" {
                client.expect_end().await;
                assert_eq!(left(&hub).await.get(EndReason::Completed), 1);
            } else {
                drop(client);
                assert_eq!(left(&hub).await.get(EndReason::Dropped), 1);
            }
            server.abort();
        }
    }
}

#[cfg(feature = "axum")]
mod responses {
    use super::*;
    use axum::response::IntoResponse;
    use axum::{Router, extract::State, routing::get};
    use tidings_testkit::SseRequest;

    #[tokio::test]
    async fn a_refusal_that_browsers_survive_is_a_stream_that_ends() {
        let form = RefusalForm::Status;
        for refused in [SHUTTING_DOWN, RegisterError::UserFull { cap: 1, form }] {
            let app = Router::new().fallback(async move || refused.in_form(RefusalForm::ComeBack));
            let mut client = SseRequest::get("/").open(app).await.expect("a stream");
            assert_eq!(client.next().await.event, "refused");
            client.expect_end().await;
            let retry = client.retry().expect("when to come back").as_millis();
            assert!((1_000..=11_000).contains(&retry));
        }
        let status = |refused: RegisterError| refused.into_response().status().as_u16();
        assert_eq!(status(SHUTTING_DOWN), 200);
        assert_eq!(status(RegisterError::UserFull { cap: 1, form }), 429);
        assert_eq!(status(RegisterError::TotalFull { cap: 1, form }), 503);
    }

    #[tokio::test]
    async fn a_shutdown_lets_a_graceful_server_return() {
        async fn stream(State(hub): State<Hub>) -> Result<Subscription, RegisterError> {
            hub.register("ann")
        }

        let hub = Hub::new();
        let app = Router::new()
            .route("/", get(stream))
            .with_state(hub.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let drain = {
            let hub = hub.clone();
            async move {
                let _ = stopped.await;
                hub.shutdown(Duration::from_millis(200)).await;
            }
        };
        let server = axum::serve(listener, app).with_graceful_shutdown(drain);
        let server = tokio::spawn(server.into_future());

        let opened = (0..5).map(|_| SseRequest::get("/").connect(addr));
        let streams = futures_util::future::try_join_all(opened).await;
        assert_eq!(send(&hub, "last"), 5);
        stop.send(()).expect("the server waits");
        for mut stream in streams.expect("five streams") {
            let events = stream.collect_to_end().await;
            assert_eq!((events.len(), &*events[0].data), (1, "last"));
            assert!(stream.retry().is_some());
        }
        let ended = timeout(Duration::from_secs(5), server).await;
        ended
            .expect("it returns")
            .expect("no panic")
            .expect("no error");
        assert_eq!(hub.total_connections(), 0);
    }
}
