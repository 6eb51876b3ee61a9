//! What a log keeps, within its bounds. All of it is under the log's lock, so forgotten events are only handed to the caller,
//! who drops them after releasing the lock.
//!
//! The window holds the last events without a hole, [`Latest`] those before it that are still the newest of their keys. Both
//! share one budget of bytes. When there is no room, the oldest events go first. A change costs at most the logarithm of the
//! number of keys for each event that comes or goes.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::discarded::Discarded;
use super::latest::{self, Latest, Removed};
use super::progress::{Progress, Stamp};
use super::{Accepted, Origin, Retention};

pub(super) struct Window<T> {
    /// The number of the next event, in the channel.
    pub(super) next: u64,
    /// The window: the events before it.
    pub(super) events: VecDeque<Retained<T>>,
    /// The bytes of the window and `latest`. They are in `history_bytes` of the counters as well, until the log is dropped.
    pub(super) bytes: usize,
    pub(super) retention: Arc<Retention>,
    pub(super) latest: Latest<T>,
    /// Since when the user is away. While it is set, the log takes one of `away_users` and `bytes` of `away_bytes`.
    pub(super) away: Option<Instant>,
    /// No stream has joined yet: the first one gets everything.
    pub(super) unclaimed: bool,
    /// Where the log is in its history.
    pub(super) progress: Progress,
    /// The number, in the channel, of the last dropped event that stood between two places of the history; 0 if there is none.
    pub(super) dropped_between: u64,
    /// `Some` once no more events are taken.
    pub(super) complete: Option<Completion>,
    /// `Some` after streams were shown events ahead of the engine's log: the gap notice that precedes what the log returns
    /// next, and its weight.
    pub(super) ahead: Option<(T, usize)>,
}

/// That a channel is complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    /// Since when.
    pub(super) since: Instant,
    /// A client at this offset of the engine's log, or past it, has everything. It is the offset of the last event, or one
    /// between that and the end. Where the history is the channel's own, the window says so.
    pub(super) last: Option<u64>,
}

pub(super) struct Retained<T> {
    pub(super) event: T,
    pub(super) size: usize,
    /// When it was appended; `Some` only where events have a maximum age.
    pub(super) at: Option<Instant>,
    /// Where it stands in the history.
    pub(super) stamp: Stamp,
}

impl<T> Window<T> {
    /// The number of the first event of the window, or of the next one if it is empty.
    pub(super) fn first(&self) -> u64 {
        self.next - self.events.len() as u64
    }

    /// The number of the first event after this offset of the history.
    pub(super) fn first_after(&self, offset: u64) -> u64 {
        let is_before = |retained: &Retained<T>| retained.stamp <= Stamp::at(offset);
        self.first() + self.events.partition_point(is_before) as u64
    }

    /// Keeps the next event, and drops what has no room beside it: the oldest events first.
    pub(super) fn keep(
        &mut self,
        key: Option<&str>,
        entry: Retained<T>,
        discarded: &mut Discarded<T>,
    ) {
        let number = self.next;
        let key = key.filter(|_| self.latest.takes_keys());
        let key = key.map(|key| self.replace(key, discarded));
        if key.is_none() {
            self.latest.miss(number);
        }
        let history = self.retention.history;
        let most = history.map_or(0, |history| history.events);
        let bytes = history.map_or(usize::MAX, |history| history.bytes);
        let cost = entry.size + key.as_deref().map_or(0, latest::cost_of);
        let is_kept = (most > 0 || key.is_some()) && cost <= bytes;
        if is_kept {
            while self.events.len() >= most.max(1) {
                self.forget_first(discarded);
            }
            if key.is_some() && self.latest.is_full() {
                let forgotten = self.latest.forget_key();
                self.let_go(forgotten, discarded);
            }
        }
        if !is_kept || !self.take_room(cost, bytes, discarded) {
            // Those before it cannot stay in the window either: it has no holes.
            while self.forget_first(discarded) {}
            self.note_dropped(number, entry.stamp);
            self.latest.miss(number);
            discarded.push(entry.event);
            self.next += 1;
            return;
        }
        if let Some(key) = key {
            self.latest.insert(number, key);
        }
        let entry = match most {
            0 => self.latest.hold(number, entry).err(),
            _ => Some(entry),
        };
        self.events.extend(entry);
        self.next += 1;
    }

    /// Forgets the event that the next one replaces under its key, and returns the key.
    fn replace(&mut self, key: &str, discarded: &mut Discarded<T>) -> Arc<str> {
        let replaced = self.latest.remove(key);
        self.let_go(replaced, discarded)
            .unwrap_or_else(|| key.into())
    }

