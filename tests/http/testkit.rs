//! The client of the test kit: what it reads, how it comes back, what it says when it waits in vain.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::Value;
use tidings::serve::{bind, serve};
use tidings::sse::SseResponse;
use tidings::{
    EventId, GapReason, GenericBroadcaster, HEARTBEAT_INTERVAL, History, JsonEvent, KeepAlive,
    LastEventId, RegisterError, Text, standard_keep_alive,
};
use tidings_testkit::{Item, Message, SseClient, SseError, SseRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower::{ServiceBuilder, service_fn};

type Hub = GenericBroadcaster<Text>;

fn hub_with_history(events: usize) -> Hub {
    let hub = Hub::builder().history(History::new(events));
    hub.build().expect("valid settings")
}

/// A stream for each user, with comments, with heartbeats, and without either.
fn app(hub: &Hub) -> Router {
    async fn stream(
        State(hub): State<Hub>,
        Path((kind, user)): Path<(String, String)>,
        last: LastEventId,
    ) -> Result<SseResponse, RegisterError> {
        let response = SseResponse::new(hub.resume(user, &last)?);
        Ok(match &*kind {
            "events" => response,
            "beating" => response.keep_alive(&standard_keep_alive()),
            _ => response.keep_alive(&KeepAlive::off()),
        })
    }
    let app = Router::new().route("/{kind}/{user}", get(stream));
    app.with_state(hub.clone())
}

fn send(hub: &Hub, data: &str) -> usize {
    let reached = hub.broadcast("ann", &Text::new(data.to_owned()));
    reached.expect("text can be encoded")
}

async fn open(hub: &Hub, path: &str) -> SseClient {
    let opened = SseRequest::get(path).open(app(hub)).await;
    opened.expect("a stream")
}

/// An app whose only response is this.
fn answer<R: IntoResponse + Clone + Send + Sync + 'static>(response: R) -> Router {
    Router::new().fallback(async move || response)
}

fn event_stream(body: &'static str) -> Router {
    answer(([("content-type", "text/event-stream")], body))
}

fn data(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| &*message.data).collect()
}

/// What a test would print that fails with this.
async fn panic_of<T>(test: impl Future<Output = T>) -> String {
    let Err(panic) = AssertUnwindSafe(test).catch_unwind().await else {
        panic!("it should have failed");
    };
    *panic.downcast().expect("a message with values in it")
}

