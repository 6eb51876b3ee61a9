//! Clocks that jump, and times without end: nothing overflows, nothing is made up for, and the system's clock decides
//! nothing.
//!
//! Time is tokio's, paused, and set ahead by days and by centuries, as after a machine was suspended. More about
//! keep-alives is in `http.rs`, about the server's limits in `serve.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::Body;
use tidings::backplane::Level;
use tidings::{
    GapReason, GenericBroadcaster, HEARTBEAT_INTERVAL, History, KeepAlive, LagPolicy, LastEventId,
    SseBody, Subscription, Text,
};
use tidings_console::Console;
use tidings_testkit::backplane::InProcess;
use tokio::time::{Instant, advance, timeout};
use tokio_stream::StreamExt;

type Hub = GenericBroadcaster<Text>;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn send(hub: &Hub, data: &str) -> usize {
    let reached = hub.broadcast("ann", &Text::new(data.to_owned()));
    reached.expect("text can be encoded")
}

fn join(hub: &Hub) -> Subscription {
    hub.register("ann").expect("no cap is reached")
}

/// What the stream has ready: its data, or the reason of a gap. `None` if it waits.
fn ready(stream: &mut Subscription) -> Option<Option<Result<String, GapReason>>> {
    let item = stream.next().now_or_never()?;
    Some(item.map(|item| item.map(|frame| frame.data()).map_err(|gap| gap.reason)))
}

fn chunk(body: &mut SseBody) -> Poll<Option<Bytes>> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let frame = std::pin::Pin::new(body).poll_frame(&mut cx);
    frame.map(|frame| frame.map(|frame| frame.expect("it never fails").into_data().expect("data")))
}

