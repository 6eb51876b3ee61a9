//! Nodes between which events go once at most, one user: what a stream has not got, it is told of.
//!
//! What decides is `Wanted`, whose events come, and `follows`, who is told of what did not. The node that broadcasts sends to
//! its own streams at once, and to the others through an engine that keeps nothing.

use std::collections::VecDeque;

use stateright::{Model, Property};

use super::arrivals::{Follows, Said, follows};
use super::check::check;
use super::interests::{Interests, Waiter};

const USER: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// Which node has broadcast each event.
    events: Vec<usize>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    left: Budget,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    is_connected: bool,
    /// Something was sent to it while it was not.
    has_missed: bool,
    interests: Interests,
    incoming: VecDeque<Sent>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Client {
    /// Where its stream is, and which event was the last before it.
    stream: Option<(usize, usize)>,
    awaits: Option<(usize, bool)>,
    visits: u8,
    got: Vec<Got>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Got {
    Event(usize),
    /// A gap, and how many events there were then.
    Gap(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sent {
    Event(usize),
    Ready,
    Unheard,
    Restored { maybe_lost: bool },
    Changed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Budget {
    events: u8,
    /// Messages that do not arrive, which the adapter notices.
    lost: u8,
    cuts: u8,
    denied: u8,
    moves: u8,
    looks: u8,
    unnoted: u8,
    /// Clients that waited and are refused.
    refused: u8,
}

#[derive(Clone)]
struct Once {
    nodes: usize,
    clients: usize,
    /// Whether streams begin without waiting for their messages.
    begins_early: bool,
    budget: Budget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Broadcast(usize),
    Take(usize),
    Lose(usize),
    Cut(usize),
    Mend(usize),
    Hear(usize),
    Deny(usize),
    Look(usize),
    TellInterest(usize),
    NoteInterest(usize, bool),
    Join(usize, usize),
    Await(usize, usize),
    Enter(usize),
    /// It is refused instead.
    Refuse(usize),
    Leave(usize),
}

impl State {
    fn has_channel(&self, at: usize) -> bool {
        let mut clients = self.clients.iter();
        clients.any(|client| client.stream.is_some_and(|(node, _)| node == at))
    }

    /// Gives it to all streams of a node.
    fn give(&mut self, at: usize, got: Got) {
        for client in &mut self.clients {
            if client.stream.is_some_and(|(node, _)| node == at) {
                client.got.push(got);
            }
        }
    }

    fn broadcast(&mut self, at: usize) {
        self.events.push(at);
        let event = self.events.len();
        self.give(at, Got::Event(event));
        for node in &mut self.nodes {
            if node.interests.hears.get(&USER) == Some(&true) {
                match node.is_connected {
                    true => node.incoming.push_back(Sent::Event(event)),
                    false => node.has_missed = true,
                }
            }
        }
    }

    fn take(&mut self, at: usize) {
        let Some(sent) = self.nodes[at].incoming.pop_front() else {
            return;
        };
        let said = match sent {
            Sent::Event(event) => {
                // Its own, it has sent already.
                if self.events[event - 1] != at {
                    self.give(at, Got::Event(event));
                }
                return;
            }
            Sent::Ready => {
                let noted = self.nodes[at].interests.note_ready(USER);
                Said::Ready(self.admit(noted))
            }
            Sent::Unheard => {
                let noted = self.nodes[at].interests.note_unheard(USER);
                Said::Unheard(self.admit(noted))
            }
            Sent::Restored { maybe_lost: false } => return,
            Sent::Restored { maybe_lost: true } | Sent::Changed => Said::MayLack,
        };
        let is_told = match follows(false, said) {
            Follows::Tell(users) => users.contains(&USER),
            Follows::TellAll => true,
            Follows::Compare(_) | Follows::CompareAll => panic!("there is no log"),
        };
        if is_told {
            self.give(at, Got::Gap(self.events.len()));
        }
    }

    fn admit(&mut self, noted: Option<(Vec<Waiter>, bool)>) -> Vec<(u8, bool)> {
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
        vec![(USER, is_meant)]
    }

    fn note_interest(&mut self, at: usize, is_noted: bool) {
        let node = &mut self.nodes[at];
        for _ in node.interests.note(is_noted) {
            node.incoming.push_back(Sent::Ready);
        }
    }

    fn hear(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.interests.hears.insert(USER, true);
        node.incoming.push_back(Sent::Ready);
    }

    fn mend(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.is_connected = true;
        let maybe_lost = std::mem::take(&mut node.has_missed);
        node.incoming.push_back(Sent::Restored { maybe_lost });
    }

    fn join(&mut self, client: usize, at: usize) {
        let events = self.events.len();
        let it = &mut self.clients[client];
        it.visits += 1;
        it.awaits = None;
        it.got.clear();
        it.stream = Some((at, events));
        self.nodes[at].interests.begin(USER);
    }

    fn wait(&mut self, client: usize, at: usize) {
        let it = &mut self.clients[client];
        it.visits += 1;
        let visit = it.visits;
        let node = &mut self.nodes[at];
        let is_answered = node.interests.wait(USER, Waiter { client, visit });
        it.awaits = Some((at, is_answered || !node.is_connected));
    }

    /// What is wrong with what a client got.
    fn violation(&self, client: &Client, is_settled: bool) -> Option<&'static str> {
        let (_, before) = client.stream?;
        let events = || {
            client.got.iter().filter_map(|got| match got {
                Got::Event(event) => Some(*event),
                Got::Gap(_) => None,
            })
        };
        for node in 0..self.nodes.len() {
            let its = events().filter(|event| self.events[event - 1] == node);
            if !its.is_sorted_by(|one, other| one < other) {
                return Some("twice, or not in the order of its node");
            }
        }
        let is_told = |event: usize| {
            let told = |got: &Got| matches!(got, Got::Gap(events) if *events >= event);
            client.got.iter().any(told)
        };
        let mut missing =
            (before + 1..=self.events.len()).filter(|event| !events().any(|it| it == *event));
        (is_settled && missing.any(|event| !is_told(event)))
            .then_some("something is missing, and nothing was told")
    }
}

impl Once {
    /// Lets faults end and everything happen that is on its way.
    fn settle(&self, state: &mut State) -> Result<(), &'static str> {
        for _ in 0..100 {
            let mut is_quiet = true;
            for at in 0..self.nodes {
                let node = &mut state.nodes[at];
                if !node.is_connected {
                    state.mend(at);
                } else if node.interests.has_changes() {
                    node.interests.tell();
                } else if node.interests.is_telling() {
                    state.note_interest(at, true);
                } else if node.interests.hears.get(&USER) == Some(&false) {
                    state.hear(at);
                } else if !node.incoming.is_empty() {
                    state.take(at);
                } else {
                    continue;
                }
                is_quiet = false;
            }
            for client in 0..self.clients {
                if let Some((node, true)) = state.clients[client].awaits {
                    state.join(client, node);
                    is_quiet = false;
                }
            }
            if is_quiet {
                let is_let_in = |client: &Client| client.awaits.is_none();
                return match state.clients.iter().all(is_let_in) {
                    true => Ok(()),
                    false => Err("a client is not let in"),
                };
            }
        }
        Err("it does not come to rest")
    }
}

impl Model for Once {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let node = Node {
            is_connected: true,
            has_missed: false,
            interests: Interests::new(),
            incoming: VecDeque::new(),
        };
        vec![State {
            events: Vec::new(),
            nodes: vec![node; self.nodes],
            clients: vec![Client::default(); self.clients],
            left: self.budget,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let left = state.left;
        for (at, node) in state.nodes.iter().enumerate() {
            // Without the engine, events wait to be published.
            if left.events > 0 && node.is_connected {
                steps.push(Step::Broadcast(at));
            }
            if !node.incoming.is_empty() {
                steps.push(Step::Take(at));
            }
            if matches!(node.incoming.front(), Some(Sent::Event(_))) {
                steps.extend((left.lost > 0).then_some(Step::Lose(at)));
            }
            match node.is_connected {
                true => steps.extend((left.cuts > 0).then_some(Step::Cut(at))),
                false => steps.push(Step::Mend(at)),
            }
            match node.interests.hears.get(&USER) {
                Some(true) => steps.extend((left.denied > 0).then_some(Step::Deny(at))),
                Some(false) => steps.push(Step::Hear(at)),
                None => {}
            }
            if node.interests.has_changes() {
                steps.push(Step::TellInterest(at));
            }
            if node.interests.is_telling() {
                steps.push(Step::NoteInterest(at, true));
                steps.extend((left.unnoted > 0).then_some(Step::NoteInterest(at, false)));
            }
            // Between two looks, what the engine has said is taken: a linger is longer than that. The task that looks also tells.
            let may_look =
                left.looks > 0 && node.incoming.is_empty() && !node.interests.is_telling();
            steps.extend(may_look.then_some(Step::Look(at)));
        }
        for (client, it) in state.clients.iter().enumerate() {
            match (it.stream, it.awaits) {
                (Some(_), _) => steps.extend((left.moves > 0).then_some(Step::Leave(client))),
                (None, Some((_, is_admitted))) => {
                    steps.extend(is_admitted.then_some(Step::Enter(client)));
                    let may_refuse = is_admitted && left.refused > 0;
                    steps.extend(may_refuse.then_some(Step::Refuse(client)));
                }
                (None, None) if left.moves > 0 => {
                    let nodes = 0..self.nodes;
                    steps.extend(nodes.clone().map(|at| Step::Await(client, at)));
                    if self.begins_early {
                        steps.extend(nodes.map(|at| Step::Join(client, at)));
                    }
                }
                (None, None) => {}
            }
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut next = before.clone();
        let state = &mut next;
        match step {
            Step::Broadcast(at) => {
                state.left.events -= 1;
                state.broadcast(at);
            }
            Step::Take(at) => state.take(at),
            Step::Lose(at) => {
                state.left.lost -= 1;
                state.nodes[at].incoming.pop_front();
                state.nodes[at].incoming.push_back(Sent::Changed);
            }
            Step::Cut(at) => {
                state.left.cuts -= 1;
                state.nodes[at].is_connected = false;
                for client in &mut state.clients {
                    if let Some((node, is_admitted)) = &mut client.awaits {
                        *is_admitted |= *node == at;
                    }
                }
            }
            Step::Mend(at) => state.mend(at),
            Step::Hear(at) => state.hear(at),
            Step::Deny(at) => {
                state.left.denied -= 1;
                state.nodes[at].interests.hears.insert(USER, false);
                state.nodes[at].incoming.push_back(Sent::Unheard);
            }
            Step::Look(at) => {
                state.left.looks -= 1;
                let has_channel = state.has_channel(at);
                state.nodes[at].interests.look(|_| has_channel);
            }
            Step::TellInterest(at) => state.nodes[at].interests.tell(),
            Step::NoteInterest(at, is_noted) => {
                state.left.unnoted -= u8::from(!is_noted);
                state.note_interest(at, is_noted);
            }
            Step::Join(client, at) => {
                state.left.moves -= 1;
                state.join(client, at);
            }
            Step::Await(client, at) => {
                state.left.moves -= 1;
                state.wait(client, at);
            }
            Step::Enter(client) => {
                let (node, _) = state.clients[client].awaits.expect("it waits");
                state.join(client, node);
            }
            Step::Refuse(client) => {
                state.left.refused -= 1;
                let (node, _) = state.clients[client].awaits.take().expect("it waits");
                let has_channel = state.has_channel(node);
                state.nodes[node].interests.withdraw(USER, has_channel);
            }
            Step::Leave(client) => {
                state.left.moves -= 1;
                state.clients[client].stream = None;
                state.clients[client].got.clear();
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "each event once, in its node's order",
                |_, state: &State| {
                    let mut clients = state.clients.iter();
                    clients.all(|client| state.violation(client, false).is_none())
                },
            ),
            Property::always("no gap without a loss", |once: &Self, state: &State| {
                let Budget {
                    lost,
                    cuts,
                    denied,
                    looks,
                    refused,
                    ..
                } = once.budget;
                let left = state.left;
                // Whoever is taken out and put in again may be told for nothing.
                let may_lack = (lost, cuts, denied) != (left.lost, left.cuts, left.denied)
                    || (looks, refused) != (left.looks, left.refused);
                let is_gap = |got: &Got| matches!(got, Got::Gap(_));
                let mut clients = state.clients.iter();
                once.begins_early
                    || may_lack
                    || !clients.any(|client| client.got.iter().any(is_gap))
            }),
            Property::always(
                "what does not arrive is told",
                |once: &Self, state: &State| {
                    let mut state = state.clone();
                    once.settle(&mut state).is_ok()
                        && state
                            .clients
                            .iter()
                            .all(|client| state.violation(client, true).is_none())
                },
            ),
        ]
    }
}

impl Once {
    fn check(self, name: &str) {
        let once = self.clone();
        check(name, self, |state| {
            let mut last = state.clone();
            println!("{:?}", once.settle(&mut last));
            for client in &last.clients {
                println!("{:?}: {client:?}", last.violation(client, true));
            }
        });
    }
}

/// Connections are cut, messages lost and permissions withdrawn, between two nodes.
#[test]
fn what_does_not_arrive_is_told() {
    let once = Once {
        nodes: 2,
        clients: 1,
        begins_early: true,
        budget: Budget {
            events: 2,
            lost: 1,
            cuts: 1,
            denied: 1,
            moves: 1,
            ..Budget::default()
        },
    };
    once.check("what does not arrive is told");
}

/// Streams come and go, and their user is taken out and put in again. Answers to an interest that was withdrawn come late.
#[test]
fn an_interest_is_taken_back() {
    let changes = Budget {
        events: 2,
        moves: 3,
        looks: 3,
        unnoted: 1,
        refused: 1,
        ..Budget::default()
    };
    let answers = Budget {
        events: 1,
        moves: 4,
        looks: 2,
        denied: 1,
        ..Budget::default()
    };
    for (begins_early, budget) in [(true, changes), (false, changes), (true, answers)] {
        let once = Once {
            nodes: 2,
            clients: 1,
            begins_early,
            budget,
        };
        let name = "an interest is taken back";
        once.check(&format!(
            "{name}, early {begins_early}, {} denied",
            budget.denied
        ));
    }
}

/// Three nodes broadcast at the same time.
#[test]
fn three_nodes_keep_nothing() {
    let once = Once {
        nodes: 3,
        clients: 2,
        begins_early: false,
        budget: Budget {
            events: 2,
            lost: 1,
            moves: 2,
            ..Budget::default()
        },
    };
    once.check("three nodes keep nothing");
}
