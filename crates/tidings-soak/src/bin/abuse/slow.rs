//! Requests that come byte by byte, thousands of them, and somebody who asks for something usual meanwhile.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::report::{Meter, Report};
use crate::support::{Mode, http1, quantile};
use crate::{block_on, server};

const HEAD: &[u8] = b"GET /ann HTTP/1.1\r\nhost: test\r\nx-padding: ";

pub(crate) fn run(report: &mut Report, mode: Mode) {
    let limit = mode.pick(Duration::from_secs(5), Duration::from_secs(1));
    let mut server = server::start(server::Settings {
        head_time: limit,
        ..server::Settings::default()
    });
    let (addr, count) = (server.addr(), mode.pick(5_000, 200));
    let meter = Meter::start(&server);
    let (mut ends, mut others) = block_on(wave(addr, count));
    let bill = meter.end();
    // What the allocator keeps of the first waves, later ones use.
    for _ in 0..2 {
        block_on(wave(addr, count));
    }
    let meter = Meter::start(&server);
    block_on(wave(addr, count));
    let again = meter.end();

    let case = format!("{count} heads, a byte each 200 ms");
    let (first, last) = (quantile(&mut ends, 0.0), quantile(&mut ends, 1.0));
    let p99 = quantile(&mut others, 0.99);
    let each = bill.peak * 1024.0 / count as f64;
    report.row(
        &case,
        &format!("cut after {first:.2} to {last:.2} s, limit {limit:?}"),
        &format!(
            "{each:.1} KB and {:.0} µs of CPU each, back {:+.1} MB, after the fourth wave {:+.1} MB more; others' streams open in p99 {p99:.1} ms",
            bill.cpu * 1e6 / count as f64,
            bill.back,
            again.back,
        ),
    );
    let latest = limit.as_secs_f64() + 0.4 + mode.slack().as_secs_f64();
    report.check(last < latest, format!("{case}: cut after {last:.2} s"));
    report.check(each < 64.0, format!("{case}: {each:.0} KB for each"));
    report.check(
        again.back < bill.peak / 2.0 + 8.0,
        format!("{case}: {:.1} MB more stay after each wave", again.back),
    );
    report.check(
        p99 < mode.pick(250.0, 2_000.0),
        format!("{case}: others wait for {p99:.0} ms"),
    );
    report.check(
        server.ask_number("refused") == 0,
        format!("{case}: a stream was refused"),
    );
}

/// Sends so many heads slowly. Says after how many seconds each was cut, and how many milliseconds it took others meanwhile
/// to open a stream.
async fn wave(addr: SocketAddr, count: usize) -> (Vec<f64>, Vec<f64>) {
    let mut slow = JoinSet::new();
    for _ in 0..count {
        slow.spawn(until_cut(addr));
    }
    let (mut ends, mut others) = (Vec::new(), Vec::new());
    loop {
        let start = Instant::now();
        let open = http1::Stream::open(addr, "/somebody");
        let opened = timeout(Duration::from_secs(5), open).await;
        // Whoever is not let in at all has waited for as long.
        drop(opened);
        others.push(start.elapsed().as_secs_f64() * 1e3);
        let all = async {
            while let Some(end) = slow.join_next().await {
                ends.push(end.expect("no panic"));
            }
        };
        if timeout(Duration::from_millis(20), all).await.is_ok() {
            return (ends, others);
        }
    }
}

async fn until_cut(addr: SocketAddr) -> f64 {
    let mut tcp = TcpStream::connect(addr).await.expect("the server listens");
    let start = Instant::now();
    let mut ticks = interval(Duration::from_millis(200));
    for byte in HEAD.iter().chain(std::iter::repeat(&b'x')) {
        ticks.tick().await;
        if tcp.write_all(&[*byte]).await.is_err() {
            break;
        }
        match tcp.try_read(&mut [0; 256]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(1..) => {}
            _ => break,
        }
    }
    start.elapsed().as_secs_f64()
}
