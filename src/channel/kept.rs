//! What a log keeps, within its bounds. All of it stands under the log's lock.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::Retention;
use super::latest::Latest;
use super::shared::{Mark, Marks};
use crate::metrics::Counters;

pub(super) struct State<T> {
    /// The offset of the next event. Those that are kept are the ones before it.
    pub(super) next: u64,
    pub(super) kept: VecDeque<Entry<T>>,
    /// The sizes of those that are kept. They are in `history_bytes` of the counters as well, until the log is dropped.
    pub(super) bytes: usize,
    pub(super) counters: Arc<Counters>,
    pub(super) latest: Latest<T>,
    /// Since when nobody is in. While it is set, a place for a user and `bytes` are taken of the room for those.
    pub(super) away: Option<Instant>,
    /// Nobody has ever been in: the first one gets everything.
    pub(super) unclaimed: bool,
    /// Where several nodes have the history in common.
    pub(super) marks: Option<Marks>,
}

pub(super) struct Entry<T> {
    pub(super) event: T,
    pub(super) size: usize,
    /// When it was appended; known only where events grow too old.
    pub(super) at: Option<Instant>,
    /// Where a stream is behind it, and whether it was not there before; where several nodes have the history in common.
    pub(super) mark: Option<(Mark, bool)>,
}

impl<T> State<T> {
    /// How many of the events that are kept a stream has behind it that is at this mark. What was noted there is told once
    /// more rather than never.
    pub(super) fn behind(&self, mark: Mark) -> u64 {
        let before = |entry: &Entry<T>| entry.mark.is_some_and(|(at, _)| at < mark);
        let count = self.kept.partition_point(before);
        let is_it = |entry: &Entry<T>| entry.mark == Some((mark, true));
        (count + usize::from(self.kept.get(count).is_some_and(is_it))) as u64
    }

    pub(super) fn keep(&mut self, entry: Entry<T>, retention: &Retention) {
        let Some(history) = retention.history else {
            return;
        };
        if entry.size > history.bytes || history.events == 0 {
            // Those before it cannot stay either: what is kept has no holes.
            while self.forget_first(retention) {}
            self.drop_mark(&entry);
            return;
        }
        while self.kept.len() >= history.events || self.bytes > history.bytes - entry.size {
            self.forget_first(retention);
        }
        if self.away.is_some() {
            while !retention.away_bytes().take(entry.size) {
                if !self.forget_first(retention) {
                    self.drop_mark(&entry);
                    return;
                }
            }
        }
        self.bytes += entry.size;
        self.counters.history_bytes.add(entry.size as u64);
        self.kept.push_back(entry);
    }

    /// An event is not even kept.
    fn drop_mark(&mut self, entry: &Entry<T>) {
        if let (Some(marks), Some((mark, _))) = (&mut self.marks, entry.mark) {
            marks.dropped = mark;
        }
    }

    pub(super) fn forget_first(&mut self, retention: &Retention) -> bool {
        let Some(entry) = self.kept.pop_front() else {
            return false;
        };
        self.bytes -= entry.size;
        self.counters.history_bytes.sub(entry.size as u64);
        self.drop_mark(&entry);
        if self.away.is_some() {
            retention.away_bytes().give_back(entry.size);
        }
        true
    }

    pub(super) fn forget_old(&mut self, now: Option<Instant>, retention: &Retention) {
        let (Some(now), Some(age)) = (now, retention.age()) else {
            return;
        };
        let is_old = |entry: &Entry<T>| {
            entry
                .at
                .is_some_and(|at| now.saturating_duration_since(at) > age)
        };
        while self.kept.front().is_some_and(is_old) {
            self.forget_first(retention);
        }
    }

    /// The user is not away any more.
    pub(super) fn come_back(&mut self, retention: &Retention) {
        if self.away.take().is_some() {
            retention.away_bytes().give_back(self.bytes);
            retention.away_users().give_back(1);
        }
    }
}

impl<T> Drop for State<T> {
    fn drop(&mut self) {
        self.counters.history_bytes.sub(self.bytes as u64);
    }
}
