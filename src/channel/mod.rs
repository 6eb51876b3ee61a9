//! One user's fan-out.
//!
//! A [`Channel`] is the sending side of the user's [`Ring`](ring::Ring) and its [`Roster`]: the connections that are in, and whether
//! the channel is closed, together in one copy-on-write cell. Each [`Connection`] holds its own receiving side. Where
//! a [`History`] is kept, or the newest event of each key, the roster has a [`Log`], and each connection a [`Replay`] of it.
//!
//! The map of users holds channels; a subscription holds the roster and its connection, never the channel. So taking a
//! channel out of the map drops its sender, and that ends the streams.

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
pub(crate) use shared::{Head, Incoming, Taken, Upstream};
