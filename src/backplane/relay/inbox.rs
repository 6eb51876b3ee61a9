//! The task that puts what comes from the engine into the channels.

use std::pin::Pin;
use std::sync::{Arc, Weak};

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::Relay;
use super::arrivals::{Follows, Said, follows};
use super::copies::{Users, for_everyone, note, users_of};
use super::reads::{Happened, Reads};
use super::signals::Input;
use crate::backplane::{Envelope, Event, Level, Received};
use crate::channel::Origin;
use crate::id::UserId;

/// Runs until the backplane is closed, or nobody is there any more.
pub(super) async fn run(
    relay: Arc<Relay>,
    registry: Weak<Users>,
    mut events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    requests: mpsc::UnboundedReceiver<Happened>,
) {
    let mut reads = Reads::new(relay.clone(), requests);
    loop {
        let (event, done) = tokio::select! {
            event = events.next() => (event, None),
            done = reads.next() => (None, Some(done)),
        };
        let Some(registry) = registry.upgrade() else {
            return;
        };
        match (event, done) {
            (Some(Event::Message(received)), _) => {
                relay.receive(&registry, &mut reads, received).await;
            }
            (Some(event), _) => relay.note(&registry, &mut reads, event).await,
            (None, Some(done)) => reads.handle(&registry, done).await,
            (None, None) => {
                relay.set_connected(false);
                return;
            }
        }
    }
}

impl Relay {
    async fn receive(&self, registry: &Users, reads: &mut Reads, received: Received) {
        let Received { user, body, place } = received;
        let Some(envelope) = Envelope::parse(body) else {
            self.counters.foreign.add(1);
            tracing::debug!(
                user = user.as_str(),
                "dropped a message that no node could have sent"
            );
            return;
        };
        self.counters.received.add(1);
        match (self.level, place) {
            (Level::AtMostOnce, _) if envelope.node == self.node => self.counters.echoes.add(1),
            (Level::AtMostOnce, _) => {
                let append = |channel: &_| {
                    self.append(channel, envelope.what, Origin::Here, |draft| draft);
                };
                if registry.with(&user, append).is_none() {
                    self.counters.unwanted.add(1);
                }
            }
            (Level::Replayable, None) => self.counters.foreign.add(1),
            (Level::Replayable, Some(place)) => {
                let message = Input::Message(user, place, envelope);
                reads.handle(registry, message).await;
            }
        }
    }

    /// If the log is not the one that the user's channel is in, the channel goes over to it, and its streams are told.
    pub(crate) fn follow(&self, registry: &Users, user: &str) {
        registry.with(user, |channel| note(channel, Origin::Reset, None));
    }

    async fn note(&self, registry: &Users, reads: &mut Reads, event: Event) {
        match event {
            Event::Message(_) => {}
            Event::Foreign => self.counters.foreign.add(1),
            Event::Interrupted => {
                self.set_connected(false);
                tracing::warn!("the backplane is interrupted");
            }
            Event::Ready(users) => {
                let noted = Said::Ready(self.interests.note_ready(users));
                self.follow_up(registry, reads, noted).await;
            }
            Event::Unheard {
                users,
                cause,
                detail,
            } => {
                let users = match users.is_empty() {
                    true => users_of(registry),
                    false => users,
                };
                self.warn_unheard(users.len(), cause, &detail);
                let noted = Said::Unheard(self.interests.note_unheard(users));
                self.follow_up(registry, reads, noted).await;
            }
            Event::Lost { users, detail } => self.note_lost(users, &detail),
            Event::Behind(users) => reads.handle(registry, Input::Behind(users)).await,
            Event::Restored { maybe_lost } => {
                self.set_connected(true);
                tracing::info!(maybe_lost, "the backplane is restored");
                if maybe_lost || self.level == Level::Replayable {
                    self.follow_up(registry, reads, Said::MayLack).await;
                }
            }
            Event::Changed { cause } => {
                tracing::info!(cause = cause.as_str(), "messages may not have arrived");
                self.follow_up(registry, reads, Said::MayLack).await;
            }
            Event::Reset(_) => {
                tracing::warn!("the engine's log was replaced");
                reads.handle(registry, Input::Reset).await;
            }
        }
    }

    async fn follow_up(&self, registry: &Users, reads: &mut Reads, said: Said<UserId>) {
        let tell = |user: &UserId| {
            registry.with(user, |channel| note(channel, Origin::Here, None));
        };
        match follows(self.level == Level::Replayable, said) {
            Follows::Compare(users) => reads.handle(registry, Input::Behind(users)).await,
            Follows::CompareAll => reads.handle(registry, Input::Changed).await,
            Follows::Tell(users) => users.iter().for_each(tell),
            Follows::TellAll => for_everyone(registry, tell).await,
        }
    }
}
