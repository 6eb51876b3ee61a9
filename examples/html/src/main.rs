//! Pages that get HTML from a stream, without a script of their own: htmx 4 and Turbo 8.
//!
//!     cargo run -p html
//!
//! Then open `/htmx` and `/turbo`, and say something: `curl -d hello http://127.0.0.1:3000/say`. Both pages have the same
//! handler; what differs is the markup around a message. Both send the id of the last event when they reconnect, so with a history nothing is missed. htmx needs that: it
//! disconnects pages in the background. What cannot be delivered arrives as the event `gap`, at which both pages are loaded
//! again.
//!
//! An `EventSource`, which Turbo uses, gives up at any status but 200, and htmx does not retry a first request that is
//! refused: `RefusalForm::ComeBack` keeps both.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use tidings::{ConfigError, GenericBroadcaster, History, LastEventId, RefusalForm, RegisterError};
use tidings::{Subscription, Text};

pub(crate) type Hub = GenericBroadcaster<Text>;

/// Where the libraries come from.
const CDN: &str = "https://cdn.jsdelivr.net/npm";

pub(crate) fn hub() -> Result<Hub, ConfigError> {
    Hub::builder()
        .history(History::new(100))
        .when_full(RefusalForm::ComeBack)
        .build()
}

pub(crate) fn router(hub: Hub, scripts: &str) -> Router {
    let htmx = include_str!("htmx.html").replace("SCRIPTS", scripts);
    let turbo = include_str!("turbo.html").replace("SCRIPTS", scripts);
    Router::new()
        .route("/htmx", get(Html(htmx)))
        .route("/turbo", get(Html(turbo)))
        .route("/{library}/events", get(events))
        .route("/say", post(say))
        .with_state(hub)
}

/// A channel for each form of markup. In a service the user or room would be a part of its name.
async fn events(
    State(hub): State<Hub>,
    Path(library): Path<String>,
    last_event_id: LastEventId,
) -> Result<Subscription, RegisterError> {
    hub.resume(library, &last_event_id)
}

async fn say(State(hub): State<Hub>, text: String) -> StatusCode {
    let item = format!("<li>{}</li>", escape(&text));
    // An event without a name: htmx swaps it in, Turbo does what it says.
    let turbo = format!(
        r#"<turbo-stream action="append" target="messages"><template>{item}</template></turbo-stream>"#
    );
    let sent = hub
        .broadcast("htmx", &Text::new(item))
        .and_then(|_| hub.broadcast("turbo", &Text::new(turbo)));
    match sent {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("html listens on http://{}", listener.local_addr()?);
    axum::serve(tidings::serve::listener(listener), router(hub()?, CDN)).await?;
    Ok(())
}
