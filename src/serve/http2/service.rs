//! A connection that may speak HTTP/2.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::{Instant, timeout_at};

use super::body::LoadedBody;
use super::executor::{StallExecutor, current_load};
use super::streams::Streams;
use super::timely::Timely;
use super::wire::{PREFACE, Wire};
use crate::serve::app::{App, Io};
use crate::serve::connection::{Protocols, drive};
use crate::serve::grace::GracePeriod;
use crate::serve::phase::Watcher;
use crate::serve::rewind::Rewind;

/// The most that a stream may have in the connection's buffers while its window is open. Less than hyper's 400 KB: what
/// waits there is memory, and the socket has a buffer of its own.
const STREAM_BUFFER: usize = 64 * 1024;

/// Serves a connection in the protocol that its client begins with.
pub(in crate::serve) async fn serve_either<I: Io, A: App>(
    mut io: Rewind<I>,
    app: A,
    protocols: Arc<Protocols>,
    grace_period: Arc<GracePeriod>,
    mut phase: Watcher,
    head_by: Instant,
) {
    let is_http2 = {
        let mut in_time = pin!(timeout_at(head_by, io.begins_with(PREFACE)));
        match phase.during(&mut in_time).await {
            Ok(is_http2) => is_http2,
            // No request has begun: there is nothing to finish.
            Err(_) => return,
        }
    };
    // In tasks of their own, so that a connection does not take the memory of the other protocol, and of this future.
    match is_http2 {
        Ok(Ok(false)) => {
            drop(tokio::spawn(protocols.http1(
                io,
                app,
                grace_period,
                phase,
                head_by,
            )));
        }
        Ok(Ok(true)) => {
            let opened = head_by - protocols.header_read_timeout;
            let streams = Arc::new(Streams::new(protocols.stall_limit, grace_period, opened));
            let io = Wire::new(io, Arc::clone(&streams));
            let connection = http2::Builder::new(StallExecutor(Arc::clone(&streams)))
                .timer(TokioTimer::new())
                .max_send_buf_size(STREAM_BUFFER)
                .keep_alive_interval(protocols.http2_keep_alive_interval)
                .keep_alive_timeout(protocols.http2_keep_alive_timeout)
                .enable_connect_protocol()
                .serve_connection(TokioIo::new(io), Loaded(TowerToHyperService::new(app)));
            let heads = protocols.header_read_timeout;
            let idle = protocols.http2_idle_timeout;
            let finish =
                |connection: Pin<&mut http2::Connection<_, _, _>>| connection.graceful_shutdown();
            let mut connection = Timely::new(connection, finish, streams, heads, idle);
            tokio::spawn(async move { drive(&mut connection, &mut phase, Timely::finish).await });
        }
        Ok(Err(error)) => tracing::debug!(error = error.to_string(), "a connection failed"),
        Err(_) => tracing::debug!("the first bytes of a connection did not come in time"),
    }
}

/// A service whose responses count in the load of their stream.
struct Loaded<S>(S);

impl<A: App> hyper::service::Service<Request<Incoming>> for Loaded<TowerToHyperService<A>> {
    type Response = Response<LoadedBody<A::Body>>;
    type Error = A::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, A::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let response = self.0.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            let load = current_load().expect("the executor polls each stream within its load");
            load.grace_period()
                .watch(response.extensions_mut().remove());
            Ok(response.map(|body| LoadedBody::new(body, load)))
        })
    }
}
