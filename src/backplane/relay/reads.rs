//! What is asked of the engine's log: where users' logs end, what channels lack, and what streams lack that come back.
//!
//! A channel learns of a message when it arrives, and of a missing one when the next one does. Nothing announces a last
//! message that does not arrive; so the end of each user's log is asked for, of all users within about a minute, and
//! immediately when messages may have been lost.
//!
//! Whatever is read is read here. Of each user at most two reads go on, one for the channel and one for the streams, and
//! users take turns. A read for streams begins where the first of them is, and all that are within it get it: ten thousand
//! screens of one user that come back cost as much as one.
//!
//! While a channel is repaired, what arrives for it and is not next in line is dropped, and the log is read up to that as
//! well. So nothing has to be kept, and the last thing that arrived is never missed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

use super::Relay;
use super::calls::guarded;
use super::inbox::{Users, tell_missing, users_of};
use super::pause::{LONGEST_PAUSE, longer};
use super::stretch::{Items, Request, Stretch, Waiting};
use crate::backplane::{
    BackplaneError, Envelope, Fetched, Head, Level, MAX_HEADS, Missing, Place, Position,
};
use crate::channel::{Accepted, Standing};
use crate::id::UserId;

/// Reads at the same time.
const READS: usize = 64;
/// Messages in one of them.
const CHUNK: usize = 256;
/// Requests for the ends of logs at the same time.
const REQUESTS: usize = 4;
/// How often some of the users are compared with the log, and how many times until all were.
const TICK: Duration = Duration::from_secs(1);
const ROUND: usize = 45;
/// An engine that has answered nobody for so long is away.
const SILENCE: Duration = Duration::from_secs(5);

pub(super) struct Reads {
    relay: Arc<Relay>,
    incoming: mpsc::UnboundedReceiver<Request>,
    ticks: Interval,
    tasks: JoinSet<Done>,
    /// Users to compare, in order.
    to_compare: VecDeque<UserId>,
    requests: usize,
    /// Users that are left of this round.
    round: Vec<UserId>,
    per_tick: usize,
    /// What has to be read. Each is in `turns`, is being read, or rests before it is read again.
    reads: HashMap<Key, Read>,
    turns: VecDeque<Key>,
    running: usize,
    /// When the engine has answered last, and when it has last answered a read.
    answered: Instant,
    read_answered: Instant,
}

type Key = (UserId, Reader);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reader {
    Channel,
    Streams,
}

struct Read {
    /// For the channel: its log is known to have something up to here.
    until: Option<Position>,
    /// Since when it has made no progress although the engine answers.
    since: Instant,
    /// For streams: those that wait.
    waiting: Waiting,
    /// Once it has begun, and until it is answered: when the engine had last answered a read before.
    renewed: Option<Instant>,
    /// Before it is read again.
    pause: Duration,
}

/// What is to be done next.
pub(super) enum Done {
    Tick,
    Request(Request),
    Heads(Vec<UserId>, Result<Vec<Head>, BackplaneError>),
    Read(Key, Position, Result<(Fetched, Items), BackplaneError>),
    Rested(Key),
}

