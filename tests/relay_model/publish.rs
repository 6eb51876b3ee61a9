//! One node that publishes: how the real `Backlog` handles the engine's answers.
//!
//! An event is its number. Each is in the log once, in the order of its user, or a notice of lost events is in its place. A
//! caller that waits for an outcome gets the right one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use stateright::{Model, Property};

use super::backlog::{Answer, Backlog, Batch, Failure, Item, Outcome, Outlet, What};
use super::check::check;
use super::engine::User;

const WINDOW: Duration = Duration::from_secs(20);

type Event = u8;
/// Whose an event is, and what became of it.
type Events = Vec<(User, Option<Result<(), Failure>>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Entry {
    Event(Event),
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    backlog: Backlog<User, Event>,
    call: Option<Batch<User, Event>>,
    now: Duration,
    ids: u128,
    epoch: u64,
    /// What the log has.
    log: Vec<(User, Entry)>,
    /// What it would recognize: messages and where in the log they are.
    known: BTreeMap<u128, usize>,
    /// How often a user's log said that something is lost when each event was broadcast.
    before: Vec<usize>,
    /// Events that were broadcast, whose they are, and what became of them.
    events: Events,
    /// So many of them were broadcast before the log was replaced: what it lacks of these, everybody is told.
    excused: usize,
    /// Events that streams got before the log.
    shown: Vec<Event>,
    left: Budget,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Budget {
    /// Events that are broadcast, and such as find no room.
    events: u8,
    full: u8,
    /// Calls of which something goes wrong.
    faults: u8,
    /// Logs that are replaced.
    replaced: u8,
    /// Moments at which the engine recognizes nothing of before.
    waits: u8,
    /// Times in which streams get events without the engine.
    apart: u8,
    /// Times at which the engine takes back what it has accepted.
    taken_back: u8,
}

#[derive(Clone)]
struct Publishing {
    is_replayable: bool,
    users: Vec<User>,
    budget: Budget,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fate {
    Accepted,
    RefusedForNow,
    RefusedForGood,
    /// It is in the log, and the acknowledgement is lost.
    Unacknowledged,
    /// It is not in the log, and nobody knows.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Broadcast(User),
    Full(User),
    Call,
    /// All are accepted, but for this one.
    Answer(usize, Fate),
    /// Nothing was handed over.
    Unavailable,
    /// Nobody knows what became of any of them. So many were taken.
    Fail(usize),
    Due,
    Hurry,
    Replace(usize),
    Wait,
    Apart(bool),
    TakeBack(User),
}

/// The rest of the node.
struct Node<'a> {
    is_replayable: bool,
    epoch: u64,
    ids: Cell<u128>,
    state: RefCell<(&'a mut Events, &'a mut Vec<Event>)>,
}

impl Node<'_> {
    fn note(&self, event: Event, outcome: Result<(), Failure>) {
        let before = self.state.borrow_mut().0[usize::from(event) - 1]
            .1
            .replace(outcome);
        assert_eq!(before, None, "an event has one outcome");
    }
}

impl Outlet<User, Event> for Node<'_> {
    type Reason = ();

    fn is_replayable(&self) -> bool {
        self.is_replayable
    }

    fn epoch(&self) -> Option<u64> {
        self.is_replayable.then_some(self.epoch)
    }

    fn duplicate_window(&self) -> Duration {
        WINDOW
    }

    fn message_id(&self) -> u128 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    fn len_of(&self, _: &Item<Event>) -> usize {
        1
    }

    fn show(&self, _: &User, event: &Event, _: u64) -> bool {
        self.state.borrow_mut().1.push(*event);
        true
    }

    fn published(&self, what: What<Event>) {
        if let What::Event(event) = what {
            self.note(event, Ok(()));
        }
    }

    fn failed(&self, event: Event, reason: Failure) {
        self.note(event, Err(reason));
    }

    fn refused(&self, _: &User, (): &()) {}
}

