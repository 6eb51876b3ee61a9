//! How the cost of an event grows with users, streams, size and rate.

use std::io;

use crate::design::{Design, Server};
use crate::generator::{Generator, OPENING};
use crate::support::{Mode, kernel, median};

/// One point: events for users in turn.
#[derive(Debug, Clone, Copy)]
struct Point {
    users: usize,
    each: usize,
    size: usize,
    /// Events a second; 0 for as many as can be with [`WINDOW`] in flight.
    rate: u64,
    events: u64,
}

/// Few enough that no stream waits for another event, unless there is but one user.
const WINDOW: u64 = 16;

const BASE: Point = Point {
    users: 1000,
    each: 1,
    size: 100,
    rate: 0,
    events: 20_000,
};

/// What grows, tenfold at each step, and everything else stays.
fn rows() -> [(&'static str, Vec<(usize, Point)>); 4] {
    let users = [100, 1000, 10_000].map(|users| (users, Point { users, ..BASE }));
    let each = [1, 10, 100].map(|each| {
        let events = BASE.events / each as u64 * 2;
        (
            each,
            Point {
                users: 100,
                each,
                events,
                ..BASE
            },
        )
    });
    let size = [100, 1000, 10_000, 100_000].map(|size| {
        let events = BASE.events.min(200_000_000 / size as u64);
        (
            size,
            Point {
                size,
                events,
                ..BASE
            },
        )
    });
    let rate = [100, 1000, 10_000].map(|rate| {
        let events = (rate * 3).min(BASE.events);
        (
            rate as usize,
            Point {
                rate,
                events,
                ..BASE
            },
        )
    });
    [
        ("users", users.to_vec()),
        ("streams of each of 100 users", each.to_vec()),
        ("bytes", size.to_vec()),
        ("events a second", rate.to_vec()),
    ]
}

/// Microseconds of the server's CPU for an event.
fn cost(point: Point, mode: Mode) -> io::Result<f64> {
    let users = mode.pick(point.users, 10);
    let events = mode.pick(point.events, 100);
    let server = Server::start(Design::Serve, users, 1)?;
    let (mut clients, _) = Generator::open(&server, users, point.each, OPENING)?;
    let window = if point.rate > 0 { u64::MAX } else { WINDOW };
    clients.run((events / 10).max(1), point.size, window, 0)?;
    let before = kernel::cpu_nanos(server.pid());
    clients.run(events, point.size, window, point.rate)?;
    Ok((kernel::cpu_nanos(server.pid()) - before) / 1e3 / events as f64)
}

pub(crate) fn table(mode: Mode, rounds: usize) -> io::Result<()> {
    println!(
        "\ngrowth: CPU of `tidings, serve`; 1,000 users x 1 stream, 100 B, 16 in flight, but for\n"
    );
    println!("| | | per event | per delivery |");
    println!("|---|---|---|---|");
    for (name, points) in rows() {
        for (value, point) in points {
            let costs: io::Result<Vec<f64>> = (0..rounds).map(|_| cost(point, mode)).collect();
            let event = median(&mut costs?);
            let delivery = event / point.each as f64;
            println!("| {name} | {value} | {event:.1} µs | {delivery:.1} µs |");
        }
    }
    Ok(())
}
