//! The nodes with what is on its way to them, the clients, and one step of each.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::arrivals::{Follows, Said, follows};
use super::client::{Client, Stream};
use super::engine::{Counts, Engine, Item, User, What};
use super::interests::{Interests, Waiter};
use super::reader::Reader;
use super::resumption::{Lack, Resumption};
use super::signals::{Copies, Delayed, Input, LogCopy, Order, Purpose};
use super::stretch::Request;
use super::wanted::{Answer, is_behind};
use crate::backplane::Head;
use crate::channel::copy::{Copy, Next, Start};
use crate::channel::{Accepted, Standing};
use crate::position::{Place, Position};

/// Messages in one read.
const CHUNK: usize = 2;
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

type Inputs = Input<User, Item, Waiter, Item>;

/// What the engine sends to a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Sent {
    Message(User, Place, Item),
    Ready(User),
    Unheard(User),
    Changed,
    Reset,
}

/// What a node has asked the engine for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Heads(Vec<User>),
    Read(User, Purpose, Position),
    /// It has answered, and the answer is on its way.
    Answered(Box<Inputs>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) is_connected: bool,
    pub(super) interests: Interests,
    /// Where the log is, as the adapter knows.
    pub(super) horizon: Position,
    pub(super) incoming: VecDeque<Sent>,
    pub(super) calls: Vec<Call>,
    pub(super) delayed: Vec<Delayed<User>>,
    pub(super) channels: BTreeMap<User, Copy<Item>>,
    /// Up to where a user's channel has to come without a round of comparisons.
    pub(super) due: BTreeMap<User, Position>,
    reader: Reader<User, Waiter, Item>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) engine: Engine,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Client>,
    pub(super) now: Duration,
    window: usize,
    /// The adapter is told at once whose events a node wants.
    tells_at_once: bool,
}

impl Node {
    fn new(horizon: Position, now: Duration) -> Self {
        Self {
            is_connected: true,
            interests: Interests::new(),
            horizon,
            incoming: VecDeque::new(),
            calls: Vec::new(),
            delayed: Vec::new(),
            channels: BTreeMap::new(),
            due: BTreeMap::new(),
            reader: Reader::new(now, PATIENCE),
        }
    }
}

struct Channels<'a> {
    channels: &'a mut BTreeMap<User, Copy<Item>>,
    horizon: Position,
}

struct OneOf<'a>(&'a mut Copy<Item>, Position);

impl Copies<User, Item> for Channels<'_> {
    fn users(&self) -> Vec<User> {
        self.channels.keys().copied().collect()
    }

    fn with<R>(&mut self, user: &User, f: impl FnOnce(&mut dyn LogCopy<Item>) -> R) -> Option<R> {
        let copy = self.channels.get_mut(user)?;
        Some(f(&mut OneOf(copy, self.horizon)))
    }
}

fn gap(place: Position) -> Item {
    Item {
        place: Some(place),
        what: What::Gap,
    }
}

impl LogCopy<Item> for OneOf<'_> {
    fn place(&self) -> Option<Position> {
        Some(self.0.place())
    }

    fn compare(&mut self, head: Head) -> Standing {
        self.0.compare(head.newest, head.through)
    }

    /// No log has an end here.
    fn find_end(&mut self, end: Place) -> Standing {
        self.0.compare(end.position, end.position.offset)
    }

    fn append(&mut self, message: Item, place: Place) -> Accepted {
        self.0.append(message, place)
    }

    fn tell_missing(&mut self, _: Option<u64>, place: Place) {
        self.0.append(gap(place.position), place);
    }

    fn catch_up(&mut self, place: Position) {
        self.0.catch_up(place);
    }

    fn follow(&mut self) {
        self.0.follow(self.1, gap(self.1));
    }
}

impl State {
    pub(super) fn new(
        counts: Counts,
        nodes: usize,
        users: &[User],
        window: usize,
        tells_at_once: bool,
    ) -> Self {
        let engine = Engine::new(counts);
        Self {
            nodes: vec![Node::new(engine.horizon(), Duration::ZERO); nodes],
            clients: users.iter().map(|user| Client::new(*user)).collect(),
            engine,
            now: Duration::ZERO,
            window,
            tells_at_once,
        }
    }

    /// Whether the node's adapter knows the log that there is.
    pub(super) fn knows(&self, node: usize) -> bool {
        self.nodes[node].horizon.epoch == self.engine.epoch
    }

    fn can_ask(&self, node: usize) -> bool {
        self.nodes[node].is_connected && self.knows(node)
    }

