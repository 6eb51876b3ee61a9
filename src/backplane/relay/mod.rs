//! A broadcaster among others: how its events reach the streams of other nodes, and theirs its own.
//!
//! [`Outbox`] takes what is broadcast here, without waiting, and `publish` hands it to the [`Backplane`]. [`Interests`] says
//! whose events are to come from there, and `inbox` puts them into the channels. At [`Level::Replayable`] that is how
//! this node's own events get into a channel as well: the engine's log decides the order. The exception is `local_after`, with
//! which `publish` shows events before the log has them. `reader` decides when the channels
//! are compared with the log, and what is read from it that did not arrive, for a channel, or for a stream whose client is behind
//! what its channel keeps: a [`Returning`] stands in front of each stream. `reads` does what it decides.
//!
//! What comes from the backplane is never sent to it again: `copies` writes into channels, and only a broadcast writes into
//! the outbox.

mod arrivals;
mod backlog;
mod calls;
mod copies;
mod inbox;
mod interest;
mod outbox;
mod pause;
mod publish;
mod reader;
mod reads;
mod resumption;
mod returning;
mod signals;
mod state;
mod stretch;
mod wanted;

pub(crate) use outbox::Confirm;
pub(crate) use returning::Returning;
pub(crate) use state::{Attach, Relay, Running, Settings};
