//! What stateright explores, and what must be true of each state.

use stateright::{Model, Property};

use super::check::check;
use super::engine::{Counts, User};
use super::state::{Call, Last, PATIENCE, Sent, State};

/// How often each of these may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Budget {
    /// Messages that are published.
    events: u8,
    /// Messages that are not sent to a node, or come twice.
    lost: u8,
    repeated: u8,
    /// Connections to the engine that are cut.
    cuts: u8,
    /// Permissions that are withdrawn.
    denied: u8,
    /// Calls that fail, that a server answers which is behind, and whose answer comes later than others.
    failed: u8,
    behind: u8,
    late: u8,
    /// Logs that are replaced, by one that lacks as many messages as it likes up to two.
    replaced: u8,
    /// Messages that the log drops for their age.
    dropped: u8,
    /// Clients that come, and leave: each counts once.
    moves: u8,
    restarts: u8,
    /// Moments at which more than the patience has passed.
    waits: u8,
    ticks: u8,
    /// Looks for users whom nobody wants any more.
    looks: u8,
    /// Changes of interest that are not noted.
    unnoted: u8,
}

#[derive(Clone)]
struct Relay {
    counts: Counts,
    nodes: usize,
    /// A client of each of these.
    users: Vec<User>,
    /// What channels keep.
    window: usize,
    /// Whether a channel goes with its last client.
    closes: bool,
    /// Whether it takes time to tell the engine whose messages a node wants, and clients may wait for that.
    has_interest: bool,
    budget: Budget,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Explored {
    state: State,
    left: Budget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Publish(User),
    Take(usize, usize),
    Lose(usize),
    Repeat(usize),
    Cut(usize),
    Mend(usize),
    Hear(usize, User),
    Deny(usize, User),
    Answer(usize, usize),
    Fail(usize, usize),
    AnswerBehind(usize, usize),
    Execute(usize, usize),
    Resume(usize, usize),
    Replace(usize),
    Learn(usize),
    Drop,
    Join(usize, usize),
    Leave(usize, Last),
    Close(usize),
    Restart(usize),
    Wait,
    Tick(usize),
    Look(usize),
    TellInterest(usize),
    NoteInterest(usize, bool),
    /// A client comes that waits for its messages, and comes in.
    Await(usize, usize),
    Enter(usize),
}

impl Relay {
    fn users(&self) -> Vec<User> {
        let mut users = self.users.clone();
        users.dedup();
        users
    }

    /// Whether nothing can be lost for good.
    fn is_lossless(&self) -> bool {
        let Budget {
            replaced,
            dropped,
            waits,
            ..
        } = self.budget;
        replaced + dropped + waits == 0
    }

    /// Which of the messages before a node may be taken next: the first of each user, up to what is not a message.
    fn takeable(state: &State, node: usize) -> Vec<usize> {
        let mut users = Vec::new();
        let mut takeable = Vec::new();
        for (index, sent) in state.nodes[node].incoming.iter().enumerate() {
            let Sent::Message(user, ..) = sent else {
                if index == 0 {
                    takeable.push(0);
                }
                break;
            };
            if !users.contains(user) {
                users.push(*user);
                takeable.push(index);
            }
        }
        takeable
    }

    /// Lets faults end and everything happen that is on its way.
    fn settle(&self, state: &mut State) -> Result<(), &'static str> {
        for at in 0..self.nodes {
            if !state.knows(at) {
                state.learn(at);
            }
            if !state.nodes[at].is_connected {
                state.mend(at);
            }
        }
        self.drain(state)?;
        if state.is_anybody_kept_waiting() {
            return Err("a client waits although the engine has said what it waits for");
        }
        if self.budget.behind + self.budget.waits == 0 && !state.is_prompt() {
            return Err("what a channel is known to lack has to wait for a round");
        }
        for client in 0..state.clients.len() {
            let it = &state.clients[client];
            if it.stream.is_none() && it.awaits.is_none() {
                state.join(client, 0);
            }
        }
        // A round of comparisons: of all users, after those that are under way.
        for _ in 0..2 * self.users.len() + 2 {
            for at in 0..self.nodes {
                for (user, hears) in state.nodes[at].interests.hears.clone() {
                    if !hears {
                        state.hear(at, user);
                    }
                }
                state.tick(at);
            }
            self.drain(state)?;
            for client in 0..state.clients.len() {
                if let Some((node, true)) = state.clients[client].awaits {
                    state.join(client, node);
                }
            }
        }
        if state.clients.iter().any(|client| client.stream.is_none()) {
            return Err("a client is not let in");
        }
        self.check_interests(state)
    }

