//! One broadcaster of the service, whatever its events are.

use std::sync::Arc;

use tidings::Stats;
use tidings::Subscription;
use tidings::ToSse;
use tidings::{BroadcastError, RegisterError};
use tidings::{ConnectionId, UserId};
use tidings::{ConnectionInfo, GenericBroadcaster};

/// What the console asks of a broadcaster.
pub(super) trait Source: Send + Sync {
    fn stats(&self) -> Stats;
    fn users(&self) -> Vec<UserId>;
    fn connections_of(&self, user: &str) -> Vec<ConnectionInfo>;
    fn disconnect_user(&self, user: &str) -> usize;
    fn unregister(&self, user: &str, connection: &ConnectionId) -> bool;
    fn watch(&self, user: &str) -> Result<Subscription, RegisterError>;
    fn sends(&self) -> bool;
    /// `None` if the service has not said how to make an event from text.
    fn send(&self, user: &str, text: &str) -> Option<Result<usize, BroadcastError>>;
}

type SendText = dyn Fn(&str, &str) -> Result<usize, BroadcastError> + Send + Sync;

pub(super) struct Shown<E: ?Sized> {
    broadcaster: GenericBroadcaster<E>,
    send: Option<Box<SendText>>,
}

impl<E: ?Sized + 'static> Shown<E> {
    pub(super) fn new(broadcaster: &GenericBroadcaster<E>) -> Self {
        Self {
            broadcaster: broadcaster.clone(),
            send: None,
        }
    }
}

impl<E: ToSse + 'static> Shown<E> {
    pub(super) fn sending(
        broadcaster: &GenericBroadcaster<E>,
        make: impl Fn(&str) -> E + Send + Sync + 'static,
    ) -> Self {
        let sender = broadcaster.clone();
        let send = move |user: &str, text: &str| sender.broadcast(user, &make(text));
        Self {
            broadcaster: broadcaster.clone(),
            send: Some(Box::new(send)),
        }
    }
}

impl<E: ?Sized + 'static> Source for Shown<E> {
    fn stats(&self) -> Stats {
        self.broadcaster.stats()
    }

    fn users(&self) -> Vec<UserId> {
        self.broadcaster.connected_users()
    }

    fn connections_of(&self, user: &str) -> Vec<ConnectionInfo> {
        self.broadcaster.connection_info_of(user)
    }

    fn disconnect_user(&self, user: &str) -> usize {
        self.broadcaster.disconnect_user(user)
    }

    fn unregister(&self, user: &str, connection: &ConnectionId) -> bool {
        self.broadcaster.unregister(user, connection)
    }

    fn watch(&self, user: &str) -> Result<Subscription, RegisterError> {
        let id = format!("console-{}", ConnectionId::generate());
        self.broadcaster.observe(user, id)
    }

    fn sends(&self) -> bool {
        self.send.is_some()
    }

    fn send(&self, user: &str, text: &str) -> Option<Result<usize, BroadcastError>> {
        self.send.as_ref().map(|send| send(user, text))
    }
}

/// The broadcasters that are shown, in their order, by their names.
#[derive(Clone, Default)]
pub(super) struct Sources(Vec<(String, Arc<dyn Source>)>);

impl Sources {
    /// An operator could not tell two of the same name apart: the newer one replaces the other.
    pub(super) fn put(&mut self, name: String, source: Arc<dyn Source>) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, place)) => *place = source,
            None => self.0.push((name, source)),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<dyn Source>> {
        let (_, source) = self.0.iter().find(|(other, _)| other == name)?;
        Some(source)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &dyn Source)> {
        self.0
            .iter()
            .map(|(name, source)| (name.as_str(), source.as_ref()))
    }
}
