//! A client of event streams for a service's own tests, which reports events, gaps and time-outs. [`backplane`] has a
//! test suite for backplanes, and an engine in memory.
//!
//! An [`SseRequest`] opens a stream, on a service in the same process ([`open`](SseRequest::open): an axum `Router`, or
//! any tower service) or on a socket ([`connect`](SseRequest::connect)). The [`SseClient`] reads it as WHATWG HTML,
//! section 9.2, prescribes. It reads only while one of its methods waits: until then, events stay in the service.
//!
//! # In the process, with the clock paused
//!
//! No port, no thread, and silence takes no time: in a test, use `#[tokio::test(start_paused = true)]` and tokio's
//! feature `test-util`. If nothing in the process can end a wait, the clock jumps to the next timer: one of the
//! service, such as its keep-alive, or else the [bound](SseRequest::within) of the wait, as a test wants. A bound
//! shorter than the service's own timers comes first.
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::{Router, extract::State, routing::get};
//! use tidings_testkit::{Item, SseRequest};
//! use tidings::{GenericBroadcaster, History, LastEventId, RegisterError, Subscription, Text};
//!
//! type Hub = GenericBroadcaster<Text>;
//!
//! async fn stream(State(hub): State<Hub>, last: LastEventId) -> Result<Subscription, RegisterError> {
//!     hub.resume("ann", &last)
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     tokio::time::pause();
//!     let hub = Hub::builder().history(History::new(10)).build()?;
//!     let app = Router::new().route("/events", get(stream)).with_state(hub.clone());
//!
//!     let mut client = SseRequest::get("/events").open(app).await?;
//!     hub.broadcast("ann", &Text::new("hello").event("greeting"))?;
//!     let greeting = client.next().await;
//!     assert_eq!((&*greeting.event, &*greeting.data), ("greeting", "hello"));
//!
//!     // A minute takes no time. Keep-alives are comments, and do not break the silence.
//!     client.assert_silent_for(Duration::from_secs(60)).await;
//!     assert_eq!(client.next_item().await, Item::Comment(String::new()));
//!
//!     // Reconnects with the id of the last event that it saw.
//!     client.disconnect();
//!     hub.broadcast("ann", &Text::new("missed you"))?;
//!     client.reconnect().await?;
//!     assert_eq!(client.next().await.data, "missed you");
//!     client.assert_no_gap();
//!     Ok(())
//! }
//! ```
//!
//! # Over TCP
//!
//! The client speaks HTTP/1.1 on its own socket, without a task and without reading ahead. Do not pause the clock here:
//! a paused clock does not wait for sockets, so bounds pass immediately. The error then says so.
//!
//! ```
//! use axum::{Router, extract::State, routing::get};
//! use tidings_testkit::SseRequest;
//! use tidings::serve::{bind, serve};
//! use tidings::{GenericBroadcaster, RegisterError, Subscription, Text};
//!
//! type Hub = GenericBroadcaster<Text>;
//!
//! async fn stream(State(hub): State<Hub>) -> Result<Subscription, RegisterError> {
//!     hub.register("ann")
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let hub = Hub::new();
//!     let app = Router::new().route("/events", get(stream)).with_state(hub.clone());
//!     let listener = bind("127.0.0.1:0").await?;
//!     let addr = listener.local_addr()?;
//!     tokio::spawn(async move { serve(listener, app).await });
//!
//!     let mut client = SseRequest::get("/events").connect(addr).await?;
//!     hub.broadcast("ann", &Text::new("one"))?;
//!     hub.broadcast("ann", &Text::new("two"))?;
//!     let both = client.collect(2).await;
//!     assert_eq!([&*both[0].data, &*both[1].data], ["one", "two"]);
//!
//!     hub.drain_user("ann");
//!     client.expect_end().await;
//!     Ok(())
//! }
//! ```
//!
//! # Clients that do not read
//!
//! [`SseClient::stall`] stops reading and keeps the connection open. What the service sends accumulates: over TCP in
//! the buffers of the two sockets ([`receive_buffer`](SseRequest::receive_buffer) makes the client's small), then in
//! the service.

pub mod backplane;
mod client;
mod decoder;
mod error;
mod http1;
mod message;
mod request;
mod tcp;
mod transport;
mod wait;

pub use client::{SseClient, Stalled};
pub use decoder::Decoder;
pub use error::SseError;
pub use message::{Item, Message, SeenGap};
pub use request::SseRequest;
