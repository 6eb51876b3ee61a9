//! What the library promises without HTTP and without other nodes, and the rules of the house.

mod anchors;
mod assurance;
mod auto_traits;
mod caps;
mod clock;
mod coalescing;
mod coming_back;
mod delivery;
mod drain_user;
mod drop_states;
mod ending;
mod ephemeral;
mod flavours;
mod frame;
mod history;
mod ids;
mod layers;
mod linear;
mod many;
mod membership;
mod memory;
mod metrics;
mod own_ids;
mod pairs;
mod panics;
mod presence;
mod primitives;
mod publisher;
mod runs;
mod service_code;
mod testkit_decoder;
mod view;

#[path = "../support"]
mod support {
    pub(crate) mod decoder;
    pub(crate) mod within;
}
