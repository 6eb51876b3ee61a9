//! Several nodes: what carries events from one process to the streams of another.
//!
//! A broadcaster that was built with a [`Backplane`] sends an event to its own streams as ever, and then to the engine,
//! which hands it to the nodes that have streams of the user. See [`Builder::backplane`](crate::Builder::backplane).

mod contract;
mod envelope;
mod in_process;
#[cfg(all(feature = "nats", not(loom)))]
pub mod nats;

pub use contract::{
    Backplane, BackplaneError, Cause, Event, Fetched, Head, Level, MAX_HEADS, Message, Missing,
    Place, Position, Published, Received,
};
pub(crate) use envelope::{Envelope, Outbound, What, lost};
pub use in_process::{InProcess, InProcessNode};
