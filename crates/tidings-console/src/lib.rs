//! A page for operators: what a service's broadcasters are doing, who is connected, and the means to step in.
//!
//! A [`Console`] becomes an axum router that a service nests where it likes. The page shows counts and rates with small
//! graphs, the users and their connections with what each of these has lost and still has to read; it disconnects users and
//! connections, sends test events, and watches a user's stream with its gaps. It comes with the crate, and loads nothing
//! from anywhere else.
//!
//! # Guard it
//!
//! **It must never be public, and it has no login of its own.** A client that reaches it sees the ids of all users, can read
//! any user's events, disconnect any user and send events in the service's name. Let only operators through, with a layer
//! around the router, and preferably on a listener of its own. A middleware that asks for a bearer token:
//!
//! ```
//! use axum::Router;
//! use axum::extract::{Request, State};
//! use axum::http::{StatusCode, header::AUTHORIZATION};
//! use axum::middleware::{Next, from_fn_with_state};
//! use axum::response::Response;
//! use tidings_console::Console;
//! use tidings::{GenericBroadcaster, Text};
//!
//! async fn operators_only(
//!     State(expected): State<String>,
//!     request: Request,
//!     next: Next,
//! ) -> Result<Response, StatusCode> {
//!     let given = request.headers().get(AUTHORIZATION);
//!     // A service on the open internet compares in constant time, with the crate `subtle` for example.
//!     if given.is_some_and(|given| given.as_bytes() == expected.as_bytes()) {
//!         Ok(next.run(request).await)
//!     } else {
//!         Err(StatusCode::UNAUTHORIZED)
//!     }
//! }
//!
//! # let secret = "secret";
//! let hub = GenericBroadcaster::<Text>::new();
//! let console = Console::new().broadcaster_with("chat", &hub, |text| Text::new(text));
//! let guard = from_fn_with_state(format!("Bearer {secret}"), operators_only);
//! let app: Router = Router::new().nest("/console", console.router().layer(guard));
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # use axum::{body::Body, http::Request};
//! # use tower::ServiceExt;
//! # let get = |token| Request::get("/console/page").header("host", "localhost").header("authorization", token).body(Body::empty()).unwrap();
//! # assert_eq!(app.clone().oneshot(get("Bearer wrong")).await.unwrap().status(), 401);
//! # assert_eq!(app.oneshot(get("Bearer secret")).await.unwrap().status(), 200);
//! # });
//! ```
//!
//! A browser does not add a bearer token by itself: put a proxy in front that adds it for operators who are logged in. A
//! cookie of the service's own login (`SameSite=Strict`), `Basic` credentials or client certificates do as well; the page
//! asks for nothing but that its requests pass.
//!
//! The router itself only guards against other sites that an operator's browser visits, which is not a login:
//!
//! - It answers under the names and addresses of loopback, and under those that [`Console::hosts`] names, to no other `Host`.
//!   Without that, any site could point its own name at an operator's machine, and its pages would be taken for the console's
//!   (DNS rebinding).
//! - An action needs the header `x-tidings-console`, which no other site can set.
//! - A request that the browser says another site has made (`Sec-Fetch-Site`, `Origin`) is refused. A proxy that changes
//!   `Host` has to keep the port, or to pass `Sec-Fetch-Site`, which browsers send on HTTPS and to localhost, and which has
//!   precedence over `Origin`. Over plain HTTP on another name, a page of another site can open streams that it cannot read:
//!   they take places of the console, at most 16 of which also count as connections of the service
//!   ([`total_connections`](tidings::Builder::total_connections)), and none of a user.
//! - The page cannot be framed, and runs no script but its own (`Content-Security-Policy`).
//!
//! For operators who need not act there is a [read-only](Console::read_only) console.
//!
//! # What is logged
//!
//! Each test event, each stream that is watched and each disconnection is a `tracing` event at `INFO`, with the broadcaster, the
//! user, the address and `Host` of the request, and the [operator](Console::operator) as the service names it.
//!
//! # What it costs
//!
//! Nothing while no page is open. While one is, one task reads the counters once a [second](Console::interval) and broadcasts
//! them, through a broadcaster of the console's own; it ends with the last page. The list of users is a walk over all of
//! them, on a thread for blocking work, each time that a page asks: with each third of the figures, and never more than one
//! at a time for each page. Of 100,000 users it takes 0.2 seconds in a debug build, on two cores of 64-bit Linux. What is
//! sent of it is [capped](Console::rows), and the page says so.
//!
//! Watching a user opens a connection of that user, whose id begins with `console-`. It counts in the figures and under
//! [`total_connections`](tidings::Builder::total_connections). The user's own cap
//! ([`connections_per_user`](tidings::Builder::connections_per_user)) does not count it, so it takes no place that the user's next
//! tab would have had; instead, a console watches at most 16 streams at a time. What the stream lost by lag is shown as a gap,
//! whatever the broadcaster's [`LagPolicy`](tidings::LagPolicy) is.
//!
//! # When the service stops
//!
//! The pages' own streams do not end by themselves. Call [`Console::shutdown`] beside the broadcasters' own
//! [`shutdown`](tidings::GenericBroadcaster::shutdown).

mod actions;
mod assets;
mod caller;
mod feed;
mod guard;
mod routes;
mod served;
mod settings;
mod source;
mod users;
mod watch;

pub use settings::Console;
