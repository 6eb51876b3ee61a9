//! A task that broadcasts in place of the caller.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;

use super::GenericBroadcaster;
use super::many::Many;
use crate::error::ConfigError;
use crate::event::ToSse;
use crate::id::UserId;
use crate::sync::SHARDS;

/// Hands events to a task that broadcasts them.
///
/// [`broadcast`](GenericBroadcaster::broadcast) encodes the event and wakes every stream that waits for it before it
/// returns. For the tabs of one user that is a microsecond; for ten thousand screens of one user it is three milliseconds in
/// which the caller does nothing else (`cargo bench --bench publisher`). A publisher spares the caller this, at the price of
/// a queue: an event takes memory until it is broadcast, arrives a little later, and the caller does not learn how many
/// streams it reached. Events of one publisher are broadcast in their order.
///
/// It has no method for ephemeral events: of these only the newest matter, and one that waits in a queue is late. Call
/// [`broadcast_ephemeral`](GenericBroadcaster::broadcast_ephemeral).
///
/// Cloning it costs a reference count. The task broadcasts what is in the queue after the last clone is dropped, and ends
/// then; until it has ended, it keeps the broadcaster. An event that cannot be encoded is counted in
/// [`Stats::failed`](crate::Stats::failed) and logged; one whose [`ToSse`] panics is only logged.
///
/// ```
/// use tidings::{GenericBroadcaster, Text};
/// use tokio_stream::StreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = GenericBroadcaster::<Text>::new();
/// let mut screen = hub.register("wall")?;
/// let publisher = hub.publisher(1000)?;
/// publisher.try_publish("wall", Text::new("gate 7 is open"))?;
/// assert_eq!(screen.next().await.unwrap()?.data(), "gate 7 is open");
/// # Ok(())
/// # }
/// ```
pub struct Publisher<E> {
    queue: mpsc::Sender<Job<E>>,
}

enum Job<E> {
    Broadcast(To, E),
    Answer(oneshot::Sender<()>),
}

/// The users that an event is for.
enum To {
    User(UserId),
    Users(Vec<UserId>),
    All,
}

/// How many users get an event before the task yields.
const PART: usize = 256;

impl<E: ToSse + Send + 'static> GenericBroadcaster<E> {
    /// Starts a task that broadcasts the events it is handed, with room for `queue` of them to wait.
    ///
    /// # Errors
    ///
    /// When `queue` is zero, or there is no tokio runtime to start the task in.
    pub fn publisher(&self, queue: usize) -> Result<Publisher<E>, ConfigError> {
        if queue == 0 {
            return Err(ConfigError::EmptyQueue);
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        // More than can ever be allocated is as good as no bound.
        let queue = queue.min(tokio::sync::Semaphore::MAX_PERMITS);
        let (sender, mut jobs) = mpsc::channel(queue);
        let hub = self.clone();
        runtime.spawn(async move {
            while let Some(job) = jobs.recv().await {
                match job {
                    Job::Broadcast(to, event) => hub.broadcast_whatever(to, event).await,
                    // The caller may have stopped waiting.
                    Job::Answer(answer) => drop(answer.send(())),
                }
            }
        });
        Ok(Publisher { queue: sender })
    }

    /// Broadcasts one event to the end: later jobs wait for it.
    async fn broadcast_whatever(&self, to: To, event: E) {
        let parts = match &to {
            To::User(user) => {
                survive(Some(user), || drop(self.broadcast(user, &event)));
                return;
            }
            To::Users(users) => users.len().div_ceil(PART),
            To::All => SHARDS,
        };
        let mut many = Many::default();
        let mut sent = Some(Ok(()));
        for part in 0..parts {
            sent = survive(None, || match &to {
                To::Users(users) => {
                    let mut users = users[part * PART..].iter().take(PART);
                    users.try_for_each(|user| many.send_to_user(self, user, &event))
                }
                _ => many.send_to_shard(self, part, &event),
            });
            if !matches!(sent, Some(Ok(()))) {
                break;
            }
            yield_now().await;
        }
        sent.map(|sent| many.count(self, sent));
    }
}

/// Runs a broadcast, whose event's [`ToSse`] may panic. The broadcast itself counts and logs an event that cannot be encoded.
fn survive<R>(user: Option<&UserId>, broadcast: impl FnOnce() -> R) -> Option<R> {
    // The event is only read, and not used again.
    let result = catch_unwind(AssertUnwindSafe(broadcast));
    if result.is_err() {
        tracing::error!(
            user = user.map(UserId::as_str),
            "the event of a publisher panicked"
        );
    }
    result.ok()
}

