//! Which user has a channel, and how many connections there are.
//!
//! [`Users`] is the map: shards of a persistent hash map, each behind an `ArcSwap`. [`Admission`] counts all connections
//! against their cap. [`Registry`] is the protocol between them and the channels: register, leave, drain,
//! disconnect, close; the sweep that removes connections that lag or are past their deadline; and the watches that report
//! which users come and leave.

mod admission;
mod limits;
mod membership;
mod presence;
mod sweep;
mod users;

use admission::Admission;
pub(crate) use limits::{Limits, Patience};
pub(crate) use membership::{Admitted, Registry};
pub(crate) use presence::Watch;
use presence::Watches;
use users::Users;
