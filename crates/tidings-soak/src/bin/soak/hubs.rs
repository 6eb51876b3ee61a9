//! The broadcasters of a server, and what may be asked of each.

use std::time::Duration;

use tidings::backplane::Level;
use tidings::{GenericBroadcaster, History, LagPolicy};
use tidings_testkit::backplane::InProcess;

use crate::event::News;

pub(crate) type Broadcaster = GenericBroadcaster<News>;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hub {
    pub(crate) name: &'static str,
    /// What its events are called: nodes of one cluster have them in common.
    pub(crate) topic: &'static str,
    /// Connections of a user.
    pub(crate) cap: usize,
    /// Connections in all.
    pub(crate) total: Option<usize>,
    /// Whether events have ids, which are looked up in a history.
    pub(crate) history: bool,
    /// Whether it forgets the history of a user who is away, and that soon.
    pub(crate) forgets: bool,
    pub(crate) policies: &'static [Policy],
}

/// Nodes of one cluster, the one that is asked to broadcast a user's events and the other.
pub(crate) const PAIR: [&str; 2] = ["here", "there"];

/// Where a user's own connections are all there are.
pub(crate) const FEW: &str = "few";

pub(crate) const ALL: [Hub; 7] = [
    Hub {
        name: "ring",
        topic: "ring",
        cap: 6,
        total: None,
        history: false,
        forgets: false,
        policies: &[Policy::Gap, Policy::Disconnect, Policy::End],
    },
    Hub {
        name: "kept",
        topic: "kept",
        cap: 6,
        total: None,
        history: true,
        forgets: false,
        policies: &[Policy::Gap, Policy::Disconnect, Policy::End],
    },
    Hub {
        name: "brief",
        topic: "brief",
        cap: 6,
        total: None,
        history: true,
        forgets: true,
        policies: &[Policy::Gap],
    },
    Hub {
        name: "keys",
        topic: "keys",
        cap: 6,
        total: None,
        history: false,
        forgets: false,
        policies: &[Policy::Coalesce],
    },
    Hub {
        name: FEW,
        topic: FEW,
        cap: 6,
        total: Some(20),
        history: false,
        forgets: false,
        policies: &[Policy::Gap],
    },
    Hub {
        name: PAIR[0],
        topic: "pair",
        cap: 6,
        total: None,
        history: true,
        forgets: true,
        policies: &[Policy::Gap],
    },
    Hub {
        name: PAIR[1],
        topic: "pair",
        cap: 6,
        total: None,
        history: true,
        forgets: true,
        policies: &[Policy::Gap],
    },
];

impl Hub {
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|hub| hub.name == name)
    }

    pub(crate) fn is_node(&self) -> bool {
        PAIR.contains(&self.name)
    }

    /// Whether clients come to it as they please.
    pub(crate) fn has_crowd(&self, has_nodes: bool) -> bool {
        self.name != FEW && (has_nodes || !self.is_node())
    }

    pub(crate) fn is_keyed(&self) -> bool {
        self.policies.contains(&Policy::Coalesce)
    }

    /// Of clients that do not read, those of one broadcaster are taken out by sweeps, before the server gives them up.
    fn patience(&self) -> Duration {
        Duration::from_secs(if self.is_keyed() { 1 } else { 5 })
    }

    /// Needs a runtime. Nodes that are built with the same engine are of one cluster.
    pub(crate) fn build(&self, engine: &InProcess) -> Broadcaster {
        let mut builder = Broadcaster::builder()
            .name(self.name)
            .ring_capacity(16)
            .connections_per_user(self.cap)
            .total_connections(self.total)
            .patience(if self.history { 64 } else { 16 }, self.patience())
            .sweep_every(Duration::from_millis(500));
        if self.history {
            let linger = if self.forgets { 1 } else { 3600 };
            let history = History::new(64).linger(Duration::from_secs(linger));
            builder = builder.history(match self.name {
                "brief" => history.away_users(20).age(Duration::from_secs(3)),
                _ => history,
            });
        }
        if self.is_keyed() {
            builder = builder.lag_policy(LagPolicy::Coalesce);
        }
        if self.is_node() {
            builder = builder.backplane(engine.node());
        }
        builder.build().expect("the settings are valid")
    }
}

/// An engine that keeps as much of each user as its nodes do.
pub(crate) fn engine() -> InProcess {
    InProcess::keeping(Level::Replayable, 64)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Gap,
    Disconnect,
    Coalesce,
    End,
}

impl Policy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Disconnect => "disconnect",
            Self::Coalesce => "coalesce",
            Self::End => "end",
        }
    }

    pub(crate) fn named(name: &str) -> LagPolicy {
        match name {
            "disconnect" => LagPolicy::Disconnect,
            "coalesce" => LagPolicy::Coalesce,
            "end" => LagPolicy::End,
            _ => LagPolicy::Gap,
        }
    }
}
