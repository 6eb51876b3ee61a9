//! Exports the counters to the recorder that the process has installed for the crate [`metrics`](::metrics).
//!
//! A report copies totals that are counted anyway. It looks handles up each time, since a recorder may be installed after the
//! broadcaster was built; once a second, that costs nothing measurable.

use ::metrics::{Unit, counter, gauge};

use super::{BackplaneStats, Stats};
use crate::end::EndReason;

pub(super) const LABEL: &str = "broadcaster";
pub(super) const FANOUT: &str = "tidings_fanout_streams";
pub(super) const PUBLISH_TO_WRITE: &str = "tidings_publish_to_write_seconds";

/// Describes the metrics to the recorder; exporters show the descriptions as help texts. Call it once, after the
/// recorder has been installed.
pub fn describe() {
    use ::metrics::{describe_counter, describe_gauge, describe_histogram};

    let gauges = [
        (
            "tidings_connections",
            Unit::Count,
            "Connections that are open",
        ),
        ("tidings_users", Unit::Count, "Users that have a connection"),
        (
            "tidings_away_users",
            Unit::Count,
            "Users that have none, and whose history is kept",
        ),
        (
            "tidings_away_bytes",
            Unit::Bytes,
            "Bytes of history that are kept for users who are away",
        ),
        (
            "tidings_history_bytes",
            Unit::Bytes,
            "Bytes that are kept in all histories",
        ),
        (
            "tidings_backplane_connected",
            Unit::Count,
            "Whether the engine between nodes can be reached, 1 or 0",
        ),
        (
            "tidings_backplane_queued",
            Unit::Count,
            "Events that wait to be published to other nodes",
        ),
        (
            "tidings_backplane_lag_seconds",
            Unit::Seconds,
            "For how long what is being published has waited for the engine",
        ),
        (
            "tidings_backplane_unheard_users",
            Unit::Count,
            "Users whose events do not arrive although the engine can be reached",
        ),
        (
            "tidings_backplane_users",
            Unit::Count,
            "Users whose events this node gets",
        ),
    ];
    for (name, unit, text) in gauges {
        describe_gauge!(name, unit, text);
    }
    let counters = [
        (
            "tidings_registered_total",
            Unit::Count,
            "Connections that were let in",
        ),
        (
            "tidings_refused_total",
            Unit::Count,
            "Connections that were refused, by reason",
        ),
        (
            "tidings_ended_total",
            Unit::Count,
            "Connections that have left, by the reason why they ended",
        ),
        (
            "tidings_broadcasts_total",
            Unit::Count,
            "Calls to broadcast",
        ),
        (
            "tidings_encoded_total",
            Unit::Count,
            "Broadcasts that were encoded",
        ),
        (
            "tidings_encoded_bytes_total",
            Unit::Bytes,
            "Bytes of events that were encoded",
        ),
        (
            "tidings_failed_total",
            Unit::Count,
            "Broadcasts that could not be encoded",
        ),
        (
            "tidings_deliveries_total",
            Unit::Count,
            "Streams reached, added up over all broadcasts",
        ),
        (
            "tidings_lagged_events_total",
            Unit::Count,
            "Events that streams lost by falling behind",
        ),
        (
            "tidings_healed_events_total",
            Unit::Count,
            "Events read from the history instead of being lost",
        ),
        (
            "tidings_replayed_events_total",
            Unit::Count,
            "Events read from the history by clients that came back",
        ),
        (
            "tidings_evicted_events_total",
            Unit::Count,
            "Events that the history had dropped when they were asked for",
        ),
        (
            "tidings_gaps_total",
            Unit::Count,
            "Gaps that streams came to, by reason",
        ),
        (
            "tidings_backplane_published_total",
            Unit::Count,
            "Messages that the engine has accepted",
        ),
        (
            "tidings_backplane_lost_total",
            Unit::Count,
            "Events that other nodes did not get, or may not have got, by reason",
        ),
        (
            "tidings_backplane_received_total",
            Unit::Count,
            "Messages that came from the engine",
        ),
        (
            "tidings_backplane_dropped_total",
            Unit::Count,
            "Messages that came from the engine and were dropped, by reason",
        ),
        (
            "tidings_backplane_holes_total",
            Unit::Count,
            "Messages that came before another that belongs in front of them",
        ),
        (
            "tidings_backplane_fetched_total",
            Unit::Count,
            "Events that were read from the engine's log",
        ),
        (
            "tidings_stalls_total",
            Unit::Count,
            "Connections and streams that the server ended because nothing was taken",
        ),
    ];
    for (name, unit, text) in counters {
        describe_counter!(name, unit, text);
    }
    describe_histogram!(
        FANOUT,
        Unit::Count,
        "Streams that a broadcast reached, sampled"
    );
    describe_histogram!(
        PUBLISH_TO_WRITE,
        Unit::Seconds,
        "From the broadcast to when a stream takes the event to write it, sampled"
    );
}

