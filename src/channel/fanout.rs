//! The channel itself: what is sent to those on its roster.

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
    /// A channel whose first connection is counted before anybody else can see it. It is [admitted](Self::admit) next.
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

    /// Adds a connection. It is counted first and subscribed then: the other way round, an event could be counted as
    /// having reached a connection that is refused in the end.
    pub(crate) fn join(
        &self,
        connection: &Arc<Connection<T>>,
        cap: usize,
        resume: Resume,
    ) -> Result<Welcome, Refusal> {
        let ring = self.roster.attach(connection, cap)?;
        Ok(self.subscribe(connection, resume, &ring))
    }

    /// Subscribes the connection that the channel was opened with, before anybody else can see it.
    pub(crate) fn admit(&self, connection: &Connection<T>, resume: Resume) -> Welcome {
        let current = self.roster.current();
        let ring = current.ring().expect("nobody has closed it");
        self.subscribe(connection, resume, ring)
    }

    /// Subscribes a connection that is counted to the ring that it was counted with. A client that comes back from an unknown
    /// place is told so.
    fn subscribe(&self, connection: &Connection<T>, resume: Resume, ring: &Ring<T>) -> Welcome {
        // Read before subscribing: a notice sent in between counts as not seen, so a later lag may be reported as wider than it
        // was, never as narrower.
        let notices = self.roster.notices();
        let Some(log) = self.roster.log() else {
            connection.install(ring.subscribe(), None);
            // Read after subscribing: what is sent meanwhile may be counted as read, never as missing.
            connection.begin_at(self.roster.head());
            let gap = match resume {
                Resume::Fresh => None,
                // Nothing is kept. Read after subscribing as well: one that is on its way may be taken for gone.
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
        // Whoever completes the channel sets that under the log's lock, and then has those finish that have begun. We begin and
        // then ask under that lock. Before it: the other sees that we have begun. After it: we see that it is complete.
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

    /// Appends what `make` makes of its id, and sends it to every connection that is subscribed. `make` is called once at most:
    /// with a log under its lock, and only if it is its turn. What it owns is dropped after that.
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

    /// Where it is in its history, if it has one.
    pub(crate) fn place(&self) -> Option<Position> {
        self.roster.log()?.place()
    }

    /// See [`Log::compare`].
    pub(crate) fn compare(&self, newest: Position, through: u64) -> Standing {
        let log = self.roster.log();
        log.map_or(Standing::Level, |log| log.compare(newest, through))
    }

    /// The engine's log has nothing up to this place that is not here.
    pub(crate) fn catch_up(&self, place: Position) {
        if let Some(log) = self.roster.log() {
            log.catch_up(place);
        }
    }
}

/// Sends an event, or one and a notice before it, under the log's lock if there is a log. What that does to the service, streams
/// that wake and other events that are dropped, follows when this is dropped: after the lock was released.
pub(super) struct Delivery<'a, T: Clone + Send + 'static> {
    roster: &'a Roster<T>,
    /// What was sent to, and the event if nobody is there for it.
    sent: [Option<(Current<T>, Option<T>)>; 2],
}

impl<'a, T: Clone + Send + 'static> Delivery<'a, T> {
    fn to(roster: &'a Roster<T>) -> Self {
        Self {
            roster,
            sent: [None, None],
        }
    }

    /// Sends it to the ring that there is now, and says to how many streams that is.
    pub(super) fn send(&mut self, event: T, label: Label<'_>) -> usize {
        if label.is_notice {
            self.roster.add_notice();
        }
        self.roster.advance();
        // With a log this is under its lock: a stream that has joined the log before reads from this ring.
        let current = self.roster.current();
        let (reached, unread) = match current.ring() {
            Some(ring) => ring.push(event),
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
    /// What its client is to be told first.
    pub(crate) gap: Option<Gap>,
    /// Where it begins, if positions have ids.
    pub(crate) cursor: Option<Position>,
    /// Where the client is in the engine's log, and up to where it needs what that has. `None` for one that begins with what
    /// comes.
    pub(crate) log: Option<(Position, Position)>,
    /// How many notices of gaps are behind it.
    pub(crate) notices: u64,
}
