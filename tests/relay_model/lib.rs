//! The relay's decisions, in nodes that share an engine, driven by stateright through every order of faults up to a bound.
//!
//! What decides is the code that production runs: where a channel is in its log (`channel/progress.rs`), what is read when
//! (`backplane/relay/reader.rs`), what a client gets that comes back (`backplane/relay/resumption.rs`), what is published again or
//! given up (`backplane/relay/backlog.rs`). What surrounds it is written here, as small as can be: an engine, channels that keep
//! what they sent, and clients.
#![cfg(test)]
#![allow(
    dead_code,
    unused_imports,
    reason = "sources of the library, of which this is not all"
)]

#[path = "../../src/position.rs"]
mod position;

#[path = "../../src/channel"]
mod channel {
    #[path = "../../tests/relay_model/copy.rs"]
    pub(crate) mod copy;
    mod origin;
    mod progress;
    mod shared;

    pub(crate) use origin::{Accepted, Label, Origin};
    pub(crate) use shared::{Standing, Upstream};
}

#[path = "../../src/backplane"]
mod backplane {
    mod log;

    pub use log::{Fetched, Head, MAX_HEADS, Missing};

    pub(crate) mod relay {
        mod arrivals;
        mod backlog;
        #[path = "../../../tests/relay_model/check.rs"]
        mod check;
        #[path = "../../../tests/relay_model/client.rs"]
        mod client;
        #[path = "../../../tests/relay_model/engine.rs"]
        mod engine;
        #[path = "../../../tests/relay_model/interests.rs"]
        mod interests;
        #[path = "../../../tests/relay_model/model.rs"]
        mod model;
        #[path = "../../../tests/relay_model/once.rs"]
        mod once;
        mod pause;
        #[path = "../../../tests/relay_model/publish.rs"]
        mod publish;
        mod reader;
        mod resumption;
        mod signals;
        #[path = "../../../tests/relay_model/state.rs"]
        mod state;
        mod stretch;
        mod wanted;
    }
}