    /// Whether the engine knows whose messages each node wants, and forgets whom nobody wants.
    fn check_interests(&self, state: &mut State) -> Result<(), &'static str> {
        self.drain(state)?;
        for node in &state.nodes {
            let is_wanted = |user| node.interests.hears.contains_key(user);
            if !node.channels.keys().all(is_wanted) {
                return Err("the engine does not know that a user is wanted");
            }
        }
        let mut left = state.clone();
        left.clients.iter_mut().for_each(|it| it.stream = None);
        for at in 0..self.nodes {
            left.close(at);
            left.look(at);
            left.look(at);
        }
        self.drain(&mut left)?;
        match left
            .nodes
            .iter()
            .all(|node| node.interests.hears.is_empty())
        {
            true => Ok(()),
            false => Err("the engine is not told that a user is wanted no more"),
        }
    }

    /// Has everything happen that is on its way.
    fn drain(&self, state: &mut State) -> Result<(), &'static str> {
        let is_busy = |state: &State, at: &usize| {
            let node = &state.nodes[*at];
            let is_told = !node.interests.has_changes() && !node.interests.is_telling();
            let is_quiet = node.incoming.is_empty() && node.calls.is_empty();
            !(is_quiet && node.delayed.is_empty() && is_told)
        };
        for _ in 0..500 {
            let Some(at) = (0..self.nodes).find(|at| is_busy(state, at)) else {
                return Ok(());
            };
            if state.nodes[at].interests.has_changes() {
                state.nodes[at].interests.tell();
            } else if state.nodes[at].interests.is_telling() {
                state.note_interest(at, true);
            } else if !state.nodes[at].incoming.is_empty() {
                state.take(at, 0);
            } else if !state.nodes[at].calls.is_empty() {
                state.answer(at, 0, Some(0));
            } else {
                state.resume_delayed(at, 0);
            }
        }
        Err("it does not come to rest")
    }
}

impl Model for Relay {
    type State = Explored;
    type Action = Step;

    fn init_states(&self) -> Vec<Explored> {
        let mut state = State::new(
            self.counts,
            self.nodes,
            &self.users,
            self.window,
            !self.has_interest,
        );
        // Each node has a client to begin with, as far as there are enough.
        for client in 0..state.clients.len() {
            state.join(client, client % self.nodes);
        }
        vec![Explored {
            state,
            left: self.budget,
        }]
    }

    fn actions(&self, explored: &Explored, steps: &mut Vec<Step>) {
        let Explored { state, left } = explored;
        if left.events > 0 {
            steps.extend(self.users().into_iter().map(Step::Publish));
        }
        for at in 0..self.nodes {
            let node = &state.nodes[at];
            steps.extend(
                Self::takeable(state, at)
                    .into_iter()
                    .map(|index| Step::Take(at, index)),
            );
            if matches!(node.incoming.front(), Some(Sent::Message(..))) {
                steps.extend((left.lost > 0).then_some(Step::Lose(at)));
                steps.extend((left.repeated > 0).then_some(Step::Repeat(at)));
            }
            match node.is_connected {
                true => steps.extend((left.cuts > 0).then_some(Step::Cut(at))),
                false => steps.push(Step::Mend(at)),
            }
            if node.interests.has_changes() {
                steps.push(Step::TellInterest(at));
            }
            if node.interests.is_telling() {
                steps.push(Step::NoteInterest(at, true));
                steps.extend((left.unnoted > 0).then_some(Step::NoteInterest(at, false)));
            }
            // The task that looks also tells.
            let may_look = left.looks > 0 && !node.interests.is_telling();
            steps.extend(may_look.then_some(Step::Look(at)));
            for (user, hears) in &node.interests.hears {
                match hears {
                    true => steps.extend((left.denied > 0).then_some(Step::Deny(at, *user))),
                    false => steps.push(Step::Hear(at, *user)),
                }
            }
            for (call, asked) in node.calls.iter().enumerate() {
                steps.push(Step::Answer(at, call));
                if !matches!(asked, Call::Answered(_)) {
                    steps.extend((left.failed > 0).then_some(Step::Fail(at, call)));
                    steps.extend((left.behind > 0).then_some(Step::AnswerBehind(at, call)));
                    steps.extend((left.late > 0).then_some(Step::Execute(at, call)));
                }
            }
            steps.extend((0..node.delayed.len()).map(|index| Step::Resume(at, index)));
            if !state.knows(at) && node.is_connected {
                steps.push(Step::Learn(at));
            }
            steps.extend((left.ticks > 0).then_some(Step::Tick(at)));
            steps.extend((left.restarts > 0).then_some(Step::Restart(at)));
            if self.closes {
                steps.push(Step::Close(at));
            }
        }
        if left.replaced > 0 {
            steps.extend((0..=2).map(Step::Replace));
        }
        if left.dropped > 0 {
            steps.push(Step::Drop);
        }
        if left.waits > 0 {
            steps.push(Step::Wait);
        }
        for (client, it) in state.clients.iter().enumerate() {
            match it.stream {
                None if it.awaits.is_some() => {
                    let is_admitted = matches!(it.awaits, Some((_, true)));
                    steps.extend(is_admitted.then_some(Step::Enter(client)));
                }
                None if left.moves > 0 => {
                    steps.extend((0..self.nodes).map(|at| Step::Join(client, at)));
                    if self.has_interest {
                        steps.extend((0..self.nodes).map(|at| Step::Await(client, at)));
                    }
                }
                Some(_) if left.moves > 0 => {
                    steps.push(Step::Leave(client, Last::Had));
                    steps.push(Step::Leave(client, Last::KeptAlive));
                    steps.push(Step::Leave(client, Last::Lost));
                }
                _ => {}
            }
        }
    }

