//! What do metrics cost a server that is busy?
//!
//! Two servers, each a process of its own with 1,000 connections over real sockets, a hundred users with ten each. One has no
//! recorder; the other has that of Prometheus, a report every second, samples, and a scrape every second. Each connection
//! gets so many events a second of 200 bytes, at the one server and at the other in turn, in another order each round, and
//! every client must have got all of them. What is compared is the time on a CPU, of all threads and in the kernel as
//! well, for the same number of events: the rest of the machine may be busy meanwhile, though caches are shared.
//!
//! The aim is less than 3 % more, by the median of the pairs: the two halves of a round stand next to each other in time, so
//! what changes slowly on the machine is in both. The ratio of the medians is told beside it, and how much noise there is:
//! the column "spread" has the quartiles of each server's rounds.
//!
//!     cargo bench --all-features --bench metrics -- --rounds 9 --seconds 3 --rate 100

mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use support::process::{Process, answer, part, part_command};
use support::{Crowd, Mode, kernel, median, numbered, option, quantile};
use tidings::serve::{bind, serve};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, RegisterError, Text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::MissedTickBehavior;

/// Connections of each user.
const EACH: usize = 10;
const SIZE: usize = 200;

type Hub = GenericBroadcaster<Text>;

// The server

#[derive(Clone)]
struct Site {
    hub: Hub,
    /// How many have come.
    opened: Arc<AtomicUsize>,
    /// How many events each user was sent.
    sent: Arc<AtomicU64>,
}

impl Site {
    async fn stream(State(site): State<Self>) -> Result<SseResponse, RegisterError> {
        let user = site.opened.fetch_add(1, Ordering::Relaxed) / EACH;
        Ok(SseResponse::new(site.hub.register(user.to_string())?))
    }

