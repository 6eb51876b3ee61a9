//! Every future of the crate can be given up wherever it waits, and what its documentation says of that is true.
//!
//! A future is polled 0, 1, 2 … times, each time once it was woken, and then dropped, until one is ready before that. After
//! each, what was promised is looked at, and the next call has to work. [`COVERED`] names the test of each public item that
//! waits; [`nothing_that_waits_is_left_out`] compares it with the sources.

mod backplane;
mod broadcaster;
mod client;
mod nats;
#[cfg(feature = "serve")]
mod redis;
#[cfg(feature = "serve")]
mod serve;
mod streams;

use std::collections::BTreeSet;
use std::fs;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// A future that is polled so often, and then dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut(usize);

impl Cut {
    /// What the future has said, or `None` if it was given up.
    pub(crate) async fn run<F: Future>(self, future: F) -> Option<F::Output> {
        let Self(mut left) = self;
        let mut future = pin!(future);
        poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Whether the future is not even polled.
    pub(crate) fn is_at_once(self) -> bool {
        self.0 == 0
    }
}

/// Longer than any scenario takes on a clock that is paused.
const BOUND: Duration = Duration::from_secs(600);

/// Runs a scenario with cuts after 0, 1, 2 … polls, until its future was ready before that, and it says so. The future must
/// have waited `at_least` so often, or it was not where it should be given up.
pub(crate) async fn at_every_await(at_least: usize, mut scenario: impl AsyncFnMut(Cut) -> bool) {
    for polls in 0..10_000 {
        let done = timeout(BOUND, scenario(Cut(polls))).await;
        if done.unwrap_or_else(|_| panic!("not within {BOUND:?}, with {polls} polls")) {
            assert!(polls > at_least, "it waited {} times only", polls - 1);
            return;
        }
    }
    panic!("it is never ready");
}

/// A way to a server that says how many connections are open.
async fn counted(server: SocketAddr) -> (SocketAddr, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (open, count) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            open.send_modify(|open| *open += 1);
            let open = open.clone();
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(server).await {
                    // However it ends, it is over.
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
                open.send_modify(|open| *open -= 1);
            });
        }
    });
    (address, count)
}