#[tokio::test(start_paused = true)]
async fn a_jump_is_one_keep_alive_and_not_all_that_were_missed() {
    for jump in [DAY, CENTURY] {
        let hub = Hub::new();
        let mut body = SseBody::new(join(&hub));
        assert_eq!(chunk(&mut body), Poll::Ready(Some(Bytes::from(":\n"))));
        assert_eq!(chunk(&mut body), Poll::Pending);
        advance(jump).await;
        assert_eq!(chunk(&mut body), Poll::Ready(Some(Bytes::from(":\n"))));
        assert_eq!(chunk(&mut body), Poll::Pending);
        // And the next one is due after the interval again.
        advance(HEARTBEAT_INTERVAL - SECOND).await;
        assert_eq!(chunk(&mut body), Poll::Pending);
        advance(SECOND).await;
        assert_eq!(chunk(&mut body), Poll::Ready(Some(Bytes::from(":\n"))));
        // An event that waited through a jump goes first.
        send(&hub, "x");
        advance(jump).await;
        let event = Bytes::from("data: x\n\n");
        assert_eq!(chunk(&mut body), Poll::Ready(Some(event)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_over_a_deadline_ends_the_stream_and_none_ends_too_early() {
    let hub = Hub::new();
    let mut soon = join(&hub).deadline(Instant::now() + DAY);
    let mut unread = join(&hub).deadline(Instant::now() + DAY);
    let mut late = join(&hub).deadline(Instant::now() + 10 * CENTURY);
    for stream in [&mut soon, &mut unread, &mut late] {
        assert_eq!(ready(stream), None);
    }
    advance(DAY - Duration::from_millis(1)).await;
    send(&hub, "in time");
    for stream in [&mut soon, &mut late] {
        assert_eq!(ready(stream), Some(Some(Ok("in time".to_owned()))));
    }
    assert_eq!(hub.sweep(), 0);
    advance(CENTURY).await;
    assert_eq!(ready(&mut soon), Some(None));
    assert_eq!(ready(&mut late), None);
    // Of the two that are over, one has found out by itself and is counted until it is dropped.
    drop(soon);
    assert_eq!((hub.sweep(), hub.total_connections()), (1, 1));
    assert_eq!(ready(&mut unread), Some(None));
    advance(10 * CENTURY).await;
    assert_eq!(ready(&mut late), Some(None));
}

#[tokio::test(start_paused = true)]
async fn only_streams_behind_before_a_clock_jump_are_swept() {
    let hub = Hub::builder().patience(2, DAY).build().expect("valid");
    let (mut slow, mut prompt) = (join(&hub), join(&hub));
    for _ in 0..3 {
        send(&hub, "x");
        assert!(ready(&mut prompt).is_some());
    }
    // Nobody has been behind for long: what went on during a jump, nobody has seen.
    advance(CENTURY).await;
    assert_eq!(hub.sweep(), 0);
    advance(DAY - Duration::from_millis(1)).await;
    assert_eq!(hub.sweep(), 0);
    advance(CENTURY).await;
    assert_eq!(hub.sweep(), 1);
    assert_eq!(ready(&mut slow), Some(None));
    assert_eq!((ready(&mut prompt), hub.total_connections()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_jump_a_history_has_forgotten_and_says_so() {
    let history = History::new(10).age(DAY).linger(2 * DAY);
    let hub = Hub::builder().history(history).build().expect("valid");
    let mut stream = join(&hub);
    send(&hub, "seen");
    let seen = stream.next().await.expect("an event").expect("no gap");
    let seen = seen.fields().find(|(name, _)| *name == "id");
    let seen = LastEventId::new(seen.expect("it has an id").1);
    drop(stream);
    send(&hub, "too old");
    advance(DAY + Duration::from_millis(1)).await;
    send(&hub, "not too old");
    let mut stream = hub.resume("ann", &seen).expect("no cap is reached");
    assert_eq!(ready(&mut stream), Some(Some(Err(GapReason::Evicted))));
    assert_eq!(ready(&mut stream), Some(Some(Ok("not too old".to_owned()))));
    drop(stream);
    advance(CENTURY).await;
    hub.sweep();
    assert_eq!((hub.stats().away, hub.stats().history_bytes), (0, 0));
    let mut stream = hub.resume("ann", &seen).expect("no cap is reached");
    assert_eq!(ready(&mut stream), Some(Some(Err(GapReason::Epoch))));
    assert_eq!(ready(&mut stream), None);
}

#[tokio::test(start_paused = true)]
async fn after_a_jump_there_is_one_sweep_and_not_all_that_were_missed() {
    let hub = Hub::builder()
        .patience(1, DAY)
        .sweep_every(SECOND)
        .build()
        .expect("valid settings");
    let stream = join(&hub);
    send(&hub, "x");
    send(&hub, "x");
    tokio::time::sleep(Duration::from_secs(2)).await;
    // If each of the sweeps that were missed came now, this would not return.
    advance(CENTURY).await;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(hub.total_connections(), 0);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_stream_not_polled_during_a_clock_jump_has_until_the_next_sweep() {
    let hub = Hub::builder()
        .patience(1, DAY)
        .sweep_every(SECOND)
        .build()
        .expect("valid settings");
    let (mut prompt, mut slow) = (join(&hub), join(&hub));
    send(&hub, "x");
    send(&hub, "x");
    tokio::time::sleep(2 * SECOND).await;
    // The sweep that is due comes before either of them has a turn.
    advance(CENTURY).await;
    assert_eq!(hub.total_connections(), 2);
    for _ in 0..2 {
        assert_eq!(ready(&mut prompt), Some(Some(Ok("x".to_owned()))));
    }
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(hub.total_connections(), 1);
    assert_eq!(ready(&mut prompt), None);
    assert_eq!(ready(&mut slow), Some(None));
}

#[tokio::test(start_paused = true)]
async fn times_without_end_are_no_panic() {
    let history = History::new(10).age(Duration::MAX).linger(Duration::MAX);
    let hub = Hub::builder()
        .history(history)
        .patience(0, Duration::MAX)
        .sweep_every(Duration::MAX)
        .report_metrics_every(Duration::MAX)
        .backplane_linger(Duration::MAX)
        .build()
        .expect("valid settings");
    let keep_alive = KeepAlive::comment().interval(Duration::MAX);
    let body = SseBody::new(join(&hub)).keep_alive(&keep_alive);
    let mut body = body.cursor(false).retry(Duration::MAX);
    let Poll::Ready(Some(retry)) = chunk(&mut body) else {
        panic!("no beginning");
    };
    let retry = String::from_utf8_lossy(&retry).into_owned();
    let millis = retry.strip_prefix("retry: ").map(str::trim_end);
    let millis: u64 = millis.expect("a retry").parse().expect("a number");
    assert_eq!(millis, i32::MAX as u64);
    for _ in 0..3 {
        send(&hub, "x");
        advance(CENTURY).await;
        hub.sweep();
        assert!(chunk(&mut body).is_ready());
        assert_eq!(chunk(&mut body), Poll::Pending);
    }
    drop(body);
    hub.sweep();
    assert_eq!((hub.stats().away, hub.stats().history_bytes > 0), (1, true));

    let console = Console::new().interval(Duration::MAX);
    let page = tower::ServiceExt::oneshot(
        console.router::<()>(),
        http::Request::get("/live")
            .header("host", "localhost")
            .body(axum::body::Body::empty())
            .expect("a request"),
    );
    assert_eq!(page.await.expect("it never fails").status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_event_may_ask_for_a_retry_without_end() {
    let hub = Hub::new();
    let mut stream = join(&hub);
    let event = Text::new("x".to_owned()).retry(Duration::MAX);
    hub.broadcast("ann", &event).expect("it can be encoded");
    let frame = stream.next().await.expect("an event").expect("no gap");
    let retry = frame.fields().find(|(name, _)| *name == "retry");
    let retry: u64 = retry.expect("a retry").1.parse().expect("64 bits");
    assert_eq!(retry, i32::MAX as u64);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_without_end_is_no_panic() {
    let hub = Hub::new();
    assert_eq!(hub.shutdown(Duration::MAX).await, 0);

    // Each is asked at a moment of its own, within thirty years.
    let hub = Hub::new();
    let mut reader = SseBody::new(join(&hub)).keep_alive(&KeepAlive::off());
    let reads = async {
        while let Some(frame) =
            std::future::poll_fn(|cx| std::pin::Pin::new(&mut reader).poll_frame(cx)).await
        {
            let bytes = frame.expect("it never fails").into_data().expect("data");
            let is_expected = bytes == ":\n" || bytes.starts_with(b"retry: ");
            assert!(is_expected, "{bytes:?}");
        }
    };
    let ended = timeout(CENTURY, async {
        tokio::join!(hub.shutdown(Duration::MAX), reads)
    });
    assert_eq!(ended.await.expect("it ends").0, 0);
}

#[tokio::test(start_paused = true)]
async fn patience_without_end_is_no_panic() {
    let engine = InProcess::new(Level::Replayable);
    let node = || {
        Hub::builder()
            .backplane(engine.node())
            .backplane_patience(Duration::MAX)
            .backplane_linger(Duration::MAX)
            .build()
            .expect("valid settings")
    };
    let (one, other) = (node(), node());
    let mut stream = one.register_when_ready("ann").await.expect("room");
    one.broadcast_confirmed("ann", &Text::new("1"))
        .await
        .expect("the engine is there");
    let seen = stream.next().await.expect("an event").expect("no gap");
    let seen = seen.fields().find(|(name, _)| *name == "id");
    let seen = LastEventId::new(seen.expect("it has an id").1);
    one.broadcast_confirmed("ann", &Text::new("2"))
        .await
        .expect("the engine is there");
    // What it has missed is asked of the engine, for as long as that takes.
    let mut stream = other.resume("ann", &seen).expect("room");
    let next = timeout(DAY, stream.next()).await.expect("it comes");
    assert_eq!(next.expect("an event").expect("no gap").data(), "2");
}

#[tokio::test(start_paused = true)]
async fn a_lag_over_a_jump_is_counted_as_without() {
    let hub = Hub::builder()
        .ring_capacity(2)
        .lag_policy(LagPolicy::Gap)
        .build()
        .expect("valid settings");
    let mut stream = join(&hub);
    for data in ["a", "b", "c", "d"] {
        send(&hub, data);
        advance(CENTURY).await;
    }
    assert_eq!(ready(&mut stream), Some(Some(Err(GapReason::Lagged))));
    assert_eq!(stream.guard().lagged(), 2);
    assert_eq!(ready(&mut stream), Some(Some(Ok("c".to_owned()))));
}

/// A clock that somebody sets may go backwards. The crate, and that of AG-UI's types, ask for it in one place: for the
/// time that events of protocols carry as data.
#[test]
fn the_systems_clock_is_asked_in_one_place_and_decides_nothing() {
    fn files(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    files(&root.join("src"), &mut all);
    let agui = root.join("crates/tidings-agui/src");
    files(&agui, &mut all);
    let asks = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a file of text");
        text.contains("SystemTime")
    };
    let asking: Vec<_> = all.iter().filter(|path| asks(path)).collect();
    assert_eq!(asking, [&agui.join("clock.rs")]);
}
