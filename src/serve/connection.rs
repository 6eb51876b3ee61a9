//! One connection, from its first byte to its end.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Body;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncRead;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::app::{App, Io};
use super::attendants::{Attendants, Driven};
use super::grace::GracePeriod;
use super::guard::StallGuard;
use super::handover::{Handed, Slot};
use super::leash::leash;
use super::phase::{Phase, Watcher};
use super::rewind::Rewind;
use super::stream::Stream;

/// The protocols of connections, and their time limits.
#[derive(Debug)]
pub(super) struct Protocols {
    /// `None` if each stream is written to by its own task.
    pub(super) attendants: Option<Arc<Attendants>>,
    pub(super) header_read_timeout: Duration,
    #[cfg(feature = "http2")]
    pub(super) http2: bool,
    /// For streams; the IO of a connection has its own.
    #[cfg(feature = "http2")]
    pub(super) stall_limit: Duration,
    #[cfg(feature = "http2")]
    pub(super) http2_idle_timeout: Duration,
    #[cfg(feature = "http2")]
    pub(super) http2_keep_alive_interval: Option<Duration>,
    #[cfg(feature = "http2")]
    pub(super) http2_keep_alive_timeout: Duration,
}

impl Default for Protocols {
    fn default() -> Self {
        Self {
            attendants: Some(Arc::default()),
            header_read_timeout: Duration::from_secs(30),
            #[cfg(feature = "http2")]
            http2: false,
            #[cfg(feature = "http2")]
            stall_limit: super::guard::STALL_LIMIT,
            #[cfg(feature = "http2")]
            http2_idle_timeout: Duration::from_secs(90),
            #[cfg(feature = "http2")]
            http2_keep_alive_interval: None,
            #[cfg(feature = "http2")]
            http2_keep_alive_timeout: Duration::from_secs(20),
        }
    }
}

/// The most that a connection buffers of what it sends, besides one chunk, and of a request's head. Less than hyper's 400
/// KB: a client that does not read costs this much, and the socket has a buffer of its own.
const BUFFER: usize = 64 * 1024;

impl Protocols {
    /// Serves a connection in a task of its own.
    pub(super) fn spawn<I: Io, A: App>(
        self: &Arc<Self>,
        mut io: StallGuard<I>,
        app: A,
        phase: Watcher,
    ) {
        let head_by = self.head_by();
        let grace_period = Arc::default();
        io.set_grace_period(Arc::clone(&grace_period));
        let io = Rewind::new(io);
        #[cfg(feature = "http2")]
        if self.http2 {
            let protocols = Arc::clone(self);
            tokio::spawn(super::http2::serve_either(
                io,
                app,
                protocols,
                grace_period,
                phase,
                head_by,
            ));
            return;
        }
        tokio::spawn(Arc::clone(self).http1(io, app, grace_period, phase, head_by));
    }

    /// The deadline for the head of a request, if the server waits for it from now on.
    fn head_by(&self) -> Instant {
        Instant::now() + self.header_read_timeout
    }

    /// Serves an HTTP/1 connection. The grace period is that of its IO, and the time for its first head has begun.
    pub(super) fn http1<I: Io, A: App>(
        self: Arc<Self>,
        io: Rewind<I>,
        app: A,
        grace_period: Arc<GracePeriod>,
        phase: Watcher,
        head_by: Instant,
    ) -> impl Future<Output = ()> + Send {
        let session = Session {
            protocols: self,
            app,
            grace_period,
            phase,
        };
        // Each step is in a box of its own size, which is given back before the next one begins: most connections are idle
        // streams, and what a request needs would stay with each of them.
        let mut requests = Box::pin(session.requests(io, head_by));
        async move {
            while let Some(stream) = requests.await {
                let Some((session, io)) = stream.await else {
                    return;
                };
                let head_by = session.protocols.head_by();
                requests = Box::pin(session.requests(io, head_by));
            }
        }
    }
}

/// What an HTTP/1 connection keeps from one request to the next.
struct Session<A> {
    protocols: Arc<Protocols>,
    app: A,
    grace_period: Arc<GracePeriod>,
    phase: Watcher,
}

impl<A: App> Session<A> {
    /// Serves requests, until the connection is over or an event stream takes it.
    async fn requests<I: Io>(
        mut self,
        mut io: Rewind<I>,
        head_by: Instant,
    ) -> Option<Pin<Box<impl Future<Output = Option<(Self, Rewind<I>)>> + Send + use<I, A>>>> {
        if !has_begun(&mut io, &mut self.phase, head_by).await {
            return None;
        }
        // In a box of its own, which a connection without a request does not have yet.
        let stream = Box::pin(self.until_stream(io, head_by)).await?;
        Some(Box::pin(self.stream(stream)))
    }

