//! The messages of each conversation, for pages that load.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tidings::protocol::agui::{Body, Event, Message};

use super::agui::text_of;

/// Of each user, and over all of the user's conversations. What is too much is forgotten, the oldest first.
const MOST_BYTES: usize = 64 * 1024;

/// Of each user.
const MOST_THREADS: usize = 100;

/// Whose conversations are remembered. One too many takes the place of another one, whichever that is.
const MOST_USERS: usize = 1_000;

/// Each user's conversations, those first that have begun first.
#[derive(Clone, Default)]
pub(super) struct Threads(Arc<Mutex<HashMap<String, VecDeque<Thread>>>>);

struct Thread {
    id: String,
    messages: VecDeque<Said>,
}

struct Said {
    id: String,
    role: &'static str,
    text: String,
}

impl Said {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.id.len() + self.text.len()
    }
}

impl Threads {
    /// Remembers a conversation as its client has it. Only texts: what tools did stays with the client.
    pub(super) fn begin(&self, user: &str, thread: &str, messages: &[Message]) {
        let said = |message: &Message| {
            let (id, role, text) = match message {
                Message::User(it) => (&it.id, "user", text_of(&it.content)),
                Message::Assistant(it) => {
                    (&it.id, "assistant", it.content.clone().unwrap_or_default())
                }
                Message::System(it) => (&it.id, "system", it.content.clone()),
                _ => return None,
            };
            let id = id.clone();
            Some(Said { id, role, text })
        };
        // Only what fits: a queue that was longer would keep its capacity.
        let mut bytes = 0;
        let newest = messages.iter().rev().filter_map(said).take_while(|said| {
            bytes += said.bytes();
            bytes <= MOST_BYTES
        });
        let mut messages: Vec<Said> = newest.collect();
        messages.reverse();
        let mut users = self.lock();
        if users.len() >= MOST_USERS && !users.contains_key(user) {
            let other = users.keys().next().cloned();
            other.and_then(|other| users.remove(&other));
        }
        let threads = users.entry(user.into()).or_default();
        threads.retain(|known| known.id != thread);
        threads.push_back(Thread {
            id: thread.into(),
            messages: messages.into(),
        });
        bound(threads);
    }

    /// Adds what an event says to a conversation that is known.
    pub(super) fn hear(&self, user: &str, thread: &str, event: &Event) {
        let mut users = self.lock();
        let Some(threads) = users.get_mut(user) else {
            return;
        };
        let Some(known) = threads.iter_mut().find(|known| known.id == thread) else {
            return;
        };
        match &event.body {
            Body::TextMessageStart(it) => known.messages.push_back(Said {
                id: it.message_id.clone(),
                role: "assistant",
                text: String::new(),
            }),
            Body::TextMessageContent(it) => {
                let mut messages = known.messages.iter_mut();
                if let Some(said) = messages.rfind(|said| said.id == it.message_id) {
                    said.text.push_str(&it.delta);
                }
            }
            _ => return,
        }
        bound(threads);
    }

    /// The messages of a conversation, as TanStack AI has them.
    pub(super) fn messages(&self, user: &str, thread: &str) -> Vec<Value> {
        let users = self.lock();
        let threads = users.get(user).into_iter().flatten();
        let messages = threads.filter(|known| known.id == thread);
        let messages = messages.flat_map(|known| &known.messages);
        let message = |said: &Said| {
            let parts = [json!({ "type": "text", "content": said.text })];
            json!({ "id": said.id, "role": said.role, "parts": parts })
        };
        messages.map(message).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Thread>>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

fn bound(threads: &mut VecDeque<Thread>) {
    let of_thread = |thread: &Thread| {
        let messages = thread.messages.iter().map(Said::bytes);
        thread.id.len() + messages.sum::<usize>()
    };
    let mut bytes: usize = threads.iter().map(of_thread).sum();
    while threads.len() > MOST_THREADS || (threads.len() > 1 && bytes > MOST_BYTES) {
        let oldest = threads.pop_front().expect("there is more than one");
        bytes -= of_thread(&oldest);
    }
    // What is left may be too much by itself.
    let messages = threads.iter_mut().map(|thread| &mut thread.messages);
    for messages in messages {
        while bytes > MOST_BYTES {
            let Some(oldest) = messages.pop_front() else {
                break;
            };
            bytes -= oldest.bytes();
        }
    }
}
