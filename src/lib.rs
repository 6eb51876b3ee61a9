//! Per-user event fan-out over server-sent events.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod broadcaster;
mod channel;
mod error;
mod event;
mod frame;
mod id;
mod metrics;
mod registry;
pub mod sse;
mod subscription;
mod sync;

pub use broadcaster::{Broadcaster, Builder, ConnectionInfo, EventSender, GenericBroadcaster};
pub use error::{BroadcastError, ConfigError, EncodeError, Field, Lagged, RegisterError};
pub use event::{Data, Json, Text, ToSse};
pub use frame::Frame;
pub use id::{ConnectionId, EventId, UserId};
pub use metrics::Stats;
pub use sse::{HEARTBEAT_INTERVAL, HEARTBEAT_JSON, KeepAlive, SseBody, standard_keep_alive};
pub use subscription::{ConnectionGuard, Subscription};

#[cfg(all(test, loom))]
#[path = "../loom_tests/mod.rs"]
mod loom_tests;
