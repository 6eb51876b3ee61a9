//! The protocols of agents, their router, and the example `agent_hub`.

#[cfg(feature = "agents")]
mod a2a;
#[cfg(all(feature = "serve", feature = "agents", feature = "metrics"))]
mod agent_hub;
#[cfg(all(feature = "serve", feature = "agents", feature = "metrics"))]
mod agent_hub_limits;
#[cfg(all(feature = "serve", feature = "agents"))]
mod agent_hub_protocols;
#[cfg(all(feature = "serve", feature = "agents"))]
mod agent_hub_site;
#[cfg(all(feature = "serve", feature = "agents"))]
mod agent_hubs;
#[cfg(all(feature = "serve", feature = "agents"))]
mod agent_runs;
#[cfg(feature = "agents")]
mod agent_streams;
#[cfg(all(feature = "serve", feature = "agents"))]
mod agent_tasks;
#[cfg(feature = "agents")]
mod agui;
#[cfg(feature = "agents")]
mod agui_order;
mod aisdk;
#[cfg(all(feature = "serve", feature = "agents"))]
mod aisdk_chat;
#[cfg(feature = "agents")]
mod aisdk_schema;
#[cfg(all(feature = "serve", feature = "agents"))]
mod last_event_id;
#[cfg(feature = "agents")]
mod numbers;
#[cfg(feature = "agents")]
mod router;
#[cfg(all(feature = "serve", feature = "agents"))]
mod tanstack;

#[path = "../support"]
mod support {
    #[cfg(feature = "agents")]
    pub(crate) mod a2a_corpus;
    #[cfg(feature = "agents")]
    pub(crate) mod agui_corpus;
    #[cfg(feature = "agents")]
    pub(crate) mod decoder;
    #[cfg(all(feature = "serve", feature = "agents"))]
    pub(crate) mod example;
    #[cfg(all(feature = "serve", feature = "agents"))]
    pub(crate) mod hub;
    #[allow(dead_code, reason = "other programs use the rest")]
    #[cfg(feature = "agents")]
    pub(crate) mod official;
    #[cfg(all(feature = "serve", feature = "agents"))]
    pub(crate) mod process;
    #[cfg(all(feature = "serve", feature = "agents", feature = "metrics"))]
    pub(crate) mod prometheus;
    #[cfg(all(feature = "serve", feature = "agents"))]
    pub(crate) mod routes;
    #[cfg(all(feature = "serve", feature = "agents"))]
    pub(crate) mod within;
}
