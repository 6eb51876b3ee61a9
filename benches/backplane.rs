//! What does a backplane cost whoever broadcasts?
//!
//! One thread broadcasts 200 B of JSON, and text, to a user with one stream and with ten that keep up; the time is that of
//! the calls. Without a backplane, with one whose engine takes everything, and with one that cannot be reached, so that the
//! queue is full: at both levels, each against a broadcaster without a backplane and with the same history. All take turns
//! in the same run.
//!
//! `--scene N` runs one of them alone, for callgrind with `--toggle-collect='*GenericBroadcaster*publish'`: instructions repeat where times
//! do not.
//!
//! The engine does nothing, but the task that publishes does what it always does, on another core.

mod support;

use std::hint::black_box;
use std::pin::Pin;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use support::{Messages, Mode, median, option};
use tidings::backplane::{
    Backplane, BackplaneError, Event, Fetched, Head, Level, Message, Missing, Position, Published,
};
use tidings::{GenericBroadcaster, History, Subscription, Text, ToSse, UserId};
use tokio_stream::Stream;

const RUN: usize = 2048;
/// After so many the streams read what there is: half of what their ring holds.
const BATCH: usize = 32;

/// An engine that takes everything and does nothing with it, or is not there.
struct Sink {
    level: Level,
    is_there: bool,
}

#[async_trait]
impl Backplane for Sink {
    fn level(&self) -> Level {
        self.level
    }

    fn horizon(&self) -> Option<Position> {
        (self.level == Level::Replayable).then_some(Position {
            epoch: 1,
            offset: 0,
        })
    }

    fn max_body(&self) -> usize {
        1 << 20
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, BackplaneError> {
        black_box(messages);
        if self.is_there {
            let accepted = |_| Published::Accepted(self.horizon());
            Ok(messages.iter().map(accepted).collect())
        } else {
            Err(BackplaneError::unavailable())
        }
    }

    async fn set_interest(&self, _: &[UserId], _: &[UserId]) -> Result<(), BackplaneError> {
        Ok(())
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        Box::pin(tokio_stream::pending())
    }

    async fn fetch(
        &self,
        _: &UserId,
        after: Position,
        _: usize,
    ) -> Result<Fetched, BackplaneError> {
        Ok(Fetched {
            messages: Vec::new(),
            through: after,
            head: after,
            missing: Missing::Nothing,
        })
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, BackplaneError> {
        let newest = self.horizon().ok_or_else(BackplaneError::unavailable)?;
        let head = Head { newest, through: 0 };
        Ok(users.iter().map(|_| head).collect())
    }

    async fn close(&self, _: tokio::time::Instant) {}
}

struct Scene<E> {
    name: &'static str,
    hub: GenericBroadcaster<E>,
    streams: Vec<Subscription>,
    /// Whether the streams get an event only when the engine's log returns it. This one returns nothing.
    from_log: bool,
    runs: Vec<f64>,
}

impl<E: ToSse + Send + Sync + 'static> Scene<E> {
    fn new(name: &'static str, history: bool, sink: Option<Sink>, streams: usize) -> Self {
        let builder = GenericBroadcaster::builder().history(history.then(|| History::new(64)));
        let is_replayable = |sink: &Sink| sink.level == Level::Replayable;
        let from_log = sink.as_ref().is_some_and(is_replayable);
        let hub = match sink {
            None => builder.build(),
            Some(sink) => builder.backplane(sink).build(),
        };
        let hub = hub.expect("valid settings");
        let open = |_| hub.register("user").expect("there is room");
        Self {
            name,
            streams: (0..streams).map(open).collect(),
            hub,
            from_log,
            runs: Vec::new(),
        }
    }

    fn run(&mut self, event: &E) {
        let mut time = Duration::ZERO;
        for _ in 0..RUN / BATCH {
            let begin = Instant::now();
            for _ in 0..BATCH {
                // Where the queue is full, that is an error.
                let _ = black_box(self.hub.broadcast("user", black_box(event)));
            }
            time += begin.elapsed();
            for stream in &mut self.streams {
                let due = if self.from_log { 0 } else { BATCH };
                for _ in 0..due {
                    let item = stream.next().now_or_never().flatten();
                    drop(black_box(item.expect("it was sent").expect("no gap")));
                }
                assert!(stream.next().now_or_never().is_none());
            }
        }
        self.runs.push(time.as_nanos() as f64 / RUN as f64);
    }
}

fn compare<E: ToSse + Send + Sync + 'static>(what: &str, event: &E, streams: usize, rounds: usize) {
    let sink = |level, is_there| Some(Sink { level, is_there });
    let mut scenes: Vec<Scene<E>> = vec![
        Scene::new("none", false, None, streams),
        Scene::new(
            "at most once",
            false,
            sink(Level::AtMostOnce, true),
            streams,
        ),
        Scene::new(
            "at most once, engine dead",
            false,
            sink(Level::AtMostOnce, false),
            streams,
        ),
        Scene::new("none, with a history", true, None, streams),
        Scene::new("replayable", true, sink(Level::Replayable, true), streams),
        Scene::new(
            "replayable, engine dead",
            true,
            sink(Level::Replayable, false),
            streams,
        ),
    ];
    // From 1; 0 for all.
    let only = option("scene", 0);
    if only > 0 {
        scenes = vec![scenes.swap_remove(only - 1)];
    }
    for _ in 0..rounds {
        for scene in &mut scenes {
            scene.run(event);
        }
    }
    println!("{what}, {streams} streams");
    let mut base = 0.0;
    for scene in &mut scenes {
        let time = median(&mut scene.runs);
        if scene.name.starts_with("none") {
            base = time;
        }
        println!("  {:26} {time:7.0} ns  {:.2}x", scene.name, time / base);
    }
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let rounds = mode.pick(300, 1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    for streams in [1, 10] {
        compare("JSON", &Messages::filling(200), streams, rounds);
        compare("text", &Text::new("x".repeat(200)), streams, rounds);
    }
}
