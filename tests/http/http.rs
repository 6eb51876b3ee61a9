//! What a client gets: headers, statuses, and the bytes of events and keep-alives. No connection outlives its response.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response, Sse};
use axum::routing::get;
use bytes::Bytes;
use eventsource_stream::Eventsource;
use futures_util::{FutureExt, Stream, StreamExt};
use http_body::Body as _;
use http_body_util::BodyExt;
use tidings::sse::SseResponse;
use tidings::{
    Builder, EventId, Frame, GenericBroadcaster, HEARTBEAT_INTERVAL, HEARTBEAT_JSON, KeepAlive,
    RefusalForm, RegisterError, SseBody, Subscription, Text, ToSse, standard_keep_alive,
};
use tidings_testkit::{SseError, SseRequest};
use tokio::sync::oneshot;
use tokio::task::consume_budget;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use crate::support::decoder::{Decoder, Dispatched};

type Hub = GenericBroadcaster<Text>;

fn text(data: &str) -> Text {
    Text::new(data.to_owned())
}

fn send(hub: &Hub, user: &str, data: &str) -> usize {
    let reached = hub.broadcast(user, &text(data));
    reached.expect("text can be encoded")
}

fn join(hub: &Hub) -> Subscription {
    hub.register("ann").expect("no cap is reached")
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().expect("ASCII"))
}

/// The next chunk of a body; `None` at its end. With the clock paused, waiting for it moves the clock.
async fn chunk<B: http_body::Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Bytes> {
    let frame = body.frame().await?.ok().expect("no error");
    Some(frame.into_data().expect("no trailers"))
}

/// The chunk that is ready now; `None` if there is none.
fn chunk_now(body: &mut (impl http_body::Body<Data = Bytes> + Unpin)) -> Option<Bytes> {
    chunk(body)
        .now_or_never()
        .map(|chunk| chunk.expect("the body has not ended"))
}

fn decode(chunks: &[Bytes]) -> Vec<Dispatched> {
    let mut decoder = Decoder::default();
    for chunk in chunks {
        decoder.push(chunk);
    }
    decoder.take()
}

fn poll_now<B: http_body::Body + Unpin>(body: &mut B) -> Poll<Option<B::Data>> {
    let polled = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
    polled.map(|frame| frame?.ok()?.into_data().ok())
}

/// A body of which the beginning was read: the comment that proxies pass the head on for.
fn opened(mut body: SseBody) -> SseBody {
    assert_eq!(chunk_now(&mut body).expect("the beginning"), ":\n");
    body
}

// Responses

#[tokio::test(start_paused = true)]
async fn a_subscription_is_an_event_stream() {
    let hub = Hub::new();
    let responses = [
        join(&hub).into_response(),
        SseResponse::new(join(&hub)).into_response(),
        SseResponse::new(join(&hub))
            .keep_alive(&standard_keep_alive())
            .into_response(),
    ];
    assert_eq!(hub.total_connections(), 3);
    send(&hub, "ann", "one\r\ntwo");
    for response in responses {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-type"), Some("text/event-stream"));
        assert_eq!(
            header(&response, "cache-control"),
            Some("no-cache, no-transform")
        );
        assert_eq!(header(&response, "x-accel-buffering"), Some("no"));
        assert_eq!(header(&response, "content-length"), None);
        let mut body = response.into_body();
        assert_eq!(
            chunk_now(&mut body).expect("the event"),
            "data: one\ndata: two\n\n"
        );
    }
    assert_eq!(hub.total_connections(), 0);
}

#[tokio::test]
async fn a_refusal_says_what_and_when_to_come_back() {
    let form = RefusalForm::Status;
    let full_user = RegisterError::UserFull { cap: 10, form };
    let full_service = RegisterError::TotalFull { cap: 7, form };
    for (error, status, retry_after) in [
        (full_user, StatusCode::TOO_MANY_REQUESTS, true),
        (full_service, StatusCode::SERVICE_UNAVAILABLE, true),
        (
            RegisterError::ConnectionIdInUse,
            StatusCode::CONFLICT,
            false,
        ),
    ] {
        let response = error.into_response();
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "retry-after").is_some(), retry_after);
        assert_eq!(
            header(&response, "content-type"),
            Some("text/plain; charset=utf-8")
        );
        let body = response.into_body().collect().await.expect("no error");
        assert_eq!(body.to_bytes(), error.to_string());
    }
    assert!(full_user.to_string().contains("10"));
    assert!(full_service.to_string().contains('7'));
}

