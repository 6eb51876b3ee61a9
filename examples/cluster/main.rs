//! Two nodes and one NATS server: what is sent on one arrives on the other, and a page that loses its node goes on with the
//! other one.
//!
//!     cargo run --features nats --example cluster
//!
//! Starts a `nats-server` of its own (Debian's package of that name) in a temporary folder, or uses that of `--nats URL`,
//! which needs JetStream. In production each node is a process of its own, on a machine of its own; here both are in one, each
//! with its own connection to the server.
//!
//! The page opens its stream on one node. When that ends, it opens one on the next, and names the last id that it saw: ids are
//! the same everywhere. `POST /stop` stops a node, as a deployment does; it comes back after five seconds.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use axum::serve::Listener;
use tidings::backplane::nats::{Log, Nats, Settings};
use tidings::serve::{bind, serve};
use tidings::{BroadcastError, GenericBroadcaster, LastEventId, RegisterError, Text};
use tokio::sync::mpsc;

type Hub = GenericBroadcaster<Text>;
type Anything = Box<dyn std::error::Error>;

/// How long a node that was stopped stays away.
const AWAY: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Node {
    hub: Hub,
    stop: mpsc::Sender<()>,
}

#[tokio::main]
async fn main() -> Result<(), Anything> {
    let (server, url) = match std::env::args().skip_while(|arg| arg != "--nats").nth(1) {
        Some(url) => (None, url),
        None => {
            let server = Server::start().await?;
            let url = server.url.clone();
            (Some(server), url)
        }
    };
    let nodes =
        ["127.0.0.1:3001", "127.0.0.1:3002"].map(|addr| tokio::spawn(run(addr, url.clone())));
    println!(
        "\
Two nodes, http://127.0.0.1:3001 and http://127.0.0.1:3002, over {url}

Open http://127.0.0.1:3001 in a browser and send something; or:

  curl -N http://127.0.0.1:3001/events/ann
  curl -d hello http://127.0.0.1:3002/events/ann
  curl -X POST http://127.0.0.1:3001/stop

Ctrl-C stops it."
    );
    let [one, two] = nodes;
    tokio::select! {
        ended = one => ended??,
        ended = two => ended??,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    drop(server);
    Ok(())
}

/// One node, which comes back when it was stopped.
async fn run(addr: &'static str, url: String) -> Result<(), String> {
    loop {
        let once = serve_until_stopped(addr, &url).await;
        once.map_err(|error| format!("{addr}: {error}"))?;
        println!("{addr} is stopped");
        tokio::time::sleep(AWAY).await;
        println!("{addr} is back");
    }
}

async fn serve_until_stopped(addr: &str, url: &str) -> Result<(), Anything> {
    // Options of async-nats: credentials, TLS, how to reconnect.
    let options = async_nats::ConnectOptions::new();
    let settings = Settings::new("cluster").replayable(Log::new("CLUSTER"));
    let nats = Nats::connect(url, options, settings).await?;
    let hub = Hub::builder().backplane(nats).build()?;

    let (stop, mut stopped) = mpsc::channel(1);
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/events/{user}", get(stream).post(send))
        .route(
            "/stop",
            post(async |State(node): State<Node>| {
                // If it is stopping already, that is what was asked for.
                let _ = node.stop.try_send(());
            }),
        )
        .with_state(Node {
            hub: hub.clone(),
            stop,
        });
    let listener = bind(addr).await?;
    listener.local_addr()?;
    serve(listener, app)
        .with_graceful_shutdown(async move {
            stopped.recv().await;
            hub.shutdown(Duration::from_secs(1)).await;
        })
        .drain(Duration::from_millis(500))
        .await;
    Ok(())
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

/// A NATS server of our own, which ends with us.
struct Server {
    child: Child,
    url: String,
    folder: PathBuf,
}

impl Server {
    async fn start() -> Result<Self, Anything> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let folder = std::env::temp_dir().join(format!("tidings-cluster-{}", std::process::id()));
        let child = Command::new("nats-server")
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .args(["--jetstream", "--store_dir"])
            .arg(&folder)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!("nats-server does not start ({error}); if it is missing: apt-get install nats-server")
            })?;
        let server = Self {
            child,
            url: format!("nats://127.0.0.1:{port}"),
            folder,
        };
        for _ in 0..200 {
            if async_nats::connect(&server.url).await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("nats-server does not answer".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, by the same Ctrl-C.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

const PAGE: &str = include_str!("page.html");
