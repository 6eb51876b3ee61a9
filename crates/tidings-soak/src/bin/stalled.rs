//! What do clients that stop reading cost a server, and when does it disconnect them?
//!
//! One user has 200 connections over real sockets, and 20 of them stop reading after the head of the response. Events of
//! 16 KB go out at 100 a second for a minute, with a stall limit of 5 seconds, and each of the other 180 must get every
//! one of them, in order: about 290 MB/s. The server is a process of its own, so that its memory (RSS) can be measured.
//!
//! - `tidings, HTTP/1`: `tidings::serve::serve`. The 20 must be gone from `stats()`, and their sockets from the kernel,
//!   within the stall limit and a second, counted from the first event.
//! - `tidings, HTTP/2`: the same with ten streams on a connection. Of the 20, eight withhold their window on connections of
//!   their own, eight on connections that they share with streams that are read, and four do not read their connection,
//!   whose sockets must be closed.
//! - `RwLock, axum`: the baseline, with axum's own `Sse` under `axum::serve`, for half the time: it keeps what the 20 do
//!   not take.
//!
//! The slope of the memory is by least squares over one sample a second after the first ten. Where a promise is missed, the
//! program says so and fails. A machine that cannot carry the load shows it in the column "rate": take a lower one.
//!
//!     cargo run --release -p tidings-soak --bin stalled -- --seconds 60 --rate 100 --size 16384

#[path = "../../../../benches/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use support::process::{Process, answer, part, part_command};
use support::{Crowd, LockedHub, Mode, kernel, numbered, option, slope};
use tidings::serve::{bind, serve};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, KeepAlive, RegisterError, Text};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::MissedTickBehavior;

const USER: &str = "ann";

/// What the user's events are, and when a client has stalled.
#[derive(Clone, Copy)]
struct Load {
    seconds: usize,
    rate: usize,
    size: usize,
    limit: Duration,
}

/// Who serves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Design {
    Tidings,
    TidingsHttp2,
    Locked,
}

impl Design {
    const ALL: &[Self] = &[Self::Tidings, Self::TidingsHttp2, Self::Locked];

    fn name(self) -> &'static str {
        match self {
            Self::Tidings => "tidings, HTTP/1",
            Self::TidingsHttp2 => "tidings, HTTP/2",
            Self::Locked => "RwLock, axum",
        }
    }
}

// The server

#[derive(Clone)]
enum Hub {
    Tidings(GenericBroadcaster<Text>),
    Locked(LockedHub),
}

impl Hub {
    async fn broadcast(&self, data: String) {
        match self {
            Self::Tidings(hub) => {
                let sent = hub.broadcast(USER, &Text::new(data));
                sent.expect("text can be encoded");
            }
            Self::Locked(hub) => {
                hub.broadcast(USER, Event::default().data(data)).await;
            }
        }
    }

    async fn stream(State(hub): State<Self>) -> Result<Response, RegisterError> {
        Ok(match hub {
            Self::Tidings(hub) => SseResponse::new(hub.register(USER)?)
                .keep_alive(&KeepAlive::off())
                .into_response(),
            Self::Locked(hub) => hub.stream(USER.into()).await,
        })
    }

    async fn connections(&self) -> usize {
        match self {
            Self::Tidings(hub) => hub.stats().connections,
            Self::Locked(hub) => hub.connection_count(USER).await,
        }
    }
}

/// How far the events are.
#[derive(Default)]
struct Pump {
    sent: AtomicU64,
    done: AtomicBool,
}

impl Pump {
    async fn run(&self, hub: &Hub, load: Load) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / load.rate as u32);
        // A machine that is too slow sends fewer, and not the rest in bursts.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let start = Instant::now();
        let mut number = 0;
        while start.elapsed() < Duration::from_secs(load.seconds as u64) {
            ticks.tick().await;
            hub.broadcast(numbered(number, load.size)).await;
            number += 1;
        }
        self.sent.store(number, Ordering::Relaxed);
        self.done.store(true, Ordering::Release);
    }
}

/// Serves, and answers: `pump` starts the events, `connections` is how many there are, `sent` is how many events were, 0
/// until the last.
async fn be_server(design: Design, load: Load) {
    let hub = match design {
        Design::Locked => Hub::Locked(LockedHub::default()),
        _ => Hub::Tidings(
            GenericBroadcaster::builder()
                .connections_per_user(None)
                .build()
                .expect("the settings are valid"),
        ),
    };
    let app = Router::new()
        .route("/", get(Hub::stream))
        .with_state(hub.clone());
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let listener = listener.stall_limit(load.limit);
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let plain = plain.expect("a free port");
    let addr = match design {
        Design::Locked => plain.local_addr(),
        _ => listener.local_addr(),
    };
    let pump = Arc::<Pump>::default();
    let runtime = Handle::current();
    let asked = move |question: &str| match question {
        "pump" => {
            let (pump, hub) = (Arc::clone(&pump), hub.clone());
            runtime.spawn(async move { pump.run(&hub, load).await });
            String::new()
        }
        "connections" => runtime.block_on(hub.connections()).to_string(),
        _ if pump.done.load(Ordering::Acquire) => pump.sent.load(Ordering::Relaxed).to_string(),
        _ => "0".to_owned(),
    };
    answer(&format!("http://{}", addr.expect("it is bound")), asked);
    match design {
        Design::Locked => axum::serve(plain, app).await.expect("it never fails"),
        Design::Tidings => drop(serve(listener, app).await),
        Design::TidingsHttp2 => drop(serve(listener, app).http2(true).await),
    }
}

// The measurement

/// What one server gave.
struct Outcome {
    sent: u64,
    took: Duration,
    /// Seconds, KB.
    memory: Vec<(f64, f64)>,
    whole: usize,
    faults: Vec<String>,
    gone_from_stats: Option<Duration>,
    gone_from_kernel: Option<Duration>,
}

