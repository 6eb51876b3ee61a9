//! Every stream sends a byte immediately after its head. Otherwise proxies that hold the head back until the body begins
//! (http-proxy and the development servers over it, relays over undici) would keep an `EventSource` waiting for the first
//! keep-alive.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse, Sse};
use axum::routing::get;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use tidings::protocol::a2a::TaskView;
use tidings::protocol::agui::{RunRef, RunView};
use tidings::serve::{bind, serve};
use tidings::sse::SseResponse;
use tidings::{
    EventRouter, GenericBroadcaster, History, KeepAlive, LagPolicy, LastEventId, RefusalForm,
    RegisterError, SseBody, Subscription, Text,
};
use tidings_console::Console;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

type Hub = GenericBroadcaster<Text>;

fn hub(history: Option<History>) -> Hub {
    let hub = Hub::builder().history(history).build();
    hub.expect("valid settings")
}

fn join(hub: &Hub) -> Subscription {
    hub.register("ann").expect("no cap is reached")
}

/// What the body has ready, chunk by chunk.
fn ready(mut body: impl http_body::Body<Data = bytes::Bytes> + Unpin) -> Vec<String> {
    let mut chunks = Vec::new();
    while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
        let chunk = frame.into_data().expect("no trailers");
        chunks.push(String::from_utf8(chunk.to_vec()).expect("UTF-8"));
    }
    chunks
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_nothing_to_say_begins_with_a_comment() {
    let plain = hub(None);
    let kept = hub(Some(History::new(10)));
    let current = LastEventId::new(&join(&kept).cursor().expect("there is a history"));
    let agents = EventRouter::new();
    let run = || RunView::new(RunRef::new("thread", "run"));
    let call: Box<RawValue> = serde_json::from_str("1").expect("JSON");
    let agui = || agents.agui().register("ann").expect("no cap is reached");
    let a2a = || agents.a2a().register("ann").expect("no cap is reached");
    for body in [
        SseBody::new(join(&plain)),
        SseBody::new(join(&plain)).keep_alive(&KeepAlive::off()),
        SseBody::new(join(&plain)).keep_alive(&KeepAlive::heartbeat_event()),
        SseBody::new(join(&plain).lag_policy(LagPolicy::End)),
        SseBody::new(join(&kept)).cursor(false),
        SseBody::new(kept.resume("ann", &current).expect("no cap is reached")),
        SseBody::new(agui()),
        SseBody::new(agui()).view(run()),
        SseBody::new(a2a()).view(TaskView::rest("task")),
        SseBody::new(a2a()).view(TaskView::json_rpc("task", &call)),
    ] {
        assert_eq!(ready(body), [":\n"]);
    }
    assert_eq!(ready(join(&plain).into_response().into_body()), [":\n"]);
    for hub in [plain, kept] {
        let axums = Sse::new(join(&hub).into_axum_events()).into_response();
        assert_eq!(ready(axums.into_body()), [": \n\n"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_something_to_say_begins_with_that() {
    let kept = hub(Some(History::new(10)));
    let stream = join(&kept);
    let id = stream.cursor().expect("there is a history").to_string();
    assert_eq!(ready(SseBody::new(stream)), [format!("id: {id}\n\n")]);
    let plain = hub(None);
    let retry = SseBody::new(join(&plain)).retry(Duration::ZERO);
    assert_eq!(ready(retry), ["retry: 0\n"]);
    let stream = join(&plain);
    let sent = plain.broadcast("ann", &Text::new("x".to_owned()));
    assert_eq!(sent.expect("text can be encoded"), 1);
    assert_eq!(ready(SseBody::new(stream)), ["data: x\n\n"]);
}

#[tokio::test]
async fn refusals_and_the_consoles_streams_have_a_first_byte_too() {
    let form = RefusalForm::ComeBack;
    let refused = RegisterError::ShuttingDown { form }.into_response();
    assert!(ready(refused.into_body())[0].starts_with("retry: "));

    let console = Console::new()
        .broadcaster("default", &hub(None))
        .router::<()>();
    for path in ["/live", "/watch?broadcaster=default&user=ann"] {
        let request = Request::get(path).header("host", "localhost");
        let request = request.body(Body::empty()).expect("a request");
        let response = console.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 200, "{path}");
        let chunks = ready(response.into_body());
        assert!(!chunks.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn over_http_1_and_2_the_first_byte_follows_the_head() {
    let hub = hub(None);
    let app = || {
        let hub = hub.clone();
        let stream = async move || SseResponse::new(join(&hub)).keep_alive(&KeepAlive::off());
        Router::new().route("/", get(stream))
    };
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let server = serve(listener, app());
    #[cfg(feature = "http2")]
    let server = server.http2(true);
    let server = tokio::spawn(server.into_future());

    let mut socket = TcpStream::connect(addr).await.expect("it listens");
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    socket.write_all(request).await.expect("it reads");
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"\r\n\r\n2\r\n:\n\r\n") {
            let read = socket.read_buf(&mut answer).await.expect("it answers");
            assert_ne!(read, 0, "it goes on");
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(10), read).await;
    read.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&answer)));

    #[cfg(feature = "http2")]
    {
        let socket = TcpStream::connect(addr).await.expect("it listens");
        let (mut client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("http://{addr}/")).body(());
        let sent = client.send_request(request.expect("a request"), true);
        let response = sent.expect("it is sent").0.await.expect("an answer");
        let mut body = response.into_body();
        let first = tokio::time::timeout(Duration::from_secs(10), body.data()).await;
        let first = first.expect("in time").expect("it goes on");
        assert_eq!(first.expect("no error"), ":\n");
        connection.abort();
    }
    server.abort();
}
