//! A real NATS server as the engine of a [`Cluster`](super::cluster::Cluster), with a network to each node.

use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_trait::async_trait;
use tidings::backplane::{Backplane, Level};
use tidings_nats::{Interest, Log, Nats, Settings};

use super::cluster::Engine;
use super::nats::{Network, Server};

pub(crate) struct Real {
    server: Server,
    level: Level,
    interest: Interest,
    networks: Vec<Network>,
}

impl Real {
    pub(crate) fn start(level: Level, interest: Interest) -> Self {
        Self {
            server: Server::start(),
            level,
            interest,
            networks: Vec::new(),
        }
    }
}

#[async_trait]
impl Engine for Real {
    fn level(&self) -> Level {
        self.level
    }

    async fn node(&mut self) -> Arc<dyn Backplane> {
        let network = Network::to(self.server.address()).await;
        let options = ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .ping_interval(Duration::from_secs(1));
        let settings = Settings::new("faults")
            .interest(self.interest)
            .timeout(Duration::from_secs(2));
        let settings = match self.level {
            Level::Replayable => settings.replayable(Log::new("FAULTS").max_per_user(1_000_000)),
            _ => settings,
        };
        let nats = Nats::connect(&network.url(), options, settings).await;
        self.networks.push(network);
        Arc::new(nats.expect("the server is there"))
    }

    async fn stop(&mut self) {
        self.server.kill();
    }

    async fn start(&mut self) {
        self.server.restart();
    }

    async fn cut(&mut self, node: usize) {
        self.networks[node].cut();
    }

    async fn mend(&mut self, node: usize) {
        self.networks[node].mend();
    }

    /// The network does that, when it is cut.
    fn lose_acknowledgements(&mut self, _: usize) {}
}
