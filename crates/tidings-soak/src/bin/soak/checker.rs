//! What a stream may bring, by what is known of it: the promises, as one client sees them.
//!
//! Events of a user are numbered without holes. So each that comes must have the number that is next, unless a gap said
//! how many are missing, or the stream coalesces and newer events of the same keys follow.

use std::collections::{HashMap, VecDeque};

use crate::event;
use crate::hubs::{Hub, Policy};
use crate::sse::{Gap, Item};

/// How many of the last items are shown with a violation.
const RECENT: usize = 8;

/// The number of the next event is one of these. It is not always known better: an event that is broadcast while a stream
/// is let in may or may not be the stream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl Next {
    fn exactly(number: u64) -> Self {
        Self {
            low: number,
            high: number,
        }
    }

    fn after_gap(self, missed: u64) -> Self {
        Self {
            low: self.low.saturating_add(missed),
            high: self.high.saturating_add(missed),
        }
    }

    fn contains(self, number: u64) -> bool {
        self.low <= number && number <= self.high
    }
}

/// How a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With what comes from now on.
    Fresh,
    /// Where the client was.
    After(Next),
    /// There, or with a gap of the reason `epoch`.
    AfterOrForgotten(Next),
    /// With that gap.
    Unknown,
    /// With what comes from now on, behind gaps of which its client knows already.
    Told,
}

pub(crate) struct Checker {
    hub: &'static Hub,
    topic: String,
    policy: Policy,
    begin: Begin,
    next: Next,
    /// Where it begins if it does so without knowing an earlier event.
    fresh: Next,
    /// Its client came with an id.
    is_resumed: bool,
    id: Option<String>,
    /// By which epoch and how much an offset is more than the number of its event.
    shift: Option<(String, i128)>,
    /// Events that were left out, the newest of each key, for which newer ones are to follow.
    owed: HashMap<u64, u64>,
    /// A gap was told after which the stream ends.
    pub(crate) is_ending: bool,
    pub(crate) has_retry: bool,
    pub(crate) heartbeats: u64,
    pub(crate) events: u64,
    pub(crate) gaps: u64,
    pub(crate) missed: u64,
    recent: VecDeque<String>,
}

impl Checker {
    /// Events up to `from` had been broadcast before the stream was asked for, none after `until` when it was there.
    pub(crate) fn new(
        hub: &'static Hub,
        user: &str,
        policy: Policy,
        begin: Begin,
        (from, until): (u64, u64),
    ) -> Self {
        let fresh = Next {
            // A node may send what was on its way to it.
            low: if hub.is_node() { 1 } else { from + 1 },
            high: until + 1,
        };
        let next = match begin {
            Begin::After(next) | Begin::AfterOrForgotten(next) => next,
            Begin::Fresh | Begin::Unknown => fresh,
            Begin::Told => Next {
                high: u64::MAX,
                ..fresh
            },
        };
        Self {
            hub,
            topic: format!("{}/{user}", hub.topic),
            policy,
            begin,
            next,
            fresh,
            is_resumed: begin != Begin::Fresh,
            id: None,
            shift: None,
            owed: HashMap::new(),
            is_ending: false,
            has_retry: false,
            heartbeats: 0,
            events: 0,
            gaps: 0,
            missed: 0,
            recent: VecDeque::new(),
        }
    }

    /// Takes what came next. An error is a broken promise.
    pub(crate) fn take(&mut self, item: Item) -> Result<(), String> {
        self.note(&item);
        if self.is_ending && !matches!(item, Item::Retry) {
            return Err("the stream goes on after the gap that ends it".to_owned());
        }
        let is_last = matches!(item, Item::Id(_)) && self.policy == Policy::End;
        if self.has_retry && !is_last {
            return Err("the stream goes on after its last line".to_owned());
        }
        match item {
            Item::Event { id, data } => self.event(id, &data),
            Item::Gap { id, gap } => self.gap(id, &gap),
            Item::Id(id) if self.policy == Policy::End => self.restart_id(id),
            Item::Id(id) => self.id_alone(id),
            Item::Heartbeat => {
                self.heartbeats += 1;
                Ok(())
            }
            Item::Retry => {
                self.has_retry = true;
                Ok(())
            }
        }
    }

    /// An id without an event: before the first event, where the client came without one or with a `~`, or of the place that
    /// the log of several nodes has moved to.
    fn id_alone(&mut self, id: String) -> Result<(), String> {
        let has_moved = self.hub.is_node() && self.id.as_ref() != Some(&id);
        let is_allowed = self.id.is_none() || has_moved;
        if !self.hub.history || self.begin == Begin::Unknown || !is_allowed {
            return Err(format!("the id {id:?} without an event"));
        }
        let Next { low, high } = self.next;
        if low == high {
            self.check_id(Some(&id), low - 1)?;
        }
        self.id = Some(id);
        Ok(())
    }

    fn event(&mut self, id: Option<String>, data: &str) -> Result<(), String> {
        let number = event::read(&self.topic, data)?;
        if self.begin == Begin::Unknown {
            return Err(format!(
                "event {number} without a gap for an id that nobody knows"
            ));
        }
        let Next { low, high } = self.next;
        if number < low {
            return Err(format!(
                "event {number} again or too late, {low} is the next"
            ));
        }
        if number > high {
            if self.policy != Policy::Coalesce {
                let last = number - 1;
                return Err(format!(
                    "events {high} to {last} are missing, and no gap tells of it"
                ));
            }
            self.owed.extend((high..number).map(|n| (event::key(n), n)));
        }
        self.owed.remove(&event::key(number));
        self.check_id(id.as_deref(), number)?;
        self.id = id;
        self.next = Next::exactly(number + 1);
        self.begin = Begin::Fresh;
        self.events += 1;
        Ok(())
    }

