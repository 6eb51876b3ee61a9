//! Whose stream it is: the user comes from a session, which a cookie or a bearer token names, and never from anything that
//! the client can choose. The stream ends when the session does.
//!
//!     cargo run -p auth
//!
//! Browsers send the cookie with an `EventSource` by themselves; it cannot send a header. All other clients send the token.
//! Do not put a token in the query: it would work for both, but appear in every access log, in the history of browsers and in
//! the `Referer` that they send to other sites.
//!
//! An `EventSource` that is refused with 401 gives up for good. That is right here: the page has to log in again, and opens
//! a new one after that.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{RequestPartsExt, Router};
use axum_extra::TypedHeader;
use axum_extra::extract::CookieJar;
use axum_extra::headers::Authorization;
use axum_extra::headers::authorization::Bearer;
use tidings::{GenericBroadcaster, Subscription, Text, UserId};
use tokio::time::Instant;

/// How long a session lives, and with it each stream that was opened in it.
pub(crate) const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The name tells browsers to take the cookie over TLS only, and from this host only.
const COOKIE: &str = "__Host-session";

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) hub: GenericBroadcaster<Text>,
    pub(crate) sessions: Sessions,
}

impl App {
    pub(crate) fn new() -> Self {
        Self {
            hub: GenericBroadcaster::new(),
            sessions: Sessions::default(),
        }
    }
}

/// So that the extractor works with whatever state has sessions in it.
impl FromRef<App> for Sessions {
    fn from_ref(app: &App) -> Self {
        app.sessions.clone()
    }
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/events", get(stream).post(send))
        .route("/logout", post(log_out))
        .with_state(app)
}

/// The open sessions: who may be believed to be whom. A service has them in its database, or in what signs its tokens.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<RwLock<HashMap<String, Session>>>);

/// What a request has shown to be true.
#[derive(Clone)]
pub(crate) struct Session {
    token: String,
    user: UserId,
    expires: Instant,
}

impl Sessions {
    /// Opens a session for a user who has just logged in, and gives the secret that stands for it.
    pub(crate) fn open(&self, user: impl Into<UserId>) -> Result<String, getrandom::Error> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)?;
        let token = format!("{:032x}", u128::from_ne_bytes(secret));
        let session = Session {
            token: token.clone(),
            user: user.into(),
            expires: Instant::now() + LIFETIME,
        };
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.expires > Instant::now());
        sessions.insert(token.clone(), session);
        Ok(token)
    }

    fn find(&self, token: &str) -> Option<Session> {
        let sessions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(token)?;
        (session.expires > Instant::now()).then(|| session.clone())
    }

    fn close(&self, token: &str) {
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(token);
    }
}

/// The request has no session that is open.
pub(crate) struct Unauthorized;

impl IntoResponse for Unauthorized {
    fn into_response(self) -> Response {
        let challenge = [(WWW_AUTHENTICATE, "Bearer")];
        (StatusCode::UNAUTHORIZED, challenge, "log in first\n").into_response()
    }
}

impl<S> FromRequestParts<S> for Session
where
    S: Send + Sync,
    Sessions: FromRef<S>,
{
    type Rejection = Unauthorized;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Unauthorized> {
        let sessions = Sessions::from_ref(state);
        let bearer = parts.extract::<TypedHeader<Authorization<Bearer>>>().await;
        // Who sends a token is judged by it, also if there is a cookie beside it.
        let session = match bearer {
            Ok(bearer) => sessions.find(bearer.token()),
            Err(_) => {
                let cookies = CookieJar::from_headers(&parts.headers);
                cookies
                    .get(COOKIE)
                    .and_then(|cookie| sessions.find(cookie.value()))
            }
        };
        session.ok_or(Unauthorized)
    }
}

async fn stream(State(app): State<App>, session: Session) -> Result<Subscription, Response> {
    let stream = app
        .hub
        .register(session.user)
        .map_err(IntoResponse::into_response)?;
    // A logout ends the streams that it finds. One that came in between its two steps is found here.
    if app.sessions.find(&session.token).is_none() {
        return Err(Unauthorized.into_response());
    }
    Ok(stream.deadline(session.expires))
}

/// Users write to themselves here; to whom else they may is for the service to say.
async fn send(State(app): State<App>, session: Session, text: String) -> Result<String, Response> {
    let reached = app.hub.broadcast(&session.user, &Text::new(text));
    let reached = reached.map_err(|error| {
        (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response()
    })?;
    Ok(format!("reached {reached} streams\n"))
}

/// Closes the session first, so that nothing can be opened with it any more, and then the streams: all of the user's, of
/// which those in other sessions come back by themselves.
async fn log_out(State(app): State<App>, session: Session) -> String {
    app.sessions.close(&session.token);
    let ended = app.hub.disconnect_user(&session.user);
    format!("ended {ended} streams\n")
}

/// What a login answers with. Scripts cannot read the cookie, and other sites cannot have it sent.
pub(crate) fn set_cookie(token: &str) -> String {
    let seconds = LIFETIME.as_secs();
    format!("{COOKIE}={token}; Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=Strict")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:3000");
    let listener = tokio::net::TcpListener::bind(address).await?;
    let app = App::new();
    let base = format!("http://{}", listener.local_addr()?);
    println!("auth listens on {base}\n");
    for user in ["ann", "bob"] {
        let token = app.sessions.open(user)?;
        println!("{user}'s streams, and an event for {user}:\n");
        println!("  curl -N -H 'authorization: Bearer {token}' {base}/events");
        println!("  curl -d hello -H 'authorization: Bearer {token}' {base}/events");
        println!(
            "  a login in a browser would answer: set-cookie: {}\n",
            set_cookie(&token)
        );
    }
    axum::serve(tidings::serve::listener(listener), router(app)).await?;
    Ok(())
}