#[tokio::test]
async fn a_broadcaster_says_in_which_form_it_refuses() {
    let build = |change: fn(Builder<Text>) -> Builder<Text>| {
        let builder = Hub::builder().connections_per_user(1).total_connections(2);
        change(builder).build().expect("valid settings")
    };
    let status = StatusCode::TOO_MANY_REQUESTS;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let come_back = StatusCode::OK;
    // A full user, a full service, a shutdown.
    for (hub, expected) in [
        (build(|hub| hub), [status, unavailable, come_back]),
        (
            build(|hub| hub.when_full(RefusalForm::ComeBack)),
            [come_back; 3],
        ),
        (
            build(|hub| hub.when_shutting_down(RefusalForm::Status)),
            [status, unavailable, unavailable],
        ),
    ] {
        let service = service(hub.clone());
        let refuse = async |user: &str| {
            let response = call(&service, Method::GET, &format!("/events/{user}")).await;
            let retry_after = header(&response, "retry-after").is_some();
            assert_eq!(retry_after, response.status() != come_back);
            response
        };
        let ann = hub.register("ann").expect("the first");
        let full_user = refuse("ann").await.status();
        let bob = hub.register("bob").expect("the second");
        let full_service = refuse("eve").await;
        let full_status = full_service.status();
        if full_status == come_back {
            let content_type = header(&full_service, "content-type");
            assert_eq!(content_type, Some("text/event-stream"));
            let body = full_service.into_body().collect().await.expect("an end");
            assert!(body.to_bytes().starts_with(b"retry: "));
        }
        drop((ann, bob));
        hub.shutdown(Duration::ZERO).await;
        let shutting_down = refuse("ann").await.status();
        assert_eq!([full_user, full_status, shutting_down], expected);
    }
}

#[test]
fn a_handler_may_choose_another_form() {
    let status = |error: RegisterError, form| error.in_form(form).into_response().status();
    let cap = 1;
    let form = RefusalForm::Status;
    for (error, expected) in [
        (RegisterError::UserFull { cap, form }, 429),
        (RegisterError::TotalFull { cap, form }, 503),
        (RegisterError::ShuttingDown { form }, 503),
    ] {
        assert_eq!(status(error, RefusalForm::Status), expected);
        assert_eq!(status(error, RefusalForm::ComeBack), 200);
        let there_and_back = error.in_form(RefusalForm::ComeBack).in_form(form);
        assert_eq!(there_and_back, error);
    }
    let in_use = RegisterError::ConnectionIdInUse;
    assert_eq!(status(in_use, RefusalForm::ComeBack), 409);
}

/// The smallest service: a stream for each user, the hub as state.
fn service(hub: Hub) -> Router {
    async fn stream(
        State(hub): State<Hub>,
        Path(user): Path<String>,
    ) -> Result<Subscription, RegisterError> {
        hub.register(user)
    }
    async fn plain(
        State(hub): State<Hub>,
        Path(user): Path<String>,
    ) -> Result<impl IntoResponse, RegisterError> {
        Ok(Sse::new(hub.register(user)?.into_axum_events()))
    }
    Router::new()
        .route("/events/{user}", get(stream))
        .route("/plain/{user}", get(plain))
        .with_state(hub)
}

async fn call(service: &Router, method: Method, path: &str) -> Response {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).expect("a request");
    let service = service.clone();
    service.oneshot(request).await.expect("infallible")
}

