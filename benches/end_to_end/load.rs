//! Events for many connections: what servers have to do, and one round of it.

use std::io;

use crate::design::{Design, Server};
use crate::generator::{Generator, OPENING, Outcome};
use crate::support::{Mode, kernel};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) name: &'static str,
    pub(crate) users: usize,
    pub(crate) each: usize,
    pub(crate) events: u64,
    /// Bytes of an event's data.
    pub(crate) size: usize,
    /// Events in flight.
    pub(crate) window: u64,
    /// Threads of the server, where they can be chosen.
    pub(crate) workers: usize,
    /// Whether it is one of those that are measured more often.
    pub(crate) is_main: bool,
}

impl Traffic {
    pub(crate) fn all(mode: Mode) -> Vec<Self> {
        let w1 = Self {
            name: "W1",
            users: 1,
            each: mode.pick(1000, 20),
            events: mode.pick(250, 20),
            size: 200,
            window: 1,
            workers: 1,
            is_main: true,
        };
        let w1b = Self {
            name: "W1b",
            events: mode.pick(480, 200),
            window: 32,
            ..w1
        };
        let w2 = Self {
            name: "W2",
            users: mode.pick(5000, 20),
            each: 2,
            events: mode.pick(40_000, 200),
            window: 64,
            ..w1
        };
        let more = |name, traffic: Self| Self {
            name,
            is_main: false,
            ..traffic
        };
        let streams = |name, each: usize| Self {
            each: mode.pick(each, 20),
            events: mode.pick(250_000 / each as u64, 20),
            ..more(name, w1)
        };
        let sized = |name, size, window| Self {
            size,
            window,
            ..more(name, w1b)
        };
        let two = |name, traffic| Self {
            workers: 2,
            ..more(name, traffic)
        };
        vec![
            w1,
            w1b,
            w2,
            streams("W1-5000", 5000),
            streams("W1-10000", 10_000),
            sized("W1b-100B", 100, 32),
            sized("W1b-1KB", 1000, 32),
            // 128 KB for each stream: what sockets hold.
            sized("W1b-16KB", 16_000, 8),
            two("W1-2w", w1),
            two("W1b-2w", w1b),
            two("W2-2w", w2),
        ]
    }

    pub(crate) fn measure(&self, design: Design) -> io::Result<Sample> {
        let server = Server::start(design, self.users, self.workers)?;
        let (mut clients, _) = Generator::open(&server, self.users, self.each, OPENING)?;
        let mut run = |events| clients.run(events, self.size, self.window, 0);
        // Buffers and tables have their size after that.
        run((self.events / 10).max(1))?;
        let before = kernel::cpu_nanos(server.pid());
        let Outcome {
            took,
            deliveries,
            latency,
            ..
        } = run(self.events)?;
        let cpu = kernel::cpu_nanos(server.pid()) - before;
        let micros = |q| latency.value_at_quantile(q) as f64 / 1e3;
        Ok(Sample {
            cpu: cpu / 1e3 / deliveries as f64,
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
