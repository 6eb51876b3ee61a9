//! The counters, and what a recorder gets of them.

use std::time::Duration;

use tidings::backplane::Level;
use tidings::sse::{Chunks, View};
use tidings::{
    Builder, ConnectionId, EndReason, Frame, GenericBroadcaster, History, LagPolicy, LastEventId,
    RegisterError, SseBody, Text,
};
use tidings_testkit::backplane::InProcess;
use tokio::time::Instant;
use tokio_stream::StreamExt;

type Hub = GenericBroadcaster<Text>;

fn text(text: &str) -> Text {
    Text::new(text)
}

#[tokio::test]
async fn refusals_are_counted_by_reason() {
    let builder: Builder<Text> = GenericBroadcaster::builder();
    let hub = builder
        .connections_per_user(1)
        .total_connections(2)
        .build()
        .expect("the settings are valid");
    let id = ConnectionId::generate();
    let _ann = hub.register_as("ann", id.clone()).expect("there is room");
    assert!(matches!(
        hub.register_as("ann", id),
        Err(RegisterError::ConnectionIdInUse)
    ));
    assert!(matches!(
        hub.register("ann"),
        Err(RegisterError::UserFull { .. })
    ));
    let _bob = hub.register("bob").expect("there is room");
    for _ in 0..3 {
        assert!(matches!(
            hub.register("eve"),
            Err(RegisterError::TotalFull { .. })
        ));
    }
    hub.shutdown(Duration::ZERO).await;
    assert!(matches!(
        hub.register("eve"),
        Err(RegisterError::ShuttingDown { .. })
    ));
    let stats = hub.stats();
    let refusals = stats.refusals;
    assert_eq!((refusals.user_full, refusals.total_full), (1, 3));
    assert_eq!((refusals.id_in_use, refusals.shutting_down), (1, 1));
    assert_eq!((stats.refused, refusals.total()), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn ends_are_counted_by_reason() {
    let builder: Builder<Text> = GenericBroadcaster::builder();
    let hub = builder
        .patience(1, Duration::from_secs(10))
        .build()
        .expect("the settings are valid");
    let _stuck = hub.register("ann").expect("there is no cap");
    let in_a_minute = Instant::now() + Duration::from_secs(60);
    let _overdue = hub
        .register("bob")
        .expect("there is no cap")
        .deadline(in_a_minute);
    hub.broadcast("ann", &text("one")).expect("text");
    hub.broadcast("ann", &text("two")).expect("text");
    hub.sweep();
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(hub.sweep(), 1);
    let ended = hub.stats().ended;
    let counts = [EndReason::Behind, EndReason::Deadline].map(|reason| ended.get(reason));
    assert_eq!(counts, [1, 0]);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(hub.sweep(), 1);
    drop(hub.register("eve"));
    let stats = hub.stats();
    let ended = stats.ended;
    let json = serde_json::to_string(&ended).expect("numbers");
    let counts = concat!(
        r#"{"dropped":1,"completed":0,"unregistered":0,"disconnected":0,"drained":0,"#,
        r#""forgotten":0,"behind":1,"gap":0,"deadline":1,"shutdown":0}"#
    );
    assert_eq!(json, counts);
    assert_eq!((ended.total(), stats.registered), (3, 3));
}

#[tokio::test]
async fn gaps_are_counted_by_reason_whatever_the_policy() {
    let builder: Builder<Text> = GenericBroadcaster::builder();
    let hub = builder
        .ring_capacity(2)
        .history(History::new(2))
        .build()
        .expect("the settings are valid");
    let mut slow = hub.register("ann").expect("there is no cap");
    let mut strict = hub
        .register("ann")
        .expect("there is no cap")
        .lag_policy(LagPolicy::End);
    let start = LastEventId::new(&slow.cursor().expect("there is a history"));
    for n in 0..5 {
        hub.broadcast("ann", &text(&n.to_string())).expect("text");
    }
    assert!(slow.next().await.expect("it is open").is_err());
    assert!(strict.next().await.is_none());
    let mut late = hub.resume("ann", &start).expect("there is no cap");
    assert!(late.next().await.expect("it is open").is_err());
    let mut lost = hub
        .resume("ann", &LastEventId::new("elsewhere"))
        .expect("there is no cap");
    assert!(lost.next().await.expect("it is open").is_err());
    let gaps = hub.stats().gaps;
    assert_eq!((gaps.lagged, gaps.evicted, gaps.epoch), (2, 1, 1));
}

#[test]
fn bytes_are_those_of_the_wire_each_counted_once() {
    let hub = Hub::new();
    let _tabs = [hub.register("ann"), hub.register("ann")];
    hub.broadcast("ann", &text("hello")).expect("text");
    hub.broadcast("nobody", &text("hello")).expect("text");
    assert_eq!(hub.stats().encoded_bytes, "data: hello\n\n".len() as u64);

    let builder: Builder<Text> = GenericBroadcaster::builder();
    let hub = builder
        .history(History::new(1))
        .build()
        .expect("the settings are valid");
    let tab = hub.register("ann").expect("there is no cap");
    let id = tab.cursor().expect("there is a history").to_string();
    hub.broadcast("ann", &text("hello")).expect("text");
    // The epoch is the same, the offset is one digit in both.
    let wire = format!("id: {id}\ndata: hello\n\n");
    assert_eq!(hub.stats().encoded_bytes, wire.len() as u64);
}

#[test]
fn history_bytes_are_what_is_kept_and_none_when_all_is_forgotten() {
    let builder: Builder<Text> = GenericBroadcaster::builder();
    let history = History::new(3).linger(Duration::from_secs(60));
    let hub = builder
        .history(history)
        .build()
        .expect("the settings are valid");
    let tabs: Vec<_> = (0..20)
        .map(|n| hub.register(n.to_string()).expect("there is no cap"))
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let hub = &hub;
            scope.spawn(move || {
                for user in 0..20 {
                    for n in 0..5 {
                        let event = text(&"x".repeat(thread + n));
                        hub.broadcast(&user.to_string(), &event).expect("text");
                    }
                }
            });
        }
    });
    let kept = hub.stats().history_bytes;
    assert!((20 * 3 * 192..20 * 3 * 320).contains(&kept), "{kept}");
    assert_eq!(hub.stats().away_bytes, 0);
    drop(tabs);
    let stats = hub.stats();
    assert_eq!((stats.history_bytes, stats.away_bytes), (kept, kept));
    for user in 0..20 {
        hub.forget(&user.to_string());
    }
    // The map's snapshots are dropped with the last look at them, which was ours.
    assert_eq!(hub.stats().history_bytes, 0);
}

