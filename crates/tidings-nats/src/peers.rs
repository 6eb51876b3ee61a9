//! The other nodes of the same scope: whether they agree, and whether their servers know of this node's subscriptions.
//!
//! In a cluster, each server forwards a subscription to the others over the route by which it also sends messages, in order.
//! So a node that has answered a question asked behind a subscription is at a server that knows of it.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, Message, SubscribeError, Subscriber};
use futures_core::Stream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::subjects::Subjects;

/// How long others may take to answer. One that has not by then is not waited for again.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a node listens for others of which it does not know.
const FIRST: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Peers {
    client: Client,
    subject: String,
    inbox: String,
    shared: Arc<Shared>,
    next: AtomicU64,
    reader: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    /// This node.
    name: String,
    /// The settings on which all have to agree.
    kind: String,
    state: Mutex<State>,
    answered: Notify,
    /// Whether another node has other settings.
    disagrees: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    known: HashSet<String>,
    /// The question that is open, and who has answered it.
    question: u64,
    answers: HashSet<String>,
}

impl Peers {
    pub(super) async fn new(
        client: Client,
        subjects: &Subjects,
        name: String,
        kind: String,
    ) -> Result<Self, SubscribeError> {
        let subject = subjects.peers().to_owned();
        let inbox = client.new_inbox();
        let questions = client.subscribe(subject.clone()).await?;
        let answers = client.subscribe(format!("{inbox}.*")).await?;
        let shared = Arc::new(Shared {
            name,
            kind,
            state: Mutex::default(),
            answered: Notify::new(),
            disagrees: AtomicBool::new(false),
        });
        let reader = read(client.clone(), questions, answers, Arc::clone(&shared));
        Ok(Self {
            client,
            subject,
            inbox,
            shared,
            next: AtomicU64::new(1),
            reader: tokio::spawn(reader).abort_handle(),
        })
    }

    /// Whether a node of this scope has other settings.
    pub(super) fn disagree(&self) -> bool {
        self.shared.disagrees.load(Ordering::Relaxed)
    }

    /// Waits until all nodes that are known have answered, or have had time to. Not called twice at the same time.
    pub(super) async fn meet(&self) {
        // Relaxed: it orders nothing, it only never repeats.
        let question = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut missing, is_first) = {
            let mut state = self.shared.lock();
            state.question = question;
            state.answers.clear();
            (state.known.clone(), state.known.is_empty())
        };
        // Its own answer shows that the question was heard.
        missing.insert(self.shared.name.clone());
        let text = self.shared.introduction();
        let reply = format!("{}.{question}", self.inbox);
        let asked = self
            .client
            .publish_with_reply(self.subject.clone(), reply, text.into());
        if asked.await.is_err() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answered = self.shared.answered.notified();
            if missing.is_subset(&self.shared.lock().answers) {
                break;
            }
            if timeout_at(deadline, answered).await.is_err() {
                break;
            }
        }
        if is_first {
            tokio::time::sleep(FIRST).await;
        }
        let mut state = self.shared.lock();
        // Who has asked something meanwhile is new here, and stays.
        let late: Vec<String> = missing.difference(&state.answers).cloned().collect();
        state.known.retain(|name| !late.contains(name));
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // Its subscriptions would keep the connection.
        self.reader.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics inside.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn introduction(&self) -> String {
        format!("{} {}", self.name, self.kind)
    }

    /// Notes who has spoken.
    fn note(&self, message: &Message) -> Option<String> {
        let text = std::str::from_utf8(&message.payload).ok()?;
        let (name, kind) = text.split_once(' ')?;
        let disagrees = kind != self.kind;
        if disagrees && !self.disagrees.swap(true, Ordering::Relaxed) {
            tracing::error!(
                theirs = kind,
                ours = self.kind.as_str(),
                "another node of this scope has another level or number of buckets: the two get none of each other's events"
            );
        }
        if name != self.name {
            self.lock().known.insert(name.to_owned());
        }
        Some(name.to_owned())
    }
}

async fn read(
    client: Client,
    mut questions: Subscriber,
    mut answers: Subscriber,
    shared: Arc<Shared>,
) {
    loop {
        let question = poll_fn(|cx| Pin::new(&mut questions).poll_next(cx));
        let answer = poll_fn(|cx| Pin::new(&mut answers).poll_next(cx));
        tokio::select! {
            question = question => {
                let Some(question) = question else { return };
                shared.note(&question);
                if let Some(reply) = question.reply {
                    // If it does not get there, the one who asks waits a little longer.
                    let _ = client.publish(reply, shared.introduction().into()).await;
                }
            }
            answer = answer => {
                let Some(answer) = answer else { return };
                let number = answer.subject.rsplit('.').next().and_then(|text| text.parse::<u64>().ok());
                if let Some(name) = shared.note(&answer) {
                    let mut state = shared.lock();
                    if number == Some(state.question) {
                        state.answers.insert(name);
                        drop(state);
                        shared.answered.notify_one();
                    }
                }
            }
        }
    }
}
