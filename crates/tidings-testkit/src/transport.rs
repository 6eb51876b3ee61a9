//! How a request comes to a service, and the body of the response back.

use std::future::poll_fn;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use http::{Request, Response};
use tower_service::Service;

use super::error::{Source, SseError};

#[async_trait]
pub(super) trait Transport: Send {
    /// Gets the head of the response.
    async fn send(&mut self, request: Request<String>) -> Result<Response<Body>, SseError>;

    /// Whether waiting is for a socket, for which a paused clock does not wait.
    fn has_sockets(&self) -> bool;
}

/// The body of a response, which goes on only while it is asked.
pub(super) type Body = Box<dyn Chunks>;

#[async_trait]
pub(super) trait Chunks: Send {
    /// The next bytes; `None` at the end. Nothing is lost if the future is dropped.
    async fn chunk(&mut self) -> Option<Result<Bytes, Source>>;
}

/// A service in the same process.
pub(super) struct ServiceTransport<S>(pub(super) S);

#[async_trait]
impl<S, B> Transport for ServiceTransport<S>
where
    S: Service<Request<String>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Source>,
    B: http_body::Body + Send + 'static,
    B::Error: Into<Source>,
{
    async fn send(&mut self, request: Request<String>) -> Result<Response<Body>, SseError> {
        let broken = |error: S::Error| SseError::Broken(error.into());
        let Self(service) = self;
        let ready = poll_fn(|cx| service.poll_ready(cx));
        ready.await.map_err(broken)?;
        let response = service.call(request).await.map_err(broken)?;
        Ok(response.map(|body| -> Body { Box::new(Polled(Box::pin(body))) }))
    }

    fn has_sockets(&self) -> bool {
        false
    }
}

struct Polled<B>(Pin<Box<B>>);

#[async_trait]
impl<B> Chunks for Polled<B>
where
    B: http_body::Body + Send,
    B::Error: Into<Source>,
{
    async fn chunk(&mut self) -> Option<Result<Bytes, Source>> {
        loop {
            let frame = poll_fn(|cx| {
                let frame = self.0.as_mut().poll_frame(cx);
                // Here, so that the future need not hold what the body makes.
                frame.map_ok(|frame| {
                    let data = frame.into_data().ok();
                    data.map(|mut data| data.copy_to_bytes(data.remaining()))
                })
            });
            match frame.await? {
                Ok(Some(bytes)) => return Some(Ok(bytes)),
                // Trailers.
                Ok(None) => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}
