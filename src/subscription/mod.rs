//! One client's view of its user's channel.
//!
//! A [`Subscription`] is a stream of events; it holds its [`ConnectionGuard`], and dropping that is how a connection
//! leaves.

#[cfg(feature = "serve")]
#[allow(dead_code, reason = "asked by the server, which loom leaves out")]
mod end;
mod guard;
mod hold;
mod lag;
mod stream;

#[cfg(feature = "serve")]
pub(crate) use end::StreamEnd;
pub use guard::ConnectionGuard;
pub use hold::Hold;
pub use lag::LagPolicy;
pub use stream::Subscription;
pub(crate) use stream::{ResumeFilter, Verdict};
