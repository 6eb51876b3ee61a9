//! A client, what it got, and whether that keeps the promises.

use super::engine::{Engine, Item, Record, User, What};
use super::resumption::Resumption;
use super::stretch::Entry;
use crate::position::Position;

impl Entry for Item {
    fn is_end(&self) -> bool {
        false
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) user: User,
    pub(super) stream: Option<Stream>,
    /// At which node it waits to be let in, and whether it may come in.
    pub(super) awaits: Option<(usize, bool)>,
    /// The id that it has.
    pub(super) id: Option<Position>,
    /// How often it has come.
    pub(super) visits: u8,
    pub(super) got: Vec<Got>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stream {
    pub(super) node: usize,
    /// How much it has of what its channel sent.
    pub(super) read: usize,
    pub(super) resumption: Resumption<Item>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Got {
    /// An id without an event: where it begins, or a keep-alive.
    Id(Position),
    Item(Item),
}

impl Got {
    pub(super) fn place(&self) -> Option<Position> {
        match self {
            Self::Id(place) => Some(*place),
            Self::Item(item) => item.place,
        }
    }
}

impl Client {
    pub(super) fn new(user: User) -> Self {
        Self {
            user,
            stream: None,
            awaits: None,
            id: None,
            visits: 0,
            got: Vec::new(),
        }
    }

    pub(super) fn get(&mut self, item: Item) {
        self.got.push(Got::Item(item));
        self.id = item.place.or(self.id);
    }

    pub(super) fn get_id(&mut self, place: Position) {
        if self.id != Some(place) {
            self.got.push(Got::Id(place));
            self.id = Some(place);
        }
    }

    pub(super) fn is_told_of_a_gap(&self) -> bool {
        let is_gap = |got: &Got| matches!(got, Got::Item(item) if item.what == What::Gap);
        self.got.iter().any(is_gap)
    }

    /// What is wrong with what it got, if something is. `is_settled`: it should have everything.
    pub(super) fn violation(&self, engine: &Engine, is_settled: bool) -> Option<&'static str> {
        let own = |record: &&Record| record.user == self.user;
        let is_between = |from: Position, to: u64| {
            let history = engine.history.iter().filter(own);
            let mut of_log = history.filter(|record| record.place.epoch == from.epoch);
            of_log.any(|record| (from.offset + 1..to).contains(&record.place.offset))
        };
        let mut at: Option<Position> = None;
        // Of something missing, whose end is not known.
        let mut is_told = false;
        for got in &self.got {
            let Some(place) = got.place() else {
                is_told = true;
                continue;
            };
            let is_event = matches!(got, Got::Item(item) if matches!(item.what, What::Event(_)));
            if let Got::Item(item) = got {
                let is_it = |record: &Record| (record.place, record.what) == (place, item.what);
                if is_event && !engine.history.iter().filter(own).any(is_it) {
                    return Some("an event has an id that is not its place in the log");
                }
            }
            let is_gap = matches!(got, Got::Item(_)) && !is_event;
            if let Some(before) = at {
                let is_same = before.epoch == place.epoch;
                let is_back = match is_event {
                    true => place.offset <= before.offset,
                    false => place.offset < before.offset,
                };
                // An id without an event says that its own place is had as well.
                let to = place.offset + u64::from(!is_event);
                let wrong = match (is_gap, is_same) {
                    (true, true) if is_back => Some("a gap leads back"),
                    (true, _) => None,
                    (false, false) => (!is_told).then_some("another log, and nothing was told"),
                    (false, true) if is_back => Some("twice, or out of order"),
                    (false, true) => (!is_told && is_between(before, to))
                        .then_some("something is missing, and nothing was told"),
                };
                if wrong.is_some() {
                    return wrong;
                }
            }
            at = Some(place);
            is_told = false;
        }
        if !is_settled || is_told {
            return None;
        }
        let at = at?;
        if at.epoch != engine.epoch {
            return Some("it does not know that there is another log");
        }
        is_between(at, u64::MAX).then_some("what is in the log does not arrive")
    }
}
