//! `GET /metrics`: what the hub counts, in the text format of Prometheus.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidings::protocol::agui::AgUiEvent;
use tidings::{EventRouter, GenericBroadcaster, Text};
use tidings_aisdk::Chunk;

/// Seconds, for the time from a broadcast to the write: from what a quiet machine takes to what nobody waits for.
const TIMES: [f64; 10] = [
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0,
];
const STREAMS: [f64; 6] = [1.0, 2.0, 5.0, 10.0, 100.0, 1000.0];

/// Installs the recorder of this process, and serves what it has.
pub(crate) fn router(
    text: GenericBroadcaster<Text>,
    events: EventRouter,
    runs: GenericBroadcaster<AgUiEvent>,
    chats: GenericBroadcaster<Chunk>,
) -> io::Result<Router> {
    let page = install().map_err(io::Error::other)?;
    tidings::metrics::describe();
    // What is recorded between two scrapes would otherwise be kept one by one, also if nobody ever comes.
    let kept = page.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        loop {
            ticks.tick().await;
            kept.run_upkeep();
        }
    });
    let render = move || {
        // Seven broadcasters, each under its name. Asked for now, so that the page is as it is now.
        text.report_metrics();
        events.agui().report_metrics();
        events.a2a().report_metrics();
        events.context().report_metrics();
        events.analytics().report_metrics();
        runs.report_metrics();
        chats.report_metrics();
        let text = page.render();
        async { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    Ok(Router::new().route("/metrics", get(render)))
}

fn install() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let times = Matcher::Full("tidings_publish_to_write_seconds".into());
    let streams = Matcher::Full("tidings_fanout_streams".into());
    PrometheusBuilder::new()
        .set_buckets_for_metric(times, &TIMES)?
        .set_buckets_for_metric(streams, &STREAMS)?
        .install_recorder()
}