    /// Sends so many events to each user. A machine that is too slow takes longer, and sends no fewer.
    async fn pump(self, events: u64, interval: Duration) {
        let users = self.opened.load(Ordering::Relaxed) / EACH;
        let users: Vec<String> = (0..users).map(|user| user.to_string()).collect();
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..events {
            ticks.tick().await;
            let event = Text::new(numbered(self.sent.load(Ordering::Relaxed), SIZE));
            for user in &users {
                let reached = self.hub.broadcast(user, &event).expect("text");
                assert_eq!(reached, EACH);
            }
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Serves, and answers: `pump 50 100` sends 50 events to each user, one every 100 ms, `sent` is how many each was sent.
async fn be_server(has_metrics: bool) {
    // All events of a round, so that a client that a busy machine holds up loses none.
    let builder = GenericBroadcaster::builder().ring_capacity(1024);
    let mut app = Router::new().route("/", get(Site::stream));
    let hub: Hub = if has_metrics {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Prefix("tidings_".into()), &[0.001, 0.01, 0.1, 1.0])
            .and_then(PrometheusBuilder::install_recorder);
        let page = recorder.expect("there is none yet");
        app = app.route("/metrics", get(move || async move { page.render() }));
        builder.report_metrics_every(Duration::from_secs(1)).build()
    } else {
        builder.build()
    }
    .expect("the settings are valid");
    let site = Site {
        hub,
        opened: Arc::default(),
        sent: Arc::default(),
    };
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let runtime = Handle::current();
    let asked = {
        let site = site.clone();
        move |question: &str| match question.split(' ').collect::<Vec<_>>()[..] {
            ["pump", events, millis] => {
                let number = |text: &str| text.parse().expect("a number");
                let interval = Duration::from_millis(number(millis));
                runtime.spawn(site.clone().pump(number(events), interval));
                String::new()
            }
            _ => site.sent.load(Ordering::Relaxed).to_string(),
        }
    };
    answer(&format!("http://{addr}"), asked);
    serve(listener, app.with_state(site)).await;
}

// The measurement

struct Server {
    process: Process,
    crowd: Crowd,
    has_metrics: bool,
    sent: u64,
    /// Seconds on a CPU, by round.
    cpu: Vec<f64>,
}

impl Server {
    async fn start(has_metrics: bool, connections: usize) -> Self {
        let process = Process::start(part_command([if has_metrics { "on" } else { "off" }]));
        let crowd = Crowd::open(process.addr(), SIZE, connections, 0).await;
        Self {
            process,
            crowd: crowd.expect("the server serves"),
            has_metrics,
            sent: 0,
            cpu: Vec::new(),
        }
    }

    /// Lets it send, and waits for all clients to have all.
    fn round(&mut self, runtime: &Runtime, events: u64, interval: Duration) {
        let pid = self.process.pid();
        let before = kernel::cpu_nanos(pid);
        self.sent += events;
        let question = format!("pump {events} {}", interval.as_millis());
        self.process.ask(&question);
        let start = Instant::now();
        let mut scrapes = 0;
        let limit = interval * events as u32 * 20 + Duration::from_secs(30);
        while !self.crowd.faults(self.sent).is_empty() {
            assert!(
                start.elapsed() < limit,
                "{:?}",
                self.crowd.faults(self.sent)
            );
            sleep(Duration::from_millis(50));
            if self.has_metrics && start.elapsed().as_secs() > scrapes {
                scrapes = start.elapsed().as_secs();
                runtime.block_on(self.scrape());
            }
        }
        assert_eq!(self.process.ask_number("sent") as u64, self.sent);
        self.cpu.push((kernel::cpu_nanos(pid) - before) / 1e9);
    }

    async fn scrape(&self) -> String {
        let mut tcp = TcpStream::connect(self.process.addr())
            .await
            .expect("it listens");
        let request = "GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        tcp.write_all(request.as_bytes())
            .await
            .expect("it is taken");
        let mut page = Vec::new();
        tcp.read_to_end(&mut page).await.expect("a page");
        String::from_utf8(page).expect("UTF-8")
    }
}

fn main() -> ExitCode {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return ExitCode::SUCCESS;
    }
    if let Some(args) = part() {
        let runtime = Runtime::new().expect("threads can be started");
        runtime.block_on(be_server(args[0] == "on"));
        return ExitCode::SUCCESS;
    }
    let connections = option("connections", mode.pick(1000, 20)) / EACH * EACH;
    let rounds = option("rounds", mode.pick(9, 2));
    let seconds = option("seconds", mode.pick(3, 1)) as u64;
    let rate = option("rate", mode.pick(100, 10)) as u64;
    kernel::allow_files(2 * connections);
    println!(
        "{connections} connections, {EACH} of each user, each of which gets {rate} events of {SIZE} bytes a second; {rounds} rounds of {seconds} s\n"
    );
    // One thread: the servers have more to do.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread can be started");
    let mut servers = [false, true].map(|on| runtime.block_on(Server::start(on, connections)));
    let interval = Duration::from_secs(1) / rate as u32;
    // Warms up.
    for server in &mut servers {
        server.round(&runtime, rate, interval);
        server.cpu.clear();
    }
    for round in 0..rounds {
        for turn in 0..2 {
            servers[(round + turn) % 2].round(&runtime, rate * seconds, interval);
        }
    }
    let [off, on] = servers;
    let page = runtime.block_on(on.scrape());
    assert!(
        page.contains("\ntidings_publish_to_write_seconds_count"),
        "{page}"
    );

    let ratio = median(&mut on.cpu.clone()) / median(&mut off.cpu.clone());
    let pairs = on.cpu.iter().zip(&off.cpu).map(|(on, off)| on / off);
    let of_pairs = median(&mut pairs.collect::<Vec<_>>());
    let events = (rate * seconds) as f64 * connections as f64;
    println!(
        "{:12} {:>10} {:>17} {:>14}",
        "", "median", "spread", "for an event"
    );
    for (name, server) in [("no metrics", &off), ("metrics", &on)] {
        let mut cpu = server.cpu.clone();
        let middle = median(&mut cpu);
        let quartiles = (quantile(&mut cpu, 0.25), quantile(&mut cpu, 0.75));
        println!(
            "{name:12} {middle:>8.3} s {:>7.3} to {:.3} s {:>11.2} µs",
            quartiles.0,
            quartiles.1,
            middle / events * 1e6
        );
    }
    println!(
        "\nmetrics take {:+.1} % by the medians, {:+.1} % by the median of the pairs",
        (ratio - 1.0) * 100.0,
        (of_pairs - 1.0) * 100.0
    );
    // A tiny round is too short to say anything.
    if mode == Mode::Measure && of_pairs >= 1.03 {
        println!("missed: less than 3 %");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
