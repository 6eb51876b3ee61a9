//! One call, several broadcasters: those of the protocols, and the router that feeds them.

mod broadcasters;
#[cfg(feature = "agents")]
mod event_router;
#[cfg(feature = "agents")]
mod shared;

#[cfg(feature = "a2a")]
pub use broadcasters::{A2A_BROADCASTER, A2ABroadcaster};
#[cfg(feature = "agui")]
pub use broadcasters::{AGUI_BROADCASTER, AgUiBroadcaster};
#[cfg(feature = "agents")]
pub use broadcasters::{
    ANALYTICS_BROADCASTER, AnalyticsBroadcaster, CONTEXT_BROADCASTER, ContextBroadcaster,
};
#[cfg(feature = "agents")]
pub use event_router::{EventRouter, Routed};
