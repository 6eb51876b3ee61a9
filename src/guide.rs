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

macro_rules! pages {
    ($($name:ident: $file:literal,)*) => {$(
        #[doc = include_str!("guide/links.md")]
        #[doc = include_str!(concat!("../", $file))]
        pub mod $name {}
    )*};
}

pages! {
    agents: "docs/agents.md",
    assurance: "docs/assurance.md",
    browser: "docs/browser.md",
    capacity: "docs/capacity.md",
    cluster: "docs/cluster.md",
    comparison: "docs/comparison.md",
    getting_started: "docs/getting-started.md",
    glossary: "docs/glossary.md",
    http: "docs/http.md",
    migration: "docs/migration.md",
    operations: "docs/operations.md",
    proxies: "docs/proxies.md",
    resume: "docs/resume.md",
    security: "SECURITY.md",
    shutdown: "docs/shutdown.md",
    slow_clients: "docs/slow-clients.md",
}
