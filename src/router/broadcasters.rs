//! The broadcaster of each protocol, and one of each for the whole process.

use std::sync::LazyLock;

use crate::broadcaster::GenericBroadcaster;
use crate::protocol::a2a::A2aEvent;
use crate::protocol::agui::AgUiEvent;
use crate::protocol::{analytics::AnalyticsEvent, context::ContextEvent};
use crate::subscription::LagPolicy;

/// Broadcasts AG-UI events.
///
/// AG-UI clients end a run with an error when an event is missing or one is there that the protocol does not know. So give
/// it [`LagPolicy::End`], and leave the keep-alive of its responses at the default,
/// [`KeepAlive::comment`](crate::KeepAlive::comment).
pub type AgUiBroadcaster = GenericBroadcaster<AgUiEvent>;

/// Broadcasts A2A events.
///
/// A2A clients end a stream with an error when an event is there that the protocol does not know. So give it
/// [`LagPolicy::End`], and leave the keep-alive of its responses at the default,
/// [`KeepAlive::comment`](crate::KeepAlive::comment) every 4 seconds.
pub type A2ABroadcaster = GenericBroadcaster<A2aEvent>;

/// Broadcasts the events of all protocols, each with the protocol's name around it, and those of the application itself.
pub type ContextBroadcaster = GenericBroadcaster<ContextEvent>;

/// Broadcasts what visitors of a site do.
pub type AnalyticsBroadcaster = GenericBroadcaster<AnalyticsEvent>;

/// The process's broadcaster of AG-UI events. Its streams end when they lag.
///
/// A convenience: everything works with a broadcaster of your own as well.
pub static AGUI_BROADCASTER: LazyLock<AgUiBroadcaster> = LazyLock::new(|| strict("agui"));

/// The process's broadcaster of A2A events. Its streams end when they lag.
///
/// A convenience: everything works with a broadcaster of your own as well.
pub static A2A_BROADCASTER: LazyLock<A2ABroadcaster> = LazyLock::new(|| strict("a2a"));

/// The process's broadcaster of the events of all protocols.
///
/// A convenience: everything works with a broadcaster of your own as well.
pub static CONTEXT_BROADCASTER: LazyLock<ContextBroadcaster> = LazyLock::new(|| named("context"));

/// The process's broadcaster of what visitors do.
///
/// A convenience: everything works with a broadcaster of your own as well.
pub static ANALYTICS_BROADCASTER: LazyLock<AnalyticsBroadcaster> =
    LazyLock::new(|| named("analytics"));

/// A broadcaster for clients that a gap would mislead, and that do not know the event that tells of it.
pub(super) fn strict<E>(name: &'static str) -> GenericBroadcaster<E> {
    let builder = GenericBroadcaster::builder().lag_policy(LagPolicy::End);
    builder.name(name).build().expect("the defaults are valid")
}

pub(super) fn named<E>(name: &'static str) -> GenericBroadcaster<E> {
    let builder = GenericBroadcaster::builder().name(name);
    builder.build().expect("the defaults are valid")
}
