//! The guides. This module exists only in the documentation.
//!
//! - [`getting_started`]: your own event types, the user, a page, and what to set before the first
//!   deployment.
//! - [`resume`]: clients that reconnect, ids, gaps, and streams from the beginning.
//! - [`browser`]: pages, and a small client for them: refusals, gaps, one stream for all tabs.
//! - [`slow_clients`]: clients that read slowly, stop reading, or vanish.
//! - [`shutdown`]: how a process with open streams ends.
//! - [`capacity`]: how large the ring, the history and the caps should be, and what that costs.
//! - [`cluster`]: several nodes, over NATS or Redis.
//! - [`agents`]: AG-UI and A2A.
//! - [`http`]: HTTP/1.1 or HTTP/2, TLS, CORS, compression, cookies.
//! - [`proxies`]: nginx, Caddy or Envoy in front.
//! - [`operations`]: counts, metrics, traces, presence, the console, tests of a service.
//! - [`security`]: what is defended, against whom, and what is left to the service.
//! - [`migration`]: from a map of senders behind a lock, call by call.
//! - [`comparison`]: alternatives, and when each is the better choice.
//! - [`assurance`]: how each promise is verified, and what was tried against it.
//! - [`glossary`]: the terms that all of these use.

pub mod agents;
pub mod assurance;
pub mod browser;
pub mod capacity;
pub mod cluster;
pub mod comparison;
pub mod getting_started;
pub mod glossary;
pub mod http;
pub mod migration;
pub mod operations;
pub mod proxies;
pub mod resume;
pub mod security;
pub mod shutdown;
pub mod slow_clients;
