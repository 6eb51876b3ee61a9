//! Drills: one thing at a time, of users who have nobody else, so that it can be said to the number what must come of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::hubs::{FEW, Hub};
use crate::tab::{Opened, Tab, Wish};
use crate::wire::{PATIENCE, connect, reset};
use crate::world::{Server, World};

/// Events of a flood, and their size: more than what all buffers take of a client that does not read.
const FLOOD: (usize, usize) = (12, 32_000);

type Outcome = Result<(), String>;

fn of_io(error: io::Error) -> String {
    format!("no response: {error}")
}

pub(crate) struct Drills {
    world: Arc<World>,
    number: usize,
    user: String,
    rng: Rng,
}

impl Drills {
    pub(crate) fn new(world: &Arc<World>, number: usize, rng: Rng) -> Self {
        Self {
            world: world.clone(),
            number,
            user: format!("drill-{number}"),
            rng,
        }
    }

    /// One after another, until it is over.
    pub(crate) async fn run(mut self, over: watch::Receiver<bool>) {
        while !*over.borrow() {
            let hub = ["ring", "kept", "brief", "keys"][self.rng.usize(0..4)];
            let hub = Hub::of(hub).expect("it is one of them");
            let choice = self.rng.u8(0..10);
            let start = Instant::now();
            let (name, outcome) = match choice {
                // The other users' drills leave that broadcaster alone.
                0 if self.number == 0 => {
                    ("drill: all at once over the total", self.storm_all().await)
                }
                0 | 1 => ("drill: all at once over the cap", self.storm(hub).await),
                2 => ("drill: no reading", self.stall(hub).await),
                3 if hub.is_keyed() => ("drill: too far behind", self.fall_behind(hub).await),
                3 => ("drill: a window held shut", self.hold(hub).await),
                4 => ("drill: leaving by resets", self.vanish(hub).await),
                5 => ("drill: half a request", self.half().await),
                6 => ("drill: a deadline", self.deadline(hub).await),
                7 => ("drill: a drain", self.drain_user(hub).await),
                _ => ("drill: a disconnect", self.disconnect(hub).await),
            };
            self.world.count(name, 1);
            match outcome {
                Ok(()) => {}
                // Those that were to read may have been cut for not reading.
                Err(_) if self.world.was_late_since(start) => {
                    self.world.count("drills when the driver was late", 1);
                }
                Err(what) => {
                    let who = format!("{name}, {}/{}", hub.name, self.user);
                    self.world.violation(&who, &what, "");
                }
            }
            if let Err(what) = self.is_empty(hub).await {
                let who = format!("{name}, {}/{}", hub.name, self.user);
                self.world.violation(&who, &what, "");
                return;
            }
        }
    }

    fn server(&self) -> &Server {
        &self.world.servers[0]
    }

    fn wish(&self, hub: &'static Hub) -> Wish {
        Wish::new(hub, &*self.user)
    }

    async fn open(&self, wish: &Wish) -> Result<Box<Tab>, String> {
        match Tab::open(&self.world, self.server(), wish)
            .await
            .map_err(of_io)?
        {
            Opened::Tab(tab) => Ok(tab),
            Opened::Refused(status) => Err(format!("refused with {status}, and nobody was in")),
        }
    }

    fn streams(&self, hub: &Hub) -> u64 {
        let question = format!("streams {}/{}", hub.name, self.user);
        self.server().ask_number(&question)
    }

    /// Says the number of the last event.
    fn publish(&self, hub: &Hub, (times, size): (usize, usize)) -> u64 {
        let question = format!("publish {}/{} {times} {size}", hub.name, self.user);
        self.server().ask_number(&question)
    }

