//! The settings of a broadcaster.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::GenericBroadcaster;
use crate::backplane::Backplane;
use crate::backplane::relay::{Attach, Settings};
use crate::channel::{History, Upstream};
use crate::error::{ConfigError, RefusalForm};
use crate::event::Attachment;
use crate::registry::{Limits, Patience};
use crate::subscription::LagPolicy;
use crate::time::LONGEST;

/// Builds a [`GenericBroadcaster`].
///
/// ```
/// use tidings::{GenericBroadcaster, Text};
///
/// let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
///     .ring_capacity(128)
///     .connections_per_user(20)
///     .total_connections(50_000)
///     .build()?;
/// # Ok::<(), tidings::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until it builds"]
pub struct Builder<E: ?Sized> {
    limits: Limits,
    behind: Option<u64>,
    keys: Option<usize>,
    lag_policy: LagPolicy,
    sweep_every: Option<Duration>,
    backplane: Option<Arc<dyn Backplane>>,
    relay: Settings,
    name: &'static str,
    #[cfg(feature = "metrics")]
    report_every: Option<Duration>,
    event: PhantomData<fn(&E)>,
}

impl<E: ?Sized> Builder<E> {
    /// The largest [`ring_capacity`](Self::ring_capacity).
    pub const MAX_RING_CAPACITY: usize = 1 << 20;

    pub(super) fn new() -> Self {
        Self {
            limits: Limits {
                capacity: 64,
                per_user: 10,
                total: usize::MAX,
                patience: Patience {
                    behind: 0,
                    time: Duration::from_secs(30),
                },
                history: None,
                keys: 0,
                when_full: RefusalForm::Status,
                when_shutting_down: RefusalForm::ComeBack,
            },
            behind: None,
            keys: None,
            lag_policy: LagPolicy::default(),
            sweep_every: None,
            backplane: None,
            relay: Settings {
                events: 65_536,
                bytes: 64 << 20,
                patience: Duration::from_secs(30),
                linger: Duration::from_secs(15),
                attach: None,
                local_after: None,
            },
            name: "default",
            #[cfg(feature = "metrics")]
            report_every: None,
            event: PhantomData,
        }
    }

    /// Sets how many events a user's ring holds: the longest burst that a stream survives without being polled. Default
    /// 64. Rounded up to a power of two; wherever else the capacity is mentioned, the rounded number is meant.
    ///
    /// Each connected user pays for the places before the first event: 48 bytes a place, 3.1 KB at 64, 12 KB at 256, besides
    /// 1.3 KB for everything else. Each event stays until all of the user's streams have read it, or until it is overwritten:
    /// one stream that does not read keeps up to this many.
    ///
    /// A publisher that sends more than this without waiting for anything overtakes every stream, however fast its client
    /// reads. With 128 events at a time and 64 places, 1,000 streams of one user missed every second event, and got gaps for
    /// them; with 32 at a time they missed none (`cargo bench --bench end_to_end -- --load lag,W1b`). So choose at least
    /// twice the longest burst, or keep a [`History`](crate::History), from which a stream that was overtaken reads on.
    pub fn ring_capacity(mut self, events: usize) -> Self {
        self.limits.capacity = events;
        self
    }

    /// Sets how many connections one user may have at a time. Default 10; `None` for no cap.
    ///
    /// A browser on HTTP/1.1 itself opens no more than six, over all tabs.
    pub fn connections_per_user(mut self, cap: impl Into<Option<usize>>) -> Self {
        self.limits.per_user = cap.into().unwrap_or(usize::MAX);
        self
    }

    /// Sets how many connections there may be in total. Default `None`, no cap.
    pub fn total_connections(mut self, cap: impl Into<Option<usize>>) -> Self {
        self.limits.total = cap.into().unwrap_or(usize::MAX);
        self
    }

