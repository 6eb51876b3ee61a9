//! Responses are compressed, streams are not.
//!
//!     cargo run -p compression
//!
//! tower-http's `CompressionLayer` leaves `text/event-stream` alone: its `DefaultPredicate` excludes that type, besides gRPC,
//! images and bodies of less than 32 bytes. So a choice of your own should begin with the default one, as here. The
//! `cache-control: no-transform` of a stream is for proxies; the layer does not look at it.
//!
//! A compressor buffers bytes until compressing them pays, and an event in its buffer does not arrive. Version 0.7 passes on
//! what it has when nothing more is ready, older ones and other compressors may not. Even then little is gained: events are
//! small, the smallest grow by it, and what they have in common is known only to a compressor that keeps its state for each
//! stream, some hundreds of kilobytes for gzip. To send less, send smaller events.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use tidings::{GenericBroadcaster, RegisterError, Subscription, Text};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};

type Hub = GenericBroadcaster<Text>;

pub(crate) fn router(hub: Hub) -> Router {
    let worth_it = DefaultPredicate::new().and(SizeAbove::new(1024));
    routes(hub).layer(CompressionLayer::new().compress_when(worth_it))
}

pub(crate) fn routes(hub: Hub) -> Router {
    Router::new()
        .route("/", get(source))
        .route("/events/{user}", get(stream).post(send))
        .with_state(hub)
}

/// Something to compress.
async fn source() -> &'static str {
    include_str!("main.rs")
}

// The user stands in the path to keep the example to its question; see `auth`.
async fn stream(
    State(hub): State<Hub>,
    Path(user): Path<String>,
) -> Result<Subscription, RegisterError> {
    hub.register(user)
}

async fn send(State(hub): State<Hub>, Path(user): Path<String>, text: String) -> String {
    match hub.broadcast(&user, &Text::new(text)) {
        Ok(reached) => format!("reached {reached} streams\n"),
        Err(error) => format!("not sent: {error}\n"),
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:3000");
    let listener = tokio::net::TcpListener::bind(address).await?;
    let base = format!("http://{}", listener.local_addr()?);
    println!("compression listens on {base}\n");
    println!("  curl -N -i --compressed {base}/events/ann");
    println!("  curl -d hello {base}/events/ann");
    println!("  curl -I -X GET --compressed {base}/");
    axum::serve(tidings::serve::listener(listener), router(Hub::new())).await
}
