//! What a stream does when it has lost events.

/// What a stream does when it has fallen behind so far that events were overwritten before it read them.
///
/// With a [history](crate::History) such a stream reads from there what the ring has lost, and goes on as if nothing had
/// happened. The policy applies to what the history has dropped as well, and, with a replayable
/// [backplane](crate::backplane), to what the engine's log has dropped or does not return in time
/// ([`Builder::backplane_patience`](crate::Builder::backplane_patience)).
///
/// Set for all streams of a broadcaster ([`Builder::lag_policy`](crate::Builder::lag_policy)) or for one
/// ([`Subscription::lag_policy`](crate::Subscription::lag_policy)). Whatever the policy, what was lost is counted: for the
/// connection, for its user and in [`Stats::lagged`](crate::Stats::lagged). A loss of an unknown number counts as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LagPolicy {
    /// The client gets the event `gap`, and the stream goes on with the oldest event that is still there.
    ///
    /// The same happens at the beginning of a stream whose client names an event that the history cannot go on from.
    #[default]
    Gap,
    /// The client gets the event `gap`, and the stream ends cleanly. A client that reconnects begins afresh; one that is
    /// always too slow reconnects again and again.
    Disconnect,
    /// Of the events that were lost, the stream yields the newest of each [key](crate::Meta::key), in order, and leaves
    /// out those that these replace. The client gets a `gap` only if a lost event may have no replacement: one without
    /// a key, with one of too many keys ([`Builder::coalesce_keys`](crate::Builder::coalesce_keys)), or for which the
    /// history had no room. `missed` then counts those that were left out; if many keys have new events, there may be a
    /// gap for each 32 events.
    ///
    /// For events that say how things *are*: progress, presence, a price. It is wrong for events that say how things
    /// *change*: the client would miss each change that is left out.
    Coalesce,
    /// The stream ends cleanly, without the event `gap`: for clients that treat an unknown event as an error, as those of
    /// AG-UI and A2A do. It ends in the same way for a client that names an event from which the history cannot go on.
    ///
    /// The end tells the client that events are missing. If the client may have an id, the response ends with another one,
    /// with which the next request succeeds ([`Subscription::restart_id`](crate::Subscription::restart_id)): that stream goes
    /// on after the gap, with what the history still has. Events that the history drops before the client is back belong to
    /// the same gap, so they do not end the stream again. Events that are broadcast afterwards and lost are another gap.
    End,
}
