//! One call, several broadcasters: those of the protocols, and the router that feeds them.

mod broadcasters;
mod event_router;
mod shared;

pub use broadcasters::{
    A2A_BROADCASTER, A2ABroadcaster, AGUI_BROADCASTER, ANALYTICS_BROADCASTER, AgUiBroadcaster,
    AnalyticsBroadcaster, CONTEXT_BROADCASTER, ContextBroadcaster,
};
pub use event_router::{EventRouter, EventRouterBuilder, Routed};