    fn gap(&mut self, id: Option<String>, gap: &Gap) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("a gap that {why}: {gap:?}"));
        self.gaps += 1;
        self.missed += gap.missed.unwrap_or(0);
        // Between nodes there is not always a place that has one.
        if self.hub.history != id.is_some() && !self.hub.is_node() {
            return wrong("has an id without a history, or none with one");
        }
        if self.policy == Policy::End {
            return wrong("is told to a client that would not understand it");
        }
        match (&*gap.reason, gap.missed) {
            ("epoch", None) => match self.begin {
                Begin::Unknown | Begin::AfterOrForgotten(_) => {
                    self.next = self.fresh;
                    self.shift = None;
                }
                _ => return wrong("no id is the reason for"),
            },
            ("lagged", Some(missed)) if missed > 0 => {
                if self.policy == Policy::Coalesce {
                    return wrong("newer events stand for");
                }
                self.next = self.next.after_gap(missed);
                self.is_ending = self.policy == Policy::Disconnect;
            }
            ("evicted", Some(missed)) if missed > 0 && self.is_resumed => {
                if self.begin == Begin::Unknown {
                    return wrong("counts from an id that nobody knows");
                }
                self.next = self.next.after_gap(missed);
            }
            // Between nodes it is not always known how many.
            ("backplane" | "evicted" | "lagged", None) if self.hub.is_node() => {
                self.next.high = u64::MAX;
            }
            ("backplane", Some(missed)) if self.hub.is_node() => {
                self.next = self.next.after_gap(missed);
            }
            _ => return wrong("is none of those there are"),
        }
        if self.begin == Begin::Unknown || matches!(self.begin, Begin::AfterOrForgotten(_)) {
            self.begin = Begin::After(self.next);
        }
        if let (Some(id), Next { low, high }) = (&id, self.next) {
            if low == high {
                self.check_id(Some(id), low - 1)?;
            }
        }
        // Without one, this client comes back as one that has seen nothing.
        self.id = id;
        Ok(())
    }

    /// The last block of a stream that ends at a gap: the id that the next request resumes from, a place and a `~`.
    fn restart_id(&mut self, id: String) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("the id {id:?} at the end of a stream, {why}"));
        if !self.hub.history && !self.is_resumed {
            return wrong("though its client cannot have one");
        }
        let Some(place) = id.strip_suffix('~') else {
            return wrong("which does not say that the client knows of the gap");
        };
        if place.is_empty() == self.hub.history && !self.hub.is_node() {
            return wrong("with a place without a history, or none with one");
        }
        let offset = place.split_once('-').and_then(|(epoch, offset)| {
            let (_, shift) = self.shift.as_ref().filter(|(known, _)| known == epoch)?;
            Some(offset.parse::<i128>().ok()? - shift)
        });
        if let Some(number) = offset {
            let next = u64::try_from(number + 1).unwrap_or(0);
            if next < self.next.low {
                return wrong("which is before what the stream has brought");
            }
            self.next.low = next;
        }
        // Events that the history drops before the client is back belong to the same gap.
        self.next.high = u64::MAX;
        self.begin = Begin::After(self.next);
        self.is_ending = true;
        self.id = Some(id);
        Ok(())
    }

    /// An id is `<epoch>-<offset>`, and in one epoch the offset counts events as their numbers do.
    fn check_id(&mut self, id: Option<&str>, number: u64) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("event {number} with the id {id:?}, {why}"));
        let Some(text) = id else {
            return match self.hub.history {
                true => wrong("though there is a history"),
                false => Ok(()),
            };
        };
        if !self.hub.history {
            return wrong("though there is no history");
        }
        if self.hub.is_node() {
            return Ok(());
        }
        let parts = text.split_once('-');
        let offset = parts.and_then(|(_, offset)| offset.parse::<u64>().ok());
        let (Some((epoch, _)), Some(offset)) = (parts, offset) else {
            return wrong("which is none of an epoch and an offset");
        };
        let shift = (epoch.to_owned(), i128::from(offset) - i128::from(number));
        let known = self.shift.get_or_insert_with(|| shift.clone());
        if *known != shift {
            let why = format!("which is another epoch or offset than {known:?}");
            return wrong(&why);
        }
        Ok(())
    }

    /// The id to come back with, and what comes next then.
    pub(crate) fn seen(&self) -> Option<(String, Next)> {
        Some((self.id.clone()?, self.next))
    }

    /// What is still to come if the last event that was broadcast has this number.
    pub(crate) fn lacks(&self, head: u64) -> Option<String> {
        let Next { low, high } = self.next;
        if self.begin == Begin::Unknown {
            return Some("the gap that its id calls for".to_owned());
        }
        if self.is_ending {
            return Some("its end".to_owned());
        }
        if !self.next.contains(head + 1) {
            return Some(format!(
                "{head} was the last broadcast, but {low} to {high} is its next"
            ));
        }
        match self.owed.is_empty() {
            true => None,
            false => Some(format!(
                "newer ones for events that were left out: {:?}",
                self.owed
            )),
        }
    }

    /// Whether the policy lets it end by itself, if it has lost events.
    pub(crate) fn may_end(&self) -> bool {
        self.is_ending || self.policy == Policy::End
    }

    fn note(&mut self, item: &Item) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        let text = match item {
            Item::Event { id, data } => {
                let head = data.lines().next().unwrap_or_default();
                format!("{} ({head})", id.as_deref().unwrap_or("event"))
            }
            other => format!("{other:?}"),
        };
        self.recent.push_back(text);
    }

    pub(crate) fn recent(&self) -> String {
        let recent: Vec<_> = self.recent.iter().map(String::as_str).collect();
        recent.join(", ")
    }
}
