//! One node: its routes, and its life until it is stopped.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use tidings::backplane::Backplane;
use tidings::serve::{StallListener, serve};
use tidings::{BroadcastError, GenericBroadcaster, LastEventId, RegisterError, Subscription, Text};
use tidings_nats::Nats;
use tidings_nats::async_nats::ConnectOptions;
use tidings_redis::Redis;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Hub = GenericBroadcaster<Text>;
pub(crate) type Anything = Box<dyn std::error::Error + Send + Sync>;

const PAGE: &str = include_str!("page.html");

#[derive(Clone)]
struct Node {
    hub: Hub,
    /// Where the page finds all nodes, with commas between.
    nodes: String,
    stop: mpsc::Sender<()>,
}

/// What the engine keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// How many servers of NATS keep each event.
    pub(crate) replicas: usize,
    /// Events of each user.
    pub(crate) per_user: u32,
    /// Whether Redis never loses an event that it has accepted.
    pub(crate) is_durable: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            replicas: 1,
            per_user: 256,
            is_durable: false,
        }
    }
}

/// Connects to the server at `redis://...`, or to one of NATS's, URLs with commas between them. Every node of a service lets the
/// engine keep the same, or nothing.
pub(crate) async fn connect(url: &str, kept: Option<Kept>) -> Result<Arc<dyn Backplane>, Anything> {
    if url.starts_with("redis") {
        let mut settings = tidings_redis::Settings::new("cluster");
        if let Some(kept) = kept {
            let log = tidings_redis::Log::new().max_per_user(kept.per_user);
            settings = settings.replayable(if kept.is_durable { log.durable() } else { log });
        }
        return Ok(Arc::new(Redis::connect(url, settings).await?));
    }
    // Options of async-nats: credentials, TLS, how to reconnect. A server that hangs is noticed after three pings.
    let options = ConnectOptions::new().ping_interval(Duration::from_secs(2));
    // A node may start while the servers elect who leads the log.
    let wait = Duration::from_secs(30);
    let mut settings = tidings_nats::Settings::new("cluster").wait_for_server(wait);
    if let Some(kept) = kept {
        let log = tidings_nats::Log::new("CLUSTER").replicas(kept.replicas);
        settings = settings.replayable(log.max_per_user(kept.per_user));
    }
    Ok(Arc::new(Nats::connect(url, options, settings).await?))
}

/// Serves until somebody posts to `/stop`.
pub(crate) async fn run(
    listener: StallListener<TcpListener>,
    engine: Arc<dyn Backplane>,
    nodes: String,
) -> Result<(), Anything> {
    let hub = Hub::builder().backplane(engine).build()?;

    let (stop, mut stopped) = mpsc::channel(1);
    let app = Router::new()
        .route("/", get(page))
        .route("/events/{user}", get(stream).post(send))
        .route("/stop", post(end))
        .layer(from_fn_with_state(nodes.clone(), own_pages))
        .with_state(Node {
            hub: hub.clone(),
            nodes,
            stop,
        });
    serve(listener, app)
        .with_graceful_shutdown(async move {
            stopped.recv().await;
            hub.shutdown(Duration::from_secs(1)).await;
        })
        .drain(Duration::from_millis(500))
        .await;
    Ok(())
}

/// Lets the pages of the nodes in, and programs: no other site that the browser shows, and none whose name leads here.
async fn own_pages(State(nodes): State<String>, request: Request, next: Next) -> Response {
    if !is_own(&nodes, request.headers()) {
        let sentence = format!("Only the pages of {nodes} are let in.\n");
        return (StatusCode::FORBIDDEN, sentence).into_response();
    }
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = next.run(request).await;
    // The page of one node opens streams of the other.
    if let Some(origin) = origin {
        response
            .headers_mut()
            .insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

fn is_own(nodes: &str, headers: &HeaderMap) -> bool {
    let is_node = |url: &str| nodes.split(',').any(|node| node == url);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_origin = |origin: &HeaderValue| origin.to_str().is_ok_and(is_node);
    host.is_some_and(|host| is_node(&format!("http://{host}")))
        && headers.get(ORIGIN).is_none_or(is_origin)
}

async fn page(State(node): State<Node>) -> Html<String> {
    Html(PAGE.replace("{nodes}", &node.nodes))
}

async fn end(State(node): State<Node>) {
    // If it is stopping already, that is what was asked for.
    let _ = node.stop.try_send(());
}

/// The user stands in the path, so that one can play with it. A service takes it from what it has authenticated.
async fn stream(
    State(node): State<Node>,
    Path(user): Path<String>,
    last_event_id: LastEventId,
) -> Result<Subscription, RegisterError> {
    // Returns when the engine sends this node what is broadcast to the user on others.
    node.hub.resume_when_ready(user, &last_event_id).await
}

async fn send(
    State(node): State<Node>,
    Path(user): Path<String>,
    text: String,
) -> Result<String, BroadcastError> {
    let here = node
        .hub
        .broadcast_confirmed(&user, &Text::new(text))
        .await?;
    Ok(format!("accepted; {here} streams of this node have it\n"))
}
