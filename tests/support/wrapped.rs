//! A node of the engine in memory, some of whose calls a test answers itself.

use std::pin::Pin;

use async_trait::async_trait;
use tidings::UserId;
use tidings::backplane::{
    Backplane, BackplaneError, Event, Fetched, Head, Level, Message, Position, Published,
};
use tidings_testkit::backplane::InProcessNode;
use tokio::time::Instant;
use tokio_stream::Stream;

/// What a test answers itself. Each call that it leaves out goes to the node.
#[async_trait]
pub(crate) trait Answers: Send + Sync + 'static {
    async fn publish(
        &self,
        node: &InProcessNode,
        messages: &[Message],
    ) -> Result<Vec<Published>, BackplaneError> {
        node.publish(messages).await
    }

    async fn set_interest(
        &self,
        node: &InProcessNode,
        add: &[UserId],
        remove: &[UserId],
    ) -> Result<(), BackplaneError> {
        node.set_interest(add, remove).await
    }

    fn events(&self, node: &InProcessNode) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        node.events()
    }

    async fn fetch(
        &self,
        node: &InProcessNode,
        user: &UserId,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError> {
        node.fetch(user, after, limit).await
    }
}

pub(crate) struct Wrapped<A> {
    pub(crate) node: InProcessNode,
    pub(crate) answers: A,
}

#[async_trait]
impl<A: Answers> Backplane for Wrapped<A> {
    fn level(&self) -> Level {
        self.node.level()
    }

    fn horizon(&self) -> Option<Position> {
        self.node.horizon()
    }

    fn max_body(&self) -> usize {
        self.node.max_body()
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, BackplaneError> {
        self.answers.publish(&self.node, messages).await
    }

    async fn set_interest(&self, add: &[UserId], remove: &[UserId]) -> Result<(), BackplaneError> {
        self.answers.set_interest(&self.node, add, remove).await
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        self.answers.events(&self.node)
    }

    async fn fetch(
        &self,
        user: &UserId,
        after: Position,
        limit: usize,
    ) -> Result<Fetched, BackplaneError> {
        self.answers.fetch(&self.node, user, after, limit).await
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, BackplaneError> {
        self.node.heads(users).await
    }

    async fn close(&self, deadline: Instant) {
        self.node.close(deadline).await;
    }
}
