//! What the benchmarks, and the programs of `tidings-soak`, share: the baseline, payloads, processes and clients, and the few lines of statistics that a
//! table needs.

// Each benchmark is a crate of its own and uses a part of this.
#![allow(dead_code, unused_imports)]

mod crowd;
mod farewell;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod kernel;
mod locked;
mod locked_stream;
mod numbered;
mod payload;
pub(crate) mod process;

use std::env;
use std::time::Duration;

pub(crate) use crowd::Crowd;
pub(crate) use farewell::Farewell;
pub(crate) use locked::LockedHub;
pub(crate) use numbered::{Numbers, numbered};
pub(crate) use payload::Messages;

/// What the program was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `cargo bench`: measure.
    Measure,
    /// `cargo test --benches`, or `cargo bench -- --test`: show that it runs, in no time.
    Try,
    /// `--list`: a test runner asks for names; a benchmark without criterion has none.
    List,
}

impl Mode {
    /// By the rules of criterion, so that all benchmarks obey the same arguments.
    pub(crate) fn of_args() -> Self {
        let has = |flag: &str| env::args().any(|arg| arg == flag);
        if has("--list") {
            Self::List
        } else if has("--bench") && !has("--test") {
            Self::Measure
        } else {
            Self::Try
        }
    }

    /// Of a program that passes or fails: all of it, or a short round when that is asked for, or when it runs as a test.
    pub(crate) fn of_program() -> Self {
        if cfg!(test) || env::args().any(|arg| arg == "--test") {
            Self::Try
        } else {
            Self::Measure
        }
    }

    /// The argument that says so.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Measure => "--bench",
            Self::Try => "--test",
            Self::List => "--list",
        }
    }

    /// What may come on top of a time that was promised: a tiny round may run on a machine that is busy with other things,
    /// and is not about that.
    pub(crate) fn slack(self) -> Duration {
        Duration::from_secs(self.pick(1, 5))
    }

    /// `full` when measuring, `tiny` when only trying.
    pub(crate) fn pick<T>(self, full: T, tiny: T) -> T {
        if self == Self::Measure { full } else { tiny }
    }
}

/// What stands after `--name` among the arguments.
pub(crate) fn text_option(name: &str) -> Option<String> {
    let mut args = env::args().skip_while(|arg| arg.strip_prefix("--") != Some(name));
    args.nth(1)
}

/// The number after `--name` among the arguments.
pub(crate) fn option(name: &str, default: usize) -> usize {
    match text_option(name) {
        None => default,
        Some(value) => value
            .parse()
            .unwrap_or_else(|_| panic!("--{name} takes a number, not {value:?}")),
    }
}

/// The word after `--name` among the arguments.
pub(crate) fn word(name: &str) -> Option<String> {
    let mut args = env::args().skip_while(|arg| arg.strip_prefix("--") != Some(name));
    args.nth(1)
}

/// A runtime for one thread, without a timer or sockets: the least that async code can be run on.
pub(crate) fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime needs nothing that could be missing")
}

/// The value below which the share `q` of all values lies. Sorts them.
pub(crate) fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// How much `y` changes for each `x`, by least squares.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let covariance: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let variance: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    covariance / variance
}

/// Numbers that look random and are the same in every run (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as usize % n
    }
}
