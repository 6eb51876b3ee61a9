//! A NATS server of one's own, and a network between it and a node that can be cut. `NATS_SERVER` names another program than
//! `nats-server`.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const INSTALL: &str = "if it is missing: apt-get install --no-install-recommends nats-server";

/// A server with JetStream in a folder of its own. Dropping it ends it and leaves nothing behind.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    // Dropped last, when nobody writes to it any more.
    folder: Folder,
}

impl Server {
    /// Starts one, and returns when it takes connections.
    pub(crate) fn start() -> Self {
        Self::configured("")
    }

    /// Starts one with this in its configuration.
    pub(crate) fn configured(text: &str) -> Self {
        let folder = Folder::new();
        fs::write(folder.0.join("server.conf"), text).expect("the folder is there");
        // It chooses one.
        let (child, port) = run(&folder.0, -1);
        Self {
            child,
            port,
            folder,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Ends it as a crash does, SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Lets it read another configuration while it runs.
    pub(crate) fn reconfigure(&self, text: &str) {
        fs::write(self.folder.0.join("server.conf"), text).expect("the folder is there");
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", "HUP", &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Ends it, and keeps a copy of its log as it is now.
    pub(crate) fn copy_log(&mut self) {
        self.kill();
        let status = Command::new("cp")
            .args(["-a", "jetstream", "copy"])
            .current_dir(&self.folder.0)
            .status();
        assert!(status.expect("cp runs").success());
    }

    /// Ends it, and puts that copy in the place of its log.
    pub(crate) fn lose_log_since_copy(&mut self) {
        self.kill();
        fs::remove_dir_all(self.folder.0.join("jetstream")).expect("there is a log");
        fs::rename(self.folder.0.join("copy"), self.folder.0.join("jetstream"))
            .expect("there is a copy");
    }

    /// Starts it again, at the same port and with the same folder.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let (child, port) = run(&self.folder.0, self.port.into());
        assert_eq!(port, self.port, "it listens where it did");
        self.child = child;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(folder: &Path, port: i32) -> (Child, u16) {
    let program = std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
    let mut child = Command::new(program)
        .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
        .args(["--jetstream", "--store_dir"])
        .arg(folder)
        .arg("--config")
        .arg(folder.join("server.conf"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("nats-server does not start: {error}; {INSTALL}"));
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let (tx, rx) = mpsc::channel();
    // It reads to the end, so that the server can go on writing.
    thread::spawn(move || {
        let mut port = None;
        for line in stderr.lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("Listening for client connections on ") {
                port = address
                    .parse()
                    .ok()
                    .map(|address: SocketAddr| address.port());
            }
            if line.ends_with("Server is ready") {
                let _ = tx.send(port);
            }
        }
    });
    let port = rx.recv_timeout(Duration::from_secs(20)).ok().flatten();
    (child, port.expect("nats-server is ready within 20 seconds"))
}

/// A folder that is gone with its handle.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidings-nats-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder for temporary files can be written to");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A way to a server that can be cut: connections through it end, and new ones fail.
pub(crate) struct Network {
    pub(crate) address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    is_cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Network {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let (is_cut, cut) = watch::channel(false);
        let server = Arc::new(Mutex::new(server));
        let leads_to = Arc::clone(&server);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !*cut.borrow() {
                    let server = *leads_to.lock().unwrap();
                    tokio::spawn(pass(client, server, cut.clone()));
                }
            }
        });
        Self {
            address,
            server,
            is_cut,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on, connections are made to another server.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().unwrap() = server;
    }

    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub(crate) fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, mut cut: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    // Small messages go at once, as they do without it.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}
