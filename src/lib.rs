//! Per-user event fan-out over server-sent events.

#![cfg_attr(docsrs, feature(doc_cfg))]
// The models leave out what they have no question about: the broadcaster and HTTP.
#![cfg_attr(all(test, loom), allow(dead_code))]

#[cfg(not(all(test, loom)))]
mod broadcaster;
mod channel;
mod error;
mod event;
mod frame;
mod id;
mod metrics;
mod registry;
#[cfg(not(all(test, loom)))]
pub mod sse;
mod subscription;
mod sync;

#[cfg(not(all(test, loom)))]
pub use broadcaster::{Broadcaster, Builder, ConnectionInfo, EventSender, GenericBroadcaster};
pub use error::{BroadcastError, ConfigError, EncodeError, Field, Lagged, RegisterError};
pub use event::{Data, Json, Text, ToSse};
pub use frame::Frame;
pub use id::{ConnectionId, EventId, UserId};
pub use metrics::Stats;
#[cfg(not(all(test, loom)))]
pub use sse::{HEARTBEAT_INTERVAL, HEARTBEAT_JSON, KeepAlive, SseBody, standard_keep_alive};
pub use subscription::{ConnectionGuard, Subscription};

#[cfg(all(test, loom))]
#[path = "../loom_tests/mod.rs"]
mod loom_tests;
