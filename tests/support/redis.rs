//! A Redis server of one's own. `REDIS_SERVER` names another program than `redis-server`.

#![allow(dead_code, reason = "each program uses a part of it")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const INSTALL: &str = "if it is missing: apt-get install --no-install-recommends redis-server";

/// Nothing takes so long.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

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

    /// Another one, which has what this one has and follows it.
    pub(crate) async fn replica(&self) -> Self {
        let replica = Self::start(self.options);
        replica.follow(self).await;
        replica
    }

    /// Takes over what another one has, and all that comes there.
    pub(crate) async fn follow(&self, primary: &Self) {
        let port = primary.port.to_string();
        self.command(&["REPLICAOF", "127.0.0.1", &port]).await;
        self.until("master_link_status:up").await;
    }

    /// Lets a replica lead in its place. No write is lost: it waits until the replica has all.
    pub(crate) async fn hand_over(&self, replica: &Self) {
        let port = replica.port.to_string();
        let failover = ["FAILOVER", "TO", "127.0.0.1", &port];
        // It refuses until the replica has told how much it has.
        let begun = Instant::now();
        while let Err(error) = self.try_command(&failover).await {
            assert!(begun.elapsed() < BOUND, "{error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        replica.until("role:master").await;
    }

    /// Waits until it says so of itself.
    pub(crate) async fn until(&self, line: &str) {
        let mut connection = self.connection().await;
        let begun = Instant::now();
        while begun.elapsed() < BOUND {
            let info = redis::cmd("INFO");
            let info: String = info.query_async(&mut connection).await.expect("an answer");
            if info.lines().any(|found| found == line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{line}: not within {BOUND:?}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(url(self.address())).expect("a URL");
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(BOUND))
            .set_response_timeout(Some(BOUND));
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        connection.await.expect("the server is there")
    }

    pub(crate) async fn command(&self, words: &[&str]) {
        self.try_command(words).await.expect("the server does it");
    }

    pub(crate) async fn try_command(&self, words: &[&str]) -> Result<(), redis::RedisError> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.connection().await).await
    }

    /// Ends it as a crash does, SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Loses its files. It must not run.
    pub(crate) fn lose_disk(&self) {
        fs::remove_dir_all(&self.folder).expect("it has a folder");
        fs::create_dir_all(&self.folder).expect("a folder for temporary files can be written to");
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

/// A Sentinel that is alone, which promotes a server's replica when the server is gone.
pub(crate) struct Sentinel {
    child: Child,
    port: u16,
    /// Its configuration, which it writes to.
    config: PathBuf,
}

impl Sentinel {
    /// Returns when it has heard of the replica from the replica itself.
    pub(crate) async fn of(primary: &Server) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        let port = free.local_addr().expect("it has an address").port();
        drop(free);
        let config = primary.folder.join(format!("sentinel-{port}.conf"));
        let text = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor one 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds one 500\nsentinel failover-timeout one 3000\n",
            primary.port
        );
        fs::write(&config, text).expect("the folder is there");
        let child = Command::new(program())
            .arg(&config)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server does not start: {error}; {INSTALL}"));
        let sentinel = Self {
            child,
            port,
            config,
        };
        // Before, it would not promote it, and try again later.
        let has_heard = |replicas: &[HashMap<String, String>]| {
            let is_up = |replica: &HashMap<String, String>| {
                replica["master-link-status"] == "ok" && replica["flags"] == "slave"
            };
            replicas.len() == 1 && replicas.iter().all(is_up)
        };
        sentinel.until(["REPLICAS", "one"], has_heard).await;
        sentinel
    }

    /// Waits until it says that this one leads.
    pub(crate) async fn until_leads(&self, server: &Server) {
        let port = server.port.to_string();
        let leads = |address: &[String]| address.last() == Some(&port);
        self.until(["GET-MASTER-ADDR-BY-NAME", "one"], leads).await;
    }

    async fn until<T>(&self, question: [&str; 2], is_it: impl Fn(&[T]) -> bool)
    where
        T: redis::FromRedisValue,
    {
        let client = redis::Client::open(url((Ipv4Addr::LOCALHOST, self.port).into()));
        let client = client.expect("a URL");
        let begun = Instant::now();
        loop {
            let answer = async {
                let mut connection = client.get_multiplexed_async_connection().await.ok()?;
                let mut command = redis::cmd("SENTINEL");
                command.arg(&question);
                let answer: Vec<T> = command.query_async(&mut connection).await.ok()?;
                is_it(&answer).then_some(())
            };
            if answer.await.is_some() {
                return;
            }
            let is_late = begun.elapsed() > 2 * BOUND;
            assert!(!is_late, "{question:?}: not within {:?}", 2 * BOUND);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
        let _ = fs::remove_file(&self.config);
    }
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("redis://{address}")
}

fn program() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into())
}

fn run(folder: &PathBuf, port: u16, options: &[&str]) -> Option<Child> {
    let mut child = Command::new(program())
        .args(["--bind", "127.0.0.1", "--save", ""])
        // A replica is not waited for.
        .args(["--repl-diskless-sync-delay", "0"])
        .arg("--port")
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