    /// Has a node decide, and does what it orders.
    fn tell(&mut self, at: usize, input: Inputs) {
        let node = &mut self.nodes[at];
        let mut channels = Channels {
            channels: &mut node.channels,
            horizon: node.horizon,
        };
        let orders = node.reader.handle(self.now, input, &mut channels);
        for order in orders {
            let node = &mut self.nodes[at];
            match order {
                Order::Compare(users) => node.calls.push(Call::Heads(users)),
                Order::Read(user, purpose, after) => {
                    node.calls.push(Call::Read(user, purpose, after));
                }
                Order::Follow => {
                    for channel in node.channels.values_mut() {
                        channel.follow(node.horizon, gap(node.horizon));
                    }
                }
                Order::Delay(_, delayed) => node.delayed.push(delayed),
                Order::Count(_) => {}
                Order::Answer(waiter, stretch) => {
                    let client = &mut self.clients[waiter.client];
                    let is_there = client.visits == waiter.visit;
                    if let Some(stream) = client.stream.as_mut().filter(|_| is_there) {
                        stream.resumption.answer(stretch);
                        self.ask(waiter.client);
                    }
                }
            }
        }
        self.pass_on();
    }

    /// Asks for what a client is to read, if it is to read something.
    fn ask(&mut self, client: usize) {
        let Client {
            stream,
            visits: visit,
            user,
            ..
        } = &self.clients[client];
        let Some(stream) = stream else { return };
        if let Some(after) = stream.resumption.asks() {
            let request = Request {
                after,
                since: self.now,
                ticket: Waiter {
                    client,
                    visit: *visit,
                },
            };
            self.tell(stream.node, Input::Request(*user, request));
        }
    }

    /// Gives clients what there is for them, as a subscription does.
    fn pass_on(&mut self) {
        let mut lagging = Vec::new();
        for (index, client) in self.clients.iter_mut().enumerate() {
            let Some(mut stream) = client.stream.take() else {
                continue;
            };
            let channel = &self.nodes[stream.node].channels[&client.user];
            let resumption = &mut stream.resumption;
            while let Some(item) = resumption.next() {
                client.get(item.unwrap_or_else(|lack| Item {
                    place: match lack {
                        Lack::Dropped(_, place) => Some(place),
                        Lack::Unanswered(place) => place,
                    },
                    what: What::Gap,
                }));
            }
            while resumption.asks().is_none() {
                match channel.next(stream.read) {
                    None => break,
                    Some(Next::Item(item)) => {
                        stream.read += 1;
                        if item.place.is_none_or(|place| resumption.pass(place)) {
                            client.get(item);
                        }
                    }
                    Some(Next::Lost {
                        until,
                        in_log,
                        is_last,
                    }) => {
                        stream.read = until;
                        if !resumption.lacks(in_log) {
                            continue;
                        }
                        let place = Some(in_log).filter(|_| is_last);
                        if resumption.read_until(in_log, place) {
                            lagging.push(index);
                        } else {
                            if let Some(place) = place {
                                resumption.pass(place);
                            }
                            client.get(Item {
                                place,
                                what: What::Gap,
                            });
                        }
                    }
                }
            }
            client.stream = Some(stream);
        }
        for client in lagging {
            self.ask(client);
        }
    }

    /// Sends to a node what it can hear.
    fn send(&mut self, at: usize, sent: Sent) {
        self.nodes[at].incoming.push_back(sent);
    }

    pub(super) fn publish(&mut self, user: User) {
        let (place, item) = self.engine.publish(user);
        for at in 0..self.nodes.len() {
            let hears = self.nodes[at].interests.hears.get(&user) == Some(&true);
            if hears && self.can_ask(at) {
                self.nodes[at].horizon = self.engine.horizon();
                self.send(at, Sent::Message(user, place, item));
            }
        }
    }

    /// A node takes one of what was sent to it.
    pub(super) fn take(&mut self, at: usize, index: usize) {
        if let Some(sent) = self.nodes[at].incoming.remove(index) {
            self.receive(at, sent);
        }
    }

    pub(super) fn receive(&mut self, at: usize, sent: Sent) {
        let said = match sent {
            Sent::Message(user, place, item) => {
                self.is_due(at, [(user, place.position)]);
                return self.tell(at, Input::Message(user, place, item));
            }
            Sent::Reset => {
                self.are_all_due(at);
                return self.tell(at, Input::Reset);
            }
            Sent::Ready(user) => {
                self.is_due(at, [(user, self.end(user))]);
                let noted = self.nodes[at].interests.note_ready(user);
                Said::Ready(self.admit(user, noted))
            }
            Sent::Unheard(user) => {
                let noted = self.nodes[at].interests.note_unheard(user);
                Said::Unheard(self.admit(user, noted))
            }
            Sent::Changed => {
                self.are_all_due(at);
                Said::MayLack
            }
        };
        match follows(true, said) {
            Follows::Compare(users) => self.tell(at, Input::Behind(users)),
            Follows::CompareAll => self.tell(at, Input::Changed),
            Follows::Tell(_) | Follows::TellAll => panic!("there is a log"),
        }
    }

