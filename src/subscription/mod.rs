//! One client's view of its user's channel.
//!
//! A [`Subscription`] is a stream of events; it holds its [`ConnectionGuard`], and dropping that is how a connection
//! leaves.

mod guard;
mod stream;

pub use guard::ConnectionGuard;
pub use stream::Subscription;
