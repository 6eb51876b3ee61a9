//! Too little memory: what the settings refuse, what they bound, and what becomes of a process whose settings do not.
//!
//! Rust's allocator aborts where there is no memory. That is the honest end of a process; no setting of this crate comes to
//! it unless it was asked for so much.

use std::process::Command;

use tidings::{Builder, ConfigError, GenericBroadcaster, History, Subscription, Text};

use crate::report::Report;
use crate::support::Mode;
use crate::support::process::part_command;

/// Bytes of an event.
const SIZE: usize = 64 * 1024;

type Hub = GenericBroadcaster<Text>;

pub(crate) fn run(report: &mut Report, mode: Mode) {
    let too_many = Builder::<Text>::MAX_RING_CAPACITY + 1;
    let refused = Hub::builder().ring_capacity(too_many).build();
    let is_refused = matches!(refused, Err(ConfigError::RingCapacity { .. }));
    report.row(
        "a ring of more than a million events",
        "nothing: the service does not start",
        "ConfigError::RingCapacity",
    );
    report.check(is_refused, "a ring of any size can be had");

    // Of address space, and events that are far more than that.
    let (megabytes, events) = mode.pick((512, 16_000), (256, 6_000));
    let gigabytes = (events * SIZE) as f64 / 1e9;
    for (name, what, survives) in [
        ("ring", "a ring of 64", true),
        ("history", "a history without end, of 1 MiB", true),
        ("away", "users who are away, of 32 MiB", true),
        ("everything", "a ring of 65,536", false),
    ] {
        let part = part_command(["scarce", name, &events.to_string()]);
        let mut limited = Command::new("sh");
        limited
            .args([
                "-c",
                &format!(r#"ulimit -v {} && exec "$0" "$@""#, megabytes * 1024),
            ])
            .arg(part.get_program())
            .args(part.get_args());
        let output = limited.output().expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let case = format!("{megabytes} MB, nobody reads {gigabytes:.1} GB, {what}");
        let has_aborted = said.contains("memory allocation of");
        let (sees, pays) = match (output.status.success(), has_aborted) {
            (true, _) => {
                let rss = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                (
                    "a gap, or what is kept".to_owned(),
                    format!("{rss} MB at the most"),
                )
            }
            (false, true) => (
                "a broken connection: the process aborts".to_owned(),
                said.lines()
                    .find(|line| line.contains("memory allocation"))
                    .unwrap_or_default()
                    .to_owned(),
            ),
            _ => (format!("{}", output.status), said),
        };
        report.row(&case, &sees, &pays);
        let is_so = match survives {
            true => output.status.success(),
            false => !output.status.success() && has_aborted,
        };
        report.check(is_so, format!("{case}: {}", output.status));
    }
}

/// Broadcasts to somebody who does not read, or is not there, and prints the memory at its peak.
pub(crate) fn be(args: &[String]) {
    let events: usize = args[1].parse().expect("a number");
    let builder = Hub::builder();
    let hub = match &*args[0] {
        "ring" => builder,
        "history" => builder.history(History::new(usize::MAX)),
        "away" => {
            let history = History::new(usize::MAX).bytes(usize::MAX);
            builder.history(history.keep_for_unconnected().away_bytes(32 << 20))
        }
        _ => builder.ring_capacity(65_536),
    };
    let hub = hub.build().expect("the settings are valid");
    let is_away = args[0] == "away";
    let unread: Option<Subscription> =
        (!is_away).then(|| hub.register("ann").expect("there is room"));
    let event = Text::new("x".repeat(SIZE));
    for number in 0..events {
        let user = match is_away {
            true => format!("user {}", number % 1000),
            false => "ann".to_owned(),
        };
        hub.broadcast(&user, &event).expect("text can be encoded");
    }
    println!(
        "{:.0}",
        crate::support::kernel::peak_kb(std::process::id()) / 1024.0
    );
    drop(unread);
}
