//! Connections without end over a cap that is full: those who are in notice nothing but a busy machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::report::{Meter, Report, eventually};
use crate::server::{self, CLOCK, now_nanos};
use crate::support::process::{Process, answer, part_command};
use crate::support::{Mode, http1, quantile};

/// Those who are in and get events; the others only stay.
const READERS: usize = 50;

pub(crate) fn run(report: &mut Report, mode: Mode) {
    for (comes_back, form) in [(false, "503"), (true, "200 and retry:")] {
        one(report, mode, comes_back, form);
    }
}

fn one(report: &mut Report, mode: Mode, comes_back: bool, form: &str) {
    let inside = mode.pick(1_000, 100);
    let (rate, seconds) = mode.pick((10_000, 5), (1_000, 1));
    let mut server = server::start(server::Settings {
        streams: inside,
        comes_back,
        ..server::Settings::default()
    });
    let addr = server.addr();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread can be started");
    let storming = Arc::new(AtomicBool::new(false));
    let lost = Arc::new(AtomicUsize::new(0));
    let (tell, told) = std::sync::mpsc::channel::<(bool, f64)>();
    let idle = runtime.block_on(async {
        for _ in 0..READERS {
            let stream = http1::Stream::open(addr, &format!("/{CLOCK}")).await;
            let (storming, lost) = (Arc::clone(&storming), Arc::clone(&lost));
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut stream = stream.expect("there is room");
                let (mut unread, mut buf) = (Vec::new(), vec![0; 64 * 1024]);
                let mut next_id = None;
                loop {
                    let read = stream.read(&mut buf, |bytes| unread.extend_from_slice(bytes));
                    if !matches!(read.await, Ok(true)) {
                        lost.fetch_add(1_000_000, Ordering::Relaxed);
                        return;
                    }
                    let now = now_nanos();
                    while let Some(end) = unread.windows(2).position(|end| end == b"\n\n") {
                        let event: Vec<u8> = unread.drain(..end + 2).collect();
                        let event = String::from_utf8(event).expect("UTF-8");
                        let field = |name: &str| {
                            let line = event.lines().find_map(|line| line.strip_prefix(name));
                            line.map(str::to_owned)
                        };
                        let Some(sent) = field("data: ") else {
                            continue;
                        };
                        let sent: u64 = sent.parse().unwrap_or(now);
                        let id = field("id: ").and_then(|id| id.split_once('-')?.1.parse().ok());
                        if next_id.is_some() && id != next_id {
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                        next_id = id.map(|id: u64| id + 1);
                        let late = now.saturating_sub(sent) as f64 / 1e6;
                        let _ = tell.send((storming.load(Ordering::Relaxed), late));
                    }
                }
            });
        }
        let mut idle = Vec::new();
        for _ in READERS..inside {
            let stream = http1::Stream::open(addr, "/idle").await;
            idle.push(stream.expect("there is room"));
        }
        idle
    });
    assert_eq!(server.ask_number("connections"), inside);
    server.ask("clock");
    std::thread::sleep(Duration::from_secs(mode.pick(3, 1)));

    let meter = Meter::start(&server);
    storming.store(true, Ordering::Relaxed);
    let args = [
        "storm".to_owned(),
        addr.to_string(),
        rate.to_string(),
        seconds.to_string(),
    ];
    let start = Instant::now();
    let mut storm = Process::start(part_command(args));
    let result = storm.ask("result");
    let took = start.elapsed().as_secs_f64();
    storming.store(false, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(500));
    let bill = meter.end();
    let numbers: Vec<u64> = result
        .split(' ')
        .map(|n| n.parse().expect("a number"))
        .collect();
    let [as_status, as_stream, failed] = numbers[..] else {
        panic!("{result}");
    };
    let refused = if comes_back { as_stream } else { as_status };
    let strange = as_status + as_stream - refused;

    let connections = server.ask_number("connections");
    let (mut calm, mut during) = (Vec::new(), Vec::new());
    for (is_during, late) in told.try_iter() {
        if is_during { &mut during } else { &mut calm }.push(late);
    }
    let case = format!("{refused} connections in {took:.1} s over a cap of {inside}");
    let p99 = quantile(&mut during, 0.99);
    report.row(
        &case,
        &format!(
            "{form} ({refused}), no answer ({failed}); inside: p50 {:.1}, p99 {p99:.1} ms, before {:.1}, {:.1}",
            quantile(&mut during, 0.5),
            quantile(&mut calm, 0.5),
            quantile(&mut calm, 0.99),
        ),
        &format!(
            "{:.0} µs of CPU each, peak {:+.1} MB, back {:+.1} MB",
            bill.cpu * 1e6 / refused.max(1) as f64,
            bill.peak,
            bill.back
        ),
    );
    report.check(
        refused > 0 && strange == 0,
        format!("{case}: {strange} other answers"),
    );
    report.check(
        failed * 100 <= refused,
        format!("{case}: {failed} without an answer"),
    );
    report.check(
        connections == inside,
        format!("{case}: {connections} are in"),
    );
    report.check(
        server.ask_number("refused") as u64 >= refused,
        format!("{case}: not counted"),
    );
    let lost = lost.load(Ordering::Relaxed);
    report.check(
        lost == 0,
        format!("{case}: those inside lost events or their stream ({lost})"),
    );
    report.check(
        p99 < mode.pick(250.0, 2_000.0),
        format!("{case}: p99 {p99:.0} ms"),
    );
    report.check(
        bill.back < 32.0,
        format!("{case}: {:.1} MB stay", bill.back),
    );
    drop(idle);
    drop(runtime);
    let gone = eventually(Duration::from_secs(10), || {
        server.ask_number("connections") == 0
    });
    report.check(gone, format!("{case}: somebody stays"));
}

