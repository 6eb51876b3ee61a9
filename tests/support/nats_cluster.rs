//! NATS as an engine that is [`Networked`](super::networked::Networked).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_trait::async_trait;
use tidings::backplane::Backplane;
use tidings_nats::Nats;

use super::nats::Server;
use super::networked::{self, Settings};

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
}

#[async_trait]
impl Settings for tidings_nats::Settings {
    type Server = Server;

    async fn connect(&self, server: SocketAddr) -> Arc<dyn Backplane> {
        let options = ConnectOptions::new()
            .ignore_discovered_servers()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .ping_interval(Duration::from_secs(1));
        let node = Nats::connect(&format!("nats://{server}"), options, self.clone()).await;
        Arc::new(node.expect("the server is there"))
    }
}
