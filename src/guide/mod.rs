//! Guides. They are part of the documentation only: no program has this module.
//!
//! - [`migration`]: from a map of senders behind a lock, call by call.
//! - [`proxies`]: nginx and Caddy in front.
//! - [`capacity`]: how large the ring, the history and the caps should be, and what that costs.
//! - [`cluster`]: several nodes, over NATS.
//! - [`http`]: HTTP/1.1 or HTTP/2, TLS, CORS, compression, cookies.
//! - [`security`]: what is defended, against whom, and what is left to the service.
//! - [`assurance`]: how each promise is kept to, and what was tried against it.

pub mod assurance;
pub mod capacity;
pub mod cluster;
pub mod http;
pub mod migration;
pub mod proxies;
pub mod security;