/// A server of the real thing, until it is dropped.
struct Server {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(app: Router) -> Self {
        let listener = bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let listener = listener
            .send_buffer(16 * 1024)
            .stall_limit(Duration::from_secs(600));
        let task = tokio::spawn(async move {
            serve(listener, app).await;
        });
        Self { addr, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// What is read

#[tokio::test(start_paused = true)]
async fn a_message_has_what_a_listener_in_a_browser_gets() {
    let hub = Hub::new();
    let mut client = open(&hub, "/events/ann").await;
    assert_eq!(client.headers()["x-accel-buffering"], "no");
    assert_eq!((client.last_event_id(), client.retry()), ("", None));
    let all = Text::new("one\ntwo".to_owned())
        .event("news")
        .id(EventId::from(7));
    let all = all.retry(Duration::from_millis(1500));
    hub.broadcast("ann", &all).expect("it can be encoded");
    send(&hub, r#"{"a":1}"#);

    let message = client.next().await;
    assert_eq!((&*message.event, &*message.id), ("news", "7"));
    assert_eq!(message.data, "one\ntwo");
    assert_eq!(message.retry, Some(Duration::from_millis(1500)));
    let message = client.next().await;
    assert_eq!((&*message.event, &*message.id), ("message", "7"));
    assert_eq!(message.retry, None);
    assert_eq!(message.json::<Value>()["a"], 1);
    assert_eq!(message.gap(), None);
    assert_eq!(client.retry(), Some(Duration::from_millis(1500)));

    let not_json = panic_of(async { message.json::<Vec<u8>>() }).await;
    assert!(not_json.contains(r#"{"a":1}"#), "{not_json}");
}

#[tokio::test(start_paused = true)]
async fn items_cover_the_whole_stream_and_comments_come_immediately() {
    let mut client = SseRequest::get("/")
        .open(event_stream(
            ": hello\n:\nretry: 5\nid: 1\n\nid\n\n:\rdata:x\r\rdata: not ended\n",
        ))
        .await
        .expect("a stream");
    let comment = |text: &str| Item::Comment(text.to_owned());
    let id = |text: &str| Item::Id(text.to_owned());
    let millis = Duration::from_millis;
    for (item, last_event_id) in [
        (comment("hello"), ""),
        (comment(""), ""),
        (Item::Retry(millis(5)), ""),
        (id("1"), "1"),
        (id(""), ""),
        (comment(""), ""),
    ] {
        assert_eq!(client.next_item().await, item);
        assert_eq!(client.last_event_id(), last_event_id);
    }
    assert_eq!(client.next().await.data, "x");
    assert_eq!(client.retry(), Some(millis(5)));
    client.expect_end().await;
    client.expect_end().await;
    let end = client.try_next().await;
    assert!(matches!(end, Err(SseError::Ended { .. })), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn the_clock_moves_to_what_the_service_does_next() {
    let hub = Hub::new();
    let start = Instant::now();
    let mut client = open(&hub, "/events/ann").await;
    // The beginning, and the keep-alive.
    for elapsed in [Duration::ZERO, HEARTBEAT_INTERVAL] {
        assert_eq!(client.next_item().await, Item::Comment(String::new()));
        assert_eq!(start.elapsed(), elapsed);
    }
    client.assert_silent_for(HEARTBEAT_INTERVAL * 4).await;
    assert_eq!(start.elapsed(), HEARTBEAT_INTERVAL * 5);

    let mut beating = open(&hub, "/beating/bob").await;
    assert_eq!(beating.next().await.event, "heartbeat");
    assert_eq!(start.elapsed(), HEARTBEAT_INTERVAL * 6);
    beating
        .assert_silent_for(HEARTBEAT_INTERVAL - Duration::from_millis(1))
        .await;
    let noise = panic_of(beating.assert_silent_for(HEARTBEAT_INTERVAL)).await;
    assert!(noise.contains("heartbeat"), "{noise}");
}

#[tokio::test(start_paused = true)]
async fn events_are_collected_by_number_up_to_one_and_to_the_end() {
    let hub = Hub::new();
    let mut client = open(&hub, "/events/ann").await;
    for data in ["1", "2", "3", "4", "5", "6", "7"] {
        send(&hub, data);
    }
    assert_eq!(data(&client.collect(0).await), [""; 0]);
    assert_eq!(data(&client.collect(2).await), ["1", "2"]);
    let until = client.collect_until(|message| message.data == "4").await;
    assert_eq!(data(&until), ["3", "4"]);
    assert_eq!(client.next().await.data, "5");
    assert_eq!(data(&client.ready()), ["6", "7"]);
    assert_eq!(data(&client.ready()), [""; 0]);
    send(&hub, "8");
    hub.drain_user("ann");
    assert_eq!(data(&client.collect_to_end().await), ["8"]);
    assert_eq!(data(&client.ready()), [""; 0]);
}

// In vain

#[tokio::test(start_paused = true)]
async fn a_time_out_says_what_was_awaited_and_what_came_instead() {
    let hub = Hub::new();
    let request = SseRequest::get("/off/ann").within(Duration::from_secs(7));
    let mut client = request.open(app(&hub)).await.expect("a stream");
    let start = Instant::now();
    let error = client.try_next().await.expect_err("silence");
    assert_eq!(error.to_string(), "waited 7s for an event");
    assert_eq!(start.elapsed(), Duration::from_secs(7));

    let here = format!("at {}:", file!());
    let message = panic_of(client.next()).await;
    assert!(message.contains(&here), "{message}");
    send(&hub, "only this");
    let message = panic_of(client.collect(2)).await;
    assert!(
        message.contains("2 events") && message.contains("only this"),
        "{message}"
    );
    send(&hub, "and this");
    let message = panic_of(client.collect_until(|message| message.data == "that")).await;
    assert!(message.contains("and this"), "{message}");
    for number in 0..9 {
        send(&hub, &format!("event {number}"));
    }
    let message = panic_of(client.collect(10)).await;
    assert!(
        message.contains("came 9 events") && message.contains("event 8"),
        "{message}"
    );
    assert!(!message.contains("event 5"), "{message}");
    let message = panic_of(client.next_item()).await;
    assert!(message.contains("anything"), "{message}");
    let message = panic_of(client.expect_end()).await;
    assert!(message.contains("the end"), "{message}");
    send(&hub, "not the end");
    let message = panic_of(client.expect_end()).await;
    assert!(message.contains("not the end"), "{message}");

    hub.drain_user("ann");
    let message = panic_of(client.next()).await;
    assert!(
        message.contains("ended while waiting for an event"),
        "{message}"
    );
    let message = panic_of(client.expect_break()).await;
    assert!(
        message.contains("ended while waiting for a break"),
        "{message}"
    );
    let message = panic_of(client.assert_silent_for(Duration::from_secs(1))).await;
    assert!(message.contains("the stream ended"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_not_lost_with_a_wait_that_was_given_up() {
    let hub = Hub::new();
    let mut client = open(&hub, "/events/ann").await;
    for number in 0..50 {
        let mut waiting = Box::pin(client.next());
        assert!((&mut waiting).now_or_never().is_none());
        send(&hub, &number.to_string());
        drop(waiting);
        assert_eq!(client.next().await.data, number.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_not_an_event_stream_is_an_error_with_its_text() {
    let hub = Hub::builder().connections_per_user(1).build();
    let hub = hub.expect("valid settings");
    let first = open(&hub, "/events/ann").await;
    let refused = SseRequest::get("/events/ann").open(app(&hub)).await;
    let error = refused.expect_err("full");
    let SseError::Refused(response) = &error else {
        panic!("{error}");
    };
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key("retry-after"));
    assert!(response.body().contains("1 "), "{}", response.body());
    assert!(error.to_string().contains(&**response.body()), "{error}");
    drop(first);

    for (content_type, is_stream) in [
        (Some("text/event-stream"), true),
        (Some("Text/Event-Stream ; charset=utf-8"), true),
        (Some("text/event-streams"), false),
        (Some("application/json"), false),
        (None, false),
    ] {
        let response = content_type.map_or(HeaderMap::new(), |content_type| {
            let value = content_type.parse().expect("a value");
            HeaderMap::from_iter([("content-type".parse().expect("a name"), value)])
        });
        let app = answer((response, Bytes::from("data: x\n\n")));
        // axum adds a type of its own, if there is none.
        let app = service_fn(move |request: Request<String>| {
            let response = tower::ServiceExt::oneshot(app.clone(), request);
            async move {
                let mut response = response.await?;
                if content_type.is_none() {
                    response.headers_mut().clear();
                }
                Ok::<_, Infallible>(response)
            }
        });
        match SseRequest::get("/").open(app).await {
            Ok(mut client) if is_stream => assert_eq!(client.next().await.data, "x"),
            Err(SseError::Refused(response)) if !is_stream => {
                assert_eq!(
                    (response.status(), &**response.body()),
                    (StatusCode::OK, "data: x\n\n")
                );
            }
            other => panic!("{content_type:?}: {other:?}"),
        }
    }
    // Its text may have no end.
    let endless = Router::new().fallback(async || {
        let text = stream::iter(["no ", "such ", "stream"]).chain(stream::pending());
        let body = Body::from_stream(text.map(Ok::<_, Infallible>));
        (StatusCode::NOT_FOUND, body)
    });
    let error = SseRequest::get("/").open(endless).await.expect_err("404");
    assert!(error.to_string().contains("404"), "{error}");
    assert!(error.to_string().contains("no such stream"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_service_or_a_body_that_fails_is_a_break() {
    let failing = || {
        let chunks = stream::iter([Ok("data: x\n\ndata: y\n"), Err("the cable was cut")]);
        let response = (
            [("content-type", "text/event-stream")],
            Body::from_stream(chunks),
        );
        std::future::ready(response.into_response())
    };
    let app = Router::new().fallback(failing);
    let opened = SseRequest::get("/").open(app.clone()).await;
    let mut client = opened.expect("a stream");
    assert_eq!(data(&client.expect_break().await), ["x"]);
    let opened = SseRequest::get("/").open(app).await;
    let mut client = opened.expect("a stream");
    let message = panic_of(client.collect_to_end()).await;
    assert!(message.contains("the cable was cut"), "{message}");
    assert!(message.contains("so far came"), "{message}");

    let down = service_fn(async |_: Request<String>| {
        Err::<axum::response::Response, _>("the service is down")
    });
    let error = SseRequest::get("/").open(down).await.expect_err("down");
    assert!(matches!(error, SseError::Broken(_)), "{error}");
    assert!(error.to_string().contains("the service is down"), "{error}");

    let hanging = ServiceBuilder::new().service_fn(async |_: Request<String>| {
        std::future::pending::<Result<axum::response::Response, Infallible>>().await
    });
    let error = SseRequest::get("/slow").open(hanging).await;
    let error = error.expect_err("no response").to_string();
    assert_eq!(error, "waited 30s for the response to GET /slow");
}

// Requests

#[tokio::test]
async fn the_request_is_as_the_test_wants_it() {
    async fn echo(headers: HeaderMap, body: String) -> impl IntoResponse {
        let text = |value: Option<&axum::http::HeaderValue>| {
            String::from_utf8(value.map_or(vec![], |value| value.as_bytes().to_vec()))
                .expect("UTF-8")
        };
        let names = ["accept", "cache-control", "authorization", "last-event-id"];
        let said = names.map(|name| text(headers.get(name)));
        let data = serde_json::json!({ "said": said, "body": body });
        let event = format!("id: é-1\ndata: {data}\n\n");
        ([("content-type", "text/event-stream")], event)
    }
    let app = Router::new().route("/", post(echo).get(echo));
    let server = Server::start(app.clone()).await;
    for over_tcp in [false, true] {
        let open = async |request: SseRequest| {
            let opened = match over_tcp {
                false => request.open(app.clone()).await,
                true => request.connect(server.addr).await,
            };
            opened.expect("a stream")
        };
        let mut client = open(SseRequest::get("/?a=b")).await;
        let said: Value = client.next().await.json();
        assert_eq!(
            said["said"],
            serde_json::json!(["text/event-stream", "no-store", "", ""])
        );
        let request = SseRequest::post("/", "the question")
            .header("authorization", "Bearer secret")
            .header("accept", "text/event-stream, application/json")
            .last_event_id("x-0");
        assert!(!format!("{request:?}").contains("secret"));
        let mut client = open(request).await;
        for id in ["x-0", "é-1"] {
            let said: Value = client.next().await.json();
            let accept = "text/event-stream, application/json";
            assert_eq!(
                said["said"],
                serde_json::json!([accept, "no-store", "Bearer secret", id])
            );
            assert_eq!(said["body"], "the question");
            client.reconnect().await.expect("a stream");
        }
    }

    let mut client = SseRequest::get("/")
        .open(event_stream("id: \u{1}\n\n"))
        .await
        .expect("a stream");
    client.expect_end().await;
    let error = client.reconnect().await.expect_err("a control character");
    assert!(matches!(error, SseError::Request(_)), "{error}");
}

// Coming back

#[tokio::test(start_paused = true)]
async fn a_client_comes_back_with_what_it_has_seen_however_much_had_arrived() {
    let hub = hub_with_history(10);
    let mut client = open(&hub, "/events/ann").await;
    let Item::Id(cursor) = client.next_item().await else {
        panic!("no cursor");
    };
    assert_eq!(client.last_event_id(), cursor);
    for data in ["1", "2", "3"] {
        send(&hub, data);
    }
    // All three are one chunk of the body.
    let first = client.next().await;
    assert_eq!(client.last_event_id(), first.id);
    client.disconnect();
    assert_eq!(hub.total_connections(), 0);
    assert_eq!(send(&hub, "4"), 0);
    client.reconnect().await.expect("a stream");
    assert_eq!(hub.total_connections(), 1);
    assert_eq!(data(&client.collect(3).await), ["2", "3", "4"]);
    client.assert_no_gap();

    // Without `disconnect` as well, and without an event in between.
    client.reconnect().await.expect("a stream");
    client.assert_silent_for(Duration::from_secs(1)).await;
    assert_eq!(hub.total_connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_without_an_id_takes_none_from_a_client_that_came_back() {
    let app = event_stream("data: x\n\n");
    let request = SseRequest::get("/").last_event_id("7");
    let mut client = request.open(app).await.expect("a stream");
    for _ in 0..2 {
        assert_eq!(client.next().await.id, "7");
        assert_eq!(client.last_event_id(), "7");
        client.reconnect().await.expect("a stream");
    }
}

#[tokio::test(start_paused = true)]
async fn gaps_are_distinguished_and_remembered() {
    let hub = hub_with_history(2);
    let mut client = open(&hub, "/events/ann").await;
    send(&hub, "1");
    assert_eq!(client.next().await.data, "1");
    client.disconnect();
    for data in ["2", "3", "4", "5"] {
        send(&hub, data);
    }
    client.assert_no_gap();
    client.reconnect().await.expect("a stream");
    let gap = client.next().await.gap().expect("a gap");
    assert_eq!(
        (&*gap.reason, gap.missed),
        (GapReason::Evicted.as_str(), Some(2))
    );
    assert_eq!(data(&client.collect(2).await), ["4", "5"]);

    let request = SseRequest::get("/events/ann").last_event_id("nobody-1");
    let mut stranger = request.open(app(&hub)).await.expect("a stream");
    let gap = stranger.next().await.gap().expect("a gap");
    assert_eq!(
        (&*gap.reason, gap.missed),
        (GapReason::Epoch.as_str(), None)
    );
    assert_ne!(stranger.last_event_id(), "nobody-1");

    assert_eq!(client.gaps().len(), 1);
    let told = panic_of(async { client.assert_no_gap() }).await;
    assert!(
        told.contains("evicted") && told.contains("Some(2)"),
        "{told}"
    );

    let named = Text::new("mind it".to_owned()).event("gap");
    hub.broadcast("ann", &named).expect("it can be encoded");
    assert_eq!(
        client.next().await.gap(),
        None,
        "an event of the service's own"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_says_when_to_come_back_and_refuses_until_then() {
    let hub = hub_with_history(10);
    let mut client = open(&hub, "/events/ann").await;
    send(&hub, "last");
    let over = Duration::from_secs(4);
    let ((), cut) = tokio::join!(
        async {
            assert_eq!(client.next().await.data, "last");
            client.expect_end().await;
        },
        hub.shutdown(over)
    );
    assert_eq!(cut, 0);
    let first = client.retry().expect("told");
    assert!(
        (Duration::from_secs(1)..=over + over).contains(&first),
        "{first:?}"
    );
    // In the form that browsers survive: a stream that ends.
    client.reconnect().await.expect("a stream");
    let refused = client.next().await;
    assert_eq!(refused.event, "refused");
    assert_eq!(refused.data, r#"{"reason":"shutting_down","cap":null}"#);
    client.expect_end().await;
}

// Clients that do not read

#[tokio::test(start_paused = true)]
async fn in_the_process_a_stalled_client_lags() {
    let hub: Hub = Hub::builder()
        .ring_capacity(2)
        .build()
        .expect("valid settings");
    let client = open(&hub, "/events/ann").await;
    let stalled = client.stall();
    for data in ["1", "2", "3", "4", "5"] {
        assert_eq!(send(&hub, data), 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let mut client = stalled.resume_reading();
    let gap = client.next().await.gap().expect("a gap");
    assert_eq!((&*gap.reason, gap.missed), ("lagged", Some(3)));
    assert_eq!(data(&client.collect(2).await), ["4", "5"]);
}

/// Sends events of 16 KB to a user who does not read, until twenty of them wait in the service. Says how many it sent.
async fn flood(hub: &Hub, user: &str) -> u64 {
    let mut sent = 0;
    while hub.connection_info_of(user)[0].behind < 20 {
        assert!(sent < 2000, "32 MB, and nothing holds the service up");
        let event = Text::new(format!("{sent} {}", "x".repeat(16 * 1024)));
        hub.broadcast(user, &event).expect("it can be encoded");
        sent += 1;
        // Turns enough for the service to take it, as long as it has room.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    sent
}

#[tokio::test]
async fn over_tcp_a_stalled_client_holds_up_the_service_until_the_ring_laps_it() {
    let hub: Hub = Hub::builder()
        .ring_capacity(4)
        .build()
        .expect("valid settings");
    let server = Server::start(app(&hub)).await;
    let request = SseRequest::get("/events/ann").receive_buffer(8 * 1024);
    let client = request.connect(server.addr).await.expect("a stream");
    let stalled = client.stall();
    let mut sent = flood(&hub, "ann").await;
    send(&hub, "last");
    sent += 1;
    let mut client = stalled.resume_reading();
    let seen = client.collect_until(|message| message.data == "last").await;
    let [gap] = client.gaps() else {
        panic!("one gap, not {:?}", client.gaps());
    };
    assert_eq!(gap.reason, "lagged");
    let missed = gap.missed.expect("lag is counted");
    assert!(missed >= 17, "{missed} of 21, of which the ring has four");
    assert_eq!(seen.len() as u64 - 1 + missed, sent, "seen or announced");
}

#[tokio::test]
async fn the_receive_buffer_decides_how_much_a_stalled_client_takes() {
    let hub: Hub = Hub::builder()
        .ring_capacity(4)
        .build()
        .expect("valid settings");
    let server = Server::start(app(&hub)).await;
    let mut taken = Vec::new();
    for (user, size) in [("ann", 8 * 1024), ("bob", 200 * 1024)] {
        let request = SseRequest::get(format!("/events/{user}")).receive_buffer(size);
        let client = request.connect(server.addr).await.expect("a stream");
        let _stalled = client.stall();
        taken.push(flood(&hub, user).await);
    }
    assert!(taken[0] < taken[1], "{taken:?}");
}

// Over TCP

#[tokio::test]
async fn a_stream_over_tcp_is_read_to_its_end() {
    let hub = hub_with_history(100);
    let server = Server::start(app(&hub)).await;
    let opened = SseRequest::get("/events/ann").connect(server.addr).await;
    let mut client = opened.expect("a stream");
    assert_eq!(client.headers()["transfer-encoding"], "chunked");
    let large = "x".repeat(300_000);
    for data in ["one", &large, "three"] {
        assert_eq!(send(&hub, data), 1);
    }
    assert_eq!(data(&client.collect(3).await), ["one", &large, "three"]);
    client.reconnect().await.expect("a stream");
    assert_eq!(send(&hub, "four"), 1);
    assert_eq!(client.next().await.data, "four");
    client.assert_silent_for(Duration::from_millis(20)).await;
    hub.drain_user("ann");
    client.expect_end().await;
    client.assert_no_gap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_over_tcp_is_said_to_be_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let error = SseRequest::get("/").connect(addr).await;
    let error = error.expect_err("nobody answers").to_string();
    assert!(error.contains("the clock paused"), "{error}");

    tokio::time::resume();
    let hub = Hub::new();
    let server = Server::start(app(&hub)).await;
    let opened = SseRequest::get("/off/ann").connect(server.addr).await;
    let mut client = opened.expect("a stream");
    tokio::time::pause();
    // It would be silence, whatever the service sends.
    let silence = client.assert_silent_for(Duration::from_secs(60));
    let message = panic_of(silence).await;
    assert!(message.contains("no time passed"), "{message}");
}

/// What a client makes of these bytes, which are written piece by piece, and then the connection is closed.
async fn against(pieces: &[&[u8]]) -> Result<SseClient, SseError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("the client");
        tcp.set_nodelay(true).expect("it can be set");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            tcp.read_buf(&mut request).await.expect("a request");
        }
        for piece in pieces {
            // Whoever has heard enough is gone.
            let _ = tcp.write_all(&piece).await;
            tokio::task::yield_now().await;
        }
    });
    SseRequest::get("/").connect(addr).await
}

#[tokio::test]
async fn bodies_are_delimited_as_http_says_however_they_are_split() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    let chunked = "Transfer-Encoding: Chunked\r\n\r\n";
    let x = |rest: &str| format!("{head}{rest}");
    for (response, is_proper) in [
        (x(&format!("{chunked}9\r\ndata: x\n\n\r\n0\r\n\r\n")), true),
        // Extensions, trailers, zeros and capitals.
        (
            x(&format!(
                "{chunked}0009 ;a=\"b\"\r\ndata: x\n\n\r\nA\r\n:comment.\n\r\n000;z\r\nT: 1\r\nU: 2\r\n\r\n"
            )),
            true,
        ),
        // An event in three chunks.
        (
            x(&format!(
                "{chunked}3\r\ndat\r\n5\r\na: x\n\r\n1\r\n\n\r\n0\r\n\r\n"
            )),
            true,
        ),
        (x("Content-Length: 9\r\n\r\ndata: x\n\n"), true),
        (x("\r\ndata: x\n\n"), true),
        (
            format!(
                "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{}",
                x("\r\ndata: x\n\n")
            ),
            true,
        ),
        // Broken off.
        (x(&format!("{chunked}9\r\ndata: x\n\n\r\n0\r\n")), false),
        (x(&format!("{chunked}9\r\ndata: x\n\n\r\n")), false),
        (x(&format!("{chunked}9\r\ndata: x\n\n")), false),
        (x(&format!("{chunked}a\r\ndata: x\n\n")), false),
        (x("Content-Length: 10\r\n\r\ndata: x\n\n"), false),
        // Not HTTP.
        (x(&format!("{chunked}9\r\ndata: x\n\nXX0\r\n\r\n")), false),
        (
            x(&format!("{chunked}9\r\ndata: x\n\nX\r\n0\r\n\r\n")),
            false,
        ),
        (x(&format!("{chunked}9\r\ndata: x\n\n\r\n\r\n")), false),
        (
            x(&format!(
                "{chunked}9\r\ndata: x\n\n\r\n+1\r\n:\r\n0\r\n\r\n"
            )),
            false,
        ),
        (
            x(&format!(
                "{chunked}9\r\ndata: x\n\n\r\n10000000000000000\r\n"
            )),
            false,
        ),
        (x(&format!("{chunked}9\r\ndata: x\n\n\r\n00\n\n")), false),
    ] {
        let whole = [response.as_bytes()];
        let bytes: Vec<_> = response.as_bytes().chunks(1).collect();
        for pieces in [&whole[..], &bytes] {
            let client = against(pieces).await;
            let mut client = client.unwrap_or_else(|error| panic!("{response:?}: {error}"));
            assert_eq!(client.next().await.data, "x", "{response:?}");
            match client.try_next().await {
                Err(SseError::Ended { .. }) if is_proper => {}
                Err(SseError::Broken(_)) if !is_proper => {}
                other => panic!("{response:?}: {other:?}"),
            }
        }
    }
    for refused in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream",
        "HTTP/2 200 OK\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    ] {
        let error = against(&[refused.as_bytes()]).await;
        let error = error.expect_err("no response");
        assert!(matches!(error, SseError::Broken(_)), "{refused:?}: {error}");
    }
    let error = against(&[b"HTTP/1.0 404\r\n\r\nnot ", b"here"]).await;
    let error = error.expect_err("no stream").to_string();
    assert!(
        error.contains("404") && error.contains("not here"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_serialised_comes_back() {
    let hub: GenericBroadcaster<JsonEvent<Value>> = GenericBroadcaster::new();
    let state = hub.clone();
    let stream = async move || state.register("ann");
    let app = Router::new().route("/", get(stream));
    let mut client = SseRequest::get("/").open(app).await.expect("a stream");
    let value = serde_json::json!({ "text": "\u{2028}\n\"", "list": [1, null] });
    hub.broadcast("ann", &JsonEvent::new(value.clone()))
        .expect("JSON");
    assert_eq!(client.next().await.json::<Value>(), value);
}

#[test]
#[should_panic(expected = "is no path")]
fn a_path_begins_with_a_slash() {
    let _ = SseRequest::get("events");
}
