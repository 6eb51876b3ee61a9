//! What does a history cost, and who pays for it?
//!
//! - One sender, one stream that keeps up: a publish with a history of 500, which is full, against one without. JSON, and
//!   text, which takes next to no encoding.
//! - Two threads that publish to a user of their own each, against one of them alone: users do not meet. The same without
//!   a history, and with a broadcaster for each thread, which shows what two processors take from each other anyway.
//! - A client that comes back and reads the 10 events it missed, out of a history of 10 and out of one of 10,000: it is
//!   paid for by what was missed.
//!
//! All cases take turns in the same run, so that a machine that is busy with other things is so for all of them; it spoils
//! some runs, but not the median of many.

mod support;

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use support::{Messages, Mode, median};
use tidings::{GenericBroadcaster, History, LastEventId, Subscription, Text, ToSse};

/// How many publishes make a run: about half a millisecond, far below what a scheduler gives a thread at a time.
const RUN: usize = 1024;
/// After so many the stream reads what there is: half of what its ring holds.
const BATCH: usize = 32;
/// How many clients come back in a run.
const RETURNS: usize = 100;
const MISSED: usize = 10;

fn hub<E>(history: Option<History>) -> GenericBroadcaster<E> {
    let hub = GenericBroadcaster::builder().history(history).build();
    hub.expect("the settings are valid")
}

/// One user with one stream.
struct Scene<'a, E> {
    hub: &'a GenericBroadcaster<E>,
    user: &'a str,
    stream: Subscription,
    event: E,
}

impl<'a, E: ToSse> Scene<'a, E> {
    fn new(hub: &'a GenericBroadcaster<E>, user: &'a str, event: E) -> Self {
        let mut scene = Self {
            hub,
            user,
            stream: hub.register(user).expect("there is room"),
            event,
        };
        // A history that is full forgets an event for each that comes.
        scene.publish();
        scene
    }

    /// Nanoseconds per publish, without the reading.
    fn publish(&mut self) -> f64 {
        let mut time = Duration::ZERO;
        for _ in 0..RUN / BATCH {
            let begin = Instant::now();
            for _ in 0..BATCH {
                let reached = self.hub.broadcast(self.user, black_box(&self.event));
                assert!(matches!(reached, Ok(1)));
            }
            time += begin.elapsed();
            // Once more than there are events: the next publish finds a stream that waits.
            for _ in 0..BATCH {
                let frame = self.stream.next().now_or_never().flatten();
                drop(black_box(frame.expect("it was sent").expect("no gap")));
            }
            assert!(self.stream.next().now_or_never().is_none());
        }
        time.as_nanos() as f64 / RUN as f64
    }
}

/// What one of two threads does at the same time as the other.
struct Both<'a> {
    /// Of a broadcaster that the other thread does not have.
    own: Scene<'a, Messages>,
    off: Scene<'a, Messages>,
    on: Scene<'a, Messages>,
}

impl Both<'_> {
    fn run(&mut self, times: &mut [Vec<f64>; 3], meet: &mut impl FnMut()) {
        let scenes = [&mut self.own, &mut self.off, &mut self.on];
        for (scene, times) in scenes.into_iter().zip(times) {
            meet();
            times.push(scene.publish());
        }
        // From here on the first is alone.
        meet();
    }
}

/// A user whose clients miss the last events of a full history.
struct Returns {
    hub: GenericBroadcaster<Messages>,
    _stays: Subscription,
    seen: LastEventId,
}

impl Returns {
    fn new(events: usize) -> Self {
        let hub = hub(Some(History::new(events).bytes(64 << 20)));
        let stays = hub.register("ann").expect("there is room");
        let first = stays.cursor().expect("there is a history");
        let epoch = first.strip_suffix("-0").expect("nothing was sent");
        let event = Messages::filling(200);
        for _ in 0..events {
            hub.broadcast("ann", &event).expect("messages are JSON");
        }
        let seen = LastEventId::new(&format!("{epoch}-{}", events - MISSED));
        Self {
            hub,
            _stays: stays,
            seen,
        }
    }

    /// Nanoseconds from a client's return until it has what it missed, and is gone again.
    fn replay(&self) -> f64 {
        let begin = Instant::now();
        for _ in 0..RETURNS {
            let mut stream = self.hub.resume("ann", &self.seen).expect("there is room");
            for _ in 0..MISSED {
                let frame = stream.next().now_or_never().flatten();
                drop(black_box(frame.expect("it was missed").expect("no gap")));
            }
        }
        begin.elapsed().as_nanos() as f64 / RETURNS as f64
    }
}

/// Two threads meet here before each run.
#[derive(Default)]
struct Meeting(AtomicUsize);

impl Meeting {
    fn wait(&self, arrivals: &mut usize) {
        *arrivals += 2;
        self.0.fetch_add(1, Ordering::AcqRel);
        while self.0.load(Ordering::Acquire) < *arrivals {
            spin_loop();
        }
    }
}

fn print(name: &str, one: &mut [f64], other: &mut [f64]) {
    let (one, other) = (median(one), median(other));
    println!("{name:52}  {one:8.0}  {other:8.0}  {:5.2}", other / one);
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let rounds = mode.pick(2_000, 1);
    let kept = Some(History::new(500));
    let (off, on) = (hub(None), hub(kept));
    let (text_off, text_on) = (hub(None), hub(kept));
    let own = [hub(kept), hub(kept)];
    let both = |user, own| Both {
        own: Scene::new(own, user, Messages::filling(200)),
        off: Scene::new(&off, user, Messages::filling(200)),
        on: Scene::new(&on, user, Messages::filling(200)),
    };
    let (few, many) = (Returns::new(MISSED), Returns::new(mode.pick(10_000, 100)));
    let meeting = Meeting::default();

    let mut times = [const { Vec::new() }; 7];
    let mut together = [const { Vec::new() }; 3];
    let beside = thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut bob = both("bob", &own[1]);
            let mut arrivals = 0;
            let mut times = [const { Vec::new() }; 3];
            for _ in 0..rounds {
                bob.run(&mut times, &mut || meeting.wait(&mut arrivals));
            }
            times
        });
        let mut ann = both("ann", &own[0]);
        let text = || Text::new("x".repeat(200));
        let mut text_on = Scene::new(&text_on, "ann", text());
        let mut text_off = Scene::new(&text_off, "ann", text());
        let mut arrivals = 0;
        for _ in 0..rounds {
            ann.run(&mut together, &mut || meeting.wait(&mut arrivals));
            times[0].push(ann.own.publish());
            times[1].push(ann.off.publish());
            times[2].push(ann.on.publish());
            times[3].push(text_off.publish());
            times[4].push(text_on.publish());
            times[5].push(few.replay());
            times[6].push(many.replay());
        }
        beside.join().expect("publishing does not panic")
    });
    for (ones, others) in together.iter_mut().zip(&beside) {
        // It takes as long as the slower of the two.
        let pairs = ones.iter_mut().zip(others);
        pairs.for_each(|(one, other)| *one = one.max(*other));
    }
    let [own, off, on, text_off, text_on, few, many] = &mut times;
    let [two_own, two_off, two_on] = &mut together;
    println!("median of {rounds} runs, ns\n");
    print("publish 200 B of JSON, history off → on", off, on);
    print("publish 200 B of text, history off → on", text_off, text_on);
    print("one thread → two, a user each, history on", on, two_on);
    print("the same with the history off", off, two_off);
    print("the same with it on, a broadcaster each", own, two_own);
    print("replay of 10 events, out of 10 → 10,000", few, many);
}