    /// Waits until the user has no more streams than that.
    async fn has(&self, hub: &Hub, streams: u64) -> Outcome {
        let start = Instant::now();
        loop {
            let now = self.streams(hub);
            if now == streams {
                return Ok(());
            }
            if start.elapsed() > PATIENCE || now < streams {
                return Err(format!("{now} streams are left, and not {streams}"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn is_empty(&self, hub: &Hub) -> Outcome {
        self.has(hub, 0).await
    }

    /// Three times as many as may come in, at once. As many as may come in, do.
    async fn storm(&mut self, hub: &'static Hub) -> Outcome {
        let wishes = vec![self.wish(hub); 3 * hub.cap];
        self.rush(wishes, hub.cap, 429).await
    }

    async fn storm_all(&mut self) -> Outcome {
        let hub = Hub::of(FEW).expect("it is one of them");
        let total = hub.total.expect("it has a cap for all");
        let user = |n: usize| format!("drill-{n}");
        // Enough users that no one's cap is in the way.
        let users = 2 * total / hub.cap + 1;
        let wishes = (0..2 * total).map(|n| Wish::new(hub, user(n % users)));
        self.rush(wishes.collect(), total, 503).await?;
        let start = Instant::now();
        while (0..users).any(|n| {
            let question = format!("streams {}/{}", hub.name, user(n));
            self.server().ask_number(&question) > 0
        }) {
            if start.elapsed() > PATIENCE {
                return Err("not all have left".to_owned());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn rush(&self, wishes: Vec<Wish>, cap: usize, refusal: u16) -> Outcome {
        let opens = wishes.into_iter().map(|wish| {
            let world = self.world.clone();
            tokio::spawn(async move { Tab::open(&world, &world.servers[0], &wish).await })
        });
        let (mut tabs, mut refused) = (Vec::new(), 0);
        for open in opens.collect::<Vec<_>>() {
            match open.await.expect("it does not panic").map_err(of_io)? {
                Opened::Tab(tab) => tabs.push(tab),
                Opened::Refused(status) if status == refusal => refused += 1,
                Opened::Refused(status) => return Err(format!("refused with {status}")),
            }
        }
        match tabs.len() == cap {
            true => Ok(()),
            false => Err(format!(
                "{} came in and {refused} were refused, with a cap of {cap}",
                tabs.len()
            )),
        }
    }

    /// Clients that do not read are gone after a while, and one beside them gets everything.
    async fn stall(&mut self, hub: &'static Hub) -> Outcome {
        let mut wish = self.wish(hub);
        let mut keen = self.open(&wish).await?;
        wish.is_narrow = true;
        let mut stalled = Vec::new();
        for _ in 0..3 {
            stalled.push(self.open(&wish).await?);
        }
        let head = self.publish(hub, FLOOD);
        let read = keen.read_until(|checker| checker.lacks(head).is_none());
        read.await.map_err(|end| format!("{end:?}"))?;
        keen.count(&self.world);
        self.has(hub, 1).await
    }

    /// The same on one connection of HTTP/2.
    async fn hold(&mut self, hub: &'static Hub) -> Outcome {
        let mut wish = self.wish(hub);
        wish.http2 = true;
        wish.holds = Some(wish.request().path);
        let mut keen = self.open(&wish).await?;
        let head = self.publish(hub, FLOOD);
        let read = keen.read_until(|checker| checker.lacks(head).is_none());
        read.await.map_err(|end| format!("{end:?}"))?;
        self.has(hub, 1).await?;
        let head = self.publish(hub, (1, 100));
        let read = keen.read_until(|checker| checker.lacks(head).is_none());
        read.await.map_err(|end| format!("{end:?}"))?;
        keen.count(&self.world);
        Ok(())
    }

    /// Those of the broadcaster with less patience than the server are taken out by a sweep.
    async fn fall_behind(&mut self, hub: &'static Hub) -> Outcome {
        let mut wish = self.wish(hub);
        wish.is_narrow = true;
        let _stalled = [self.open(&wish).await?, self.open(&wish).await?];
        let (times, size) = FLOOD;
        self.publish(hub, (4 * times, size));
        self.is_empty(hub).await
    }

    async fn vanish(&mut self, hub: &'static Hub) -> Outcome {
        for n in 0..hub.cap {
            let mut wish = self.wish(hub);
            wish.http2 = n % 2 == 1;
            self.open(&wish).await?.reset();
        }
        self.is_empty(hub).await
    }

    /// A client that has sent half of a request, or nothing, is given up.
    async fn half(&mut self) -> Outcome {
        let texts: [&[u8]; 4] = [
            b"",
            b"GET /kept/0 HT",
            b"GET /kept/0 HTTP/1.1\r\nhost: te",
            b"PRI * HTTP/2.0\r\n\r\nSM",
        ];
        let text = texts[self.rng.usize(0..texts.len())];
        let mut tcp = connect(self.server().addr(), false).await.map_err(of_io)?;
        tcp.write_all(text).await.map_err(of_io)?;
        if self.rng.bool() {
            reset(tcp);
            return Ok(());
        }
        let mut answer = Vec::new();
        match timeout(PATIENCE, tcp.read_to_end(&mut answer)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("it was not given up after {PATIENCE:?}")),
        }
    }

    /// Streams end when it has come, also those that are not read.
    async fn deadline(&mut self, hub: &'static Hub) -> Outcome {
        let mut wish = self.wish(hub);
        wish.deadline = Some(Duration::from_millis(300));
        let mut keen = self.open(&wish).await?;
        wish.is_narrow = true;
        let _stalled = self.open(&wish).await?;
        keen.read_to_end().await?;
        self.is_empty(hub).await
    }

    /// What was broadcast before comes first, then the end.
    async fn drain_user(&mut self, hub: &'static Hub) -> Outcome {
        let wish = self.wish(hub);
        let mut tabs = [self.open(&wish).await?, self.open(&wish).await?];
        let head = self.publish(hub, (5, 500));
        let question = format!("drain {}/{}", hub.name, self.user);
        let drained = self.server().ask_number(&question);
        if drained != 2 {
            return Err(format!("{drained} were drained, of two"));
        }
        for tab in &mut tabs {
            tab.read_to_end().await?;
            tab.count(&self.world);
            if let Some(lacks) = tab.checker.lacks(head) {
                let recent = tab.checker.recent();
                return Err(format!("it lacks {lacks}; the last: {recent}"));
            }
        }
        Ok(())
    }

    /// They are gone at once.
    async fn disconnect(&mut self, hub: &'static Hub) -> Outcome {
        let mut wish = self.wish(hub);
        let mut tabs = [self.open(&wish).await?, self.open(&wish).await?];
        wish.is_narrow = true;
        let _stalled = self.open(&wish).await?;
        let question = format!("disconnect {}/{}", hub.name, self.user);
        let ended = self.server().ask_number(&question);
        let left = self.streams(hub);
        // Streams that notice before they are taken out leave by themselves, and are not counted.
        if ended > 3 || left > 0 {
            return Err(format!("{ended} of three were ended, {left} are left"));
        }
        for tab in &mut tabs {
            tab.read_to_end().await?;
        }
        Ok(())
    }
}
