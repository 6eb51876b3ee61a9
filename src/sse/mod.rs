//! From frames to an HTTP response.
//!
//! [`SseBody`] is the body: an [`http_body::Body`] that hands out the shared bytes of each frame, without a copy, and
//! writes a [`KeepAlive`] after a while with nothing to send. With the feature `axum`, `SseResponse` and
//! [`Subscription`](crate::Subscription) are responses, and a subscription can feed axum's own `Sse` instead.

mod body;
mod cursor;
mod dequeue;
#[cfg(all(feature = "axum", not(loom)))]
mod interop;
mod keep_alive;
#[cfg(all(feature = "axum", not(loom)))]
mod last_event_id;
#[cfg(all(feature = "axum", not(loom)))]
mod response;
mod shape;
mod silence;
mod view;

#[cfg(feature = "serve")]
#[allow(unused_imports, reason = "for the server, which loom leaves out")]
pub(crate) use body::JOINED;
pub use body::SseBody;
pub use cursor::Cursor;
#[cfg(feature = "serve")]
#[allow(unused_imports, reason = "for the server, which loom leaves out")]
pub(crate) use dequeue::{finish_sample, is_plain};
pub use keep_alive::{
    AGENT_HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL, HEARTBEAT_JSON, KeepAlive, standard_keep_alive,
};
#[cfg(all(feature = "axum", not(loom)))]
pub use response::SseResponse;
pub use view::{Chunks, View};
