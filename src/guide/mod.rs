//! Guides. They are part of the documentation only: no program has this module.
//!
//! - [`migration`]: from a map of senders behind a lock, call by call.
//! - [`proxies`]: nginx and Caddy in front.
//! - [`capacity`]: how large the ring, the history and the caps should be, and what that costs.
//! - [`cluster`]: several nodes, over NATS.
//! - [`http`]: HTTP/1.1 or HTTP/2, TLS, CORS, compression, cookies.

pub mod capacity;
pub mod cluster;
pub mod http;
pub mod migration;
pub mod proxies;
