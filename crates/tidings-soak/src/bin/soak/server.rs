//! The process of a server: publishers, and commands that come on standard input.

use std::io;
use std::panic;
use std::process;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use tidings::EndReason;
use tidings::serve::{TcpKeepAlive, bind, serve};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::HEAP;
use crate::site::{Site, Topic};
use crate::support::process::answer;

/// A client that takes nothing is given up after this.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(3);

/// Over how long streams are ended by a shutdown.
pub(crate) const DRAIN: Duration = Duration::from_secs(3);

/// How long connections have after that.
pub(crate) const LAST: Duration = Duration::from_secs(1);

/// The first users of each broadcaster get large events.
pub(crate) const HOT: usize = 2;

const PUBLISHERS: u64 = 3;

/// What is asked for by `stats`.
pub(crate) const RARE: [&str; 9] = [
    "events lost by lag",
    "lag healed from a history",
    "events replayed",
    "events gone before a replay",
    "gaps for unknown ids",
    "ended, too far behind",
    "ended, past the deadline",
    "refused, the user is full",
    "refused, the total is full",
];

/// What a server is started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// Users of the crowd, of each broadcaster.
    pub(crate) users: usize,
    /// Users for drills.
    pub(crate) drills: usize,
    /// How often a second each publisher publishes.
    pub(crate) rate: u64,
    /// Whether it has two nodes of a cluster. The engine in the process remembers every event, so memory grows.
    pub(crate) has_nodes: bool,
}

impl Settings {
    pub(crate) fn args(self) -> Vec<String> {
        let numbers = [
            self.seed,
            self.users as u64,
            self.drills as u64,
            self.rate,
            u64::from(self.has_nodes),
        ];
        let numbers = numbers.iter().map(u64::to_string);
        std::iter::once("server".to_owned())
            .chain(numbers)
            .collect()
    }

    pub(crate) fn of_args(args: &[String]) -> Option<Self> {
        let (part, numbers) = args.split_first()?;
        let numbers = numbers.iter().map(|number| number.parse::<u64>().ok());
        let numbers: Vec<_> = numbers.collect::<Option<_>>()?;
        let [seed, users, drills, rate, has_nodes] = numbers[..] else {
            return None;
        };
        (part == "server").then_some(Self {
            seed,
            users: users as usize,
            drills: drills as usize,
            rate,
            has_nodes: has_nodes == 1,
        })
    }
}

/// Serves until SIGTERM and the drain that follows.
pub(crate) fn be(settings: Settings) -> io::Result<()> {
    // A panic is no way to serve: the driver shall see it, wherever it is.
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        tell(panic);
        process::exit(101);
    }));
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let keep_alive = TcpKeepAlive::default().idle(Duration::from_secs(5));
        let listener = bind("127.0.0.1:0").await?;
        let listener = listener.stall_limit(STALL_LIMIT).keep_alive(keep_alive);
        let addr = listener.local_addr()?;
        let mut stop = signal(SignalKind::terminate())?;
        let site = Arc::new(Site::new(settings));
        for publisher in 0..PUBLISHERS {
            let rng = Rng::with_seed(settings.seed ^ publisher << 32);
            tokio::spawn(publish(site.clone(), rng, settings));
        }
        let app = site.app();
        let (asked, tokio) = (site.clone(), Handle::current());
        answer(&format!("http://{addr}"), move |question| {
            obey(&asked, &tokio, question)
        });
        let drain = async move {
            stop.recv().await;
            let ends = site.hubs.iter().map(|(_, hub)| {
                let hub = hub.clone();
                tokio::spawn(async move { hub.shutdown(DRAIN).await })
            });
            for end in ends.collect::<Vec<_>>() {
                end.await.expect("a shutdown does not panic");
            }
        };
        serve(listener, app)
            .http2(true)
            .header_read_timeout(Duration::from_secs(5))
            .with_graceful_shutdown(drain)
            .drain(LAST)
            .await;
        Ok(())
    })
}