#[tokio::test(start_paused = true)]
async fn a_hub_is_axum_state_and_a_full_one_refuses() {
    let hub: Hub = GenericBroadcaster::builder()
        .connections_per_user(1)
        .build()
        .expect("valid settings");
    let service = service(hub.clone());
    let open = async |path| SseRequest::get(path).open(service.clone()).await;
    let mut first = open("/events/ann").await.expect("a stream");
    let second = open("/events/ann").await.expect_err("ann has one");
    let status = match second {
        SseError::Refused(response) => response.status(),
        other => panic!("{other}"),
    };
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    let other = open("/events/bob").await.expect("a stream");

    send(&hub, "ann", "for ann");
    assert_eq!(first.next().await.data, "for ann");
    assert_eq!(hub.total_connections(), 2);
    drop(first);
    assert_eq!(hub.connection_count("ann"), 0);
    drop(other);
    assert_eq!(hub.total_connections(), 0);
}

#[tokio::test]
async fn a_head_request_leaves_no_connection_behind() {
    let hub = Hub::new();
    let service = service(hub.clone());
    for path in ["/events/ann", "/plain/ann"] {
        let response = call(&service, Method::HEAD, path).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-type"), Some("text/event-stream"));
        assert_eq!(hub.total_connections(), 0);
        assert_eq!(
            response
                .into_body()
                .collect()
                .await
                .expect("no error")
                .to_bytes(),
            ""
        );
    }
    assert_eq!(hub.stats().registered, 2);
}

// Keep-alive

