//! How one stream reads from the log what it cannot read from the ring.
//!
//! A stream has to read from the log after its client resumes, and after it lagged. In both cases it reads a range of events
//! from the log, up to the next one in the ring, and leaves the ring alone meanwhile. If the ring overwrites events in that
//! time, the range grows: lag is no loss as long as the log has the events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::ring::Feed;
use super::{Connection, Log};
use crate::gap::{Gap, GapReason};
use crate::position::Position;

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    /// With live events; in a complete channel, where none come, with what is kept.
    Fresh,
    /// With the oldest event that is kept.
    Start,
    /// After the last event that its client saw.
    After(Position),
    /// Its client saw events, but which is unknown.
    Unknown,
}

/// Events that a stream does not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) gap: Gap,
    /// Whether to report it to the client: no if newer events stand for these.
    pub(crate) told: bool,
    /// The engine's log has all of them up to here, if it has not dropped them as well.
    pub(crate) in_log: Option<Position>,
}

impl Missed {
    /// Lost to lag, without a log to read them from.
    ///
    /// In a box, because this is rare, and the item that it comes in is moved for every event.
    pub(super) fn lagged(missed: u64) -> Box<Self> {
        Box::new(Self {
            gap: Gap::new(GapReason::Lagged, Some(missed)),
            told: true,
            in_log: None,
        })
    }
}

pub(super) struct Replay<T> {
    log: Arc<Log<T>>,
    /// The next event to yield, once the excerpt is.
    next: u64,
    /// The next event that the ring yields. Those in between are read from the log.
    live: u64,
    /// The first event that the ring had for it. The stream reads from the log what was broadcast before it joined.
    joined: u64,
    coalesce: bool,
    excerpt: VecDeque<(u64, T)>,
    /// The number of the last event that it has yielded.
    number: u64,
}

impl<T: Clone + Send + 'static> Replay<T> {
    pub(super) fn new(log: Arc<Log<T>>, next: u64, live: u64) -> Self {
        Self {
            log,
            next,
            live,
            joined: live,
            coalesce: false,
            excerpt: VecDeque::new(),
            number: 0,
        }
    }

    /// How many of the channel's events are before the place where the stream begins.
    pub(super) fn position(&self) -> u64 {
        self.next - 1
    }

    /// The number, in the channel, of the last event that it has yielded.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The stream's position, if it has read everything.
    pub(super) fn place(&self) -> Option<Position> {
        let has_read = self.excerpt.is_empty() && self.next == self.live;
        has_read.then(|| self.log.place_before(self.live)).flatten()
    }

    pub(super) fn coalesce(&mut self, coalesces: bool) {
        self.coalesce = coalesces;
    }

    /// The next event, from the log or from the ring.
    pub(super) fn poll(
        &mut self,
        ring: &mut Feed<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Box<Missed>>>> {
        loop {
            if let Some(item) = self.read_log() {
                return Poll::Ready(Some(item));
            }
            match ring.poll_next(cx) {
                Poll::Ready(Some(Ok(event))) => {
                    self.number = self.live;
                    self.live += 1;
                    self.next = self.live;
                    return Poll::Ready(Some(Ok(event)));
                }
                Poll::Ready(Some(Err(missed))) => self.live += missed,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The next event from the log; `None` when the next one is in the ring.
    fn read_log(&mut self) -> Option<Result<T, Box<Missed>>> {
        if let Some((number, event)) = self.excerpt.pop_front() {
            self.number = number;
            return Some(Ok(event));
        }
        if self.next == self.live {
            // Free the capacity that a long replay needed.
            self.excerpt = VecDeque::new();
            return None;
        }
        let counters = &self.log.retention().counters;
        // What was broadcast before the stream joined, or what the ring has overwritten since.
        let (end, reason, count) = match self.next < self.joined {
            true => (self.joined, GapReason::Evicted, &counters.replayed),
            false => (self.live, GapReason::Lagged, &counters.healed),
        };
        let excerpt = self.log.read(self.next, end, reason, self.coalesce);
        count.add(excerpt.events.len() as u64);
        self.excerpt = excerpt.events;
        self.next = excerpt.until;
        match excerpt.missed {
            Some(missed) => Some(Err(Box::new(missed))),
            None => self.read_log(),
        }
    }
}

impl<T: Clone + Send + 'static> Connection<T> {
    /// Whether the last event that its stream yielded was broadcast before the stream joined. Called by the stream.
    pub(crate) fn is_catching_up(&self) -> bool {
        let is_old = |replay: &Replay<T>| replay.number < replay.joined;
        let is_old = self.enter(|reader| reader.replay.as_deref().is_some_and(is_old));
        is_old.unwrap_or(false)
    }
}
