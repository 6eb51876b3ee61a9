//! A broadcaster among others: how its events reach the streams of other nodes, and theirs its own.
//!
//! [`Outbox`] takes what is broadcast here, without waiting, and `publish` hands it to the [`Backplane`]. [`Interests`] says
//! whose events are to come from there, and `inbox` puts them into the channels, in the engine's order, with `repair` for
//! what has not come. A [`Crossing`] stands in front of each stream, for a client that comes from another node.
//!
//! What comes from the backplane is never sent to it again: `inbox` writes into channels, and only a broadcast writes into
//! the outbox.

mod crossing;
mod inbox;
mod interest;
mod outbox;
mod publish;
mod repair;
mod state;

pub(super) use crossing::Crossing;
pub(super) use outbox::Confirm;
pub(super) use state::{Relay, Running, Settings, Tags};
