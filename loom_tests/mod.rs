//! Models: loom runs each of them through every interleaving of its threads, up to a bound on preemptions, and through
//! every value that a load may return under the C11 memory model.
//!
//! They run the real sources of `registry`, `channel` and `subscription` over the stand-ins in `src/sync/model.rs`, with
//! small integers for events. One file per owner of an invariant. Run them with `scripts/models`.
//!
//! Each says how many iterations it must explore at the least, since loom skips without a word what it takes for
//! equivalent; and each names, as `Fails:`, the changes to the code that make it fail. `scripts/faults` makes these
//! changes (they stand in `loom_tests/faults/`) and checks that it does.

mod caps;
mod connection;
mod fan_out;
mod large;
mod membership;
mod roster;
mod support;
