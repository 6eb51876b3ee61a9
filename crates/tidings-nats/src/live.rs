//! Plain messages, as they are published at most once.
//!
//! A server confirms none of them. It names those it refuses, before it answers what was sent later: when the
//! [fence](super::fence) has passed, the client has received the refusals. But the client reports them from a separate task,
//! which may run later, through a queue of 128 events; it drops those that do not fit. So:
//!
//! 1. The fence passes twice. The task has had its turn then, nearly always: of 5,000 refused messages 8 were accepted, and
//!    233 where it passed once; on a machine with twice as many busy tasks as cores 4 of 1,000, and 734.
//! 2. What the task tells still later is looked for in the last batches, and [lost](tidings::backplane::Event::Lost).
//! 3. When a batch had more messages than events are kept, and one was refused, nothing is known of the others.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Client;

use super::fence::Fence;
use super::log;
use super::signals::Signals;
use super::subjects::Subjects;
use tidings::UserId;
use tidings::backplane::{BackplaneError, Message, Published};

/// How many refusals the client certainly tells, which are not heard until they are all there.
const HEARD: usize = 64;

/// How often the fence passes.
const PASSES: usize = 2;

/// In how many of the last batches a message is looked for.
const BATCHES: usize = 32;

#[derive(Debug)]
pub(super) struct Live {
    client: Client,
    fence: Arc<Fence>,
    signals: Arc<Signals>,
    subjects: Subjects,
    sent: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    /// Batches whose outcome is not known yet.
    open: usize,
    /// Whose messages were accepted, batch by batch, the newest last.
    accepted: VecDeque<Vec<UserId>>,
    /// Whose were lost nevertheless.
    lost: HashSet<UserId>,
}

impl Live {
    pub(super) fn new(
        client: Client,
        fence: Arc<Fence>,
        signals: Arc<Signals>,
        subjects: Subjects,
    ) -> Self {
        Self {
            client,
            fence,
            signals,
            subjects,
            sent: Mutex::default(),
        }
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        // Nothing panics inside.
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn publish(
        &self,
        messages: &[Message],
        max_body: usize,
    ) -> Result<Vec<Published>, BackplaneError> {
        let batch = self.open();
        let connection = self.fence.connection();
        // For any other the server would close the connection.
        for message in messages.iter().filter(|it| it.body.len() <= max_body) {
            let subject = self.subjects.live(&message.user);
            let sent = self.client.publish(subject, message.body.clone());
            sent.await.map_err(BackplaneError::other)?;
        }
        for _ in 0..PASSES {
            // They may have been on their way.
            let passed = self.fence.pass(connection).await;
            passed.map_err(BackplaneError::other)?;
        }
        Ok(batch.close(messages, max_body))
    }

    fn open(&self) -> Open<'_> {
        self.sent().open += 1;
        Open(self)
    }

    /// Whose messages were lost although they were accepted.
    pub(super) fn take_lost(&self) -> Vec<UserId> {
        let mut sent = self.sent();
        // Otherwise the refusals may be those of that batch.
        if sent.open == 0 {
            let refused = self.signals.take_unpublished();
            self.lose(&mut sent, &refused);
        }
        sent.lost.drain().collect()
    }

    fn lose(&self, sent: &mut Sent, refused: &HashSet<String>) {
        if refused.is_empty() {
            return;
        }
        for batch in &mut sent.accepted {
            let all = batch.len();
            let is_refused = |user: &UserId| refused.contains(&self.subjects.live(user));
            let (lost, kept): (Vec<_>, Vec<_>) = batch.drain(..).partition(is_refused);
            let is_unclear = !lost.is_empty() && all > HEARD;
            sent.lost.extend(lost);
            match is_unclear {
                true => sent.lost.extend(kept),
                false => *batch = kept,
            }
        }
    }
}

/// A batch whose outcome is not known yet. If nobody waits for it any more, nobody was told that it was accepted.
struct Open<'a>(&'a Live);

impl Open<'_> {
    fn close(self, messages: &[Message], max_body: usize) -> Vec<Published> {
        let live = self.0;
        let mut sent = live.sent();
        let mut refused = live.signals.take_unpublished();
        let (mut published, mut accepted) = (Vec::new(), Vec::new());
        let mut of_batch = HashSet::new();
        for message in messages {
            if message.body.len() > max_body {
                published.push(log::refused("the message is larger than the server takes"));
                continue;
            }
            let subject = match refused.is_empty() {
                true => None,
                false => Some(live.subjects.live(&message.user)),
            };
            let subject = subject.filter(|subject| refused.contains(subject));
            published.push(match &subject {
                Some(_) => log::refused("this node may not publish to the user"),
                None => Published::Accepted(None),
            });
            match subject {
                Some(subject) => drop(of_batch.insert(subject)),
                None => accepted.push(message.user.clone()),
            }
        }
        if !of_batch.is_empty() && messages.len() > HEARD {
            accepted.clear();
            for outcome in &mut published {
                if let Published::Accepted(_) = outcome {
                    let reason = "the server refused messages, and perhaps this one";
                    *outcome = Published::Unknown(BackplaneError::other(reason));
                }
            }
        }
        refused.retain(|subject| !of_batch.contains(subject));
        live.lose(&mut sent, &refused);
        sent.accepted.push_back(accepted);
        if sent.accepted.len() > BATCHES {
            sent.accepted.pop_front();
        }
        if !sent.lost.is_empty() {
            live.signals.changed.notify_one();
        }
        published
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let live = self.0;
        let mut sent = live.sent();
        sent.open -= 1;
        // The task has left them to this batch, which ends without them.
        if sent.open == 0 && live.signals.has_unpublished() {
            live.signals.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::{ConnectOptions, Event, ServerError};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_is_heard_during_a_dropped_call_is_told_when_that_ends() {
        let options = ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect("127.0.0.1:1").await;
        let client = client.expect("it tries later");
        let fence = Fence::new(client.clone(), Duration::ZERO).await;
        let fence = Arc::new(fence.expect("the client takes it"));
        let signals = Arc::<Signals>::default();
        let live = Live::new(client, fence, signals.clone(), Subjects::new("test", 4));
        let user = UserId::from("ann");
        let message = Message {
            user: user.clone(),
            id: 1,
            body: "late".into(),
        };
        let published = live.open().close(&[message], usize::MAX);
        assert!(matches!(published[..], [Published::Accepted(None)]));

        let dropped = live.open();
        let refusal = format!(
            "Permissions Violation for Publish to \"{}\"",
            live.subjects.live(&user)
        );
        signals.hear(&Event::ServerError(ServerError::Other(refusal)));
        let told = || timeout(Duration::from_secs(1), signals.changed.notified());
        told().await.expect("the refusal was heard");
        assert!(live.take_lost().is_empty(), "it may be that of the call");
        drop(dropped);
        told().await.expect("there is something to tell");
        assert_eq!(live.take_lost(), [user]);
        drop(live.open());
        told().await.expect_err("there is nothing to tell");
    }
}
