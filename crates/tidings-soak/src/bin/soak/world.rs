//! What all clients of the driver share: the servers, what is done to them, and the account of it all.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::hubs;
use crate::server::{STALL_LIMIT, Settings};
use crate::support::process::{Process, part_command};

/// So many violations are shown.
const SHOWN: usize = 20;

/// How often the driver looks whether it is in time.
const TICK: Duration = Duration::from_millis(50);

/// Of each topic, the number of its last event.
pub(crate) type Heads = Arc<HashMap<String, u64>>;

/// What the clients are to do.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Whatever they please.
    Run,
    /// Nothing is broadcast any more: who is there stays until everything has come, then goes. For each server.
    Settle([Heads; 2]),
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) cycle: AtomicUsize,
    /// The first stays all the time, the other is ended again and again.
    pub(crate) servers: [Server; 2],
    /// Ids of all kinds of users, and whose they are.
    foreign: Mutex<VecDeque<(String, String)>>,
    tally: Mutex<BTreeMap<&'static str, u64>>,
    /// When the driver itself was last held up for long, in milliseconds since the start.
    late_at: AtomicU64,
    start: Instant,
    violations: AtomicUsize,
}

impl World {
    pub(crate) fn new(seed: u64, servers: [Settings; 2]) -> Self {
        Self {
            seed,
            cycle: AtomicUsize::new(0),
            servers: servers.map(Server::start),
            foreign: Mutex::default(),
            tally: Mutex::default(),
            late_at: AtomicU64::new(0),
            start: Instant::now(),
            violations: AtomicUsize::new(0),
        }
    }

    /// Notes when the driver is held up by other things on the machine for so long that the server may take clients that
    /// read for some that do not. Ends with the driver.
    pub(crate) async fn watch_lateness(self: Arc<Self>) {
        loop {
            let before = Instant::now();
            sleep(TICK).await;
            if before.elapsed() > TICK + STALL_LIMIT / 2 {
                let now = self.start.elapsed().as_millis() as u64;
                self.late_at.store(now, Ordering::Relaxed);
                self.count("times that the driver was late", 1);
            }
        }
    }

    /// Whether that was after this.
    pub(crate) fn was_late_since(&self, then: Instant) -> bool {
        let then = then.duration_since(self.start).as_millis() as u64;
        self.late_at.load(Ordering::Relaxed) > then
    }

    pub(crate) fn violation(&self, who: &str, what: &str, recent: &str) {
        if self.violations.fetch_add(1, Ordering::Relaxed) < SHOWN {
            let (seed, cycle) = (self.seed, self.cycle.load(Ordering::Relaxed));
            println!("violation: seed {seed}, cycle {cycle}, {who}: {what}");
            if !recent.is_empty() {
                println!("  the last that came: {recent}");
            }
        }
    }

    pub(crate) fn violations(&self) -> usize {
        self.violations.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, what: &'static str, times: u64) {
        *lock(&self.tally).entry(what).or_default() += times;
    }

    pub(crate) fn tally(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.tally).clone()
    }

    /// Remembers an id for others to come with.
    pub(crate) fn lend(&self, topic: String, id: String) {
        let mut foreign = lock(&self.foreign);
        if foreign.len() == 64 {
            foreign.pop_front();
        }
        foreign.push_back((topic, id));
    }

    /// An id that is somebody else's.
    pub(crate) fn foreign(&self, topic: &str) -> Option<String> {
        let foreign = lock(&self.foreign);
        let mut others = foreign.iter().filter(|(of, _)| of != topic);
        others.next_back().map(|(_, id)| id.clone())
    }
}

/// A server, in whichever process it is at present.
pub(crate) struct Server {
    settings: Settings,
    process: Mutex<Process>,
    addr: Mutex<SocketAddr>,
    pid: AtomicU32,
    pub(crate) life: Event,
    /// What is done to the users of `broadcaster/user`.
    users: HashMap<String, User>,
    /// How many events of the process have been counted.
    events: AtomicU64,
    /// While it is ended without anybody being broadcast to: what the last events were.
    farewell: Mutex<Option<Heads>>,
}

#[derive(Default)]
pub(crate) struct User {
    /// Connections are ended from outside.
    pub(crate) ended: Event,
    /// The history is forgotten.
    pub(crate) forgotten: Event,
}

/// Something that happens now and then, and takes a while.
#[derive(Default)]
pub(crate) struct Event(AtomicU64);

impl Event {
    /// Odd while it happens.
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn turn(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether it has happened, or began to, since it was looked at.
    pub(crate) fn has_happened_since(&self, then: u64) -> bool {
        then % 2 == 1 || self.now() != then
    }
}

impl Server {
    fn start(settings: Settings) -> Self {
        let process = Process::start(part_command(settings.args()));
        let hubs = hubs::ALL
            .iter()
            .filter(|hub| hub.has_crowd(settings.has_nodes));
        let users = hubs.flat_map(|hub| {
            let user = move |n: usize| (format!("{}/{n}", hub.name), User::default());
            (0..settings.users).map(user)
        });
        Self {
            addr: Mutex::new(process.addr()),
            pid: AtomicU32::new(process.pid()),
            users: users.collect(),
            life: Event::default(),
            farewell: Mutex::default(),
            events: AtomicU64::new(0),
            process: Mutex::new(process),
            settings,
        }
    }

    /// In a new process, behind the one that has ended.
    pub(crate) fn start_again(&self, process: &mut Process) {
        *process = Process::start(part_command(self.settings.args()));
        *lock(&self.addr) = process.addr();
        self.pid.store(process.pid(), Ordering::Relaxed);
        self.events.store(0, Ordering::Relaxed);
    }

    /// Adds to the account what was broadcast since the last time.
    pub(crate) fn count_events(&self, world: &World) {
        tokio::task::block_in_place(|| self.count_events_of(world, &mut self.process()));
    }

    pub(crate) fn count_events_of(&self, world: &World, process: &mut Process) {
        let events = heads(&process.ask("heads")).values().sum();
        let counted = self.events.swap(events, Ordering::Relaxed);
        world.count("events broadcast", events - counted);
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        *lock(&self.addr)
    }

    /// Also of one that somebody waits for.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub(crate) fn process(&self) -> MutexGuard<'_, Process> {
        lock(&self.process)
    }

    pub(crate) fn user(&self, path: &str) -> Option<&User> {
        self.users.get(path)
    }

    pub(crate) fn users(&self) -> usize {
        self.settings.users
    }

    pub(crate) fn has_nodes(&self) -> bool {
        self.settings.has_nodes
    }

    /// Asks the process, which answers in no time.
    pub(crate) fn ask(&self, question: &str) -> String {
        tokio::task::block_in_place(|| self.process().ask(question))
    }

    pub(crate) fn ask_number(&self, question: &str) -> u64 {
        let answer = self.ask(question);
        answer
            .parse()
            .unwrap_or_else(|_| panic!("{question}: {answer}"))
    }

    /// Of each topic, the number of its last event. They are the last only after a pause.
    pub(crate) fn heads(&self) -> Heads {
        heads(&self.ask("heads"))
    }

    pub(crate) fn farewell(&self) -> Option<Heads> {
        lock(&self.farewell).clone()
    }

    pub(crate) fn set_farewell(&self, heads: Option<Heads>) {
        *lock(&self.farewell) = heads;
    }
}

pub(crate) fn heads(answer: &str) -> Heads {
    let head = |word: &str| {
        let (topic, number) = word.split_once('=').expect("a topic and its number");
        (topic.to_owned(), number.parse().expect("a number"))
    };
    Arc::new(answer.split(' ').map(head).collect())
}
