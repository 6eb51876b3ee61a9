//! The servers that are axum applications.
//!
//! All of them keep silent streams alive every 15 seconds, as each would in production, and have `TCP_NODELAY` and a long
//! backlog, which plain axum has not by itself: what is compared is the fan-out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, RwLock};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::{Stream, StreamExt};
use tidings::{GenericBroadcaster, RegisterError, serve};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Builder;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};

use crate::RING;
use crate::design::Design;
use crate::publish::Progress;
use crate::stamped::Stamped;
use crate::support::LockedHub;
use crate::support::process::answer;
use crate::tasks;

/// What one writes by hand: a map of tokio's channels.
#[derive(Clone, Default)]
struct ByHand(Arc<RwLock<HashMap<String, broadcast::Sender<Event>>>>);

impl ByHand {
    fn register(&self, user: String) -> broadcast::Receiver<Event> {
        let mut users = self.0.write().expect("nothing panics while it is held");
        users
            .entry(user)
            .or_insert_with(|| broadcast::channel(RING).0)
            .subscribe()
    }

    fn broadcast(&self, user: &str, event: Event) {
        let users = self.0.read().expect("nothing panics while it is held");
        if let Some(tx) = users.get(user) {
            let _ = tx.send(event);
        }
    }
}

/// Slots of a channel for each connection, as the crate that this one replaces had them in its last version.
const QUEUE: usize = 1024;

/// The map behind a lock, with a bounded channel for each connection. An event that finds it full is lost without a sign.
#[derive(Clone, Default)]
struct Bounded(Arc<tokio::sync::RwLock<HashMap<String, Vec<mpsc::Sender<Event>>>>>);

impl Bounded {
    async fn register(&self, user: String) -> mpsc::Receiver<Event> {
        let (tx, rx) = mpsc::channel(QUEUE);
        let mut users = self.0.write().await;
        let connections = users.entry(user).or_default();
        connections.retain(|tx| !tx.is_closed());
        connections.push(tx);
        rx
    }

    async fn broadcast(&self, user: &str, event: Event) {
        let users = self.0.read().await;
        for tx in users.get(user).into_iter().flatten() {
            let _ = tx.try_send(event.clone());
        }
    }
}

#[derive(Clone)]
enum Hub {
    Tidings(GenericBroadcaster<Stamped>),
    Locked(LockedHub),
    Bounded(Bounded),
    ByHand(ByHand),
}

impl Hub {
    /// How many connections and users it still has; nobody asks the others.
    fn left(&self) -> usize {
        match self {
            Self::Tidings(hub) => hub.total_connections() + hub.stats().users,
            Self::Locked(_) | Self::Bounded(_) | Self::ByHand(_) => 0,
        }
    }

    async fn broadcast(&self, user: &str, event: &Stamped) {
        match self {
            Self::Tidings(hub) => {
                let sent = hub.broadcast(user, event);
                sent.expect("text can be encoded");
            }
            Self::Locked(hub) => {
                let event = Event::default().data(event.data());
                hub.broadcast(user, event).await;
            }
            Self::Bounded(hub) => {
                let event = Event::default().data(event.data());
                hub.broadcast(user, event).await;
            }
            Self::ByHand(hub) => hub.broadcast(user, Event::default().data(event.data())),
        }
    }

    async fn stream(
        State(hub): State<Self>,
        Path(user): Path<String>,
    ) -> Result<Response, RegisterError> {
        Ok(match hub {
            Self::Tidings(hub) => hub.register(user)?.into_response(),
            Self::Locked(hub) => hub.stream(user.into()).await,
            Self::Bounded(hub) => sse(ReceiverStream::new(hub.register(user).await).map(Ok)),
            Self::ByHand(hub) => {
                let events = BroadcastStream::new(hub.register(user));
                sse(events.filter_map(async |event| event.ok().map(Ok)))
            }
        })
    }
}

fn sse(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// A runtime of tokio's, with its multi-threaded scheduler, as `#[tokio::main]` would have it on so many cores.
pub(crate) fn be_server(design: Design, users: usize, workers: usize) -> io::Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    // In a task: what `block_on` runs itself is not on the worker.
    let served = match design {
        Design::Tasks => runtime.spawn(tasks::be_server(users)),
        design => runtime.spawn(serve_all(design, users)),
    };
    runtime.block_on(served).expect("a server does not panic")
}

async fn serve_all(design: Design, users: usize) -> io::Result<()> {
    let hub = match design {
        Design::Locked => Hub::Locked(LockedHub::default()),
        Design::Bounded => Hub::Bounded(Bounded::default()),
        Design::ByHand => Hub::ByHand(ByHand::default()),
        _ => Hub::Tidings(
            GenericBroadcaster::builder()
                .connections_per_user(None)
                .ring_capacity(RING)
                .build()
                .expect("the settings are valid"),
        ),
    };
    let app = Router::new()
        .route("/{user}", get(Hub::stream))
        .with_state(hub.clone());
    let http = TcpSocket::new_v4()?;
    http.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let http = http.listen(crate::BACKLOG)?;
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (control_addr, addr) = (control.local_addr()?, http.local_addr()?);
    let asked = hub.clone();
    answer(&format!("{control_addr} http://{addr}"), move |_| {
        asked.left().to_string()
    });
    tokio::spawn(publish(control, hub, users));
    match design {
        Design::Serve => drop(serve::serve(serve::listener(http), app).await),
        Design::AxumServe => axum::serve(serve::listener(http), app).await?,
        _ => {
            let http = http.tap_io(|tcp| drop(tcp.set_nodelay(true)));
            axum::serve(http, app).await?;
        }
    }
    Ok(())
}

/// As [`blocking`](crate::publish::blocking) does it, in a task.
async fn publish(control: TcpListener, hub: Hub, users: usize) -> io::Result<()> {
    let names: Vec<_> = (0..users).map(|user| user.to_string()).collect();
    let (control, _) = control.accept().await?;
    let mut lines = BufReader::new(control).lines();
    let mut stamped = Stamped::default();
    while let Some(line) = lines.next_line().await? {
        let mut progress = Progress::of(&line)?;
        while !progress.is_done() {
            while let Some(number) = progress.next() {
                if let Some(pause) = progress.pause() {
                    tokio::time::sleep(pause).await;
                }
                let user = &names[number as usize % names.len()];
                let event = stamped.at(number, progress.run.size);
                hub.broadcast(user, event).await;
            }
            match lines.next_line().await? {
                Some(line) => progress.acknowledge(&line)?,
                None => return Ok(()),
            }
        }
    }
    Ok(())
}
