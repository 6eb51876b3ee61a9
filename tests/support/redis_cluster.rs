//! Redis as an engine that is [`Networked`](super::networked::Networked).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidings::backplane::Backplane;
use tidings_redis::{ConnectError, Redis};

use super::networked::{self, Settings};
use super::redis::{BOUND, Server, url};

#[async_trait]
impl networked::Server for Server {
    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn pid(&self) -> u32 {
        self.pid()
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn restart(&mut self) {
        self.restart();
    }

    /// Whoever connects meanwhile gets no answer either.
    async fn hang(&self, time: Duration) -> bool {
        let time = time.as_millis().to_string();
        self.command(&["CLIENT", "PAUSE", &time, "ALL"]).await;
        true
    }

    async fn replica(&self) -> Self {
        self.replica().await
    }

    async fn lead(&self) {
        self.command(&["REPLICAOF", "NO", "ONE"]).await;
    }

    async fn hand_over(&self, replica: &Self) {
        self.hand_over(replica).await;
    }
}

#[async_trait]
impl Settings for tidings_redis::Settings {
    type Server = Server;

    async fn connect(&self, server: SocketAddr) -> Arc<dyn Backplane> {
        let begun = Instant::now();
        loop {
            match Redis::connect(url(server), self.clone()).await {
                Ok(node) => return Arc::new(node),
                // A machine that is busy with other things.
                Err(ConnectError::NotInTime) if begun.elapsed() < BOUND => {}
                Err(error) => panic!("the server is there: {error}"),
            }
        }
    }
}
