//! One connection, from its first byte to its end.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ConnectInfo;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower_service::Service;

use super::guard::StallGuard;
use super::overtime::Overtime;

/// How far the server's shutdown is. It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Connections finish what they do.
    Finishing,
    /// Connections end at once. So they do when the sender is gone.
    Aborted,
}

/// What connections speak, and how patiently.
#[derive(Debug)]
pub(super) struct Protocols {
    pub(super) header_read_timeout: Duration,
    #[cfg(feature = "http2")]
    pub(super) http2: bool,
    /// For streams; the IO of a connection has its own.
    #[cfg(feature = "http2")]
    pub(super) stall_limit: Duration,
}

impl Default for Protocols {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(30),
            #[cfg(feature = "http2")]
            http2: false,
            #[cfg(feature = "http2")]
            stall_limit: super::guard::STALL_LIMIT,
        }
    }
}

/// The most that a connection buffers of what it sends, besides one chunk, and of a request's head. Less than hyper's 400
/// KB: it is what a client costs that does not read, and the socket has a buffer of its own.
const BUFFER: usize = 64 * 1024;

impl Protocols {
    /// Serves a connection in a task of its own.
    pub(super) fn spawn<I, S, A, B>(
        self: &Arc<Self>,
        mut io: StallGuard<I>,
        app: TowerToHyperService<Peer<S, A>>,
        phase: watch::Receiver<Phase>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: Clone + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let overtime = Arc::default();
        io.set_overtime(Arc::clone(&overtime));
        #[cfg(feature = "http2")]
        if self.http2 {
            let protocols = Arc::clone(self);
            tokio::spawn(super::http2::serve_either(
                io, app, protocols, overtime, phase,
            ));
            return;
        }
        tokio::spawn(self.http1(io, app, overtime, phase));
    }

    /// The future of an HTTP/1 connection. The overtime is that of its IO.
    pub(super) fn http1<I, S, A, B>(
        &self,
        io: I,
        app: TowerToHyperService<Peer<S, A>>,
        overtime: Arc<Overtime>,
        phase: watch::Receiver<Phase>,
    ) -> impl Future<Output = ()> + Send + 'static + use<I, S, A, B>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: Clone + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let service = service_fn(move |request| {
            let response = app.call(request);
            let overtime = Arc::clone(&overtime);
            async move {
                let mut response = response.await?;
                // Bytes of the response before may still wait. They have the time of this one, if it is no stream.
                overtime.watch(response.extensions_mut().remove());
                Ok::<_, S::Error>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_read_timeout)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        drive(connection, phase, |connection| {
            connection.graceful_shutdown()
        })
    }
}

/// Polls a connection until it ends or is aborted, and tells it to finish when it is time.
pub(super) async fn drive<C, E>(
    connection: C,
    mut phase: watch::Receiver<Phase>,
    finish: fn(Pin<&mut C>),
) where
    C: Future<Output = Result<(), E>>,
    E: fmt::Display,
{
    let mut connection = pin!(connection);
    loop {
        // A receiver begins with what it was made with: connections that are accepted are told of every change.
        let changed = tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection failed");
                }
                return;
            }
            changed = phase.changed() => changed,
        };
        let now = *phase.borrow_and_update();
        if changed.is_err() || now == Phase::Aborted {
            return;
        }
        finish(connection.as_mut());
    }
}

/// A service whose requests carry the address of the peer.
#[derive(Debug, Clone)]
pub(super) struct Peer<S, A> {
    app: S,
    peer: A,
}

impl<S, A> Peer<S, A> {
    pub(super) fn new(app: S, peer: A) -> Self {
        Self { app, peer }
    }
}

impl<S, A, B> Service<Request<B>> for Peer<S, A>
where
    S: Service<Request<B>>,
    A: Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.app.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let peer = ConnectInfo(self.peer.clone());
        request.extensions_mut().insert(peer);
        self.app.call(request)
    }
}
