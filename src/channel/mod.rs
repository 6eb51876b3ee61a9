//! One user's fan-out.
//!
//! A [`Channel`] sends to its [`Roster`], which holds the sending side of the user's [`Ring`](ring::Ring) and the connections
//! that are in, together in one copy-on-write cell. Each [`Connection`] holds its own receiving side. Where a [`History`] is
//! kept, or the newest event of each key, the roster has a [`Log`], and each connection a [`Replay`] of it.
//!
//! The roster is the only owner of the ring's sending side. So closing the channel, or an eviction, which replaces the ring,
//! ends the streams that read from it.

mod connection;
mod discarded;
mod fanout;
mod history;
mod kept;
mod latest;
mod log;
mod replay;
mod retention;
mod ring;
mod roster;
mod shared;
#[cfg(test)]
mod tests;

pub(crate) use connection::Connection;
pub(crate) use fanout::{Channel, Welcome};
pub use history::History;
pub(crate) use log::Log;
use replay::Replay;
pub(crate) use replay::{Missed, Resume};
pub(crate) use retention::Retention;
pub(crate) use roster::{Detached, Refusal, Roster};
pub(crate) use shared::{Incoming, Reading, Seam, Standing, Taken, Upstream};
