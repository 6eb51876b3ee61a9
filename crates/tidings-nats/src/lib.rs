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
//! [`Builder::backplane`](tidings::Builder::backplane) takes it. The guide `cluster` in the documentation of `tidings` says which
//! level to choose and what it costs.
//!
//! # TLS
//!
//! A connection takes TLS if its address begins with `tls://`, the options say so, or the server asks for it. TLS needs one of
//! rustls's crypto providers, and which is the application's choice: two of them among the features of one program make
//! rustls panic unless one is installed. In its `Cargo.toml`:
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
//! Cargo takes async-nats 0.46 for Rust 1.85, and newer ones from 1.89 on.
//!
//! # Subjects
//!
//! Each user has a subject, `<scope>.live.<buckets>.<bucket>.<token>`. The token is the user's id: ASCII letters, digits, `-`
//! and `_` as they are, every other byte of its UTF-8 as `=` and two hexadecimal digits; an id that would be longer than 255
//! characters so is `==` and its SHA-256. Nodes meet on `<scope>.live.peers`.
//!
//! # Permissions
//!
//! A node subscribes to `<scope>.live.>` and its inbox, and publishes to the same and, with a log, to `<scope>.log.>` and
//! `$JS.API.>` (`$JS.<domain>.API.>` in a [domain](Log::domain)). What it may not do is noticed:
//!
//! - A subscription counts only when something that was sent to it has come back, which is tried when it is made, after each
//!   reconnect, and about once a minute. One that brings nothing, for lack of a permission, beyond the server's
//!   `max_subscriptions` or for any other reason, is [`Unheard`](tidings::backplane::Event::Unheard): its users' streams get a
//!   gap, a warning says why, and it is made again after one second, then two, up to thirty.
//! - An event that may not be published, or is larger than the server or the stream takes, fails alone, for good. At most
//!   once, nothing confirms an event, and a refusal that comes late takes back what was said before: on a busy machine about one
//!   in 250 refused events had been confirmed (one in 600 on an idle one). The event counts as refused then as well, and the
//!   user's streams on other nodes get a gap as soon as this node may publish again.
//!
//! NATS 2.9 has a fault there: when it reads changed permissions again, its streams no longer hear what is published, until
//! it is restarted or another server leads. Nothing is lost, since nothing is accepted.
//!
//! With a log, a node briefly has up to four more subscriptions, each to read several messages in [one answer](#replayable). If
//! `$JS.API.DIRECT.>` is denied, messages are read one by one, and one read a minute takes two seconds longer.
//!
//! # At most once
//!
//! Plain messages. `publish` sends all of them. The node then sends itself a message, twice; when it is back, the server has
//! handled everything before it, and `publish` returns. A node that was disconnected, or too slow to read, reports that
//! messages may be lost. In a cluster of NATS servers a user is ready when the servers of all other nodes know of the
//! subscription: each has answered a question that was asked after it. Messages can still be lost between two servers that
//! lose their connection, which cannot be seen from here. Where that matters, keep a log.
//!
//! # Replayable
//!
//! Messages go to a stream of JetStream, which confirms each and sends it on to the nodes with its place in the log and that
//! of the same user's message before. A user is ready when the server that leads the stream knows of the subscription.
//!
//! The epoch is made of the stream's name and the time of its creation, so that all nodes agree on it. A stream that comes
//! back without messages that it had (a disk was lost, an older copy restored) counts as another log: the node that finds it
//! writes `tidings-epoch=1` into its description, which is part of the epoch. A stream that is deleted while nodes
//! are connected is made again; both are noticed within about a second.
//!
//! In a cluster, a server may answer for the stream that lacks messages which the others have: one that has been elected a
//! moment ago, one that was stopped and takes itself for the leader, one that lost its disk. So a stream that is shorter
//! than this node knows it is another log only if one leader says so for ten seconds, or if it reaches the newest known
//! place with another message there; a server that names no leader is not believed. Until then streams go on: they get what
//! is new; what has a known place counts as a duplicate; fetches wait; and an event is not confirmed, but published again,
//! if it was acknowledged at a place that another message has. If it is another log after all, every stream gets a gap.
//! About once a second the message is compared that was the newest a second before, and after each reconnect and each change
//! of the leader also those that were the newest since, 50 ms apart. Limit: if a server without the newest messages is elected,
//! and the stream grows past what this node knew, all within 50 ms of the first lost message, the loss is silent.
//!
//! NATS 2.11 and newer send several messages for one question, from any server that has a copy of the stream. Such an answer
//! counts as far as it goes and says nothing of the log's end; the stream must allow direct reads (`allow_direct`), as those do
//! that this crate makes. `nats stream edit --allow-direct` adds it to older ones. Otherwise the messages are asked for one by
//! one. An answer has at most 257 messages, and ends with the one that makes it 256 KB. With a
//! [`subscription_capacity`](async_nats::ConnectOptions::subscription_capacity) below 257, it can exceed that, which is reported as
//! [`Slow`](tidings::backplane::Cause::Slow). Limit: no server should have a copy that lacks messages in between, or that differs
//! only after the message that the leader has sent too. Such a copy is not recognized.
//!
//! Each read of the log ends with a question about the stream, and counts only if the known leader answers that one and has
//! everything that this node knew. NATS does not say which server answered the read itself. If a server that no longer leads
//! answers the read, and the leader the question, a replay can lack events without a gap.
//!
//! # Operation
//!
//! | what happens | what is seen |
//! |---|---|
//! | replicas, age, number of messages or duplicate window of the stream are changed | a warning, once; the stream's settings hold |
//! | its subjects, its republishing or its retention are changed | an error in the log, and a gap; this broadcaster stops until that is undone, others go on |
//! | a node of the same scope has another level or number of buckets | the second one to start gets [`ConnectError::Disagreement`]; nodes that run log an error |
//! | the server is not there when a node starts, or nobody leads the stream | [`ConnectError::Connect`] or [`Log`](ConnectError::Log), or a wait: [`Settings::wait_for_server`] |
//! | the credentials are revoked | the connection ends, `stats().backplane.connected` is false, and async-nats tries again for ever |
//! | TLS is asked for and the server has none | [`ConnectError::Connect`] |
//! | a server is killed with `sync_interval` at its default of two minutes | a single server may lose what it confirmed since the last sync when its machine loses power, not when its process is killed; with [replicas](Log::replicas), the others have it |
//!
//! Nodes of one scope must agree on the level and on the number of buckets. To change either, stop all nodes and start them with
//! the new setting; clients reconnect, and get a gap where their id is of another log. With a rolling restart into a new scope, nodes of the old and of the new scope do
//! not hear each other until the last one has moved. All other settings may differ between nodes, so a rolling restart changes them.

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
/// The client, in the version whose types stand in this crate's functions.
pub use async_nats;
pub use connection::Connection;
pub use error::ConnectError;
pub use settings::{Interest, Log, Settings, Storage};
