//! Pages that get HTML from a stream, without a script of their own: htmx 4, Turbo 8 and Datastar 1.
//!
//!     cargo run -p html
//!
//! Then open `/htmx`, `/turbo` and `/datastar`, and say something: `curl -d hello http://127.0.0.1:3000/say`. The pages differ
//! in the markup around a message, and each needs one handler. All of them send the id of the last event when they reconnect,
//! so with a history nothing is missed. htmx and Datastar need that: they disconnect pages in the background. What cannot be
//! delivered arrives as the event `gap`, at which the page is loaded again. Datastar ignores events that are not its own, so
//! its handler writes the gap as a script that reloads the page.
//!
//! An `EventSource`, which Turbo uses, gives up at any status but 200, and htmx does not retry a first request that is
//! refused: `RefusalForm::ComeBack` keeps both. Datastar reconnects after a stream that has ended because its page says
//! `retry: 'always'`.

use std::ops::ControlFlow;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use tidings::sse::{Chunks, SseResponse, View};
use tidings::{ConfigError, Frame, Gap, GenericBroadcaster, History, LastEventId, RefusalForm};
use tidings::{RegisterError, Subscription, Text};

pub(crate) type Hub = GenericBroadcaster<Text>;

/// Where the libraries come from.
const CDN: &str = "https://cdn.jsdelivr.net";

pub(crate) fn hub() -> Result<Hub, ConfigError> {
    Hub::builder()
        .history(History::new(100))
        .when_full(RefusalForm::ComeBack)
        .build()
}

pub(crate) fn router(hub: Hub, scripts: &str) -> Router {
    let htmx = include_str!("htmx.html").replace("SCRIPTS", scripts);
    let turbo = include_str!("turbo.html").replace("SCRIPTS", scripts);
    let datastar = include_str!("datastar.html").replace("SCRIPTS", scripts);
    Router::new()
        .route("/htmx", get(Html(htmx)))
        .route("/turbo", get(Html(turbo)))
        .route("/datastar", get(Html(datastar)))
        .route("/{library}/events", get(events))
        .route("/datastar/events", get(datastar_events))
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

async fn datastar_events(
    State(hub): State<Hub>,
    last_event_id: LastEventId,
) -> Result<SseResponse, RegisterError> {
    let stream = hub.resume("datastar", &last_event_id)?;
    Ok(SseResponse::new(stream).view(Datastar).cursor(true))
}

struct Datastar;

impl View for Datastar {
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        chunks.push(frame.to_bytes());
        ControlFlow::Continue(())
    }

    fn gap(&mut self, _: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        let script = append("body", "<script>location.reload()</script>");
        chunks.push(Frame::encode(&script).expect("text").to_bytes());
        ControlFlow::Continue(())
    }
}

/// Has Datastar append HTML, which must be one line, to an element.
fn append(to: &str, html: &str) -> Text {
    let data = format!("selector {to}\nmode append\nelements {html}");
    Text::new(data).event("datastar-patch-elements")
}

async fn say(State(hub): State<Hub>, text: String) -> StatusCode {
    let item = format!("<li>{}</li>", escape(&text));
    // An event without a name: htmx swaps it in, Turbo does what it says.
    let turbo = format!(
        r#"<turbo-stream action="append" target="messages"><template>{item}</template></turbo-stream>"#
    );
    let sent = hub
        .broadcast("datastar", &append("#messages", &item))
        .and_then(|_| hub.broadcast("htmx", &Text::new(item)))
        .and_then(|_| hub.broadcast("turbo", &Text::new(turbo)));
    match sent {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// As HTML, on one line: to Datastar a line of data begins with what it is.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\r', "&#13;")
        .replace('\n', "&#10;")
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
