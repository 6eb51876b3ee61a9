//! Reading a user's messages from the log.
//!
//! Most questions have the answer "nothing new" or a few messages: those are asked for one by one, which costs the server
//! nothing but the answers. For more, a consumer reads them in one go. It costs the server some state, and two round trips.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use bytes::Bytes;
use futures_core::Stream;

use super::log::Log;
use crate::backplane::{BackplaneError, Fetched, Missing, Position};

/// So many are asked for one by one.
const ONE_BY_ONE: usize = 4;

/// When the server forgets a consumer that was not deleted.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// What was found behind a position.
#[derive(Default)]
struct Found {
    messages: Vec<(u64, Bytes)>,
    /// How many more there are.
    more: u64,
}

impl Log {
    /// A user's messages behind a position.
    pub(super) async fn fetch(
        &self,
        subject: &str,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError> {
        let epoch = self.horizon().epoch;
        let at = |offset| Position { epoch, offset };
        let last = self.last(subject).await?.map_or(0, |last| last.sequence);
        let nothing_gone = self.has_all(subject, after.offset, 0).await?;
        if epoch != after.epoch || last <= after.offset {
            return Ok(Fetched {
                messages: Vec::new(),
                through: after,
                head: at(last),
                missing: missing(nothing_gone),
            });
        }
        let found = self.read(subject, after.offset, last, limit).await?;
        // Asked again, because what was there before the messages were read may have gone before they were.
        let total = found.messages.len() as u64 + found.more;
        let nothing_gone = self.has_all(subject, after.offset, total).await?;
        let newest = found.messages.last().map_or(after.offset, |last| last.0);
        let has_more = found.more > 0;
        let messages = found.messages.into_iter();
        Ok(Fetched {
            messages: messages.map(|(offset, body)| (at(offset), body)).collect(),
            through: at(if has_more { newest } else { newest.max(last) }),
            head: at(last.max(newest + u64::from(has_more))),
            missing: missing(nothing_gone),
        })
    }

    /// Whether it can be shown that nothing behind a position has gone, of a subject that has so many there.
    async fn has_all(&self, subject: &str, after: u64, count: u64) -> Result<bool, BackplaneError> {
        let at = async {
            match after {
                0 => Ok(None),
                after => self.at(after).await,
            }
        };
        let (at, first) = tokio::try_join!(at, self.first())?;
        // A subject's messages go oldest first: if this one is there, so is everything behind it.
        if at.is_some_and(|message| *message.subject == *subject) {
            return Ok(true);
        }
        // One that had to make room for a newer one of its user had as many behind it as are kept of a user. They are there
        // still, unless some went for their age, and with those everything that was older.
        if count >= self.max_per_user() {
            return Ok(false);
        }
        let oldest = match first {
            Some(first) => first.sequence,
            // Either there never was anything, or it has all gone. In one answer: something may come between two.
            None => self.oldest().await?,
        };
        Ok(oldest <= after.saturating_add(1))
    }

    async fn read(
        &self,
        subject: &str,
        after: u64,
        last: u64,
        limit: usize,
    ) -> Result<Found, BackplaneError> {
        let mut found = Found::default();
        let mut at = after + 1;
        while found.messages.len() < limit.min(ONE_BY_ONE) {
            let Some(message) = self.next(subject, at).await? else {
                return Ok(found);
            };
            found.messages.push((message.sequence, message.payload));
            if message.sequence >= last {
                return Ok(found);
            }
            at = message.sequence + 1;
        }
        self.read_all(subject, at, limit, &mut found).await?;
        Ok(found)
    }

    /// Reads on with a consumer.
    async fn read_all(
        &self,
        subject: &str,
        at: u64,
        limit: usize,
        found: &mut Found,
    ) -> Result<(), BackplaneError> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: at },
            filter_subject: subject.to_owned(),
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: FORGOTTEN,
            ..Default::default()
        };
        let made = self.limited(self.stream.create_consumer(config)).await?;
        let consumer = made.map_err(BackplaneError::other)?;
        let there = consumer.cached_info().num_pending;
        let name = consumer.cached_info().name.clone();
        let room = limit.saturating_sub(found.messages.len());
        let wanted = room.min(usize::try_from(there).unwrap_or(usize::MAX));
        let read = self.limited(take(&consumer, wanted, found)).await;
        let stream = self.stream.clone();
        tokio::spawn(async move {
            // It is forgotten soon in any case.
            let _ = stream.delete_consumer(&name).await;
        });
        let read = read??;
        found.more = there.saturating_sub(read);
        Ok(())
    }
}

/// Takes so many messages from a consumer, none of which may be missing. How many it has passed.
async fn take(
    consumer: &Consumer<pull::Config>,
    wanted: usize,
    found: &mut Found,
) -> Result<u64, BackplaneError> {
    if wanted == 0 {
        return Ok(0);
    }
    let batch = consumer.fetch().max_messages(wanted).messages().await;
    let mut batch = batch.map_err(BackplaneError::other)?;
    let (mut count, mut pending) = (0, 0);
    while let Some(message) = poll_fn(|cx| Pin::new(&mut batch).poll_next(cx)).await {
        let message = message.map_err(BackplaneError::other)?;
        let info = message.info().map_err(BackplaneError::other)?;
        count += 1;
        if info.consumer_sequence != count {
            // One was lost on the way here.
            return Err(BackplaneError::unavailable());
        }
        pending = info.pending;
        found
            .messages
            .push((info.stream_sequence, message.payload.clone()));
    }
    if count < wanted as u64 && (count == 0 || pending > 0) {
        return Err(BackplaneError::unavailable());
    }
    Ok(count)
}

fn missing(nothing_gone: bool) -> Missing {
    if nothing_gone {
        Missing::Nothing
    } else {
        Missing::Unknown
    }
}
