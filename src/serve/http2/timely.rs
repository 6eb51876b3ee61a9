//! The time limits of an HTTP/2 connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::streams::Streams;
use crate::serve::app::BoxError;
use crate::serve::patience::Patience;

/// Closes a connection when a frame or head is not completed in time, or when it has had no stream for the idle time-out.
pub(super) struct Timely<C> {
    connection: Pin<Box<C>>,
    /// Sends GOAWAY.
    finish: fn(Pin<&mut C>),
    streams: Arc<Streams>,
    heads: Duration,
    idle: Duration,
    is_told: bool,
    patience: Patience,
}

impl<C> Timely<C> {
    pub(super) fn new(
        connection: C,
        finish: fn(Pin<&mut C>),
        streams: Arc<Streams>,
        heads: Duration,
        idle: Duration,
    ) -> Self {
        Self {
            connection: Box::pin(connection),
            finish,
            streams,
            heads,
            idle,
            is_told: false,
            patience: Patience::default(),
        }
    }

    pub(super) fn finish(&mut self) {
        (self.finish)(self.connection.as_mut());
    }
}

impl<C, E> Future for Timely<C>
where
    C: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(Into::into));
            }
            let wait = this.streams.wait(this.heads, this.idle, this.is_told, cx);
            let Some(wait) = wait else {
                return Poll::Pending;
            };
            ready!(this.patience.poll(wait.deadline, wait.time, cx));
            if !wait.is_idle {
                return Poll::Ready(Err("a frame or head was not complete in time".into()));
            }
            // A request that arrives before the client has seen the GOAWAY is still answered.
            if std::mem::replace(&mut this.is_told, true) {
                return Poll::Ready(Err("the client did not close its idle connection".into()));
            }
            this.finish();
        }
    }
}