    fn are_all_due(&mut self, at: usize) {
        let users = self.nodes[at].channels.keys();
        let due: Vec<_> = users.map(|user| (*user, self.end(*user))).collect();
        self.is_due(at, due);
    }

    fn end(&self, user: User) -> Position {
        self.engine.head(user, 0).newest
    }

    /// Up to there these users' channels have to come without a round of comparisons.
    fn is_due(&mut self, at: usize, due: impl IntoIterator<Item = (User, Position)>) {
        let node = &mut self.nodes[at];
        let channels = &node.channels;
        let due = due.into_iter();
        node.due
            .extend(due.filter(|(user, _)| channels.contains_key(user)));
    }

    pub(super) fn is_anybody_kept_waiting(&self) -> bool {
        let mut clients = self.clients.iter();
        clients.any(|client| match client.awaits {
            Some((at, false)) => self.nodes[at].interests.has_answer(client.user),
            _ => false,
        })
    }

    /// What clients have waited for is there.
    fn admit(&mut self, user: User, noted: Option<(Vec<Waiter>, bool)>) -> Vec<(User, bool)> {
        let Some((waiters, is_meant)) = noted else {
            return Vec::new();
        };
        for waiter in waiters {
            let client = &mut self.clients[waiter.client];
            let is_there = client.visits == waiter.visit;
            if let Some((_, is_admitted)) = client.awaits.as_mut().filter(|_| is_there) {
                *is_admitted = true;
            }
        }
        vec![(user, is_meant)]
    }