impl<E> Publisher<E> {
    /// Hands over an event, if there is room for it.
    ///
    /// # Errors
    ///
    /// When there is no room, or the runtime of the task has ended. The error has the event.
    pub fn try_publish(&self, user: impl Into<UserId>, event: E) -> Result<(), PublishError<E>> {
        self.try_send(To::User(user.into()), event)
    }

    /// Hands over an event for [many users](GenericBroadcaster::broadcast_many), if there is room for it. It takes one place in
    /// the queue, and the memory of the users' ids.
    ///
    /// The task sends it in parts, and lets other tasks run in between: after each 256 users. What was handed over later waits
    /// until all of them have it. What is broadcast elsewhere meanwhile comes before it for one user and after it for another.
    ///
    /// # Errors
    ///
    /// As [`try_publish`](Self::try_publish).
    pub fn try_publish_many<U: Into<UserId>>(
        &self,
        users: impl IntoIterator<Item = U>,
        event: E,
    ) -> Result<(), PublishError<E>> {
        self.try_send(To::of(users), event)
    }

    /// Hands over an event for [all users of this node](GenericBroadcaster::broadcast_all), if there is room for it. Sent in
    /// 64 parts, else as by [`try_publish_many`](Self::try_publish_many).
    ///
    /// # Errors
    ///
    /// As [`try_publish`](Self::try_publish).
    pub fn try_publish_all(&self, event: E) -> Result<(), PublishError<E>> {
        self.try_send(To::All, event)
    }

    fn try_send(&self, to: To, event: E) -> Result<(), PublishError<E>> {
        use mpsc::error::TrySendError;
        let job = Job::Broadcast(to, event);
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) => PublishError::Full(job.event()),
            TrySendError::Closed(job) => PublishError::Stopped(job.event()),
        })
    }

    /// Hands over an event, waiting for room.
    ///
    /// # Errors
    ///
    /// When the runtime of the task has ended. The error has the event.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped before it is ready, the event is dropped with it, and was not handed over.
    pub async fn publish(&self, user: impl Into<UserId>, event: E) -> Result<(), PublishError<E>> {
        self.send(To::User(user.into()), event).await
    }

    /// Hands over an event for many users, waiting for room; see [`try_publish_many`](Self::try_publish_many).
    ///
    /// ```
    /// use tidings::{GenericBroadcaster, Text};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = GenericBroadcaster::<Text>::new();
    /// let publisher = hub.publisher(100)?;
    /// let room = ["ann", "bob"];
    /// publisher.publish_many(room, Text::new("hello")).await?;
    /// publisher.publish_all(Text::new("back at noon")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_many<U: Into<UserId>>(
        &self,
        users: impl IntoIterator<Item = U>,
        event: E,
    ) -> Result<(), PublishError<E>> {
        self.send(To::of(users), event).await
    }

    /// Hands over an event for all users of this node, waiting for room; see [`try_publish_all`](Self::try_publish_all).
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_all(&self, event: E) -> Result<(), PublishError<E>> {
        self.send(To::All, event).await
    }

    async fn send(&self, to: To, event: E) -> Result<(), PublishError<E>> {
        let sent = self.queue.send(Job::Broadcast(to, event)).await;
        sent.map_err(|error| PublishError::Stopped(error.0.event()))
    }

    /// Waits until every event that was handed over before is broadcast. `false` if the runtime of the task has ended, and
    /// some may not have been.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens to the events when the future is dropped.
    pub async fn flush(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Job::Answer(answer)).await.is_ok() && answered.await.is_ok()
    }
}

impl To {
    fn of<U: Into<UserId>>(users: impl IntoIterator<Item = U>) -> Self {
        Self::Users(users.into_iter().map(Into::into).collect())
    }
}

impl<E> Job<E> {
    fn event(self) -> E {
        match self {
            Self::Broadcast(_, event) => event,
            Self::Answer(_) => unreachable!("only events are handed back"),
        }
    }
}

impl<E> Clone for Publisher<E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<E> fmt::Debug for Publisher<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("room", &self.queue.capacity())
            .finish_non_exhaustive()
    }
}

/// An event was not handed over. The error holds it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError<E> {
    /// The queue is full.
    Full(E),
    /// The runtime of the task has ended.
    Stopped(E),
}

impl<E> PublishError<E> {
    /// The event.
    pub fn into_event(self) -> E {
        match self {
            Self::Full(event) | Self::Stopped(event) => event,
        }
    }
}

impl<E> fmt::Debug for PublishError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Stopped(_) => "Stopped(..)",
        })
    }
}

impl<E> fmt::Display for PublishError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the publisher has no room for another event",
            Self::Stopped(_) => "the publisher's runtime has ended",
        })
    }
}

impl<E> Error for PublishError<E> {}
