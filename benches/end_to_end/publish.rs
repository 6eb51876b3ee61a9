//! How a server is told what to publish: a line for a run of events, then a line for what has arrived.
//!
//! The connection is the publisher's own, so that an acknowledgement wakes it and nobody else. Lines:
//!
//! - `run <first> <count> <size> <window> <rate>`: events of these numbers, no more in flight than the window, and no more
//!   a second than the rate, unless that is 0;
//! - `<n>`: of the present run, n events have arrived wherever they should.

use std::io::{self, BufRead, BufReader};
use std::net::TcpStream;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

/// Events to publish. Event n goes to user n modulo the number of users.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) size: usize,
    /// How many may be under way at once.
    pub(crate) window: u64,
    /// So many a second; 0 for as many as can be.
    pub(crate) rate: u64,
}

impl Run {
    pub(crate) fn line(&self) -> String {
        let Self {
            first,
            count,
            size,
            window,
            rate,
        } = self;
        format!("run {first} {count} {size} {window} {rate}\n")
    }
}

impl FromStr for Run {
    type Err = io::Error;

    fn from_str(line: &str) -> io::Result<Self> {
        let mut words = line.split_whitespace().skip(1).map(str::parse::<u64>);
        let mut next = || match words.next() {
            Some(Ok(number)) => Ok(number),
            _ => Err(io::Error::other(format!("not a run: {line:?}"))),
        };
        Ok(Self {
            first: next()?,
            count: next()?,
            size: next()? as usize,
            window: next()?,
            rate: next()?,
        })
    }
}

/// Where a run is.
pub(crate) struct Progress {
    pub(crate) run: Run,
    began: Instant,
    sent: u64,
    arrived: u64,
}

impl Progress {
    pub(crate) fn of(line: &str) -> io::Result<Self> {
        Ok(Self {
            run: line.parse()?,
            began: Instant::now(),
            sent: 0,
            arrived: 0,
        })
    }

    /// The number of the next event, if it may be sent.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let may = self.sent < self.run.count && self.sent - self.arrived < self.run.window;
        may.then(|| {
            self.sent += 1;
            self.run.first + self.sent - 1
        })
    }

    /// How long to wait before the event that came last out of [`next`](Self::next) is published.
    pub(crate) fn pause(&self) -> Option<Duration> {
        if self.run.rate == 0 {
            return None;
        }
        let due = Duration::from_secs_f64((self.sent - 1) as f64 / self.run.rate as f64);
        due.checked_sub(self.began.elapsed())
    }

    pub(crate) fn acknowledge(&mut self, line: &str) -> io::Result<()> {
        self.arrived = line.trim().parse().map_err(io::Error::other)?;
        Ok(())
    }

    pub(crate) fn is_done(&self) -> bool {
        self.arrived == self.run.count
    }
}

/// Publishes by calling `publish` with the number and the size, until the other side has gone.
pub(crate) fn blocking(
    control: TcpStream,
    mut publish: impl FnMut(u64, usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut lines = BufReader::new(control).lines();
    while let Some(line) = lines.next() {
        let mut progress = Progress::of(&line?)?;
        while !progress.is_done() {
            while let Some(number) = progress.next() {
                if let Some(pause) = progress.pause() {
                    thread::sleep(pause);
                }
                publish(number, progress.run.size)?;
            }
            match lines.next() {
                Some(line) => progress.acknowledge(&line?)?,
                None => return Ok(()),
            }
        }
    }
    Ok(())
}
