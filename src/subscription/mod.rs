//! One client's view of its user's channel.
//!
//! A [`Subscription`] is a stream of events; it holds its [`ConnectionGuard`], and dropping that is how a connection
//! leaves.

mod guard;
mod lag;
mod stream;

pub use guard::ConnectionGuard;
pub use lag::LagPolicy;
pub use stream::Subscription;
