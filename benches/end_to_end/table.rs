//! Rounds, and medians of them.

use std::io;

use crate::RING;
use crate::churn::{Churn, Latencies};
use crate::design::Design;
use crate::idle::{Idle, Memory};
use crate::lag::{Lag, Missed};
use crate::load::{Sample, Traffic};
use crate::slow::{Cost, Slow};
use crate::support::median;

/// The results of one round, in the order of the designs; none where it failed.
pub(crate) type Round<T> = Vec<Option<T>>;

/// Lets the designs take turns.
pub(crate) fn rounds<T>(
    designs: &[Design],
    count: usize,
    faults: &mut Vec<String>,
    mut measure: impl FnMut(Design) -> io::Result<T>,
) -> Vec<Round<T>> {
    let mut once = |&design: &Design| match measure(design) {
        Ok(result) => Some(result),
        Err(error) => {
            faults.push(format!("{}: {error}", design.name()));
            None
        }
    };
    (0..count)
        .map(|_| designs.iter().map(&mut once).collect())
        .collect()
}

/// The median of what a design gave.
pub(crate) fn middle<T: Copy>(rounds: &[Round<T>], design: usize, value: impl Fn(T) -> f64) -> f64 {
    let values = rounds.iter().filter_map(|round| round[design].map(&value));
    let mut values: Vec<_> = values.collect();
    match values.is_empty() {
        true => f64::NAN,
        false => median(&mut values),
    }
}

/// The median of its ratio to the first design, round by round.
pub(crate) fn ratio<T: Copy>(rounds: &[Round<T>], design: usize, value: impl Fn(T) -> f64) -> f64 {
    let ratio = |round: &Round<T>| Some(value(round[design]?) / value(round[0]?));
    let mut ratios: Vec<_> = rounds.iter().filter_map(ratio).collect();
    match ratios.is_empty() {
        true => f64::NAN,
        false => median(&mut ratios),
    }
}

pub(crate) fn traffic(traffic: &Traffic, designs: &[Design], rounds: &[Round<Sample>]) {
    let Traffic {
        name,
        users,
        each,
        size,
        window,
        workers,
        ..
    } = traffic;
    println!(
        "\n{name}: {users} users x {each} streams, {size} B, {window} in flight, workers: {workers}\n"
    );
    println!("| server | CPU per delivery | x | deliveries/s | p50 | p99 | p99.9 |");
    println!("|---|---|---|---|---|---|---|");
    for (n, design) in designs.iter().enumerate() {
        let latency = |q: usize| middle(rounds, n, |sample| sample.latency[q]) / 1e3;
        println!(
            "| {} | {:.2} µs | {:.2} | {:.0}k | {:.2} ms | {:.2} ms | {:.2} ms |",
            design.name(),
            middle(rounds, n, |sample| sample.cpu),
            ratio(rounds, n, |sample| sample.cpu),
            middle(rounds, n, |sample| sample.rate) / 1e3,
            latency(0),
            latency(1),
            latency(2),
        );
    }
}

pub(crate) fn idle(idle: &Idle, designs: &[Design], rounds: &[Round<Memory>]) {
    let Idle {
        name,
        users,
        each,
        rest,
        ..
    } = idle;
    println!("\n{name}: {users} users x {each} connections; {rest:?} after 20 events of 1 KB\n");
    println!("| server | idle | after a burst | set-up of all | SYNs repeated | clean-up |");
    println!("|---|---|---|---|---|---|");
    for (n, design) in designs.iter().enumerate() {
        let clean_up = match middle(rounds, n, |memory| memory.clean_up) {
            // It cleans nothing up.
            time if time.is_nan() => "–".to_owned(),
            time => format!("{time:.2} s"),
        };
        println!(
            "| {} | {:.1} KB | {:.1} KB | {:.2} s | {:.0} | {clean_up} |",
            design.name(),
            middle(rounds, n, |memory| memory.idle),
            middle(rounds, n, |memory| memory.after_burst),
            middle(rounds, n, |memory| memory.set_up),
            middle(rounds, n, |memory| memory.repeated),
        );
    }
}

pub(crate) fn churn(churn: &Churn, designs: &[Design], rounds: &[Round<Latencies>]) {
    let Churn {
        users,
        each,
        rate,
        arrivals,
        ..
    } = churn;
    println!(
        "\nW4: {users} users x {each} streams, {rate} events/s; {arrivals} others come and go a second\n"
    );
    println!("| server | p99 | p99 with others | x | came a second |");
    println!("|---|---|---|---|---|");
    for (n, design) in designs.iter().enumerate() {
        println!(
            "| {} | {:.2} ms | {:.2} ms | {:.2} | {:.0} |",
            design.name(),
            middle(rounds, n, |latencies| latencies.calm) / 1e3,
            middle(rounds, n, |latencies| latencies.busy) / 1e3,
            middle(rounds, n, |latencies| latencies.busy / latencies.calm),
            middle(rounds, n, |latencies| latencies.arrivals),
        );
    }
}

pub(crate) fn lag(lag: &Lag, designs: &[Design], rounds: &[Round<Missed>]) {
    let Lag {
        streams,
        events,
        size,
        window,
    } = lag;
    println!(
        "\nlag: 1 user x {streams} streams, {events} events of {size} B, {window} in flight, rings of {RING}\n"
    );
    println!("| server | missed | told | p99 |");
    println!("|---|---|---|---|");
    for (n, design) in designs.iter().enumerate() {
        println!(
            "| {} | {:.1} % | {:.1} % | {:.2} ms |",
            design.name(),
            middle(rounds, n, |missed| missed.missed) * 100.0,
            middle(rounds, n, |missed| missed.told) * 100.0,
            middle(rounds, n, |missed| missed.p99) / 1e3,
        );
    }
}

pub(crate) fn slow(slow: &Slow, designs: &[Design], rounds: &[Round<Cost>]) {
    let Slow {
        readers,
        stalled,
        size,
        rate,
        events,
    } = slow;
    println!(
        "\nW5: {readers} streams of one user are read, {stalled} are not; {events} events of {size} B, {rate}/s\n"
    );
    println!("| server | memory | sockets | p99 of those who read |");
    println!("|---|---|---|---|");
    for (n, design) in designs.iter().enumerate() {
        println!(
            "| {} | +{:.1} MB | +{:.1} MB | {:.2} ms |",
            design.name(),
            middle(rounds, n, |cost| cost.memory),
            middle(rounds, n, |cost| cost.sockets),
            middle(rounds, n, |cost| cost.p99) / 1e3,
        );
    }
}