/// The chunk that comes next, and how long it took.
async fn timed(body: &mut SseBody) -> (Duration, Bytes) {
    let start = Instant::now();
    let chunk = chunk(body).await.expect("the body has not ended");
    (start.elapsed(), chunk)
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_after_exactly_fifteen_seconds() {
    assert_eq!(HEARTBEAT_INTERVAL, Duration::from_secs(15));
    let hub = Hub::new();
    let mut body = opened(SseBody::new(join(&hub)));
    for _ in 0..3 {
        let (after, bytes) = timed(&mut body).await;
        assert_eq!((after, &*bytes), (HEARTBEAT_INTERVAL, &b":\n"[..]));
    }
    // Not a moment earlier.
    let early = Duration::from_millis(14_999);
    assert!(timeout(early, chunk(&mut body)).await.is_err());
    let (after, bytes) = timed(&mut body).await;
    assert_eq!((after, &*bytes), (Duration::from_millis(1), &b":\n"[..]));
}

#[tokio::test(start_paused = true)]
async fn an_event_postpones_the_keep_alive() {
    let hub = Hub::new();
    let mut body = opened(SseBody::new(join(&hub)));
    let ten = Duration::from_secs(10);
    assert!(timeout(ten, chunk(&mut body)).await.is_err());
    send(&hub, "ann", "x");
    let (after, bytes) = timed(&mut body).await;
    assert_eq!((after, &*bytes), (Duration::ZERO, &b"data: x\n\n"[..]));
    let (after, bytes) = timed(&mut body).await;
    assert_eq!((after, &*bytes), (HEARTBEAT_INTERVAL, &b":\n"[..]));
}

/// tokio then says "not yet" of every timer and means "ask again".
#[tokio::test(start_paused = true)]
async fn a_task_that_has_used_up_its_turn_gets_its_keep_alive() {
    let hub = Hub::new();
    let mut body = opened(SseBody::new(join(&hub)));
    let mut is_first = true;
    let next = poll_fn(|cx| {
        while std::mem::take(&mut is_first) && has_budget_remaining() {
            let _ = pin!(consume_budget()).poll(cx);
            is_first = true;
        }
        Pin::new(&mut body).poll_frame(cx)
    });
    let start = Instant::now();
    let next = timeout(2 * HEARTBEAT_INTERVAL, next).await;
    // The time-out polls it again too, but that is too late.
    assert_eq!(start.elapsed(), HEARTBEAT_INTERVAL);
    let frame = next.expect("it is woken").expect("it goes on").unwrap();
    assert_eq!(frame.into_data().unwrap(), ":\n");
}

#[tokio::test(start_paused = true)]
async fn no_keep_alive_is_written_while_events_flow() {
    let hub = Hub::new();
    let mut body = opened(SseBody::new(join(&hub)));
    for number in 0..100 {
        let pause = Duration::from_millis(14_999);
        assert!(
            timeout(pause, chunk(&mut body)).await.is_err(),
            "after {number} events"
        );
        send(&hub, "ann", "x");
        assert_eq!(chunk(&mut body).await.expect("the event"), "data: x\n\n");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_ready_goes_before_a_keep_alive_that_is_due() {
    let hub = Hub::new();
    let mut body = opened(SseBody::new(join(&hub)));
    assert_eq!(chunk_now(&mut body), None);
    tokio::time::advance(Duration::from_secs(60)).await;
    send(&hub, "ann", "x");
    assert_eq!(chunk_now(&mut body).expect("the event"), "data: x\n\n");
    assert_eq!(
        chunk_now(&mut body),
        None,
        "the silence has just been broken"
    );
    // However long nobody looked, it is one keep-alive and not one for each interval.
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(chunk_now(&mut body).expect("a keep-alive"), ":\n");
    assert_eq!(chunk_now(&mut body), None);
}

#[tokio::test(start_paused = true)]
async fn the_heartbeat_is_an_event_without_an_id() {
    const WIRE: &[u8] = b"event: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n";
    assert_eq!(HEARTBEAT_JSON, r#"{"type":"heartbeat"}"#);
    assert_eq!(standard_keep_alive(), KeepAlive::heartbeat_event());
    let hub = Hub::new();
    let mut body = SseBody::new(join(&hub)).keep_alive(&standard_keep_alive());
    let with_id = text("x").id(EventId::from(7)).event("named");
    hub.broadcast("ann", &with_id).expect("it can be encoded");
    let mut chunks = vec![chunk(&mut body).await.expect("the event")];
    for _ in 0..2 {
        let (after, bytes) = timed(&mut body).await;
        assert_eq!((after, &*bytes), (HEARTBEAT_INTERVAL, WIRE));
        chunks.push(bytes);
    }
    // The client's position stays where the last event with an id left it.
    let events = decode(&chunks);
    let seen: Vec<_> = events.iter().map(|e| (&*e.event, &*e.id)).collect();
    assert_eq!(
        seen,
        [("named", "7"), ("heartbeat", "7"), ("heartbeat", "7")]
    );
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_that_is_off_writes_nothing() {
    let hub = Hub::new();
    let mut body = opened(SseBody::new(join(&hub)).keep_alive(&KeepAlive::off()));
    let year = Duration::from_secs(365 * 24 * 3600);
    assert!(timeout(year, chunk(&mut body)).await.is_err());
    send(&hub, "ann", "x");
    assert_eq!(chunk(&mut body).await.expect("the event"), "data: x\n\n");
}

#[tokio::test(start_paused = true)]
async fn the_interval_can_be_chosen() {
    let hub = Hub::new();
    for (asked, got) in [
        (Duration::from_secs(1), Duration::from_secs(1)),
        (Duration::from_secs(3600), Duration::from_secs(3600)),
        (Duration::ZERO, Duration::from_millis(1)),
    ] {
        let keep_alive = KeepAlive::comment().interval(asked);
        let mut body = opened(SseBody::new(join(&hub)).keep_alive(&keep_alive));
        for _ in 0..2 {
            let (after, bytes) = timed(&mut body).await;
            assert_eq!((after, &*bytes), (got, &b":\n"[..]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_interval_without_end_is_no_panic() {
    let hub = Hub::new();
    let keep_alive = KeepAlive::comment().interval(Duration::MAX);
    let mut body = opened(SseBody::new(join(&hub)).keep_alive(&keep_alive));
    let mut plain = Sse::new(join(&hub).into_axum_events())
        .keep_alive(keep_alive.into())
        .into_response()
        .into_body();
    assert_eq!(chunk_now(&mut plain).expect("a beginning"), ": \n\n");
    for _ in 0..2 {
        let year = Duration::from_secs(365 * 24 * 3600);
        assert!(timeout(year, chunk(&mut body)).await.is_err());
        assert!(timeout(year, chunk(&mut plain)).await.is_err());
        send(&hub, "ann", "x");
        assert_eq!(chunk(&mut body).await.expect("the event"), "data: x\n\n");
        assert_eq!(chunk(&mut plain).await.expect("the event"), "data: x\n\n");
    }
}

#[tokio::test(start_paused = true)]
async fn keep_alives_stand_between_whole_events() {
    for keep_alive in [KeepAlive::comment(), KeepAlive::heartbeat_event()] {
        let hub = Hub::new();
        let mut body = SseBody::new(join(&hub)).keep_alive(&keep_alive);
        let mut chunks = Vec::new();
        let mut sent = Vec::new();
        for number in 0..20 {
            for part in 0..number % 3 {
                let data = format!("{number}\n{part}\n");
                send(&hub, "ann", &data);
                sent.push(data);
                chunks.push(chunk(&mut body).await.expect("the event"));
            }
            chunks.push(chunk(&mut body).await.expect("a keep-alive"));
        }
        assert_eq!(chunks.len(), sent.len() + 20);
        let events = decode(&chunks).into_iter();
        let got: Vec<_> = events
            .filter(|e| e.event == "message")
            .map(|e| e.data)
            .collect();
        assert_eq!(got, sent);
    }
}

// What a delivery costs

#[test]
fn a_delivery_neither_copies_nor_allocates() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    // The timer belongs to it; the bodies are polled outside of any task.
    let _inside = runtime.enter();
    let hub = Hub::new();
    let mut bodies = [(), ()].map(|()| opened(SseBody::new(join(&hub))));
    let mut frames = join(&hub);
    for body in &mut bodies {
        assert!(
            poll_now(body).is_pending(),
            "the timer is made at the first wait"
        );
    }

    let event = text(&"x".repeat(10_000));
    for _ in 0..1000 {
        hub.broadcast("ann", &event).expect("it can be encoded");
        let frame = frames
            .next()
            .now_or_never()
            .flatten()
            .expect("an event")
            .expect("no lag");
        for body in &mut bodies {
            let mut polled = Poll::Pending;
            let delivery = measure(|| polled = poll_now(body));
            assert_eq!(delivery.count_total, 0, "{delivery:?}");
            let Poll::Ready(Some(bytes)) = &polled else {
                panic!("not delivered");
            };
            assert_eq!(bytes.as_ptr(), frame.as_bytes().as_ptr(), "a copy");
            assert_eq!(bytes.len(), frame.as_bytes().len());

            let waiting = measure(|| polled = poll_now(body));
            assert!(polled.is_pending());
            assert_eq!(waiting.count_total, 0, "{waiting:?}");
        }
    }
    // The measure does measure: to encode takes memory.
    assert!(measure(|| drop(Frame::encode(&event))).count_total > 0);
    assert_eq!(hub.stats().lagged, 0);
}

// The end

#[tokio::test(start_paused = true)]
async fn a_body_that_is_dropped_leaves() {
    let hub = Hub::new();
    let mut body = SseBody::new(join(&hub));
    send(&hub, "ann", "one");
    send(&hub, "ann", "two");
    assert!(chunk_now(&mut body).is_some());
    assert_eq!(hub.total_connections(), 1);
    drop(body);
    assert_eq!((hub.total_connections(), hub.stats().users), (0, 0));

    // A response that nobody read leaves as well.
    drop(join(&hub).into_response());
    assert_eq!((hub.total_connections(), hub.stats().users), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_ended_says_so_and_has_left() {
    let hub = Hub::new();
    let mut body = SseBody::new(join(&hub));
    send(&hub, "ann", "last");
    assert!(!body.is_end_stream());
    assert_eq!(hub.drain_user("ann"), 1);
    assert!(!body.is_end_stream(), "there is an event to come");
    assert_eq!(chunk_now(&mut body).expect("the event"), "data: last\n\n");
    assert_eq!(chunk(&mut body).await, None);
    assert!(body.is_end_stream());
    assert_eq!(hub.total_connections(), 0, "it has ended, and is counted");
    assert_eq!(chunk(&mut body).await, None, "it stays ended");
    drop(body);
    assert_eq!(hub.total_connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_waits_ends_when_unregistered() {
    let hub = Hub::new();
    let subscription = join(&hub);
    let id = subscription.guard().connection_id().clone();
    let mut body = opened(SseBody::new(subscription));
    let start = Instant::now();
    let (end, found) = tokio::join!(chunk(&mut body), async { hub.unregister("ann", &id) });
    assert!(found);
    assert_eq!(end, None);
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "only the keep-alive woke it"
    );
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_lags_reports_the_gap_and_continues_with_what_is_left() {
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(2)
        .build()
        .expect("valid settings");
    let mut body = SseBody::new(join(&hub));
    for data in ["1", "2", "3", "4", "5"] {
        send(&hub, "ann", data);
    }
    assert_eq!(
        chunk_now(&mut body).expect("the gap and what is left"),
        "event: gap\ndata: {\"reason\":\"lagged\",\"missed\":3}\n\ndata: 4\n\ndata: 5\n\n"
    );
    assert_eq!(chunk_now(&mut body), None);
    assert_eq!(hub.stats().lagged, 3);
    assert_eq!(hub.connection_info()[0].lagged, 3);
}

// axum's own `Sse`

/// The events as both kinds of response, encoded and decoded.
async fn both_ways(events: &[Text]) -> (Vec<Dispatched>, Vec<Dispatched>) {
    let hub = Hub::new();
    let ours = join(&hub).into_response();
    let plain = Sse::new(join(&hub).into_axum_events()).into_response();
    for event in events {
        assert_eq!(hub.broadcast("ann", event).expect("it can be encoded"), 2);
    }
    hub.drain_user("ann");
    let mut decoded = Vec::new();
    for response in [ours, plain] {
        let bytes = response.into_body().collect().await.expect("no error");
        decoded.push(decode(&[bytes.to_bytes()]));
    }
    assert_eq!(hub.total_connections(), 0);
    let plain = decoded.pop().expect("two responses");
    (decoded.pop().expect("two responses"), plain)
}

#[tokio::test(start_paused = true)]
async fn axums_sse_gives_the_same_events() {
    let mut events = vec![
        text("plain"),
        text("named").event("name"),
        text("with id").id(EventId::from(1)),
        text("all")
            .event(" name: ")
            .id(EventId::from(2))
            .retry(Duration::from_millis(1_050)),
        text("retry").retry(Duration::MAX),
        text("retry").retry(Duration::from_millis(7)),
    ];
    for data in [
        " leading",
        "  two",
        "a\nb",
        "a\r\nb",
        "a\rb",
        "\n",
        "\n\n",
        "\na",
        "a\n",
        "\0",
        "\u{feff}",
        "\u{2028}\u{85}",
        "data: x",
        ":",
        ": ",
        "event: x\n\nid: 9\n\n",
    ] {
        events.push(text(data));
    }
    let (ours, plain) = both_ways(&events).await;
    assert_eq!(ours.len(), events.len());
    assert_eq!(plain, ours);
}

#[tokio::test(start_paused = true)]
async fn axums_sse_drops_an_event_whose_data_is_empty() {
    // axum's `Event` writes no `data` line for empty data, and a client does not dispatch an event without one. The
    // documentation of `into_axum_events` says so; ours arrives.
    let (ours, plain) = both_ways(&[text("").event("ping"), text("next")]).await;
    let seen = |events: Vec<Dispatched>| -> Vec<(String, String)> {
        events.into_iter().map(|e| (e.event, e.data)).collect()
    };
    let ping = ("ping".to_owned(), String::new());
    let next = ("message".to_owned(), "next".to_owned());
    assert_eq!(seen(ours), [ping, next.clone()]);
    assert_eq!(seen(plain), [next]);
}

#[tokio::test(start_paused = true)]
async fn axums_event_has_all_fields_of_the_frame() {
    struct All;
    impl ToSse for All {
        fn event(&self) -> Option<&str> {
            Some("name")
        }
        fn id(&self) -> Option<EventId> {
            Some(EventId::from(3))
        }
        fn retry(&self) -> Option<Duration> {
            Some(Duration::from_millis(1500))
        }
        fn comment(&self) -> Option<&str> {
            Some("why: so")
        }
        fn data(&self, data: &mut tidings::Data<'_>) -> Result<(), tidings::EncodeError> {
            data.text("a\nb");
            Ok(())
        }
    }
    let frame = Frame::encode(&All).expect("it can be encoded");
    let event = axum::response::sse::Event::from(&frame);
    let stream = futures_util::stream::iter([Ok::<_, Infallible>(event)]);
    let body = Sse::new(stream).into_response().into_body();
    let bytes = body.collect().await.expect("no error").to_bytes();
    assert_eq!(bytes, frame.to_bytes());
}

#[tokio::test(start_paused = true)]
async fn axum_events_end_and_leave() {
    let hub = Hub::new();
    let mut events = join(&hub).into_axum_events();
    let beginning = events.next().now_or_never();
    assert!(beginning.is_some_and(|event| event.is_some()));
    assert!(events.next().now_or_never().is_none());
    hub.drain_user("ann");
    assert!(events.next().await.is_none());
    assert_eq!(hub.total_connections(), 1);
    drop(events);
    assert_eq!(hub.total_connections(), 0);
}

/// What axum's `Sse` writes with this keep-alive: silence, an event, silence.
async fn axum_keep_alive(keep_alive: KeepAlive) -> Vec<(Duration, Bytes)> {
    let hub = Hub::new();
    let mut body = Sse::new(join(&hub).into_axum_events())
        .keep_alive(keep_alive.into())
        .into_response()
        .into_body();
    assert_eq!(chunk_now(&mut body).expect("a beginning"), ": \n\n");
    let mut written = Vec::new();
    for _ in 0..2 {
        let start = Instant::now();
        if let Ok(chunk) = timeout(Duration::from_secs(40), chunk(&mut body)).await {
            written.push((start.elapsed(), chunk.expect("the body has not ended")));
        }
        send(&hub, "ann", "x");
        assert_eq!(chunk(&mut body).await.expect("the event"), "data: x\n\n");
    }
    written
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_becomes_axums() {
    // axum ends every event with an empty line, so its comment is a block of its own.
    let comment = (HEARTBEAT_INTERVAL, Bytes::from(": \n\n"));
    assert_eq!(
        axum_keep_alive(KeepAlive::comment()).await,
        vec![comment; 2]
    );

    let wire = "event: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n";
    let heartbeat = (Duration::from_secs(30), Bytes::from(wire));
    let keep_alive = KeepAlive::heartbeat_event().interval(Duration::from_secs(30));
    assert_eq!(axum_keep_alive(keep_alive).await, vec![heartbeat; 2]);

    // Off stays off, before and after an event.
    assert_eq!(axum_keep_alive(KeepAlive::off()).await, []);
}

// A server and clients on real sockets

/// Tells when the response it belongs to is over.
struct Watched {
    body: Body,
    _over: oneshot::Sender<Infallible>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

/// Serves on a port of its own, and hands out what tells that a response is over, for each in turn.
async fn serve(
    hub: Hub,
) -> (
    String,
    tokio::sync::mpsc::UnboundedReceiver<oneshot::Receiver<Infallible>>,
) {
    let (responses, over) = tokio::sync::mpsc::unbounded_channel();
    let watch = move |response: Response| {
        let (sender, receiver) = oneshot::channel();
        responses.send(receiver).expect("the test is there");
        std::future::ready(response.map(|body| {
            Body::new(Watched {
                body,
                _over: sender,
            })
        }))
    };
    let app = service(hub).layer(axum::middleware::map_response(watch));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), over)
}

/// Opens a stream; when this returns, its connection is registered.
async fn open(url: String) -> impl Stream<Item = eventsource_stream::Event> + Unpin {
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let response = client.get(url).send().await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    let events = response.bytes_stream().eventsource();
    events
        .map(|event| event.expect("a well-formed stream"))
        .boxed()
}

#[tokio::test]
async fn two_users_get_their_own_events_over_tcp() {
    let hub = Hub::new();
    let (url, mut over) = serve(hub.clone()).await;
    let mut ann = open(format!("{url}/events/ann")).await;
    let mut also_ann = open(format!("{url}/plain/ann")).await;
    let mut bob = open(format!("{url}/events/bob")).await;
    let (anns, also_anns, bobs) = (over.recv().await, over.recv().await, over.recv().await);
    assert_eq!(hub.total_connections(), 3);

    for number in 0..100 {
        let id = EventId::from(number);
        let event = Text::new(format!("for ann\n{number}")).event("news").id(id);
        assert_eq!(hub.broadcast("ann", &event).expect("it can be encoded"), 2);
        assert_eq!(send(&hub, "bob", &format!("for bob {number}")), 1);
        for stream in [&mut ann, &mut also_ann] {
            let got = stream.next().await.expect("the stream goes on");
            assert_eq!((got.event.as_str(), got.id), ("news", number.to_string()));
            assert_eq!(got.data, format!("for ann\n{number}"));
        }
        let got = bob.next().await.expect("the stream goes on");
        assert_eq!(
            (got.event.as_str(), got.data),
            ("message", format!("for bob {number}"))
        );
    }

    // A client that goes away, a user that is drained: each response ends, and its connection is out.
    drop(bob);
    let end = bobs.expect("a response").await;
    assert!(end.is_err(), "the response is dropped");
    assert_eq!(hub.connection_count("bob"), 0);
    assert_eq!(hub.connection_count("ann"), 2);
    assert_eq!(hub.drain_user("ann"), 2);
    assert!(ann.next().await.is_none());
    assert!(also_ann.next().await.is_none());
    assert!(anns.expect("a response").await.is_err());
    assert!(also_anns.expect("a response").await.is_err());
    assert_eq!(hub.total_connections(), 0);
    assert_eq!(hub.stats().lagged, 0);
}

#[tokio::test]
async fn a_head_request_over_tcp_leaves_no_connection_behind() {
    let hub = Hub::new();
    let (url, mut over) = serve(hub.clone()).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let response = client
        .head(format!("{url}/events/ann"))
        .send()
        .await
        .expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(over.recv().await.expect("a response").await.is_err());
    assert_eq!(hub.total_connections(), 0);
    assert_eq!(hub.stats().registered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_joined_up_to_a_bound_and_a_lone_event_is_not_copied() {
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(256)
        .build()
        .expect("valid settings");
    let mut stream = join(&hub);
    let mut body = SseBody::new(join(&hub));
    let text = "x".repeat(1000);
    send(&hub, "ann", &text);
    let frame = stream.next().await.expect("not ended").expect("no gap");
    let chunk = chunk_now(&mut body).expect("the event");
    assert_eq!(chunk.as_ptr(), frame.as_bytes().as_ptr(), "shared");

    for _ in 0..100 {
        send(&hub, "ann", &text);
    }
    send(&hub, "ann", &"y".repeat(100_000));
    send(&hub, "ann", "z");
    let mut chunks = Vec::new();
    while let Some(chunk) = chunk_now(&mut body) {
        chunks.push(chunk);
    }
    let small = frame.as_bytes().len();
    let each = 32 * 1024 / small;
    let mut lens: Vec<_> = chunks.iter().map(|chunk| chunk.len()).collect();
    assert_eq!(lens.pop(), Some("data: z\n\n".len()));
    assert_eq!(lens.pop(), Some("data: \n\n".len() + 100_000), "alone");
    assert_eq!(lens.pop(), Some(100 % each * small));
    assert!(lens.iter().all(|len| *len == each * small), "{lens:?}");
    let joined = chunks.concat();
    let expected = "x".repeat(1000);
    let text = std::str::from_utf8(&joined).expect("UTF-8");
    assert_eq!(text.matches(&*format!("data: {expected}\n\n")).count(), 100);
}
