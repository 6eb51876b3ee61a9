//! Several nodes, over an engine in memory and over NATS and Redis, which need a `nats-server` and a
//! `redis-server`; and every future that is given up.
//!
//! What takes minutes and has nothing to do with the default features runs with them only.

#[cfg(feature = "serve")]
mod agent_hubs;
mod backplane;
#[cfg(feature = "serve")]
mod backplane_faults;
mod backplane_in_process;
#[cfg(feature = "serve")]
mod backplane_nats;
#[cfg(feature = "serve")]
mod backplane_nats_behind;
#[cfg(feature = "serve")]
mod backplane_nats_faults;
#[cfg(feature = "serve")]
mod backplane_nats_operator;
#[cfg(feature = "serve")]
mod backplane_redis;
mod backplane_troubles;
mod behind;
mod cancel;
mod local_after;
mod many;
mod quiet;
#[cfg(feature = "serve")]
mod redis_pair;
mod runs;
#[cfg(feature = "serve")]
mod three_servers;

#[path = "../support"]
mod support {
    #[cfg(feature = "serve")]
    pub(crate) mod cluster;
    #[cfg(feature = "serve")]
    pub(crate) mod decoder;
    #[cfg(feature = "serve")]
    pub(crate) mod example;
    pub(crate) mod nats;
    #[cfg(feature = "serve")]
    pub(crate) mod nats_cluster;
    #[cfg(feature = "serve")]
    pub(crate) mod networked;
    #[cfg(feature = "serve")]
    pub(crate) mod processes;
    #[cfg(feature = "serve")]
    pub(crate) mod received;
    #[cfg(feature = "serve")]
    pub(crate) mod recipe;
    #[cfg(feature = "serve")]
    pub(crate) mod redis;
    #[cfg(feature = "serve")]
    pub(crate) mod redis_cluster;
    #[cfg(feature = "serve")]
    pub(crate) mod seeds;
    pub(crate) mod streams;
    #[cfg(feature = "serve")]
    pub(crate) mod three;
    pub(crate) mod within;
    pub(crate) mod wrapped;
}
