//! A million users whose ids look alike, against as many whose ids are random.

use tidings::{GenericBroadcaster, Subscription, Text};

use crate::report::Report;
use crate::support::process::{Process, answer, part_command};
use crate::support::{Mode, Random, kernel};

/// Ids of 32 bytes.
const KINDS: [&str; 4] = [
    "random",
    "a common beginning",
    "a common end",
    "a bit apart from each other",
];

fn id(kind: usize, number: usize, random: &mut Random) -> String {
    match kind {
        0 => (0..32)
            .map(|_| char::from(b'a' + random.below(26) as u8))
            .collect(),
        1 => format!("user-of-a-very-large-org-{number:07}"),
        2 => format!("{number:07}-user-of-a-very-large-org"),
        // `0` and `1` are a bit apart.
        _ => format!("{number:032b}"),
    }
}

pub(crate) fn run(report: &mut Report, mode: Mode) {
    let count = mode.pick(1_000_000, 20_000);
    let mut usual: Option<[f64; 4]> = None;
    for (kind, name) in KINDS.iter().enumerate() {
        let args = ["ids".to_owned(), kind.to_string(), count.to_string()];
        let mut process = Process::start(part_command(args));
        let result = process.ask("result");
        let numbers: Vec<f64> = result
            .split(' ')
            .map(|n| n.parse().expect("a number"))
            .collect();
        let found: [f64; 4] = numbers.try_into().expect("four numbers");
        let [register, broadcast, leave, bytes] = found;
        let case = format!("{count} users, {name}");
        report.row(
            &case,
            "its own events, and nobody else's",
            &format!("{register:.0} ns of CPU to register, {broadcast:.0} to broadcast, {leave:.0} to leave; {bytes:.0} bytes each"),
        );
        let usual = *usual.get_or_insert(found);
        // Ids that are alike are in the cache more often, and may well be faster.
        let factor = mode.pick(2.0, 5.0);
        for (what, (found, usual)) in ["register", "broadcast", "leave", "memory"]
            .iter()
            .zip(found.into_iter().zip(usual))
        {
            let is_alike = found <= usual * factor;
            report.check(
                is_alike,
                format!("{case}: {what}: {found:.0}, not {usual:.0}"),
            );
        }
    }
}

/// Registers them all, broadcasts to each, and lets them leave. Answers with the times and the memory of each.
pub(crate) fn be(args: &[String]) {
    let number = |n: usize| -> usize { args[n].parse().expect("a number") };
    let (kind, count) = (number(0), number(1));
    let mut random = Random::new();
    let mut ids: Vec<String> = (0..count).map(|n| id(kind, n, &mut random)).collect();
    // In no order that the allocator could profit by.
    for n in (1..count).rev() {
        ids.swap(n, random.below(n + 1));
    }
    let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
        .ring_capacity(1)
        .build()
        .expect("the settings are valid");
    let pid = std::process::id();
    let before = kernel::rss_kb(pid);
    // Of a CPU, so that whatever else the machine does counts little.
    let now = || kernel::cpu_nanos(pid);
    let each = |start: f64| (now() - start) / count as f64;

    let start = now();
    let streams: Vec<Subscription> = ids
        .iter()
        .map(|id| hub.register(&**id).expect("there is no cap"))
        .collect();
    let register = each(start);
    let bytes = (kernel::rss_kb(pid) - before) * 1024.0 / count as f64;

    let start = now();
    let event = Text::new("x");
    let reached = ids
        .iter()
        .map(|id| hub.broadcast(id, &event).expect("text"));
    let reached: usize = reached.sum();
    let broadcast = each(start);
    assert_eq!(reached, count, "each has a stream of its own");

    let start = now();
    drop(streams);
    let leave = each(start);
    assert_eq!(hub.stats().users, 0);
    answer("done", move |_| {
        format!("{register} {broadcast} {leave} {bytes}")
    });
    loop {
        std::thread::park();
    }
}
