//! More events at once than a ring holds: which streams miss some, and do they learn of it?
//!
//! Every ring has 64 slots, and the publisher sends 128 events before it waits for the readers, so bounded rings must lose some.
//! A stream that misses events should be told how many, and go on with the newest.

use std::io;

use crate::design::{Design, Server};
use crate::generator::{Generator, OPENING};
use crate::support::Mode;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Lag {
    /// Of one user.
    pub(crate) streams: usize,
    pub(crate) events: u64,
    pub(crate) size: usize,
    pub(crate) window: u64,
}

impl Lag {
    pub(crate) fn of(mode: Mode) -> Self {
        Self {
            streams: mode.pick(1000, 20),
            events: mode.pick(1280, 256),
            size: 200,
            window: 128,
        }
    }

    pub(crate) fn measure(&self, design: Design) -> io::Result<Missed> {
        let server = Server::start(design, 1, 1)?;
        let (mut clients, _) = Generator::open(&server, 1, self.streams, OPENING)?;
        let outcome = clients.run_with_gaps(self.events, self.size, self.window)?;
        if matches!(design, Design::Serve | Design::AxumServe) && outcome.missed != outcome.told {
            let (missed, told) = (outcome.missed, outcome.told);
            return Err(io::Error::other(format!("{missed} missed, {told} told")));
        }
        let all = (self.events * self.streams as u64) as f64;
        Ok(Missed {
            missed: outcome.missed as f64 / all,
            told: outcome.told as f64 / all,
            p99: outcome.latency.value_at_quantile(0.99) as f64 / 1e3,
        })
    }
}

/// One round, as parts of all deliveries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Missed {
    pub(crate) missed: f64,
    /// What gaps say is missing.
    pub(crate) told: f64,
    /// Of what arrived, in microseconds.
    pub(crate) p99: f64,
}
