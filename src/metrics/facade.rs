//! Exports the counters to the recorder that the process has installed for the crate [`metrics`](::metrics).
//!
//! A report copies totals that are counted anyway. It looks handles up each time, since a recorder may be installed after the
//! broadcaster was built; once a second, that costs nothing measurable.

use ::metrics::Unit::{self, Bytes, Count, Seconds};
use ::metrics::{counter, gauge};

use self::Figure::{ByReason, Gauge, Total};
use super::Stats;

pub(super) const LABEL: &str = "broadcaster";
pub(super) const FANOUT: &str = "tidings_fanout_streams";
pub(super) const PUBLISH_TO_WRITE: &str = "tidings_publish_to_write_seconds";

/// Reads a figure: `None` for the backplane's without a backplane.
type Read<T> = fn(&Stats) -> Option<T>;

enum Figure {
    Gauge(Read<f64>),
    Total(Read<u64>),
    ByReason(Read<Vec<(&'static str, u64)>>),
}

/// The figures of a broadcaster.
#[rustfmt::skip]
const METRICS: &[(&str, Unit, &str, Figure)] = &[
    ("tidings_connections", Count, "Connections that are open", Gauge(|s| Some(s.connections as f64))),
    ("tidings_users", Count, "Users that have a connection", Gauge(|s| Some(s.users as f64))),
    ("tidings_away_users", Count, "Users that have none, and whose history is kept", Gauge(|s| Some(s.away as f64))),
    ("tidings_away_bytes", Bytes, "Bytes of history that are kept for users who are away", Gauge(|s| Some(s.away_bytes as f64))),
    ("tidings_history_bytes", Bytes, "Bytes that are kept in all histories", Gauge(|s| Some(s.history_bytes as f64))),
    ("tidings_registered_total", Count, "Connections that were let in", Total(|s| Some(s.registered))),
    ("tidings_refused_total", Count, "Connections that were refused, by reason",
        ByReason(|s| Some(vec![("user_full", s.refusals.user_full), ("total_full", s.refusals.total_full),
            ("id_in_use", s.refusals.id_in_use), ("shutting_down", s.refusals.shutting_down)]))),
    ("tidings_ended_total", Count, "Connections that have left, by the reason why they ended",
        ByReason(|s| Some(s.ended.by_name().into()))),
    ("tidings_broadcasts_total", Count, "Calls to broadcast", Total(|s| Some(s.broadcasts))),
    ("tidings_encoded_total", Count, "Broadcasts that were encoded", Total(|s| Some(s.encoded))),
    ("tidings_encoded_bytes_total", Bytes, "Bytes of events that were encoded", Total(|s| Some(s.encoded_bytes))),
    ("tidings_failed_total", Count, "Broadcasts that could not be encoded", Total(|s| Some(s.failed))),
    ("tidings_deliveries_total", Count, "Streams reached, added up over all broadcasts", Total(|s| Some(s.deliveries))),
    ("tidings_lagged_events_total", Count, "Events that streams lost by falling behind", Total(|s| Some(s.lagged))),
    ("tidings_healed_events_total", Count, "Events read from the history instead of being lost", Total(|s| Some(s.healed))),
    ("tidings_replayed_events_total", Count, "Events read from the history by clients that came back", Total(|s| Some(s.replayed))),
    ("tidings_evicted_events_total", Count, "Events that the history had dropped when they were asked for", Total(|s| Some(s.evicted))),
    ("tidings_gaps_total", Count, "Gaps that streams came to, by reason",
        ByReason(|s| Some(vec![("lagged", s.gaps.lagged), ("evicted", s.gaps.evicted), ("epoch", s.gaps.epoch), ("backplane", s.gaps.backplane)]))),
    ("tidings_backplane_connected", Count, "Whether the engine between nodes can be reached, 1 or 0", Gauge(|s| Some(s.backplane?.connected.into()))),
    ("tidings_backplane_queued", Count, "Events that wait to be published to other nodes", Gauge(|s| Some(s.backplane?.queued as f64))),
    ("tidings_backplane_lag_seconds", Seconds, "For how long what is being published has waited for the engine", Gauge(|s| Some(s.backplane?.lag_ms as f64 / 1000.0))),
    ("tidings_backplane_users", Count, "Users whose events this node gets", Gauge(|s| Some(s.backplane?.users as f64))),
    ("tidings_backplane_unheard_users", Count, "Users whose events do not arrive although the engine can be reached", Gauge(|s| Some(s.backplane?.unheard as f64))),
    ("tidings_backplane_published_total", Count, "Messages that the engine has accepted", Total(|s| Some(s.backplane?.published))),
    ("tidings_backplane_lost_total", Count, "Events that other nodes did not get, or may not have got, by reason",
        ByReason(|s| Some(vec![("refused", s.backplane?.refused), ("unconfirmed", s.backplane?.unconfirmed)]))),
    ("tidings_backplane_received_total", Count, "Messages that came from the engine", Total(|s| Some(s.backplane?.received))),
    ("tidings_backplane_dropped_total", Count, "Messages that came from the engine and were dropped, by reason",
        ByReason(|s| Some(vec![("foreign", s.backplane?.dropped), ("echo", s.backplane?.echoes), ("duplicate", s.backplane?.duplicates), ("unwanted", s.backplane?.unwanted)]))),
    ("tidings_backplane_holes_total", Count, "Messages that came before another that belongs in front of them", Total(|s| Some(s.backplane?.holes))),
    ("tidings_backplane_fetched_total", Count, "Events that were read from the engine's log", Total(|s| Some(s.backplane?.fetched))),
];

/// Describes the metrics to the recorder; exporters show the descriptions as help texts. Call it once, after the
/// recorder has been installed.
pub fn describe() {
    use ::metrics::{describe_counter, describe_gauge, describe_histogram};

    for (name, unit, text, figure) in METRICS {
        match figure {
            Gauge(_) => describe_gauge!(*name, *unit, *text),
            Total(_) | ByReason(_) => describe_counter!(*name, *unit, *text),
        }
    }
    // The server counts these: they belong to no broadcaster.
    describe_counter!(
        "tidings_stalls_total",
        Count,
        "Connections and streams that the server ended because nothing was taken"
    );
    describe_histogram!(FANOUT, Count, "Streams that a broadcast reached, sampled");
    describe_histogram!(
        PUBLISH_TO_WRITE,
        Seconds,
        "From the broadcast to when a stream takes the event to write it, sampled"
    );
}

/// Copies the figures of a broadcaster.
pub(crate) fn report(broadcaster: &'static str, stats: &Stats) {
    report_gauges(broadcaster, stats);
    for (name, _, _, figure) in METRICS {
        match figure {
            Gauge(_) => {}
            Total(total) => {
                if let Some(total) = total(stats) {
                    counter!(*name, LABEL => broadcaster).absolute(total);
                }
            }
            ByReason(totals) => {
                for (reason, total) in totals(stats).unwrap_or_default() {
                    counter!(*name, LABEL => broadcaster, "reason" => reason).absolute(total);
                }
            }
        }
    }
}

/// Sets the gauges to zero when the broadcaster is dropped.
pub(crate) fn report_gone(broadcaster: &'static str) {
    report_gauges(broadcaster, &Stats::default());
}

fn report_gauges(broadcaster: &'static str, stats: &Stats) {
    for (name, _, _, figure) in METRICS {
        if let Gauge(level) = figure {
            if let Some(level) = level(stats) {
                gauge!(*name, LABEL => broadcaster).set(level);
            }
        }
    }
}