    fn next_state(&self, before: &Explored, step: Step) -> Option<Explored> {
        let mut next = before.clone();
        let Explored { state, left } = &mut next;
        match step {
            Step::Publish(user) => {
                left.events -= 1;
                state.publish(user);
            }
            Step::Take(at, index) => state.take(at, index),
            Step::Lose(at) => {
                left.lost -= 1;
                state.nodes[at].incoming.pop_front();
            }
            Step::Repeat(at) => {
                left.repeated -= 1;
                let sent = state.nodes[at].incoming[0].clone();
                state.receive(at, sent);
            }
            Step::Cut(at) => {
                left.cuts -= 1;
                state.cut(at);
            }
            Step::Mend(at) => state.mend(at),
            Step::Hear(at, user) => state.hear(at, user),
            Step::Deny(at, user) => {
                left.denied -= 1;
                state.deny(at, user);
            }
            Step::Answer(at, call) => state.answer(at, call, Some(0)),
            Step::Fail(at, call) => {
                left.failed -= 1;
                state.answer(at, call, None);
            }
            Step::AnswerBehind(at, call) => {
                left.behind -= 1;
                state.answer(at, call, Some(1));
            }
            Step::Execute(at, call) => {
                left.late -= 1;
                state.execute(at, call);
            }
            Step::Resume(at, index) => state.resume_delayed(at, index),
            Step::Replace(lacks) => {
                left.replaced -= 1;
                state.engine.replace(lacks);
            }
            Step::Learn(at) => state.learn(at),
            Step::Drop => {
                left.dropped -= 1;
                if !state.engine.drop_oldest() {
                    return None;
                }
            }
            Step::Join(client, at) => {
                left.moves -= 1;
                state.join(client, at);
            }
            Step::Leave(client, last) => {
                left.moves -= 1;
                state.leave(client, last);
            }
            Step::Close(at) => state.close(at),
            Step::Restart(at) => {
                left.restarts -= 1;
                state.restart(at);
            }
            Step::Wait => {
                left.waits -= 1;
                state.now += 2 * PATIENCE;
            }
            Step::Tick(at) => {
                left.ticks -= 1;
                state.tick(at);
            }
            Step::Look(at) => {
                left.looks -= 1;
                state.look(at);
            }
            Step::TellInterest(at) => state.nodes[at].interests.tell(),
            Step::NoteInterest(at, is_noted) => {
                left.unnoted -= u8::from(!is_noted);
                state.note_interest(at, is_noted);
            }
            Step::Await(client, at) => {
                left.moves -= 1;
                state.wait(client, at);
            }
            Step::Enter(client) => {
                let awaits = state.clients[client].awaits;
                let (node, _) = awaits.expect("it waits");
                state.join(client, node);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "each event once, in the order of the log, or a gap",
                |_, Explored { state, .. }| {
                    let mut clients = state.clients.iter();
                    clients.all(|client| client.violation(&state.engine, false).is_none())
                },
            ),
            Property::always(
                "no gap without a loss",
                |relay: &Self, explored: &Explored| {
                    let mut clients = explored.state.clients.iter();
                    !relay.is_lossless() || !clients.any(|client| client.is_told_of_a_gap())
                },
            ),
            Property::always(
                "what is in the log arrives once faults stop",
                |relay: &Self, explored: &Explored| {
                    let mut state = explored.state.clone();
                    if relay.settle(&mut state).is_err() {
                        return false;
                    }
                    let mut clients = state.clients.iter();
                    clients.all(|client| client.violation(&state.engine, true).is_none())
                },
            ),
        ]
    }
}

impl Relay {
    fn check(self, name: &str) {
        let relay = self.clone();
        check(name, self, |explored| {
            let mut last = explored.state.clone();
            println!("{:?}", relay.settle(&mut last));
            for client in &last.clients {
                println!(
                    "{:?}: {:?}",
                    client.violation(&last.engine, true),
                    client.got
                );
            }
        });
    }
}

