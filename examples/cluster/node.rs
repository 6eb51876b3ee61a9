//! One node: its routes, and its life until it is stopped.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use tidings::backplane::nats::{Log, Nats, Settings};
use tidings::serve::{StallListener, serve};
use tidings::{BroadcastError, GenericBroadcaster, LastEventId, RegisterError, Text};
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

/// Serves until somebody posts to `/stop`.
pub(crate) async fn run(
    listener: StallListener<TcpListener>,
    nats: &str,
    nodes: String,
) -> Result<(), Anything> {
    // Options of async-nats: credentials, TLS, how to reconnect.
    let options = async_nats::ConnectOptions::new();
    let settings = Settings::new("cluster").replayable(Log::new("CLUSTER"));
    let nats = Nats::connect(nats, options, settings).await?;
    let hub = Hub::builder().backplane(nats).build()?;

    let (stop, mut stopped) = mpsc::channel(1);
    let app = Router::new()
        .route("/", get(page))
        .route("/events/{user}", get(stream).post(send))
        .route("/stop", post(end))
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
) -> Result<impl IntoResponse, RegisterError> {
    let subscription = node.hub.resume(user, &last_event_id)?;
    // The page of one node opens streams of the other.
    Ok(([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], subscription))
}

async fn send(
    State(node): State<Node>,
    Path(user): Path<String>,
    text: String,
) -> Result<impl IntoResponse, (StatusCode, String)> {
    let sent = node.hub.broadcast_confirmed(&user, &Text::new(text)).await;
    let sentence = match sent {
        Ok(here) => format!("accepted; {here} streams of this node have it\n"),
        Err(error @ BroadcastError::Encode(_)) => {
            return Err((StatusCode::BAD_REQUEST, format!("{error}\n")));
        }
        Err(error) => return Err((StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))),
    };
    Ok(([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], sentence))
}
