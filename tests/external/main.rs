//! With programs that others wrote: Chromium, node, Python, nginx and, for an example, `nats-server` and `redis-server`.
//!
//! None of it looks different without the default features.

#![cfg(feature = "serve")]

#[cfg(feature = "agents")]
mod agent_clients;
#[cfg(feature = "agents")]
mod browser;
#[cfg(feature = "agents")]
mod clients;
mod cluster;
mod console_browser;
mod html;
#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/html/src/main.rs"]
mod html_example;
mod nginx;
mod page_client;
#[cfg(feature = "agents")]
mod react;
#[cfg(feature = "agents")]
mod reconnect;
mod runs;

#[allow(dead_code, reason = "benchmarks use all of it")]
#[path = "../../benches/support"]
mod load {
    pub(crate) mod http1;
}

#[path = "../support"]
mod support {
    #[cfg(feature = "agents")]
    pub(crate) mod a2a_corpus;
    #[cfg(feature = "agents")]
    pub(crate) mod agui_corpus;
    #[cfg(feature = "agents")]
    pub(crate) mod clients;
    #[cfg(feature = "agents")]
    pub(crate) mod example;
    #[cfg(feature = "agents")]
    pub(crate) mod hub;
    pub(crate) mod nats;
    pub(crate) mod nginx;
    #[cfg(feature = "agents")]
    pub(crate) mod official;
    #[cfg(feature = "agents")]
    pub(crate) mod process;
    pub(crate) mod redis;
    pub(crate) mod site;
    pub(crate) mod webdriver;
    pub(crate) mod within;
}
