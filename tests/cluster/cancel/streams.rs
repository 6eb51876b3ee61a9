//! Streams and bodies: cancelling the wait for the next item loses none.

use std::time::Duration;

use axum::response::{IntoResponse, Sse};
use futures_util::stream;
use http_body_util::BodyExt;
use tidings::{GenericBroadcaster, KeepAlive, Presence, SseBody, Subscription, Text};
use tidings_testkit::{Decoder, Item};
use tokio::time::{Instant, sleep};
use tokio_stream::{Stream, StreamExt};

use super::{Cut, at_every_await};

type Hub = GenericBroadcaster<Text>;

const EVENTS: [&str; 3] = ["one", "two", "three"];

/// A hub, and a stream that ends by itself long after everything.
fn open() -> (Hub, Subscription) {
    let hub = Hub::new();
    let stream = hub.register("ann").expect("room");
    let deadline = Instant::now() + Duration::from_secs(3600);
    (hub, stream.deadline(deadline))
}

/// Broadcasts when the stream has waited for some keep-alives.
async fn broadcast(hub: &Hub) {
    for event in EVENTS {
        sleep(Duration::from_secs(40)).await;
        hub.broadcast("ann", &Text::new(event)).expect("sent");
    }
    hub.drain_user("ann");
}

/// What a stream has in all, if whoever waits for its first item gives up.
async fn interrupted<T>(
    cut: Cut,
    mut items: impl Stream<Item = T> + Unpin,
    hub: &Hub,
) -> (bool, Vec<T>) {
    let (first, ()) = tokio::join!(cut.run(items.next()), broadcast(hub));
    let is_there = first.is_some();
    let mut all: Vec<_> = first.flatten().into_iter().collect();
    while let Some(item) = items.next().await {
        all.push(item);
    }
    (is_there, all)
}

#[tokio::test(start_paused = true)]
async fn a_stream_loses_nothing() {
    at_every_await(1, async |cut| {
        let (hub, stream) = open();
        let (is_there, items) = interrupted(cut, stream, &hub).await;
        let data: Vec<_> = items
            .into_iter()
            .map(|item| item.expect("no gap").data())
            .collect();
        assert_eq!(data, EVENTS);
        assert_eq!(hub.total_connections(), 0);
        is_there
    })
    .await;

    at_every_await(1, async |cut| {
        let (hub, stream) = open();
        let mut events = stream.into_axum_events();
        // Its beginning, a comment.
        assert!(events.next().await.is_some());
        let (is_there, events) = interrupted(cut, events, &hub).await;
        let body = Sse::new(stream::iter(events)).into_response().into_body();
        let bytes = body.collect().await.expect("it cannot fail").to_bytes();
        assert_eq!(bytes, "data: one\n\ndata: two\n\ndata: three\n\n");
        assert_eq!(hub.total_connections(), 0);
        is_there
    })
    .await;

    at_every_await(1, async |cut| {
        let (hub, stream) = open();
        let body = SseBody::new(stream).keep_alive(&KeepAlive::comment());
        let mut body = body.into_data_stream();
        let begun = body.next().await.expect("a beginning");
        assert_eq!(begun.expect("it cannot fail"), ":\n");
        let (is_there, frames) = interrupted(cut, body, &hub).await;
        let mut decoder = Decoder::new();
        for frame in frames {
            decoder.push(&frame.expect("it cannot fail"));
        }
        let items: Vec<_> = decoder.collect();
        let is_comment = |item: &Item| matches!(item, Item::Comment(_));
        assert_eq!(items.iter().any(is_comment), is_there, "it kept waiting");
        let data = items.iter().filter_map(|item| match item {
            Item::Message(message) => Some(&*message.data),
            _ => None,
        });
        assert_eq!(data.collect::<Vec<_>>(), EVENTS);
        assert_eq!(hub.total_connections(), 0);
        is_there
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn presence_loses_nothing() {
    let (came, left) = (Presence::Came("ann".into()), Presence::Left("ann".into()));
    let grace = Duration::from_secs(5);
    at_every_await(1, async |cut| {
        let hub = Hub::new();
        let mut presence = hub.presence(grace);
        let come = async {
            sleep(Duration::from_secs(40)).await;
            hub.register("ann").expect("room")
        };
        let (first, ann) = tokio::join!(cut.run(presence.next()), come);
        let is_there = first.is_some();
        let first = match first {
            Some(first) => first,
            None => presence.next().await,
        };
        assert_eq!(first.as_ref(), Some(&came));
        drop(ann);
        assert_eq!(presence.next().await.as_ref(), Some(&left));
        is_there
    })
    .await;

    at_every_await(1, async |cut| {
        let hub = Hub::new();
        let mut presence = hub.presence(grace);
        let ann = hub.register("ann").expect("room");
        assert_eq!(presence.next().await.as_ref(), Some(&came));
        drop(ann);
        let first = cut.run(presence.next()).await;
        let is_there = first.is_some();
        let first = match first {
            Some(first) => first,
            None => presence.next().await,
        };
        assert_eq!(first.as_ref(), Some(&left));
        is_there
    })
    .await;
}
