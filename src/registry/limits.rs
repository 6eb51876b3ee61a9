//! What a broadcaster bounds.

use std::time::Duration;

use crate::channel::History;
use crate::error::RefusalForm;

/// The limits of a broadcaster, and how it refuses clients beyond them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Events that a user's ring holds.
    pub(crate) capacity: usize,
    /// Connections of one user.
    pub(crate) per_user: usize,
    /// Connections of all users.
    pub(crate) total: usize,
    /// How far and for how long a connection may be behind.
    pub(crate) patience: Patience,
    /// What is kept of each user's events.
    pub(crate) history: Option<History>,
    /// The number of keys whose newest event each channel keeps.
    pub(crate) keys: usize,
    /// How to refuse when one of the caps is reached.
    pub(crate) when_full: RefusalForm,
    pub(crate) when_shutting_down: RefusalForm,
}

/// How far behind a connection may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How many events it may be behind.
    pub(crate) behind: u64,
    /// For how long it may be behind by more than that.
    pub(crate) time: Duration,
}