impl Reads {
    pub(super) fn new(relay: Arc<Relay>, incoming: mpsc::UnboundedReceiver<Request>) -> Self {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            relay,
            incoming,
            ticks,
            tasks: JoinSet::new(),
            to_compare: VecDeque::new(),
            requests: 0,
            round: Vec::new(),
            per_tick: 0,
            reads: HashMap::new(),
            turns: VecDeque::new(),
            running: 0,
            answered: Instant::now(),
            read_answered: Instant::now(),
        }
    }

    /// What is to be done next. May be dropped without losing anything.
    pub(super) async fn next(&mut self) -> Done {
        let has_log = self.relay.level == Level::Replayable;
        tokio::select! {
            // None of them panics: what may is guarded inside.
            Some(Ok(done)) = self.tasks.join_next() => done,
            Some(request) = self.incoming.recv() => Done::Request(request),
            _ = self.ticks.tick(), if has_log => Done::Tick,
            else => std::future::pending().await,
        }
    }

    /// Compares a part of all users.
    fn tick(&mut self, registry: &Users) {
        // The engine is slower than that, or silent.
        if !self.to_compare.is_empty() || self.requests > 0 {
            return;
        }
        if self.round.is_empty() {
            self.round = users_of(registry);
            self.per_tick = self.round.len().div_ceil(ROUND);
        }
        let left = self.round.len().saturating_sub(self.per_tick);
        let users = self.round.split_off(left);
        self.compare(users);
    }

    /// Compares these users' channels with the log.
    pub(super) fn compare(&mut self, users: Vec<UserId>) {
        self.to_compare.extend(users);
        while self.requests < REQUESTS && !self.to_compare.is_empty() {
            let count = self.to_compare.len().min(MAX_HEADS);
            let users: Vec<UserId> = self.to_compare.drain(..count).collect();
            self.requests += 1;
            let backplane = self.relay.backplane.clone();
            self.tasks.spawn(async move {
                let heads = guarded(|| backplane.heads(&users)).await;
                if heads.is_err() {
                    sleep(LONGEST_PAUSE).await;
                }
                Done::Heads(users, heads)
            });
        }
    }

    /// Compares all channels with the log.
    pub(super) fn compare_all(&mut self, registry: &Users) {
        // Those who wait already are among them.
        self.to_compare.clear();
        self.compare(users_of(registry));
    }

    /// Reads what a user's channel lacks, at least up to there.
    pub(super) fn repair(&mut self, registry: &Users, user: &UserId, until: Position) {
        self.read((user.clone(), Reader::Channel)).reach(until);
        self.start(registry);
    }

    /// Reads what a stream lacks.
    fn ask(&mut self, request: Request) {
        let read = self.read((request.user.clone(), Reader::Streams));
        read.waiting.push(request);
    }

    fn read(&mut self, key: Key) -> &mut Read {
        let turns = &mut self.turns;
        self.reads.entry(key).or_insert_with_key(|key| {
            turns.push_back(key.clone());
            Read {
                until: None,
                since: Instant::now(),
                waiting: Waiting::default(),
                renewed: None,
                pause: Duration::ZERO,
            }
        })
    }

    fn start(&mut self, registry: &Users) {
        while self.running < READS {
            let Some(key) = self.turns.pop_front() else {
                return;
            };
            let read = self.reads.get_mut(&key).expect("it is in `turns`");
            let after = match key.1 {
                Reader::Channel => {
                    let place = registry.with(&key.0, |channel| channel.place()).flatten();
                    // Offsets of the log before say nothing of this one, which the channel is compared with anyway.
                    place.filter(|place| read.until.is_some_and(|until| until.epoch == place.epoch))
                }
                Reader::Streams => read.waiting.first(),
            };
            let Some(after) = after else {
                // Nobody is there any more, or the log is another one.
                self.reads.remove(&key);
                continue;
            };
            self.running += 1;
            read.renewed.get_or_insert(self.read_answered);
            let relay = self.relay.clone();
            self.tasks.spawn(async move {
                // What panics in opening messages is a fault of ours or of the service's, and a failed read as well.
                let answer = guarded(|| async {
                    let fetched = relay.backplane.fetch(&key.0, after, CHUNK).await?;
                    let items = match key.1 {
                        Reader::Channel => Items::new(),
                        Reader::Streams => relay.open(&fetched),
                    };
                    Ok((fetched, items))
                });
                let answer = answer.await;
                Done::Read(key, after, answer)
            });
        }
    }

    pub(super) fn finish(&mut self, registry: &Users, done: Done) {
        match done {
            Done::Tick => {
                for read in self.reads.values_mut() {
                    read.lose_patience(self.read_answered, self.relay.patience);
                }
                self.tick(registry);
            }
            Done::Request(request) => self.ask(request),
            Done::Rested(key) => self.turns.push_back(key),
            Done::Heads(users, heads) => {
                self.requests -= 1;
                match heads {
                    Ok(heads) => {
                        self.answered = Instant::now();
                        for (user, head) in users.into_iter().zip(heads) {
                            self.compared(registry, user, head);
                        }
                        self.compare(Vec::new());
                    }
                    Err(error) if error.is_closed() => {}
                    Err(_) => self.compare(users),
                }
            }
            Done::Read(key, after, answer) => {
                self.running -= 1;
                self.has_read(registry, key, after, answer);
            }
        }
        self.start(registry);
    }

    fn compared(&mut self, registry: &Users, user: UserId, head: Head) {
        let standing = registry.with(&user, |channel| channel.compare(head.newest, head.through));
        match standing {
            Some(Standing::Behind) => {
                self.relay.counters.holes.add(1);
                self.repair(registry, &user, head.newest);
            }
            Some(Standing::Elsewhere) => self.relay.follow(registry, &user),
            Some(Standing::Level) | None => {}
        }
    }

    fn has_read(
        &mut self,
        registry: &Users,
        key: Key,
        after: Position,
        answer: Result<(Fetched, Items), BackplaneError>,
    ) {
        let read = self.reads.get_mut(&key).expect("it was being read");
        let user = &key.0;
        let patience = self.relay.patience;
        let is_done = match (answer, key.1) {
            (Err(error), _) if error.is_closed() => true,
            // The channel has gone over to another log meanwhile, and lacks something of that one.
            (Ok(_), Reader::Channel)
                if read.until.is_some_and(|until| until.epoch != after.epoch) =>
            {
                false
            }
            (Ok((fetched, _)), Reader::Channel) if fetched.head.epoch != after.epoch => {
                self.relay.follow(registry, user);
                true
            }
            (Ok((fetched, _)), Reader::Streams) if fetched.head.epoch != after.epoch => {
                read.waiting
                    .answer(None, |request| request.after.epoch == after.epoch);
                read.waiting.is_empty()
            }
            (Err(_), reader) => {
                let is_over = read.fail(self.answered) >= patience;
                match reader {
                    Reader::Channel => {
                        if let Some(until) = read.until.filter(|_| is_over) {
                            registry.with(user, |channel| tell_missing(channel, None, until));
                        }
                        is_over
                    }
                    Reader::Streams => {
                        read.lose_patience(self.read_answered, patience);
                        read.waiting.is_empty()
                    }
                }
            }
            (Ok((fetched, items)), reader) => {
                self.answered = Instant::now();
                self.read_answered = self.answered;
                read.renewed = None;
                let through = fetched.through;
                if through.offset > after.offset {
                    read.since = Instant::now();
                    read.pause = Duration::ZERO;
                } else {
                    // Not yet: there is more, and the server that answered does not have it.
                    read.pause = longer(read.pause);
                }
                match reader {
                    Reader::Streams => {
                        self.relay.counters.fetched.add(items.len() as u64);
                        let stretch = Arc::new(Stretch {
                            after,
                            through,
                            missing: fetched.missing,
                            items,
                        });
                        read.waiting.answer(Some(stretch.clone()), |request| {
                            stretch.serves(request.after)
                        });
                        if !read.pause.is_zero() {
                            read.waiting
                                .answer(None, |request| request.since.elapsed() >= patience);
                        }
                        read.waiting.is_empty()
                    }
                    Reader::Channel => {
                        let until = read.reach(fetched.head);
                        self.relay.append_fetched(registry, user, fetched);
                        let is_over = read.since.elapsed() >= patience;
                        if through.offset < until.offset && is_over {
                            // Promised and not given: the log has dropped it, perhaps.
                            registry.with(user, |channel| tell_missing(channel, None, until));
                        }
                        through.offset >= until.offset || is_over
                    }
                }
            }
        };
        let pause = read.pause;
        if is_done {
            self.reads.remove(&key);
        } else if pause.is_zero() {
            // Behind those who wait already.
            self.turns.push_back(key);
        } else {
            self.tasks.spawn(async move {
                sleep(pause).await;
                Done::Rested(key)
            });
        }
    }
}

