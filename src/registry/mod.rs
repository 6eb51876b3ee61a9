//! Which user has a channel, and how many connections there are.
//!
//! [`Users`] is the map: shards of a persistent hash map, each behind an `ArcSwap`. [`Places`] counts all connections
//! against their cap. [`Registry`] is the protocol between them and the channels: register, leave, evict,
//! disconnect, close; and the sweep that finds who does not keep up.

mod membership;
mod places;
mod sweep;
mod users;

pub(crate) use membership::{Admitted, Limits, Registry};
use places::Places;
pub(crate) use sweep::Patience;
use users::Users;
