//! Guides. They are part of the documentation only: no program has this module.
//!
//! - [`getting_started`]: events of your own, the user, a page, and what to set before the first deployment.
//! - [`resume`]: clients that come back, ids and gaps.
//! - [`browser`]: pages, and a small client for them: refusals, gaps, one stream for all tabs.
//! - [`slow_clients`]: clients that read slowly, stop reading, or vanish.
//! - [`shutdown`]: how a process ends with streams open.
//! - [`capacity`]: how large the ring, the history and the caps should be, and what that costs.
//! - [`cluster`]: several nodes, over NATS or Redis.
//! - [`agents`]: AG-UI and A2A.
//! - [`http`]: HTTP/1.1 or HTTP/2, TLS, CORS, compression, cookies.
//! - [`proxies`]: nginx and Caddy in front.
//! - [`operations`]: counts, metrics, traces, the console, tests of a service.
//! - [`security`]: what is defended, against whom, and what is left to the service.
//! - [`migration`]: from a map of senders behind a lock, call by call.
//! - [`comparison`]: what else there is, and when that is the better choice.
//! - [`assurance`]: how each promise is kept, and what was tried against it.
//! - [`glossary`]: the words that all of these use.

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
