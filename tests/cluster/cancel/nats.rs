//! NATS: the same for an engine behind sockets.

use std::sync::Arc;

use async_nats::ConnectOptions;
use tidings::backplane::Backplane;
use tidings_nats::{ConnectError, Connection, Log, Nats, Settings, Storage};
use tokio::sync::watch;

use super::at_every_await;
use super::backplane::everything_twice;
use crate::support::nats::Server;
use crate::support::within::within;

fn settings() -> Settings {
    let log = Log::new("CANCEL").storage(Storage::Memory);
    Settings::new("cancel").buckets(16).replayable(log)
}

fn options() -> ConnectOptions {
    ConnectOptions::new().ignore_discovered_servers()
}

async fn node(server: &Server) -> Arc<dyn Backplane> {
    let node = Nats::connect(&server.url(), options(), settings()).await;
    Arc::new(node.expect("it connects"))
}

/// A way to a server that says how many connections are open.
async fn counted(server: &Server) -> (String, watch::Receiver<usize>) {
    let (address, open) = super::counted(server.address()).await;
    (format!("nats://{address}"), open)
}

#[tokio::test]
async fn a_connection_to_nats_ends_with_its_future() {
    let server = Server::start();
    let (url, mut open) = counted(&server).await;
    at_every_await(3, async |cut| {
        let node = cut.run(Nats::connect(&url, options(), settings())).await;
        let is_connected = node.is_some_and(|node| node.map(drop).is_ok());
        let mut open = open.clone();
        let closed = open.wait_for(|open| *open == 0);
        let closed = within("its connection ends", closed).await;
        closed.expect("it counts");
        is_connected
    })
    .await;
    assert!(*open.borrow_and_update() == 0);
    node(&server).await;
}

#[tokio::test]
async fn a_shared_connection_to_nats_ends_with_its_future() {
    let server = Server::start();
    let (url, open) = counted(&server).await;
    let is_over = async |connection: Option<Result<Connection, ConnectError>>| {
        let is_connected = connection.is_some_and(|connection| connection.map(drop).is_ok());
        let mut open = open.clone();
        let closed = open.wait_for(|open| *open == 0);
        let closed = within("its connection ends", closed).await;
        closed.expect("it counts");
        is_connected
    };
    at_every_await(1, async |cut| {
        is_over(cut.run(Connection::open(&url, options())).await).await
    })
    .await;
    at_every_await(1, async |cut| {
        let opened = Connection::open_with_events(&url, options(), drop);
        is_over(cut.run(opened).await).await
    })
    .await;
}

#[tokio::test]
async fn a_node_over_a_shared_connection_leaves_nothing_behind() {
    let server = Server::start();
    let (url, mut open) = counted(&server).await;
    at_every_await(3, async |cut| {
        let connection = Connection::open(&url, options()).await;
        let connection = connection.expect("the server is there");
        let node = cut.run(Nats::over(&connection, settings())).await;
        let is_connected = node.is_some_and(|node| node.map(drop).is_ok());
        // The connection is still good for others, and ends when nobody has it.
        let node = Nats::over(&connection, settings()).await;
        drop((node.expect("it connects"), connection));
        let closed = open.wait_for(|open| *open == 0);
        let closed = within("its connection ends", closed).await;
        closed.expect("it counts");
        is_connected
    })
    .await;
}

/// The questions of the adapter, each behind an engine that is one.
#[tokio::test]
async fn what_was_asked_of_nats_can_be_asked_again() {
    let server = Server::start();
    everything_twice(async || node(&server).await).await;
}
