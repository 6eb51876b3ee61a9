//! What arrives on the channels of a node.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use redis::{PushInfo, PushKind, Value};
use tidings::backplane::{Event, Received};
use tokio::sync::{mpsc, watch};

use super::server::{Server, lock};
use super::wire::Heard;

/// What is in the place of a fence's number when the connection has ended.
pub(super) const ENDED: u64 = u64::MAX;

/// Passes on what arrives. It never waits, so that neither the server nor the client keeps much for this node.
pub(super) struct Ears {
    pub(super) server: Arc<Server>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) fences: watch::Sender<u64>,
    /// Of the session.
    pub(super) number: u64,
    /// Whether messages are passed on. Without a log, those between `Interrupted` and `Restored` are dropped, so that the gap
    /// precedes what follows. The lock is held while a message is passed on.
    pub(super) is_open: Arc<Mutex<bool>>,
}

impl Ears {
    pub(super) fn hear(&self, info: PushInfo) {
        match info.kind {
            PushKind::Message => {}
            PushKind::Disconnection => {
                self.fences.send_replace(ENDED);
                return self.server.give_up(self.number);
            }
            _ => return,
        }
        let mut words = info.data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
            (words.next(), words.next())
        else {
            return;
        };
        if let Some(event) = self.event(&channel, payload) {
            self.tell(event);
        }
    }

    fn event(&self, channel: &[u8], payload: Vec<u8>) -> Option<Event> {
        let channel = std::str::from_utf8(channel).unwrap_or_default();
        let is_log = self.server.settings.log.is_some();
        let event = match (Heard::parse(payload), self.server.user(channel)) {
            (Some(Heard::Fence(fence)), None) if fence != ENDED => {
                self.fences.send_replace(fence);
                return None;
            }
            (Some(Heard::Plain(body)), Some(user)) if !is_log => Event::Message(Received {
                user,
                body,
                place: None,
            }),
            (Some(Heard::Logged(place, seen, body)), Some(user)) if is_log => {
                let mut known = self.server.known();
                if known.is_past(place.position.epoch) {
                    // The streams have been told that the log is another one.
                    return None;
                }
                if known.horizon().epoch != place.position.epoch {
                    self.server.trouble.notify_one();
                }
                known.see(place.position.epoch, seen);
                Event::Message(Received {
                    user,
                    body,
                    place: Some(place),
                })
            }
            _ => Event::Foreign,
        };
        Some(event)
    }

    fn tell(&self, event: Event) {
        let is_open = lock(&self.is_open);
        if *is_open && self.events.try_send(event).is_err() {
            self.server.is_slow.store(true, Ordering::Release);
            self.server.trouble.notify_one();
        }
    }
}