    /// Whether each channel is where it has to be without a round of comparisons.
    pub(super) fn is_prompt(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.channels.iter().all(|(user, channel)| {
                let due = node.due.get(user);
                due.is_none_or(|due| channel.place().compare(*due).is_none_or(Ordering::is_ge))
            })
        })
    }

    /// The engine answers a call, or the answer arrives. `None` if the call fails.
    pub(super) fn answer(&mut self, at: usize, call: usize, server: Option<usize>) {
        let input = match self.nodes[at].calls.remove(call) {
            Call::Answered(input) => *input,
            call => self.input_of(at, call, server),
        };
        self.tell(at, input);
    }

    /// The engine answers a call; the answer arrives later.
    pub(super) fn execute(&mut self, at: usize, call: usize) {
        let input = self.input_of(at, self.nodes[at].calls[call].clone(), Some(0));
        self.nodes[at].calls[call] = Call::Answered(Box::new(input));
    }

    fn input_of(&mut self, at: usize, call: Call, server: Option<usize>) -> Inputs {
        let server = server.filter(|_| self.can_ask(at));
        match call {
            Call::Answered(input) => *input,
            Call::Heads(users) => {
                let heads = server.map(|behind| {
                    let heads = users.iter().map(|user| self.engine.head(*user, behind));
                    heads.collect()
                });
                Input::Heads(users, heads)
            }
            Call::Read(user, purpose, after) => {
                let part = server.map(|behind| self.engine.fetch(user, after, CHUNK, behind));
                match purpose {
                    Purpose::Repair => Input::Repaired(user, after, part),
                    Purpose::Resume => Input::Resumed(user, after, part),
                }
            }
        }
    }

    pub(super) fn resume_delayed(&mut self, at: usize, index: usize) {
        let delayed = self.nodes[at].delayed.remove(index);
        self.tell(at, Input::Due(delayed));
    }

    pub(super) fn tick(&mut self, at: usize) {
        self.tell(at, Input::Tick);
    }

    /// Whoever waits for the engine is let in.
    pub(super) fn cut(&mut self, at: usize) {
        self.nodes[at].is_connected = false;
        for client in &mut self.clients {
            if let Some((node, is_admitted)) = &mut client.awaits {
                *is_admitted |= *node == at;
            }
        }
    }

    pub(super) fn mend(&mut self, at: usize) {
        self.nodes[at].is_connected = true;
        if self.knows(at) {
            self.nodes[at].horizon = self.engine.horizon();
        }
        self.send(at, Sent::Changed);
    }

    /// Messages of these users come from now on.
    pub(super) fn hear(&mut self, at: usize, user: User) {
        self.nodes[at].interests.hears.insert(user, true);
        self.send(at, Sent::Ready(user));
    }

    /// A permission is withdrawn.
    pub(super) fn deny(&mut self, at: usize, user: User) {
        self.nodes[at].interests.hears.insert(user, false);
        self.send(at, Sent::Unheard(user));
    }

    /// Looks whom nobody wants any more.
    pub(super) fn look(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.interests.look(|user| node.channels.contains_key(user));
        self.change(at);
    }

    fn change(&mut self, at: usize) {
        if self.tells_at_once && self.nodes[at].interests.has_changes() {
            self.nodes[at].interests.tell();
            self.note_interest(at, true);
        }
    }

    /// The adapter notes whose events are wanted, or fails.
    pub(super) fn note_interest(&mut self, at: usize, is_noted: bool) {
        for user in self.nodes[at].interests.note(is_noted) {
            self.send(at, Sent::Ready(user));
        }
    }

    /// A client comes that waits until its user's messages come.
    pub(super) fn wait(&mut self, client: usize, at: usize) {
        let it = &mut self.clients[client];
        it.visits += 1;
        let waiter = Waiter {
            client,
            visit: it.visits,
        };
        let node = &mut self.nodes[at];
        let is_answered = node.interests.wait(it.user, waiter);
        it.awaits = Some((at, is_answered || !node.is_connected));
        self.change(at);
    }

    /// The adapter learns that there is another log.
    pub(super) fn learn(&mut self, at: usize) {
        self.nodes[at].horizon = self.engine.horizon();
        self.send(at, Sent::Reset);
    }

    /// A client comes, with the id that it has.
    pub(super) fn join(&mut self, client: usize, at: usize) {
        let window = self.window;
        let Client { user, id, .. } = self.clients[client];
        let node = &mut self.nodes[at];
        let horizon = node.horizon;
        let open = || Copy::open(horizon, window);
        let channel = node.channels.entry(user).or_insert_with(open);
        let (joined, is_untouched) = (channel.place(), channel.is_untouched());
        let live = channel.len();
        let (read, from, until, item) = match id.map(|id| (id, channel.find(id))) {
            None => (live, joined, joined, None),
            Some((id, Start::Window(read))) => (read, id, id, None),
            Some((id, Start::Log)) => (live, id, joined, None),
            Some((_, Start::Unknown)) => (live, joined, joined, Some(gap(joined))),
        };
        let is_new = id.is_none();
        let client_of = &mut self.clients[client];
        client_of.visits += 1;
        client_of.awaits = None;
        client_of.stream = Some(Stream {
            node: at,
            read,
            resumption: Resumption::new(from, until),
        });
        if is_new {
            client_of.get_id(joined);
        }
        if let Some(item) = item {
            client_of.get(item);
        }
        // As `connections.rs` does: the log may have been replaced while the channel was opened.
        let answer = self.nodes[at].interests.begin(user);
        self.change(at);
        let node = &mut self.nodes[at];
        let channel = node.channels.get_mut(&user).expect("it was opened");
        channel.follow(node.horizon, gap(node.horizon));
        // Nothing else brings what the log has already, but what the engine is going to say of the user.
        let interests = &self.nodes[at].interests;
        let hears = interests.hears.get(&user) == Some(&true) && !interests.is_telling();
        if (hears && is_untouched) || answer == Answer::Unheard {
            self.is_due(at, [(user, self.end(user))]);
        }
        if is_behind(answer, is_untouched) {
            self.tell(at, Input::Behind(vec![user]));
        }
        self.ask(client);
        self.pass_on();
    }

    /// A client goes. It may have had a keep-alive before, or lack the last thing that it was sent.
    pub(super) fn leave(&mut self, client: usize, last: Last) {
        let client = &mut self.clients[client];
        let stream = client.stream.take().expect("it is there");
        match last {
            Last::Had => {}
            Last::KeptAlive => {
                let channel = self.nodes[stream.node].channels[&client.user].place();
                let place = stream.resumption.place(channel);
                place.inspect(|place| client.get_id(*place));
            }
            Last::Lost => {
                client.got.pop();
                let mut places = client.got.iter().filter_map(|got| got.place());
                client.id = places.next_back();
            }
        }
    }

    /// Closes the channels without clients of a node.
    pub(super) fn close(&mut self, at: usize) {
        let clients = &self.clients;
        let is_there = |user: &User| {
            clients.iter().any(|client| {
                let stream = client.stream.as_ref();
                client.user == *user && stream.is_some_and(|stream| stream.node == at)
            })
        };
        let node = &mut self.nodes[at];
        node.channels.retain(|user, _| is_there(user));
        node.due.retain(|user, _| is_there(user));
    }

    /// A node is killed and started again.
    pub(super) fn restart(&mut self, at: usize) {
        for client in &mut self.clients {
            client.stream.take_if(|stream| stream.node == at);
            client.awaits.take_if(|(node, _)| *node == at);
        }
        self.nodes[at] = Node::new(self.engine.horizon(), self.now);
    }
}

/// What a client had last when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Last {
    /// All that it was sent.
    Had,
    /// And a keep-alive.
    KeptAlive,
    /// Not even the last thing that it was sent.
    Lost,
}
