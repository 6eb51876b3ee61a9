//! Per-user event fan-out over [server-sent events][sse]: a service calls [`broadcast`] with a user and an event, and
//! every stream that user has open gets the event, encoded once, in order, with no lock on the way to the user's
//! channel.
//!
//! ```no_run
//! use axum::{Router, extract::{Path, State}, routing::{get, post}};
//! use tidings::{Hub, RegisterError, Subscription, Text};
//!
//! async fn stream(State(hub): State<Hub<Text>>, Path(user): Path<String>) -> Result<Subscription, RegisterError> {
//!     hub.register(user)
//! }
//!
//! async fn send(State(hub): State<Hub<Text>>, Path(user): Path<String>, text: String) -> String {
//!     match hub.broadcast(&user, &Text::new(text)) {
//!         Ok(reached) => format!("reached {reached} streams\n"),
//!         Err(error) => format!("not sent: {error}\n"),
//!     }
//! }
//!
//! # async fn run() -> std::io::Result<()> {
//! let app = Router::new()
//!     .route("/events/{user}", get(stream))
//!     .route("/events/{user}", post(send))
//!     .with_state(Hub::new());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! axum::serve(listener, app).await
//! # }
//! ```
//!
//! A service whose clients can reconnect without losing events, and cannot hold up the server or its shutdown:
//!
//! ```no_run
//! # #[cfg(feature = "serve")]
//! # mod service {
//! use std::time::Duration;
//!
//! use axum::{Router, extract::{Path, State}, routing::get};
//! use tidings::{History, Hub, LastEventId, RefusalForm, RegisterError, Subscription, Text};
//! use tidings::serve::{bind, serve};
//!
//! async fn stream(
//!     State(hub): State<Hub<Text>>,
//!     Path(user): Path<String>,
//!     last_event_id: LastEventId,
//! ) -> Result<Subscription, RegisterError> {
//!     hub.resume(user, &last_event_id)
//! }
//!
//! async fn run() -> Result<(), Box<dyn std::error::Error>> {
//!     let hub: Hub<Text> = Hub::builder()
//!         .history(History::new(500))
//!         .when_full(RefusalForm::ComeBack) // browsers give up for good on 429
//!         .sweep_every(Duration::from_secs(1))
//!         .build()?;
//!     let app = Router::new().route("/events/{user}", get(stream)).with_state(hub.clone());
//!     let drain = async move {
//!         let _ = tokio::signal::ctrl_c().await;
//!         hub.shutdown(Duration::from_secs(5)).await;
//!     };
//!     serve(bind("127.0.0.1:3000").await?, app).with_graceful_shutdown(drain).await;
//!     Ok(())
//! }
//! # }
//! ```
//!
//! # Start here
//!
//! | item | what it is |
//! |---|---|
//! | [`Hub`], or [`GenericBroadcaster`] | sends events to users |
//! | [`Builder`] | ring, history, caps, sweeps, backplane |
//! | [`ToSse`], [`JsonEvent`], [`Text`] | what can be sent |
//! | [`Subscription`] | one client's stream: a response, and a `Stream` of frames |
//! | [`History`], [`LastEventId`] | clients that reconnect and resume |
//! | [`Gap`], [`LagPolicy`] | the report of events that a client missed, and what its stream does then |
//! | [`RegisterError`], [`RefusalForm`] | a refused connection, and the form in which the client sees it |
//! | [`EndReason`] | why a stream ended |
//! | [`Presence`] | reports of users who come and leave |
//! | `serve` | a server that times out stalled and vanished clients |
//! | [`backplane`] | events between several nodes |
//! | `guide` | one page per question, from the first steps to assurance |
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `axum` | yes | [`Subscription`] and [`RegisterError`] as responses, `sse::SseResponse`, axum's own `Sse` from a subscription |
//! | `serve` | yes | `serve`: a server, and a listener for `axum::serve`, both of which time out stalled and vanished clients |
//! | `http2` | no | HTTP/2 for that server, with the same promise for each stream |
//! | `metrics` | no | [`metrics`]: all counts, through the crate `metrics`, for Prometheus and others |
//! | `agents` | no | `protocol`: events as types: AG-UI 1.0 (crate `tidings-agui`), A2A 1.0 and bodies of 0.3, the application's own; broadcasters for AG-UI, A2A, context (both, with the application's own) and analytics, which `EventRouter` feeds |
//!
//! # How it works
//!
//! Each connected user has a channel: a ring of the newest events ([`tokio::sync::broadcast`]) and a roster of the
//! connections that read it. The map from user to channel is a persistent hash map in shards, each behind an
//! [`ArcSwap`](arc_swap): a broadcast loads a snapshot, finds the channel, encodes the event and puts it into the ring.
//! Each stream reads it from there at its own pace; all streams send the same shared bytes.
//!
//! # What is guaranteed
//!
//! - An event broadcast after [`register`] returned reaches that stream, or is counted as its lag.
//! - A stream gets its user's events in the order in which they were broadcast, each at most once.
//! - Dropping a [`Subscription`] removes its connection, exactly once, in any thread and without a runtime; the last
//!   one removes the user.
//! - A closed channel never opens again, and there is at most one open channel per user.
//! - The caps ([`connections_per_user`], [`total_connections`]) are exact even when many clients connect at the same
//!   time. A full cap refuses the newcomer and never ends an existing connection.
//! - A frame is exactly one event. No field can inject a line into another; a field that cannot be written is a typed
//!   error.
//! - An event that cannot be encoded, or panics, fails only the call it was passed to.
//! - A [`sweep`] disconnects a client that has stopped reading, after which it takes no memory in the broadcaster; the
//!   module `serve` closes its socket.
//! - A [`shutdown`] ends every stream after the events broadcast before, and spreads the ends and the reconnects over
//!   time.
//! - With a [`History`], what a client saw plus what its [gaps](Gap) reported is exactly what was broadcast, however
//!   often it reconnected ([`resume`]).
//!
//! [loom] models run the real sources through the interleavings behind these, and deliberate faults check that the
//! models notice.
//!
//! # What is not guaranteed
//!
//! - Without a [`History`], an event is lost if the connection it was on its way to breaks. A history is in this
//!   process's memory: a restart loses it, and clients that reconnect get a gap.
//! - A stream that falls further behind than the [ring][`ring_capacity`] and the history reach
//!   loses the oldest events, unless nodes share a log that has them. Its [`LagPolicy`] decides how
//!   the loss is reported, and the lost events are counted: for the connection, for its user and in
//!   [`Stats::lagged`].
//! - Not everything is lock-free. The map of users, each user's list of connections and the caps are: registering, leaving
//!   and broadcasting read and change them by loads and compare-and-swap loops on `ArcSwap` and atomics. But a user's
//!   ring, tokio's, takes its own mutexes when a stream joins, leaves or receives and when an event is sent, and one of
//!   ours within them. With a history, or keys to coalesce by, one more lock per user orders the offsets; with streams
//!   that share a writer, one more lists the streams to wake. Each connection has three: the cell of its receiving side,
//!   which other threads only try to lock, its queue of ephemeral events, and the waker of the task that writes it. These
//!   are not shared between users. While there is a [`presence`] stream, each connection that comes or leaves locks its
//!   list of users to look at, and a [backplane](Builder::backplane) keeps queues and lists of users in shards. No code
//!   of the service runs under any of these: events are encoded before, streams are woken and old events dropped after.
//! - Without a [`backplane`](Builder::backplane), events do not reach users of another process. With one, its
//!   [level](backplane::Level) says what is guaranteed between processes.
//!
//! # Memory
//!
//! A connected user costs 4.3 KB of heap with one connection, at the default capacity of 64 and before the first event,
//! and 0.45 KB more with each further connection, besides what HTTP needs (on 64-bit Linux, by `cargo bench --bench
//! memory`). Without a history, users who are not connected cost nothing. The events in the ring come on top, until all
//! of the user's streams have read them: at most `ring_capacity` frames per user. [`History`] says what a history
//! costs.
//!
//! # Security
//!
//! The crate authenticates nobody: it delivers to the user that the service names. A handler must take the user from a
//! session or a verified token, never from a path, a query or a body. Given that, users do not get each other's events,
//! whatever names, ids or `Last-Event-ID` clients send; no field of an event can forge another; clients that do
//! nothing, or too much, cost bounded memory and time. The crate has no `unsafe` code. `guide::security` says what is
//! defended, what is not, and which limits apply by default; `guide::assurance` lists the tests, models and fuzz
//! targets for each promise.
//!
//! # Without axum
//!
//! With no feature enabled, the crate works with any HTTP server: [`SseBody`] is an [`http_body::Body`].
//!
//! [sse]: https://html.spec.whatwg.org/multipage/server-sent-events.html
//! [loom]: https://docs.rs/loom
//! [`broadcast`]: GenericBroadcaster::broadcast
//! [`sweep`]: GenericBroadcaster::sweep
//! [`shutdown`]: GenericBroadcaster::shutdown
//! [`presence`]: GenericBroadcaster::presence
//! [`register`]: GenericBroadcaster::register
//! [`resume`]: GenericBroadcaster::resume
//! [`unregister`]: GenericBroadcaster::unregister
//! [`ring_capacity`]: Builder::ring_capacity
//! [`connections_per_user`]: Builder::connections_per_user
//! [`total_connections`]: Builder::total_connections

// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(loom))))]
// The program on the README's first page compiles.
#![cfg_attr(all(doctest, feature = "axum"), doc = include_str!("../README.md"))]
// The models leave out what they do not check: the broadcaster and HTTP.
#![cfg_attr(all(test, loom), allow(dead_code, unreachable_pub))]

#[cfg(not(all(test, loom)))]
pub mod backplane;
#[cfg(not(all(test, loom)))]
mod broadcaster;
mod channel;
mod end;
mod error;
mod event;
mod frame;
#[cfg(all(fuzzing, not(loom)))]
#[doc(hidden)]
pub mod fuzzing;
mod gap;
#[cfg(all(any(doc, doctest), feature = "serve"))]
pub mod guide;
mod id;
pub mod metrics;
mod position;
#[cfg(all(feature = "agents", not(loom)))]
pub mod protocol;
mod registry;
#[cfg(all(feature = "agents", not(loom)))]
mod router;
#[cfg(all(feature = "serve", not(loom)))]
pub mod serve;
#[cfg(not(all(test, loom)))]
pub mod sse;
mod subscription;
mod sync;
#[cfg(not(all(test, loom)))]
mod time;
mod trace;

#[doc(inline)]
pub use self::metrics::{BackplaneStats, Stats};
#[cfg(not(all(test, loom)))]
pub use broadcaster::{
    Broadcaster, Builder, ConnectionInfo, EventSender, GenericBroadcaster, Hub, Presence,
    PresenceStream, PublishError, Publisher, Reach,
};
pub use channel::History;
pub use end::EndReason;
pub use error::{
    BroadcastError, ConfigError, EncodeError, Field, HoldError, RefusalForm, RegisterError,
    RelayError,
};
pub use event::{Attachment, Data, JsonEvent, Meta, Text, ToSse};
pub use frame::Frame;
pub use gap::{Gap, GapReason};
pub use id::{ConnectionId, EventId, LastEventId, UserId};
#[cfg(all(feature = "agents", not(loom)))]
pub use router::{
    A2A_BROADCASTER, A2ABroadcaster, AGUI_BROADCASTER, ANALYTICS_BROADCASTER, AgUiBroadcaster,
    AnalyticsBroadcaster, CONTEXT_BROADCASTER, ContextBroadcaster, EventRouter, EventRouterBuilder,
    Routed,
};
#[cfg(not(all(test, loom)))]
#[doc(inline)]
pub use sse::{
    AGENT_HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL, HEARTBEAT_JSON, KeepAlive, SseBody,
    standard_keep_alive,
};
pub use subscription::{ConnectionGuard, Hold, LagPolicy, Subscription};
pub use trace::{ParseTraceParentError, TraceParent};

#[cfg(all(test, loom))]
use loom_tests::backplane;
#[cfg(all(test, loom))]
#[path = "../loom_tests/mod.rs"]
mod loom_tests;
