//! The streams of a user, to which one task writes past their bodies: what they promise stays true, and no layer is left out
//! that would have done something.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use http_body::Frame as Chunk;
use http_body_util::{BodyExt, Limited};
use tidings::serve::{bind, serve};
use tidings::sse::SseResponse;
use tidings::{KeepAlive, RegisterError, Text};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::support::site::{BOUND, Background, Client, Site, eventually};

/// All of one user.
const MANY: usize = 20;

async fn start(app: Router) -> (std::net::SocketAddr, Background) {
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let server = Background::spawn(async move {
        serve(listener, app).await;
    });
    (addr, server)
}

/// Streams that have got an event: the task that writes to all of them writes the next.
async fn open(site: &Site, addr: std::net::SocketAddr, count: usize) -> Vec<Client> {
    let before = site.hub.connection_count("ann");
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::get(addr, "/events/ann").await;
        // So that each is polled before the next comes.
        client.until(":\n").await;
        clients.push(client);
    }
    assert_eq!(site.hub.connection_count("ann"), before + count);
    site.send("ann", "first.");
    for client in &mut clients {
        client.until(".\n\n").await;
    }
    clients
}

/// Wraps the bodies of all responses.
fn around(app: Router, wrap: impl Fn(Body) -> Body + Clone + Send + Sync + 'static) -> Router {
    app.layer(middleware::map_response(move |response: Response| {
        let wrap = wrap.clone();
        async move { response.map(wrap) }
    }))
}

/// Hands on all that its body says, and counts its frames.
struct Watching {
    body: Body,
    frames: Arc<AtomicUsize>,
}

