//! The figures, live: a broadcaster of the console's own, and the task that feeds it while a page is open.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::source::{Source, Sources};
use tidings::sse::{Chunks, View};
use tidings::{
    Frame, GenericBroadcaster, JsonEvent, LagPolicy, RegisterError, Stats, Subscription,
};

/// All pages are connections of this user.
const PAGES: &str = "pages";

/// More pages than this are refused: no service has so many operators.
const MOST_PAGES: usize = 64;

/// What the pages get.
pub(super) struct Feed {
    live: GenericBroadcaster<JsonEvent<Snapshot>>,
    /// Since when the task runs, if it does. Locked by `open` after it has registered a page, and by the task to check
    /// whether there is a page.
    running: Mutex<Option<Instant>>,
}

#[derive(Serialize)]
pub(super) struct Snapshot {
    /// Since the task was started, by a monotonic clock: the base of rates.
    at_ms: u64,
    interval_ms: u64,
    /// Whether the page may act.
    acts: bool,
    broadcasters: Vec<Figures>,
}

#[derive(Serialize)]
struct Figures {
    name: String,
    sends: bool,
    stats: Stats,
}

impl Default for Feed {
    fn default() -> Self {
        let live = GenericBroadcaster::builder()
            .ring_capacity(4)
            .connections_per_user(MOST_PAGES)
            .total_connections(MOST_PAGES)
            .lag_policy(LagPolicy::Coalesce)
            .build();
        Self {
            live: live.expect("the settings are valid"),
            running: Mutex::new(None),
        }
    }
}

impl Feed {
    /// Opens a page's stream, and starts the task if it does not run. If it does, the stream begins with a snapshot, since the
    /// task's next one may be far off.
    ///
    /// The page is registered before the lock is taken. Either the task checks after that, and finds the page; or it has
    /// found none and counts as ended, and another task is started here.
    pub(super) fn open(
        self: &Arc<Self>,
        sources: &Sources,
        every: Duration,
        acts: bool,
    ) -> Result<(Subscription, Page), RegisterError> {
        let page = self.live.register(PAGES)?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match *running {
            Some(start) => Frame::encode(&snapshot(sources, start, every, acts)).ok(),
            None => {
                let start = Instant::now();
                *running = Some(start);
                tokio::spawn(self.clone().run(sources.clone(), start, every, acts));
                None
            }
        };
        Ok((page, Page(first)))
    }

    async fn run(self: Arc<Self>, sources: Sources, start: Instant, every: Duration, acts: bool) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.is_watched() {
                return;
            }
            let event = snapshot(&sources, start, every, acts);
            if let Err(error) = self.live.broadcast(PAGES, &event) {
                tracing::warn!(error = error.to_string(), "no snapshot was sent");
            }
        }
    }

    /// Whether there is a page. If there is none, the task counts as ended from now on.
    fn is_watched(&self) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if self.live.total_connections() == 0 {
            *running = None;
        }
        running.is_some()
    }

    pub(super) async fn shutdown(&self) {
        self.live.shutdown(Duration::ZERO).await;
    }
}

fn snapshot(sources: &Sources, start: Instant, every: Duration, acts: bool) -> JsonEvent<Snapshot> {
    let snapshot = Snapshot {
        at_ms: start.elapsed().as_millis() as u64,
        interval_ms: every.as_millis() as u64,
        acts,
        broadcasters: sources.iter().map(Figures::of).collect(),
    };
    JsonEvent::new(snapshot).event("snapshot").key("snapshot")
}

/// What a page's stream begins with, and the snapshots after that.
pub(super) struct Page(Option<Frame>);

impl View for Page {
    fn begin(&mut self, chunks: &mut Chunks) -> ControlFlow<()> {
        if let Some(first) = self.0.take() {
            chunks.push(first.to_bytes());
        }
        ControlFlow::Continue(())
    }

    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        chunks.push(frame.to_bytes());
        ControlFlow::Continue(())
    }
}

impl Figures {
    fn of((name, source): (&str, &dyn Source)) -> Self {
        Self {
            name: name.to_owned(),
            sends: source.sends(),
            stats: source.stats(),
        }
    }
}
