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
//! Pass it to [`Builder::backplane`](tidings::Builder::backplane). The guide `cluster` in the documentation of
//! `tidings` says which level and which engine to choose.
//!
//! It needs one server that takes writes: a single one, or a primary with replicas at an address that follows the
//! primary. It does not speak to Redis Cluster or Sentinel. For TLS, enable the features of `redis` in the application's
//! `Cargo.toml` and use `rediss://`.
//!
//! The client is the crate `redis`: it is maintained, compiles with our minimum Rust version, has both kinds of
//! connection and leaves it to this crate to connect again. A node must check the log before it uses a new connection;
//! `fred`, the other client, connects and subscribes again by itself.
//!
//! Pub/sub is not sharded (`SSUBSCRIBE`, Redis 7 or newer). Sharding spreads channels over the servers of a Redis
//! Cluster; but one script counts, appends and publishes, so all keys and channels of a scope belong to one hash slot,
//! and with it to one server. There, sharded and plain pub/sub do the same.
//!
//! A node subscribes to one channel for each of its users. Buckets of users, which `tidings-nats` has, would save the
//! server 0.2 KB a user, and a node would receive events of users that it does not have.
//!
//! # At most once
//!
//! A node sends `PUBLISH` to a channel for each user. Redis answers when the message is in every subscriber's output
//! buffer. The node then sends a `DEL` of a key that does not exist, which a server that has become a replica refuses:
//! then the events count as lost, since only nodes of the same server have them. Redis disconnects a node that reads
//! too slowly (`client-output-buffer-limit pubsub`), and a node with 65,536 events waiting drops the next; both are
//! reported as a gap. After an interruption, the gap comes before any later event of another node.
//!
//! # Replayable
//!
//! In one atomic step, a script increments the log's counter, appends to the user's stream (`XADD`) and publishes. If
//! one of its commands is not permitted, it removes what it has appended, for which it needs `XDEL` and `DEL`. A
//! message names the user's previous message. Of each user, the newest [`max_per_user`](Log::max_per_user) are kept for
//! [`max_age`](Log::max_age).
//!
//! A node that finds no log draws a random epoch: at first, after `FLUSHALL`, or after a restart without files. With
//! each request a node says how far it has seen the log and which message was the newest. If the server has less, or
//! another message there (an older copy was restored, or a replica that was behind was promoted), or its clock went
//! back by more than a 64th of the age, the same script gives the log a new epoch before it appends anything, and every
//! stream gets a gap. It also does so whenever the server is another process than before (its `run_id`), since there
//! may be no node left that has seen more than an older copy has. [`Log::durable`] states that there is no older copy:
//! then a restart causes no gap.
//!
//! A node refuses to keep a log on a server with `maxmemory` that drops keys ([`ConnectError::Evicts`]). If the server
//! drops some later, the log begins anew, once for all nodes.
//!
//! # Permissions
//!
//! The keys `{chat}:*`, the channels `{chat}:*`, and the commands `HELLO`, `CLIENT`, `PING`, `INFO`, `PUBLISH`, `SUBSCRIBE`,
//! `UNSUBSCRIBE`, at most once `DEL`, with a log `EVALSHA`, `SCRIPT LOAD` and those that the scripts call, `src/*.lua`. Without `INFO`
//! a node logs a warning and does not notice that the server becomes a replica, is another process or drops keys. Without `DEL`,
//! events that it publishes to a server that is no longer the primary are lost without a gap.
//!
//! A user is ready when Redis has confirmed the subscription and a message published after it has come back. A user
//! whose subscription is refused is [`Unheard`](tidings::backplane::Event::Unheard); the node subscribes again after
//! one second, then two, up to thirty.
//!
//! # Operation
//!
//! | what happens | consequence |
//! |---|---|
//! | `OOM`, or Redis cannot write its files | events wait, and are published again |
//! | `NOPERM` on publishing or appending | that event is lost, and its user's streams get a gap |
//! | the server becomes a replica (each node checks once a second), `LOADING` | the node reconnects until the server takes writes |
//! | the server hangs | it counts as unreachable after the [time-out](Settings::timeout) |
//! | a restart with `appendonly yes`, `appendfsync always` | nothing is lost; no gap with [`Log::durable`], else one for every stream |
//! | the same with `everysec` | up to two seconds of events are lost if the machine loses power; a gap for every stream |
//! | the same with snapshots only, or no files | all events after the last snapshot are lost; a gap for every stream |
//! | a replica is promoted | the events that it did not have yet are lost; a gap for every stream |
//!
//! # Known limits
//!
//! - With [`Log::durable`], or without the permission for `INFO`, only nodes that have seen more than an older copy has
//!   notice that the server has loaded it. A node that has seen no message for half the [duplicate
//!   window](Log::duplicate_window) compares only the length of the log.
//! - After a copy is loaded into a running process (`DEBUG RELOAD`, a replica that copies its primary anew), the
//!   `run_id` is the same.
//! - A node stays connected to its server for as long as that server is a primary. Promote a replica only when the old
//!   primary is stopped or demoted: nodes of two primaries do not receive each other's events, and nothing reports it.
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
/// The client, in the version whose types this crate's functions use.
pub use redis;
pub use settings::{Log, Settings};
