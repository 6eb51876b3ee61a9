//! Others come and go, a thousand a second: do those who stay notice?

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::design::{Design, Server};
use crate::generator::{Generator, OPENING};
use crate::support::Mode;

/// How long one stays: as many are there as come in that time.
const STAY: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Churn {
    pub(crate) users: usize,
    pub(crate) each: usize,
    /// Events a second, for users in turn: far less than a server can do.
    pub(crate) rate: u64,
    events: u64,
    /// How many come a second. Every other one is of a user who has streams already.
    pub(crate) arrivals: u32,
}

impl Churn {
    pub(crate) fn of(mode: Mode) -> Self {
        Self {
            users: mode.pick(500, 10),
            each: 2,
            rate: 1000,
            events: mode.pick(3000, 50),
            arrivals: 1000,
        }
    }

    pub(crate) fn measure(&self, design: Design) -> io::Result<Latencies> {
        let server = Server::start(design, self.users, 1)?;
        let (mut clients, _) = Generator::open(&server, self.users, self.each, OPENING)?;
        let mut p99 = |events| {
            let outcome = clients.run(events, 200, u64::MAX, self.rate)?;
            io::Result::Ok(outcome.latency.value_at_quantile(0.99) as f64 / 1e3)
        };
        p99(self.events / 10)?;
        let calm = p99(self.events)?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let coming = scope.spawn(|| self.come_and_go(server.addr(), &stop));
            let busy = p99(self.events);
            stop.store(true, Ordering::Relaxed);
            let arrivals = coming.join().expect("no panic")?;
            Ok(Latencies {
                calm,
                busy: busy?,
                arrivals,
            })
        })
    }

    /// Says how many came a second.
    fn come_and_go(&self, addr: SocketAddr, stop: &AtomicBool) -> io::Result<f64> {
        let start = Instant::now();
        let mut there: VecDeque<(Instant, TcpStream)> = VecDeque::new();
        let mut come = 0;
        while !stop.load(Ordering::Relaxed) {
            let due = Duration::from_secs(1) * come / self.arrivals;
            thread::sleep(due.saturating_sub(start.elapsed()));
            let user = match come % 2 {
                0 => come as usize % self.users,
                _ => self.users + come as usize,
            };
            there.push_back((Instant::now(), open(addr, user)?));
            come += 1;
            while there
                .front()
                .is_some_and(|(since, _)| since.elapsed() > STAY)
            {
                there.pop_front();
            }
        }
        Ok(f64::from(come) / start.elapsed().as_secs_f64())
    }
}

/// A stream that has begun.
fn open(addr: SocketAddr, user: usize) -> io::Result<TcpStream> {
    let mut tcp = TcpStream::connect(addr)?;
    write!(
        tcp,
        "GET /{user} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n\r\n"
    )?;
    let (mut head, mut buf) = (Vec::new(), [0; 512]);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match tcp.read(&mut buf)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&buf[..read]),
        }
    }
    Ok(tcp)
}

/// One round: p99 from publishing to reading, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latencies {
    pub(crate) calm: f64,
    pub(crate) busy: f64,
    /// How many came a second indeed.
    pub(crate) arrivals: f64,
}
