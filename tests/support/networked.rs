//! An engine that is a server of its own, with a network to each node: for the suite of backplanes, and for runs under faults.

#![allow(dead_code, reason = "each program uses a part of it")]

use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidings::backplane::{Backplane, Level};
use tidings_testkit::backplane::{Cluster, Faults};

use super::cluster::Engine;
use super::nats::Network;
use super::three::signal;

/// What the settings of the suite keep of each user.
pub(crate) const KEPT: u32 = 40;

/// A server, as a process.
#[async_trait]
pub(crate) trait Server: Sized + Send + Sync {
    fn address(&self) -> SocketAddr;
    fn pid(&self) -> u32;
    /// As a crash does, SIGKILL.
    fn kill(&mut self);
    /// At the same address, with what it had kept.
    fn restart(&mut self);

    /// Lets it answer nobody for so long by a means of its own, if it has one.
    async fn hang(&self, _time: Duration) -> bool {
        false
    }

    /// Another one, which has what this one has and follows it.
    async fn replica(&self) -> Self {
        unimplemented!("it has none")
    }

    /// Lets a replica lead, which then follows nobody.
    async fn lead(&self) {}

    /// Lets a replica that follows this one lead in its place.
    async fn hand_over(&self, _replica: &Self) {}
}

/// How nodes connect to a server.
#[async_trait]
pub(crate) trait Settings: Send + Sync {
    type Server: Server;

    async fn connect(&self, server: SocketAddr) -> Arc<dyn Backplane>;
}

pub(crate) struct Networked<S: Settings> {
    server: Mutex<S::Server>,
    settings: S,
    /// Of each node, in the order in which they came.
    networks: Mutex<Vec<(usize, Network)>>,
    /// That of its nodes.
    level: Level,
    pauses: usize,
    /// And whether it follows.
    replica: Option<(S::Server, bool)>,
    /// Nodes that have not noticed yet are still connected to it.
    former: Option<S::Server>,
}

impl<S: Settings> Networked<S> {
    pub(crate) fn new(server: S::Server, settings: S) -> Self {
        Self {
            server: Mutex::new(server),
            settings,
            networks: Mutex::default(),
            level: Level::AtMostOnce,
            pauses: 0,
            replica: None,
            former: None,
        }
    }

    async fn connect(&self) -> Arc<dyn Backplane> {
        let address = self.server.lock().unwrap().address();
        let network = Network::to(address).await;
        let node = self.settings.connect(network.address).await;
        self.networks.lock().unwrap().push((id(&node), network));
        node
    }

    fn with_network(&self, node: &Arc<dyn Backplane>, what: impl FnOnce(&Network)) {
        let networks = self.networks.lock().unwrap();
        // An earlier one may have been where it is now.
        let of_node = networks.iter().rfind(|(of, _)| *of == id(node));
        what(&of_node.expect("it is one of ours").1);
    }

    fn server(&mut self) -> &mut S::Server {
        self.server.get_mut().unwrap()
    }

    fn network(&mut self, node: usize) -> &Network {
        &self.networks.get_mut().unwrap()[node].1
    }
}

fn id(node: &Arc<dyn Backplane>) -> usize {
    Arc::as_ptr(node).cast::<()>() as usize
}

#[async_trait]
impl<S: Settings> Cluster for Networked<S> {
    async fn node(&self) -> Arc<dyn Backplane> {
        self.connect().await
    }

    fn max_per_user(&self) -> Option<usize> {
        Some(KEPT as usize)
    }
}

#[async_trait]
impl<S: Settings> Faults for Networked<S> {
    async fn stop(&self) {
        self.server.lock().unwrap().kill();
    }

    async fn start(&self) {
        self.server.lock().unwrap().restart();
    }

    async fn cut(&self, node: &Arc<dyn Backplane>) {
        self.with_network(node, Network::cut);
    }

    async fn mend(&self, node: &Arc<dyn Backplane>) {
        self.with_network(node, Network::mend);
    }
}

#[async_trait]
impl<S: Settings> Engine for Networked<S> {
    fn level(&self) -> Level {
        self.level
    }

    async fn node(&mut self) -> Arc<dyn Backplane> {
        let node = self.connect().await;
        self.level = node.level();
        node
    }

    async fn stop(&mut self) {
        self.server().kill();
    }

    async fn start(&mut self) {
        self.server().restart();
    }

    async fn cut(&mut self, node: usize) {
        self.network(node).cut();
    }

    async fn mend(&mut self, node: usize) {
        self.network(node).mend();
    }

    /// The network does that, when it is cut.
    fn lose_acknowledgements(&mut self, _: usize) {}

    /// All of it, or, with files, nothing.
    fn replace(&mut self, _: usize) {
        self.server().restart();
    }

    async fn pause(&mut self, time: Duration) {
        self.pauses += 1;
        let is_odd = self.pauses % 2 == 1;
        let server = self.server();
        if is_odd || !server.hang(time).await {
            signal(server.pid(), "STOP");
        }
    }

    async fn resume(&mut self) {
        signal(self.server().pid(), "CONT");
    }

    async fn replicate(&mut self, follows: bool) {
        let replica = self.server().replica().await;
        if !follows {
            replica.lead().await;
        }
        self.replica = Some((replica, follows));
    }

    async fn promote(&mut self) {
        let (replica, follows) = self.replica.take().expect("there is one");
        let server = self.server.get_mut().unwrap();
        match follows {
            true => server.hand_over(&replica).await,
            false => server.kill(),
        }
        for (_, network) in self.networks.get_mut().unwrap() {
            network.lead_to(replica.address());
        }
        self.former = Some(mem::replace(server, replica));
    }
}
