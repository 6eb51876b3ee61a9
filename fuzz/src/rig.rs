//! A real broadcaster beside the model: both are told the same, and have to show the same.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tidings::{Data, EncodeError, GenericBroadcaster, LastEventId, Meta, Subscription, ToSse};
use tokio::runtime::Runtime;
use tokio::time::{Instant, advance};
use tokio_stream::Stream;

use crate::model::{Came, Gap, Model, Place, Polled, Restart, UserView, View};
use crate::script::{Form, Operation, Policy, Script, Settings, Token, USERS};
use crate::words::{
    build, connection_id, counted_of, id_in, policy_of, reason_of, refused_of, user_of,
};

const NAMES: [&str; USERS] = ["ann", "bob", ""];
/// Ends a restart id; alone where there is no history.
const RESTART: &str = "~";
/// More would only take long.
const MOST_OPERATIONS: usize = 300;
const MOST_EVENTS: u64 = 3000;

/// Runs a script on both.
///
/// # Panics
///
/// When the broadcaster does something else than the model.
pub fn run(script: &Script) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets");
    // Whoever looks at the clock in here sees the one that stands still.
    let _entered = runtime.enter();
    let mut rig = Rig::new(&runtime, &script.settings);
    for operation in script.operations.iter().take(MOST_OPERATIONS) {
        if !rig.apply(operation) {
            break;
        }
        rig.compare();
    }
    rig.end();
}

/// An event: its number, something to make it larger, and a key.
struct Event {
    data: String,
    key: Option<u8>,
    is_broken: bool,
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

impl ToSse for Event {
    fn meta(&self) -> Meta<'_> {
        let mut meta = Meta::default();
        meta.key = self.key.map(|key| KEYS[usize::from(key)]);
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        if self.is_broken {
            return Err(EncodeError::other("broken"));
        }
        data.text(&self.data);
        Ok(())
    }
}

/// Says whether a stream was woken since it was polled.
#[derive(Default)]
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Reader {
    subscription: Subscription,
    alarm: Arc<Alarm>,
    /// It was told that there is nothing yet.
    waits: bool,
}

/// What a client comes with, and whether it knows that events are missing.
type Meaning = (Came, bool);

struct Rig<'a> {
    model: Model,
    hub: GenericBroadcaster<Event>,
    readers: BTreeMap<usize, Reader>,
    opened: usize,
    events: u64,
    /// Every id that a client was given, and what it means.
    ids: Vec<(String, Meaning)>,
    /// The epoch of each channel.
    epochs: HashMap<usize, String>,
    shutdown: Option<(Pin<Box<dyn Future<Output = usize>>>, u64)>,
    runtime: &'a Runtime,
}

impl<'a> Rig<'a> {
    fn new(runtime: &'a Runtime, settings: &Settings) -> Self {
        Self {
            model: Model::new(settings.clone()),
            hub: build(settings),
            readers: BTreeMap::new(),
            opened: 0,
            events: 0,
            ids: Vec::new(),
            epochs: HashMap::new(),
            shutdown: None,
            runtime,
        }
    }

