//! What a broadcaster promises, in the simplest words: vectors and one clock, no sharing, no threads, nothing of the crate.
//!
//! A channel is one user's history from the moment the user came until it is forgotten; `sent` has all events of it for
//! ever, and what is kept of them is a stretch at the end. A stream is a number: of the event it goes on with.

mod reading;
mod sending;
mod sweep;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use reading::{Gap, Polled, Reason};
pub use view::{Counted, UserView, View};

use crate::script::{Policy, Settings, USERS};

#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    settings: Settings,
    /// Milliseconds.
    now: u64,
    /// All that ever were.
    channels: Vec<Channel>,
    /// The open ones.
    of_user: [Option<usize>; USERS],
    /// Those that have not been dropped, by the number that they were opened under.
    streams: BTreeMap<usize, Stream>,
    connections: usize,
    is_closed: bool,
    pub counted: Counted,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Channel {
    user: usize,
    /// The first has the offset 1.
    sent: Vec<Sent>,
    /// The offset of the first that is kept; the next one's if none is.
    first: u64,
    /// Since when nobody is in, although the history is kept.
    away: Option<u64>,
    /// Nobody was ever in.
    is_unclaimed: bool,
    /// Of each key the offset of the newest event, as many as are kept. Those before `first` are kept for that alone.
    newest: BTreeMap<u8, u64>,
    /// The last event that no key stands for.
    unaccounted: u64,
    /// Connection to stream.
    members: BTreeMap<u8, usize>,
    /// The streams that were drained and not dropped since.
    leaving: BTreeSet<usize>,
    lagged: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Sent {
    number: u64,
    size: usize,
    at: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Stream {
    channel: usize,
    connection: u8,
    is_in: bool,
    phase: Phase,
    /// Why it ended, if that was one of these, and nothing had asked it to finish before.
    why: Option<Why>,
    policy: Policy,
    since: u64,
    deadline: Option<u64>,
    gap: Option<Gap>,
    /// The client came with an id, or can have been given one.
    has_id: bool,
    /// The client knows that events are missing that were broadcast before the stream began.
    knows: bool,
    /// The id for the client's next request, once the stream has ended at a gap.
    restart: Option<Restart>,
    /// What was taken out of the history, by offset.
    handful: VecDeque<u64>,
    /// The next event.
    next: u64,
    /// From here on the ring has what there is, or has lost it.
    live: u64,
    /// Where the ring began.
    joined: u64,
    /// Where it ended, if the stream was drained.
    until: Option<u64>,
    /// How many events it is done with when it ends at the latest, once it has yielded one since it was asked to end.
    last: Option<u64>,
    /// Events that it has yielded or announced as missing, with those before it began.
    done: u64,
    lagged: u64,
    behind_since: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    Behind,
    Overdue,
}

#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Phase {
    Open,
    /// Ends where it would wait, or a ring of events later.
    Finishing,
    Ended,
}

/// A place in a channel: behind the event of this offset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    pub channel: usize,
    pub offset: u64,
}

/// What a client comes with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Came {
    Fresh,
    After(Place),
    /// With something that is no id of ours.
    Unknown,
}

/// The id that a stream leaves behind which ends at a gap: of the place behind the gap, if there is a history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Restart(pub Option<Place>);

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Refused {
    ShuttingDown,
    TotalFull,
    UserFull,
    IdInUse,
}

