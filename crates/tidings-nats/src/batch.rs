//! Several messages of a user in one answer: NATS 2.11 or newer, of a stream that allows direct reads.
//!
//! Any server with a copy of the stream may answer, and its copy may lack the newest messages. So an answer does not say where
//! the log ends; only the leader does. A batch begins with a message that the caller has read from the leader. A copy that has
//! this message also has the later ones, up to its own end, because a stream drops a user's oldest messages first. Each message
//! names the one before it, so a message that the client dropped is noticed.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::header::NATS_LAST_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::{Message, StatusCode};
use futures_core::Stream as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::log::Log;
use tidings::backplane::BackplaneError;

/// How long the whole answer may take.
const LIMIT: Duration = Duration::from_secs(2);
/// How many answers are asked for at the same time: each takes a subscription.
const AT_ONCE: usize = 4;
/// An answer ends with the message that makes it so many bytes. A server sends as much as it holds for a connection, unless the
/// question says less, and closes a connection for which it holds more.
const SIZE: usize = 256 << 10;
/// How long a question waits for others to be answered.
const TURN: Duration = Duration::from_secs(1);
/// For how long no server is asked after a question without an answer. Older servers do not answer, and a node may lack the
/// permission to ask.
const PAUSE: Duration = Duration::from_secs(60);
const END: u16 = 204;

/// Whether servers answer such questions, and how many are on their way.
#[derive(Debug)]
pub(super) struct Batches {
    /// Where servers are asked.
    subject: String,
    turns: Semaphore,
    /// From when on they are asked again, one question first. None if the last question was answered.
    from: Mutex<Option<Instant>>,
}

impl Batches {
    pub(super) fn new(subject: String) -> Self {
        Self {
            subject,
            turns: Semaphore::new(AT_ONCE),
            from: Mutex::new(Some(Instant::now())),
        }
    }

    fn from(&self) -> MutexGuard<'_, Option<Instant>> {
        // Nothing panics inside.
        self.from.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no server is asked now.
    pub(super) fn are_paused(&self) -> bool {
        self.from().is_some_and(|from| from > Instant::now())
    }

    /// Whether a server is to be asked. If it is not known to answer, others are not asked before it has.
    fn begin(&self) -> bool {
        let (mut from, now) = (self.from(), Instant::now());
        match *from {
            Some(at) if at > now => return false,
            Some(_) => *from = Some(now + PAUSE),
            None => {}
        }
        true
    }

    fn end(&self, is_answered: bool) {
        *self.from() = (!is_answered).then(|| Instant::now() + PAUSE);
    }
}

impl Log {
    /// The messages of the same user after this one, which the leader has sent: at most so many, as far as a server answers.
    pub(super) async fn batch(
        &self,
        after: &StreamMessage,
        most: usize,
    ) -> Result<Vec<StreamMessage>, BackplaneError> {
        let mut messages = Vec::new();
        let Ok(Ok(_turn)) = timeout(TURN, self.batches.turns.acquire()).await else {
            return Ok(messages);
        };
        if !self.batches.begin() {
            return Ok(messages);
        }
        let deadline = Instant::now() + LIMIT;
        let inbox = self.client().new_inbox();
        let answers = self.client().subscribe(inbox.clone()).await;
        let mut answers = answers.map_err(BackplaneError::other)?;
        // What a subject consists of is the same in JSON.
        let (seq, subject, batch) = (after.sequence, &*after.subject, most + 1);
        let question = format!(
            r#"{{"seq":{seq},"next_by_subj":{subject:?},"batch":{batch},"max_bytes":{SIZE}}}"#
        );
        let direct = self.batches.subject.clone();
        let asked = self
            .client()
            .publish_with_reply(direct, inbox, question.into());
        asked.await.map_err(BackplaneError::other)?;
        let mut previous = 0;
        while messages.len() < most {
            let next = timeout_at(deadline, poll_fn(|cx| Pin::new(&mut answers).poll_next(cx)));
            let answer = match next.await {
                Ok(Some(answer)) => read(answer),
                _ => Answer::Unsupported,
            };
            let is_first = previous == 0;
            if is_first {
                self.batches.end(!matches!(answer, Answer::Unsupported));
            }
            let Answer::Message(message, names) = answer else {
                break;
            };
            let is_next = names == previous && *message.subject == *subject;
            let is_it = message.sequence == after.sequence && message.time == after.time;
            if !is_next || (is_first && !is_it) {
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
