//! Several nodes: carries events from one process to the streams of another.
//!
//! A broadcaster built with a [`Backplane`] hands its events to an engine, which brings them to the nodes that have streams
//! of the user. See [`Builder::backplane`](crate::Builder::backplane). The crates `tidings-nats` and
//! `tidings-redis` each have an engine; `tidings-testkit` has one in memory, for tests.

mod contract;
mod envelope;
mod log;
pub(crate) mod relay;

pub use crate::position::{Place, Position};
pub use contract::{
    Backplane, BackplaneError, CALL_LIMIT, Cause, Event, Level, Message, Published, Received,
};
pub(crate) use envelope::{
    Envelope, HEAD, Outbound, SHOWN, What, complete, is_complete, lost, shown,
};
pub use log::{Fetched, Head, MAX_HEADS, Missing};
