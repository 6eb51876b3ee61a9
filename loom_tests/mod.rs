//! Models: loom runs each of them through every interleaving of its threads, up to a bound on preemptions, and through
//! every value that a load may return under the C11 memory model.
//!
//! They run the real sources of `registry`, `channel` and `subscription`, and of the broadcaster its outbox, over the
//! stand-ins in `src/sync/model.rs`, with small integers for events. One file per owner of an invariant. Run them with
//! `scripts/models`. `node.rs` has what it takes to be one node of several, with the relay's own decisions for clients that come back.
//!
//! Each says how many iterations it must explore at the least, since loom skips without a word what it takes for
//! equivalent. And each names, as `Fails:`, up to three of the changes to the code that make it fail. These stand in
//! `loom_tests/faults/`, each with the model that must notice it, and `scripts/faults` checks that it does.
//!
//! `random.rs` has scenarios too large for that, which shuttle runs through thousands of random schedules. What they name was
//! seen to make them fail by hand: `scripts/faults` runs the models only.

/// What of the relay decides what a client gets that comes back, and `node.rs`, which drives it.
#[path = "../src/backplane"]
pub(crate) mod backplane {
    mod log;

    pub(crate) use log::{Head, Missing};

    pub(crate) mod relay {
        #[path = "../../../loom_tests/node.rs"]
        pub(crate) mod node;
        mod resumption;
        mod signals;
        mod stretch;
    }
}
use backplane::relay::node;

#[cfg(not(shuttle))]
mod caps;
#[cfg(not(shuttle))]
mod connection;
#[cfg(not(shuttle))]
mod drain;
#[cfg(not(shuttle))]
mod ending;
#[cfg(not(shuttle))]
mod ephemeral;
#[cfg(not(shuttle))]
mod fan_out;
#[cfg(not(shuttle))]
mod large;
#[cfg(not(shuttle))]
mod membership;
#[cfg(not(shuttle))]
mod outbox;
#[cfg(not(shuttle))]
mod presence;
#[cfg(shuttle)]
mod random;
#[cfg(not(shuttle))]
mod reasons;
#[cfg(not(shuttle))]
mod renewal;
#[cfg(not(shuttle))]
mod replay;
#[cfg(not(shuttle))]
mod ring;
#[cfg(not(shuttle))]
mod roster;
#[cfg(not(shuttle))]
mod runs;
#[cfg(not(shuttle))]
mod shard;
#[cfg(not(shuttle))]
mod shared;
mod support;
#[cfg(not(shuttle))]
mod teardown;
