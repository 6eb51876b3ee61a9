//! A deployment that no client notices but by one reconnect.
//!
//!     cargo run -p graceful
//!
//! On SIGTERM:
//!
//! 1. `/ready` answers 503. All else goes on, until the load balancer has seen that and sends no new clients: `NOTICE`.
//! 2. The streams are ended, spread over `DRAIN`. Each sends a `retry:` with the time to reconnect, which spreads the crowd
//!    over as long again. New clients are told to come back as well, in a form that browsers survive.
//! 3. The server waits `REST` for the remaining connections, then aborts them: clients that do not read, handlers that hang.
//!
//! Together that has to stay below what the process manager allows before it kills: 30 s in Kubernetes
//! (`terminationGracePeriodSeconds`), 10 s in Docker, 90 s in systemd (`TimeoutStopSec`). Where there is a `preStop` hook that
//! waits, `NOTICE` can be zero.
//!
//! `/live` is another question: whether the process should be killed. It answers 200 to the end.
//!
//! A history is memory of this process: clients that reconnect to the next process get a gap, since events may be missing,
//! and have to fetch the present state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use tidings::serve::{bind, serve};
use tidings::{GenericBroadcaster, RegisterError, Subscription, Text};

/// Longer than the load balancer takes to see that we are not ready: its period times its threshold.
const NOTICE: Duration = Duration::from_secs(4);
const DRAIN: Duration = Duration::from_secs(4);
const REST: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) hub: GenericBroadcaster<Text>,
    is_stopping: Arc<AtomicBool>,
}

impl App {
    pub(crate) fn new() -> Self {
        Self {
            hub: GenericBroadcaster::new(),
            is_stopping: Arc::default(),
        }
    }

    /// Ends everything in the order above. For the server's `with_graceful_shutdown`.
    pub(crate) async fn stop(self, notice: Duration, drain: Duration) {
        // Relaxed: it decides what is answered, and orders nothing.
        self.is_stopping.store(true, Ordering::Relaxed);
        tokio::time::sleep(notice).await;
        let cut = self.hub.shutdown(drain).await;
        if cut > 0 {
            eprintln!("{cut} streams were cut");
        }
    }
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/live", get(|| async { "alive\n" }))
        .route("/events/{user}", get(stream).post(send))
        .with_state(app)
}

async fn ready(State(app): State<App>) -> Result<&'static str, (StatusCode, &'static str)> {
    if app.is_stopping.load(Ordering::Relaxed) {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "stopping\n"));
    }
    Ok("ready\n")
}

// The user stands in the path to keep the example to its question; see `auth`.
async fn stream(
    State(app): State<App>,
    Path(user): Path<String>,
) -> Result<Subscription, RegisterError> {
    app.hub.register(user)
}

async fn send(State(app): State<App>, Path(user): Path<String>, text: String) -> String {
    match app.hub.broadcast(&user, &Text::new(text)) {
        Ok(reached) => format!("reached {reached} streams\n"),
        Err(error) => format!("not sent: {error}\n"),
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:3000");
    // Caught before the address is printed: whoever reads it may stop us from then on.
    let terminated = terminated()?;
    let listener = bind(address).await?;
    let base = format!("http://{}", listener.local_addr()?);
    println!("graceful listens on {base}\n");
    println!("  curl -N {base}/events/ann");
    println!("  kill {}", std::process::id());
    println!("  curl {base}/ready");

    let app = App::new();
    let stop = app.clone();
    let drained = serve(listener, router(app))
        .with_graceful_shutdown(async move {
            terminated.await;
            stop.stop(NOTICE, DRAIN).await;
        })
        .drain(REST)
        .await;
    eprintln!("stopped; {} connections were aborted", drained.aborted);
    Ok(())
}

#[cfg(unix)]
fn terminated() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        terminate.recv().await;
    })
}

/// Ctrl-C, where there is no SIGTERM.
#[cfg(not(unix))]
fn terminated() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}
