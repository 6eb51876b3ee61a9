//! Connections that have left leave nothing behind. Alone in its binary, because it looks at the memory of the whole
//! process.

use std::alloc::System;
use std::sync::Barrier;
use std::thread;

use futures_util::{FutureExt, StreamExt};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidings::{ConnectionId, GenericBroadcaster, Text};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const THREADS: usize = 8;

fn bytes_in_use() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// Registers and drops on 8 threads at once, some of them the same users, and in every way.
fn churn(hub: &GenericBroadcaster<Text>, cycles: usize) {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for cycle in 0..cycles / THREADS {
                    let user = match cycle % 3 {
                        0 => "ann".to_owned(),
                        1 => format!("user {}", cycle % 17),
                        _ => format!("user {number} {cycle}"),
                    };
                    let id = ConnectionId::from(format!("{number}"));
                    let mut stream = hub.register_as(&*user, &id).expect("no cap is reached");
                    match cycle % 5 {
                        0 => {
                            hub.drain_user(&user);
                        }
                        1 => {
                            hub.unregister(&user, &id);
                        }
                        2 => {
                            let event = Text::new("hello".to_owned());
                            hub.broadcast(&user, &event).expect("text can be encoded");
                            let _ = stream.next().now_or_never();
                        }
                        _ => {}
                    }
                    drop(stream);
                }
            });
        }
    });
}

#[test]
fn a_hundred_thousand_connections_leave_nothing_behind() {
    let hub = GenericBroadcaster::<Text>::new();
    // What threads and libraries keep for ever, they allocate here.
    churn(&hub, 8_000);
    let before = bytes_in_use();
    churn(&hub, 100_000);
    let grown = bytes_in_use() - before;

    let stats = hub.stats();
    assert_eq!((stats.users, stats.connections), (0, 0));
    assert_eq!(stats.registered, 108_000);
    assert!(hub.connected_users().is_empty());
    assert!(hub.connection_info().is_empty());
    // A tenth of a byte a connection: not even one leaked allocation in a thousand would fit.
    assert!(grown < 10_000, "{grown} bytes more than before");
}
