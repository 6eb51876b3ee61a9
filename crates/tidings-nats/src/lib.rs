//! A backplane of [`tidings`] over [NATS](https://nats.io), version 2.9 or newer.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use tidings_nats::async_nats::ConnectOptions;
//! use tidings_nats::{Log, Nats, Settings};
//!
//! let options = ConnectOptions::with_credentials("...")?.name("chat, node 1");
//! let settings = Settings::new("chat").replayable(Log::new("CHAT"));
//! let backplane = Nats::connect("nats://127.0.0.1:4222", options, settings).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Pass it to [`Builder::backplane`](tidings::Builder::backplane). The guide `cluster` in the documentation of
//! `tidings` says which level to choose and what it costs.
//!
//! # TLS
//!
//! A connection uses TLS if its address begins with `tls://`, the options say so, or the server asks for it. TLS needs
//! one of rustls's crypto providers, which the application chooses: if the features of a program include two of them
//! and none is installed, rustls panics. In its `Cargo.toml`:
//!
//! ```toml
//! # The features `ring` or `aws-lc-rs`, or `fips` for the latter. The version is that of `cargo tree -p async-nats`.
//! async-nats = { version = "0.51", default-features = false, features = ["aws-lc-rs"] }
//! ```
//!
//! or a call of `CryptoProvider::install_default` before the first connection. Without either, [`Nats::connect`] returns
//! [`ConnectError::NoCryptoProvider`], below the panic that async-nats prints; in a program that aborts on panics it aborts,
//! and with `retry_on_initial_connect` the panic is in async-nats's task. Without TLS no provider is needed.
//!
//! With Rust 1.85 Cargo selects async-nats 0.46, from 1.89 on newer versions.
//!
//! # Subjects
//!
//! Each user has a subject, `<scope>.live.<buckets>.<bucket>.<token>`. The token is the user's id: ASCII letters,
//! digits, `-` and `_` as they are, every other byte of its UTF-8 as `=` and two hexadecimal digits; an id that would
//! exceed 255 characters in this form is `==` and its SHA-256. Nodes meet on `<scope>.live.peers`.
//!
//! # Permissions
//!
//! A node subscribes to `<scope>.live.>` and its inbox, and publishes to the same and, with a log, to `<scope>.log.>`
//! and `$JS.API.>` (`$JS.<domain>.API.>` in a [domain](Log::domain)). Missing permissions are noticed:
//!
//! - A subscription counts only once a message sent to it has come back. The node checks this when it subscribes, after
//!   each reconnect, and about once a minute. A subscription that delivers nothing, for lack of a permission, because
//!   of the server's `max_subscriptions` or for any other reason, is [`Unheard`](tidings::backplane::Event::Unheard):
//!   its users' streams get a gap, a warning says why, and the node subscribes again after one second, then two, up to
//!   thirty.
//! - An event that may not be published, or is larger than the server or the stream allows, fails for good, without
//!   affecting others. At most once, nothing confirms an event, so a late refusal may revoke an earlier confirmation:
//!   on a busy machine about one in 250 refused events had been confirmed (one in 600 on an idle one). Such an event
//!   also counts as refused, and the user's streams on other nodes get a gap as soon as this node may publish again.
//!
//! NATS 2.9 has a fault here: after it reloads changed permissions, its streams receive no published messages until it
//! is restarted or another server leads. Nothing is lost, since nothing is accepted.
//!
//! With a log, a node briefly has up to four more subscriptions, each to read several messages with [one
//! request](#replayable). If `$JS.API.DIRECT.>` is denied, messages are read one by one, and one read a minute takes
//! two seconds longer.
//!
//! # At most once
//!
//! Events are plain messages. `publish` sends all of them. The node then sends itself a message, twice; when that has
//! come back, the server has handled everything before it, and `publish` returns. A node that was disconnected, or read
//! too slowly, reports that messages may be lost; after a disconnect it first drops those that it has not passed on, so
//! that none of them follows the gap that covers it. In a cluster of NATS servers a user is ready when the servers of all
//! other nodes know of the subscription: each has answered a request sent after it. Messages can still be lost between
//! two servers that lose their connection, which this crate cannot notice. If that matters, keep a log.
//!
//! # Replayable
//!
//! Messages go to a JetStream stream, which confirms each and forwards it to the nodes with its place in the log and
//! the place of the same user's previous message. A user is ready when the server that leads the stream knows of the
//! subscription.
//!
//! The epoch is derived from the stream's name and creation time, so that all nodes agree on it. A stream that has lost
//! messages (a disk was lost, an older copy restored) counts as another log: the node that notices writes
//! `tidings-epoch=1` into its description, which is part of the epoch. A stream that is deleted while nodes are
//! connected is created again. Both are noticed within about a second.
//!
//! In a cluster, a server that lacks messages of the others may answer for the stream: one that was just elected, one
//! that was stopped and still believes it is the leader, one that lost its disk. So a stream shorter than this node
//! remembers counts as another log only if one leader says so for ten seconds, or if it reaches the newest known place
//! with another message there; a server that names no leader is not believed. Until then streams go on: they get new
//! messages; a message at a known place counts as a duplicate; fetches wait; and an event acknowledged at a place that
//! another message has is not confirmed, but published again. If it is another log after all, every stream gets a gap.
//! About once a second the node compares the message that was the newest a second before; after each reconnect and each
//! change of the leader also those that were the newest since, 50 ms apart. Limit: if a server without the newest
//! messages is elected, and the stream grows past the last place this node knew, all within 50 ms of the first lost
//! message, the loss is silent.
//!
//! NATS 2.11 and newer send several messages for one request, from any server that has a copy of the stream. Such an
//! answer is valid as far as it goes and does not show the log's end. The stream must allow direct reads
//! (`allow_direct`), as streams created by this crate do; `nats stream edit --allow-direct` enables it on older ones.
//! Otherwise the node requests messages one by one. An answer has at most 257 messages, and ends with the one that
//! makes it 256 KB. With a [`subscription_capacity`](async_nats::ConnectOptions::subscription_capacity) below 257, an
//! answer can exceed that capacity, which is reported as [`Slow`](tidings::backplane::Cause::Slow). Limit: no server
//! should have a copy that lacks messages in the middle, or that differs only after the message that the leader has
//! also sent. Such a copy is not recognised.
//!
//! Each read of the log ends with a request for the stream's state, and counts only if the known leader answers that
//! request and has everything that this node knew. NATS does not say which server answered the read itself. If a server
//! that no longer leads answers the read, and the leader answers the request for the state, a replay can lack events
//! without a gap.
//!
//! # Operation
//!
//! | what happens | what is seen |
//! |---|---|
//! | replicas, age, number of messages or duplicate window of the stream are changed | a warning, once; the stream's settings hold |
//! | its subjects, its republishing or its retention are changed | an error in the log, and a gap; this broadcaster stops until that is undone, others go on |
//! | a node of the same scope has another level or number of buckets | the second one to start gets [`ConnectError::Disagreement`]; nodes that run log an error |
//! | the server cannot be reached when a node starts, or the stream has no leader | [`ConnectError::Connect`] or [`Log`](ConnectError::Log), or a wait: [`Settings::wait_for_server`] |
//! | the credentials are revoked | the connection ends, `stats().backplane.connected` is false, and async-nats tries again for ever |
//! | TLS is asked for and the server has none | [`ConnectError::Connect`] |
//! | a server is killed with `sync_interval` at its default of two minutes | a single server may lose what it confirmed since the last sync when its machine loses power, not when its process is killed; with [replicas](Log::replicas), the others have it |
//!
//! Nodes of one scope must agree on the level and on the number of buckets. To change either, stop all nodes and start
//! them with the new setting; clients reconnect, and get a gap if their id is from another log. During a rolling
//! restart into a new scope, nodes of the old and of the new scope do not receive each other's events until the last
//! one has moved. All other settings may differ between nodes, so a rolling restart changes them.

// The program on the README compiles.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod adapter;
mod batch;
mod connection;
mod error;
mod feeds;
mod fence;
mod fetch;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod interest;
mod known;
mod link;
mod live;
mod log;
mod peers;
mod settings;
mod signals;
mod stream;
mod subjects;
mod token;
mod verify;

pub use adapter::Nats;
/// The client, in the version whose types this crate's functions use.
pub use async_nats;
pub use connection::Connection;
pub use error::ConnectError;
pub use settings::{Interest, Log, Settings, Storage};
