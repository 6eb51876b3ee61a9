//! With programs that others wrote: Chromium, node, Python, nginx and, for an example, `nats-server`.

#[cfg(all(feature = "serve", feature = "agents"))]
mod agent_clients;
#[cfg(all(feature = "serve", feature = "agents"))]
mod browser;
#[cfg(feature = "agents")]
mod clients;
#[cfg(feature = "serve")]
mod cluster;
#[cfg(feature = "serve")]
mod console_browser;
#[cfg(feature = "serve")]
mod nginx;
#[cfg(all(feature = "serve", feature = "agents"))]
mod reconnect;

#[cfg(feature = "serve")]
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
    #[cfg(all(feature = "serve", feature = "agents"))]
    pub(crate) mod clients;
    #[cfg(all(feature = "serve", feature = "agents"))]
    pub(crate) mod example;
    #[cfg(all(feature = "serve", feature = "agents"))]
    pub(crate) mod hub;
    #[cfg(feature = "serve")]
    pub(crate) mod nats;
    #[cfg(feature = "serve")]
    pub(crate) mod nginx;
    #[cfg(feature = "agents")]
    pub(crate) mod official;
    #[cfg(all(feature = "serve", feature = "agents"))]
    pub(crate) mod process;
    #[cfg(feature = "serve")]
    pub(crate) mod site;
    #[cfg(feature = "serve")]
    pub(crate) mod webdriver;
    #[cfg(feature = "serve")]
    pub(crate) mod within;
}
