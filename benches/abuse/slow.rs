//! Requests that come byte by byte, thousands of them, and somebody who asks for something usual meanwhile.

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
    let (mut ends, mut others) = block_on(async {
        let mut slow = JoinSet::new();
        for n in 0..count {
            slow.spawn(async move {
                let mut tcp = TcpStream::connect(addr).await.expect("it listens");
                let start = Instant::now();
                let mut ticks = interval(Duration::from_millis(200));
                for byte in HEAD.iter().cycle().skip(n % 2) {
                    ticks.tick().await;
                    if tcp.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    // The end is a read of nothing; it need not be waited for.
                    let mut buf = [0; 256];
                    match tcp.try_read(&mut buf) {
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => break,
                    }
                }
                start.elapsed().as_secs_f64()
            });
        }
        let mut others = Vec::new();
        let mut ends = Vec::new();
        loop {
            let start = Instant::now();
            let open = http1::Stream::open(addr, "/somebody");
            let opened = timeout(Duration::from_secs(5), open).await;
            if matches!(opened, Ok(Ok(_))) {
                others.push(start.elapsed().as_secs_f64() * 1e3);
            }
            let next = timeout(Duration::from_millis(20), async {
                while let Some(end) = slow.join_next().await {
                    ends.push(end.expect("no panic"));
                }
            });
            if next.await.is_ok() {
                break (ends, others);
            }
        }
    });
    let bill = meter.end();
    let case = format!("{count} heads, a byte each 200 ms");
    let (first, last) = (quantile(&mut ends, 0.0), quantile(&mut ends, 1.0));
    let p99 = quantile(&mut others, 0.99);
    report.row(
        &case,
        &format!("cut after {first:.2} to {last:.2} s, limit {limit:?}"),
        &format!(
            "{:.1} KB each at the peak, back +{:.1} MB, {:.0} µs of CPU each; others' streams open in p99 {p99:.1} ms",
            bill.peak * 1024.0 / count as f64,
            bill.back,
            bill.cpu * 1e6 / count as f64,
        ),
    );
    let latest = limit.as_secs_f64() + 0.4 + mode.slack().as_secs_f64();
    report.check(last < latest, format!("{case}: cut after {last:.2} s"));
    let each = bill.peak * 1024.0 / count as f64;
    report.check(each < 64.0, format!("{case}: {each:.0} KB for each"));
    report.check(
        p99 < mode.pick(250.0, 2_000.0),
        format!("{case}: others wait for {p99:.0} ms"),
    );
    report.check(
        server.ask_number("refused") == 0,
        format!("{case}: a stream was refused"),
    );
}