    /// Sets the form of the response to a connection that a cap refuses. Default [`RefusalForm::Status`], 429 or 503.
    ///
    /// A browser's own `EventSource` gives up for good on either: the page gets no events until it makes a new one. If such
    /// pages are served, take [`RefusalForm::ComeBack`], or let the handler decide by the request
    /// ([`RegisterError::in_form`](crate::RegisterError::in_form)). Other clients then find the
    /// reason only in the event `refused`, and each refused page makes a request every six seconds
    /// on average, for as long as the cap is full.
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, RefusalForm, RegisterError, Text};
    ///
    /// let hub = GenericBroadcaster::<Text>::builder()
    ///     .connections_per_user(1)
    ///     .when_full(RefusalForm::ComeBack)
    ///     .build()?;
    /// let _tab = hub.register("ann")?;
    /// let refused = hub.register("ann").unwrap_err();
    /// assert!(matches!(refused, RegisterError::UserFull { cap: 1, form: RefusalForm::ComeBack }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn when_full(mut self, form: RefusalForm) -> Self {
        self.limits.when_full = form;
        self
    }

    /// Sets the form of the response to a connection refused during a [shutdown](GenericBroadcaster::shutdown). Default
    /// [`RefusalForm::ComeBack`], so that a browser's own `EventSource` finds the next server.
    ///
    /// [`RefusalForm::Status`] is 503, on which an `EventSource` gives up for good: for services without such clients, and
    /// for proxies that try the next server on a 503.
    pub fn when_shutting_down(mut self, form: RefusalForm) -> Self {
        self.limits.when_shutting_down = form;
        self
    }

    /// Sets what a stream does when it has lost events. Default [`LagPolicy::Gap`].
    pub fn lag_policy(mut self, policy: LagPolicy) -> Self {
        self.lag_policy = policy;
        self
    }

    /// Sets for how many keys of a user the newest event is kept, for [`LagPolicy::Coalesce`]. Default 64 if that is
    /// the policy of the broadcaster, else 0: on a single stream the policy is then the same as [`LagPolicy::Gap`].
    ///
    /// Each costs its newest event, the key and 256 bytes. When there are more keys, those whose newest event is the oldest
    /// are forgotten. With a [history](Self::history), what is kept under keys is within its [bytes](History::bytes), and is
    /// forgotten, the oldest first, where there is no room for it beside newer events.
    pub fn coalesce_keys(mut self, keys: usize) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Keeps events for clients that reconnect. Default `None`: an event goes only to the streams that are open, and
    /// has no id but its own.
    pub fn history(mut self, history: impl Into<Option<History>>) -> Self {
        self.limits.history = history.into();
        self
    }

    /// Sets how many events a connection may be behind, and for how long it may exceed that, before a
    /// [sweep](GenericBroadcaster::sweep) disconnects it. Default: the [`ring_capacity`](Self::ring_capacity) or, if
    /// that is more, the events of the [`history`](Self::history), for 30 seconds; such a connection has already lost
    /// events.
    pub fn patience(mut self, behind: u64, time: Duration) -> Self {
        self.behind = Some(behind);
        self.limits.patience.time = time;
        self
    }

    /// Sweeps at this interval, in a task that ends with the last clone of the broadcaster. Default `None`: call
    /// [`sweep`](GenericBroadcaster::sweep) yourself. A second is a good interval. A sweep that is late by more than
    /// the interval, because the runtime stood still, is skipped: no stream was served meanwhile.
    pub fn sweep_every(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.sweep_every = interval.into();
        self
    }

    /// Exchanges events with other nodes: sends them those broadcast here, and theirs to the streams here. Default
    /// `None`: a single process.
    ///
    /// A broadcast never waits for the engine. At [`Level::AtMostOnce`](crate::backplane::Level::AtMostOnce) it is sent to the
    /// streams here, and then published. At [`Level::Replayable`](crate::backplane::Level::Replayable) it is published, and
    /// sent to streams, here as on all nodes, when the engine's log returns it: in one order everywhere, a fraction of a
    /// millisecond later, and not before the engine can be reached. What cannot be published is an error of the broadcast
    /// ([`BroadcastError::NotRelayed`](crate::BroadcastError::NotRelayed)), and a gap for the user's streams once the engine
    /// can be reached again.
    ///
    /// At `Replayable` clients resume on any node. A [history](Self::history) is kept in each node too, of
    /// [`ring_capacity`](Self::ring_capacity) events if none is asked for, so that most clients that come back do not have to
    /// ask the engine.
    ///
    /// Each broadcast is encoded, also for users who have no stream here. The tasks end with the last clone of the
    /// broadcaster, or with a [shutdown](GenericBroadcaster::shutdown): keep a clone as long as there are streams.
    pub fn backplane(mut self, backplane: impl Backplane) -> Self {
        self.backplane = Some(Arc::new(backplane));
        self
    }

    /// Sets how many events, and bytes of events, may wait to be published. Default 65,536 and 64 MiB, which a busy
    /// node fills in some seconds while the engine cannot be reached. The queue has eight parts; a user's events are in
    /// one of them and take at most half of it. An event takes its room until its outcome is known.
    ///
    /// Of events that found no room, only their number is kept for each user.
    pub fn backplane_queue(mut self, events: usize, bytes: usize) -> Self {
        (self.relay.events, self.relay.bytes) = (events, bytes);
        self
    }

    /// Sets how long a stream waits for the engine to return what its client has missed on another node, or has lost to
    /// lag. Default 30 seconds, at most thirty years; then the client gets a gap, and the stream goes on. Until then the
    /// client gets only keep-alives. If the stream lags again before its client has had an event, it does not wait again.
    pub fn backplane_patience(mut self, patience: Duration) -> Self {
        self.relay.patience = patience.min(LONGEST);
        self
    }

    /// Sends events to the streams here without the engine, once the engine has been unreachable for this long. Default
    /// `None`: events wait for the engine, and reach no stream until it is back. At
    /// [`Level::Replayable`](crate::backplane::Level::Replayable) only; at
    /// [`AtMostOnce`](crate::backplane::Level::AtMostOnce) streams here get events first in any case.
    ///
    /// | | default | `local_after(d)` |
    /// |---|---|---|
    /// | an outage shorter than `d` | nothing is seen of it but a delay | the same |
    /// | a longer one | streams get nothing, and afterwards everything, without a gap | after `d`, the user's streams here get a [`Gap`](crate::Gap) of the reason `backplane`, then what waits and what is broadcast on this node |
    /// | when the engine is back | | another gap, then the log's order again |
    /// | order | that of the log, on all nodes | between the two gaps, that of this node |
    /// | ids | every event has one | events between the gaps have none. A client that is cut off resumes from the id before them, and gets these events again |
    /// | costs | an outage is a silence | an outage longer than `d` is a pair of gaps for each stream, and another pair each time the log's events and such events alternate again. After each gap a client may have to fetch its state anew |
    /// | when the queue is full | broadcasts fail | the same: streams get none of these events |
    ///
    /// On one connection no event comes twice: the log returns these events to all nodes, and a stream that has had one skips
    /// it. An event whose acknowledgement did not arrive may be in the log already, and waits for it. Choose a time longer than
    /// the engine takes to restart or to elect a leader: ten seconds, say.
    pub fn local_after(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.relay.local_after = time.into().map(|time| time.min(LONGEST));
        self
    }

    /// Sets how long a node still gets the events of a user whose last stream has ended: at least this long, at most
    /// twice. Default 15 seconds. Clients that reconnect sooner cost the engine nothing.
    pub fn backplane_linger(mut self, linger: Duration) -> Self {
        self.relay.linger = linger;
        self
    }

    /// Restores the [attachment](crate::Meta::attachment) of an event of another node, from the event's data and its
    /// [relay data](crate::Meta::relay_data). Default: such events have no attachment, and views that look for one do not show
    /// them. An event for which `restore` panics has none either.
    pub fn attachments(mut self, restore: fn(&str, Option<&str>) -> Option<Attachment>) -> Self {
        self.relay.attach = Some(restore as Attach);
        self
    }

    /// Sets the broadcaster's name: the label `broadcaster` of its [metrics](crate::metrics). Default `default`.
    ///
    /// Give each of several broadcasters a name of its own. Two with the same name overwrite each other's metrics.
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// [Reports metrics](GenericBroadcaster::report_metrics) at this interval, in a task that ends with the last clone
    /// of the broadcaster and then reports that no users and connections are left. Default `None`: call it yourself. A
    /// second is a good interval; it costs some microseconds each time.
    #[cfg(feature = "metrics")]
    pub fn report_metrics_every(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.report_every = interval.into();
        self
    }

    /// Builds the broadcaster.
    ///
    /// # Errors
    ///
    /// When the capacity is zero or above [`MAX_RING_CAPACITY`](Self::MAX_RING_CAPACITY), a cap is zero, a history of no events
    /// or no bytes is asked for, an interval or a queue is zero, or there is no tokio runtime for sweeps, reports or a backplane.
    pub fn build(mut self) -> Result<GenericBroadcaster<E>, ConfigError> {
        let Limits {
            capacity,
            per_user,
            total,
            ..
        } = self.limits;
        if capacity == 0 || capacity > Self::MAX_RING_CAPACITY {
            let max = Self::MAX_RING_CAPACITY;
            return Err(ConfigError::RingCapacity { capacity, max });
        }
        // Rounded as tokio rounds it: from here on this is what the ring holds.
        let capacity = capacity.next_power_of_two();
        self.limits.capacity = capacity;
        if per_user == 0 || total == 0 {
            return Err(ConfigError::ZeroCap);
        }
        if let Some(history) = self.limits.history {
            if history.events == 0 || history.bytes == 0 {
                return Err(ConfigError::EmptyHistory);
            }
        }
        if self.sweep_every == Some(Duration::ZERO) {
            return Err(ConfigError::ZeroInterval);
        }
        let kept = self.limits.history.map_or(0, |history| history.events);
        let behind = self.behind.unwrap_or(capacity.max(kept) as u64);
        self.limits.patience.behind = behind;
        let coalesces = self.lag_policy == LagPolicy::Coalesce;
        self.limits.keys = self.keys.unwrap_or(if coalesces { 64 } else { 0 });
        let log = self
            .backplane
            .clone()
            .filter(|backplane| backplane.horizon().is_some());
        let upstream =
            log.map(|log| Upstream::new(move || log.horizon().expect("its level does not change")));
        if upstream.is_some() && self.limits.history.is_none() {
            self.limits.history = Some(History::new(capacity).linger(Duration::ZERO));
        }
        let mut broadcaster =
            GenericBroadcaster::with_settings(self.limits, self.lag_policy, self.name, upstream);
        if let Some(backplane) = self.backplane {
            if self.relay.events == 0 || self.relay.bytes == 0 {
                return Err(ConfigError::EmptyQueue);
            }
            if self.relay.linger.is_zero() {
                return Err(ConfigError::ZeroInterval);
            }
            broadcaster.join(backplane, &self.relay)?;
        }
        if let Some(interval) = self.sweep_every {
            broadcaster.sweep_in_background(interval)?;
        }
        #[cfg(feature = "metrics")]
        if let Some(interval) = self.report_every {
            broadcaster.report_in_background(interval)?;
        }
        Ok(broadcaster)
    }
}

impl<E: ?Sized> fmt::Debug for Builder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("limits", &self.limits)
            .field("lag_policy", &self.lag_policy)
            .field("sweep_every", &self.sweep_every)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