/// Broadcasts for ever: to somebody of the crowd, now and then more at once than a ring or a history holds, and more often
/// to those whose events are large.
async fn publish(site: Arc<Site>, mut rng: Rng, settings: Settings) {
    let is_of_crowd = |topic: &Arc<Topic>| topic.user.parse::<usize>().is_ok();
    let crowd: Vec<_> = site
        .topics
        .iter()
        .filter(|t| is_of_crowd(t))
        .cloned()
        .collect();
    let is_hot = |topic: &Arc<Topic>| topic.user.parse().is_ok_and(|user: usize| user < HOT);
    let hot: Vec<_> = crowd.iter().filter(|t| is_hot(t)).cloned().collect();
    loop {
        let pause = 2_000_000 / settings.rate.max(1);
        sleep(Duration::from_micros(rng.u64(0..=pause))).await;
        let among = if rng.u8(0..100) < 5 { &hot } else { &crowd };
        let topic = &among[rng.usize(0..among.len())];
        let (times, size) = match (is_hot(topic), rng.u8(0..100)) {
            (true, _) => (1, rng.usize(4_000..32_000)),
            (false, 0) => (rng.usize(17..120), rng.usize(0..200)),
            (false, 1..=4) => (1, rng.usize(200..4_000)),
            (false, _) => (1, rng.usize(0..200)),
        };
        site.while_going(|| (0..times).for_each(|_| topic.publish(size)));
    }
}

/// What the driver asks for.
fn obey(site: &Site, tokio: &Handle, question: &str) -> String {
    let words: Vec<_> = question.split(' ').collect();
    let at = |path: &str| site.find(path).expect("the driver knows who is here");
    let number = |word: &str| word.parse::<usize>().expect("a number");
    match words[..] {
        ["go"] => site.is_going.store(true, Ordering::SeqCst),
        ["pause"] => site.pause(),
        // Of all topics, the number of the last event.
        ["heads"] => {
            let heads = site.topics.iter();
            let heads: Vec<_> = heads.map(|t| format!("{}={}", t.name, t.head())).collect();
            return heads.join(" ");
        }
        ["counts"] => {
            let mut counts = [0; 6];
            for (_, hub) in &site.hubs {
                let stats = hub.stats();
                let of_hub = [
                    stats.users,
                    stats.away,
                    stats.connections,
                    stats.history_bytes,
                ];
                let sums = counts.iter_mut().zip(of_hub);
                sums.for_each(|(sum, count)| *sum += count);
            }
            counts[4] = tokio.metrics().num_alive_tasks();
            let heap = HEAP.stats();
            counts[5] = heap.bytes_allocated.saturating_sub(heap.bytes_deallocated);
            return counts.map(|count| count.to_string()).join(" ");
        }
        // How often the broadcasters came to what is rare.
        ["stats"] => {
            let mut sums = [0; RARE.len()];
            for stats in site.hubs.iter().map(|(_, hub)| hub.stats()) {
                let of_hub = [
                    stats.lagged,
                    stats.healed,
                    stats.replayed,
                    stats.evicted,
                    stats.gaps.epoch,
                    stats.ended.get(EndReason::Behind),
                    stats.ended.get(EndReason::Deadline),
                    stats.refusals.user_full,
                    stats.refusals.total_full,
                ];
                let sums = sums.iter_mut().zip(of_hub);
                sums.for_each(|(sum, count)| *sum += count);
            }
            return sums.map(|sum| sum.to_string()).join(" ");
        }
        ["who"] => return site.who(),
        ["faults"] => {
            let mut faults = site.faults.lock().expect("nothing panics while it is held");
            return std::mem::take(&mut *faults).join("; ");
        }
        ["forget-all"] => {
            for (_, hub) in &site.hubs {
                for topic in &site.topics {
                    hub.forget(&topic.user);
                }
            }
        }
        ["streams", path] => {
            let (hub, topic) = at(path);
            return hub.connection_count(&topic.user).to_string();
        }
        ["drain", path] => {
            let (hub, topic) = at(path);
            return hub.drain_user(&topic.user).to_string();
        }
        ["disconnect", path] => {
            let (hub, topic) = at(path);
            return hub.disconnect_user(&topic.user).to_string();
        }
        ["forget", path] => {
            let (hub, topic) = at(path);
            return hub.forget(&topic.user).to_string();
        }
        ["unregister", path] => {
            let (hub, topic) = at(path);
            let first = hub.connection_info_of(&topic.user).into_iter().next();
            let ended = first.is_some_and(|info| hub.unregister(&topic.user, &info.connection));
            return u8::from(ended).to_string();
        }
        ["publish", path, times, size] => {
            let topic = at(path).1;
            (0..number(times)).for_each(|_| topic.publish(number(size)));
            return topic.head().to_string();
        }
        _ => panic!("what is {question:?}?"),
    }
    String::new()
}
