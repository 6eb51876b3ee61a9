//! The public API: broadcasters, how they are built, and the trait for use behind `dyn`.

mod builder;
mod connections;
mod dyn_broadcaster;
mod ephemeral;
mod generic;
mod many;
mod presence;
mod publish;
mod publisher;
#[cfg(feature = "metrics")]
mod report;
mod runs;
mod shutdown;
mod sweep;

pub use builder::Builder;
pub use connections::ConnectionInfo;
pub use dyn_broadcaster::Broadcaster;
pub use generic::GenericBroadcaster;
pub use many::Reach;
pub use presence::{Presence, PresenceStream};
pub use publisher::{PublishError, Publisher};

use std::sync::Arc;

use crate::frame::Frame;

/// A short name for a [`GenericBroadcaster`]: `Hub<Text>` sends text.
pub type Hub<E> = GenericBroadcaster<E>;

/// The sending half of tokio's [broadcast channel](tokio::sync::broadcast), of frames unless said otherwise.
///
/// An alias for services that fan out [frames](Frame::encode) by hand. No method of this crate takes or returns one: the
/// sender behind a user's streams belongs to the broadcaster alone.
pub type EventSender<T = Arc<Frame>> = tokio::sync::broadcast::Sender<T>;
