//! The broadcaster of one type of event.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::Builder;
use crate::backplane::Backplane;
use crate::backplane::relay::{Relay, Running, Settings};
use crate::channel::Upstream;
use crate::error::ConfigError;
use crate::frame::Frame;
use crate::metrics::Stats;
use crate::registry::{Limits, Registry};
use crate::subscription::LagPolicy;

/// Sends events of type `E` to users, each on all the streams that the user has open.
///
/// Cloning it costs a reference count, and all clones are the same broadcaster: keep one as axum `State`. No method
/// waits but the `async` ones, so the others can be called from anywhere, inside a runtime or not.
///
/// ```
/// use tidings::{GenericBroadcaster, Text};
///
/// let hub = GenericBroadcaster::<Text>::new();
/// let tab = hub.register("ann")?;
/// let reached = hub.broadcast("ann", &Text::new("hello"))?;
/// assert_eq!(reached, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GenericBroadcaster<E: ?Sized> {
    pub(super) registry: Arc<Registry<Arc<Frame>>>,
    pub(super) lag_policy: LagPolicy,
    pub(super) relay: Option<Arc<Running>>,
    pub(super) name: &'static str,
    event: PhantomData<fn(&E)>,
}

impl<E: ?Sized> GenericBroadcaster<E> {
    /// A broadcaster with the defaults of [`Builder`].
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build().expect("the defaults are valid")
    }

    /// Begins to build a broadcaster with settings of your own.
    pub fn builder() -> Builder<E> {
        Builder::new()
    }

    pub(super) fn with_settings(
        limits: Limits,
        lag_policy: LagPolicy,
        name: &'static str,
        upstream: Option<Upstream>,
    ) -> Self {
        Self {
            registry: Arc::new(Registry::new(limits, upstream)),
            lag_policy,
            relay: None,
            name,
            event: PhantomData,
        }
    }

    pub(super) fn join(
        &mut self,
        backplane: Arc<dyn Backplane>,
        settings: &Settings,
    ) -> Result<(), ConfigError> {
        let runtime = Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        let relay = Relay::start(self.name, backplane, settings, &self.registry, runtime);
        self.relay = Some(Arc::new(Running(relay)));
        Ok(())
    }

    /// Its [name](Builder::name).
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The broadcaster's current counts and its totals so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            backplane: self.relay.as_ref().map(|running| running.0.stats()),
            ..stats_of(&self.registry)
        }
    }
}

/// The figures of this moment, and the counters.
pub(super) fn stats_of(registry: &Registry<Arc<Frame>>) -> Stats {
    let away = registry.retention().away();
    Stats {
        users: registry.users.len().saturating_sub(away),
        away,
        away_bytes: registry.retention().kept_for_away(),
        connections: registry.total(),
        ..registry.counters().totals()
    }
}

impl<E: ?Sized> Clone for GenericBroadcaster<E> {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
            lag_policy: self.lag_policy,
            relay: self.relay.clone(),
            name: self.name,
            event: PhantomData,
        }
    }
}

impl<E: ?Sized> Default for GenericBroadcaster<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: ?Sized> fmt::Debug for GenericBroadcaster<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenericBroadcaster")
            .field("name", &self.name)
            .field("stats", &self.stats())
            .finish()
    }
}
