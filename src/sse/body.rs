//! The body of a response.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame as Chunk};
use tokio::time::{Instant, Sleep};

use super::KeepAlive;
use crate::frame::Frame;
use crate::subscription::Subscription;

/// The events of a [`Subscription`] as the body of an HTTP response, one chunk for each event.
///
/// A chunk is the event's shared bytes: handing it out copies and allocates nothing.
///
/// Where events were lost to lag, and the [`LagPolicy`](crate::LagPolicy) says so, an event `gap` stands in their place,
/// with `{"reason":"lagged","missed":n}` for data. At the end by a [shutdown](crate::GenericBroadcaster::shutdown) stands
/// a `retry:` line.
///
/// The keep-alive needs the timer of a tokio runtime when the body is polled.
#[derive(Debug)]
pub struct SseBody {
    /// Gone once it has ended, so that the connection leaves even if the body is kept.
    subscription: Option<Subscription>,
    keep_alive: Option<Silence>,
}

impl SseBody {
    /// The body of this subscription, with the keep-alive that is the default.
    #[must_use]
    pub fn new(subscription: Subscription) -> Self {
        Self {
            subscription: Some(subscription),
            keep_alive: Silence::new(&KeepAlive::default()),
        }
    }

    /// Sets the keep-alive.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: &KeepAlive) -> Self {
        self.keep_alive = Silence::new(keep_alive);
        self
    }
}

impl Body for SseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Some(subscription) = &mut this.subscription else {
            return Poll::Ready(None);
        };
        let chunk = match Pin::new(&mut *subscription).poll_next(cx) {
            Poll::Ready(Some(Ok(frame))) => frame.to_bytes(),
            Poll::Ready(Some(Err(lagged))) => Frame::lagged(lagged.missed).to_bytes(),
            Poll::Ready(None) => {
                let spread = subscription.guard().reconnect_spread();
                this.subscription = None;
                let last = spread.map(|spread| Frame::retry_line(reconnect_after(spread)));
                return Poll::Ready(last.map(|line| Ok(Chunk::data(line))));
            }
            Poll::Pending => {
                let Some(silence) = &mut this.keep_alive else {
                    return Poll::Pending;
                };
                return silence.poll(cx).map(|bytes| Some(Ok(Chunk::data(bytes))));
            }
        };
        if let Some(silence) = &mut this.keep_alive {
            silence.broken();
        }
        Poll::Ready(Some(Ok(Chunk::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.subscription.is_none()
    }
}

/// A moment to reconnect at, between one second from now and `spread` later.
pub(super) fn reconnect_after(spread: Duration) -> Duration {
    Duration::from_secs(1) + spread.mul_f64(fastrand::f64())
}

/// Watches for silence that has lasted as long as it may.
///
/// An event does not touch the timer, it only notes the time. When the timer fires too early for what was noted, it is
/// set again for the rest: a timer operation per interval instead of one per event.
#[derive(Debug)]
struct Silence {
    interval: Duration,
    bytes: Bytes,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    fn new(keep_alive: &KeepAlive) -> Option<Self> {
        let bytes = keep_alive.bytes()?;
        Some(Self {
            interval: keep_alive.interval,
            bytes,
            since: None,
            timer: None,
        })
    }

    /// Something was sent.
    fn broken(&mut self) {
        self.since = Some(Instant::now());
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let deadline = since + self.interval;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if now >= deadline {
                self.since = Some(now);
                timer.as_mut().reset(now + self.interval);
                return Poll::Ready(self.bytes.clone());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
