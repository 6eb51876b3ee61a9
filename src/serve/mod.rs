//! Serving streams to clients that stall, vanish or dawdle.
//!
//! Clients that do nothing hold up a server of many open streams: one that stops reading fills megabytes of buffers and keeps
//! its stream alive for good, one that vanishes without closing looks like an idle connection, and each keeps a graceful
//! shutdown from returning. This module disconnects them. It serves any axum `Router` or tower service. Of the rest of the
//! crate it uses only what the stream of a response has to say: its end, and its events.
//!
//! | | [`listener`] under `axum::serve` | [`serve`] |
//! |---|---|---|
//! | a client that does not read: cut after the [stall limit](StallListener::stall_limit) | yes | yes |
//! | a client that does not read, once its stream was ended from outside or by its deadline: cut a quarter of a second later | no | yes |
//! | a client that vanished: found by [TCP keep-alive](TcpKeepAlive) | yes | yes |
//! | `TCP_NODELAY`, a bounded send buffer | yes | yes |
//! | a request head that does not come: cut after the [header read time-out](Server::header_read_timeout) | no | yes |
//! | a client that disconnects after sending more than its request: noticed | at the next write | yes |
//! | HTTP/2 streams whose client withholds the window: reset after the stall limit | no | yes, feature `http2` |
//! | HTTP/2 connections without a stream: closed after 90 s, or `Server::http2_idle_timeout` | no | yes, feature `http2` |
//! | a shutdown that ends by a [deadline](Server::drain) whatever clients do, also on upgraded connections | no | yes |
//! | an HTTP/1.1 stream is sent without hyper: no buffers of its own, fewer steps for an event | no | yes |
//! | the [streams of one user](#one-writer-for-each-user) are written to by one task | no | yes, HTTP/1.1 |
//! | the peer's address for handlers (`ConnectInfo`) | see [`StallListener`] | yes |
//!
//! A quiet client is never cut: the limits apply only while the client does not take bytes that the server has to send. One
//! that sends more than 8 KiB after its request, while its stream is open, is cut as well ([why](crate::guide::http)).
//!
//! A stream is over when it was ended from outside ([`disconnect_user`](crate::GenericBroadcaster::disconnect_user),
//! [`unregister`](crate::GenericBroadcaster::unregister), a [`sweep`](crate::GenericBroadcaster::sweep), the end of a
//! [`shutdown`](crate::GenericBroadcaster::shutdown)) or its [`deadline`](crate::Subscription::deadline) has passed. A client
//! that reads the rest within a quarter of a second sees a proper end, with HTTP/1 on a connection that may be used again.
//! Otherwise its socket is closed, or with HTTP/2 its stream reset; the connection is closed too if it has no other stream
//! and the client reads nothing at all. [`serve`] learns this from the extensions of the response, a
//! [`Subscription`](crate::Subscription) or [`SseResponse`](crate::sse::SseResponse): middleware must leave them as they are.
//! `axum::serve` does not look there: under it, and with responses built by hand, the stall limit applies to streams that are
//! over as to all others. It also applies to streams that end by themselves, [drained](crate::GenericBroadcaster::drain_user)
//! ones included, since the client shall get their last events.
//!
//! # One writer for each user
//!
//! One task writes an event to up to 256 streams of a user, instead of the task of each. It puts the same bytes on each
//! socket, so that an event costs little more than the system calls that send it, and no stream waits to be polled until the
//! ring has overwritten what it was woken for. Waiting for a client that does not read is left to the task of its own stream,
//! and delays no other.
//!
//! Events of 32 KB and more are written by the task of each stream, since their bytes are not copied.
//!
//! This applies to HTTP/1.1 streams whose clients get every event as it is: not to those with a [view](crate::sse::View) or a
//! closure, and not where there is a [backplane](crate::backplane). Nor does it apply where a layer of yours changes, limits or times
//! what passes through the body of the response. The server detects such layers by the size hint of the body, which they do
//! not pass on, and by the address of the bytes that arrive. It cannot detect a layer that passes
//! on both the size hint and the frames as they are, such as one that counts, times or drops some
//! frames, or changes some in place. Such a layer sees only the first frames and those that the
//! stream's own task writes. For these, switch it off with [`Server::shared_writes`].
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use tidings::serve::{bind, serve};
//!
//! # async fn run() -> std::io::Result<()> {
//! let app = Router::new().route("/", get(|| async { "hello" }));
//! let drained = serve(bind("0.0.0.0:3000").await?, app)
//!     .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.expect("a handler for the signal") })
//!     .await;
//! println!("{} connections had to be cut", drained.aborted);
//! # Ok(())
//! # }
//! ```
//!
//! [`bind`] has a longer backlog than tokio's `TcpListener::bind`; [`serve`] takes such a listener as well. Under
//! [`axum::serve()`] instead, it is one line:
//!
//! ```no_run
//! # async fn run(app: axum::Router) -> std::io::Result<()> {
//! let tcp = tokio::net::TcpListener::bind("0.0.0.0:3000").await?;
//! axum::serve(tidings::serve::listener(tcp), app).await?;
//! # Ok(())
//! # }
//! ```

mod app;
mod attendants;
mod connection;
mod grace;
mod guard;
mod handover;
#[cfg(feature = "http2")]
mod http2;
mod leash;
mod listener;
mod pass;
mod patience;
mod phase;
mod rewind;
mod server;
mod stalls;
mod stream;
mod tcp;

pub use app::App;
pub use guard::StallGuard;
pub use listener::{StallListener, bind, listener};
pub use server::{Drained, Server, ServerFuture, serve};
pub use stalls::Stalls;
pub use tcp::TcpKeepAlive;
