//! One user's channel: fan-out to the user's connections.
//!
//! A [`Channel`] sends through its [`Roster`]: one copy-on-write cell with the sending side of the user's
//! [`Ring`](ring::Ring) and the attached connections. Each [`Connection`] holds its own receiving side. Where a [`History`]
//! is kept, or the newest event of each key, the roster has a [`Log`], and each connection a [`Replay`] of it.
//! [Ephemeral](ephemeral) events bypass the ring: each connection has a queue of them.
//!
//! Only the roster keeps the ring's sending side. So closing the channel ends the streams that read from the ring, and so
//! does a drain, which replaces the ring.
//!
//! # Words
//!
//! - **Offset**: a number in a sequence. A channel numbers what it sends from 1, and an engine's log numbers its messages.
//! - **Epoch**: a random number that names a history, so that an offset of one history is not taken for one of another.
//! - **Position**: an epoch and an offset in it. An event's id spells it.
//! - **Head**: how many events the channel has sent. A connection is behind by the head minus the events it has read or lost.
//! - **Cursor**: the position after which a stream begins. A client that is cut off before its first event resumes from it.
//! - **Seen**: the position of the last event that a client says it has.

mod completion;
mod connection;
mod discarded;
mod ephemeral;
mod fanout;
mod history;
mod latest;
mod log;
mod origin;
#[cfg(feature = "serve")]
#[allow(dead_code, reason = "for the server, which loom leaves out")]
mod plain;
mod progress;
mod replay;
mod retention;
mod ring;
mod roster;
mod shared;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use connection::Connection;
pub(crate) use fanout::{Channel, Welcome};
pub use history::History;
pub(crate) use log::Log;
pub(crate) use origin::{Accepted, Label, Origin};
#[cfg(feature = "serve")]
pub(crate) use plain::Plain;
use replay::Replay;
pub(crate) use replay::{Missed, Resume};
pub(crate) use retention::Retention;
#[cfg(feature = "serve")]
pub(crate) use ring::Bell;
pub(crate) use roster::{Detached, Refusal, Retired, Roster};
pub(crate) use shared::{Standing, Upstream};