/// What waits, by file and name (of a method, or of a type that is polled), and the test that gives it up.
const COVERED: &[(&str, &str, &str)] = &[
    (
        "backplane/contract.rs",
        "publish",
        "publications_are_asked_for_again",
    ),
    (
        "backplane/contract.rs",
        "set_interest",
        "interest_is_asked_for_again",
    ),
    (
        "backplane/contract.rs",
        "fetch",
        "questions_are_asked_again",
    ),
    (
        "backplane/contract.rs",
        "heads",
        "questions_are_asked_again",
    ),
    (
        "backplane/contract.rs",
        "close",
        "a_close_is_asked_for_again",
    ),
    (
        "redis/adapter.rs",
        "connect",
        "a_connection_to_redis_ends_with_its_future",
    ),
    (
        "nats/adapter.rs",
        "connect",
        "a_connection_to_nats_ends_with_its_future",
    ),
    (
        "nats/adapter.rs",
        "over",
        "a_node_over_a_shared_connection_leaves_nothing_behind",
    ),
    (
        "nats/connection.rs",
        "open",
        "a_shared_connection_to_nats_ends_with_its_future",
    ),
    (
        "nats/connection.rs",
        "open_with_events",
        "a_shared_connection_to_nats_ends_with_its_future",
    ),
    (
        "broadcaster/presence.rs",
        "PresenceStream",
        "presence_loses_nothing",
    ),
    (
        "broadcaster/dyn_broadcaster.rs",
        "register",
        "a_registration_leaves_nothing",
    ),
    (
        "broadcaster/dyn_broadcaster.rs",
        "unregister",
        "what_does_not_wait_is_done_or_not_begun",
    ),
    (
        "broadcaster/dyn_broadcaster.rs",
        "broadcast",
        "what_does_not_wait_is_done_or_not_begun",
    ),
    (
        "broadcaster/dyn_broadcaster.rs",
        "broadcast_many",
        "what_does_not_wait_is_done_or_not_begun",
    ),
    (
        "broadcaster/dyn_broadcaster.rs",
        "broadcast_all",
        "what_does_not_wait_is_done_or_not_begun",
    ),
    (
        "broadcaster/dyn_broadcaster.rs",
        "connection_count",
        "what_does_not_wait_is_done_or_not_begun",
    ),
    (
        "broadcaster/dyn_broadcaster.rs",
        "total_connections",
        "what_does_not_wait_is_done_or_not_begun",
    ),
    (
        "broadcaster/publisher.rs",
        "publish",
        "an_event_is_handed_over_or_dropped",
    ),
    (
        "broadcaster/publisher.rs",
        "publish_many",
        "an_event_is_handed_over_or_dropped",
    ),
    (
        "broadcaster/publisher.rs",
        "publish_all",
        "an_event_is_handed_over_or_dropped",
    ),
    (
        "broadcaster/publisher.rs",
        "flush",
        "a_flush_does_nothing_to_the_events",
    ),
    (
        "broadcaster/connections.rs",
        "register_when_ready",
        "a_registration_leaves_nothing",
    ),
    (
        "broadcaster/connections.rs",
        "resume_when_ready",
        "a_registration_leaves_nothing",
    ),
    (
        "broadcaster/publish.rs",
        "broadcast_confirmed",
        "an_event_is_on_its_way_with_the_first_poll",
    ),
    (
        "broadcaster/shutdown.rs",
        "shutdown",
        "a_shutdown_is_taken_up_again",
    ),
    (
        "console/settings.rs",
        "shutdown",
        "the_pages_of_a_console_end_all_the_same",
    ),
    ("serve/guard.rs", "StallGuard", "a_guard_loses_no_byte"),
    ("serve/listener.rs", "bind", "nothing_is_bound"),
    (
        "serve/listener.rs",
        "StallListener",
        "an_accept_loses_no_client",
    ),
    ("serve/server.rs", "Server", "a_server_goes_with_its_future"),
    (
        "serve/server.rs",
        "ServerFuture",
        "a_server_goes_with_its_future",
    ),
    ("sse/body.rs", "SseBody", "a_stream_loses_nothing"),
    (
        "sse/interop.rs",
        "into_axum_events",
        "a_stream_loses_nothing",
    ),
    (
        "subscription/stream.rs",
        "Subscription",
        "a_stream_loses_nothing",
    ),
    (
        "testkit/backplane/cluster.rs",
        "node",
        "the_tests_of_a_backplane_can_be_run_again",
    ),
    (
        "testkit/backplane/cluster.rs",
        "stop",
        "the_tests_of_a_backplane_can_be_run_again",
    ),
    (
        "testkit/backplane/cluster.rs",
        "start",
        "the_tests_of_a_backplane_can_be_run_again",
    ),
    (
        "testkit/backplane/cluster.rs",
        "cut",
        "the_tests_of_a_backplane_can_be_run_again",
    ),
    (
        "testkit/backplane/cluster.rs",
        "mend",
        "the_tests_of_a_backplane_can_be_run_again",
    ),
    (
        "testkit/backplane/every_level.rs",
        "*",
        "the_tests_of_a_backplane_can_be_run_again",
    ),
    (
        "testkit/backplane/failures.rs",
        "*",
        "the_tests_of_a_backplane_can_be_run_again",
    ),
    (
        "testkit/backplane/replayable.rs",
        "*",
        "the_tests_of_a_backplane_can_be_run_again",
    ),
    (
        "testkit/client.rs",
        "reconnect",
        "a_client_can_reconnect_again",
    ),
    ("testkit/client.rs", "open", "a_response_is_lost"),
    ("testkit/client.rs", "connect", "a_connection_is_closed"),
    (
        "testkit/wait.rs",
        "try_next",
        "what_is_read_one_by_one_is_not_lost",
    ),
    (
        "testkit/wait.rs",
        "next",
        "what_is_read_one_by_one_is_not_lost",
    ),
    (
        "testkit/wait.rs",
        "next_item",
        "what_is_read_one_by_one_is_not_lost",
    ),
    (
        "testkit/wait.rs",
        "collect",
        "what_was_collected_is_lost_and_no_more",
    ),
    (
        "testkit/wait.rs",
        "collect_until",
        "what_was_collected_is_lost_and_no_more",
    ),
    (
        "testkit/wait.rs",
        "collect_to_end",
        "what_was_collected_is_lost_and_no_more",
    ),
    (
        "testkit/wait.rs",
        "expect_end",
        "an_end_can_be_waited_for_again",
    ),
    (
        "testkit/wait.rs",
        "expect_break",
        "an_end_can_be_waited_for_again",
    ),
    (
        "testkit/wait.rs",
        "assert_silent_for",
        "an_end_can_be_waited_for_again",
    ),
];

