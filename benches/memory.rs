//! How many bytes of heap do an idle user and another connection of the same user cost?
//!
//! Counted at the allocator, as asked for: what the allocator adds to round up is not in it. The id of the user (12
//! bytes) and that of the connection are.

mod support;

use std::mem::size_of;

use support::{LockedHub, Mode, current_thread};
use tidings::{ConnectionId, GenericBroadcaster, Subscription, Text};

/// What one more of something costs.
struct Cost {
    bytes: f64,
    blocks: f64,
}

impl Cost {
    /// Makes `n` of them with `make` and keeps them meanwhile, in room that is there before.
    fn of_each<T>(n: usize, kept: &mut Vec<T>, mut make: impl FnMut(usize) -> T) -> Self {
        kept.reserve_exact(n);
        let left = allocation_counter::measure(|| {
            for i in 0..n {
                kept.push(make(i));
            }
        });
        Self {
            bytes: left.bytes_current as f64 / n as f64,
            blocks: left.count_current as f64 / n as f64,
        }
    }
}

fn main() {
    let mode = Mode::of_args();
    if mode == Mode::List {
        return;
    }
    let users = mode.pick(20_000, 100);
    println!("{users} users, heap bytes (blocks)\n");
    println!("{:22}  idle user, 1 connection  2nd connection  3rd", "");
    for capacity in [16, 64, 256] {
        let hub = GenericBroadcaster::<Text>::builder()
            .ring_capacity(capacity)
            .build()
            .expect("the settings are valid");
        let mut kept = Vec::new();
        let costs = [(); 3].map(|()| {
            Cost::of_each(users, &mut kept, |n| {
                hub.register(user(n)).expect("three are below the cap")
            })
        });
        row(&format!("tidings, capacity {capacity}"), &costs);
    }
    let runtime = current_thread();
    let hub = LockedHub::default();
    let mut kept = Vec::new();
    let costs = [(); 3].map(|()| {
        Cost::of_each(users, &mut kept, |n| {
            runtime.block_on(hub.register(user(n).into(), ConnectionId::generate()))
        })
    });
    row("RwLock and mpsc", &costs);
    println!(
        "\nA `Subscription` itself has {} bytes.",
        size_of::<Subscription>()
    );
}

fn user(n: usize) -> String {
    format!("user-{n:07}")
}

fn row(name: &str, costs: &[Cost; 3]) {
    let [first, second, third] = costs
        .each_ref()
        .map(|cost| format!("{:.0} ({:.1})", cost.bytes, cost.blocks));
    println!("{name:22}  {first:>23}  {second:>14}  {third:>14}");
}
