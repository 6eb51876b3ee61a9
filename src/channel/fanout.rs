//! The channel itself: what is sent to those on its roster.

use std::sync::Arc;

use super::ring::Ring;
use super::{Accepted, Connection, Incoming, Log, Refusal, Resume, Roster, Standing};
use crate::gap::{Gap, GapReason};
use crate::id::{Position, UserId};
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
        // Before subscribing: one that comes in between counts as not seen, and makes nobody too sure.
        let notices = self.roster.notices();
        let Some(log) = self.roster.log() else {
            connection.install(ring.subscribe(), None);
            // Read after subscribing: what is sent meanwhile may be counted as read, never as missing.
            connection.begin_at(self.roster.head());
            let gap = (resume != Resume::Fresh).then_some(Gap {
                reason: GapReason::Epoch,
                missed: None,
                position: None,
            });
            return Welcome {
                gap,
                notices,
                ..Welcome::default()
            };
        };
        let joined = log.join(resume, || ring.subscribe());
        connection.begin_at(joined.replay.position());
        connection.install(joined.feed, Some(Box::new(joined.replay)));
        Welcome {
            gap: joined.gap,
            cursor: joined.cursor,
            log: joined.log,
            notices,
        }
    }

    pub(crate) fn roster(&self) -> &Arc<Roster<T>> {
        &self.roster
    }

    /// The epoch of its events' ids, if they get any.
    pub(crate) fn id_epoch(&self) -> Option<u64> {
        self.roster.log()?.id_epoch()
    }

    /// Sends what `make` makes of the event's id to every connection that is subscribed, and says how many these are.
    ///
    /// With a log, `make` is called under its lock. `size` is what the event counts there, `key` what it is known by.
    pub(crate) fn publish(
        &self,
        size: usize,
        key: Option<&str>,
        make: impl FnOnce(Option<Position>) -> T,
    ) -> usize {
        self.sending(|send| match self.roster.log() {
            None => send(make(None)),
            Some(log) => log.append(size, key, make, send),
        })
    }

    /// Sends an event of the engine's log, if it is its turn; see [`Log::take`]. It may tell of a gap.
    pub(crate) fn take(
        &self,
        tells_of_a_gap: bool,
        incoming: Incoming,
        sized: (usize, Option<&str>),
        make: impl FnOnce(Position) -> T,
    ) -> Accepted {
        // What is not taken is dropped here and not under the log's lock: it may hold an attachment of the service.
        let mut unused = Some(make);
        let make = |id| {
            let make = unused.take().expect("an event is made once");
            match tells_of_a_gap {
                true => self.count_notice(make(id)),
                false => make(id),
            }
        };
        self.sending(|send| match self.roster.log() {
            None => Accepted::Elsewhere,
            Some(log) => log.take(incoming, sized, make, || self.roster.add_notice(), send),
        })
    }

    /// Sends an event that the engine's log has not returned yet; see [`Log::show`]. Each `size` is what the log counts.
    pub(crate) fn show(&self, sized: (usize, Option<&str>), event: T, notice: (usize, T)) {
        if let Some(log) = self.roster.log() {
            let count = || self.roster.add_notice();
            self.sending(|send| log.show(sized, event, notice, count, send));
        }
    }

    /// Sends what says that the engine's log lacks what comes next, up to this place; see [`Log::skip`].
    pub(crate) fn skip(&self, until: Position, size: usize, make: impl FnOnce(Position) -> T) {
        if let Some(log) = self.roster.log() {
            let make = |id| self.count_notice(make(id));
            let count = || self.roster.add_notice();
            self.sending(|send| log.skip(until, size, make, count, send));
        }
    }

    /// Sends something that is no event but tells of a gap to every connection that is subscribed.
    pub(crate) fn note(&self, size: usize, make: impl FnOnce(Option<Position>) -> T) -> usize {
        let make = |id| self.count_notice(make(id));
        self.sending(|send| match self.roster.log() {
            None => send(make(None)),
            Some(log) => log.append(size, None, make, send),
        })
    }

    /// Goes over to the engine's log that there is now, if it is another one; see [`Log::follow`].
    pub(crate) fn follow(&self, size: usize, make: impl FnOnce(Position) -> T) {
        if let Some(log) = self.roster.log() {
            let make = |id| self.count_notice(make(id));
            self.sending(|send| log.follow(size, make, send));
        }
    }

    /// Where it is in the engine's log, if it is in one.
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

    fn count_notice(&self, notice: T) -> T {
        self.roster.add_notice();
        notice
    }

    /// Runs `append`, which may send an event under the log's lock, and a notice before it. What these do to the service,
    /// streams that wake and other events that are dropped, follows when that is released.
    fn sending<R>(&self, append: impl FnOnce(&mut dyn FnMut(T) -> usize) -> R) -> R {
        let (mut before, mut sent) = (None, None);
        let result = append(&mut |event| {
            self.roster.advance();
            // With a log this is under its lock: a stream that has joined the log before reads from this ring.
            let current = self.roster.current();
            let (reached, unread) = match current.ring() {
                Some(ring) => ring.push(event),
                None => (0, Some(event)),
            };
            before = sent.replace((current, unread));
            reached
        });
        for (current, unread) in before.into_iter().chain(sent) {
            current.ring().inspect(|ring| ring.release());
            contain(|| drop(unread));
        }
        result
    }
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Welcome {
    /// What its client is to be told first.
    pub(crate) gap: Option<Gap>,
    /// Where it begins, if positions have ids.
    pub(crate) cursor: Option<Position>,
    /// Up to where the client needs what the engine's log has. `None` for one that does not come back.
    pub(crate) log: Option<Position>,
    /// How many [notices](Channel::note) are behind it.
    pub(crate) notices: u64,
}
