//! The channel itself: subscribes connections and sends events to them.

use std::sync::Arc;

use super::ring::Ring;
use super::roster::Current;
use super::{Accepted, Connection, Label, Log, Origin, Refusal, Resume, Roster, Standing};
use crate::end::EndReason;
use crate::gap::{Gap, GapReason};
use crate::id::UserId;
use crate::position::Position;
use crate::sync::contain;

pub(crate) struct Channel<T> {
    roster: Arc<Roster<T>>,
}

impl<T: Clone + Send + 'static> Channel<T> {
    /// A channel with its first connection on the roster, before other threads can see it. [`admit`](Self::admit) is called
    /// next.
    pub(crate) fn open(
        user: UserId,
        hash: u64,
        capacity: usize,
        log: Option<Arc<Log<T>>>,
        first: Option<&Arc<Connection<T>>>,
    ) -> Self {
        Self {
            roster: Arc::new(Roster::new(user, hash, capacity, log, first)),
        }
    }

    /// Adds a connection: first to the roster, then to the ring. In the other order, an event could count as having reached a
    /// connection that is then refused.
    pub(crate) fn join(
        &self,
        connection: &Arc<Connection<T>>,
        cap: usize,
        resume: Resume,
    ) -> Result<Welcome, Refusal> {
        let ring = self.roster.attach(connection, cap)?;
        Ok(self.subscribe(connection, resume, &ring))
    }

    /// Subscribes the connection that the channel was opened with, before other threads can see the channel.
    pub(crate) fn admit(&self, connection: &Connection<T>, resume: Resume) -> Welcome {
        let current = self.roster.current();
        let ring = current.ring().expect("nobody has closed it");
        self.subscribe(connection, resume, ring)
    }

    /// Subscribes a connection to the ring that `attach` returned for it. A client that resumes from an unknown position gets
    /// a gap.
    fn subscribe(&self, connection: &Connection<T>, resume: Resume, ring: &Ring<T>) -> Welcome {
        // Read before subscribing: a notice sent in between counts as not seen, so a later lag may be reported as larger than
        // it was, never as smaller.
        let notices = self.roster.notices();
        let Some(log) = self.roster.log() else {
            connection.install(ring.subscribe(), None);
            // Read after subscribing: what is sent meanwhile may be counted as read, never as missing.
            connection.begin_at(self.roster.head());
            let gap = match resume {
                Resume::Fresh => None,
                // Nothing is kept. Read after subscribing as well: an event sent in between may be reported as evicted, and
                // still arrive.
                Resume::Start => (self.roster.head() > 0).then_some(GapReason::Evicted),
                Resume::After(_) | Resume::Unknown => Some(GapReason::Epoch),
            };
            return Welcome {
                gap: gap.map(|reason| Gap::new(reason, None)),
                notices,
                ..Welcome::default()
            };
        };
        let joined = log.join(resume, ring);
        let position = joined.replay.position();
        connection.install(joined.feed, Some(Box::new(joined.replay)));
        connection.begin_at(position);
        // `complete` marks the log under its lock, then asks connections that have begun to finish. We begin, then ask the
        // log under that lock. If we lock first, `complete` sees that we have begun. If it locks first, we see the mark.
        if log.is_complete() {
            connection.finish(EndReason::Completed);
        }
        Welcome {
            notices,
            ..joined.welcome
        }
    }

    pub(crate) fn roster(&self) -> &Arc<Roster<T>> {
        &self.roster
    }

    /// Whether its events get ids.
    pub(crate) fn has_ids(&self) -> bool {
        self.roster.log().is_some_and(|log| log.has_ids())
    }

    /// Appends the event that `make` returns for its id, and sends it to every subscribed connection. `make` is called at
    /// most once: with a log, under its lock, and only if the event's turn has come. What `make` owns is dropped after that.
    pub(crate) fn append(
        &self,
        origin: Origin<T>,
        label: Label<'_>,
        mut make: impl FnMut(Option<Position>) -> T,
    ) -> Accepted {
        let mut delivery = Delivery::to(&self.roster);
        match (self.roster.log(), origin) {
            (Some(log), origin) => log.append(origin, label, &mut make, &mut delivery),
            (None, Origin::Here) => Accepted::Delivered(delivery.send(make(None), label)),
            (None, _) => Accepted::Elsewhere,
        }
    }

    /// The channel's position in its history, if it has one.
    pub(crate) fn place(&self) -> Option<Position> {
        self.roster.log()?.place()
    }

    /// See [`Log::compare`].
    pub(crate) fn compare(&self, newest: Position, through: u64) -> Standing {
        let log = self.roster.log();
        log.map_or(Standing::Level, |log| log.compare(newest, through))
    }

    /// Notes that the channel has all that the engine's log has up to this place.
    pub(crate) fn catch_up(&self, place: Position) {
        if let Some(log) = self.roster.log() {
            log.catch_up(place);
        }
    }
}

/// Sends an event, or a notice and then an event, under the log's lock if there is a log. Wakes the streams and drops
/// overwritten events, which runs code of the service, only when this is dropped: after the lock is released.
pub(super) struct Delivery<'a, T: Clone + Send + 'static> {
    roster: &'a Roster<T>,
    /// The state that each was sent to, and the event if no stream was there to receive it.
    sent: [Option<(Current<T>, Option<T>)>; 2],
}

impl<'a, T: Clone + Send + 'static> Delivery<'a, T> {
    fn to(roster: &'a Roster<T>) -> Self {
        Self {
            roster,
            sent: [None, None],
        }
    }

    /// Sends it to the current ring, and returns how many streams it reaches.
    pub(super) fn send(&mut self, event: T, label: Label<'_>) -> usize {
        if label.is_notice {
            self.roster.add_notice();
        }
        let number = self.roster.advance();
        // With a log this is under its lock: a stream that has joined the log before reads from this ring.
        let current = self.roster.current();
        let (reached, unread) = match current.ring() {
            Some(ring) => ring.push(event, number),
            None => (0, Some(event)),
        };
        let [first, second] = &mut self.sent;
        *match first {
            None => first,
            Some(_) => second,
        } = Some((current, unread));
        reached
    }
}

impl<T: Clone + Send + 'static> Drop for Delivery<'_, T> {
    fn drop(&mut self) {
        for (current, unread) in self.sent.iter_mut().filter_map(Option::take) {
            current.ring().inspect(|ring| ring.release());
            contain(|| drop(unread));
        }
    }
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Welcome {
    /// The gap to report to its client first.
    pub(crate) gap: Option<Gap>,
    /// Its cursor, if events have ids.
    pub(crate) cursor: Option<Position>,
    /// The stream's position in the engine's log, if there is one, and the position up to which it has to read that log.
    pub(crate) log: Option<(Position, Position)>,
    /// How many gap notices were sent before it began.
    pub(crate) notices: u64,
    /// It begins with events that were sent before, and perhaps with some of these notices.
    pub(crate) replays: bool,
    /// Its channel is where it was opened: nothing was appended, nor compared with the engine's log.
    pub(crate) is_untouched: bool,
}
