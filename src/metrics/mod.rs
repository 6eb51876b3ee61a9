//! Counts of what a broadcaster does: [`Stats`], and with the feature `metrics` the same for Prometheus and others.
//!
//! A broadcaster counts in its own counters, relaxed and spread over cache lines, whether or not anybody reads them:
//! [`stats`](crate::GenericBroadcaster::stats) reads them. With the feature `metrics` they are copied to the recorder
//! that the process has installed for the crate [`metrics`](https://docs.rs/metrics): [when
//! asked](crate::GenericBroadcaster#method.report_metrics), for example before each scrape, or [at an
//! interval](crate::Builder#method.report_metrics_every). A broadcast therefore pays only for the samples below.
//!
//! | name | kind | labels besides `broadcaster` | what it is |
//! |---|---|---|---|
//! | `tidings_connections` | gauge | | [`connections`](Stats::connections) |
//! | `tidings_users` | gauge | | [`users`](Stats::users) |
//! | `tidings_away_users` | gauge | | [`away`](Stats::away) |
//! | `tidings_away_bytes` | gauge | | [`away_bytes`](Stats::away_bytes) |
//! | `tidings_history_bytes` | gauge | | [`history_bytes`](Stats::history_bytes) |
//! | `tidings_registered_total` | counter | | [`registered`](Stats::registered) |
//! | `tidings_refused_total` | counter | `reason`: `user_full`, `total_full`, `id_in_use`, `shutting_down` | [`refusals`](Stats::refusals) |
//! | `tidings_ended_total` | counter | `reason`: the [names](crate::EndReason::as_str) of `EndReason` | [`ended`](Stats::ended) |
//! | `tidings_broadcasts_total` | counter | | [`broadcasts`](Stats::broadcasts) |
//! | `tidings_encoded_total` | counter | | [`encoded`](Stats::encoded) |
//! | `tidings_encoded_bytes_total` | counter | | [`encoded_bytes`](Stats::encoded_bytes) |
//! | `tidings_failed_total` | counter | | [`failed`](Stats::failed) |
//! | `tidings_deliveries_total` | counter | | [`deliveries`](Stats::deliveries) |
//! | `tidings_lagged_events_total` | counter | | [`lagged`](Stats::lagged) |
//! | `tidings_healed_events_total` | counter | | [`healed`](Stats::healed) |
//! | `tidings_replayed_events_total` | counter | | [`replayed`](Stats::replayed) |
//! | `tidings_evicted_events_total` | counter | | [`evicted`](Stats::evicted) |
//! | `tidings_gaps_total` | counter | `reason`: `lagged`, `evicted`, `epoch`, `backplane` | [`gaps`](Stats::gaps) |
//! | `tidings_backplane_connected` | gauge | | [`connected`](BackplaneStats::connected), with a backplane as all that follow |
//! | `tidings_backplane_queued` | gauge | | [`queued`](BackplaneStats::queued) |
//! | `tidings_backplane_lag_seconds` | gauge | | [`lag_ms`](BackplaneStats::lag_ms) |
//! | `tidings_backplane_users` | gauge | | [`users`](BackplaneStats::users) |
//! | `tidings_backplane_unheard_users` | gauge | | [`unheard`](BackplaneStats::unheard) |
//! | `tidings_backplane_published_total` | counter | | [`published`](BackplaneStats::published) |
//! | `tidings_backplane_lost_total` | counter | `reason`: `refused`, `unconfirmed` | [`refused`](BackplaneStats::refused), [`unconfirmed`](BackplaneStats::unconfirmed) |
//! | `tidings_backplane_received_total` | counter | | [`received`](BackplaneStats::received) |
//! | `tidings_backplane_dropped_total` | counter | `reason`: `foreign`, `echo`, `duplicate`, `unwanted` | [`dropped`](BackplaneStats::dropped) and those after it |
//! | `tidings_backplane_holes_total` | counter | | [`holes`](BackplaneStats::holes) |
//! | `tidings_backplane_fetched_total` | counter | | [`fetched`](BackplaneStats::fetched) |
//! | `tidings_fanout_streams` | histogram, sampled | | how many streams a broadcast reached |
//! | `tidings_publish_to_write_seconds` | histogram, sampled | | from the broadcast to when a stream takes the event to write it |
//! | `tidings_stalls_total` | counter | `what`: `socket`, `stream`; `reason`: `stalled`, `grace_period`; no `broadcaster` | `serve::Stalls`, of the whole process (feature `serve`), whenever one is added |
//!
//! The label `broadcaster` is the broadcaster's [name](crate::Builder::name). No label contains a user's id.
//!
//! # Samples
//!
//! The histograms sample the broadcasts that reach a stream, except ephemeral ones: a random one in 64, and the first of each
//! thread. The others only change a counter of their thread. Each stream that gets a sampled event adds one time to
//! `tidings_publish_to_write_seconds`, so users with many streams weigh more there. The time ends when the body of the
//! response hands the bytes to the server, which asks for them when the client has taken the previous ones. The figure
//! therefore includes waiting for a slow client, but not the time on the wire. Events replayed to a client that reconnects
//! are not sampled.
//!
//! The recorder decides on buckets or quantiles. `metrics-exporter-prometheus` keeps every value until the next scrape,
//! or `run_upkeep`.
//!
//! # Traces
//!
//! An event can carry the W3C `traceparent` of its publisher: [`TraceParent`](crate::TraceParent).

mod counters;
#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "metrics")]
mod sample;
#[cfg(not(feature = "metrics"))]
#[path = "no_sample.rs"]
mod sample;
mod stats;

pub(crate) use counters::Counters;
#[allow(
    unused_imports,
    reason = "counted by the broadcaster, which loom leaves out"
)]
pub(crate) use counters::StripedCounter;
#[cfg(feature = "metrics")]
pub use facade::describe;
#[cfg(feature = "metrics")]
#[allow(
    unused_imports,
    reason = "reported by the broadcaster, which loom leaves out"
)]
pub(crate) use facade::{report, report_gone};
pub(crate) use sample::Sample;
#[allow(
    unused_imports,
    reason = "sampled by the broadcaster, which loom leaves out"
)]
pub(crate) use sample::fanned_out;
pub use stats::{BackplaneStats, Ends, Gaps, Refusals, Stats};
