//! Serving streams to clients that stall, vanish or dawdle.
//!
//! A server of many open streams is held up by clients that do nothing: one that stops reading fills megabytes of
//! buffers and keeps its stream alive for good, one that vanished without a word is a connection that looks idle, and
//! each of them keeps a graceful shutdown from returning. This module ends them. It serves any axum `Router` or tower service,
//! and knows of the rest of the crate only whether the stream of a response is over.
//!
//! | | [`listener`] under `axum::serve` | [`serve`] |
//! |---|---|---|
//! | a client that does not read: cut after the [stall limit](StallListener::stall_limit) | yes | yes |
//! | a stream that was ended from outside, or by its deadline, of a client that does not read: cut a quarter of a second later | no | yes |
//! | a client that vanished: found by [TCP keep-alive](TcpKeepAlive) | yes | yes |
//! | `TCP_NODELAY`, a bounded send buffer | yes | yes |
//! | a request head that does not come: cut after the [header read time-out](Server::header_read_timeout) | no | yes |
//! | a client that disconnects after sending more than its request: noticed | at the next write | yes |
//! | HTTP/2 streams whose client withholds the window: reset after the stall limit | no | yes, feature `http2` |
//! | HTTP/2 connections without a stream: closed after 90 s, or `Server::http2_idle_timeout` | no | yes, feature `http2` |
//! | a shutdown that ends by a [deadline](Server::drain) whatever clients do, also on upgraded connections | no | yes |
//! | an HTTP/1.1 stream is sent without hyper: no buffers of its own, fewer steps for an event | no | yes |
//! | the [streams of one user](#many-streams-of-one-user) are written to by one task | no | yes, HTTP/1.1 |
//! | the peer's address for handlers (`ConnectInfo`) | see [`StallListener`] | yes |
//!
//! A quiet client is never cut: all of it is about bytes that the server wants to send and the client does not take. One that
//! sends more than 8 KiB after its request, while its stream is open, is cut as well ([why](crate::guide::http)).
//!
//! A stream is over when it was ended from outside ([`disconnect_user`](crate::GenericBroadcaster::disconnect_user),
//! [`unregister`](crate::GenericBroadcaster::unregister), a [`sweep`](crate::GenericBroadcaster::sweep), the end of a
//! [`shutdown`](crate::GenericBroadcaster::shutdown)) or its [`deadline`](crate::Subscription::deadline) has passed. A client
//! that takes what is on its way within a quarter of a second sees a proper end, at HTTP/1 on a connection that may be used
//! again. From one that does not, the socket is taken, or with HTTP/2 the stream; the connection goes too if it has no other
//! stream and is not read at all. [`serve`] sees that in the response, a [`Subscription`](crate::Subscription) or
//! [`SseResponse`](crate::sse::SseResponse), whose extensions middleware must leave as they are. `axum::serve` does not look
//! there: behind it, and with responses built by hand, the stall limit applies to these as to all others. It also applies
//! to streams that end by themselves, [drained](crate::GenericBroadcaster::drain_user) ones included, since their last events
//! are worth waiting for.
//!
//! # Many streams of one user
//!
//! As soon as a user has eight streams, an event is written to further ones by a task that serves up to 256 of them, instead of
//! by the task of each. It puts the same bytes on each socket, so that an event costs little more than the system calls which send
//! it, and no stream waits for its turn until the ring has overwritten what it was woken for. A client that does not read is
//! waited for by the task of its own stream, and holds up nobody.
//!
//! This applies to HTTP/1.1 streams whose clients get every event as it is: not to those with a [view](crate::sse::View) or a
//! closure, and not where there is a [backplane](crate::backplane). Nor does it apply where a layer of yours changes, limits or times
//! what passes through the body of the response. The server sees that by the size hint of the body, which such layers do not pass
//! on, and by the address of the bytes that arrive. It does not see a layer that passes on the size hint, and passes on frames as they
//! are: one that only watches sees the first frames and what the stream writes itself, and one that drops some frames, changes some
//! in place, or measures the time between them is left out too. Switch it off for these, with [`Server::shared_writes`].
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
//! [`bind`] has a longer backlog than tokio's `TcpListener::bind`; [`serve`] takes such a listener as well. Behind
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
mod connection;
mod crowd;
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
