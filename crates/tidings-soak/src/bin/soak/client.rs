//! The crowd: clients that come, read at once, slowly or not at all, leave in every way, and come back with ids of all kinds.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::checker::{Begin, Next};
use crate::hubs::{self, Hub, PAIR};
use crate::server::HOT;
use crate::tab::{End, Opened, Tab, Wish};
use crate::wire::PATIENCE;
use crate::world::{Heads, Phase, Server, World};

/// No ids of anybody.
const GARBAGE: [&[u8]; 8] = [
    b"0",
    b"-",
    b"not an id",
    b"ffffffffffffffff-1",
    b"1-2-3",
    b"0000000000000001-99999999999999999999999",
    "é漢字".as_bytes(),
    &[b'x'; 300],
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Reads what is there.
    Keen,
    /// Reads a little at a time.
    Slow,
    /// Does not read.
    Stalled,
    /// Leaves as soon as the stream has begun.
    Hasty,
}

/// What a client saw, and when.
struct Seen {
    id: String,
    next: Next,
    life: u64,
    forgotten: u64,
}

/// Waits for the pause. May be given up at any time.
async fn settled(phases: &mut watch::Receiver<Phase>) -> [Heads; 2] {
    loop {
        if let Phase::Settle(heads) = &*phases.borrow_and_update() {
            return heads.clone();
        }
        let changed = phases.changed().await;
        changed.expect("whoever says so waits for the clients");
    }
}

pub(crate) struct Client {
    world: Arc<World>,
    /// Of which server.
    at: usize,
    name: String,
    rng: Rng,
    hub: &'static Hub,
    user: usize,
    seen: Option<Seen>,
    /// An earlier one.
    older: Option<Seen>,
    phases: watch::Receiver<Phase>,
}

impl Client {
    pub(crate) fn new(
        world: &Arc<World>,
        at: usize,
        number: usize,
        phases: watch::Receiver<Phase>,
        mut rng: Rng,
    ) -> Self {
        let server = &world.servers[at];
        let hubs = hubs::ALL.iter();
        let hubs: Vec<_> = hubs
            .filter(|hub| hub.has_crowd(server.has_nodes()))
            .collect();
        let hub = hubs[rng.usize(0..hubs.len())];
        let user = rng.usize(0..server.users());
        Self {
            world: world.clone(),
            at,
            name: format!("client {number} of server {at}, {}/{user}", hub.name),
            rng,
            hub,
            user,
            seen: None,
            older: None,
            phases,
        }
    }

    /// Until everybody is to go.
    pub(crate) async fn run(mut self) {
        loop {
            let pause = Duration::from_millis(self.rng.u64(0..1500));
            select! {
                _ = settled(&mut self.phases) => return,
                () = sleep(pause) => {}
            }
            if self.visit().await.is_break() {
                return;
            }
        }
    }

    fn manner(&mut self) -> Manner {
        match self.rng.u8(0..100) {
            0..70 => Manner::Keen,
            70..82 => Manner::Slow,
            82..92 => Manner::Stalled,
            _ => Manner::Hasty,
        }
    }

    fn server(&self) -> &Server {
        &self.world.servers[self.at]
    }

