//! One client's view of its user's channel.
//!
//! A [`Subscription`] is a stream of events; it holds its [`ConnectionGuard`], and dropping that removes the connection.

mod guard;
#[cfg(feature = "serve")]
#[allow(dead_code, reason = "asked by the server, which loom leaves out")]
mod handle;
mod hold;
mod lag;
#[cfg(feature = "serve")]
#[allow(dead_code, reason = "for the server, which loom leaves out")]
mod shard;
mod stream;

pub use guard::ConnectionGuard;
#[cfg(feature = "serve")]
#[allow(unused_imports, reason = "for the server, which loom leaves out")]
pub(crate) use handle::{Exchange, StreamHandle};
pub use hold::Hold;
pub use lag::LagPolicy;
#[cfg(feature = "serve")]
pub(crate) use shard::{Attendant, Member, Shard};
pub use stream::Subscription;
pub(crate) use stream::{ResumeFilter, Verdict};