/// Traits of which a public type's implementation is something that waits.
const POLLED: &[&str] = &["Future", "Stream", "Body", "Listener", "AsyncRead"];

/// What the code of a file has for others that waits: `pub async fn`s, the `async fn`s of public traits, `pub fn`s that
/// return a future or a stream, and public types that are polled.
fn that_wait(code: &str) -> BTreeSet<String> {
    let name = |text: &str| {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut found = BTreeSet::new();
    let mut in_trait = false;
    let mut declared = None;
    for line in code.lines() {
        match line {
            _ if line.starts_with("pub trait ") => in_trait = true,
            "}" => in_trait = false,
            _ => {}
        }
        let line = line.trim_start();
        if let Some(rest) = line.strip_prefix("pub async fn ") {
            found.insert(name(rest));
        }
        if let Some(rest) = line.strip_prefix("async fn ").filter(|_| in_trait) {
            found.insert(name(rest));
        }
        if let Some(rest) = line.strip_prefix("pub fn ") {
            declared = Some(name(rest));
        }
        let (head, returns) = line.split_once("-> impl ").unwrap_or_default();
        if returns.starts_with("Future<") || returns.starts_with("Stream<") {
            let is_public = head.starts_with("pub fn ") || head.starts_with(')');
            found.extend(declared.clone().filter(|_| is_public));
        }
        for of in POLLED {
            let Some((_, rest)) = line.split_once(&format!("{of} for ")) else {
                continue;
            };
            if line.starts_with("impl") && code.contains(&format!("\npub struct {}", name(rest))) {
                found.insert(name(rest));
            }
        }
    }
    found
}

#[test]
fn what_waits_is_found() {
    let code = "
pub trait Engine {
    async fn stop(&self);
}
pub struct Body1;
impl http_body::Body for Body1 {
    async fn not_this_one();
}
struct Private;
impl Future for Private {
pub(super) async fn nor_this() {}
    pub async fn wait(&self) {}
    pub fn next(&mut self) -> impl Future<Output = ()> {}
    pub fn events(
        self,
    ) -> impl Stream<Item = ()> {}
    fn quiet() -> impl Future<Output = ()> {}
";
    let found: Vec<_> = that_wait(code).into_iter().collect();
    assert_eq!(found, ["Body1", "events", "next", "stop", "wait"]);
}

#[test]
fn nothing_that_waits_is_left_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    let mut sources = files(&root.join("src"));
    for name in ["console", "nats", "redis", "testkit"] {
        let files = files(&root.join(format!("crates/tidings-{name}/src"))).into_iter();
        sources.extend(files.map(|(path, code)| (format!("{name}/{path}"), code)));
    }
    for (path, code) in sources {
        for item in that_wait(&code) {
            let is_whole = COVERED.iter().any(|row| (row.0, row.1) == (&path, "*"));
            let item = if is_whole { "*".to_owned() } else { item };
            found.insert((path.clone(), item));
        }
    }
    let covered = COVERED
        .iter()
        .map(|row| (row.0.to_owned(), row.1.to_owned()));
    assert_eq!(found, covered.collect(), "in the sources, and in the table");

    let tests: String = files(&root.join("tests/cluster/cancel"))
        .into_iter()
        .map(|(_, code)| code)
        .collect();
    for (_, _, test) in COVERED {
        let declared = format!("fn {test}() {{");
        assert!(tests.contains(&declared), "{test} is missing");
    }
}

/// All Rust files below a folder, by their path there.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(folder).expect("below it");
                let name = name.to_str().expect("UTF-8").replace('\\', "/");
                files.push((name, fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    files
}
