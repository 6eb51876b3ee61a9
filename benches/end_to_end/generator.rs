//! Many clients on one thread, which must not be slower than the server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::design::Server;
use crate::publish::Run;
use crate::response::Response;
use crate::stamped;

/// How many may be on their way to a response at once, if not all: fewer than the backlog.
pub(crate) const OPENING: usize = 1000;

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(20);

struct Connection {
    tcp: TcpStream,
    has_asked: bool,
    response: Response,
    /// The number of the event that must come next.
    next: u64,
}

/// What a run gave.
pub(crate) struct Outcome {
    pub(crate) took: Duration,
    pub(crate) deliveries: u64,
    /// Events that streams went past, and how many of them gaps had told of.
    pub(crate) missed: u64,
    pub(crate) told: u64,
    /// From before an event is published until it is read, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

/// The connections of some users, as many for each.
pub(crate) struct Generator {
    poll: Poll,
    events: Events,
    buf: Vec<u8>,
    addr: SocketAddr,
    users: usize,
    each: usize,
    connections: Vec<Connection>,
    control: std::net::TcpStream,
    first: u64,
    patience: Duration,
}

impl Generator {
    /// Opens all connections, so many at once, each of which must have the head of its response, and says how long that
    /// took.
    pub(crate) fn open(
        server: &Server,
        users: usize,
        each: usize,
        at_once: usize,
    ) -> io::Result<(Self, Duration)> {
        let addr = server.addr();
        let control = std::net::TcpStream::connect(server.control())?;
        control.set_nodelay(true)?;
        let mut this = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buf: vec![0; 256 * 1024],
            addr,
            users,
            each,
            connections: Vec::with_capacity(users * each),
            control,
            first: 0,
            patience: PATIENCE,
        };
        let start = Instant::now();
        let mut opened = 0;
        while opened < users * each {
            while this.connections.len() < (users * each).min(opened.saturating_add(at_once)) {
                this.connect()?;
            }
            this.poll(|_, _| Ok(()))?;
            // Counted anew: there are not many turns.
            let has_begun = |connection: &&Connection| connection.response.has_begun();
            opened = this.connections.iter().filter(has_begun).count();
        }
        Ok((this, start.elapsed()))
    }

    fn connect(&mut self) -> io::Result<()> {
        let n = self.connections.len();
        let mut tcp = TcpStream::connect(self.addr)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut tcp, Token(n), both)?;
        self.connections.push(Connection {
            tcp,
            has_asked: false,
            response: Response::new(),
            next: (n % self.users) as u64,
        });
        Ok(())
    }

    /// Waits for something to read, and passes on events, with the number that is expected, which is to be moved on.
    fn poll(
        &mut self,
        mut event: impl FnMut(&mut u64, &[u8]) -> Result<(), String>,
    ) -> io::Result<()> {
        self.poll.poll(&mut self.events, Some(self.patience))?;
        if self.events.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, "nothing more comes"));
        }
        for ready in &self.events {
            let n = ready.token().0;
            let connection = &mut self.connections[n];
            if !connection.has_asked {
                if !ready.is_writable() {
                    continue;
                }
                let user = n % self.users;
                let request = format!(
                    "GET /{user} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n\r\n"
                );
                connection.tcp.write_all(request.as_bytes())?;
                connection.has_asked = true;
            }
            loop {
                let read = match connection.tcp.read(&mut self.buf) {
                    Ok(0) => return Err(io::Error::other(format!("connection {n} ended"))),
                    Ok(read) => read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                let mut fault = None;
                let expected = &mut connection.next;
                let pushed = connection.response.push(&self.buf[..read], |data| {
                    if let Err(error) = event(expected, data) {
                        fault.get_or_insert(error);
                    }
                });
                if let Err(what) = pushed.and(fault.map_or(Ok(()), Err)) {
                    return Err(io::Error::other(format!("connection {n}: {what}")));
                }
                // What comes after a short read is reported anew.
                if read < self.buf.len() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Checks that no event comes a second time after all have come. What stands between events may.
    fn nothing_more(&mut self) -> io::Result<()> {
        let patience = std::mem::replace(&mut self.patience, Duration::from_millis(20));
        let polled = self.poll(|_, data| {
            let data = String::from_utf8_lossy(&data[..data.len().min(40)]);
            Err(format!("nothing more expected, not {data:?}"))
        });
        self.patience = patience;
        match polled {
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(()),
            polled => polled,
        }
    }

    /// Has so many events published, and checks that each arrives, once and in order, at all connections of its user.
    pub(crate) fn run(
        &mut self,
        count: u64,
        size: usize,
        window: u64,
        rate: u64,
    ) -> io::Result<Outcome> {
        let outcome = self.run_any(count, size, window, rate)?;
        match outcome.missed {
            0 => Ok(outcome),
            missed => Err(io::Error::other(format!("{missed} events did not arrive"))),
        }
    }

    /// The same where streams may miss events; those that arrive are in order, and the newest is among them.
    pub(crate) fn run_with_gaps(
        &mut self,
        count: u64,
        size: usize,
        window: u64,
    ) -> io::Result<Outcome> {
        self.run_any(count, size, window, 0)
    }

    fn run_any(&mut self, count: u64, size: usize, window: u64, rate: u64) -> io::Result<Outcome> {
        let step = self.users as u64;
        let first = self.first;
        self.first += count;
        let run = Run {
            first,
            count,
            size,
            window,
            rate,
        };
        let mut latency =
            Histogram::new_with_max(60_000_000_000, 3).expect("three digits are allowed");
        let mut missing = vec![self.each; count as usize];
        let (mut arrived, mut acknowledged, mut missed, mut told) = (0, 0, 0, 0);
        let start = Instant::now();
        self.control.write_all(run.line().as_bytes())?;
        while arrived < count {
            self.poll(|expected, data| {
                if let Some(gap) = stamped::gap(data) {
                    told += gap;
                    return Ok(());
                }
                let found = stamped::parse(data, size);
                let comes_next =
                    |number: u64| number >= *expected && (number - *expected) % step == 0;
                let Some((number, sent)) = found.filter(|&(number, _)| comes_next(number)) else {
                    let data = String::from_utf8_lossy(&data[..data.len().min(40)]);
                    return Err(format!("event {expected} expected, not {data:?}"));
                };
                latency.saturating_record(stamped::now().saturating_sub(sent));
                while *expected <= number {
                    let missing = expected
                        .checked_sub(first)
                        .and_then(|n| missing.get_mut(n as usize))
                        .ok_or_else(|| format!("event {number} was not asked for"))?;
                    *missing -= 1;
                    arrived += u64::from(*missing == 0);
                    missed += u64::from(*expected < number);
                    *expected += step;
                }
                Ok(())
            })?;
            // Not for each event if many are under way: what an acknowledgement costs the server is no part of fan-out.
            if arrived - acknowledged >= (window / 4).max(1) || arrived == count {
                self.control.write_all(format!("{arrived}\n").as_bytes())?;
                acknowledged = arrived;
            }
        }
        let took = start.elapsed();
        self.nothing_more()?;
        Ok(Outcome {
            took,
            deliveries: count * self.each as u64,
            missed,
            told,
            latency,
        })
    }
}