impl State {
    fn with<R>(
        &mut self,
        is_replayable: bool,
        f: impl FnOnce(&mut Backlog<User, Event>, Duration, &Node<'_>) -> R,
    ) -> R {
        let node = Node {
            is_replayable,
            epoch: self.epoch,
            ids: Cell::new(self.ids),
            state: RefCell::new((&mut self.events, &mut self.shown)),
        };
        let result = f(&mut self.backlog, self.now, &node);
        self.ids = node.ids.get();
        result
    }

    fn broadcast(&mut self, user: User, has_room: bool, is_replayable: bool) {
        self.events.push((user, None));
        let is_lost = |entry: &Entry| *entry == Entry::Lost;
        self.before.push(self.entries(user).filter(is_lost).count());
        let event = self.events.len() as Event;
        match has_room {
            true => self.with(is_replayable, |backlog, _, node| {
                backlog.fill([(user, What::Event(event))], node);
            }),
            false => {
                self.events[usize::from(event) - 1].1 = Some(Err(Failure::Refused));
                self.with(is_replayable, |backlog, _, node| {
                    backlog.fill([(user, What::Lost(Some(1)))], node);
                });
            }
        }
    }

    fn call(&mut self, is_replayable: bool) {
        self.call = self.with(is_replayable, |backlog, now, node| {
            backlog.resume(now);
            backlog.batch(now, node)
        });
        let batches = self.call.iter().flat_map(|batch| &batch.items);
        for (_, items) in batches {
            let losses: Vec<_> = items
                .iter()
                .map(|item| matches!(item.what, What::Lost(_)))
                .collect();
            assert!(
                !losses.windows(2).any(|two| two == [true, true]),
                "one loss"
            );
        }
    }

    /// The engine takes a message, unless it recognizes it.
    fn append(&mut self, user: User, item: &Item<Event>, is_replayable: bool) {
        let id = item.id.expect("what is in a batch has one");
        if is_replayable && self.known.contains_key(&id) {
            return;
        }
        self.known.insert(id, self.log.len());
        let entry = match item.what {
            What::Event(event) => Entry::Event(event),
            What::Lost(_) => Entry::Lost,
        };
        self.log.push((user, entry));
    }

    /// The call is answered. `fate` says what becomes of each of its messages.
    fn answer(
        &mut self,
        is_replayable: bool,
        fate: impl Fn(usize) -> Fate,
        is_known: Option<bool>,
    ) {
        let batch = self.call.take().expect("something is under way");
        let items = batch.items.clone().into_iter();
        let items = items.flat_map(|(user, items)| items.into_iter().map(move |item| (user, item)));
        let mut outcomes = Vec::new();
        for (index, (user, item)) in items.enumerate() {
            let fate = fate(index);
            if matches!(fate, Fate::Accepted | Fate::Unacknowledged) {
                self.append(user, &item, is_replayable);
            }
            outcomes.push(match fate {
                Fate::Accepted => Outcome::Accepted,
                Fate::RefusedForNow | Fate::RefusedForGood => Outcome::Refused {
                    permanent: fate == Fate::RefusedForGood,
                    reason: (),
                },
                Fate::Unacknowledged | Fate::Lost => Outcome::Unknown,
            });
        }
        let answer = match is_known {
            None => Answer::Outcomes(outcomes),
            Some(true) => Answer::Unavailable,
            Some(false) => Answer::Failed,
        };
        self.with(is_replayable, |backlog, now, node| {
            backlog.settle(now, batch, answer, node);
        });
    }

    fn entries(&self, user: User) -> impl Iterator<Item = Entry> {
        let entries = self.log.iter().filter(move |(whose, _)| *whose == user);
        entries.map(|(_, entry)| *entry)
    }

    fn place(&self, user: User, event: Event) -> Option<usize> {
        self.entries(user)
            .position(|entry| entry == Entry::Event(event))
    }

    /// Whether each event of a user is there once at most, and behind those that were broadcast before.
    fn is_in_order(&self, user: User) -> bool {
        let events = self.entries(user).filter_map(|entry| match entry {
            Entry::Event(event) => Some(event),
            Entry::Lost => None,
        });
        events.is_sorted_by(|one, other| one < other)
    }

    /// Whether what was said of each event is true.
    fn are_outcomes_true(&self) -> bool {
        self.events.iter().zip(1..).all(|((user, outcome), event)| {
            let is_in = self.place(*user, event).is_some();
            match outcome {
                None => true,
                Some(Ok(())) => is_in || usize::from(event) <= self.excused,
                Some(Err(Failure::Unconfirmed)) => true,
                Some(Err(_)) => !is_in,
            }
        })
    }

    /// Whether each event that is not in the log is told there, in a log between those before it and those behind it.
    fn is_told(&self, is_replayable: bool) -> bool {
        self.events.iter().zip(1..).all(|((user, outcome), event)| {
            if *outcome == Some(Ok(())) || usize::from(event) <= self.excused {
                return true;
            }
            let entries: Vec<_> = self.entries(*user).collect();
            // A stream that began just before it is told as well.
            let losses = entries
                .iter()
                .zip(0..)
                .filter(|(entry, _)| **entry == Entry::Lost);
            let mut losses = losses
                .map(|(_, at)| at)
                .skip(self.before[usize::from(event) - 1]);
            let before = |entry: &Entry| matches!(entry, Entry::Event(other) if *other < event);
            let behind = |entry: &Entry| matches!(entry, Entry::Event(other) if *other > event);
            let first = entries.iter().rposition(before).map_or(0, |at| at + 1);
            let end = match is_replayable {
                true => entries.iter().position(behind).unwrap_or(entries.len()),
                // Nobody promises an order between events and gaps.
                false => entries.len(),
            };
            losses.any(|at| (first..end).contains(&at))
        })
    }
}

impl Publishing {
    /// Lets faults end, and everything be published.
    fn settle(&self, state: &mut State) -> bool {
        for _ in 0..100 {
            if state.call.is_some() {
                state.answer(self.is_replayable, |_| Fate::Accepted, None);
            }
            let (is_empty, due) = (state.backlog.is_empty(), state.backlog.due());
            if is_empty {
                return true;
            }
            if let Some(due) = due.filter(|_| !state.backlog.has_turns()) {
                state.now = state.now.max(due);
            }
            state.call(self.is_replayable);
            if let (None, Some(due)) = (&state.call, due) {
                state.now = state.now.max(due);
            }
        }
        false
    }
}

impl Model for Publishing {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            backlog: Backlog::new(),
            call: None,
            now: Duration::ZERO,
            ids: 0,
            epoch: 1,
            log: Vec::new(),
            known: BTreeMap::new(),
            events: Vec::new(),
            before: Vec::new(),
            excused: 0,
            shown: Vec::new(),
            left: self.budget,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let left = state.left;
        for user in &self.users {
            steps.extend((left.events > 0).then_some(Step::Broadcast(*user)));
            steps.extend((left.full > 0).then_some(Step::Full(*user)));
            steps.extend((left.taken_back > 0).then_some(Step::TakeBack(*user)));
        }
        match &state.call {
            None => steps.extend(state.backlog.has_turns().then_some(Step::Call)),
            Some(batch) => {
                steps.push(Step::Answer(0, Fate::Accepted));
                if left.faults > 0 {
                    let count = batch.items.iter().map(|(_, items)| items.len()).sum();
                    let mut fates = vec![
                        Fate::RefusedForNow,
                        Fate::RefusedForGood,
                        Fate::Unacknowledged,
                        Fate::Lost,
                    ];
                    for index in 0..count {
                        steps.extend(fates.drain(..).map(|fate| Step::Answer(index, fate)));
                        fates.extend([Fate::RefusedForGood, Fate::Unacknowledged]);
                    }
                    steps.extend((0..=count).map(Step::Fail));
                    steps.push(Step::Unavailable);
                }
            }
        }
        if state.backlog.due().is_some() {
            steps.push(Step::Due);
            steps.push(Step::Hurry);
        }
        if left.replaced > 0 {
            steps.extend([Step::Replace(0), Step::Replace(1)]);
        }
        // A call does not take that long.
        let may_wait = left.waits > 0 && state.call.is_none();
        steps.extend(may_wait.then_some(Step::Wait));
        if left.apart > 0 {
            steps.extend([Step::Apart(true), Step::Apart(false)]);
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let is_replayable = self.is_replayable;
        let mut next = before.clone();
        let state = &mut next;
        match step {
            Step::Broadcast(user) => {
                state.left.events -= 1;
                state.broadcast(user, true, is_replayable);
            }
            Step::Full(user) => {
                state.left.full -= 1;
                state.broadcast(user, false, is_replayable);
            }
            Step::Call => state.call(is_replayable),
            Step::Answer(at, fate) => {
                state.left.faults -= u8::from(fate != Fate::Accepted);
                let fate = |index| if index == at { fate } else { Fate::Accepted };
                state.answer(is_replayable, fate, None);
            }
            Step::Unavailable => {
                state.left.faults -= 1;
                state.answer(is_replayable, |_| Fate::Lost, Some(true));
            }
            Step::Fail(taken) => {
                state.left.faults -= 1;
                let fate = |index| match index < taken {
                    true => Fate::Unacknowledged,
                    false => Fate::Lost,
                };
                state.answer(is_replayable, fate, Some(false));
            }
            Step::Due => {
                state.now = state
                    .now
                    .max(state.backlog.due().expect("something is due"));
                let now = state.now;
                state.backlog.resume(now);
            }
            Step::Hurry => {
                let now = state.now;
                state.backlog.hurry(now);
                state.backlog.resume(now);
            }
            Step::Replace(lacks) => {
                state.left.replaced -= 1;
                state.epoch += 1;
                let end = state.log.len().saturating_sub(lacks);
                state.log.truncate(end);
                state.before.fill(0);
                state.known.retain(|_, at| *at < end);
                state.excused = state.events.len();
            }
            Step::Wait => {
                state.left.waits -= 1;
                state.now += WINDOW;
                state.known.clear();
            }
            Step::Apart(is_apart) => {
                state.left.apart -= 1;
                state.with(is_replayable, |backlog, _, node| {
                    backlog.set_apart(is_apart, node);
                });
            }
            Step::TakeBack(user) => {
                state.left.taken_back -= 1;
                let now = state.now;
                state.backlog.lose(now, [user]);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "a user's events are in their order, each once",
                |it: &Self, state: &State| it.users.iter().all(|user| state.is_in_order(*user)),
            ),
            Property::always(
                "what is said of an event is true",
                |_: &Self, state: &State| state.are_outcomes_true(),
            ),
            Property::always("an event is shown once", |_: &Self, state: &State| {
                let mut shown = state.shown.clone();
                shown.sort_unstable();
                shown.dedup();
                shown.len() == state.shown.len()
            }),
            Property::always(
                "each event is in the log or told there once faults stop",
                |it: &Self, state: &State| {
                    let mut state = state.clone();
                    it.settle(&mut state)
                        && state.events.iter().all(|(_, outcome)| outcome.is_some())
                        && state.is_told(it.is_replayable)
                        && it.users.iter().all(|user| state.is_in_order(*user))
                },
            ),
        ]
    }
}

#[test]
fn a_log_takes_events() {
    for (users, events, faults) in [(vec![1], 3, 3), (vec![1, 2], 3, 1)] {
        let publishing = Publishing {
            is_replayable: true,
            users,
            budget: Budget {
                events,
                full: 1,
                faults,
                ..Budget::default()
            },
        };
        check("a log takes events", publishing, |_| {});
    }
}

#[test]
fn a_log_is_replaced_while_events_wait() {
    let publishing = Publishing {
        is_replayable: true,
        users: vec![1],
        budget: Budget {
            events: 2,
            faults: 2,
            replaced: 1,
            waits: 1,
            apart: 3,
            ..Budget::default()
        },
    };
    check("a log is replaced while events wait", publishing, |_| {});
}

#[test]
fn without_a_log_nothing_is_published_twice() {
    let publishing = Publishing {
        is_replayable: false,
        users: vec![1],
        budget: Budget {
            events: 2,
            full: 1,
            faults: 2,
            taken_back: 1,
            ..Budget::default()
        },
    };
    check("without a log", publishing, |_| {});
}

#[test]
fn losses_that_follow_each_other_are_one() {
    let publishing = Publishing {
        is_replayable: false,
        users: vec![1],
        budget: Budget {
            events: 1,
            full: 2,
            faults: 2,
            taken_back: 1,
            ..Budget::default()
        },
    };
    check("losses", publishing, |_| {});
}
