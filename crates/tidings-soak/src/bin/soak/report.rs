//! The table at the end.

use std::time::Duration;

use crate::resources::{BOUNDS, Bound, Resources, Sample};
use crate::server::RARE;
use crate::world::World;

pub(crate) fn print(world: &World, resources: &Resources, took: Duration) {
    let cycles = resources.quiet.len();
    println!(
        "{:.1} minutes, seed {}, {cycles} cycles\n",
        took.as_secs_f64() / 60.0,
        world.seed
    );
    for (what, count) in world.tally() {
        println!("{what:40} {count:>12}");
    }
    println!("{:40} {:>12}\n", "violations", world.violations());
    let last = resources.quiet.last().map(|(_, sample)| *sample);
    let first = resources.quiet.first().map(|(_, sample)| *sample);
    println!(
        "{:28} {:>10} {:>10} {:>12} {:>10}",
        "the first server", "start", "most", "first pause", "last pause"
    );
    let row = |what: &str, of: fn(&Sample) -> f64| {
        let text =
            |sample: Option<Sample>| sample.map_or(String::new(), |s| format!("{:.0}", of(&s)));
        println!(
            "{what:28} {:>10} {:>10} {:>12} {:>10}",
            text(Some(resources.base)),
            text(Some(resources.most)),
            text(first),
            text(last)
        );
    };
    row("RSS, KB", |sample| sample.rss_kb);
    row("heap in use, KB", |sample| sample.heap_kb);
    row("descriptors", |sample| sample.descriptors as f64);
    row("tasks", |sample| sample.tasks as f64);
    row("users", |sample| sample.users as f64);
    row("users away", |sample| sample.away as f64);
    row("connections", |sample| sample.connections as f64);
    row("bytes in histories", |sample| sample.history_bytes as f64);
    println!("\nthe first server, from its start:");
    let stats = world.servers[0].ask("stats");
    for (what, count) in RARE.iter().zip(stats.split(' ')) {
        println!("{what:40} {count:>12}");
    }
    println!();
    for Bound { name, of, .. } in BOUNDS {
        let pauses = resources.quiet.iter();
        let pauses: Vec<_> = pauses
            .map(|(at, sample)| format!("{at:.1}: {:.0}", of(sample)))
            .collect();
        println!(
            "{name} in each pause, KB by the minute: {}",
            pauses.join(", ")
        );
        match resources.slope(of) {
            Some(slope) => println!("{name} from pause to pause: {slope:+.0} KB a minute"),
            None => println!("{name} from pause to pause: too few cycles for a slope"),
        }
    }
}