    /// `false` if the model cannot say what comes next.
    fn apply(&mut self, operation: &Operation) -> bool {
        match operation {
            Operation::Open {
                user,
                connection,
                comes_with,
                policy,
                deadline,
            } => {
                let connection = connection % 5;
                self.open(user_of(*user), connection, comes_with, *policy, *deadline);
            }
            Operation::Broadcast {
                user,
                times,
                filling,
                key,
            } => {
                for _ in 0..=times % 64 {
                    self.broadcast(user_of(*user), *filling, key.map(|key| key % 4));
                }
            }
            Operation::Fail { user } => self.fail(user_of(*user)),
            Operation::Poll { stream, times } => {
                if let Some(stream) = self.pick(*stream) {
                    (0..=times % 64).for_each(|_| self.poll(stream));
                }
            }
            Operation::Drop { stream } => {
                if let Some(stream) = self.pick(*stream) {
                    self.drop_stream(stream);
                }
            }
            Operation::Unregister { user, connection } => {
                let (user, connection) = (user_of(*user), connection % 5);
                let found = self.hub.unregister(NAMES[user], &connection_id(connection));
                assert_eq!(found, self.model.unregister(user, connection), "unregister");
            }
            Operation::Disconnect { user } => {
                let count = self.hub.disconnect_user(NAMES[user_of(*user)]);
                assert_eq!(count, self.model.disconnect(user_of(*user)), "disconnect");
            }
            Operation::Drain { user } => {
                let count = self.hub.drain_user(NAMES[user_of(*user)]);
                assert_eq!(count, self.model.drain_user(user_of(*user)), "drain");
            }
            Operation::Forget { user } => {
                let count = self.hub.forget(NAMES[user_of(*user)]);
                assert_eq!(count, self.model.forget(user_of(*user)), "forget");
            }
            Operation::Sweep => return self.sweep(),
            Operation::Advance { millis } => self.advance(u64::from(*millis) % 4096 + 1),
            Operation::Shutdown { over } => self.begin_shutdown(u64::from(*over) * 8),
            Operation::Abandon => self.shutdown = None,
        }
        true
    }

    fn pick(&self, choice: u8) -> Option<usize> {
        let choice = usize::from(choice) % self.readers.len().max(1);
        self.readers.keys().nth(choice).copied()
    }

    fn open(
        &mut self,
        user: usize,
        connection: u8,
        comes_with: &Token,
        policy: Option<Policy>,
        deadline: Option<u8>,
    ) {
        let (id, meaning) = self.id_of(comes_with);
        let number = self.opened;
        let deadline = deadline.map(u64::from);
        let opened = self
            .hub
            .resume_as(NAMES[user], connection_id(connection), &id);
        let expected = self
            .model
            .open(number, (user, connection), meaning, policy, deadline);
        let mut subscription = match (opened, expected) {
            (Ok(subscription), Ok(())) => subscription,
            (Err(refused), Err(expected)) => return assert_eq!(refused_of(refused), expected),
            (opened, expected) => panic!("opened: {opened:?}, expected: {expected:?}"),
        };
        self.opened += 1;
        let cursor = subscription.cursor();
        let place = self.model.cursor(number, meaning.0);
        assert_eq!(cursor.is_some(), place.is_some(), "a cursor");
        if let (Some(cursor), Some(place)) = (cursor, place) {
            self.learn(&cursor, place);
        }
        if let Some(policy) = policy {
            subscription = subscription.lag_policy(policy_of(policy));
        }
        if let Some(deadline) = deadline {
            subscription = subscription.deadline(Instant::now() + Duration::from_millis(deadline));
        }
        let alarm = Arc::default();
        self.readers.insert(
            number,
            Reader {
                subscription,
                alarm,
                waits: false,
            },
        );
    }

    /// What a client says, and what it means.
    fn id_of(&self, token: &Token) -> (LastEventId, Meaning) {
        const UNKNOWN: Meaning = (Came::Unknown, false);
        let seen = |choice: &u8| self.ids.get(usize::from(*choice) % self.ids.len().max(1));
        match token {
            Token::Nothing => (LastEventId::none(), (Came::Fresh, false)),
            Token::Garbage(text) => {
                let meaning = match text.as_str() {
                    "" => (Came::Fresh, false),
                    RESTART => (Came::Fresh, true),
                    _ => UNKNOWN,
                };
                (LastEventId::new(text), meaning)
            }
            Token::Seen(choice) | Token::Moved { seen: choice, .. } => {
                let Some((id, meaning)) = seen(choice) else {
                    return (LastEventId::unknown(), UNKNOWN);
                };
                let (Token::Moved { offset, form, .. }, (Came::After(place), _)) = (token, meaning)
                else {
                    return (LastEventId::new(id), *meaning);
                };
                let came = Came::After(Place {
                    offset: u64::from(*offset),
                    ..*place
                });
                let epoch = &self.epochs[&place.channel];
                let (text, meaning) = match form {
                    Form::Plain => (format!("{epoch}-{offset}"), (came, false)),
                    Form::Padded => (format!("{epoch}-0{offset}"), UNKNOWN),
                    Form::Restart => (format!("{epoch}-{offset}~"), (came, true)),
                    Form::RestartTwice => (format!("{epoch}-{offset}~~"), UNKNOWN),
                    Form::Longer => (format!("{epoch}-{offset}.{epoch}.7"), UNKNOWN),
                };
                (LastEventId::new(&text), meaning)
            }
        }
    }

