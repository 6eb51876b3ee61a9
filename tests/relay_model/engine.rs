//! The engine between the nodes: one log of all users, its epochs, and what it answers.

use super::stretch::Stretch;
use crate::backplane::{Head, Missing};
use crate::position::{Place, Position};

pub(super) type User = u8;

/// Something that a stream gets, with its place if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) place: Option<Position>,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum What {
    Event(u8),
    Gap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) user: User,
    pub(super) place: Position,
    pub(super) what: What,
}

/// How an engine counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Counts {
    /// All messages: offsets rise over all users.
    Together,
    /// Each user's: the horizon is always 0.
    PerUser,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Engine {
    pub(super) epoch: u64,
    /// What it has, and what it had in earlier epochs: what clients have to get, or to be told of.
    pub(super) history: Vec<Record>,
    /// What the log still has, oldest first.
    kept: Vec<Record>,
    /// What it has dropped for its age.
    dropped: Vec<Record>,
    events: u8,
    counts: Counts,
}

impl Engine {
    pub(super) fn new(counts: Counts) -> Self {
        Self {
            epoch: 1,
            history: Vec::new(),
            kept: Vec::new(),
            dropped: Vec::new(),
            events: 0,
            counts,
        }
    }

    pub(super) fn events(&self) -> u8 {
        self.events
    }

    fn at(&self, offset: u64) -> Position {
        Position {
            epoch: self.epoch,
            offset,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Record> {
        self.dropped.iter().chain(&self.kept)
    }

    fn newest(&self, user: User) -> u64 {
        let of_user = self.all().filter(|record| record.user == user);
        of_user.map(|record| record.place.offset).max().unwrap_or(0)
    }

    fn newest_of_all(&self) -> u64 {
        self.all()
            .map(|record| record.place.offset)
            .max()
            .unwrap_or(0)
    }

    pub(super) fn horizon(&self) -> Position {
        self.at(match self.counts {
            Counts::Together => self.newest_of_all(),
            Counts::PerUser => 0,
        })
    }

    pub(super) fn publish(&mut self, user: User) -> (Place, Item) {
        let previous = self.newest(user);
        let offset = 1 + match self.counts {
            Counts::Together => self.newest_of_all(),
            Counts::PerUser => previous,
        };
        self.events += 1;
        let place = self.at(offset);
        let what = What::Event(self.events);
        let record = Record { user, place, what };
        self.kept.push(record);
        self.history.push(record);
        let item = Item {
            place: Some(place),
            what,
        };
        let place = Place {
            position: place,
            previous,
        };
        (place, item)
    }

    /// The log is another one, without so many of the newest messages.
    pub(super) fn replace(&mut self, lacks: usize) {
        self.epoch += 1;
        for _ in 0..lacks {
            self.kept.pop();
        }
        let epoch = self.epoch;
        for record in self.kept.iter_mut().chain(&mut self.dropped) {
            record.place.epoch = epoch;
        }
        let all: Vec<_> = self.all().copied().collect();
        self.history.extend(all);
    }

    /// Drops the oldest message.
    pub(super) fn drop_oldest(&mut self) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        let oldest = self.kept.remove(0);
        self.dropped.push(oldest);
        true
    }

    /// What a server answers that lacks so many of the newest messages.
    pub(super) fn head(&self, user: User, behind: usize) -> Head {
        let server = self.behind(behind);
        Head {
            newest: server.at(server.newest(user)),
            through: match self.counts {
                Counts::Together => server.newest_of_all(),
                Counts::PerUser => server.newest(user),
            },
        }
    }

    pub(super) fn fetch(
        &self,
        user: User,
        after: Position,
        limit: usize,
        behind: usize,
    ) -> Stretch<Item> {
        let server = self.behind(behind);
        let head = server.at(server.newest(user));
        if after.epoch != self.epoch {
            return Stretch {
                after,
                messages: Vec::new(),
                through: after,
                head,
                missing: Missing::Unknown,
            };
        }
        let is_behind =
            |record: &&Record| record.user == user && record.place.offset > after.offset;
        let missing = server.dropped.iter().filter(is_behind).count() as u64;
        let items = server.kept.iter().filter(is_behind).map(|record| {
            let item = Item {
                place: Some(record.place),
                what: record.what,
            };
            (record.place, item)
        });
        let mut messages: Vec<_> = items.collect();
        let has_more = messages.len() > limit;
        messages.truncate(limit);
        let last = messages
            .last()
            .map(|(place, _)| *place)
            .filter(|_| has_more);
        let end = server.head(user, 0).through.max(after.offset);
        Stretch {
            after,
            through: last.unwrap_or(server.at(end)),
            messages,
            head,
            missing: match missing {
                0 => Missing::Nothing,
                missing => Missing::Messages(missing),
            },
        }
    }

    fn behind(&self, behind: usize) -> Self {
        let mut server = self.clone();
        for _ in 0..behind {
            server.kept.pop();
        }
        server
    }
}
