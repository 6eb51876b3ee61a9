//! Third-party clients of event streams: Chromium's `EventSource`, the npm package `eventsource` and the crate
//! `eventsource-client`. They open the streams of an agent hub, and come back by themselves.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use eventsource_client::{Client as _, ClientBuilder, ReconnectOptions, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::hub::{Hub, within};
use super::webdriver::Browser;

const INSTALL: &str = "if it is missing: scripts/clients";

/// An event that a listener got.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Heard {
    user: String,
    pub(crate) event: String,
    pub(crate) data: String,
    pub(crate) id: String,
}

/// What each user's client has heard so far.
pub(crate) type Log = BTreeMap<String, Vec<Heard>>;

/// Who reads with what.
#[derive(Default)]
pub(crate) struct Users {
    /// On HTTP/1 a browser opens six connections to a server at most.
    pub(crate) chromium: Vec<String>,
    pub(crate) npm: Vec<String>,
    pub(crate) rust: Vec<String>,
}

impl Users {
    pub(crate) fn new(chromium: usize, npm: usize, rust: usize) -> Self {
        let named = |kind, count| (0..count).map(|n| format!("{kind}-{n}")).collect();
        Self {
            chromium: named("chromium", chromium),
            npm: named("npm", npm),
            rust: named("rust", rust),
        }
    }

    pub(crate) fn all(&self) -> Vec<String> {
        [&*self.chromium, &*self.npm, &*self.rust].concat()
    }
}

/// One client for each user. They go when it is dropped.
pub(crate) struct Clients {
    pub(crate) browser: Browser,
    _node: (Child, ChildStdin),
    _tasks: JoinSet<()>,
    heard: mpsc::UnboundedReceiver<Heard>,
    log: Log,
    /// How many streams have begun, those of clients that came back among them.
    opened: usize,
}

impl Clients {
    /// Opens the streams, and waits until they are open.
    pub(crate) async fn open(hub: &Hub, users: &Users) -> Self {
        let (tell, heard) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let node = npm(hub, &users.npm, &tell, &mut tasks);
        for user in &users.rust {
            tasks.spawn(rust(hub, user.clone(), tell.clone()));
        }
        let browser = Browser::start().await;
        // A document of the hub that opens no streams of its own.
        browser.open(hub.url(&["stats"]).as_str()).await;
        browser.eval(&chromium(&users.chromium)).await;

        let log = users.all().into_iter().map(|user| (user, Vec::new()));
        let mut clients = Self {
            browser,
            _node: node,
            _tasks: tasks,
            heard,
            log: log.collect(),
            opened: 0,
        };
        // Not only registered: what the hub writes at the beginning is on its way to all of them.
        let opened = async {
            while clients.opened < clients.log.len() {
                clients.listen().await;
            }
        };
        within("all streams", opened).await;
        clients
    }

    /// Takes down what was heard since the last time.
    async fn listen(&mut self) {
        // The browser has to be asked.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let in_the_browser = self.browser.eval("heard.splice(0)").await;
        let in_the_browser: Vec<Heard> =
            serde_json::from_value(in_the_browser).expect("the script has written it");
        let others = std::iter::from_fn(|| self.heard.try_recv().ok());
        for heard in others.chain(in_the_browser) {
            if heard.event == "open" {
                self.opened += 1;
                continue;
            }
            let of_user = self.log.get_mut(&heard.user).expect("a user of ours");
            of_user.push(heard);
        }
    }

    /// Waits until each of the users' clients has heard enough.
    pub(crate) async fn wait_for_all(
        &mut self,
        what: &str,
        is_enough: impl Fn(&[Heard]) -> bool,
    ) -> &Log {
        let begin = tokio::time::Instant::now();
        loop {
            let mut missing = self.log.iter().filter(|(_, heard)| !is_enough(heard));
            let Some((user, heard)) = missing.next() else {
                return &self.log;
            };
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "{what}: {user} and {} more have not heard enough within 30 seconds. {user} heard {}, the last of it: {:?}",
                missing.count(),
                heard.len(),
                heard.last()
            );
            self.listen().await;
        }
    }
}

/// Waits until the hub has so many connections.
pub(crate) async fn wait_for_connections(hub: &Hub, count: usize) {
    let there = async {
        while stats(hub).await["connections"] != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("all streams", there).await;
}

pub(crate) async fn stats(hub: &Hub) -> Value {
    let response = hub.client.get(hub.url(&["stats"])).send().await;
    let stats = response.expect("a response").json().await;
    stats.expect("JSON")
}

/// A script that opens the streams and keeps what is heard in `heard`.
fn chromium(users: &[String]) -> String {
    format!(
        "window.heard = [], {}.forEach(user => {{
             const source = new EventSource(`/users/${{user}}/streams/text`);
             for (const event of ['open', 'text', 'gap', 'message']) {{
                 source.addEventListener(event, ({{ data = '', lastEventId: id = '' }}) => {{
                     heard.push({{ user, event, data, id }});
                 }});
             }}
         }})",
        json!(users)
    )
}

/// A process of Node that reads all the streams.
fn npm(
    hub: &Hub,
    users: &[String],
    tell: &mpsc::UnboundedSender<Heard>,
    tasks: &mut JoinSet<()>,
) -> (Child, ChildStdin) {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/sse");
    assert!(
        installed.join("node_modules/eventsource").is_dir(),
        "no npm package eventsource, {INSTALL}"
    );
    // Given as an argument: a file's imports are looked for next to it, those of an argument where the process runs.
    let mut child = Command::new("node")
        .args(["--input-type=module", "--eval"])
        .arg(include_str!("../clients/sse/client.mjs"))
        .arg("--")
        .arg(hub.url(&[]).as_str())
        .args(users)
        .current_dir(installed)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("no node, {INSTALL}\n{error}"));
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let tell = tell.clone();
    tasks.spawn(async move {
        while let Some(line) = lines.next_line().await.expect("UTF-8") {
            let heard = serde_json::from_str(&line);
            // Nobody listens any more at the end of the test.
            let _ = tell.send(heard.unwrap_or_else(|error| panic!("{line}: {error}")));
        }
    });
    let stdin = child.stdin.take().expect("a pipe");
    (child, stdin)
}

/// A client that does what the others do by themselves: it comes back after a second, however often that was before. It
/// takes the `retry:` of streams whose first block has data.
fn rust(
    hub: &Hub,
    user: String,
    tell: mpsc::UnboundedSender<Heard>,
) -> impl Future<Output = ()> + use<> {
    let transport = HyperTransport::builder().disable_proxy().build_http();
    let second = Duration::from_secs(1);
    let reconnect = ReconnectOptions::reconnect(true)
        .delay(second)
        .backoff_factor(1)
        .delay_max(second);
    let client = ClientBuilder::for_url(hub.url(&["users", &user, "streams", "text"]).as_str())
        .expect("a URL")
        .reconnect(reconnect.build())
        .build_with_transport(transport.expect("a client"));
    let mut stream = client.stream();
    async move {
        while let Some(item) = stream.next().await {
            let (event, data, id) = match item {
                Ok(SSE::Connected(_)) => ("open".into(), String::new(), None),
                Ok(SSE::Event(event)) => (event.event_type, event.data, event.id),
                // An error is a connection that broke: the stream goes on with the next one.
                Ok(SSE::Comment(_)) | Err(_) => continue,
            };
            let heard = Heard {
                user: user.clone(),
                event,
                data,
                id: id.unwrap_or_default(),
            };
            let _ = tell.send(heard);
        }
    }
}
