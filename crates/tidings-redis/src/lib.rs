//! A backplane of [`tidings`] over [Redis](https://redis.io) 6.2 or newer, or [Valkey](https://valkey.io).
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use tidings_redis::{Log, Redis, Settings};
//!
//! let settings = Settings::new("chat").replayable(Log::new());
//! let backplane = Redis::connect("redis://127.0.0.1:6379", settings).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Builder::backplane`](tidings::Builder::backplane) takes it. The guide `cluster` in the documentation of `tidings` says which
//! level and which engine to choose.
//!
//! One server that takes writes: a single one, or the primary of replicas at an address that follows it. Redis Cluster and Sentinel
//! are not spoken to. The client is the crate `redis`, since it is kept up, compiles with our oldest Rust and gives both kinds of
//! connection; what this crate does itself is to connect again, since a node must look at the log before anybody uses a new
//! connection. TLS: the features of `redis` in the application's `Cargo.toml`, and `rediss://`.
//!
//! # At most once
//!
//! `PUBLISH` to a channel for each user. Redis answers it when every subscriber's share is in its output buffer. A `DEL` of a key
//! that does not exist follows. A server that has become a replica refuses it, and then the events count as lost, since only nodes
//! of the same server have them. A node that is too slow is disconnected (`client-output-buffer-limit pubsub`), or has 65,536
//! events waiting and drops the next; both are told as a gap.
//!
//! # Replayable
//!
//! A script counts one up in the log, appends to the user's stream (`XADD`) and publishes, in one step that nobody else sees half of.
//! If one of its commands is not permitted, it takes back what it has appended, for which it needs `XDEL` and `DEL`.
//! A message names the user's message before it. Of each user the newest [`max_per_user`](Log::max_per_user) are kept for
//! [`max_age`](Log::max_age).
//!
//! The epoch is drawn when a node finds no log: at first, after `FLUSHALL`, after a restart without files. With each question
//! a node says how far it has seen the log and which message was the newest. If the server has less, or another message there
//! (an older copy was restored, a replica was promoted that was behind), or its clock went back by more than a 64th of the age, the
//! same script gives the log a new epoch before anything is appended, and every stream gets a gap. It does so too whenever the
//! server is another process than before (its `run_id`), since no node may be left that had seen more than an older copy has.
//! [`Log::durable`] states that there is no older copy: then a restart causes no gap.
//!
//! A log is refused on a server with `maxmemory` that drops keys ([`ConnectError::Evicts`]). If it drops some later, the log begins
//! anew, once for all nodes.
//!
//! # Permissions
//!
//! The keys `{chat}:*`, the channels `{chat}:*`, and the commands `HELLO`, `CLIENT`, `PING`, `INFO`, `PUBLISH`, `SUBSCRIBE`,
//! `UNSUBSCRIBE`, at most once `DEL`, with a log `EVALSHA`, `SCRIPT LOAD` and those that the scripts call, `src/*.lua`. Without `INFO`
//! a node logs a warning and does not notice that the server becomes a replica, is another process or drops keys. Without `DEL`,
//! events that it publishes to a server that is no longer the primary are lost without a gap.
//!
//! A user is ready when Redis has confirmed the subscription and something that was published after it has come back. One that is
//! refused is [`Unheard`](tidings::backplane::Event::Unheard), and tried again after one second, then two, up to thirty.
//!
//! # Operation
//!
//! | what happens | what is seen |
//! |---|---|
//! | `OOM`, or files cannot be written | events wait, and are published again |
//! | `NOPERM` on publishing or appending | that event is lost, and its user's streams get a gap |
//! | it becomes a replica (each node asks once a second), `LOADING` | the connection is made again until the server takes writes |
//! | a server hangs | it counts as gone after the [time-out](Settings::timeout) |
//! | a restart with `appendonly yes`, `appendfsync always` | nothing is lost; with [`Log::durable`] no gap, else one for every stream |
//! | the same with `everysec` | up to two seconds of events, with the machine's power; then a gap for every stream |
//! | snapshots only, or no files | what came after the last one; then a gap for every stream |
//! | a replica is promoted | what it had not yet; then a gap for every stream |
//!
//! # Known limits
//!
//! - With [`Log::durable`], or without the permission for `INFO`, a server that loads an older copy is noticed only by nodes that have
//!   seen more than it has. A node that has seen no message for half the [duplicate window](Log::duplicate_window) compares only
//!   how far the log is.
//! - A copy that is loaded into a running process (`DEBUG RELOAD`, a replica that copies its primary anew) has the same `run_id`.
//! - A node stays with the server that it is connected to while that one leads. Promote a replica only when the old primary is
//!   stopped or demoted: nodes of two primaries do not receive each other's events, and nothing reports it.
//! - A [`max_age`](Log::max_age) below two minutes can give streams of quiet users a gap although they have missed nothing.

// The program on the README compiles.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod adapter;
mod ears;
mod error;
mod known;
mod link;
mod server;
mod settings;
mod wire;

pub use adapter::Redis;
pub use error::ConnectError;
/// The client, in the version whose types stand in this crate's functions.
pub use redis;
pub use settings::{Log, Settings};
