//! The runs of other hubs. Each hub announces all of its runs whenever one begins or ends, and every few seconds. A hub that
//! misses a notice gets the same from the next one. A hub that is silent for long has ended.
//!
//! A request that reaches another hub before the notice does is answered as if there were no such run. Of two hubs that are
//! asked for one run within those milliseconds, both begin it. A service has the runs in its database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidings::{GenericBroadcaster, Subscription, Text};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::StreamExt;

use super::runs::{Phase, Record, Runs};

const EVERY: Duration = Duration::from_secs(5);

/// After so much silence nobody is left who could end the runs of a hub.
const SILENCE: Duration = Duration::from_secs(20);

/// The runs of the other hubs, by the hubs' names.
#[derive(Default)]
pub(super) struct Elsewhere(HashMap<String, Other>);

struct Other {
    heard: Instant,
    runs: HashMap<String, Record>,
}

#[derive(Serialize, Deserialize)]
struct Notice {
    hub: String,
    /// By their channels. None: as before.
    runs: Option<HashMap<String, Record>>,
}

impl Elsewhere {
    pub(super) fn runs(&self) -> impl Iterator<Item = (&str, &Record)> {
        let runs = self.0.values().flat_map(|other| &other.runs);
        runs.map(|(channel, record)| (&**channel, record))
    }

    pub(super) fn find(&self, channel: &str) -> Option<&Record> {
        self.0.values().find_map(|other| other.runs.get(channel))
    }

    /// Notes that a run has ended, until its hub says so. `false` if it is not known as under way.
    pub(super) fn end(&mut self, channel: &str, phase: Phase) -> bool {
        let mut others = self.0.values_mut();
        let record = others.find_map(|other| other.runs.get_mut(channel));
        match record {
            Some(record) if record.phase == Phase::UnderWay => {
                record.phase = phase;
                true
            }
            _ => false,
        }
    }

    /// Whether the hub was not known before.
    fn hear(&mut self, notice: Notice) -> bool {
        let is_new = !self.0.contains_key(&notice.hub);
        let other = self.0.entry(notice.hub).or_insert_with(|| Other {
            heard: Instant::now(),
            runs: HashMap::new(),
        });
        other.heard = Instant::now();
        if let Some(runs) = notice.runs {
            other.runs = runs;
        }
        is_new
    }

    /// Starts over to wait for all of them.
    fn wait_anew(&mut self) {
        for other in self.0.values_mut() {
            other.heard = Instant::now();
        }
    }

    /// Forgets the hubs that are silent, and returns the channels of the runs that they had under way.
    fn forget_silent(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        self.0.retain(|_, other| {
            let is_silent = other.heard.elapsed() >= SILENCE;
            if is_silent {
                let runs = other.runs.drain();
                let under_way = runs.filter(|(_, record)| record.phase == Phase::UnderWay);
                left.extend(under_way.map(|(channel, _)| channel));
            }
            !is_silent
        });
        left
    }
}

/// Says which runs this hub has, and hears of those of others, until `notices` shut down.
///
/// A hub that does not hear its own notices does not hear those of others either, so it takes nobody for silent, and once it
/// hears itself again, the others have as long as ever.
pub(super) async fn talk<E: 'static>(
    runs: Runs<E>,
    notices: GenericBroadcaster<Text>,
    channel: &'static str,
    mut heard: Subscription,
    changed: Arc<Notify>,
) {
    let hub = heard.guard().connection_id().as_str().to_owned();
    let mut heard_itself = Instant::now();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            item = heard.next() => {
                match item {
                    None => return,
                    // The next notice has all of it.
                    Some(Err(_)) => {}
                    Some(Ok(frame)) => match serde_json::from_str::<Notice>(&frame.data()) {
                        Ok(notice) if notice.hub == hub => {
                            if heard_itself.elapsed() > 2 * EVERY {
                                runs.lock().elsewhere.wait_anew();
                            }
                            heard_itself = Instant::now();
                        }
                        // A hub that has just begun knows of nobody yet.
                        Ok(notice) => if runs.lock().elsewhere.hear(notice) {
                            changed.notify_one();
                        },
                        Err(error) => tracing::warn!(error = error.to_string(), "a notice of another hub cannot be read"),
                    },
                }
                continue;
            }
            _ = ticks.tick() => {}
            () = changed.notified() => {}
        }
        let say = |runs| {
            let hub = hub.clone();
            let notice = json!(Notice { hub, runs }).to_string();
            notices.broadcast(channel, &Text::new(notice))
        };
        if let Err(error) = say(Some(runs.own())) {
            tracing::warn!(
                error = error.to_string(),
                "other hubs were not notified of the runs"
            );
            // They may be too many for one event. That the hub is there is said in any case.
            let _ = say(None);
        }
        if heard_itself.elapsed() > 2 * EVERY {
            continue;
        }
        let left = runs.lock().elsewhere.forget_silent();
        for run in left {
            tracing::warn!(run, "a run ends: its hub is silent");
            if let Err(error) = runs.hub().complete(&run) {
                tracing::warn!(error = error.to_string(), "a run did not end");
            }
        }
    }
}
