//! Two nodes and one server between them: what is sent on one arrives on the other, and a page that loses its node goes on with
//! the other one.
//!
//!     cargo run -p cluster
//!
//! Starts its own `nats-server` (Debian's package of that name) in a temporary folder, or uses `--engine URL`: Redis or Valkey at
//! `redis://...`, or servers of NATS, `nats://...[,nats://...]`, which need JetStream. In production each node is a process on its
//! own machine; here both are in one process, each with its own connection to the server. `node` is one node, and
//!
//!     cargo run -p cluster -- --engine URL --node ADDR [--replicas N] [--per-user N] [--durable] [--at-most-once]
//!
//! runs only one node. `--durable` states that Redis loses nothing over a restart, see `tidings_redis::Log::durable`.
//!
//! The page opens its stream on one node. When that ends, it opens one on the next, and names the last id that it saw: ids are
//! the same everywhere. `POST /stop` stops a node, as a deployment does; it comes back after five seconds.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lexopt::{Arg, ValueExt};
use node::{Anything, Kept};
use tidings::serve::bind;
use tidings_nats::async_nats;

mod node;

const NODES: [&str; 2] = ["127.0.0.1:3001", "127.0.0.1:3002"];

/// How long a node that was stopped stays away.
const AWAY: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Anything> {
    let args = Args::parse()?;
    if let Some(addr) = args.node {
        let engine = args.engine.ok_or("a node of its own needs --engine")?;
        let engine = node::connect(&engine, args.kept).await?;
        let listener = bind(&*addr).await?;
        let url = format!("http://{}", listener.local_addr()?);
        println!("listens on {url}");
        return node::run(listener, engine, url).await;
    }
    let (server, url) = match args.engine {
        Some(url) => (None, url),
        None => {
            let server = Server::start().await?;
            let url = server.url.clone();
            (Some(server), url)
        }
    };
    // Somebody else's URL may have a password in it.
    let over = server
        .as_ref()
        .map_or("the given engine", |server| &server.url);
    let [one, two] = NODES.map(|addr| tokio::spawn(run(addr, url.clone(), args.kept)));
    println!(
        "\
Two nodes, http://127.0.0.1:3001 and http://127.0.0.1:3002, over {over}

Open http://127.0.0.1:3001 in a browser and send something; or:

  curl -N http://127.0.0.1:3001/events/ann
  curl -d hello http://127.0.0.1:3002/events/ann
  curl -X POST http://127.0.0.1:3001/stop

Ctrl-C stops it."
    );
    tokio::select! {
        ended = one => ended??,
        ended = two => ended??,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    drop(server);
    Ok(())
}

struct Args {
    engine: Option<String>,
    node: Option<String>,
    kept: Option<Kept>,
}

impl Args {
    fn parse() -> Result<Self, lexopt::Error> {
        let (mut engine, mut node, mut kept) = (None, None, Kept::default());
        let mut is_kept = true;
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Arg::Long("engine") => engine = Some(args.value()?.string()?),
                Arg::Long("node") => node = Some(args.value()?.string()?),
                Arg::Long("replicas") => kept.replicas = args.value()?.parse()?,
                Arg::Long("per-user") => kept.per_user = args.value()?.parse()?,
                Arg::Long("durable") => kept.is_durable = true,
                Arg::Long("at-most-once") => is_kept = false,
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(Self {
            engine,
            node,
            kept: is_kept.then_some(kept),
        })
    }
}

/// One node, which comes back when it was stopped.
async fn run(addr: &'static str, url: String, kept: Option<Kept>) -> Result<(), Anything> {
    let nodes = NODES.map(|addr| format!("http://{addr}")).join(",");
    loop {
        let engine = node::connect(&url, kept).await?;
        node::run(bind(addr).await?, engine, nodes.clone()).await?;
        println!("{addr} is stopped");
        tokio::time::sleep(AWAY).await;
        println!("{addr} is back");
    }
}

/// A NATS server of our own, which ends with us.
struct Server {
    child: Child,
    url: String,
    folder: PathBuf,
}

impl Server {
    async fn start() -> Result<Self, Anything> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let folder = std::env::temp_dir().join(format!("tidings-cluster-{}", std::process::id()));
        let child = Command::new("nats-server")
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .args(["--jetstream", "--store_dir"])
            .arg(&folder)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!("nats-server does not start ({error}); if it is missing: apt-get install nats-server")
            })?;
        let server = Self {
            child,
            url: format!("nats://127.0.0.1:{port}"),
            folder,
        };
        for _ in 0..200 {
            if async_nats::connect(&server.url).await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("nats-server does not answer".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, by the same Ctrl-C.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