/// The storm: so many connections a second, each asks and goes when it has the status. Answers with how many got a status
/// that refuses, a stream that says to come back, and nothing.
pub(crate) fn be(args: &[String]) {
    let addr: SocketAddr = args[0].parse().expect("an address");
    let number = |n: usize| -> u64 { args[n].parse().expect("a number") };
    let (rate, seconds) = (number(1), number(2));
    let counts = Arc::new([const { AtomicU64::new(0) }; 3]);
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("nothing is missing");
    // More at a time would only wait for the server.
    let at_a_time = Arc::new(Semaphore::new(500));
    runtime.block_on(async {
        let start = Instant::now();
        let mut begun = 0;
        while start.elapsed() < Duration::from_secs(seconds) {
            let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
            while begun < due {
                begun += 1;
                let permit = Arc::clone(&at_a_time).acquire_owned().await;
                if start.elapsed() >= Duration::from_secs(seconds) {
                    break;
                }
                let counts = Arc::clone(&counts);
                tokio::spawn(async move {
                    let _permit = permit.expect("it stays");
                    let seen = timeout(Duration::from_secs(10), come(addr, begun)).await;
                    let which = seen.ok().flatten().unwrap_or(2);
                    counts[which].fetch_add(1, Ordering::Relaxed);
                });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _all = at_a_time.acquire_many(500).await;
    });
    let counts = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    answer("done", move |_| {
        let [status, stream, failed] = counts;
        format!("{status} {stream} {failed}")
    });
    loop {
        std::thread::park();
    }
}

/// One of them: 0 for a status that refuses, 1 for a stream that is over, nothing for anything else.
async fn come(addr: SocketAddr, number: u64) -> Option<usize> {
    let socket = TcpSocket::new_v4().ok()?;
    // Closed by a reset, so that the port is free again at once; from several addresses, for the same reason.
    SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .ok()?;
    let from = Ipv4Addr::new(127, 0, 1, 1 + (number % 16) as u8);
    socket.bind((IpAddr::V4(from), 0).into()).ok()?;
    let mut tcp = socket.connect(addr).await.ok()?;
    let request = b"GET /newcomer HTTP/1.1\r\nhost: test\r\n\r\n";
    tcp.write_all(request).await.ok()?;
    let mut seen = Vec::new();
    loop {
        if tcp.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&seen);
        if text.starts_with("HTTP/1.1 503") && text.contains("\r\n\r\n") {
            return Some(0);
        }
        if text.starts_with("HTTP/1.1 200") && text.contains("retry: ") {
            return Some(1);
        }
    }
}
