//! The test kit's client: a cancelled call loses nothing that the client has read.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, History, LastEventId, Text};
use tidings_testkit::{Item, SseClient, SseRequest};
use tokio::task::yield_now;
use tokio_stream::Stream;
use tower::Service;

use super::at_every_await;

type Hub = GenericBroadcaster<Text>;

/// What the stream says, with events, comments and an id between them.
const TEXT: &str =
    ":a\n\nid:1\ndata:one\n\n:b\n\nid:2\ndata:two\n\nid:2x\n\nid:3\ndata:three\n\n:c\n\n";
const EVENTS: [&str; 3] = ["one", "two", "three"];

/// Its bytes come three at a time, each time after the client has waited.
fn pieces() -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let pieces = stream::iter(TEXT.as_bytes().chunks(3)).map(Bytes::from_static);
    pieces.then(|piece| async {
        yield_now().await;
        Ok(piece)
    })
}

async fn open<S, E>(body: fn() -> S) -> SseClient
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let service = tower::service_fn(move |_: Request<String>| {
        let response = Response::builder().header("content-type", "text/event-stream");
        ready(response.body(Body::from_stream(body())))
    });
    let opened = SseRequest::get("/").open(service).await;
    opened.expect("an event stream")
}

/// The data of everything up to the end.
async fn rest(client: &mut SseClient) -> Vec<String> {
    let rest = client.collect_to_end().await;
    rest.into_iter().map(|message| message.data).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_read_one_by_one_is_not_lost() {
    at_every_await(3, async |cut| {
        let mut client = open(pieces).await;
        let first = cut.run(client.try_next()).await;
        let first = first.map(|first| first.expect("an event").data);
        let mut got: Vec<_> = first.clone().into_iter().collect();
        got.extend(rest(&mut client).await);
        assert_eq!(got, EVENTS);
        first.is_some()
    })
    .await;
    at_every_await(3, async |cut| {
        let mut client = open(pieces).await;
        let first = cut.run(client.next()).await.map(|first| first.data);
        let mut got: Vec<_> = first.clone().into_iter().collect();
        got.extend(rest(&mut client).await);
        assert_eq!(got, EVENTS);
        first.is_some()
    })
    .await;
    at_every_await(1, async |cut| {
        let mut client = open(pieces).await;
        let first = cut.run(client.next_item()).await;
        let mut got: Vec<_> = first.clone().into_iter().collect();
        while got.len() < 7 {
            got.push(client.next_item().await);
        }
        let comments = got.iter().filter(|item| matches!(item, Item::Comment(_)));
        let messages = got.iter().filter(|item| matches!(item, Item::Message(_)));
        assert_eq!((comments.count(), messages.count()), (3, 3), "{got:?}");
        client.expect_end().await;
        first.is_some()
    })
    .await;
}

/// The client goes on behind the last event that it has read, whether its caller has that or not.
async fn assert_goes_on(client: &mut SseClient) {
    let seen = client.last_event_id().trim_end_matches('x').to_owned();
    let seen: usize = seen.parse().unwrap_or(0);
    assert_eq!(rest(client).await, EVENTS[seen..]);
}

#[tokio::test(start_paused = true)]
async fn what_was_collected_is_lost_and_no_more() {
    at_every_await(10, async |cut| {
        let mut client = open(pieces).await;
        let collected = cut.run(client.collect(2)).await.is_some();
        assert_goes_on(&mut client).await;
        collected
    })
    .await;
    at_every_await(10, async |cut| {
        let mut client = open(pieces).await;
        let two = client.collect_until(|message| message.data == "two");
        let collected = cut.run(two).await.is_some();
        assert_goes_on(&mut client).await;
        collected
    })
    .await;
    at_every_await(10, async |cut| {
        let mut client = open(pieces).await;
        let collected = cut.run(client.collect_to_end()).await.is_some();
        assert_goes_on(&mut client).await;
        collected
    })
    .await;
}

/// The same stream, which breaks where it should end.
fn broken() -> impl Stream<Item = Result<Bytes, &'static str>> + Send + 'static {
    let pieces = pieces().map(|Ok(piece)| Ok(piece));
    pieces.chain(stream::once(async {
        yield_now().await;
        Err("cut off")
    }))
}

#[tokio::test(start_paused = true)]
async fn an_end_can_be_waited_for_again() {
    at_every_await(1, async |cut| {
        let mut client = open(pieces).await;
        client.collect(3).await;
        let ended = cut.run(client.expect_end()).await.is_some();
        client.expect_end().await;
        ended
    })
    .await;
    at_every_await(10, async |cut| {
        let mut client = open(broken).await;
        let is_broken = cut.run(client.expect_break()).await.is_some();
        if !is_broken {
            let seen = client.last_event_id().trim_end_matches('x').to_owned();
            let seen: usize = seen.parse().unwrap_or(0);
            let rest = client.expect_break().await;
            assert_eq!(rest.len(), EVENTS.len() - seen, "behind {seen}");
        }
        is_broken
    })
    .await;
    at_every_await(1, async |cut| {
        let hub = Hub::new();
        let mut client = SseRequest::get("/")
            .open(service(&hub))
            .await
            .expect("a stream");
        let silence = client.assert_silent_for(Duration::from_secs(60));
        let was_silent = cut.run(silence).await.is_some();
        hub.broadcast("ann", &Text::new("hello")).expect("sent");
        assert_eq!(client.next().await.data, "hello");
        was_silent
    })
    .await;
}

/// Streams of one user, on a service that is not ready at once, answers late, and whose bodies make their client wait.
#[derive(Clone)]
struct Late(Hub, bool);

fn service(hub: &Hub) -> Late {
    Late(hub.clone(), false)
}

impl Service<Request<String>> for Late {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !std::mem::replace(&mut self.1, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        self.1 = false;
        let hub = self.0.clone();
        Box::pin(async move {
            yield_now().await;
            let last = request.headers().get("last-event-id");
            let last = last.map_or(LastEventId::none(), |id| {
                LastEventId::new(id.to_str().expect("text"))
            });
            let stream = hub.resume("ann", &last).expect("room");
            yield_now().await;
            Ok(SseResponse::new(stream).into_response())
        })
    }
}

fn remembering() -> Hub {
    let hub = Hub::builder().history(History::new(10)).build();
    hub.expect("valid settings")
}

#[tokio::test(start_paused = true)]
async fn a_client_can_reconnect_again() {
    at_every_await(3, async |cut| {
        let hub = remembering();
        let mut client = SseRequest::get("/")
            .open(service(&hub))
            .await
            .expect("a stream");
        let send = |text: &str| hub.broadcast("ann", &Text::new(text)).expect("sent");
        send("one");
        assert_eq!(client.next().await.data, "one");
        let back = cut.run(client.reconnect()).await;
        // The first connection stays until the future is polled.
        let connections = usize::from(back.is_some() || cut.is_at_once());
        assert_eq!(hub.total_connections(), connections);
        send("two");
        if !back.as_ref().is_some_and(Result::is_ok) {
            client.reconnect().await.expect("it may try again");
        }
        send("three");
        let got = client.collect(2).await;
        assert_eq!([&*got[0].data, &*got[1].data], ["two", "three"]);
        client.assert_no_gap();
        assert_eq!(hub.total_connections(), 1);
        back.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_response_is_lost() {
    at_every_await(3, async |cut| {
        let hub = remembering();
        let opened = cut.run(SseRequest::get("/").open(service(&hub))).await;
        assert_eq!(hub.total_connections(), usize::from(opened.is_some()));
        opened.is_some_and(|opened| opened.is_ok())
    })
    .await;
}
