//! Connections that come, stay, and go: their time and their memory.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::design::{Design, Server};
use crate::generator::{Generator, OPENING};
use crate::support::{Mode, kernel};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) name: &'static str,
    pub(crate) users: usize,
    pub(crate) each: usize,
    /// How many connect at once.
    at_once: usize,
    /// How long after the burst the memory is looked at.
    pub(crate) rest: Duration,
}

impl Idle {
    pub(crate) fn all(mode: Mode) -> [Self; 3] {
        let w3 = Self {
            name: "W3",
            users: mode.pick(5000, 20),
            each: 2,
            at_once: OPENING,
            rest: mode.pick(Duration::from_secs(10), Duration::from_millis(100)),
        };
        let more = Self {
            name: "W3-15000",
            users: mode.pick(7500, 20),
            ..w3
        };
        let at_once = Self {
            name: "at-once",
            at_once: usize::MAX,
            ..w3
        };
        [w3, more, at_once]
    }

    pub(crate) fn measure(&self, design: Design) -> io::Result<Memory> {
        let mut server = Server::start(design, self.users, 1)?;
        let pid = server.pid();
        let (empty, files) = (kernel::rss_kb(pid), kernel::open_files(pid));
        let connections = self.users * self.each;
        let repeated = kernel::syn_retransmits();
        let (mut clients, set_up) = Generator::open(&server, self.users, self.each, self.at_once)?;
        let repeated = kernel::syn_retransmits() - repeated;
        sleep(self.rest / 10);
        let each = |memory: f64| (memory - empty) / connections as f64;
        let idle = each(kernel::rss_kb(pid));
        let burst = 20 * self.users as u64;
        clients.run(burst, 1000, burst, 0)?;
        sleep(self.rest);
        let after_burst = each(kernel::rss_kb(pid));
        drop(clients);
        let start = Instant::now();
        // One more: nginx may have accepted its publisher since they were counted.
        while design.cleans_up() && (kernel::open_files(pid) > files + 1 || server.left() > 0) {
            sleep(Duration::from_millis(5));
            if start.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other(
                    "the server keeps what belongs to clients that left",
                ));
            }
        }
        Ok(Memory {
            idle,
            after_burst,
            set_up: set_up.as_secs_f64(),
            repeated,
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
    /// SYNs that were sent again.
    pub(crate) repeated: f64,
    pub(crate) clean_up: f64,
}
