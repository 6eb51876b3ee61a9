//! Who serves, and how it is started.

use std::io;
use std::net::SocketAddr;
use std::process::Command;

use crate::nchan::Nchan;
use crate::support::process::{Process, part_command};
use crate::{bare, hubs, reactor};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Design {
    Bare,
    Reactor,
    Tasks,
    Serve,
    AxumServe,
    Locked,
    Bounded,
    ByHand,
    Nchan,
}

impl Design {
    pub(crate) const ALL: [Self; 9] = [
        Self::Bare,
        Self::Reactor,
        Self::Tasks,
        Self::Serve,
        Self::AxumServe,
        Self::Locked,
        Self::Bounded,
        Self::ByHand,
        Self::Nchan,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare send loop",
            Self::Reactor => "bare reactor",
            Self::Tasks => "bare tokio tasks",
            Self::Serve => "tidings, serve",
            Self::AxumServe => "tidings, axum::serve",
            Self::Locked => "RwLock map, Sse",
            Self::Bounded => "RwLock map, bounded, Sse",
            Self::ByHand => "broadcast by hand, Sse",
            Self::Nchan => "nginx, nchan",
        }
    }

    /// Whether it is a server, and not a limit: it notices that clients have gone, and limits what it keeps for them.
    pub(crate) fn cleans_up(self) -> bool {
        !matches!(self, Self::Bare | Self::Reactor | Self::Tasks)
    }

    fn index(self) -> usize {
        let position = Self::ALL.iter().position(|&other| other == self);
        position.expect("it is one of all")
    }

    /// In a process of its own.
    pub(crate) fn be(args: &[String]) -> io::Result<()> {
        let number = |n: usize| args[n].parse::<usize>().expect("a number");
        let (design, users, workers) = (Self::ALL[number(0)], number(1), number(2));
        match design {
            Self::Bare => bare::be_server(users),
            Self::Reactor => reactor::be_server(users),
            design => hubs::be_server(design, users, workers),
        }
    }
}

/// A server that runs, until it is dropped.
pub(crate) enum Server {
    Own(Process),
    Nchan(Nchan),
}

impl Server {
    /// With one worker on a core of its own, or with more on any.
    pub(crate) fn start(design: Design, users: usize, workers: usize) -> io::Result<Self> {
        if design == Design::Nchan {
            return Nchan::start(users).map(Self::Nchan);
        }
        let part = part_command([design.index(), users, workers].map(|n| n.to_string()));
        let cores = if workers > 1 { "0,1" } else { "0" };
        let mut command = on_cores(cores, part.get_program());
        command.args(part.get_args());
        Ok(Self::Own(Process::start(command)))
    }

    /// How many connections and users it says that it has, if it can say.
    pub(crate) fn left(&mut self) -> usize {
        match self {
            Self::Own(process) => process.ask_number("left"),
            Self::Nchan(_) => 0,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Own(process) => process.pid(),
            Self::Nchan(nchan) => nchan.worker(),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::Own(process) => process.addr(),
            Self::Nchan(nchan) => nchan.addr,
        }
    }

    /// Where it is told what to publish.
    pub(crate) fn control(&self) -> SocketAddr {
        match self {
            Self::Own(process) => {
                let control = process.first.split_whitespace().next();
                control
                    .and_then(|addr| addr.parse().ok())
                    .expect("its first line begins with it")
            }
            Self::Nchan(nchan) => nchan.control,
        }
    }
}

/// A command that stays on these cores, where util-linux and a second core are there for that.
pub(crate) fn on_cores(cores: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !can_pin() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command
}

/// Moves this process to a core.
pub(crate) fn move_to_core(core: usize) {
    if can_pin() {
        let _ = Command::new("taskset")
            .args(["-cp", &core.to_string(), &std::process::id().to_string()])
            .output();
    }
}

pub(crate) fn can_pin() -> bool {
    // Asked again after this process was pinned: what counts is the machine.
    let on = |core: &str| Command::new("taskset").args(["-c", core, "true"]).status();
    ["0", "1"]
        .iter()
        .all(|core| on(core).is_ok_and(|status| status.success()))
}