/// One node, two users: messages are lost, repeated and come in another order, and calls fail or are answered late.
#[test]
fn a_channel_is_repaired() {
    let relay = Relay {
        counts: Counts::Together,
        nodes: 1,
        users: vec![1, 2],
        window: 2,
        closes: false,
        has_interest: false,
        budget: Budget {
            events: 3,
            lost: 1,
            repeated: 1,
            failed: 1,
            behind: 1,
            ..Budget::default()
        },
    };
    relay.check("a channel is repaired");
}

/// The log is replaced by another one, which lacks up to two messages, while reads and comparisons are under way.
#[test]
fn a_log_is_replaced() {
    for counts in [Counts::Together, Counts::PerUser] {
        let relay = Relay {
            counts,
            nodes: 1,
            users: vec![1],
            window: 2,
            closes: false,
            has_interest: false,
            budget: Budget {
                events: 2,
                lost: 1,
                late: 1,
                replaced: 1,
                ..Budget::default()
            },
        };
        relay.check(&format!("a log is replaced, {counts:?}"));
    }
}

/// A client goes from node to node, and channels close behind it.
#[test]
fn a_client_moves() {
    for (counts, moves) in [(Counts::Together, 2), (Counts::PerUser, 3)] {
        let relay = Relay {
            counts,
            nodes: 2,
            users: vec![1],
            window: 1,
            closes: true,
            has_interest: false,
            budget: Budget {
                events: 3,
                moves,
                ..Budget::default()
            },
        };
        relay.check(&format!("a client moves, {counts:?}"));
    }
}

/// The log drops what is old, while clients are away.
#[test]
fn a_log_drops_messages() {
    let relay = Relay {
        counts: Counts::Together,
        nodes: 1,
        users: vec![1, 1],
        window: 1,
        closes: false,
        has_interest: false,
        budget: Budget {
            events: 3,
            lost: 1,
            dropped: 1,
            moves: 2,
            ..Budget::default()
        },
    };
    relay.check("a log drops messages");
}

/// A client comes back while its log is replaced, to a node that keeps nothing.
#[test]
fn a_client_meets_another_log() {
    let relay = Relay {
        counts: Counts::Together,
        nodes: 1,
        users: vec![1],
        window: 0,
        closes: false,
        has_interest: false,
        budget: Budget {
            events: 2,
            replaced: 1,
            moves: 2,
            ..Budget::default()
        },
    };
    relay.check("a client meets another log");
}

/// Two screens of a user come back from different places, to a node that keeps nothing.
#[test]
fn two_clients_come_back() {
    let relay = Relay {
        counts: Counts::Together,
        nodes: 1,
        users: vec![1, 1],
        window: 0,
        closes: false,
        has_interest: false,
        budget: Budget {
            events: 3,
            dropped: 2,
            moves: 4,
            ..Budget::default()
        },
    };
    relay.check("two clients come back");
}

/// Nobody waits for ever for an engine that does not answer.
#[test]
fn patience_ends() {
    let relay = Relay {
        counts: Counts::Together,
        nodes: 1,
        users: vec![1],
        window: 1,
        closes: false,
        has_interest: false,
        budget: Budget {
            events: 2,
            lost: 1,
            failed: 2,
            moves: 2,
            waits: 1,
            ticks: 1,
            ..Budget::default()
        },
    };
    relay.check("patience ends");
}

/// Connections are cut, permissions withdrawn, nodes started again.
#[test]
fn nodes_hear_nothing() {
    let relay = Relay {
        counts: Counts::Together,
        nodes: 1,
        users: vec![1],
        window: 2,
        closes: false,
        has_interest: false,
        budget: Budget {
            events: 2,
            cuts: 1,
            denied: 1,
            restarts: 1,
            moves: 1,
            ..Budget::default()
        },
    };
    relay.check("nodes hear nothing");
}

/// Streams come and go, wait for their messages or not, and their user is taken out and put in again: the engine is told, in
/// the end, and whoever comes gets what the log has.
#[test]
fn interest_comes_and_goes() {
    for (events, denied, looks, unnoted) in [(2, 0, 2, 0), (1, 1, 2, 1)] {
        let relay = Relay {
            counts: Counts::PerUser,
            nodes: 1,
            users: vec![1],
            window: 1,
            closes: true,
            has_interest: true,
            budget: Budget {
                events,
                denied,
                moves: 2,
                looks,
                unnoted,
                ..Budget::default()
            },
        };
        relay.check(&format!(
            "interest comes and goes, {denied} denied, {looks} looks, {unnoted} not noted"
        ));
    }
}

/// Two clients of a user go over three nodes.
#[test]
fn three_nodes_share_a_log() {
    let relay = Relay {
        counts: Counts::Together,
        nodes: 3,
        users: vec![1, 1],
        window: 1,
        closes: false,
        has_interest: false,
        budget: Budget {
            events: 2,
            moves: 2,
            ..Budget::default()
        },
    };
    relay.check("three nodes share a log");
}
