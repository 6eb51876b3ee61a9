//! Several messages of a user in one answer: NATS 2.11 or newer, of a stream that allows direct reads.
//!
//! Any server that has a copy of the stream answers, and its copy may lack the newest messages. So such an answer says nothing
//! of where the log ends; what it has is what the log has. A batch begins with a message that the caller has read from the leader:
//! a copy that has it has everything behind it, up to its own end, since a user's messages go oldest first. Each message names
//! the one before, so that none is missed which the client has dropped.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use async_nats::header::NATS_LAST_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::{Message, StatusCode};
use futures_core::Stream as _;
use tokio::time::{Instant, timeout_at};

use super::log::Log;
use tidings::backplane::BackplaneError;

/// How long the whole answer may take.
const LIMIT: Duration = Duration::from_secs(2);
/// For how long nobody is asked again who does not answer such a question, as older servers do not.
const PAUSE: Duration = Duration::from_secs(60);
const END: u16 = 204;

impl Log {
    /// A user's messages behind this one, at most so many: as far as a server answers.
    pub(super) async fn batch(
        &self,
        subject: &str,
        behind: u64,
        most: usize,
    ) -> Result<Vec<StreamMessage>, BackplaneError> {
        let mut messages = Vec::new();
        if !self.may_ask_for_batches() {
            return Ok(messages);
        }
        let deadline = Instant::now() + LIMIT;
        let inbox = self.client().new_inbox();
        let answers = self.client().subscribe(inbox.clone()).await;
        let mut answers = answers.map_err(BackplaneError::other)?;
        // What a subject consists of is the same in JSON.
        let batch = most + 1;
        let question = format!(r#"{{"seq":{behind},"next_by_subj":{subject:?},"batch":{batch}}}"#);
        let asked = self
            .client()
            .publish_with_reply(self.direct_subject(), inbox, question.into());
        asked.await.map_err(BackplaneError::other)?;
        let mut previous = 0;
        while messages.len() < most {
            let next = timeout_at(deadline, poll_fn(|cx| Pin::new(&mut answers).poll_next(cx)));
            let answer = match next.await {
                Ok(Some(answer)) => read(answer),
                _ => Answer::Unsupported,
            };
            let (message, names) = match answer {
                Answer::Message(message, names) => (message, names),
                Answer::Unsupported if previous == 0 => {
                    self.ask_for_no_batches(PAUSE);
                    break;
                }
                Answer::Unsupported | Answer::Nothing => break,
            };
            let is_first = previous == 0;
            let is_next = names == previous && *message.subject == *subject;
            if !is_next || (is_first && message.sequence != behind) {
                break;
            }
            previous = message.sequence;
            if !is_first {
                messages.push(message);
            }
        }
        Ok(messages)
    }
}

enum Answer {
    /// A message, and the number of the one before it in this answer.
    Message(StreamMessage, u64),
    /// There is no more, or not yet.
    Nothing,
    /// Whoever answers has one message for each question, or none.
    Unsupported,
}

fn read(answer: Message) -> Answer {
    match answer.status {
        None => {}
        Some(StatusCode::NOT_FOUND) => return Answer::Nothing,
        Some(status) if status.as_u16() == END => return Answer::Nothing,
        Some(_) => return Answer::Unsupported,
    }
    let headers = answer.headers.as_ref();
    let previous = headers.and_then(|headers| headers.get_last(NATS_LAST_SEQUENCE));
    let previous = previous.and_then(|previous| previous.as_str().parse().ok());
    match (StreamMessage::try_from(answer), previous) {
        (Ok(message), Some(previous)) => Answer::Message(message, previous),
        _ => Answer::Unsupported,
    }
}
