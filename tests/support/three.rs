//! Three NATS servers that are one cluster. They do not advertise their addresses: a node reaches them only by those it is given.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::{self, ErrorCode, stream};
use tokio::time::{Instant, sleep};

pub(crate) const STREAM: &str = "CLUSTER";

/// What the nodes' user may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Nothing,
    Publish,
    Subscribe,
}

pub(crate) struct Servers {
    program: String,
    folder: PathBuf,
    ports: [(u16, u16); 3],
    children: [Option<Child>; 3],
}

impl Servers {
    /// Starts all three, and returns when they have a leader. `NATS_SERVER` names another program than `nats-server`.
    pub(crate) async fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidings-three-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder for temporary files can be written to");
        let mut servers = Self {
            program: std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".into()),
            folder,
            ports: free_ports(),
            children: [None, None, None],
        };
        servers.write_permissions(Denied::Nothing);
        for server in 0..3 {
            servers.run(server);
        }
        servers.leader().await;
        servers
    }

    pub(crate) fn address(&self, server: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[server].0).into()
    }

    pub(crate) fn is_running(&self, server: usize) -> bool {
        self.children[server].is_some()
    }

    pub(crate) fn run(&mut self, server: usize) {
        let routes: Vec<String> = self
            .ports
            .iter()
            .map(|(_, port)| format!("nats-route://127.0.0.1:{port}"))
            .collect();
        let (port, route) = self.ports[server];
        let config = format!(
            "server_name: s{server}\nlisten: 127.0.0.1:{port}\n\
             jetstream {{ store_dir: {store:?} }}\n\
             cluster {{ name: three, listen: 127.0.0.1:{route}, no_advertise: true, routes: [{routes}] }}\n\
             include permissions.conf\n",
            store = self.store(server),
            routes = routes.join(", "),
        );
        let path = self.folder.join(format!("s{server}.conf"));
        fs::write(&path, config).expect("the folder is there");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("s{server}.log")))
            .expect("the folder is there");
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&path)
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "nats-server does not start: {error}; if it is missing: apt-get install nats-server"
                )
            });
        self.children[server] = Some(child);
    }

    fn store(&self, server: usize) -> PathBuf {
        self.folder.join(format!("s{server}"))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, server: usize) {
        if let Some(mut child) = self.children[server].take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    /// Ends it as a deployment does.
    pub(crate) fn terminate(&mut self, server: usize) {
        if let Some(mut child) = self.children[server].take() {
            signal(child.id(), "TERM");
            child.wait().expect("a child can be waited for");
        }
    }

    pub(crate) fn signal(&self, server: usize, name: &str) {
        if let Some(child) = &self.children[server] {
            signal(child.id(), name);
        }
    }

    /// The server must not run.
    pub(crate) fn lose_disk(&self, server: usize) {
        assert!(!self.is_running(server));
        fs::remove_dir_all(self.store(server)).expect("it had kept something");
    }

    /// Lets all servers read again what the nodes' user may do.
    pub(crate) fn deny(&self, denied: Denied) {
        self.write_permissions(denied);
        for server in 0..3 {
            self.signal(server, "HUP");
        }
    }

    fn write_permissions(&self, denied: Denied) {
        let permissions = match denied {
            Denied::Nothing => "",
            Denied::Publish => ", permissions: { publish: { deny: \"cluster.>\" } }",
            Denied::Subscribe => ", permissions: { subscribe: { deny: \"cluster.>\" } }",
        };
        let text = format!(
            "accounts {{ APP: {{ jetstream: enabled, users: [ \
             {{ user: admin, password: a }}, {{ user: node, password: n{permissions} }} ] }} }}\n"
        );
        fs::write(self.folder.join("permissions.conf"), text).expect("the folder is there");
    }

    /// A client that may do everything, connected to a server that runs.
    pub(crate) async fn admin(&self) -> jetstream::Context {
        let urls = (0..3).filter(|server| self.is_running(*server));
        let urls: Vec<async_nats::ServerAddr> = urls
            .map(|server| format!("nats://{}", self.address(server)))
            .map(|url| url.parse().expect("a URL"))
            .collect();
        let client = until("a connection", async || {
            let options = ConnectOptions::with_user_and_password("admin".into(), "a".into());
            options.connect(urls.clone()).await.ok()
        });
        jetstream::new(client.await)
    }

    /// Waits until the cluster can keep a stream.
    async fn leader(&self) {
        let admin = self.admin().await;
        until("a leader of the cluster", async || {
            // That there is no such stream only the leader can say.
            let error = admin.get_stream("none").await.err()?;
            matches!(error.kind(), GetStreamErrorKind::JetStream(_)).then_some(())
        })
        .await;
    }

    /// The stream as the cluster has it. Waits until it has a leader.
    pub(crate) async fn info(&self) -> stream::Info {
        let admin = self.admin().await;
        until("a leader of the stream", async || {
            let stream = admin.get_stream(STREAM).await.ok()?;
            let info = stream.cached_info().clone();
            info.cluster.as_ref()?.leader.as_ref()?;
            Some(info)
        })
        .await
    }

    pub(crate) async fn leading(&self) -> usize {
        let cluster = self.info().await.cluster.expect("it is one of a cluster");
        let leader = cluster.leader.expect("it has one");
        leader[1..].parse().expect("a name of ours")
    }

    /// Waits until every server has all of the stream.
    pub(crate) async fn caught_up(&self) {
        until("all replicas are current", async || {
            let cluster = self.info().await.cluster?;
            let others = &cluster.replicas;
            (others.len() == 2 && others.iter().all(|one| one.current && !one.offline))
                .then_some(())
        })
        .await;
    }

    /// Changes settings of the stream while it is in use, as an operator may.
    pub(crate) async fn edit(&self, change: impl Fn(&mut stream::Config)) {
        let admin = self.admin().await;
        until("the stream is changed", async || {
            let mut config = self.info().await.config;
            change(&mut config);
            admin.update_stream(config).await.ok()
        })
        .await;
    }

    /// All messages in the log's order.
    pub(crate) async fn log(&self) -> Vec<Vec<u8>> {
        let admin = self.admin().await;
        let info = self.info().await;
        let stream = admin.get_stream(STREAM).await.expect("it is there");
        let mut messages = Vec::new();
        for sequence in info.state.first_sequence..=info.state.last_sequence {
            let message = until("an answer", async || {
                match stream.get_raw_message(sequence).await {
                    Ok(message) => Some(Some(message.payload.to_vec())),
                    Err(error) if is_missing(&error) => Some(None),
                    Err(_) => None,
                }
            });
            messages.extend(message.await);
        }
        messages
    }

    /// Lets another server lead the stream.
    pub(crate) async fn step_down(&self) {
        let admin = self.admin().await;
        until("the leader steps down", async || {
            let asked = admin.request(format!("STREAM.LEADER.STEPDOWN.{STREAM}"), &());
            let answer: serde_json::Value = asked.await.ok()?;
            (answer["success"] == true).then_some(())
        })
        .await;
        self.leading().await;
    }

    /// Where the servers' own logs are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn is_missing(error: &stream::RawMessageError) -> bool {
    match error.kind() {
        RawMessageErrorKind::NoMessageFound => true,
        RawMessageErrorKind::JetStream(error) => error.error_code() == ErrorCode::NO_MESSAGE_FOUND,
        _ => false,
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in 0..3 {
            // One that is stopped takes no other signal, but this.
            self.kill(server);
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// Of each server one for clients and one for the others.
fn free_ports() -> [(u16, u16); 3] {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    // All at the same time, so that they differ.
    let listeners: [[TcpListener; 2]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| bind()));
    listeners.map(|pair| {
        let [client, route] = pair.map(|one| one.local_addr().expect("an address").port());
        (client, route)
    })
}

/// Tries again until it is so.
pub(crate) async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let tried = tokio::time::timeout(Duration::from_secs(10), attempt()).await;
        if let Ok(Some(value)) = tried {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within two minutes");
        sleep(Duration::from_millis(100)).await;
    }
}