#[cfg(feature = "metrics")]
mod recorder {
    use std::ops::ControlFlow;
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use http_body::Body;
    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

    use super::*;

    fn recorder() -> PrometheusRecorder {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Prefix("tidings_".into()), &[0.2, 0.3, 2.0, 3.0])
            .expect("there are buckets")
            .build_recorder()
    }

    fn named(name: &'static str) -> Builder<Text> {
        GenericBroadcaster::builder().name(name)
    }

    fn poll(body: &mut SseBody) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(body).poll_frame(&mut cx).is_ready()
    }

    #[track_caller]
    fn assert_has(page: &str, line: &str) {
        assert!(
            page.lines().any(|other| other == line),
            "no {line:?} in\n{page}"
        );
    }

    #[test]
    fn a_report_copies_totals_and_levels_under_the_broadcasters_name() {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || {
            let chat = named("chat").build().expect("the settings are valid");
            let news = named("news").build().expect("the settings are valid");
            let tab = chat.register("ann").expect("there is no cap");
            chat.broadcast("ann", &text("hello")).expect("text");
            for _ in 0..2 {
                chat.report_metrics();
                news.report_metrics();
            }
            let page = recorder.handle().render();
            assert_has(&page, "tidings_connections{broadcaster=\"chat\"} 1");
            assert_has(&page, "tidings_connections{broadcaster=\"news\"} 0");
            assert_has(&page, "tidings_deliveries_total{broadcaster=\"chat\"} 1");
            assert_has(
                &page,
                "tidings_gaps_total{broadcaster=\"chat\",reason=\"lagged\"} 0",
            );
            assert_has(
                &page,
                "tidings_ended_total{broadcaster=\"chat\",reason=\"dropped\"} 0",
            );
            drop(tab);
            let _tab = chat.register("ann").expect("there is no cap");
            chat.disconnect_user("ann");
            chat.report_metrics();
            let page = recorder.handle().render();
            for (reason, count) in [("dropped", 1), ("disconnected", 1), ("drained", 0)] {
                let labels = format!("broadcaster=\"chat\",reason=\"{reason}\"");
                assert_has(&page, &format!("tidings_ended_total{{{labels}}} {count}"));
            }
            assert_has(&page, "tidings_connections{broadcaster=\"chat\"} 0");
            assert!(!page.contains("ann"));
        });
    }

    /// `describe`, the table of the documentation, and what is really there.
    #[tokio::test(start_paused = true)]
    async fn every_metric_is_described_and_in_the_table() {
        let recorder = recorder();
        let page = metrics::with_local_recorder(&recorder, || {
            tidings::metrics::describe();
            let node = InProcess::new(Level::AtMostOnce).node();
            let hub = named("hub").backplane(node);
            let hub = hub.build().expect("the settings are valid");
            let mut body = SseBody::new(hub.register("ann").expect("there is no cap"));
            // The first of a thread, so it is sampled.
            hub.broadcast("ann", &text("hello")).expect("text");
            assert!(poll(&mut body));
            hub.report_metrics();
            #[cfg(feature = "serve")]
            {
                let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
                tcp.set_nonblocking(true).expect("it can be set");
                let tcp = tokio::net::TcpListener::from_std(tcp).expect("the runtime has IO");
                drop(tidings::serve::listener(tcp));
            }
            recorder.handle().render()
        });
        let docs = include_str!("../../src/metrics/mod.rs");
        let rows = docs
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `tidings_"));
        let mut table: Vec<(String, &str)> = rows
            .map(|row| {
                let mut columns = row.split('|').map(str::trim);
                let name = columns.next().expect("a name").trim_end_matches('`');
                let kind = columns.next().expect("a kind").split(',').next();
                (format!("tidings_{name}"), kind.expect("a kind"))
            })
            .filter(|(name, _)| cfg!(feature = "serve") || name != "tidings_stalls_total")
            .collect();
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut found: Vec<(String, &str)> = types
            .map(|line| line.split_once(' ').expect("a kind"))
            .map(|(name, kind)| (name.to_owned(), kind))
            .collect();
        table.sort();
        found.sort();
        assert_eq!(found, table);
        for (name, _) in &table {
            assert!(page.contains(&format!("# HELP {name} ")), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reports_come_at_their_interval_and_end_with_the_broadcaster() {
        let recorder = recorder();
        let page = recorder.handle();
        // The test runs on one thread, and so does the task.
        let _local = metrics::set_default_local_recorder(&recorder);
        let hub = named("hub")
            .report_metrics_every(Duration::from_secs(5))
            .build()
            .expect("the settings are valid");
        let tab = hub.register("ann").expect("there is no cap");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_has(&page.render(), "tidings_connections{broadcaster=\"hub\"} 1");
        let other = hub.register("ann").expect("there is no cap");
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_has(&page.render(), "tidings_connections{broadcaster=\"hub\"} 1");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_has(&page.render(), "tidings_connections{broadcaster=\"hub\"} 2");
        drop((tab, other, hub));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_has(&page.render(), "tidings_connections{broadcaster=\"hub\"} 0");
        assert_has(
            &page.render(),
            "tidings_registered_total{broadcaster=\"hub\"} 2",
        );
    }

    #[test]
    fn an_interval_of_zero_or_without_a_runtime_is_refused() {
        let zero = named("hub").report_metrics_every(Duration::ZERO).build();
        assert_eq!(zero.err(), Some(tidings::ConfigError::ZeroInterval));
        let nowhere = named("hub")
            .report_metrics_every(Duration::from_secs(1))
            .build();
        assert_eq!(nowhere.err(), Some(tidings::ConfigError::NoRuntime));
    }

    /// Shows every other event.
    struct EveryOther(bool);

    impl View for EveryOther {
        fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
            self.0 = !self.0;
            if self.0 {
                chunks.push(frame.to_bytes());
            }
            ControlFlow::Continue(())
        }
    }

    /// The first broadcast of a thread is sampled, and each test has a thread of its own.
    #[tokio::test(start_paused = true)]
    async fn the_time_to_the_write_is_from_the_broadcast_to_the_bodys_poll() {
        let recorder = recorder();
        let _local = metrics::set_default_local_recorder(&recorder);
        let builder = named("hub").history(History::new(10));
        let hub = builder.build().expect("the settings are valid");
        let tab = hub.register("ann").expect("there is no cap");
        let start = LastEventId::new(&tab.cursor().expect("there is a history"));
        let mut body = SseBody::new(tab);
        let tab = hub.register("ann").expect("there is no cap");
        let mut viewed = SseBody::new(tab).view(EveryOther(false));
        assert!(poll(&mut body), "the cursor");
        tokio::time::advance(Duration::from_secs(60)).await;

        hub.broadcast("ann", &text("hello")).expect("text");
        tokio::time::advance(Duration::from_millis(250)).await;
        assert!(poll(&mut body));
        tokio::time::advance(Duration::from_millis(2250)).await;
        assert!(poll(&mut viewed));
        // Had it been there, it would have been faster.
        let mut late = SseBody::new(hub.resume("ann", &start).expect("there is no cap"));
        assert!(poll(&mut late));

        let page = recorder.handle().render();
        let time = "tidings_publish_to_write_seconds";
        for (bound, count) in [("0.2", 0), ("0.3", 1), ("2", 1), ("3", 2), ("+Inf", 2)] {
            let line = format!("{time}_bucket{{broadcaster=\"hub\",le=\"{bound}\"}} {count}");
            assert_has(&page, &line);
        }
        assert_has(&page, &format!("{time}_sum{{broadcaster=\"hub\"}} 2.75"));
        assert_has(&page, "tidings_fanout_streams_sum{broadcaster=\"hub\"} 2");
        assert_has(&page, "tidings_fanout_streams_count{broadcaster=\"hub\"} 1");
    }
}
