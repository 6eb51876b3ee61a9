//! The router.

use std::sync::LazyLock;

use serde::Serialize;

use super::broadcasters::{
    A2A_BROADCASTER, A2ABroadcaster, AGUI_BROADCASTER, ANALYTICS_BROADCASTER, AgUiBroadcaster,
    AnalyticsBroadcaster, CONTEXT_BROADCASTER, ContextBroadcaster, named, strict,
};
use super::shared::{Shared, Wrapped};
use crate::broadcaster::GenericBroadcaster;
use crate::error::BroadcastError;
use crate::event::ToSse;
use crate::protocol::a2a::A2aEvent;
use crate::protocol::agui::AgUiEvent;
use crate::protocol::analytics::AnalyticsEvent;
use crate::protocol::system::SystemEvent;

/// Sends each event to all streams that it concerns.
///
/// | | own broadcaster | context broadcaster |
/// |---|---|---|
/// | AG-UI | as it is | as `{"protocol":"agui","event":…}` |
/// | A2A | as it is | as `{"protocol":"a2a","event":…}` |
/// | system | | as `{"protocol":"system","event":…}` |
/// | analytics | as it is | |
///
/// An event is serialised once for both, and not at all where the user has no stream. What is routed one after another
/// arrives in this order everywhere; of two events that are routed at the same time, either may come first, and not
/// necessarily the same one everywhere.
///
/// An event is routed to one user: a run or a task belongs to one. To announce something to many users, call
/// [`route_system`](Self::route_system) for each; every call serialises the event again.
///
/// Cloning it costs four reference counts, and all clones feed the same broadcasters.
///
/// ```
/// use tidings::EventRouter;
/// use tidings::protocol::agui::{Event, RunRef};
///
/// let router = EventRouter::new();
/// let chat = router.agui().register("ann")?;
/// let dashboard = router.context().register("ann")?;
///
/// let run = RunRef::new("thread-1", "run-1");
/// router.route_agui("ann", &Event::run_started("thread-1", "run-1").into())?;
/// let routed = router.route_agui("ann", &run.event(Event::step_started("search")))?;
/// assert_eq!((routed.agui, routed.context, routed.total()), (1, 1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct EventRouter {
    agui: AgUiBroadcaster,
    a2a: A2ABroadcaster,
    context: ContextBroadcaster,
    analytics: AnalyticsBroadcaster,
}

/// How many streams an event was sent to, for each broadcaster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Routed {
    /// AG-UI streams.
    pub agui: usize,
    /// A2A streams.
    pub a2a: usize,
    /// Context streams.
    pub context: usize,
    /// Analytics streams.
    pub analytics: usize,
}

impl Routed {
    /// All together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.agui + self.a2a + self.context + self.analytics
    }
}

impl EventRouter {
    /// A router over four broadcasters of its own. They have the defaults of [`Builder`](crate::Builder), but that the
    /// streams of AG-UI and A2A end when they lag, and their [names](crate::Builder::name).
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Begins to build a router over broadcasters of your own.
    pub fn builder() -> EventRouterBuilder {
        EventRouterBuilder::default()
    }

