//! The table, and the bounds that were broken.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::kernel;
use crate::support::process::Process;

#[derive(Default)]
pub(crate) struct Report {
    has_head: bool,
    missed: Vec<String>,
}

impl Report {
    pub(crate) fn row(&mut self, case: &str, sees: &str, pays: &str) {
        if !self.has_head {
            self.has_head = true;
            println!(
                "{:58} | {:52} | what the server pays",
                "", "what the client sees"
            );
        }
        println!("{case:58} | {sees:52} | {pays}");
    }

    /// Notes that a bound is broken if it is not so.
    pub(crate) fn check(&mut self, is_so: bool, otherwise: impl Into<String>) {
        if !is_so {
            self.missed.push(otherwise.into());
        }
    }

    pub(crate) fn end(self) -> ExitCode {
        for what in &self.missed {
            println!("missed: {what}");
        }
        match self.missed.len() {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

/// What a server has used when a case begins.
pub(crate) struct Meter {
    pid: u32,
    rss: f64,
    cpu: f64,
}

/// What it has used more in the end.
pub(crate) struct Bill {
    /// MB.
    pub(crate) peak: f64,
    /// MB, when it was over.
    pub(crate) back: f64,
    /// Seconds.
    pub(crate) cpu: f64,
}

impl Meter {
    pub(crate) fn start(server: &Process) -> Self {
        let pid = server.pid();
        kernel::reset_peak(pid);
        Self {
            pid,
            rss: kernel::rss_kb(pid),
            cpu: kernel::cpu_seconds(pid),
        }
    }

    /// Once nobody is there any more, and the memory had a moment to go back.
    pub(crate) fn end(&self) -> Bill {
        let cpu = kernel::cpu_seconds(self.pid) - self.cpu;
        let peak = (kernel::peak_kb(self.pid) - self.rss) / 1024.0;
        sleep(Duration::from_millis(200));
        Bill {
            peak,
            back: (kernel::rss_kb(self.pid) - self.rss) / 1024.0,
            cpu,
        }
    }
}

/// Waits until it is so; `false` if it is not within that time.
pub(crate) fn eventually(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > limit {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
    true
}
