//! What servers have to do, and one round of it.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::design::{Design, Server};
use crate::generator::{Generator, Outcome};
use crate::support::{Mode, kernel};

/// Events for many connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) name: &'static str,
    pub(crate) users: usize,
    pub(crate) each: usize,
    pub(crate) events: u64,
    pub(crate) window: u64,
}

/// Bytes of an event's data.
pub(crate) const SIZE: usize = 200;

impl Traffic {
    pub(crate) fn all(mode: Mode) -> [Self; 3] {
        let of = |name, users, each, events, window| Self {
            name,
            users,
            each,
            events,
            window,
        };
        let (streams, users) = mode.pick((1000, 5000), (20, 20));
        [
            of("W1", 1, streams, mode.pick(250, 20), 1),
            of("W1b", 1, streams, mode.pick(480, 200), 32),
            of("W2", users, 2, mode.pick(40_000, 200), 64),
        ]
    }

    pub(crate) fn measure(&self, design: Design) -> io::Result<Sample> {
        let server = Server::start(design, self.users)?;
        let (addr, control) = (server.addr(), server.control());
        let (mut clients, _) = Generator::open(addr, control, self.users, self.each)?;
        // Buffers and tables have their size after that.
        clients.run(self.events / 10, SIZE, self.window)?;
        let before = kernel::cpu_seconds(server.pid());
        let Outcome {
            took,
            deliveries,
            latency,
        } = clients.run(self.events, SIZE, self.window)?;
        let cpu = kernel::cpu_seconds(server.pid()) - before;
        let micros = |q| latency.value_at_quantile(q) as f64 / 1e3;
        Ok(Sample {
            cpu: cpu * 1e6 / deliveries as f64,
            rate: deliveries as f64 / took.as_secs_f64(),
            latency: [0.5, 0.99, 0.999].map(micros),
        })
    }
}

/// One round of traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Microseconds for each event at each connection.
    pub(crate) cpu: f64,
    /// Deliveries a second.
    pub(crate) rate: f64,
    /// p50, p99 and p99.9, in microseconds.
    pub(crate) latency: [f64; 3],
}

/// Connections that are there, and a burst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) users: usize,
    pub(crate) each: usize,
    /// How long after the burst the memory is looked at.
    pub(crate) rest: Duration,
}

impl Idle {
    pub(crate) fn of(mode: Mode) -> Self {
        Self {
            users: mode.pick(5000, 20),
            each: 2,
            rest: mode.pick(Duration::from_secs(10), Duration::from_millis(100)),
        }
    }

    pub(crate) fn measure(&self, design: Design) -> io::Result<Memory> {
        let server = Server::start(design, self.users)?;
        let pid = server.pid();
        let (empty, files) = (kernel::rss_kb(pid), kernel::open_files(pid));
        let connections = self.users * self.each;
        let (addr, control) = (server.addr(), server.control());
        let (mut clients, set_up) = Generator::open(addr, control, self.users, self.each)?;
        sleep(self.rest / 10);
        let each = |memory: f64| (memory - empty) / connections as f64;
        let idle = each(kernel::rss_kb(pid));
        let burst = 20 * self.users as u64;
        clients.run(burst, 1000, burst)?;
        sleep(self.rest);
        let after_burst = each(kernel::rss_kb(pid));
        drop(clients);
        let start = Instant::now();
        // One more: nginx may have accepted its publisher since they were counted.
        while design.cleans_up() && kernel::open_files(pid) > files + 1 {
            sleep(Duration::from_millis(5));
            if start.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other(
                    "the server keeps sockets of clients that left",
                ));
            }
        }
        Ok(Memory {
            idle,
            after_burst,
            set_up: set_up.as_secs_f64(),
            clean_up: match design.cleans_up() {
                true => start.elapsed().as_secs_f64(),
                false => f64::NAN,
            },
        })
    }
}

/// One round of idling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// KB for each connection.
    pub(crate) idle: f64,
    pub(crate) after_burst: f64,
    /// Seconds, for all connections.
    pub(crate) set_up: f64,
    pub(crate) clean_up: f64,
}
