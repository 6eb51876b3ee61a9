//! The tokens of a language model, in a stream that survives reloads and lost connections.
//!
//!     cargo run -p runs
//!     curl -d 'Say something' http://127.0.0.1:3000/runs          # answers with the run's id
//!     curl -N http://127.0.0.1:3000/runs/ID/events
//!
//! A run is a channel of its own, and goes on whether or not a client reads. Each reader gets all of it, or what follows the
//! event that the reader names, then the end. An `EventSource` reconnects after the end and stops at the 204 that it gets
//! then. A minute later the run is forgotten and gives 404, which stops it as well. Any client that knows the id can read: a
//! service checks that the run belongs to the session's user.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tidings::{BroadcastError, ConfigError, ConnectionId, History, Hold, LastEventId, Text};

pub(crate) type Hub = tidings::Hub<Text>;

pub(crate) fn hub() -> Result<Hub, ConfigError> {
    Hub::builder()
        .history(History::new(10_000)) // more than the tokens of any run
        .sweep_every(Duration::from_secs(1)) // forgets runs that are over
        .build()
}

pub(crate) fn router(hub: Hub) -> Router {
    Router::new()
        .route("/runs", post(start))
        .route("/runs/{run}/events", get(events))
        .with_state(hub)
}

/// The events are kept while this exists. Its drop, a panic of the model included, ends the run for all readers.
struct Run {
    hub: Hub,
    hold: Hold,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.hub.complete(self.hold.user()); // cannot fail while held
    }
}

async fn start(State(hub): State<Hub>, prompt: String) -> Response {
    let id = ConnectionId::generate().to_string(); // 128 random bits
    match hub.hold(id.clone()) {
        Ok(hold) => drop(tokio::spawn(generate(Run { hub, hold }, prompt))),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
    (StatusCode::CREATED, id).into_response()
}

/// Stands for a model: the words of the prompt, one after the other.
async fn generate(run: Run, prompt: String) -> Result<(), BroadcastError> {
    for word in prompt.split_inclusive(' ') {
        tokio::time::sleep(Duration::from_millis(50)).await;
        run.hub.broadcast(run.hold.user(), &Text::new(word))?;
    }
    let done = Text::new(prompt).event("done"); // a run that ends without it broke off
    run.hub.broadcast(run.hold.user(), &done).map(drop)
}

async fn events(State(hub): State<Hub>, Path(run): Path<String>, last: LastEventId) -> Response {
    // Never started, or forgotten: a service looks into its database for the result.
    if hub.position(&run).is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    hub.resume(run, &last.or_from_start()).into_response()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tidings::serve::bind("127.0.0.1:3000").await?;
    axum::serve(listener, router(hub()?)).await?;
    Ok(())
}
