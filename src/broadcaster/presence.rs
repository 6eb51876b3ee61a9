//! A stream of arrivals and departures of users.

use std::collections::hash_map::IntoKeys;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use super::GenericBroadcaster;
use crate::frame::Frame;
use crate::id::UserId;
use crate::registry::Watch;
use crate::time::LONGEST;

/// A user came, or has left; see [`GenericBroadcaster::presence`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Presence {
    /// The user has a connection.
    Came(UserId),
    /// The user has had no connection for the grace period.
    Left(UserId),
}

impl<E: ?Sized> GenericBroadcaster<E> {
    /// Reports which users come and leave, beginning with those who are connected now.
    ///
    /// A user comes with the first connection, and has left when none has been open for `grace`: a page that reloads within that
    /// time is no departure. For one user [`Came`](Presence::Came) and [`Left`](Presence::Left) alternate, and the last one is
    /// true, however connections come and leave at the same time. A stream that is polled late misses short visits and short
    /// absences. The grace period runs from the poll that finds the user absent.
    ///
    /// Connections of [observers](Self::observe) do not count. Those that were [drained](Self::drain_user) or
    /// [forgotten](Self::forget) count as closed from that call on, although each still reads what was sent before. A [`Hold`]
    /// and a history that lingers are no presence.
    ///
    /// After a [`shutdown`](Self::shutdown) the stream reports every user as left and ends, without waiting for the grace
    /// period; so it does when the last clone of the broadcaster and the last subscription are dropped. Until then departures
    /// during a shutdown are reported as at other times.
    ///
    /// The stream sees the connections of this node only. The guide on [operations][guide] sums over nodes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::{Hub, Presence, Text};
    /// use tokio_stream::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::<Text>::new();
    /// let mut presence = hub.presence(Duration::from_secs(5));
    ///
    /// let page = hub.register("ann")?;
    /// assert_eq!(presence.next().await, Some(Presence::Came("ann".into())));
    /// drop(page);
    /// assert_eq!(presence.next().await, Some(Presence::Left("ann".into())));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cost
    ///
    /// Without such a stream, one relaxed load for each connection that comes or leaves. With one, an entry in a set behind a
    /// mutex that all users share. The stream holds the id of each user who is here, and of each one who came or left since it
    /// was last polled, once: drop a stream that is no longer read. It does not keep the broadcaster alive.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its timer enabled, polling the stream panics once it waits for a grace period. One
    /// of zero needs none.
    ///
    /// [`Hold`]: crate::Hold
    /// [guide]: https://docs.rs/tidings/latest/tidings/guide/operations/index.html
    pub fn presence(&self, grace: Duration) -> PresenceStream {
        PresenceStream {
            watch: self.registry.watch(),
            grace: grace.min(LONGEST),
            reported: HashMap::new(),
            due: BTreeSet::new(),
            timer: None,
            rest: None,
        }
    }
}

/// Users who come and leave: see [`GenericBroadcaster::presence`].
///
/// Dropping it between two items loses nothing but the items to come.
#[must_use = "a stream does nothing unless it is polled"]
pub struct PresenceStream {
    watch: Watch<Arc<Frame>>,
    grace: Duration,
    /// Users who are here according to the stream, and when one who is absent will have left.
    reported: HashMap<UserId, Option<Instant>>,
    /// Absent users, by that time.
    due: BTreeSet<(Instant, UserId)>,
    /// Set to the first of these times, or to one before it.
    timer: Option<Pin<Box<Sleep>>>,
    /// Once the watch is over: users still to be reported as left.
    rest: Option<IntoKeys<UserId, Option<Instant>>>,
}

impl PresenceStream {
    /// Compares the user's state with what was reported.
    fn compare(&mut self, user: UserId, is_here: bool) -> Option<Presence> {
        let Some(leaves_at) = self.reported.get_mut(&user) else {
            if !is_here {
                return None;
            }
            self.reported.insert(user.clone(), None);
            return Some(Presence::Came(user));
        };
        match (is_here, *leaves_at) {
            (true, Some(at)) => {
                *leaves_at = None;
                self.due.remove(&(at, user));
            }
            (false, None) if self.grace.is_zero() => {
                self.reported.remove(&user);
                return Some(Presence::Left(user));
            }
            (false, None) => {
                let at = Instant::now() + self.grace;
                *leaves_at = Some(at);
                self.due.insert((at, user));
            }
            _ => {}
        }
        None
    }

    /// The next user whose grace period is over and who is still absent.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Presence> {
        loop {
            let Some((at, _)) = self.due.first() else {
                self.timer = None;
                return Poll::Pending;
            };
            let at = *at;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            let (_, user) = self.due.pop_first().expect("the first was found");
            // A user who came back may be marked only after this look.
            if self.watch.is_here(&user) {
                self.reported.insert(user, None);
            } else {
                self.reported.remove(&user);
                return Poll::Ready(Presence::Left(user));
            }
        }
    }
}

impl Stream for PresenceStream {
    type Item = Presence;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Presence>> {
        let this = self.get_mut();
        if this.rest.is_none() {
            // Departures first: a reader slower than the arrivals would otherwise never learn of them.
            if let Poll::Ready(left) = this.poll_due(cx) {
                return Poll::Ready(Some(left));
            }
        }
        loop {
            if let Some(rest) = &mut this.rest {
                return Poll::Ready(rest.next().map(Presence::Left));
            }
            let turn = ready!(coop::poll_proceed(cx));
            match this.watch.poll_next(cx) {
                Poll::Ready(Some((user, is_here))) => {
                    turn.made_progress();
                    if let Some(change) = this.compare(user, is_here) {
                        return Poll::Ready(Some(change));
                    }
                }
                Poll::Ready(None) => {
                    this.rest = Some(mem::take(&mut this.reported).into_keys());
                }
                Poll::Pending => {
                    drop(turn);
                    return this.poll_due(cx).map(Some);
                }
            }
        }
    }
}

impl fmt::Debug for PresenceStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceStream")
            .field("grace", &self.grace)
            .field("reported", &self.reported.len())
            .finish_non_exhaustive()
    }
}
