//! What does it cost that streams come and go, beside what one writes by hand?
//!
//! By hand is a `RwLock<HashMap>` of tokio's broadcast channels, in which nothing has an id, is counted, limited or can be
//! ended. A thousand users are there. A thousand others come with a stream each, then with a second one; the second ones
//! leave, then the first ones. Then eight more streams of a user with 10 come and go, and eight of a user with 10,000. The two
//! designs take turns; each figure is the median over the rounds.
//!
//!     cargo bench --bench coming_and_going
//!
//! Instructions of each call of a function, here `come`. The first call registers the thousand that stay, the second and third
//! are the first two steps of the table:
//!
//!     function='<coming_and_going::Tidings as coming_and_going::Hub>::come'
//!     valgrind --tool=callgrind --collect-atstart=no --toggle-collect="$function" --dump-after="$function" \
//!         target/release/deps/coming_and_going-* --test
//!     grep summary callgrind.out.*

mod support;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use support::{Mode, median};
use tidings::{GenericBroadcaster, Subscription, Text, UserId};
use tokio::sync::broadcast;

/// How many users stay, and how many come and go.
const USERS: usize = 1000;

trait Hub {
    type Stream;

    /// A stream for each user.
    fn come(&self, users: &[UserId], streams: &mut Vec<Self::Stream>);

    fn go(&self, users: &[UserId], streams: &mut Vec<Self::Stream>);
}

struct Tidings(GenericBroadcaster<Text>);

impl Hub for Tidings {
    type Stream = Subscription;

    #[inline(never)]
    fn come(&self, users: &[UserId], streams: &mut Vec<Subscription>) {
        for user in users {
            streams.push(self.0.register(user).expect("there is no cap"));
        }
    }

    #[inline(never)]
    fn go(&self, _: &[UserId], streams: &mut Vec<Subscription>) {
        streams.clear();
    }
}

type Event = Arc<str>;

#[derive(Default)]
struct ByHand(RwLock<HashMap<String, broadcast::Sender<Event>>>);

impl Hub for ByHand {
    type Stream = broadcast::Receiver<Event>;

    #[inline(never)]
    fn come(&self, users: &[UserId], streams: &mut Vec<Self::Stream>) {
        for user in users {
            let mut there = self.0.write().expect("nothing panics under it");
            streams.push(match there.get(user.as_str()) {
                Some(sender) => sender.subscribe(),
                None => {
                    let (sender, receiver) = broadcast::channel(64);
                    there.insert(user.to_string(), sender);
                    receiver
                }
            });
        }
    }

    #[inline(never)]
    fn go(&self, users: &[UserId], streams: &mut Vec<Self::Stream>) {
        for (user, stream) in users.iter().zip(streams.drain(..)) {
            drop(stream);
            let mut there = self.0.write().expect("nothing panics under it");
            let sender = there.get(user.as_str());
            if sender.is_some_and(|sender| sender.receiver_count() == 0) {
                there.remove(user.as_str());
            }
        }
    }
}

fn names(prefix: &str, count: usize) -> Vec<UserId> {
    (0..count).map(|n| format!("{prefix}-{n}").into()).collect()
}

/// What is measured, in nanoseconds for each stream.
const STEPS: [&str; 8] = [
    "a user's first stream comes",
    "a second one comes",
    "a second one goes",
    "the last one goes",
    "each of eight more comes to 10",
    "and goes",
    "each of eight more comes to 10,000",
    "and goes",
];

fn round<H: Hub>(hub: &H, crowd: usize) -> [f64; STEPS.len()] {
    let mut present = Vec::new();
    hub.come(&names("there", USERS), &mut present);
    let users = names("new", USERS);
    let (mut first, mut second) = (Vec::with_capacity(USERS), Vec::with_capacity(USERS));
    let time = |step: &mut dyn FnMut()| {
        let begin = Instant::now();
        step();
        begin.elapsed().as_nanos() as f64 / USERS as f64
    };
    let mut ns = vec![
        time(&mut || hub.come(&users, &mut first)),
        time(&mut || hub.come(&users, &mut second)),
        time(&mut || hub.go(&users, &mut second)),
        time(&mut || hub.go(&users, &mut first)),
    ];
    for streams in [10, crowd] {
        let user = UserId::from(format!("with-{streams}"));
        let mut there = Vec::new();
        hub.come(&vec![user.clone(); streams], &mut there);
        let (eight, mut more) = (vec![user; 8], Vec::with_capacity(8));
        let (mut come, mut go) = (0.0, 0.0);
        for _ in 0..USERS / 8 {
            come += time(&mut || hub.come(&eight, &mut more));
            go += time(&mut || hub.go(&eight, &mut more));
        }
        ns.extend([come, go]);
    }
    ns.try_into().expect("a time for each step")
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let (rounds, crowd) = (mode.pick(21, 1), mode.pick(10_000, 20));
    let mut ours: [Vec<f64>; STEPS.len()] = Default::default();
    let mut by_hand = ours.clone();
    for _ in 0..rounds {
        let builder = GenericBroadcaster::builder().connections_per_user(None);
        let hub = Tidings(builder.build().expect("valid settings"));
        let of = |all: &mut [Vec<f64>], ns: [f64; STEPS.len()]| {
            all.iter_mut().zip(ns).for_each(|(all, ns)| all.push(ns));
        };
        of(&mut ours, round(&hub, crowd));
        of(&mut by_hand, round(&ByHand::default(), crowd));
    }
    println!("ns for each stream, median of {rounds} rounds\n");
    println!("| | tidings | by hand | ratio |");
    println!("|---|---|---|---|");
    for (n, step) in STEPS.iter().enumerate() {
        let (ours, by_hand) = (median(&mut ours[n]), median(&mut by_hand[n]));
        println!(
            "| {step} | {ours:.0} | {by_hand:.0} | {:.1} |",
            ours / by_hand
        );
    }
}
