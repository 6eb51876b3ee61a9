//! What a stream does when it has lost events.

/// What a stream does when it has fallen behind so far that events were overwritten before it read them.
///
/// Set for all streams of a broadcaster ([`Builder::lag_policy`](crate::Builder::lag_policy)) or for one
/// ([`Subscription::lag_policy`](crate::Subscription::lag_policy)). Whatever the policy, what was lost is counted: for the
/// connection, for its user and in [`Stats::lagged`](crate::Stats::lagged).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LagPolicy {
    /// The client is told (the event `gap`), and the stream goes on with the oldest event that is still there.
    #[default]
    Gap,
    /// The client is told, and the stream ends cleanly. A client that reconnects begins with a clear view; one that is
    /// always too slow reconnects again and again.
    Disconnect,
    /// The stream ends cleanly, without an event that tells why: for clients that would take an event they do not know
    /// for an error, as those of AG-UI and A2A do.
    End,
}