impl Model {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            now: 0,
            channels: Vec::new(),
            of_user: [None; USERS],
            streams: BTreeMap::new(),
            connections: 0,
            is_closed: false,
            counted: Counted::default(),
        }
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn advance(&mut self, millis: u64) {
        self.now += millis;
    }

    fn away_users(&self) -> usize {
        self.channels
            .iter()
            .filter(|channel| channel.away.is_some())
            .count()
    }

    fn away_bytes(&self) -> usize {
        let away = self
            .channels
            .iter()
            .filter(|channel| channel.away.is_some());
        away.map(Channel::bytes).sum()
    }

    fn lingers(&self) -> bool {
        self.settings
            .history
            .as_ref()
            .is_some_and(|history| history.linger > 0)
    }

    // --- coming and going

    /// Opens `stream`, which is a new number. A client that comes with a [`Restart`] knows that events are missing.
    pub fn open(
        &mut self,
        stream: usize,
        (user, connection): (usize, u8),
        (came, knows): (Came, bool),
        policy: Option<Policy>,
        deadline: Option<u64>,
    ) -> Result<(), Refused> {
        let refused = self.refuses(user, connection);
        let counted = &mut self.counted;
        let count = match refused {
            None => None,
            Some(Refused::ShuttingDown) => Some(&mut counted.shutting_down),
            Some(Refused::TotalFull) => Some(&mut counted.total_full),
            Some(Refused::UserFull) => Some(&mut counted.user_full),
            Some(Refused::IdInUse) => Some(&mut counted.id_in_use),
        };
        if let Some(count) = count {
            *count += 1;
            return Err(refused.expect("it was counted"));
        }
        let index = self.of_user[user].unwrap_or_else(|| self.new_channel(user));
        self.connections += 1;
        let has_history = self.settings.history.is_some();
        let channel = &mut self.channels[index];
        channel.members.insert(connection, stream);
        channel.away = None;
        let is_first = std::mem::take(&mut channel.is_unclaimed);
        let live = channel.next();
        let start = match came {
            Came::Fresh if is_first => Some(1),
            Came::Fresh => Some(live),
            Came::After(place) => (has_history && place.channel == index && place.offset < live)
                .then(|| place.offset + 1),
            Came::Unknown => None,
        };
        let next = start.unwrap_or(live);
        let gap = start.is_none().then(|| Gap {
            reason: Reason::Epoch,
            missed: None,
            place: self.place(index, live - 1),
        });
        let stream_state = Stream {
            channel: index,
            connection,
            is_in: true,
            phase: Phase::Open,
            why: None,
            policy: policy.unwrap_or(self.settings.policy),
            since: self.now,
            deadline: deadline.map(|after| self.now + after),
            gap,
            has_id: has_history || came != Came::Fresh,
            knows,
            restart: None,
            handful: VecDeque::new(),
            next,
            live,
            joined: live,
            until: None,
            last: None,
            done: next - 1,
            lagged: 0,
            behind_since: None,
        };
        self.streams.insert(stream, stream_state);
        Ok(())
    }

    fn refuses(&self, user: usize, connection: u8) -> Option<Refused> {
        let members = self.of_user[user].map(|channel| &self.channels[channel].members);
        let full = |count: usize, cap: Option<usize>| cap.is_some_and(|cap| count >= cap);
        if self.is_closed {
            Some(Refused::ShuttingDown)
        } else if full(self.connections, self.settings.total) {
            Some(Refused::TotalFull)
        } else if members.is_some_and(|members| members.contains_key(&connection)) {
            Some(Refused::IdInUse)
        } else if full(members.map_or(0, BTreeMap::len), self.settings.per_user) {
            Some(Refused::UserFull)
        } else {
            None
        }
    }

    /// The id that a stream may resume from before its first event: behind which it began.
    pub fn cursor(&self, stream: usize, came: Came) -> Option<Place> {
        let stream = &self.streams[&stream];
        let place = self.place(stream.channel, stream.next - 1);
        place.filter(|_| came == Came::Fresh)
    }

    pub fn restart(&self, stream: usize) -> Option<Restart> {
        self.streams[&stream].restart
    }

    fn new_channel(&mut self, user: usize) -> usize {
        self.channels.push(Channel {
            user,
            first: 1,
            ..Channel::default()
        });
        self.of_user[user] = Some(self.channels.len() - 1);
        self.channels.len() - 1
    }

    pub fn drop_stream(&mut self, stream: usize) {
        let now = self.now;
        let dropped = self.streams.get_mut(&stream).expect("it was not dropped");
        if dropped.deadline.is_some_and(|deadline| deadline <= now) {
            dropped.end_for(Why::Overdue);
        }
        self.leave(stream);
        self.streams.remove(&stream);
    }

    /// Takes a stream out of its channel. The last one closes it, or leaves a history behind if there is room.
    fn leave(&mut self, number: usize) {
        let stream = self.streams.get_mut(&number).expect("it was not dropped");
        if !std::mem::take(&mut stream.is_in) {
            return;
        }
        match stream.why {
            Some(Why::Behind) => self.counted.behind += 1,
            Some(Why::Overdue) => self.counted.overdue += 1,
            None => {}
        }
        let (index, connection) = (stream.channel, stream.connection);
        self.connections -= 1;
        let channel = &mut self.channels[index];
        if !channel.leaving.remove(&number) {
            channel.members.remove(&connection);
        }
        let is_open = self.of_user[channel.user] == Some(index);
        let is_empty = channel.members.is_empty() && channel.leaving.is_empty();
        if is_empty && is_open && !self.go_away(index) {
            self.close(index);
        }
    }

    fn go_away(&mut self, channel: usize) -> bool {
        let Some(history) = self
            .settings
            .history
            .clone()
            .filter(|history| history.linger > 0)
        else {
            return false;
        };
        if self.away_users() >= history.away_users {
            return false;
        }
        let others = self.away_bytes();
        let channel = &mut self.channels[channel];
        let next = channel.next();
        while channel.bytes() > history.away_bytes - others {
            channel.forget_oldest(next);
        }
        channel.away = Some(self.now);
        true
    }

    fn close(&mut self, channel: usize) {
        self.channels[channel].away = None;
        self.of_user[self.channels[channel].user] = None;
    }

    fn cut(&mut self, stream: usize) {
        self.streams.get_mut(&stream).expect("a member").phase = Phase::Ended;
        self.leave(stream);
    }

    fn finish(&mut self, channel: usize) -> usize {
        let members: Vec<usize> = self.channels[channel].members.values().copied().collect();
        for stream in &members {
            let phase = &mut self.streams.get_mut(stream).expect("a member").phase;
            if *phase == Phase::Open {
                *phase = Phase::Finishing;
            }
        }
        members.len()
    }

    pub fn unregister(&mut self, user: usize, connection: u8) -> bool {
        let channel = self.of_user[user].map(|channel| &self.channels[channel]);
        let Some(stream) = channel.and_then(|channel| channel.members.get(&connection).copied())
        else {
            return false;
        };
        self.cut(stream);
        true
    }

    pub fn disconnect(&mut self, user: usize) -> usize {
        let Some(channel) = self.of_user[user] else {
            return 0;
        };
        if !self.lingers() {
            self.close(channel);
        }
        let everybody = self.channels[channel].everybody();
        everybody.iter().for_each(|stream| self.cut(*stream));
        everybody.len()
    }

    pub fn drain_user(&mut self, user: usize) -> usize {
        let Some(index) = self.of_user[user] else {
            return 0;
        };
        let count = self.finish(index);
        let channel = &mut self.channels[index];
        let until = channel.next();
        for stream in std::mem::take(&mut channel.members).into_values() {
            self.streams.get_mut(&stream).expect("a member").until = Some(until);
            channel.leaving.insert(stream);
        }
        count
    }

    pub fn forget(&mut self, user: usize) -> usize {
        let Some(channel) = self.of_user[user] else {
            return 0;
        };
        self.close(channel);
        self.finish(channel)
    }

    // --- shutdown: everybody has been asked, then whoever is still in is cut

    pub fn begin_shutdown(&mut self) {
        self.is_closed = true;
        for channel in self.of_user.into_iter().flatten() {
            self.finish(channel);
        }
    }

    pub fn end_shutdown(&mut self) -> usize {
        let mut cut = 0;
        for user in 0..USERS {
            let Some(channel) = self.of_user[user] else {
                continue;
            };
            self.close(channel);
            let everybody = self.channels[channel].everybody();
            cut += everybody.len();
            everybody.iter().for_each(|stream| self.cut(*stream));
        }
        cut
    }

    pub fn connections(&self) -> usize {
        self.connections
    }
}

impl Stream {
    fn end_for(&mut self, why: Why) {
        if self.phase == Phase::Open {
            self.why = Some(why);
        }
        self.phase = Phase::Ended;
    }

    /// The offset of the first event that is not for it.
    fn end(&self, channel: &Channel) -> u64 {
        self.until.unwrap_or(channel.next())
    }

    fn behind(&self, channel: &Channel) -> u64 {
        (self.end(channel) - 1).saturating_sub(self.done)
    }
}
