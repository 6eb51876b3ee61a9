//! The outermost body of a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::chunk::{Chunk, Load};

/// A body that counts what it hands over in the [`Load`] of its stream, and ends when all of that has left.
pub(in crate::serve) struct LoadedBody<B> {
    body: Pin<Box<B>>,
    load: Arc<Load>,
    /// The body inside has ended, perhaps with trailers.
    end: Option<Option<HeaderMap>>,
}

impl<B: Body> LoadedBody<B> {
    pub(super) fn new(body: B, load: Arc<Load>) -> Self {
        Self {
            body: Box::pin(body),
            load,
            end: None,
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Option<HeaderMap>>> {
        self.load.register(cx.waker());
        if self.load.is_gone() {
            Poll::Ready(self.end.replace(None))
        } else {
            Poll::Pending
        }
    }
}

impl<B: Body> Body for LoadedBody<B> {
    type Data = Chunk<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk<B::Data>>, B::Error>>> {
        if self.end.is_none() {
            // Not every body may be polled again after it has said that it ended.
            let next = if self.body.is_end_stream() {
                None
            } else {
                ready!(self.body.as_mut().poll_frame(cx)?)
            };
            match next.map(Frame::into_data) {
                Some(Ok(data)) => {
                    let chunk = Chunk::new(data, &self.load);
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                Some(Err(frame)) => self.end = Some(frame.into_trailers().ok()),
                None => self.end = Some(None),
            }
        }
        let trailers = ready!(self.poll_end(cx)).flatten();
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        let has_ended = match &self.end {
            Some(trailers) => trailers.is_none(),
            None => self.body.is_end_stream(),
        };
        has_ended && self.load.is_gone()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