    /// The process's router, over the process's broadcasters: [`AGUI_BROADCASTER`], [`A2A_BROADCASTER`],
    /// [`CONTEXT_BROADCASTER`] and [`ANALYTICS_BROADCASTER`].
    pub fn global() -> &'static Self {
        static GLOBAL: LazyLock<EventRouter> = LazyLock::new(|| {
            EventRouter::builder()
                .agui(AGUI_BROADCASTER.clone())
                .a2a(A2A_BROADCASTER.clone())
                .context(CONTEXT_BROADCASTER.clone())
                .analytics(ANALYTICS_BROADCASTER.clone())
                .build()
        });
        &GLOBAL
    }

    /// The broadcaster of AG-UI events.
    #[must_use]
    pub fn agui(&self) -> &AgUiBroadcaster {
        &self.agui
    }

    /// The broadcaster of A2A events.
    #[must_use]
    pub fn a2a(&self) -> &A2ABroadcaster {
        &self.a2a
    }

    /// The broadcaster of the events of all protocols.
    #[must_use]
    pub fn context(&self) -> &ContextBroadcaster {
        &self.context
    }

    /// The broadcaster of what visitors do.
    #[must_use]
    pub fn analytics(&self) -> &AnalyticsBroadcaster {
        &self.analytics
    }

    /// Sends an AG-UI event to the user's AG-UI and context streams.
    ///
    /// # Errors
    ///
    /// - [`Encode`](BroadcastError::Encode) when the event is one that the official clients would end the run at; see
    ///   [`Event::check`](crate::protocol::agui::Event::check). No stream got any part of it.
    /// - [`Complete`](BroadcastError::Complete) when the user's channel at one of the two broadcasters is complete. The
    ///   streams of the other got the event.
    /// - [`NotRelayed`](BroadcastError::NotRelayed) when one of the two could not send the event to other nodes. The other
    ///   sent it all the same. `reached` counts the streams of both that got it here.
    ///
    /// If both fail, the error is that of the AG-UI broadcaster.
    pub fn route_agui(&self, user: &str, event: &AgUiEvent) -> Result<Routed, BroadcastError> {
        let (agui, context) = self.route_both(&self.agui, "agui", user, event)?;
        Ok(Routed {
            agui,
            context,
            ..Routed::default()
        })
    }

    /// Sends an A2A event to the user's A2A and context streams.
    ///
    /// # Errors
    ///
    /// [`Encode`](BroadcastError::Encode) when a body [of another kind](A2aEvent::other) cannot be serialised, or its name
    /// is none; no stream got any part of it. Otherwise as [`route_agui`](Self::route_agui).
    pub fn route_a2a(&self, user: &str, event: &A2aEvent) -> Result<Routed, BroadcastError> {
        let (a2a, context) = self.route_both(&self.a2a, "a2a", user, event)?;
        Ok(Routed {
            a2a,
            context,
            ..Routed::default()
        })
    }

    /// Sends an event of the application itself to the user's context streams.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](GenericBroadcaster::broadcast).
    pub fn route_system(&self, user: &str, event: &SystemEvent) -> Result<Routed, BroadcastError> {
        let wrapped = Wrapped {
            protocol: "system",
            event,
        };
        Ok(Routed {
            context: self.context.publish(user, &wrapped, None, None)?,
            ..Routed::default()
        })
    }

    /// Sends what a visitor did to the user's analytics streams.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](GenericBroadcaster::broadcast).
    pub fn route_analytics(
        &self,
        user: &str,
        event: &AnalyticsEvent,
    ) -> Result<Routed, BroadcastError> {
        Ok(Routed {
            analytics: self.analytics.broadcast(user, event)?,
            ..Routed::default()
        })
    }

    /// An event that cannot be encoded fails at the first broadcaster that has somebody to reach. What that one has encoded,
    /// the second encodes as well: the JSON is there, and the name around it is ours. Any other error is one broadcaster's
    /// alone, so the other still gets the event.
    fn route_both<E: ToSse>(
        &self,
        own: &GenericBroadcaster<E>,
        protocol: &'static str,
        user: &str,
        event: &E,
    ) -> Result<(usize, usize), BroadcastError> {
        let shared = Shared::new(event);
        let own = match own.publish(user, &shared, None, None) {
            Err(error @ BroadcastError::Encode(_)) => return Err(error),
            sent => sent,
        };
        let wrapped = Wrapped {
            protocol,
            event: &shared,
        };
        let context = self.context.publish(user, &wrapped, None, None);
        let all = reached(&own) + reached(&context);
        let sent = own.and_then(|own| Ok((own, context?)));
        sent.map_err(|error| match error {
            BroadcastError::NotRelayed { reason, .. } => BroadcastError::NotRelayed {
                reached: all,
                reason,
            },
            error => error,
        })
    }
}

/// How many streams here got the event.
fn reached(sent: &Result<usize, BroadcastError>) -> usize {
    match sent {
        Ok(reached) | Err(BroadcastError::NotRelayed { reached, .. }) => *reached,
        Err(_) => 0,
    }
}

/// Builds an [`EventRouter`]. Where no broadcaster is given, the router has one of its own, as by [`EventRouter::new`].
///
/// ```
/// use tidings::{AgUiBroadcaster, EventRouter, LagPolicy};
///
/// let agui = AgUiBroadcaster::builder()
///     .lag_policy(LagPolicy::End)
///     .connections_per_user(50)
///     .build()?;
/// let router = EventRouter::builder().agui(agui).build();
/// # Ok::<(), tidings::ConfigError>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it builds"]
pub struct EventRouterBuilder {
    agui: Option<AgUiBroadcaster>,
    a2a: Option<A2ABroadcaster>,
    context: Option<ContextBroadcaster>,
    analytics: Option<AnalyticsBroadcaster>,
}

impl EventRouterBuilder {
    /// Sends AG-UI events through this broadcaster. Give it [`LagPolicy::End`](crate::LagPolicy::End).
    pub fn agui(mut self, broadcaster: AgUiBroadcaster) -> Self {
        self.agui = Some(broadcaster);
        self
    }

    /// Sends A2A events through this broadcaster. Give it [`LagPolicy::End`](crate::LagPolicy::End).
    pub fn a2a(mut self, broadcaster: A2ABroadcaster) -> Self {
        self.a2a = Some(broadcaster);
        self
    }

    /// Sends the events of AG-UI, A2A and the system, with the protocol's name around them, through this broadcaster.
    pub fn context(mut self, broadcaster: ContextBroadcaster) -> Self {
        self.context = Some(broadcaster);
        self
    }

    /// Sends what visitors do through this broadcaster.
    pub fn analytics(mut self, broadcaster: AnalyticsBroadcaster) -> Self {
        self.analytics = Some(broadcaster);
        self
    }

    /// Builds the router.
    #[must_use]
    pub fn build(self) -> EventRouter {
        EventRouter {
            agui: self.agui.unwrap_or_else(|| strict("agui")),
            a2a: self.a2a.unwrap_or_else(|| strict("a2a")),
            context: self.context.unwrap_or_else(|| named("context")),
            analytics: self.analytics.unwrap_or_else(|| named("analytics")),
        }
    }
}

impl Default for EventRouter {
    fn default() -> Self {
        Self::new()
    }
}