    /// Comes, stays for a while, and goes. Breaks when it is time to go for good.
    async fn visit(&mut self) -> ControlFlow<()> {
        let manner = self.manner();
        if self.hub.is_node() {
            self.hub = Hub::of(PAIR[self.rng.usize(0..2)]).expect("it is one of them");
        }
        // Looked at before the request: what happens from here on may be the reason for whatever comes.
        let life = self.server().life.now();
        let user = format!("{}/{}", self.hub.name, self.user);
        let marks = |server: &Server| {
            let user = server.user(&user).expect("there are no other users");
            (user.ended.now(), user.forgotten.now())
        };
        let (ended, forgotten) = marks(self.server());
        let wish = self.wish(manner, life);
        let opened = Tab::open(&self.world, self.server(), &wish).await;
        if self.server().life.has_happened_since(life) {
            self.world.count("requests during a restart", 1);
            return ControlFlow::Continue(());
        }
        // Whether before or after the stream was let in, nobody knows.
        if forgotten % 2 == 1 || marks(self.server()).1 != forgotten {
            self.world.count("requests while the user was forgotten", 1);
            return ControlFlow::Continue(());
        }
        let mut tab = match opened {
            Ok(Opened::Tab(tab)) => tab,
            Ok(Opened::Refused(429)) => {
                self.world.count("refused, the user is full", 1);
                return ControlFlow::Continue(());
            }
            Ok(Opened::Refused(status)) => {
                let what = format!("refused with {status} by a server that is not shutting down");
                self.world.violation(&self.name, &what, "");
                return ControlFlow::Continue(());
            }
            Err(error) => {
                let what = format!("no response of a server that is there: {error}");
                self.world.violation(&self.name, &what, "");
                return ControlFlow::Continue(());
            }
        };
        let start = Instant::now();
        let end = self.stay(&mut tab, manner).await;
        tab.count(&self.world);
        if self.rng.u8(0..3) == 0 {
            self.older = self.seen.take();
        }
        if let Some((id, next)) = tab.checker.seen() {
            // A client with a `~` gets no gap, even if the id is another client's.
            if !id.ends_with('~') {
                self.world
                    .lend(format!("{}/{}", self.hub.topic, self.user), id.clone());
            }
            self.seen = Some(Seen {
                id,
                next,
                life,
                forgotten,
            });
        }
        match end {
            // One that was cut for not reading, when the driver had no time to read.
            Some(End::Broken(_)) if self.world.was_late_since(start) => {
                self.world.count("cut when the driver was late", 1);
            }
            Some(end) => self.judge(&tab, &end, &wish, manner, (life, ended)),
            None if self.rng.bool() => {
                self.world.count("left by a reset", 1);
                tab.reset();
            }
            None => self.world.count("left by closing", 1),
        }
        let is_running = matches!(*self.phases.borrow(), Phase::Run);
        match is_running {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    /// Reads until the stream ends, or it pleases the client to go, or everything has come that will.
    async fn stay(&mut self, tab: &mut Tab, manner: Manner) -> Option<End> {
        let most = if manner == Manner::Slow {
            1 << 10
        } else {
            1 << 16
        };
        let stay = match (manner, self.rng.u8(0..10)) {
            (Manner::Hasty, _) => 0,
            (_, 0..4) => self.rng.u64(0..1_000),
            (_, 4..8) => self.rng.u64(1_000..8_000),
            _ => 3_600_000,
        };
        let mut until = Instant::now() + Duration::from_millis(stay);
        let mut settling = None;
        loop {
            if let Some((head, heartbeats)) = settling {
                if tab.checker.lacks(head).is_none() && tab.checker.heartbeats > heartbeats {
                    self.world.count("streams that had everything", 1);
                    return None;
                }
            }
            select! {
                biased;
                heads = settled(&mut self.phases), if settling.is_none() => {
                    if manner == Manner::Stalled {
                        return None;
                    }
                    let topic = format!("{}/{}", self.hub.topic, self.user);
                    settling = Some((heads[self.at][&topic], tab.checker.heartbeats));
                    until = Instant::now() + PATIENCE;
                }
                () = sleep_until(until) => {
                    if let Some((head, _)) = settling {
                        let lacks = tab.checker.lacks(head);
                        let lacks = lacks.unwrap_or_else(|| "a heartbeat".to_owned());
                        return Some(End::Wrong(format!("after {PATIENCE:?} it lacks {lacks}")));
                    }
                    return None;
                }
                read = tab.read(most), if manner != Manner::Stalled => {
                    if let Err(end) = read {
                        return Some(end);
                    }
                    if manner == Manner::Slow && settling.is_none() {
                        sleep(Duration::from_millis(self.rng.u64(20..80))).await;
                    }
                }
            }
        }
    }

    /// Whether the stream had a reason to end.
    fn judge(&self, tab: &Tab, end: &End, wish: &Wish, manner: Manner, (life, ended): (u64, u64)) {
        let checker = &tab.checker;
        let wrong = |what: &str| self.world.violation(&self.name, what, &checker.recent());
        if let End::Wrong(what) = end {
            return wrong(what);
        }
        let server = self.server();
        let user = server.user(&wish.path());
        let is_ended = user.is_some_and(|user| user.ended.has_happened_since(ended));
        let may_be_cut = manner != Manner::Keen || self.user < HOT;
        if is_ended || may_be_cut || wish.deadline.is_some() || checker.may_end() {
            self.world.count("streams that were ended", 1);
            return;
        }
        if !server.life.has_happened_since(life) {
            return wrong(&format!("the stream ended for no reason, {end:?}"));
        }
        self.world.count("streams that ended by a restart", 1);
        let farewell = server.farewell();
        let Some(heads) = farewell.filter(|_| server.life.now() == life + 1) else {
            return;
        };
        match end {
            End::Complete => {
                self.world.count("farewells whole", 1);
                let head = heads[&format!("{}/{}", self.hub.topic, self.user)];
                if let Some(lacks) = checker.lacks(head) {
                    wrong(&format!("ended by a shutdown, and it lacks {lacks}"));
                }
                if !checker.has_retry {
                    wrong("ended by a shutdown without `retry:`");
                }
            }
            _ => self.world.count("farewells broken", 1),
        }
    }

    fn wish(&mut self, manner: Manner, life: u64) -> Wish {
        let (hub, rng) = (self.hub, &mut self.rng);
        let mut wish = Wish::new(hub, self.user.to_string());
        wish.policy = hub.policies[rng.usize(0..hub.policies.len())];
        wish.is_narrow = matches!(manner, Manner::Slow | Manner::Stalled);
        let deadline = || Duration::from_millis(100);
        wish.deadline = (rng.u8(0..20) == 0).then(|| deadline() * rng.u32(1..50));
        wish.http2 = manner == Manner::Keen && rng.u8(0..6) == 0;
        if wish.http2 && rng.bool() {
            wish.holds = Some(format!("/{}/{}", hub.name, rng.usize(0..HOT)));
            self.world.count("windows held shut", 1);
        }
        match manner {
            Manner::Keen => {}
            Manner::Slow => self.world.count("slow readers", 1),
            Manner::Stalled => self.world.count("stalled readers", 1),
            Manner::Hasty => self.world.count("left at once", 1),
        }
        let topic = format!("{}/{}", hub.topic, self.user);
        let choice = self.rng.u8(0..100);
        let seen = match choice {
            0..65 => self.seen.as_ref(),
            65..80 => self.older.as_ref(),
            _ => None,
        };
        let other = match choice {
            // A position in the engine's log is the same for everybody, and no secret.
            80..87 if !hub.is_node() => self.world.foreign(&topic).map(String::into_bytes),
            87..94 => Some(GARBAGE[self.rng.usize(0..GARBAGE.len())].to_vec()),
            _ => None,
        };
        let kind = match choice {
            0..65 => "came back with the last id",
            65..80 => "came back with an old id",
            80..87 => "came with somebody else's id",
            _ => "came with garbage for an id",
        };
        if let Some(seen) = seen {
            self.world.count(kind, 1);
            let forgotten = self.server().user(&wish.path());
            let is_forgotten =
                forgotten.is_some_and(|user| user.forgotten.has_happened_since(seen.forgotten));
            wish.last_event_id = Some(seen.id.clone().into_bytes());
            let is_told = seen.id.ends_with('~');
            wish.begin = match (seen.life == life, hub.forgets || is_forgotten) {
                (false, _) if is_told => Begin::Told,
                (false, _) => Begin::Unknown,
                (true, _) if is_told => Begin::After(seen.next),
                (true, false) => Begin::After(seen.next),
                (true, true) => Begin::AfterOrForgotten(seen.next),
            };
        } else if let Some(id) = other {
            self.world.count(kind, 1);
            wish.last_event_id = Some(id);
            wish.begin = Begin::Unknown;
        }
        wish
    }
}
