//! TLS and HTTP/2, and one stream for everything: against the limit of six connections that a browser has.
//!
//!     cargo run -p tls_h2
//!
//! Over HTTP/1.1 a browser opens at most six connections to an origin, all tabs together, and an open stream keeps one
//! busy. A page with three streams, one for each kind of event, uses half of them; its third tab hangs, with its images,
//! styles and `POST`s, without any error. Two things help, and they go together:
//!
//! - HTTP/2 carries all of a browser's requests to an origin on one connection. Browsers speak it over TLS only, when the server
//!   offers `h2` in the handshake (ALPN). Then about a hundred streams at a time are free. Behind a proxy the browser speaks
//!   HTTP/2 to the proxy, and the proxy HTTP/1.1 to us: then TLS and HTTP/2 are the proxy's task.
//! - One stream for a page, whatever it wants to know: the context stream, which carries the events of all protocols, each under
//!   its name. `EventRouter` feeds it. It also keeps the order between events of different kinds, which several streams cannot.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use axum::serve::Listener;
use tidings::protocol::agui::{Event, RunRef};
use tidings::protocol::system::{Context, SystemEvent};
use tidings::serve::{StallGuard, StallListener, bind, serve};
use tidings::{EventRouter, LastEventId, RegisterError, Subscription};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// So many may be in it at a time; more wait to be accepted.
const HANDSHAKES: usize = 1024;

/// Accepts TCP connections and makes TLS connections of them. The handshakes run beside each other, so that none of them
/// holds up the next client.
pub(crate) struct TlsListener {
    tcp: StallListener,
    tls: TlsAcceptor,
    handshakes: JoinSet<io::Result<(<Self as Listener>::Io, SocketAddr)>>,
}

impl TlsListener {
    /// The guard stands next to the socket, where bytes count as taken when the client has taken them.
    pub(crate) fn new(tcp: StallListener, tls: Arc<ServerConfig>) -> Self {
        Self {
            tcp,
            tls: tls.into(),
            handshakes: JoinSet::new(),
        }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<StallGuard<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            tokio::select! {
                (tcp, peer) = self.tcp.accept(), if self.handshakes.len() < HANDSHAKES => {
                    let handshake = timeout(HANDSHAKE, self.tls.accept(tcp));
                    self.handshakes.spawn(async move { Ok((handshake.await??, peer)) });
                }
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok(accepted)) => return accepted,
                    Ok(Err(error)) => tracing::debug!(error = error.to_string(), "a handshake failed"),
                    Err(error) => tracing::warn!(error = error.to_string(), "a handshake panicked"),
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// TLS 1.2 and 1.3, with HTTP/2 offered first.
pub(crate) fn tls(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, tokio_rustls::rustls::Error> {
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(crate) fn router(events: EventRouter) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/events/{user}", get(stream))
        .route("/steps/{user}", post(step))
        .route("/contexts/{user}", post(create_context))
        .with_state(events)
}

/// One `EventSource`, a listener for each kind of event.
const PAGE: &str = r#"<!doctype html>
<title>one stream</title>
<pre id="log"></pre>
<script>
const stream = new EventSource("/events/ann");
for (const kind of ["agui", "a2a", "system", "gap"]) {
  stream.addEventListener(kind, event => { log.textContent += `${kind} ${event.data}\n`; });
}
</script>
"#;

// The user stands in the path to keep the example to its question; see `auth`.
async fn stream(
    State(events): State<EventRouter>,
    Path(user): Path<String>,
    last_event_id: LastEventId,
) -> Result<Subscription, RegisterError> {
    events.context().resume(user, &last_event_id)
}

async fn step(
    State(events): State<EventRouter>,
    Path(user): Path<String>,
    name: String,
) -> Result<String, (StatusCode, String)> {
    let run = RunRef::new("thread-1", "run-1");
    let event = run.event(Event::step_started(name));
    answer(events.route_agui(&user, &event))
}

async fn create_context(
    State(events): State<EventRouter>,
    Path(user): Path<String>,
    name: String,
) -> Result<String, (StatusCode, String)> {
    let event = SystemEvent::context_created(Context::new("context-1").name(name));
    answer(events.route_system(&user, &event))
}

fn answer(
    routed: Result<tidings::Routed, tidings::BroadcastError>,
) -> Result<String, (StatusCode, String)> {
    match routed {
        Ok(routed) => Ok(format!("reached {} streams\n", routed.total())),
        Err(error) => Err((StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n"))),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let tcp = bind(address.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    let base = format!("https://localhost:{}", tcp.local_addr()?.port());
    // A certificate that nobody trusts. A service reads its own from files (`pki_types::pem`).
    let own = rcgen::generate_simple_self_signed(["localhost".into()])?;
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let tls = tls(vec![own.cert.der().clone()], key)?;
    println!("tls_h2 listens on {base}\n");
    println!("  curl -kN {base}/events/ann");
    println!("  curl -k -d search {base}/steps/ann");
    println!("  curl -k -d Trip {base}/contexts/ann");

    // The outer guard is what the server's limits for HTTP/2 streams are taken from.
    let listener = StallListener::new(TlsListener::new(tcp, tls));
    serve(listener, router(EventRouter::new()))
        .http2(true)
        .await;
    Ok(())
}
