//! Reading a user's messages from the log.
//!
//! Where the log ends and what comes next is asked of the server that leads the stream; of servers that can, all behind that
//! in one [batch](Log::batch). Other servers are asked for one message after another: a consumer would read from a copy that may
//! lack the newest, and making one costs the cluster more than a hundred answers.

use std::time::Duration;

use tokio::time::Instant;

use super::log::Log;
use tidings::backplane::{BackplaneError, Fetched, Missing, Position};

/// After so long, an answer is what has been read: a broadcaster waits no longer than
/// [`CALL_LIMIT`](tidings::backplane::CALL_LIMIT).
const ENOUGH: Duration = Duration::from_secs(3);

/// After so many bytes, the same.
const SIZE: usize = 256 << 10;

impl Log {
    /// A user's messages behind a position.
    pub(super) async fn fetch(
        &self,
        subject: &str,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError> {
        // From before the question: a server that leads has everything up to here.
        let Position {
            epoch,
            offset: horizon,
        } = self.horizon();
        let at = |offset| Position { epoch, offset };
        let last = self.last(subject).await?.map_or(0, |last| last.sequence);
        let (mut messages, mut bytes) = (Vec::new(), 0);
        let mut newest = after.offset;
        let is_same = epoch == after.epoch;
        let began = Instant::now();
        let mut has_batches = true;
        while is_same && newest < last && messages.len() < limit {
            if bytes >= SIZE || began.elapsed() >= ENOUGH {
                break;
            }
            // If it has gone meanwhile, or a server answers that does not have it yet, the answer is unfinished: the next one
            // has another end.
            let Some(message) = self.next(subject, newest + 1).await? else {
                break;
            };
            newest = message.sequence;
            bytes += message.payload.len();
            messages.push((at(newest), message.payload.clone()));
            let left = limit - messages.len();
            if has_batches && newest < last && left > 0 && bytes < SIZE {
                let batch = self.batch(&message, left).await?;
                // A server that is behind does not have it yet. While nobody is asked, asking costs nothing.
                has_batches = !batch.is_empty() || self.batches.are_paused();
                for message in batch {
                    newest = message.sequence;
                    bytes += message.payload.len();
                    messages.push((at(newest), message.payload));
                }
            }
        }
        // Asked behind the messages: what was there before they were read may have gone before they were.
        let has_all = self.has_all(subject, after.offset, at(horizon)).await?;
        Ok(Fetched {
            messages,
            through: match is_same {
                true if newest >= last => at(newest.max(horizon)),
                true => at(newest),
                false => after,
            },
            head: at(last.max(newest)),
            missing: match has_all {
                true => Missing::Nothing,
                false => Missing::Unknown,
            },
        })
    }

    /// Whether it can be shown that the log has dropped nothing of a subject behind a position. Fails unless the log
    /// [vouches](Self::vouch) for `known`.
    async fn has_all(
        &self,
        subject: &str,
        after: u64,
        known: Position,
    ) -> Result<bool, BackplaneError> {
        let at = async {
            match after {
                0 => Ok(None),
                after => self.at(after).await,
            }
        };
        let (at, info) = tokio::try_join!(at, self.vouch(known))?;
        // A subject's messages go oldest first: if this one is there, so is everything behind it.
        if at.is_some_and(|message| *message.subject == *subject) {
            return Ok(true);
        }
        // The oldest message of anybody, or the next one.
        let oldest = match info.state.messages {
            0 => info.state.last_sequence.saturating_add(1),
            _ => info.state.first_sequence,
        };
        // Something of the user behind the position may have gone for its age.
        if oldest > after.saturating_add(1) {
            return Ok(false);
        }
        // Or to make room for newer messages of its user, unless one from before the position is there still.
        if self.count(subject).await? < self.max_per_user() {
            return Ok(true);
        }
        let first = self.next(subject, 0).await?;
        Ok(first.is_some_and(|first| first.sequence <= after))
    }
}
