//! What a server takes, while clients are there and when all have gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::support::{kernel, slope};
use crate::wire::PATIENCE;
use crate::world::{Server, World};

/// What some memory may grow by, in KB.
pub(crate) struct Bound {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Sample) -> f64,
    /// Since the end of the first cycle, before which as many clients had not been there.
    allowance: f64,
    /// A minute, by a line through the cycles.
    slope: f64,
}

/// What is in use on the heap is what the server needs: a little more or less by what tables of tokio have grown to. What the
/// process has from the system is more, since glibc keeps what was freed and cuts it up differently each time.
pub(crate) const BOUNDS: [Bound; 2] = [
    Bound {
        name: "heap in use",
        of: |sample| sample.heap_kb,
        allowance: 512.0,
        slope: 32.0,
    },
    Bound {
        name: "RSS",
        of: |sample| sample.rss_kb,
        allowance: 24.0 * 1024.0,
        slope: 2560.0,
    },
];

/// So many cycles before a slope is asked for. The first third is left out of it.
const CYCLES: usize = 15;

/// What there is at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) users: u64,
    pub(crate) away: u64,
    pub(crate) connections: u64,
    pub(crate) history_bytes: u64,
    pub(crate) tasks: u64,
    pub(crate) descriptors: u64,
    pub(crate) heap_kb: f64,
    pub(crate) rss_kb: f64,
}

impl Sample {
    pub(crate) fn take(server: &Server) -> Self {
        let answer = server.ask("counts");
        let mut counts = answer
            .split(' ')
            .map(|n| n.parse::<u64>().expect("a number"));
        let mut next = || counts.next().expect("there are six");
        let pid = server.process().pid();
        Self {
            users: next(),
            away: next(),
            connections: next(),
            history_bytes: next(),
            tasks: next(),
            heap_kb: next() as f64 / 1024.0,
            descriptors: kernel::open_files(pid) as u64,
            rss_kb: kernel::rss_kb(pid),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            users: self.users.max(other.users),
            away: self.away.max(other.away),
            connections: self.connections.max(other.connections),
            history_bytes: self.history_bytes.max(other.history_bytes),
            tasks: self.tasks.max(other.tasks),
            descriptors: self.descriptors.max(other.descriptors),
            heap_kb: self.heap_kb.max(other.heap_kb),
            rss_kb: self.rss_kb.max(other.rss_kb),
        }
    }
}

pub(crate) struct Resources {
    start: Instant,
    /// Before the first client.
    pub(crate) base: Sample,
    pub(crate) most: Sample,
    /// After each cycle, with the minute.
    pub(crate) quiet: Vec<(f64, Sample)>,
}

impl Resources {
    pub(crate) fn of(server: &Server) -> Self {
        let base = Sample::take(server);
        Self {
            start: Instant::now(),
            base,
            most: base,
            quiet: Vec::new(),
        }
    }

    /// Looks every two seconds, until it is over; says what the most was.
    pub(crate) async fn watch(world: Arc<World>, over: watch::Receiver<bool>) -> Sample {
        let mut most = Sample::default();
        while !*over.borrow() {
            most = most.max(Sample::take(&world.servers[0]));
            sleep(Duration::from_secs(2)).await;
        }
        most
    }

    /// All clients have gone and all histories are forgotten: nothing is left of them but memory that the allocator keeps.
    pub(crate) async fn settle(&mut self, world: &World, most: Sample) {
        self.most = self.most.max(most);
        let server = &world.servers[0];
        let start = Instant::now();
        let left = loop {
            let now = Sample::take(server);
            let wanted = Sample {
                heap_kb: now.heap_kb,
                rss_kb: now.rss_kb,
                ..self.base
            };
            if now == wanted {
                break now;
            }
            if start.elapsed() > PATIENCE {
                let what = format!("after everybody has gone: {now:?}, and not {wanted:?}");
                world.violation("server 0", &what, &server.ask("who"));
                println!(
                    "{}",
                    kernel::sockets_of(server.pid(), server.addr()).join("\n")
                );
                break now;
            }
            sleep(Duration::from_millis(100)).await;
        };
        let minutes = self.start.elapsed().as_secs_f64() / 60.0;
        self.quiet.push((minutes, left));
    }

    /// KB a minute, where there are enough cycles to tell.
    pub(crate) fn slope(&self, of: fn(&Sample) -> f64) -> Option<f64> {
        let cycles = self.quiet.iter().skip(self.quiet.len() / 3);
        let points: Vec<_> = cycles.map(|(at, sample)| (*at, of(sample))).collect();
        (self.quiet.len() >= CYCLES).then(|| slope(&points))
    }

    pub(crate) fn check_memory(&self, world: &World) {
        let [(_, first), .., (_, last)] = &self.quiet[..] else {
            return;
        };
        for Bound {
            name,
            of,
            allowance,
            slope,
        } in BOUNDS
        {
            let grown = of(last) - of(first);
            if grown > allowance {
                let what = format!(
                    "{name}: {grown:.0} KB more than after the first cycle, and may be {allowance:.0}"
                );
                world.violation("server 0", &what, "");
            }
            if let Some(grows) = self.slope(of).filter(|grows| *grows > slope) {
                let what = format!("{name}: {grows:.0} KB more a minute, and may be {slope:.0}");
                world.violation("server 0", &what, "");
            }
        }
    }
}
