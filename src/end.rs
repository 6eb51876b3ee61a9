//! Why a stream ended.

use std::fmt;

/// Why a connection ended.
///
/// The first reason counts: a drained stream counts as drained even if its client then disconnects early. Found in four places:
/// [`Subscription::end_reason`](crate::Subscription::end_reason), the log line `left` (at `debug`, in the connection's span, as
/// `reason`), [`Stats::ended`](crate::Stats::ended), and the metric `tidings_ended_total` under its label `reason`. The log and
/// the metric use the [names](Self::as_str) given here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// `dropped`: the stream was dropped before anything else ended it. Usually the client has closed its connection or
    /// lost it. A server that gives up on a client, for example because it takes nothing, drops the stream as well;
    /// `Stalls` (feature `serve`) counts that.
    Dropped,
    /// `completed`: its channel is [complete](crate::GenericBroadcaster::complete), or its [`View`](crate::sse::View)
    /// or [`SseBody::until`](crate::SseBody::until) ended it at an event, after which there was nothing more to show.
    Completed,
    /// `unregistered`: by [`unregister`](crate::GenericBroadcaster::unregister), or by another connection that
    /// [took over](crate::GenericBroadcaster::take_over) its id.
    Unregistered,
    /// `disconnected`: by [`disconnect_user`](crate::GenericBroadcaster::disconnect_user).
    Disconnected,
    /// `drained`: by [`drain_user`](crate::GenericBroadcaster::drain_user).
    Drained,
    /// `forgotten`: by [`forget`](crate::GenericBroadcaster::forget).
    Forgotten,
    /// `behind`: a [sweep](crate::GenericBroadcaster::sweep) found that it had been further behind, and for longer,
    /// than the [patience](crate::Builder::patience) allows.
    Behind,
    /// `gap`: events were missing, and its [`LagPolicy`](crate::LagPolicy) or its [`View`](crate::sse::View) ended it
    /// for that reason.
    Gap,
    /// `deadline`: its [deadline](crate::Subscription::deadline) had passed.
    Deadline,
    /// `shutdown`: by a [shutdown](crate::GenericBroadcaster::shutdown) of the broadcaster.
    Shutdown,
}

impl EndReason {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 10] = [
        Self::Dropped,
        Self::Completed,
        Self::Unregistered,
        Self::Disconnected,
        Self::Drained,
        Self::Forgotten,
        Self::Behind,
        Self::Gap,
        Self::Deadline,
        Self::Shutdown,
    ];

    /// Its name in the log and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Completed => "completed",
            Self::Unregistered => "unregistered",
            Self::Disconnected => "disconnected",
            Self::Drained => "drained",
            Self::Forgotten => "forgotten",
            Self::Behind => "behind",
            Self::Gap => "gap",
            Self::Deadline => "deadline",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
