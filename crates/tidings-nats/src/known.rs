//! What is known of the log, and whether the stream is that log still.
//!
//! A position is used once. So a stream that ends before a position that is known, or has another message there, lacks what
//! it had and is another log; unless the server that answers is behind. It may have been elected a moment ago and not have
//! applied everything, it may have been stopped and not know that another one leads, or it may have lost its disk and not
//! have read the cluster's decisions again. These rules distinguish such a server from another log:
//!
//! 1. The newest known position is kept with a [`Mark`] of the message there. When the stream reaches the position again,
//!    the marks decide. Messages that come meanwhile may be another log's, and would only be compared with themselves. So
//!    known positions are kept in a [trail](Known::trail) until a look has compared what it was to: every look the newest
//!    of the look before, and all of them when something does not fit or another server leads. What a server loses, another
//!    log must grow past within [`SPACING`] after it was known to go unnoticed.
//! 2. A server of a cluster that names no leader is not believed, whatever it says.
//! 3. A stream in a cluster that stays too short is another log when one leader has said so for [`PATIENCE`], in every look
//!    of that time. A stream of a server that is alone is another log immediately: nobody can be ahead of it.
//! 4. Until that is decided, nothing is read from the log.
//! 5. A message is placed behind every position that was known when it was sent first. An acknowledgement that says
//!    otherwise comes from such a server, and is not believed.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, Info};
use tokio::time::Instant;

use super::stream::{Servers, cluster_of, end_of, servers_of};
use tidings::backplane::{Cause, Position};

/// For how long one leader must say that the stream is too short.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far apart in time the known places are that are kept for comparison, and how many there are.
const SPACING: Duration = Duration::from_millis(50);
const TRAIL: usize = 32;

/// The most messages whose outcome is open. A broadcaster has fewer.
const OPEN: usize = 1 << 17;

/// What a message is recognized by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// The id that its node gave it.
    Id(u128),
    /// When the stream took it, in nanoseconds.
    Time(i128),
    /// It is not one of ours.
    Nothing,
}

impl Mark {
    pub(super) fn of(headers: Option<&HeaderMap>) -> Self {
        let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID));
        let id = id.and_then(|id| u128::from_str_radix(id.as_str(), 16).ok());
        id.map_or(Self::Nothing, Self::Id)
    }

    fn of_last(info: &Info) -> Self {
        Self::Time(info.state.last_timestamp.unix_timestamp_nanos())
    }

    /// Whether it is that of this message, if it can be recognized.
    fn is_of(self, message: &StreamMessage) -> Option<bool> {
        match self {
            Self::Nothing => None,
            Self::Id(_) => Some(Self::of(Some(&message.headers)) == self),
            Self::Time(at) => Some(message.time.unix_timestamp_nanos() == at),
        }
    }
}

/// What is known of the stream.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The newest place that this node has heard of. It moves back only when the stream becomes another log.
    newest: Newest,
    /// The least that was kept of each user, since this node has looked: what was dropped under it is dropped still.
    pub(super) per_user: i64,
    /// The shortest that it was, since this node has looked.
    pub(super) duplicate_window: Duration,
    /// What an operator has set otherwise than this node would have, as it was warned about last.
    pub(super) edited: Option<String>,
    /// The server that leads the stream, and which of the others follow it.
    servers: Servers,
    /// The stream was too short when it was looked at last.
    doubt: Option<Doubt>,
    /// Known places, oldest first: the newest one of the last look, and such as were the newest since. If there are too many,
    /// the oldest stay, which are the least likely to be another log's.
    trail: Vec<Newest>,
    /// When the last one of them was kept.
    kept: Instant,
    /// Something does not fit: all of them have to be compared.
    is_questioned: bool,
    /// Messages whose outcome is open, and the newest offset that was known when each was sent first.
    open: HashMap<u128, u64>,
}

/// A place, and what is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newest {
    pub(super) position: Position,
    mark: Mark,
}

/// What a look compares the stream with.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    newest: Newest,
    /// The trail, which ends with the newest place.
    trail: Vec<Newest>,
    is_questioned: bool,
}

impl Expected {
    /// The places to look at: all if there is a question, and otherwise the oldest.
    pub(super) fn places(&self, is_question: bool) -> impl Iterator<Item = Newest> + use<> {
        let count = if is_question { self.trail.len() } else { 1 };
        let places = self.trail.clone().into_iter().take(count);
        places.filter(|place| place.position.offset > 0)
    }
}

#[derive(Debug, Clone)]
struct Doubt {
    /// None after a look that nobody answered who leads.
    leader: Option<String>,
    /// Since when this one has led.
    since: Instant,
}

/// What the end of the stream says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is where it may be, and one place has to be looked at.
    Plausible,
    /// All places have to be looked at.
    Questioned,
    /// Somebody has found it to be another log.
    Another,
    /// It is too short, which is not decided yet.
    Behind,
    /// It lacks messages that it had.
    Short,
}

impl Known {
    /// The stream as it is found, and what this node would have.
    pub(super) fn new(info: &Info, wanted: &Config) -> Self {
        let newest = Newest {
            position: end_of(info),
            mark: Mark::of_last(info),
        };
        Self {
            newest,
            trail: vec![newest],
            kept: Instant::now(),
            is_questioned: false,
            per_user: wanted.max_messages_per_subject,
            duplicate_window: wanted.duplicate_window,
            edited: None,
            servers: servers_of(info),
            doubt: None,
            open: HashMap::new(),
        }
    }

    pub(super) fn newest(&self) -> Newest {
        self.newest
    }

