//! The public face: broadcasters, how they are built, and the trait for those who want one behind `dyn`.

mod builder;
mod dyn_broadcaster;
mod generic;
mod observe;
mod publisher;
mod relayed;
#[cfg(feature = "metrics")]
mod report;
mod shutdown;
mod sweep;
mod take_over;

pub use builder::Builder;
pub use dyn_broadcaster::Broadcaster;
pub use generic::{ConnectionInfo, GenericBroadcaster};
pub use publisher::{PublishError, Publisher};

use std::sync::Arc;

use crate::frame::Frame;

/// The sending side of tokio's broadcast channel, which is what stands behind each user; of frames, for services that fan out
/// by hand.
pub type EventSender<T = Arc<Frame>> = tokio::sync::broadcast::Sender<T>;