    /// A client was given an id, which has to be that of this place.
    fn learn(&mut self, id: &str, place: Place) {
        let (epoch, offset) = id.split_once('-').expect("an epoch and an offset");
        assert_eq!(offset, place.offset.to_string(), "the offset");
        let is_new = !self.epochs.contains_key(&place.channel);
        if is_new {
            assert!(
                self.epochs.values().all(|other| other != epoch),
                "two epochs are the same"
            );
            self.epochs.insert(place.channel, epoch.to_owned());
        }
        assert_eq!(self.epochs[&place.channel], epoch, "the epoch");
        self.ids.push((id.to_owned(), (Came::After(place), false)));
    }

    /// A stream that ends at a gap leaves an id behind for the next one.
    fn check_restart(&mut self, number: usize) {
        let id = self.readers[&number].subscription.restart_id();
        let expected = self.model.restart(number);
        assert_eq!(id.is_some(), expected.is_some(), "a restart id");
        let (Some(id), Some(Restart(place))) = (id, expected) else {
            return;
        };
        let before = id.strip_suffix(RESTART).expect("a restart id");
        self.check_id(Some(before).filter(|id| !id.is_empty()), place);
        let came = place.map_or(Came::Fresh, Came::After);
        self.ids.push((id.to_string(), (came, true)));
    }

    fn broadcast(&mut self, user: usize, filling: u8, key: Option<u8>) {
        if self.events == MOST_EVENTS {
            return;
        }
        self.events += 1;
        let data = format!("{}{}", self.events, ".".repeat(filling.into()));
        let expected = self.model.broadcast(user, self.events, data.len(), key);
        let event = Event {
            data,
            key,
            is_broken: false,
        };
        let reached = self
            .hub
            .broadcast(NAMES[user], &event)
            .expect("it can be encoded");
        assert_eq!(reached, expected, "reached");
    }

    fn fail(&mut self, user: usize) {
        let is_tried = self.model.broadcast_broken(user);
        let event = Event {
            data: String::new(),
            key: None,
            is_broken: true,
        };
        let sent = self.hub.broadcast(NAMES[user], &event);
        assert_eq!(sent.is_err(), is_tried, "an event that cannot be encoded");
    }

    fn poll(&mut self, number: usize) {
        let expected = self.model.poll(number);
        let reader = self.readers.get_mut(&number).expect("it was picked");
        reader.alarm.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(reader.alarm.clone());
        let polled = Pin::new(&mut reader.subscription).poll_next(&mut Context::from_waker(&waker));
        reader.waits = expected == Polled::Pending;
        match (polled, expected) {
            (Poll::Pending, Polled::Pending) | (Poll::Ready(None), Polled::End) => {}
            (Poll::Ready(Some(Ok(frame))), Polled::Event { number, place }) => {
                let data = frame.data();
                assert_eq!(data.trim_end_matches('.'), number.to_string(), "the event");
                self.check_id(id_in(&frame), place);
            }
            (Poll::Ready(Some(Err(gap))), Polled::Gap(expected)) => {
                let Gap {
                    reason,
                    missed,
                    place,
                } = expected;
                assert_eq!(
                    (reason_of(gap.reason), gap.missed),
                    (reason, missed),
                    "the gap"
                );
                self.check_id(gap.id().as_deref(), place);
            }
            (polled, expected) => panic!("polled: {polled:?}, expected: {expected:?}"),
        }
        self.check_restart(number);
    }

    fn check_id(&mut self, id: Option<&str>, place: Option<Place>) {
        assert_eq!(id.is_some(), place.is_some(), "an id");
        if let (Some(id), Some(place)) = (id, place) {
            self.learn(id, place);
        }
    }

