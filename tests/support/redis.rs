//! A Redis server of one's own. `REDIS_SERVER` names another program than `redis-server`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use tidings::backplane::{Backplane, Level};
use tidings_redis::{Log, Redis, Settings};

use super::cluster::Engine;
use super::nats::Network;

const INSTALL: &str = "if it is missing: apt-get install --no-install-recommends redis-server";

/// What keeps everything that was accepted.
pub(crate) const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// A server in a folder of its own. Dropping it ends it and leaves nothing behind.
pub(crate) struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
    options: &'static [&'static str],
}

impl Server {
    /// Starts one that keeps no files but with these options, and returns when it takes commands.
    pub(crate) fn start(options: &'static [&'static str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidings-redis-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder for temporary files can be written to");
        for _ in 0..20 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
            let port = free.local_addr().expect("it has an address").port();
            drop(free);
            // Somebody else may have taken it meanwhile.
            if let Some(child) = run(&folder, port, options) {
                return Self {
                    child,
                    port,
                    folder,
                    options,
                };
            }
        }
        panic!("redis-server does not start; {INSTALL}");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(url(self.address())).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await;
        connection.expect("the server is there")
    }

    pub(crate) async fn command(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let mut connection = self.connection().await;
        let done = command.query_async::<redis::Value>(&mut connection);
        done.await.expect("the server does it");
    }

    /// Ends it as a crash does, SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Starts it again, at the same port and with the same folder.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let child = (0..20).find_map(|_| run(&self.folder, self.port, self.options));
        self.child = child.expect("it starts where it was");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("redis://{address}")
}

fn run(folder: &PathBuf, port: u16, options: &[&str]) -> Option<Child> {
    let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let mut child = Command::new(program)
        .args(["--bind", "127.0.0.1", "--save", "", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(folder)
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("redis-server does not start: {error}; {INSTALL}"));
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let (tx, rx) = mpsc::channel();
    // It reads to the end, so that the server can go on writing.
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if line.contains("eady to accept connections") {
                let _ = tx.send(());
            }
        }
    });
    if rx.recv_timeout(Duration::from_secs(20)).is_ok() {
        return Some(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// A server as the engine of a [`Cluster`](super::cluster::Cluster), with a network to each node.
pub(crate) struct Real {
    server: Server,
    level: Level,
    is_durable: bool,
    networks: Vec<Network>,
}

impl Real {
    pub(crate) fn start(level: Level, options: &'static [&'static str]) -> Self {
        Self {
            server: Server::start(options),
            level,
            is_durable: options == ALWAYS,
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
        let settings = Settings::new("faults").timeout(Duration::from_secs(2));
        let settings = match self.level {
            Level::Replayable => {
                let log = Log::new().max_per_user(1_000_000);
                settings.replayable(if self.is_durable { log.durable() } else { log })
            }
            _ => settings,
        };
        let node = Redis::connect(url(network.address), settings).await;
        self.networks.push(network);
        Arc::new(node.expect("the server is there"))
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

    /// All of it, or, with files, nothing.
    fn replace(&mut self, _: usize) {
        self.server.restart();
    }
}
