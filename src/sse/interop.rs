//! Subscriptions as axum's own `Sse`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::sse;
use futures_core::Stream;

use super::dequeue::on_dequeue;
use super::keep_alive::Form;
use super::{HEARTBEAT_INTERVAL, KeepAlive};
use crate::frame::Frame;
use crate::subscription::Subscription;
use crate::time::LONGEST;

/// An axum event with the same fields. It copies the data: for each stream, once per event.
impl From<&Frame> for sse::Event {
    fn from(frame: &Frame) -> Self {
        let mut event = sse::Event::default();
        for (name, value) in frame.fields() {
            // None of these panics: a frame's fields are one line each.
            event = match name {
                "event" => event.event(value),
                "id" => event.id(value),
                "retry" => match value.parse() {
                    Ok(millis) => event.retry(Duration::from_millis(millis)),
                    Err(_) => event,
                },
                "" => event.comment(value),
                _ => event,
            };
        }
        event.data(frame.data())
    }
}

impl From<KeepAlive> for sse::KeepAlive {
    fn from(keep_alive: KeepAlive) -> Self {
        let event = match keep_alive.form {
            Some(Form::Comment) => sse::Event::default().comment(""),
            Some(Form::HeartbeatEvent) => sse::Event::from(&super::keep_alive::heartbeat_frame()),
            // axum's keep-alive cannot be off.
            None => return sse::KeepAlive::new().interval(LONGEST),
        };
        sse::KeepAlive::new()
            .interval(keep_alive.interval.unwrap_or(HEARTBEAT_INTERVAL))
            .event(event)
    }
}

impl Subscription {
    /// The events as axum's own, for [`axum::response::Sse`].
    ///
    /// Costs a copy of each event for each stream, which the [`Subscription`] as a response does not. Lost events are
    /// reported as there, and a stream that has nothing to send yet begins with an empty comment, as there. What
    /// [`SseBody`](super::SseBody) sends for reconnecting is left out: no cursor, and no `retry` at the end. axum's events
    /// cannot say that their data is empty: such an event arrives without data, and clients ignore it.
    ///
    /// # Cancel safety
    ///
    /// As a [`Subscription`].
    ///
    /// # Examples
    ///
    /// ```
    /// use axum::extract::State;
    /// use axum::response::{IntoResponse, Sse};
    /// use tidings::{GenericBroadcaster, RegisterError, Text};
    ///
    /// async fn stream(State(hub): State<GenericBroadcaster<Text>>) -> Result<impl IntoResponse, RegisterError> {
    ///     Ok(Sse::new(hub.register("ann")?.into_axum_events()))
    /// }
    /// ```
    pub fn into_axum_events(
        self,
    ) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send + Unpin {
        AxumEvents {
            subscription: self,
            has_sent: false,
            has_ended: false,
        }
    }
}

struct AxumEvents {
    subscription: Subscription,
    /// Something was sent, so that proxies have passed the head on.
    has_sent: bool,
    /// The subscription has ended, and its restart id, if there is one, was sent.
    has_ended: bool,
}

impl Stream for AxumEvents {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        let subscription = &mut this.subscription;
        let item = Pin::new(&mut *subscription).poll_next(cx);
        let is_first = !std::mem::replace(&mut this.has_sent, true);
        if item.is_pending() && is_first {
            return Poll::Ready(Some(Ok(sse::Event::default().comment(""))));
        }
        let Some(item) = ready!(item) else {
            this.has_ended = true;
            let id = subscription.restart_id();
            return Poll::Ready(id.map(|id| Ok(sse::Event::default().id(&*id))));
        };
        Poll::Ready(Some(Ok(match item {
            Ok(frame) => {
                on_dequeue(&frame, subscription.guard());
                (&*frame).into()
            }
            Err(gap) => (&Frame::gap(&gap)).into(),
        })))
    }
}