    /// The log is at least here, where there is what has this mark.
    pub(super) fn advance(&mut self, to: Position, mark: impl FnOnce() -> Mark) {
        let order = to.compare(self.newest.position);
        if order.is_some_and(Ordering::is_gt) {
            if self.kept.elapsed() >= SPACING {
                self.keep();
            }
            self.newest = Newest {
                position: to,
                mark: mark(),
            };
        }
    }

    /// Keeps the newest place until a look has compared it.
    fn keep(&mut self) {
        self.kept = Instant::now();
        if self.trail.len() >= TRAIL {
            self.trail.pop();
        }
        let last = self.trail.last().map(|last| last.position);
        if last != Some(self.newest.position) {
            self.trail.push(self.newest);
        }
    }

    /// Something does not fit: the next look is at the message that is the newest now, too.
    pub(super) fn question(&mut self) {
        if !mem::replace(&mut self.is_questioned, true) {
            self.keep();
        }
    }

    /// A look begins. It [ends](Self::settle), or has to be made again. A question that is raised meanwhile is one for the
    /// next look.
    pub(super) fn expect(&mut self) -> Expected {
        self.keep();
        Expected {
            newest: self.newest,
            trail: self.trail.clone(),
            is_questioned: mem::take(&mut self.is_questioned),
        }
    }

    /// A look has failed, or no leader has answered it: the next leader has its whole time.
    pub(super) fn fail(&mut self) {
        self.is_questioned = true;
        if let Some(doubt) = &mut self.doubt {
            doubt.leader = None;
        }
    }

    /// Records that a message is sent. Returns whether it had been sent before and its outcome is still open.
    pub(super) fn send(&mut self, id: u128) -> bool {
        if self.open.len() >= OPEN {
            self.open.clear();
        }
        match self.open.entry(id) {
            Entry::Occupied(_) => true,
            Entry::Vacant(open) => {
                open.insert(self.newest.position.offset);
                false
            }
        }
    }

    /// Whether an acknowledgement of a message is to be believed. It is done then.
    ///
    /// If the stream has the message from before, and its outcome [was not open](Self::send), it was accepted, nobody knows
    /// when.
    pub(super) fn believe(
        &mut self,
        id: u128,
        position: Position,
        was_open: bool,
        has_it: bool,
    ) -> bool {
        if let Entry::Occupied(open) = self.open.entry(id) {
            if position.offset <= *open.get() && (was_open || !has_it) {
                self.question();
                return false;
            }
            open.remove();
        }
        self.advance(position, || Mark::Id(id));
        true
    }

    /// A message is not in the log, and will not be.
    pub(super) fn refuse(&mut self, id: u128) {
        self.open.remove(&id);
    }

    /// What is to be made of a stream that should be the known log.
    pub(super) fn judge(&mut self, expected: &Expected, info: &Info, now: Instant) -> End {
        if !has_leader(info) {
            self.fail();
            return End::Behind;
        }
        let (servers, end) = (servers_of(info), end_of(info));
        let newest = expected.newest.position;
        if end.epoch != newest.epoch {
            return End::Another;
        }
        if end.offset >= newest.offset {
            let is_other = servers.0 != self.servers.0;
            return match expected.is_questioned || self.doubt.is_some() || is_other {
                true => End::Questioned,
                false => End::Plausible,
            };
        }
        if cluster_of(info).is_none() {
            return End::Short;
        }
        let leader = servers.0;
        match &self.doubt {
            Some(doubt) if doubt.leader == leader => {
                if now.duration_since(doubt.since) >= PATIENCE {
                    return End::Short;
                }
            }
            _ => self.doubt = Some(Doubt { leader, since: now }),
        }
        self.is_questioned = true;
        End::Behind
    }

    /// Whether the stream has another message at an expected place than it had. A message that was dropped cannot be compared.
    /// It counts as another one only at the newest place, and only if the stream was too short before: older messages are
    /// dropped when their users get newer ones.
    pub(super) fn is_other(
        &self,
        expected: &Expected,
        place: Newest,
        message: Option<&StreamMessage>,
    ) -> bool {
        let is_newest = place.position == expected.newest.position;
        let is_it = message.and_then(|message| place.mark.is_of(message));
        is_it.map_or(is_newest && self.doubt.is_some(), |is_it| !is_it)
    }

    /// The stream is a log, which ends here. Whether it is the known one, and why messages of it may not have arrived.
    pub(super) fn settle(&mut self, expected: &Expected, info: &Info) -> (bool, Option<Cause>) {
        let end = end_of(info);
        let servers = servers_of(info);
        let had_others = self.servers != servers || self.doubt.is_some();
        self.servers = servers;
        self.doubt = None;
        let is_same = end.epoch == self.newest.position.epoch;
        if !is_same {
            self.newest.position = end;
            self.newest.mark = Mark::of_last(info);
            self.trail = vec![self.newest];
            self.open.clear();
        }
        let compared = expected.newest.position;
        let is_older = |place: &Newest| place.position.compare(compared) == Some(Ordering::Less);
        self.trail.retain(|place| !is_older(place));
        self.advance(end, || Mark::of_last(info));
        (is_same, had_others.then_some(Cause::Leader))
    }

    /// Whether the server that answers is the one that led at the last look, and has everything up to a place.
    pub(super) fn is_vouched(&self, place: Position, info: &Info) -> bool {
        let reaches = end_of(info).compare(place);
        self.doubt.is_none()
            && has_leader(info)
            && self.servers.0 == servers_of(info).0
            && reaches.is_some_and(Ordering::is_ge)
    }
}

/// Whether the server that answers knows who leads the stream, which in a cluster is the one that answers.
pub(super) fn has_leader(info: &Info) -> bool {
    cluster_of(info).is_none_or(|cluster| cluster.leader.is_some())
}

#[cfg(test)]
mod tests;