/// Copies the figures of a broadcaster.
pub(crate) fn report(broadcaster: &'static str, stats: &Stats) {
    report_present(broadcaster, stats);
    let totals = [
        ("tidings_registered_total", stats.registered),
        ("tidings_broadcasts_total", stats.broadcasts),
        ("tidings_encoded_total", stats.encoded),
        ("tidings_encoded_bytes_total", stats.encoded_bytes),
        ("tidings_failed_total", stats.failed),
        ("tidings_deliveries_total", stats.deliveries),
        ("tidings_lagged_events_total", stats.lagged),
        ("tidings_healed_events_total", stats.healed),
        ("tidings_replayed_events_total", stats.replayed),
        ("tidings_evicted_events_total", stats.evicted),
    ];
    for (name, total) in totals {
        counter!(name, LABEL => broadcaster).absolute(total);
    }
    let by_reason = [
        (
            "tidings_refused_total",
            "user_full",
            stats.refusals.user_full,
        ),
        (
            "tidings_refused_total",
            "total_full",
            stats.refusals.total_full,
        ),
        (
            "tidings_refused_total",
            "id_in_use",
            stats.refusals.id_in_use,
        ),
        (
            "tidings_refused_total",
            "shutting_down",
            stats.refusals.shutting_down,
        ),
        ("tidings_gaps_total", "lagged", stats.gaps.lagged),
        ("tidings_gaps_total", "evicted", stats.gaps.evicted),
        ("tidings_gaps_total", "epoch", stats.gaps.epoch),
        ("tidings_gaps_total", "backplane", stats.gaps.backplane),
    ];
    for (name, reason, total) in by_reason {
        counter!(name, LABEL => broadcaster, "reason" => reason).absolute(total);
    }
    for reason in EndReason::ALL {
        let total = stats.ended.get(reason);
        counter!("tidings_ended_total", LABEL => broadcaster, "reason" => reason.as_str())
            .absolute(total);
    }
    if let Some(backplane) = &stats.backplane {
        report_backplane(broadcaster, backplane);
    }
}

fn report_backplane(broadcaster: &'static str, stats: &BackplaneStats) {
    let levels = [
        (
            "tidings_backplane_connected",
            f64::from(u8::from(stats.connected)),
        ),
        ("tidings_backplane_queued", stats.queued as f64),
        (
            "tidings_backplane_lag_seconds",
            stats.lag_ms as f64 / 1000.0,
        ),
        ("tidings_backplane_users", stats.users as f64),
        ("tidings_backplane_unheard_users", stats.unheard as f64),
    ];
    for (name, level) in levels {
        gauge!(name, LABEL => broadcaster).set(level);
    }
    let totals = [
        ("tidings_backplane_published_total", stats.published),
        ("tidings_backplane_received_total", stats.received),
        ("tidings_backplane_holes_total", stats.holes),
        ("tidings_backplane_fetched_total", stats.fetched),
    ];
    for (name, total) in totals {
        counter!(name, LABEL => broadcaster).absolute(total);
    }
    let by_reason = [
        ("tidings_backplane_lost_total", "refused", stats.refused),
        (
            "tidings_backplane_lost_total",
            "unconfirmed",
            stats.unconfirmed,
        ),
        ("tidings_backplane_dropped_total", "foreign", stats.dropped),
        ("tidings_backplane_dropped_total", "echo", stats.echoes),
        (
            "tidings_backplane_dropped_total",
            "duplicate",
            stats.duplicates,
        ),
        (
            "tidings_backplane_dropped_total",
            "unwanted",
            stats.unwanted,
        ),
    ];
    for (name, reason, total) in by_reason {
        counter!(name, LABEL => broadcaster, "reason" => reason).absolute(total);
    }
}

/// Copies the gauges, as opposed to the counters.
fn report_present(broadcaster: &'static str, stats: &Stats) {
    let levels = [
        ("tidings_connections", stats.connections),
        ("tidings_users", stats.users),
        ("tidings_away_users", stats.away),
        ("tidings_away_bytes", stats.away_bytes),
        ("tidings_history_bytes", stats.history_bytes),
    ];
    for (name, level) in levels {
        gauge!(name, LABEL => broadcaster).set(level as f64);
    }
}

/// Sets the gauges to zero when the broadcaster is dropped.
pub(crate) fn report_gone(broadcaster: &'static str) {
    report_present(broadcaster, &Stats::default());
}
