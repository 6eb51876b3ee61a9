//! A node in a test, and what it is made to do.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::{Instant, timeout};

use super::cluster::Cluster;
use tidings::UserId;
use tidings::backplane::{
    Backplane, Event, Fetched, Head, Level, Message, Position, Published, Received,
};

/// Nothing that has to happen takes so long.
pub(super) const BOUND: Duration = Duration::from_secs(30);

/// A node, and what has happened on it.
pub(super) struct Node {
    pub(super) backplane: Arc<dyn Backplane>,
    pub(super) events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    /// Messages that came while something else was waited for.
    early: VecDeque<Received>,
}

/// Waits for something that has to happen.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(BOUND, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

impl Node {
    pub(super) async fn new(cluster: &(impl Cluster + ?Sized)) -> Self {
        let backplane = within("a node connects", cluster.node()).await;
        let events = backplane.events();
        Self {
            backplane,
            events,
            early: VecDeque::new(),
        }
    }

    pub(super) async fn event(&mut self, awaited: &str) -> Event {
        let event = within(awaited, poll_fn(|cx| self.events.as_mut().poll_next(cx))).await;
        event.unwrap_or_else(|| panic!("{awaited}: the events have ended"))
    }

    /// Waits for an event that is no message.
    pub(super) async fn event_like(
        &mut self,
        awaited: &str,
        mut is_it: impl FnMut(&Event) -> bool,
    ) -> Event {
        loop {
            match self.event(awaited).await {
                event if is_it(&event) => return event,
                Event::Message(message) => self.early.push_back(message),
                Event::Foreign => panic!("{awaited}: there is something foreign"),
                _ => {}
            }
        }
    }

    /// The next message.
    pub(super) async fn message(&mut self, awaited: &str) -> Received {
        if let Some(message) = self.early.pop_front() {
            return message;
        }
        let event = self.event_like(awaited, |event| matches!(event, Event::Message(_)));
        match event.await {
            Event::Message(message) => message,
            other => unreachable!("{other:?} is no message"),
        }
    }

    /// Adds users, and waits until all are ready.
    pub(super) async fn join(&mut self, users: &[UserId]) {
        let added = self.backplane.set_interest(users, &[]).await;
        added.expect("the interest is noted");
        self.ready(users).await;
    }

    pub(super) async fn ready(&mut self, users: &[UserId]) {
        let mut missing: Vec<UserId> = users.to_vec();
        while !missing.is_empty() {
            let ready = |event: &Event| matches!(event, Event::Ready(_));
            if let Event::Ready(users) = self.event_like("users are ready", ready).await {
                missing.retain(|user| !users.contains(user));
            }
        }
    }

    pub(super) async fn leave(&mut self, users: &[UserId]) {
        let removed = self.backplane.set_interest(&[], users).await;
        removed.expect("the interest is noted");
    }

    pub(super) async fn publish(&self, messages: &[Message]) {
        let published = within("the engine accepts", self.backplane.publish(messages)).await;
        let published = published.expect("the engine accepts");
        assert_eq!(published.len(), messages.len(), "one outcome for each");
        let is_replayable = self.backplane.level() == Level::Replayable;
        for outcome in published {
            match outcome {
                Published::Accepted(position) => assert_eq!(position.is_some(), is_replayable),
                other => panic!("not accepted: {other:?}"),
            }
        }
    }

    /// Publishes one after the other, as a node does, until the engine has accepted each.
    pub(super) async fn say(&self, user: &UserId, bodies: &[&str]) {
        for body in bodies {
            self.publish(&[message(user, body)]).await;
        }
    }

    /// The next messages are these, of this user.
    pub(super) async fn hears(&mut self, user: &UserId, bodies: &[&str]) {
        for body in bodies {
            let received = self.message(&format!("{body} for {user:?}")).await;
            assert_eq!(received.user, *user, "whose {body} is");
            assert_eq!(received.body, *body, "what {user:?} gets");
            let has_place = received.place.is_some();
            let is_replayable = self.backplane.level() == Level::Replayable;
            assert_eq!(has_place, is_replayable, "whether a message has a place");
        }
    }

    /// Before the first message of the log that there is.
    pub(super) fn beginning(&self) -> Position {
        Position {
            offset: 0,
            ..self.horizon()
        }
    }

    pub(super) fn horizon(&self) -> Position {
        self.backplane.horizon().expect("a log has a horizon")
    }

    /// Where the log of a user ends.
    pub(super) async fn head(&self, user: &UserId) -> Head {
        let users = std::slice::from_ref(user);
        let heads = within("the log answers", self.backplane.heads(users)).await;
        let heads = heads.expect("the log answers");
        assert_eq!(heads.len(), 1, "one for each user");
        let head = heads[0];
        assert!(head.through >= head.newest.offset, "{head:?}");
        head
    }

    pub(super) async fn fetch(&self, user: &UserId, after: Position, limit: usize) -> Fetched {
        let fetched = within("the log answers", self.backplane.fetch(user, after, limit)).await;
        fetched.expect("the log answers")
    }

    pub(super) async fn close(self) {
        self.backplane.close(Instant::now() + BOUND).await;
    }
}

pub(super) fn message(user: &UserId, body: &str) -> Message {
    Message {
        user: user.clone(),
        id: fastrand::u128(..),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// A user whom no other test knows.
pub(super) fn user(name: &str) -> UserId {
    UserId::from(format!("{name}-{:x}", fastrand::u64(..)))
}
