//! The waits of a test, each with the bound.
//!
//! The futures are not `async fn`s where they panic: these would not know where they were called.

use std::panic::Location;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::client::{PAUSED, SseClient};
use super::error::SseError;
use super::message::{Item, Message};

impl SseClient {
    /// Waits for the next event.
    ///
    /// # Errors
    ///
    /// [`SseError::TimedOut`] if none comes within the bound, [`SseError::Ended`] if the stream ends, or
    /// [`SseError::Broken`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn try_next(&mut self) -> Result<Message, SseError> {
        let mut got = Vec::new();
        self.gather("an event", &mut got, |got| !got.is_empty())
            .await?;
        Ok(got.remove(0))
    }

    /// Waits for the next event.
    ///
    /// # Panics
    ///
    /// Where [`try_next`](Self::try_next) has an error.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[allow(
        clippy::should_implement_trait,
        reason = "the name that streams have for it, and no iterator's, since it waits"
    )]
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Message> + Send {
        let caller = Location::caller();
        async move { or_panic(self.try_next().await, &[], caller) }
    }

    /// Waits for the next item of any kind: events, comments (such as keep-alives), ids and retries.
    ///
    /// ```
    /// # use tidings_testkit::{Item, SseClient};
    /// /// Reads the id that a stream with a history begins with, before there is an event.
    /// async fn cursor(client: &mut SseClient) -> String {
    ///     while client.last_event_id().is_empty() {
    ///         client.next_item().await;
    ///     }
    ///     client.last_event_id().to_owned()
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// If nothing comes within the bound, the stream ends or breaks.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[track_caller]
    pub fn next_item(&mut self) -> impl Future<Output = Item> + Send {
        let caller = Location::caller();
        async move {
            let (start, limit) = (Instant::now(), self.request.limit);
            let awaited = "anything".to_owned();
            let item = match timeout(limit, self.read_item()).await {
                Ok(Ok(item)) => item.ok_or(SseError::Ended { awaited }),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(self.timed_out(start, awaited)),
            };
            or_panic(item, &[], caller)
        }
    }

    /// Waits for this many events; the bound is for all of them together.
    ///
    /// # Panics
    ///
    /// If they do not come; the message has the last of those that did.
    ///
    /// # Cancel safety
    ///
    /// What was read is lost if the future is dropped.
    #[track_caller]
    pub fn collect(&mut self, count: usize) -> impl Future<Output = Vec<Message>> + Send {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            let awaited = format!("{count} events");
            let gathered = self.gather(&awaited, &mut got, |got| got.len() >= count);
            or_panic(gathered.await, &got, caller);
            got
        }
    }

    /// Waits for an event for which `is_last` is true, and returns it with all events before it; the bound is for all
    /// of them together.
    ///
    /// # Panics
    ///
    /// If none comes; the message has the last of those that did.
    ///
    /// # Cancel safety
    ///
    /// What was read is lost if the future is dropped.
    #[track_caller]
    pub fn collect_until<P>(&mut self, mut is_last: P) -> impl Future<Output = Vec<Message>> + Send
    where
        P: FnMut(&Message) -> bool + Send,
    {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            let is_enough = |got: &[Message]| got.last().is_some_and(&mut is_last);
            let gathered = self.gather("an event that fits", &mut got, is_enough);
            or_panic(gathered.await, &got, caller);
            got
        }
    }

    /// Waits for the end of the stream, and returns the events before it; the bound is for all of them together.
    ///
    /// # Panics
    ///
    /// If the stream does not end as it should; the message has the last of the events that came.
    ///
    /// # Cancel safety
    ///
    /// What was read is lost if the future is dropped.
    #[track_caller]
    pub fn collect_to_end(&mut self) -> impl Future<Output = Vec<Message>> + Send {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            match self.gather("the end", &mut got, |_| false).await {
                Err(SseError::Ended { .. }) => {}
                other => or_panic(other, &got, caller),
            }
            got
        }
    }

    /// Waits for the end of the stream. Items other than events may come before it, such as the `retry` of a shutdown.
    ///
    /// # Panics
    ///
    /// If an event comes first, or nothing within the bound, or if the connection breaks without an end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = ()> + Send {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            match self
                .gather("the end", &mut got, |got| !got.is_empty())
                .await
            {
                Err(SseError::Ended { .. }) => {}
                Ok(()) => panic!("not the end, but {:?}, at {caller}", got[0]),
                Err(error) => or_panic(Err(error), &[], caller),
            }
        }
    }

    /// Waits until the connection breaks, without a clean end of the stream, and returns the events before that: the
    /// server has cut the client.
    ///
    /// # Panics
    ///
    /// If the stream ends as it should, or does neither within the bound.
    ///
    /// # Cancel safety
    ///
    /// What was read is lost if the future is dropped.
    #[track_caller]
    pub fn expect_break(&mut self) -> impl Future<Output = Vec<Message>> + Send {
        let caller = Location::caller();
        async move {
            let mut got = Vec::new();
            match self.gather("a break", &mut got, |_| false).await {
                Err(SseError::Broken(_)) => {}
                other => or_panic(other, &got, caller),
            }
            got
        }
    }

    /// Asserts that no event arrives for this long. Comments, ids and retries are ignored; a heartbeat event counts as
    /// an event.
    ///
    /// # Panics
    ///
    /// If one comes, or the stream ends or breaks. Over TCP also if the clock is paused, since then no time passes in which
    /// anything could come.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[track_caller]
    pub fn assert_silent_for(&mut self, duration: Duration) -> impl Future<Output = ()> + Send {
        let caller = Location::caller();
        async move {
            let start = Instant::now();
            let came = match timeout(duration, self.read_message()).await {
                Err(_) if self.is_clock_paused(start, duration) => {
                    format!("no time passed{PAUSED}")
                }
                Err(_) => return,
                Ok(Ok(Some(message))) => format!("{message:?} came"),
                Ok(Ok(None)) => "the stream ended".to_owned(),
                Ok(Err(error)) => error.to_string(),
            };
            panic!("{came}, where there should be silence for {duration:?}, at {caller}");
        }
    }

    /// Reads events until there are enough, at most for the bound.
    async fn gather(
        &mut self,
        awaited: &str,
        got: &mut Vec<Message>,
        mut is_enough: impl FnMut(&[Message]) -> bool + Send,
    ) -> Result<(), SseError> {
        let (start, limit) = (Instant::now(), self.request.limit);
        let enough = async {
            while !is_enough(got) {
                match self.read_message().await? {
                    Some(message) => got.push(message),
                    None => return Ok(false),
                }
            }
            Ok(true)
        };
        let is_there = timeout(limit, enough).await;
        let awaited = || format!("{awaited}{}", so_far(got));
        match is_there {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(SseError::Ended { awaited: awaited() }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.timed_out(start, awaited())),
        }
    }
}

/// What came before it went wrong: the last of it, since it may be much.
fn so_far(got: &[Message]) -> String {
    match got {
        [] => String::new(),
        [.., _, _, _, _] => format!(
            "; so far came {} events, the last of them {:?}",
            got.len(),
            &got[got.len() - 3..]
        ),
        few => format!("; so far came {few:?}"),
    }
}

/// A break does not know what came before it.
fn or_panic<T>(result: Result<T, SseError>, got: &[Message], caller: &Location<'_>) -> T {
    result.unwrap_or_else(|error| match error {
        SseError::Broken(_) => panic!("{error}{}, at {caller}", so_far(got)),
        _ => panic!("{error}, at {caller}"),
    })
}
