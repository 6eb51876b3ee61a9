//! Reports of metrics: by hand, and in a task.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::GenericBroadcaster;
use super::generic::stats_of;
use crate::error::ConfigError;
use crate::metrics::{Stats, report, report_gone};

impl<E: ?Sized> GenericBroadcaster<E> {
    /// Copies the [stats](Self::stats) to the recorder of the crate `metrics`, under the names of
    /// [this table](crate::metrics). Without a recorder it does nothing.
    ///
    /// Call it before each scrape, or let the builder [do it](super::Builder::report_metrics_every).
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, Text};
    ///
    /// let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    /// let page = recorder.handle();
    /// // In a service, once: `metrics::set_global_recorder(recorder)`.
    /// let _guard = metrics::set_default_local_recorder(&recorder);
    ///
    /// let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder().name("chat").build()?;
    /// let _tab = hub.register("ann")?;
    /// hub.report_metrics();
    /// assert!(page.render().contains("tidings_connections{broadcaster=\"chat\"} 1"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn report_metrics(&self) {
        report(self.name, &self.stats());
    }

    pub(super) fn report_in_background(&self, interval: Duration) -> Result<(), ConfigError> {
        if interval.is_zero() {
            return Err(ConfigError::ZeroInterval);
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        let registry = Arc::downgrade(&self.registry);
        let relay = self.relay.as_ref().map(Arc::downgrade);
        let name = self.name;
        runtime.spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // Not held until the next tick, so that dropping the last clone of the broadcaster ends this task.
                let Some(registry) = registry.upgrade() else {
                    return report_gone(name);
                };
                let relay = relay.as_ref().and_then(|relay| relay.upgrade());
                report(
                    name,
                    &Stats {
                        backplane: relay.map(|relay| relay.0.stats()),
                        ..stats_of(&registry)
                    },
                );
            }
        });
        Ok(())
    }
}