    fn drop_stream(&mut self, number: usize) {
        self.model.drop_stream(number);
        self.readers.remove(&number);
    }

    fn sweep(&mut self) -> bool {
        let expected = self.model.sweep();
        let count = self.hub.sweep();
        if let Some(expected) = expected {
            assert_eq!(count, expected, "swept");
        }
        expected.is_some()
    }

    fn advance(&mut self, millis: u64) {
        self.runtime
            .block_on(advance(Duration::from_millis(millis)));
        self.model.advance(millis);
        self.poll_shutdown();
    }

    /// Begins a shutdown and goes on to where all have been asked to end, each at a moment that chance chooses.
    fn begin_shutdown(&mut self, over: u64) {
        if self.shutdown.is_some() {
            return;
        }
        let hub = self.hub.clone();
        let ends = self.model.now() + over;
        let shutdown = async move { hub.shutdown(Duration::from_millis(over)).await };
        self.shutdown = Some((Box::pin(shutdown), ends));
        self.model.begin_shutdown();
        self.poll_shutdown();
        if self.shutdown.is_some() {
            self.advance(over * 3 / 4 + 1);
        }
    }

    fn poll_shutdown(&mut self) {
        let Some((shutdown, ends)) = &mut self.shutdown else {
            return;
        };
        let polled = shutdown
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        let must_end = self.model.now() >= *ends;
        match polled {
            Poll::Pending => assert!(!must_end, "a shutdown takes too long"),
            Poll::Ready(cut) => {
                assert!(
                    must_end || self.model.connections() == 0,
                    "a shutdown ends early"
                );
                assert_eq!(cut, self.model.end_shutdown(), "cut");
                self.shutdown = None;
            }
        }
    }

    /// Everything that can be seen is as the model has it, and nobody sleeps who has something to do.
    fn compare(&self) {
        assert_eq!(self.view(), self.model.view());
        for (number, reader) in &self.readers {
            let is_woken = reader.alarm.0.load(Ordering::Relaxed);
            let oversleeps = reader.waits && !is_woken && self.model.has_news(*number);
            assert!(!oversleeps, "stream {number} was not woken");
            let stands = tidings::fuzzing::place(&reader.subscription);
            let expected = self.model.stands(*number);
            let offset = expected.map(|place| place.offset);
            assert_eq!(stands.map(|at| at.offset), offset, "where a stream is");
            let epoch = expected.and_then(|place| self.epochs.get(&place.channel));
            if let (Some(at), Some(epoch)) = (stands, epoch) {
                assert_eq!(format!("{:016x}", at.epoch), *epoch, "the epoch");
            }
        }
    }

    fn view(&self) -> View {
        let stats = self.hub.stats();
        View {
            users: stats.users,
            away: stats.away,
            away_bytes: stats.away_bytes,
            history_bytes: stats.history_bytes,
            connections: stats.connections,
            each: NAMES.map(|user| {
                let info = self.hub.connection_info_of(user);
                assert_eq!(
                    info.len(),
                    self.hub.connection_count(user),
                    "connections of a user"
                );
                let connections = info.iter().map(|info| {
                    assert_eq!(&*info.user, user, "whose connection it is");
                    let connection = info.connection.parse().expect("one of ours");
                    (
                        connection,
                        info.age.as_millis() as u64,
                        info.lagged,
                        info.behind,
                    )
                });
                UserView {
                    lagged: self.hub.lagged(user),
                    connections: connections.collect(),
                }
            }),
            counted: counted_of(&stats),
        }
    }

    /// When all have left and all is forgotten, nothing is left.
    fn end(mut self) {
        self.shutdown = None;
        self.readers.clear();
        for user in NAMES {
            self.hub.forget(user);
        }
        let stats = self.hub.stats();
        let left = (
            stats.users,
            stats.away,
            stats.away_bytes,
            stats.history_bytes,
        );
        assert_eq!((left, stats.connections), ((0, 0, 0, 0), 0), "what is left");
    }
}