impl http_body::Body for Watching {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(_)) = polled {
            self.frames.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[tokio::test]
async fn every_stream_gets_every_event_once_and_nearly_all_pass_by_the_bodies() {
    let site = Site::new();
    let frames = Arc::new(AtomicUsize::new(0));
    let counted = frames.clone();
    let app = around(site.app(), move |body| {
        let frames = counted.clone();
        Body::new(Watching { body, frames })
    });
    let (addr, _server) = start(app).await;
    let mut clients = open(&site, addr, MANY).await;
    const EVENTS: usize = 50;
    for number in 0..EVENTS {
        site.send("ann", &format!("{number}."));
        for client in &mut clients {
            assert!(
                client
                    .until(".\n\n")
                    .await
                    .ends_with(&format!("data: {number}"))
            );
        }
    }
    let passed = frames.load(Ordering::Relaxed);
    // The first comment and event of each, and what its own task finds when it looks by itself.
    assert!(
        (MANY..MANY * EVENTS / 10).contains(&passed),
        "{passed} frames"
    );
}

/// The streams write ephemeral events by themselves, and the task that writes the others does not overtake them.
#[tokio::test]
async fn an_ephemeral_event_comes_in_its_place_on_every_stream() {
    let site = Site::new();
    let (addr, _server) = start(site.app()).await;
    let mut clients = open(&site, addr, MANY).await;
    let pass = |data: String| {
        let event = Text::new(data);
        let reached = site.hub.broadcast_ephemeral("ann", &event).expect("text");
        assert_eq!(reached, MANY);
    };
    for number in 0..20 {
        site.send("ann", &format!("{number}."));
        pass(format!("after {number}."));
        if number % 3 > 0 {
            // They may be about to write the others.
            tokio::task::yield_now().await;
        }
        pass(format!("again {number}."));
        site.send("ann", &format!("next {number}."));
        for client in &mut clients {
            for kind in ["", "after ", "again ", "next "] {
                let event = client.until(".\n\n").await;
                assert!(event.ends_with(&format!("data: {kind}{number}")), "{event}");
            }
        }
    }
}

#[tokio::test]
async fn with_shared_writes_off_every_frame_passes_through_the_layers() {
    let site = Site::new();
    let frames = Arc::new(AtomicUsize::new(0));
    let counted = frames.clone();
    let app = around(site.app(), move |body| {
        let frames = counted.clone();
        Body::new(Watching { body, frames })
    });
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let _server = Background::spawn(async move {
        serve(listener, app).shared_writes(false).await;
    });
    let mut clients = open(&site, addr, MANY).await;
    for number in 0..5 {
        site.send("ann", &format!("{number}."));
        for client in &mut clients {
            client.until(&format!("data: {number}.\n\n")).await;
        }
    }
    // And the first comment and event of each.
    assert_eq!(frames.load(Ordering::Relaxed), MANY * 7);
}

#[tokio::test]
async fn many_events_at_once_reach_hundreds_of_streams_over_a_small_ring() {
    let site = Site::new();
    let (addr, _server) = start(site.app()).await;
    let mut clients = open(&site, addr, 300).await;
    for round in 0..5 {
        // The ring has room for 64.
        for number in 0..32 {
            site.send("ann", &format!("{round}-{number}."));
        }
        for client in &mut clients {
            for number in 0..32 {
                let event = client.until(".\n\n").await;
                assert!(
                    event.ends_with(&format!("data: {round}-{number}")),
                    "{event}"
                );
            }
        }
    }
    assert_eq!(site.hub.stats().lagged, 0);
}

#[tokio::test]
async fn a_stream_that_does_not_read_is_told_its_loss_and_others_lose_nothing() {
    let site = Site::new();
    let (addr, _server) = start(site.app()).await;
    let mut clients = open(&site, addr, MANY).await;
    let mut lazy = Client::stall(addr, "/events/ann").await;
    eventually(BOUND, "it is there", || {
        site.hub.connection_count("ann") == MANY + 1
    })
    .await;
    let filling = "x".repeat(30_000);
    let lagged = || {
        site.hub
            .connection_info_of("ann")
            .iter()
            .any(|it| it.behind > 64)
    };
    let mut sent = 0;
    while !lagged() {
        assert!(sent < 5000, "it lags at some time");
        site.send("ann", &format!("{filling}{sent}."));
        for client in &mut clients {
            assert!(client.until(".\n\n").await.ends_with(&format!("x{sent}")));
        }
        sent += 1;
    }
    lazy.until("\r\n\r\n").await;
    lazy.until("event: gap\n").await;
    let gap = lazy.until("\n\n").await;
    assert!(gap.contains(r#""reason":"lagged""#), "{gap}");
    site.send("ann", "last.");
    lazy.until("data: last.\n\n").await;
    for client in &mut clients {
        client.until("data: last.\n\n").await;
    }
}

#[tokio::test]
async fn a_drained_user_gets_what_was_sent_before_and_may_ask_again() {
    let site = Site::new();
    let (addr, _server) = start(site.app()).await;
    let mut clients = open(&site, addr, MANY).await;
    site.send("ann", "before.");
    site.hub.drain_user("ann");
    for client in &mut clients {
        client.until("data: before.\n\n").await;
        client.until("0\r\n\r\n").await;
        client.ask("/peer").await;
        client.until("you are").await;
    }
    assert_eq!(site.hub.connection_count("ann"), 0);
    let mut again = open(&site, addr, MANY).await;
    site.send("ann", "after.");
    for client in &mut again {
        client.until("data: after.\n\n").await;
    }
    drop(again);
    eventually(BOUND, "all have left", || {
        site.hub.connection_count("ann") == 0
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_ends_them_with_the_time_to_come_back() {
    let site = Site::new();
    let (addr, _server) = start(site.app()).await;
    let mut clients = open(&site, addr, MANY).await;
    site.send("ann", "one.");
    site.hub.shutdown(Duration::from_secs(5)).await;
    for client in &mut clients {
        client.until("data: one.\n\n").await;
        client.until("retry: ").await;
        client.until("0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn a_keep_alive_counts_from_what_was_written_past_the_body() {
    const INTERVAL: Duration = Duration::from_millis(600);
    async fn events(
        State(site): State<Site>,
        Path(user): Path<String>,
    ) -> Result<impl IntoResponse, RegisterError> {
        let subscription = site.hub.register(user)?;
        let keep_alive = KeepAlive::comment().interval(INTERVAL);
        Ok(SseResponse::new(subscription).keep_alive(&keep_alive))
    }
    let site = Site::new();
    let app = Router::new()
        .route("/events/{user}", get(events))
        .with_state(site.clone());
    let (addr, _server) = start(app).await;
    let mut clients = open(&site, addr, MANY).await;
    let mut last = clients.pop().expect("many");
    sleep(INTERVAL / 2).await;
    let sent = Instant::now();
    site.send("ann", "one.");
    last.until("data: one.\n\n").await;
    last.until(":\n").await;
    assert!(sent.elapsed() >= INTERVAL, "{:?}", sent.elapsed());
}

// Layers

#[tokio::test]
async fn a_body_that_is_mapped_is_not_passed_by() {
    let site = Site::new();
    let app = around(site.app(), |body| {
        Body::new(
            body.map_frame(|frame| frame.map_data(|data| Bytes::from(data.to_ascii_uppercase()))),
        )
    });
    let (addr, _server) = start(app).await;
    let mut clients = open(&site, addr, MANY).await;
    for number in 0..5 {
        site.send("ann", &format!("abc{number}."));
        for client in &mut clients {
            let event = client.until(".\n\n").await;
            assert!(event.ends_with(&format!("DATA: ABC{number}")), "{event}");
        }
    }
}

/// Hands on all that its body says, but for events, which it writes in capitals.
struct Loud(Body);

impl http_body::Body for Loud {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk<Bytes>, axum::Error>>> {
        let capitals = |data: Bytes| match data.starts_with(b"data:") {
            true => Bytes::from(data.to_ascii_uppercase()),
            false => data,
        };
        let polled = Pin::new(&mut self.0).poll_frame(cx);
        polled.map(|frame| Some(frame?.map(|chunk| chunk.map_data(capitals))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

/// Every stream begins with a comment, which says nothing about what a layer does with events.
#[tokio::test]
async fn a_body_whose_events_are_mapped_is_not_passed_by() {
    let site = Site::new();
    let app = around(site.app(), |body| Body::new(Loud(body)));
    let (addr, _server) = start(app).await;
    let mut clients = open(&site, addr, MANY).await;
    for number in 0..5 {
        site.send("ann", &format!("abc{number}."));
        for client in &mut clients {
            let event = client.until(".\n\n").await;
            assert!(event.ends_with(&format!("DATA: ABC{number}")), "{event}");
        }
    }
}

#[tokio::test]
async fn a_limit_of_bytes_is_not_passed_by() {
    let site = Site::new();
    let app = around(site.app(), |body| Body::new(Limited::new(body, 100)));
    let (addr, _server) = start(app).await;
    let clients = open(&site, addr, MANY).await;
    for number in 0..20 {
        site.send("ann", &format!("{number}."));
    }
    for client in clients {
        let (_, bytes) = client.end().await;
        assert!(bytes.len() < 300, "{} bytes", bytes.len());
    }
    eventually(BOUND, "all are cut", || {
        site.hub.connection_count("ann") == 0
    })
    .await;
}

/// Fails when its body has had no frame for so long.
struct Impatient {
    body: Body,
    time: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Impatient {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.time)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("no frame in time".into())));
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_ready() {
            this.timer = None;
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}

#[tokio::test]
async fn a_time_limit_between_frames_is_not_passed_by() {
    const TIME: Duration = Duration::from_secs(2);
    let site = Site::new();
    let app = around(site.app(), |body| {
        let timer = None;
        Body::new(Impatient {
            body,
            time: TIME,
            timer,
        })
    });
    let (addr, _server) = start(app).await;
    let mut clients = open(&site, addr, MANY).await;
    // For longer than it may be silent.
    for number in 0..15 {
        sleep(TIME / 10).await;
        site.send("ann", &format!("{number}."));
        for client in &mut clients {
            client.until(&format!("data: {number}.\n\n")).await;
        }
    }
    assert_eq!(site.hub.connection_count("ann"), MANY);
    let gone = eventually(BOUND, "silence ends them", || {
        site.hub.connection_count("ann") == 0
    });
    assert!(timeout(BOUND, gone).await.is_ok());
}

/// Passes on a frame when its body has nothing more, behind a comment of its own.
struct Late {
    body: Body,
    held: Option<Bytes>,
}

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk<Bytes>, axum::Error>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().expect("there are no trailers");
                    if let Some(earlier) = self.held.replace(data) {
                        return Poll::Ready(Some(Ok(Chunk::data(earlier))));
                    }
                }
                Poll::Pending => {
                    return match self.held.take() {
                        Some(held) => Poll::Ready(Some(Ok(Chunk::data(held)))),
                        None => Poll::Pending,
                    };
                }
                other => return other,
            }
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[tokio::test]
async fn a_layer_that_holds_frames_back_is_not_passed_by() {
    let site = Site::new();
    let app = around(site.app(), |body| Body::new(Late { body, held: None }));
    let (addr, _server) = start(app).await;
    let mut clients = open(&site, addr, MANY).await;
    for number in 0..20 {
        site.send("ann", &format!("{number}."));
    }
    for client in &mut clients {
        for number in 0..20 {
            assert!(
                client
                    .until(".\n\n")
                    .await
                    .ends_with(&format!("data: {number}"))
            );
        }
    }
}

const LARGE: usize = 4 << 20;

/// Broadcasts a large event to clients of these users that do not read it, then lets them read, and returns by how many bytes
/// this process has grown.
async fn growth(users: &[String]) -> usize {
    let site = Site::new();
    let (addr, _server) = start(site.app()).await;
    let mut clients = Vec::new();
    for user in users {
        let mut client = Client::get(addr, &format!("/events/{user}")).await;
        client.until(":\n").await;
        clients.push(client);
    }
    let send = |data| {
        let reach = site.hub.broadcast_all(&Text::new(data)).expect("text");
        assert_eq!(reach.streams, users.len());
    };
    // From then on, attendants write.
    send("small.".to_owned());
    for client in &mut clients {
        client.until(".\n\n").await;
    }
    let before = resident();
    send(format!("{}.", "x".repeat(LARGE)));
    let is_taken = |user: &String| {
        let streams = site.hub.connection_info_of(user);
        streams.iter().all(|it| it.behind == 0)
    };
    eventually(BOUND, "it is on its way to all", || {
        users.iter().all(is_taken)
    })
    .await;
    let grown = resident().saturating_sub(before);
    for client in &mut clients {
        client.skip(LARGE).await;
        client.until(".\n\n").await;
    }
    grown
}

#[tokio::test]
async fn a_large_event_that_waits_for_many_clients_is_kept_once() {
    let grown = growth(&vec!["ann".to_owned(); 60]).await;
    // Each stream's own copy would be four megabytes.
    assert!(grown < 25 * LARGE, "{grown} bytes");
}

#[tokio::test]
async fn a_large_event_that_waits_for_many_users_is_kept_once() {
    let users: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let grown = growth(&users).await;
    assert!(grown < 25 * LARGE, "{grown} bytes");
}

/// What this process takes of memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes.map_or(0, |kilobytes| {
        kilobytes.trim().parse::<usize>().expect("a number") * 1024
    })
}
