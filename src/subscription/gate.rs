//! What stands between a channel and one client where there are several nodes.

use std::task::{Context, Poll};

use crate::gap::Gap;
use crate::position::Position;

/// Gives a client what it missed on another node, and keeps from it what it has seen there.
pub(crate) trait Gate<T>: Send + Sync + std::fmt::Debug {
    /// What comes before anything that the channel has; `None` from when there is no more of it.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Gap>>>;

    /// What becomes of a gap that the channel has, which has sent so many notices of gaps by now. `None` if the client
    /// lacks nothing of it.
    fn widen(&mut self, gap: Gap, notices: u64) -> Option<Gap>;

    /// Where the client is that has everything of its channel, which is at this place; `None` if more comes before that.
    fn place(&self, channel: Position) -> Option<Position>;

    /// What becomes of an event that the channel has.
    fn pass(&mut self, event: T) -> Pass<T>;
}

/// What becomes of an event on its way to a client.
pub(crate) enum Pass<T> {
    /// The client gets it.
    Event(T),
    /// It is none, but tells of a gap.
    Gap(Gap),
    /// The client has it.
    Nothing,
}