impl Read {
    /// The channel's log has something up to here. Returns up to where it is known to have something.
    fn reach(&mut self, until: Position) -> Position {
        let known = self.until.filter(|known| known.epoch == until.epoch);
        if known.is_none() {
            self.since = Instant::now();
        }
        let furthest = known.map_or(until, |known| Position {
            offset: known.offset.max(until.offset),
            ..until
        });
        *self.until.insert(furthest)
    }

    /// Answers streams that have waited for too long, be it for their turn, for an answer, or for one that does not fail.
    ///
    /// It may be slow because very many ask: until this user's turn, each answer to a read renews the patience of all. The
    /// last one came at `answered`.
    fn lose_patience(&mut self, answered: Instant, patience: Duration) {
        let renewed = self.renewed.unwrap_or(answered);
        self.waiting.answer(None, |request| {
            request.since.max(renewed).elapsed() >= patience
        });
    }

    /// It has failed, and the last answer to anybody came at `answered`. Returns for how long it has failed while others were
    /// answered: if the engine is silent, nothing is missing yet.
    fn fail(&mut self, answered: Instant) -> Duration {
        if self.pause.is_zero() || answered.elapsed() >= SILENCE {
            self.since = Instant::now();
        }
        self.pause = longer(self.pause);
        answered.saturating_duration_since(self.since)
    }
}

impl Relay {
    /// Appends what the log has after a channel's place.
    fn append_fetched(&self, registry: &Users, user: &UserId, fetched: Fetched) {
        let first = fetched.messages.first();
        // Up to here it is missing, if it is.
        let missing = Position {
            offset: first.map_or(fetched.through.offset, |(first, _)| first.offset - 1),
            ..fetched.through
        };
        registry.with(user, |channel| {
            match fetched.missing {
                Missing::Nothing => {}
                Missing::Messages(count) => tell_missing(channel, Some(count), missing),
                Missing::Unknown => tell_missing(channel, None, missing),
            }
            for (position, body) in fetched.messages {
                let Some(envelope) = Envelope::parse(body) else {
                    self.counters.foreign.add(1);
                    continue;
                };
                // What comes before it is here: the log was read from where the channel is.
                let place = Place::up_to(position);
                if let Accepted::Delivered(_) = self.take(channel, envelope, place) {
                    self.counters.fetched.add(1);
                }
            }
            channel.catch_up(fetched.through);
        });
    }
}
