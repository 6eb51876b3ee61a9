//! Redis: the same for another engine behind sockets.

use std::sync::Arc;

use tidings::backplane::Backplane;
use tidings_redis::{Log, Redis, Settings};

use super::at_every_await;
use super::backplane::everything_twice;
use crate::support::redis::{Server, url};
use crate::support::within::within;

fn settings() -> Settings {
    Settings::new("cancel").replayable(Log::new())
}

async fn node(server: &Server) -> Arc<dyn Backplane> {
    let node = Redis::connect(url(server.address()), settings()).await;
    Arc::new(node.expect("it connects"))
}

#[tokio::test]
async fn a_connection_to_redis_ends_with_its_future() {
    let server = Server::start(&[]);
    let (address, open) = super::counted(server.address()).await;
    at_every_await(3, async |cut| {
        let node = cut.run(Redis::connect(url(address), settings())).await;
        let is_connected = node.is_some_and(|node| node.map(drop).is_ok());
        let mut open = open.clone();
        let closed = open.wait_for(|open| *open == 0);
        let closed = within("its connections end", closed).await;
        closed.expect("it counts");
        is_connected
    })
    .await;
    node(&server).await;
}

#[tokio::test]
async fn what_was_asked_of_redis_can_be_asked_again() {
    let server = Server::start(&[]);
    everything_twice(async || node(&server).await).await;
}