    /// Sends an event stream. Returns the IO if it may serve another request.
    ///
    /// A block keeps what it captures once; an `async fn` would keep its parameters beside the variables they become.
    fn stream<I: Io>(
        mut self,
        stream: Stream<I, A::Body>,
    ) -> impl Future<Output = Option<(Self, Rewind<I>)>> + Send {
        let mut stream = match (&self.protocols.attendants, self.grace_period.watched()) {
            (Some(attendants), Some(handle)) => attendants.admit(stream, handle),
            _ => Driven::alone(stream),
        };
        if self.phase.now() != Phase::Open {
            stream.close_at_end();
        }
        async move {
            let is_reusable = drive(&mut stream, &mut self.phase, Driven::close_at_end).await;
            if is_reusable != Some(true) {
                return None;
            }
            self.grace_period.watch(None);
            Some((self, stream.into_io()?))
        }
    }

    async fn until_stream<I: Io>(
        &mut self,
        io: Rewind<I>,
        head_by: Instant,
    ) -> Option<Stream<I, A::Body>> {
        let slot = Arc::<Slot<A::Body>>::default();
        let (kept, grace_period) = (Arc::clone(&slot), Arc::clone(&self.grace_period));
        let app = TowerToHyperService::new(self.app.clone());
        let service = service_fn(move |request| {
            let asked = kept.begin(&request);
            let response = app.call(request);
            let (slot, grace_period) = (Arc::clone(&kept), Arc::clone(&grace_period));
            async move {
                let mut response = response.await?;
                // Bytes of the previous response may still wait: from now on, this response decides how long they may.
                grace_period.watch(response.extensions_mut().remove());
                Ok::<_, A::Error>(slot.split(asked, response))
            }
        });
        let (io, leash) = leash(io.observed(Arc::clone(&slot)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.protocols.header_read_timeout)
            .max_buf_size(BUFFER)
            // By itself hyper takes a longer head if it comes in one read.
            .max_header_size(BUFFER)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        let mut until_handed = UntilHanded {
            connection,
            slot: &slot,
            head_by: pin!(sleep_until(head_by)),
        };
        let handed = drive(&mut until_handed, &mut self.phase, |until_handed| {
            Pin::new(&mut until_handed.connection).graceful_shutdown();
        });
        let Some(handed) = handed.await.flatten() else {
            // The IO is dropped with the connection, unless an upgrade has it.
            drop(until_handed);
            leash.hold(&mut self.phase).await;
            return None;
        };
        let parts = until_handed.connection.into_parts()?;
        let io = parts.io.into_inner().into_inner()?;
        Some(Stream::new(io.rewind(&parts.read_buf), handed))
    }
}

/// Waits for the first byte of a request. hyper would keep a buffer for a request that may never come: browsers open
/// connections before they need them.
async fn has_begun<I>(io: &mut Rewind<I>, phase: &mut Watcher, head_by: Instant) -> bool
where
    I: AsyncRead + Unpin,
{
    let mut begun = pin!(timeout_at(head_by, io.has_begun()));
    matches!(phase.during(&mut begun).await, Ok(Ok(true)))
}

/// A connection of hyper, until it ends or has a stream to hand over.
struct UntilHanded<'a, C, B> {
    connection: C,
    slot: &'a Slot<B>,
    /// For the first head: hyper's own time-out begins with the first byte.
    head_by: Pin<&'a mut Sleep>,
}

impl<C, B> Future for UntilHanded<'_, C, B>
where
    C: Future<Output = hyper::Result<()>> + Unpin,
    B: Body,
{
    type Output = hyper::Result<Option<Handed<B>>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.connection).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
            Poll::Pending => match self.slot.take() {
                Some(handed) => Poll::Ready(Ok(Some(handed))),
                None if self.slot.has_request() => Poll::Pending,
                None => self.head_by.as_mut().poll(cx).map(|()| Ok(None)),
            },
        }
    }
}

/// Polls a connection until it ends or is aborted, and tells it to finish when it is time.
pub(super) async fn drive<C, T, E>(
    connection: &mut C,
    phase: &mut Watcher,
    finish: impl Fn(&mut C),
) -> Option<T>
where
    C: Future<Output = Result<T, E>> + Unpin,
    E: fmt::Display,
{
    loop {
        match phase.during(connection).await {
            Ok(Ok(output)) => return Some(output),
            Ok(Err(error)) => {
                tracing::debug!(error = error.to_string(), "a connection failed");
                return None;
            }
            Err(Phase::Aborted) => return None,
            Err(_) => finish(connection),
        }
    }
}