    /// Makes room for this many bytes, and takes it. `false` if there is none even with all events forgotten.
    fn take_room(&mut self, bytes: usize, most: usize, discarded: &mut Discarded<T>) -> bool {
        let has_room = |window: &Self| {
            bytes <= most - window.bytes
                && (window.away.is_none() || window.retention.away_bytes().take(bytes))
        };
        while !has_room(self) {
            if !self.forget_oldest(discarded) {
                return false;
            }
        }
        self.bytes += bytes;
        self.retention.counters.history_bytes.add(bytes as u64);
        true
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.retention.counters.history_bytes.sub(bytes as u64);
        if self.away.is_some() {
            self.retention.away_bytes().give_back(bytes);
        }
    }

    fn let_go(
        &mut self,
        removed: Option<Removed<T>>,
        discarded: &mut Discarded<T>,
    ) -> Option<Arc<str>> {
        let removed = removed?;
        self.give_back(removed.bytes);
        discarded.extend(removed.event);
        Some(removed.key)
    }

    /// Notes that the window no longer has this event, or never had it.
    fn note_dropped(&mut self, number: u64, stamp: Stamp) {
        self.progress.dropped = stamp.offset;
        if stamp.is_between {
            self.dropped_between = number;
        }
    }

    /// Takes the first event out of the window. `latest` keeps it if it is the newest of its key.
    pub(super) fn forget_first(&mut self, discarded: &mut Discarded<T>) -> bool {
        let number = self.first();
        let Some(entry) = self.events.pop_front() else {
            return false;
        };
        self.note_dropped(number, entry.stamp);
        if let Err(entry) = self.latest.hold(number, entry) {
            self.give_back(entry.size);
            discarded.push(entry.event);
        }
        true
    }

    /// Forgets the oldest event there is, or takes it out of the window; `false` if nothing is left.
    pub(super) fn forget_oldest(&mut self, discarded: &mut Discarded<T>) -> bool {
        let held = self.latest.forget_held(|_| true);
        self.let_go(held, discarded).is_some() || self.forget_first(discarded)
    }

    pub(super) fn forget_old(&mut self, now: Option<Instant>, discarded: &mut Discarded<T>) {
        let (Some(now), Some(age)) = (now, self.retention.age()) else {
            return;
        };
        let is_old = |entry: &Retained<T>| {
            entry
                .at
                .is_some_and(|at| now.saturating_duration_since(at) > age)
        };
        while self.events.front().is_some_and(is_old) {
            self.forget_first(discarded);
        }
        while let Some(held) = self.latest.forget_held(is_old) {
            self.let_go(Some(held), discarded);
        }
    }

    /// Whether a client at this offset of the engine's log has everything there will be.
    pub(super) fn is_all(&self, offset: u64) -> bool {
        let last = self.complete.and_then(|completion| completion.last);
        last.is_some_and(|last| offset >= last)
    }

    /// The offset to give a client that has everything. In an engine's log the end has an offset of its own, and so have
    /// events after it: a client given one of these would look for the end after it, and never find it on a node without the
    /// channel.
    pub(super) fn last_shown(&self) -> u64 {
        let last = self.complete.and_then(|completion| completion.last);
        last.unwrap_or(self.progress.last)
    }

    /// Refuses what comes after the end. What the engine's log has there counts as appended, so that no stream looks for it.
    pub(super) fn refuse(&mut self, origin: Origin<T>, discarded: &mut Discarded<T>) -> Accepted {
        match origin {
            Origin::Upstream(place) if place.position.epoch == self.progress.epoch => {
                self.progress.last = self.progress.last.max(place.position.offset);
            }
            Origin::Ahead { notice, .. } => discarded.push(notice),
            // A reset is not needed: what is kept of the replaced log is whole.
            Origin::Here | Origin::Upstream(_) | Origin::Reset => {}
        }
        Accepted::Complete
    }

    /// Notes that the user is no longer away.
    pub(super) fn come_back(&mut self) {
        if self.away.take().is_some() {
            self.retention.away_bytes().give_back(self.bytes);
            self.retention.away_users().give_back(1);
        }
    }
}

impl<T> Drop for Window<T> {
    fn drop(&mut self) {
        self.retention.counters.history_bytes.sub(self.bytes as u64);
        let mut discarded = Discarded::new();
        discarded.extend(self.latest.drain());
        discarded.extend(self.events.drain(..).map(|entry| entry.event));
    }
}
