//! A page of one origin that reads streams of another, with its cookies.
//!
//!     cargo run -p cors -- 127.0.0.1:3000 http://localhost:8080
//!
//! On the page: `new EventSource("http://127.0.0.1:3000/events/ann", { withCredentials: true })`. Without
//! `withCredentials` no cookie is sent, and without `Access-Control-Allow-Credentials` in the answer the browser keeps the
//! stream from the page. With credentials a browser takes no `*`, so the origins are named.
//!
//! An `EventSource` is a simple request: it asks for no permission beforehand, and `Last-Event-ID` needs none. Clients that
//! use `fetch`, to send a token, need `Authorization` and `Last-Event-ID` in the allowed headers; the browser remembers the
//! preflight's answer for `max_age`.
//!
//! CORS decides which *pages* may read the answer. It keeps out no other client: see the example `auth` for that.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::routing::get;
use tidings::{GenericBroadcaster, LastEventId, RegisterError, Subscription, Text};
use tower_http::cors::{AllowOrigin, CorsLayer};

type Hub = GenericBroadcaster<Text>;

pub(crate) fn router(hub: Hub, origins: Vec<HeaderValue>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
        ])
        .max_age(Duration::from_secs(3600));
    Router::new()
        .route("/events/{user}", get(stream).post(send))
        .layer(cors)
        .with_state(hub)
}

// The user stands in the path to keep the example to its question; see `auth`.
async fn stream(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    last_event_id: LastEventId,
) -> Result<Subscription, RegisterError> {
    hub.resume(user, &last_event_id)
}

async fn send(State(hub): State<Hub>, Path(user): Path<String>, text: String) -> String {
    match hub.broadcast(&user, &Text::new(text)) {
        Ok(reached) => format!("reached {reached} streams\n"),
        Err(error) => format!("not sent: {error}\n"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:3000".into());
    let mut origins = args
        .map(|origin| origin.parse())
        .collect::<Result<Vec<HeaderValue>, _>>()?;
    if origins.is_empty() {
        origins.push(HeaderValue::from_static("http://localhost:8080"));
    }
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("cors listens on http://{}", listener.local_addr()?);
    println!("for pages of {origins:?}");
    axum::serve(
        tidings::serve::listener(listener),
        router(Hub::new(), origins),
    )
    .await?;
    Ok(())
}