fn measure(
    runtime: &Runtime,
    design: Design,
    load: Load,
    reading: usize,
    stalled: usize,
) -> Outcome {
    let position = Design::ALL.iter().position(|&other| other == design);
    let numbers = [
        position.expect("it is one of all"),
        load.seconds,
        load.rate,
        load.size,
        load.limit.as_millis() as usize,
    ];
    let mut server = Process::start(part_command(numbers.map(|n| n.to_string())));
    let (pid, addr) = (server.pid(), server.addr());
    let crowd = runtime.block_on(async {
        match design {
            Design::TidingsHttp2 => Crowd::open_http2(addr, load.size, reading, stalled).await,
            _ => Crowd::open(addr, load.size, reading, stalled).await,
        }
    });
    let crowd = crowd.expect("the server serves");
    assert_eq!(server.ask_number("connections"), reading + stalled);

    let start = Instant::now();
    server.ask("pump");
    let (mut gone_from_stats, mut gone_from_kernel) = (None, None);
    let mut memory = Vec::new();
    let (sent, took) = loop {
        sleep(Duration::from_millis(10));
        let now = start.elapsed();
        if now.as_secs_f64() > memory.len() as f64 {
            memory.push((now.as_secs_f64(), kernel::rss_kb(pid)));
        }
        if gone_from_stats.is_none() && server.ask_number("connections") == reading {
            gone_from_stats = Some(start.elapsed());
        }
        if gone_from_kernel.is_none() {
            let is_stuck = |client| crowd.stuck.contains(client);
            if !kernel::clients_of(pid, addr).iter().any(is_stuck) {
                gone_from_kernel = Some(start.elapsed());
            }
        }
        match server.ask_number("sent") {
            0 => {}
            sent => break (sent as u64, now),
        }
    };
    let grace = Instant::now();
    while !crowd.faults(sent).is_empty() && grace.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(10));
    }
    let faults = crowd.faults(sent);
    Outcome {
        sent,
        took,
        memory,
        whole: reading - faults.len(),
        faults,
        gone_from_stats,
        gone_from_kernel,
    }
}

fn main() -> ExitCode {
    let mode = Mode::of_program();
    if let Some(args) = part() {
        let args: Vec<usize> = args.iter().map(|n| n.parse().expect("a number")).collect();
        let load = Load {
            seconds: args[1],
            rate: args[2],
            size: args[3],
            limit: Duration::from_millis(args[4] as u64),
        };
        let runtime = Runtime::new().expect("threads can be started");
        runtime.block_on(be_server(Design::ALL[args[0]], load));
        return ExitCode::SUCCESS;
    }
    let load = Load {
        seconds: option("seconds", mode.pick(60, 3)),
        rate: option("rate", mode.pick(100, 50)),
        size: option("size", 16 * 1024),
        limit: mode.pick(Duration::from_secs(5), Duration::from_secs(1)),
    };
    let (reading, stalled) = mode.pick((180, 20), (15, 5));
    kernel::allow_files(reading + stalled);
    println!(
        "{} connections of one user, of which {stalled} stop reading; events of {} bytes, {} a second for {} s; stall limit {:?}\n",
        reading + stalled,
        load.size,
        load.rate,
        load.seconds,
        load.limit
    );
    println!(
        "{:16} {:>7} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "", "rate", "got all", "most RSS", "at the end", "slope", "stats", "sockets"
    );
    // One thread: the server has more to do.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread can be started");
    let mut missed = Vec::new();
    for &design in Design::ALL {
        let load = match design {
            Design::Locked if mode == Mode::Measure => Load {
                seconds: load.seconds.div_ceil(2),
                ..load
            },
            _ => load,
        };
        let outcome = measure(&runtime, design, load, reading, stalled);
        let settled = mode.pick(10.0, 1.0);
        let later: Vec<_> = outcome
            .memory
            .iter()
            .copied()
            .filter(|m| m.0 >= settled)
            .collect();
        let slope = slope(&later);
        let memory = outcome.memory.iter().map(|m| m.1 / 1024.0);
        let at_the_end = memory.clone().next_back().unwrap_or(f64::NAN);
        let seconds = |time: Option<Duration>| match time {
            Some(time) => format!("{:.2} s", time.as_secs_f64()),
            None => "never".to_owned(),
        };
        println!(
            "{:16} {:>5.1}/s {:>10} {:>7.1} MB {:>7.1} MB {:>+5.0} KB/s {:>8} {:>8}",
            design.name(),
            outcome.sent as f64 / outcome.took.as_secs_f64(),
            format!("{} of {reading}", outcome.whole),
            memory.fold(0.0, f64::max),
            at_the_end,
            slope,
            seconds(outcome.gone_from_stats),
            seconds(outcome.gone_from_kernel),
        );
        if design == Design::Locked {
            continue;
        }
        let name = design.name();
        missed.extend(
            outcome
                .faults
                .iter()
                .map(|fault| format!("{name}: {fault}")),
        );
        let bound = load.limit + mode.slack();
        for (place, gone) in [
            ("stats()", outcome.gone_from_stats),
            ("the kernel", outcome.gone_from_kernel),
        ] {
            if gone.is_none_or(|gone| gone > bound) {
                missed.push(format!("{name}: not gone from {place} within {bound:?}"));
            }
        }
        // In a tiny round the buffers still warm up.
        if mode == Mode::Measure && slope > 100.0 {
            missed.push(format!("{name}: the memory grows by {slope:.0} KB/s"));
        }
    }
    for what in missed.iter().take(20) {
        println!("missed: {what}");
    }
    match missed.len() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
