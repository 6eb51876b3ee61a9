//! What does it cost to route an AG-UI event, beside sending JSON that is there already?
//!
//! The user has as many AG-UI streams as context streams, and an iteration ends when all have the event.
//!
//! - `route`: the router is given the event.
//! - `ready`: each of the two broadcasters is given the JSON that its streams get.
//! - `twice`: each of the two broadcasters is given the event, and serialises it for itself.
//!
//! The three take turns within one measurement, because the machine is not as fast in one second as it is in the next. The
//! table shows how long the fastest tenth of the turns took at most. For ten streams of each kind `route` shall take at most
//! 1.3 of the time of `ready`. That is a question for events of a usual size: from some kilobytes on, making the JSON once takes longer
//! than handing it to twenty streams.

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::StreamExt;
use support::{Mode, current_thread, quantile};
use tidings::protocol::agui::{AgUiEvent, Event, RunRef};
use tidings::protocol::context::ContextEvent;
use tidings::{EventRouter, Frame, GenericBroadcaster, Subscription, Text, ToSse};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

const USER: &str = "ann";

/// Receivers that still miss the event that was sent last.
#[derive(Default)]
struct Missing {
    count: AtomicUsize,
    none: Notify,
}

impl Missing {
    fn read(self: &Arc<Self>, runtime: &Runtime, mut stream: Subscription) {
        let missing = self.clone();
        runtime.spawn(async move {
            while let Some(Ok(frame)) = stream.next().await {
                drop(black_box(frame.to_bytes()));
                if missing.count.fetch_sub(1, Ordering::AcqRel) == 1 {
                    missing.none.notify_one();
                }
            }
        });
    }

    /// How long a turn takes, in nanoseconds: so many events, each after the one before has reached all.
    fn turn(
        &self,
        runtime: &Runtime,
        events: usize,
        receivers: usize,
        send: impl Fn() -> usize,
    ) -> f64 {
        runtime.block_on(async {
            let begin = Instant::now();
            for _ in 0..events {
                self.count.store(receivers, Ordering::Release);
                assert_eq!(send(), receivers);
                self.none.notified().await;
            }
            begin.elapsed().as_nanos() as f64 / events as f64
        })
    }
}

/// A router and the two broadcasters that it feeds, or two that stand for themselves, with streams that are read.
fn both<A: ?Sized, C: ?Sized>(
    runtime: &Runtime,
    missing: &Arc<Missing>,
    streams: usize,
) -> (GenericBroadcaster<A>, GenericBroadcaster<C>) {
    let (own, context) = (unlimited(), unlimited());
    for _ in 0..streams {
        missing.read(runtime, own.register(USER).expect("there is no cap"));
        missing.read(runtime, context.register(USER).expect("there is no cap"));
    }
    (own, context)
}

fn unlimited<E: ?Sized>() -> GenericBroadcaster<E> {
    let builder = GenericBroadcaster::builder().connections_per_user(None);
    builder.build().expect("the settings are valid")
}

fn json<E: ToSse>(event: &E) -> Arc<str> {
    let frame = Frame::encode(event).expect("the event is valid");
    frame.data().into()
}

fn compare(mode: Mode, name: &str, event: Event, streams: usize) {
    let runtime = current_thread();
    let missing = Arc::default();
    let run = RunRef::new("thread-1", "run-1");
    let event = run.event(event);

    let (agui, context) = both(&runtime, &missing, streams);
    let router = EventRouter::builder().agui(agui).context(context).build();
    let route = || {
        let routed = router.route_agui(USER, &event);
        routed.expect("the event is valid").total()
    };

    let context_event = ContextEvent::from(event.event.clone());
    let own_bytes = Text::from(json(&event)).event(event.event.type_name());
    let context_bytes = Text::from(json(&context_event)).event("agui");
    let (own, context) = both::<Text<Arc<str>>, Text<Arc<str>>>(&runtime, &missing, streams);
    let ready = || {
        own.broadcast(USER, &own_bytes).expect("one line")
            + context.broadcast(USER, &context_bytes).expect("one line")
    };

    let (own, context) = both::<AgUiEvent, ContextEvent>(&runtime, &missing, streams);
    let twice = || {
        own.broadcast(USER, &event).expect("the event is valid")
            + context
                .broadcast(USER, &context_event)
                .expect("the event is valid")
    };

    let (rounds, events) = mode.pick((400, 200), (3, 2));
    let mut times = [const { Vec::new() }; 3];
    for round in 0..rounds {
        for variant in 0..3 {
            // Whoever is first finds the caches as the last one left them: let that be each in its turn.
            let variant = (variant + round) % 3;
            let time = match variant {
                0 => missing.turn(&runtime, events, 2 * streams, route),
                1 => missing.turn(&runtime, events, 2 * streams, ready),
                _ => missing.turn(&runtime, events, 2 * streams, twice),
            };
            times[variant].push(time);
        }
    }
    // The quiet turns: a turn is shorter than what the scheduler gives at a time, so that most of them are not interrupted.
    let [a, b, c] = times.each_mut().map(|times| quantile(times, 0.1));
    println!(
        "{name:14} {streams:3} + {streams:3} {a:10.0} {b:10.0} {c:10.0} {:12.2} {:12.2}",
        a / b,
        c / b,
    );
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    println!(
        "nanoseconds for an event until all streams have it, the fastest tenth of the turns\n"
    );
    println!(
        "{:14} {:>9} {:>10} {:>10} {:>10} {:>12} {:>12}",
        "event", "streams", "route", "ready", "twice", "route/ready", "twice/ready"
    );
    let line =
        "On time, she said; the rest of us were late, as we had been on each day of that week. ";
    for streams in mode.pick(&[1, 10, 100][..], &[1, 2]) {
        let text = |lines: usize| Event::text_message_content("message-1", line.repeat(lines));
        compare(mode, "text, 200 B", text(1), *streams);
        compare(mode, "text, 16 KB", text(190), *streams);
        let messages = |bytes: usize| {
            let messages = support::Messages::filling(bytes).0;
            Event::state_snapshot(serde_json::to_value(messages).expect("messages are JSON"))
        };
        compare(mode, "state, 200 B", messages(200), *streams);
        compare(mode, "state, 16 KB", messages(16 << 10), *streams);
    }
}
