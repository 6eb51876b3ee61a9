//! What can be served.

use std::error::Error;
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// An app that [`serve`](super::serve) can serve: any tower service of HTTP that can be cloned and sent, such as an axum
/// `Router` that has its state.
///
/// It is implemented for all of them; nothing else can implement it.
///
/// A router whose handlers extract a state needs it first:
///
/// ```compile_fail,E0277
/// use axum::{Router, extract::State, routing::get};
///
/// # async fn run(tcp: tokio::net::TcpListener) {
/// let app: Router<String> = Router::new().route("/", get(|State(name): State<String>| async { name }));
/// tidings::serve::serve(tcp, app).await;
/// # }
/// ```
///
/// ```no_run
/// # use axum::{Router, extract::State, routing::get};
/// # async fn run(tcp: tokio::net::TcpListener) {
/// # let app: Router<String> = Router::new().route("/", get(|State(name): State<String>| async { name }));
/// tidings::serve::serve(tcp, app.with_state("ann".to_owned())).await;
/// # }
/// ```
///
/// axum's `into_make_service` is not needed, and not an app: every request carries the address of its peer.
///
/// ```compile_fail,E0277
/// # async fn run(tcp: tokio::net::TcpListener, app: axum::Router) {
/// tidings::serve::serve(tcp, app.into_make_service()).await;
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served",
    label = "this is no service of HTTP requests that can be cloned and sent",
    note = "a `Router` whose handlers extract a state has to be given it: `router.with_state(…)`",
    note = "pass a `Router` itself, without `.into_make_service()` or `.into_make_service_with_connect_info()`: every request carries its peer's address for `ConnectInfo`"
)]
pub trait App:
    Service<
        Request<Incoming>,
        Response = Response<Self::Body>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
    /// The body of its responses.
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
}

#[diagnostic::do_not_recommend]
impl<S, B> App for S
where
    S: Service<
            Request<Incoming>,
            Response = Response<B>,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

/// The IO of a connection.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// The body of an app's responses.
pub(super) trait AppBody: Body<Data: Send, Error: Into<BoxError>> + Send + 'static {}

impl<B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static> AppBody for B {}

/// An app whose requests carry the address of the peer.
#[derive(Debug, Clone)]
pub(super) struct WithPeer<S, A> {
    app: S,
    peer: A,
}

impl<S, A> WithPeer<S, A> {
    pub(super) fn new(app: S, peer: A) -> Self {
        Self { app, peer }
    }
}

impl<S, A, B> Service<Request<B>> for WithPeer<S, A>
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
